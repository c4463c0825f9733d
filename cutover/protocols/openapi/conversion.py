"""Converts the schemas that one stream reaches to plain JSON Schema 2020-12.

All that a reference names is hoisted to one flat `$defs`, and each reference becomes `#/$defs/NAME`. So the result needs no
`$id`, no anchor and no lookup, and a fault elsewhere in the document does not matter. Three things change on the way:

- OpenAPI 3.0: keywords beside `$ref` are dropped, `nullable` and boolean `exclusiveMinimum` become what they mean.
- Content: a string with `contentMediaType` gets the keyword `CONTENT`, a number into `Converted.contents`. The validator
  decodes the text there and applies the schema of its content, in place, so that it counts inside `oneOf`.
- `$dynamicRef`: its target depends on the resources that were entered before (2020-12, 8.2.3.2). Each schema is converted
  once for each such history, so that the target is fixed.

The module is long because one conversion shares one state: the definitions, the edges between them and the bounds.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi.references import Documents, Found, Resource, escape, is_metaschema

CONTENT: Final = "x-cutover-content"
"""Keyword of a converted schema: index into `Converted.contents`."""
TERMINAL: Final = "x-ms-sse-terminal-event"
"""Extension that marks the branch of the last event."""
_BAD: Final = "openapi.bad-schema"
_MOST_PARTS = 4
"""Most references and `allOf` inside one another that are searched for `writeOnly`."""
_MOST_SCHEMAS = 100_000
"""Most schemas that one stream may reach. The largest public documents reach about 5,000."""

_KEPT = (
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties",
    "minProperties", "required", "dependentRequired", "format",
)  # fmt: skip
"""Keywords that are copied as they are."""
_IN_PLACE = ("not", "if", "then", "else")
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_BELOW = (
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "contains",
    "unevaluatedItems",
)
_BELOW_MAPS = ("properties", "patternProperties")

Schema: TypeAlias = dict[str, Any] | bool
_History: TypeAlias = tuple[tuple[str, Found], ...]
"""Name of a `$dynamicAnchor` -> the schema that the outermost entered resource gives it."""


@attrs.frozen(kw_only=True)
class Content:
    """The content of a text, by its content keywords."""

    kind: str
    """`json` or `text`."""
    is_base64: bool
    """True if the text is decoded from base64 first."""
    schema: str | None
    """Name in `$defs` of the schema of the content; None if any content is allowed."""


@attrs.frozen(kw_only=True, eq=False)
class Converted:
    """The schemas of one stream, as JSON Schema 2020-12."""

    defs: Mapping[str, Schema]
    """Name -> schema."""
    contents: tuple[Content, ...]
    """The contents that `CONTENT` keywords name."""
    nullable: tuple[str, ...]
    """Places at which `nullable` allows null although the text of the specification does not."""

    def target(self, schema: Schema) -> Schema | None:
        """Return the schema that the `$ref` of a schema names; None without one, or if it is a metaschema."""
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        return None if reference is None else self.defs.get(reference.removeprefix("#/$defs/"))


@attrs.define(eq=False)
class SchemaConverter:
    """The conversion of the schemas of one stream. Call `add` for each, then `finish`."""

    documents: Documents
    _defs: dict[str, Schema] = attrs.field(factory=dict, init=False)
    _names: dict[tuple[int, tuple[tuple[str, int], ...]], str] = attrs.field(factory=dict, init=False)
    _waiting: list[tuple[str, Found, _History]] = attrs.field(factory=list, init=False)
    _contents: list[Content] = attrs.field(factory=list, init=False)
    _nullable: list[str] = attrs.field(factory=list, init=False)
    # Name of a definition -> the definitions that apply to the same value, with the place of the first reference
    # and their number.
    _edges: dict[str, dict[str, tuple[str, int]]] = attrs.field(factory=dict, init=False)
    # The definition that is being converted.
    _current: str = attrs.field(default="", init=False)
    _count: int = attrs.field(default=0, init=False)
    # Schemas that were made here. They stay, so that the id of each stays its own.
    _made: list[dict[str, Any]] = attrs.field(factory=list, init=False)

    def keep(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema that is no part of a document, and hold it for as long as this conversion lives."""
        self._made.append(schema)
        return schema

    def add(self, node: Found) -> str:
        """Convert a schema and all that it reaches, and return its name in `$defs`.

        Raises:
            OpenApiError: If a reference is unresolved, remote or loops, or if a keyword is malformed.
        """
        name = self._name(node, self._entered(self.documents.resource_of(node), ()))
        while self._waiting:
            self._current, found, history = self._waiting.pop()
            self._defs[self._current] = self._convert(found, history, in_place=True, hidden=frozenset())
        self._refuse_loops()
        return name

    def finish(self) -> Converted:
        """Return all that was converted."""
        return Converted(
            defs=self._defs, contents=tuple(self._contents), nullable=tuple(dict.fromkeys(self._nullable))
        )

    def _entered(self, resource: Resource, history: _History) -> _History:
        """Return the history after a resource is entered: the outermost anchor of a name stays."""
        known = {name for name, _ in history}
        new = [
            (name, Found(value, resource, where))
            for name, (value, where) in resource.dynamic.items()
            if name not in known
        ]
        return (*history, *new)

    def _name(self, node: Found, history: _History) -> str:
        """Return the name of a schema in `$defs`, and have it converted if it is new."""
        key = (id(node.value), tuple(sorted((name, id(found.value)) for name, found in history)))
        name = self._names.get(key)
        # Small values such as True share one id, and converting them again costs nothing.
        if name is None or isinstance(node.value, bool):
            word = "".join(c if c.isalnum() else "-" for c in node.where.rpartition("/")[2]).strip("-")
            name = self._names[key] = f"{word or 'schema'}.{len(self._names)}.{len(self._defs)}"
            self._defs[name] = True
            self._waiting.append((name, node, history))
        return name

    def _convert(self, node: Found, history: _History, *, in_place: bool, hidden: frozenset[str]) -> Schema:
        """Return a schema as JSON Schema 2020-12.

        Args:
            node: The schema as the document has it.
            history: The anchors of the resources that were entered on the way.
            in_place: True if the schema applies to the same value as the definition that is being converted.
            hidden: The properties that a schema around this one says are `writeOnly`.
        """
        self._count += 1
        if self._count > _MOST_SCHEMAS:
            raise OpenApiError(
                _BAD, f"the stream reaches more than {_MOST_SCHEMAS} schemas", where=node.where
            )
        schema = node.value
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise OpenApiError(_BAD, "a schema is an object, true or false", where=node.where)
        resource = self.documents.resource_of(node)
        if resource is not node.resource:
            node, history = Found(schema, resource, node.where), self._entered(resource, history)
        out = self._referenced(node, history, in_place=in_place)
        if "$ref" not in schema or not resource.is_30:
            hidden |= self._write_only_names(node, 0)
            out.update((key, schema[key]) for key in _KEPT if key in schema)
            self._convert_below(node, history, out)
            self._convert_in_place(node, history, out, in_place=in_place, hidden=hidden)
            self._convert_content(node, history, out, in_place=in_place)
            self._convert_values(node, out, hidden)
            if schema.get("nullable") is True:
                out = self._with_null(node, out)
        if schema.get(TERMINAL) is True:
            out[TERMINAL] = True
        return out

    def _referenced(self, node: Found, history: _History, *, in_place: bool) -> dict[str, Any]:
        """Return the converted references of a schema."""
        schema, out = node.value, dict[str, Any]()
        if "$ref" in schema:
            reference = schema["$ref"]
            if isinstance(reference, str) and is_metaschema(reference):
                return {"$ref": reference.removesuffix("#")}
            out["$ref"] = self._link(
                node, self.documents.resolve(reference, node), history, in_place=in_place
            )
        if "$dynamicRef" in schema and not node.resource.is_30:
            found = self.documents.resolve(schema["$dynamicRef"], node)
            anchor = schema["$dynamicRef"].rpartition("#")[2]
            # Without a dynamic anchor at its first target, a `$dynamicRef` is a `$ref` (2020-12, 8.2.3.2).
            if found.resource.dynamic.get(anchor, (None, ""))[0] is found.value:
                found = dict(history).get(anchor, found)
            link = {"$ref": self._link(node, found, history, in_place=in_place)}
            out = {"allOf": [out, link]} if out else link
        return out

    def _link(self, node: Found, target: Found, history: _History, *, in_place: bool) -> str:
        """Return the reference to a converted schema, and note the edge if it applies to the same value."""
        resource = self.documents.resource_of(target)
        if resource is not node.resource:
            history = self._entered(resource, history)
        name = self._name(Found(target.value, resource, target.where), history)
        if in_place:
            edges = self._edges.setdefault(self._current, {})
            where, count = edges.get(name, (node.where, 0))
            edges[name] = where, count + 1
        return f"#/$defs/{name}"

    def _convert_below(self, node: Found, history: _History, out: dict[str, Any]) -> None:
        """Convert the keywords whose schemas apply to the members of a value."""
        schema = node.value
        for key in _BELOW:
            if key in schema:
                out[key] = self._inner(node.member(key), history)
        for key in _BELOW_MAPS:
            if key in schema:
                out[key] = {name: self._inner(node.member(key, name), history) for name in _object(node, key)}
        if "prefixItems" in schema:
            items = _array(node, "prefixItems")
            out["prefixItems"] = [
                self._inner(node.member("prefixItems", i), history) for i in range(len(items))
            ]

    def _inner(self, node: Found, history: _History) -> Schema:
        """Return the converted schema of a member of a value."""
        return self._convert(node, history, in_place=False, hidden=frozenset())

    def _convert_in_place(
        self, node: Found, history: _History, out: dict[str, Any], *, in_place: bool, hidden: frozenset[str]
    ) -> None:
        """Convert the keywords whose schemas apply to the value itself."""
        schema = node.value

        def convert(member: Found) -> Schema:
            return self._convert(member, history, in_place=in_place, hidden=hidden)

        for key in _IN_PLACE:
            if key in schema:
                out[key] = convert(node.member(key))
        for key in _IN_PLACE_LISTS:
            if key in schema:
                parts = [convert(node.member(key, index)) for index in range(len(_array(node, key)))]
                if not parts:
                    raise OpenApiError(_BAD, f"{key} is empty", where=node.where)
                out[key] = [*out.get(key, ()), *parts]
        if "dependentSchemas" in schema:
            names = _object(node, "dependentSchemas")
            out["dependentSchemas"] = {name: convert(node.member("dependentSchemas", name)) for name in names}
        discriminator = schema.get("discriminator")
        if isinstance(discriminator, dict) and isinstance(discriminator.get("propertyName"), str):
            out["discriminator"] = {"propertyName": discriminator["propertyName"]}

    def _convert_content(
        self, node: Found, history: _History, out: dict[str, Any], *, in_place: bool
    ) -> None:
        """Replace the content keywords by `CONTENT`, if their media type is one that is judged."""
        schema = node.value
        media = schema.get("contentMediaType")
        if not isinstance(media, str):
            return
        media = media.partition(";")[0].strip().lower()
        encoding = schema.get("contentEncoding")
        encoding = encoding.lower() if isinstance(encoding, str) else None
        is_json = media == "application/json" or media.endswith("+json")
        if not (is_json or media.startswith("text/")) or encoding not in {None, "base64"}:
            return
        name = None
        if "contentSchema" in schema:
            inner = node.member("contentSchema")
            # The content of a text without an encoding is that same text.
            same = in_place and not is_json and encoding is None
            name = self._link(node, inner, history, in_place=same).removeprefix("#/$defs/")
        out[CONTENT] = len(self._contents)
        self._contents.append(
            Content(kind="json" if is_json else "text", is_base64=encoding is not None, schema=name)
        )

    def _convert_values(self, node: Found, out: dict[str, Any], hidden: frozenset[str]) -> None:
        """Give the copied keywords the meaning that they have in 2020-12."""
        for limit, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            # OpenAPI 3.0: true says that the bound itself is not allowed.
            if isinstance(out.get(limit), bool) and out.pop(limit) and bound in out:
                out[limit] = out.pop(bound)
        if node.value.get("writeOnly") is True:
            out["writeOnly"] = True
        if hidden and isinstance(out.get("required"), list):
            out["required"] = [name for name in out["required"] if name not in hidden]

    def _write_only_names(self, node: Found, depth: int) -> frozenset[str]:
        """Return the properties that a schema says are `writeOnly`: a response need not hold them (2020-12, 9.4)."""
        schema = node.value
        if not isinstance(schema, dict) or depth > _MOST_PARTS:
            return frozenset()
        node = Found(schema, self.documents.resource_of(node), node.where)
        names = set()
        properties = schema.get("properties")
        for name, member in properties.items() if isinstance(properties, dict) else ():
            if isinstance(member, dict) and (
                member.get("writeOnly") is True or self._is_write_only(node.member("properties", name))
            ):
                names.add(name)
        parts = schema.get("allOf")
        for index in range(len(parts) if isinstance(parts, list) else 0):
            names |= self._write_only_names(node.member("allOf", index), depth + 1)
        if isinstance(schema.get("$ref"), str) and not is_metaschema(schema["$ref"]):
            names |= self._write_only_names(self.documents.resolve(schema["$ref"], node), depth + 1)
        return frozenset(names)

    def _is_write_only(self, node: Found) -> bool:
        """Return True if the schema that a property refers to is `writeOnly`."""
        reference = node.value.get("$ref")
        if not isinstance(reference, str) or is_metaschema(reference):
            return False
        target = self.documents.resolve(reference, node).value
        return isinstance(target, dict) and target.get("writeOnly") is True

    def _with_null(self, node: Found, out: dict[str, Any]) -> dict[str, Any]:
        """Return a schema that also allows null, and note the place if the specification does not say so."""
        values, types = out.get("enum"), out.get("type")
        types = [types] if isinstance(types, str) else types
        open_keys = {*_BELOW, *_BELOW_MAPS, "required", "writeOnly", "format"}
        if types is None and not out.keys() - open_keys:
            # Without a type, null is allowed already.
            return out
        if isinstance(types, list) and "null" in types and "enum" not in out:
            return out
        lists_null = not isinstance(values, list) or None in values
        if not (node.resource.is_30 and types is not None and lists_null and "const" not in out):
            self._nullable.append(node.where)
        if isinstance(types, list) and not out.keys() & {"const", "not", "if", "$ref", *_IN_PLACE_LISTS}:
            out["type"] = [*dict.fromkeys((*types, "null"))]
            if isinstance(values, list) and None not in values:
                out["enum"] = [*values, None]
            return out
        return {"anyOf": [out, {"type": "null"}]}

    def _refuse_loops(self) -> None:
        """Raise the error if a schema applies itself to the same value: no validator could come to an end.

        The same error, as a bad schema, if so many schemas apply to one value that a validator would not end in time.
        """
        state: dict[str, bool] = {}
        sizes: dict[str, int] = {}
        for start in self._edges:
            stack = [(start, iter(self._edges[start].items()))] if start not in state else []
            state.setdefault(start, True)
            while stack:
                name, edges = stack[-1]
                following = next(edges, None)
                if following is None:
                    state[name] = False
                    stack.pop()
                    own = self._edges.get(name, {}).items()
                    sizes[name] = 1 + sum(sizes[inner] * count for inner, (_, count) in own)
                    if sizes[name] > _MOST_SCHEMAS:
                        raise OpenApiError(
                            _BAD,
                            f"more than {_MOST_SCHEMAS} schemas apply to one value",
                            where=f"#/$defs/{name}",
                        )
                    continue
                target, (where, _) = following
                if state.get(target) is True:
                    raise OpenApiError(
                        "openapi.ref-loop",
                        "the reference comes back to itself without entering a member of the value; break the loop",
                        where=where,
                    )
                if target not in state:
                    state[target] = True
                    stack.append((target, iter(self._edges.get(target, {}).items())))


def _object(node: Found, key: str) -> dict[str, Any]:
    """Return the object at a keyword."""
    value = node.value[key]
    if not isinstance(value, dict):
        raise OpenApiError(_BAD, f"{key} is an object", where=f"{node.where}/{escape(key)}")
    return value


def _array(node: Found, key: str) -> list[Any]:
    """Return the array at a keyword."""
    value = node.value[key]
    if not isinstance(value, list):
        raise OpenApiError(_BAD, f"{key} is an array", where=f"{node.where}/{escape(key)}")
    return value
