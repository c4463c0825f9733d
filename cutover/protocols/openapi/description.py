"""Derives from an OpenAPI document what one event stream promises: `describe_stream`.

Tools write event streams in different dialects. `_Reader` tells them apart by the place of the schema and by its fields:

    itemSchema, `data` a text                      the event, `data` as text        OpenAPI 3.2, FastAPI, TypeSpec
    itemSchema, `data` by its schema no string     the event, `data` parsed         ASP.NET Core
    itemSchema without a field of an event         the payload, with a warning
    schema, each branch an event with `data`       the event, `data` by branch      Speakeasy
    schema of an array                             its items, and the whole stream  SmallRye, OpenAPI 3.2
    schema with other fields                       the payload                      OpenAI
    schema of a string, or of anything             nothing is said, with a warning

The module is long because the values it returns and the choices that fill them are read together.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi import shape
from cutover.protocols.openapi.conversion import Converted, Schema, SchemaConverter
from cutover.protocols.openapi.ends import (
    TerminalEvent,
    declared_terminator,
    overlapping_branches,
    terminal_ends,
)
from cutover.protocols.openapi.operation import StreamResponse, find_operation, find_response
from cutover.protocols.openapi.promises import KEY, StreamPromises, read_promises
from cutover.protocols.openapi.references import Documents, Found

Reading: TypeAlias = Literal["event", "payload"]
Mode: TypeAlias = Literal["text", "parsed", "payload", "payload text"]
"""One way to hold an event to the schema: the event with its data as text, the event with its data parsed as JSON, the data
parsed as JSON, or the data as text. An event that holds in one mode of its stream holds."""

_KNOWN = ("3.0", "3.1", "3.2")
_ARRAY_KEYS = frozenset(
    {"minItems", "maxItems", "prefixItems", "contains", "uniqueItems", "unevaluatedItems"}
)
_TRIVIAL: Final = frozenset({"type", "items"})


@attrs.frozen(kw_only=True)
class DocumentWarning:
    """A weakness of the document: the contract can be derived, but a person should know of it."""

    rule: str
    """The id, such as ``openapi.no-item-schema``. Ids are stable."""
    message: str
    """One or two sentences: what is wrong, and the effect."""
    where: str
    """JSON pointer of the place in the document."""


@attrs.frozen(kw_only=True, eq=False)
class StreamDescription:
    """The facts that a document states about one event stream."""

    path: str
    """The path as the document has it."""
    method: str
    """The method, in capitals."""
    statuses: tuple[int, ...]
    """The HTTP statuses that are declared for the stream."""
    content_type: str
    """The media type of the stream."""
    dialect: str
    """The dialect, in words, for reports."""
    reading: Reading
    """`event` if the schema is that of the event, `payload` if it is that of the JSON in its data."""
    modes: tuple[Mode, ...]
    """The ways to hold an event to the schema; it holds if it holds in one of them."""
    terminator: str | None
    """The whole data of the event that ends the stream, exempt from the schema under any name; None if there is none."""
    terminal: tuple[TerminalEvent, ...]
    """The events that end the stream and that the schema covers."""
    promises: StreamPromises
    """The content of `x-sse-stream`; its defaults without one."""
    has_promises: bool
    """True if the document has an `x-sse-stream` object for this stream."""
    kinds: tuple[str, ...] | None
    """The kinds that the schema names at the kind pointer; None if it allows any."""
    converted: Converted
    """The schemas, as JSON Schema 2020-12."""
    item: str | None
    """Name of the schema of each event in `converted`; None if nothing is said."""
    whole: str | None
    """Name of the schema of all events as an array; None if nothing is said."""
    warnings: tuple[DocumentWarning, ...]
    """The weaknesses of the document that concern this stream."""


def describe_stream(
    document: Mapping[str, Any],
    path: str,
    method: str,
    *,
    remote: Mapping[str, Mapping[str, Any]] | None = None,
    terminator: str | None = None,
    reading: Reading | None = None,
) -> StreamDescription:
    """Return what a document says about the event stream of one operation. Nothing is fetched.

    Args:
        document: The document, from `read_document`. It is not changed.
        path: The path, as in the document or concrete: `/jobs/7/events` fits `/jobs/{id}/events`.
        method: The method, in any case.
        remote: Reference without its fragment -> the document that it names.
        terminator: The data of the event that ends the stream, if the document does not say it, or says it wrong.
        reading: What the schema is about, if the derived reading is wrong.

    Raises:
        OpenApiError: If no contract can be derived. Its `rule` says why.
    """
    version = check_version(document)
    documents = Documents.of(document, remote or {})
    operation = find_operation(documents, path, method)
    response = find_response(documents, operation)
    found = _Reader(documents, response, reading).read()
    promises, where = _promises(response.media, operation.node)
    converted, warnings = found.converted, [*_version_warnings(version), *found.warnings]
    ends = terminal_ends(converted, found.item, found.reading)
    if ends.unpinned:
        warnings.append(
            DocumentWarning(
                rule="openapi.terminal-unpinned",
                message="the branch marked as terminal pins no name and no value, so it cannot tell the end of the stream",
                where=response.media.where,
            )
        )
    warnings.extend(
        DocumentWarning(
            rule="openapi.nullable",
            message="`nullable` has no meaning here by the text of the specification; null is allowed all the same",
            where=place,
        )
        for place in converted.nullable[:1]
    )
    end = terminator or promises.terminator or declared_terminator(response) or ends.text
    return StreamDescription(
        path=operation.path,
        method=operation.method,
        statuses=response.statuses,
        content_type="text/event-stream",
        dialect=found.dialect,
        reading=found.reading,
        modes=found.modes,
        terminator=end,
        terminal=ends.events,
        promises=promises,
        has_promises=where is not None,
        kinds=_kinds(found, promises.kind),
        converted=converted,
        item=found.item,
        whole=found.whole,
        warnings=tuple(warnings),
    )


def check_version(document: Mapping[str, Any]) -> str:
    """Return the version of OpenAPI that a document names.

    Raises:
        OpenApiError: If it is no OpenAPI 3 document.
    """
    version = document.get("openapi")
    if version is None:
        named = f"Swagger {document['swagger']}" if "swagger" in document else "no version"
        raise OpenApiError(
            "openapi.version", f"the document names {named}; convert it to OpenAPI 3.x", where="/openapi"
        )
    if not str(version).startswith("3."):
        raise OpenApiError(
            "openapi.version",
            f"OpenAPI {version} is not supported; convert the document to 3.x",
            where="/openapi",
        )
    return str(version)


def _version_warnings(version: str) -> list[DocumentWarning]:
    """Return the warning about a version that came after this code."""
    if ".".join(version.split(".")[:2]) in _KNOWN:
        return []
    message = f"OpenAPI {version} is newer than 3.2; it is read as 3.2, and what is new in it is not"
    return [DocumentWarning(rule="openapi.version-unknown", message=message, where="/openapi")]


def _promises(media: Found, operation: Found) -> tuple[StreamPromises, str | None]:
    """Return the promises and their place: beside the schema, or on the operation."""
    for node in (media, operation):
        if isinstance(node.value, dict) and KEY in node.value:
            place = node.member(KEY)
            return read_promises(place.value, place.where), place.where
    return StreamPromises(), None


@attrs.frozen(kw_only=True, eq=False)
class _Found:
    """The schemas of a stream and how to read them."""

    dialect: str
    reading: Reading
    modes: tuple[Mode, ...]
    converted: Converted
    item: str | None = None
    whole: str | None = None
    warnings: tuple[DocumentWarning, ...] = ()


def _kinds(found: _Found, pointer: str) -> tuple[str, ...] | None:
    """Return the kinds that the schema names at a pointer; None if it allows any."""
    path = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    if found.reading == "payload":
        if path[0] != "data":
            return None
        path = path[1:]
    if found.item is None:
        return None
    values = shape.values_at(found.converted, found.converted.defs[found.item], path)
    return None if values is None else tuple(value for value in values if isinstance(value, str))


class _Reader:
    """The choice of a dialect for one media type object."""

    def __init__(self, documents: Documents, response: StreamResponse, reading: Reading | None) -> None:
        self.media, self.response, self.wanted = response.media, response, reading
        self.documents = documents
        self.converter = SchemaConverter(documents)
        self.converted = self.converter.finish()
        self.warnings: list[DocumentWarning] = []

    def read(self) -> _Found:
        """Return the schemas of the stream and how to read them."""
        media = self.media.value if isinstance(self.media.value, dict) else {}
        item = whole = None
        if "itemSchema" in media:
            item = self._add(self.media.member("itemSchema"))
            if "schema" in media:
                node = self.documents.follow(self.media.member("schema"))
                whole = self._whole(node, self._add(node), with_items=True)
            found = self._of_item(item)
        elif "schema" in media:
            found = self._of_schema(self.media.member("schema"))
            item, whole = found.item, found.whole
        else:
            found = self._nothing("the media type has neither itemSchema nor schema")
        if item is not None and self._is_unsatisfiable(item, found):
            self._warn(
                "openapi.unsatisfiable", "no event can satisfy the schema: every event will be reported"
            )
        if item is not None and overlapping_branches(self.converted, item, found.reading):
            self._warn(
                "openapi.overlapping",
                "a branch of oneOf pins neither name nor payload, so an event of another branch matches both",
            )
        return attrs.evolve(
            found, item=item, whole=whole, warnings=tuple(self.warnings), converted=self.converter.finish()
        )

    def _add(self, node: Found) -> str:
        """Convert a schema, and return its name."""
        name = self.converter.add(node)
        self.converted = self.converter.finish()
        return name

    def _found(
        self,
        dialect: str,
        reading: Reading,
        modes: tuple[Mode, ...],
        item: str | None = None,
        whole: str | None = None,
    ) -> _Found:
        """Return a result that has the reading the caller asked for, if there is one."""
        if self.wanted is not None and self.wanted != reading:
            reading, modes = self.wanted, ("payload",) if self.wanted == "payload" else ("text", "parsed")
        return _Found(
            dialect=dialect, reading=reading, modes=modes, converted=self.converted, item=item, whole=whole
        )

    def _warn(self, rule: str, message: str) -> None:
        self.warnings.append(DocumentWarning(rule=rule, message=message, where=self.media.where))

    def _says_nothing(self, why: str) -> None:
        """Note that the document has no schema of an event."""
        self._warn(
            "openapi.no-item-schema",
            f"{why}, so no event is checked; describe the event under itemSchema, beside the media type's other keys",
        )

    def _nothing(self, why: str) -> _Found:
        """Return the result for a document without a schema of an event, and note that."""
        self._says_nothing(why)
        return self._found("nothing is said", "event", ("text",))

    def _event_modes(self, schema: Schema) -> tuple[Mode, ...]:
        """Return the modes of an event whose data may be text or parsed, by branch."""
        modes = shape.data_modes(self.converted, schema) or frozenset({shape.TEXT})
        if modes == {shape.TEXT}:
            return ("text",)
        return ("parsed",) if modes == {shape.PARSED} else ("text", "parsed")

    def _payload_modes(self, schema: Schema) -> tuple[Mode, ...]:
        """Return the modes of a payload, which may be a bare text if its schema allows a string."""
        modes = shape.value_modes(self.converted, schema)
        open_to_all = not modes and not shape.property_names(self.converted, schema)
        return ("payload", "payload text") if shape.TEXT in modes or open_to_all else ("payload",)

    def _of_item(self, name: str) -> _Found:
        """Return the reading of an `itemSchema`."""
        schema = self.converted.defs[name]
        names = shape.property_names(self.converted, schema)
        fields = names & set(shape.FIELDS)
        foreign = shape.required_names(self.converted, schema) - set(shape.FIELDS)
        if names and (not fields or (not fields & {"data", "event"} and foreign)):
            if self.wanted != "event":
                self._warn(
                    "openapi.item-is-payload",
                    "the item schema has no field of an event, so it is read as the schema of the JSON in data",
                )
            return self._found("item schema of the payload", "payload", self._payload_modes(schema))
        modes = self._event_modes(schema)
        dialect = "item schema, data parsed" if modes == ("parsed",) else "item schema"
        return self._found(dialect, "event", modes)

    def _of_schema(self, node: Found) -> _Found:
        """Return the reading of a `schema`."""
        name = self._add(node)
        schema = self.converted.defs[name]
        node = self.documents.follow(node)
        if shape.types_of(self.converted, schema) == frozenset({"array"}):
            return self._of_array(node, name)
        if self.response.fern is not None:
            return self._found("x-fern-streaming", "payload", self._payload_modes(schema), item=name)
        if self._is_empty(schema):
            return self._nothing("`schema` is about the whole body and says nothing of its events")
        if (
            isinstance(node.value, dict)
            and "itemSchema" in node.value
            and not shape.property_names(self.converted, schema)
        ):
            return self._nothing("`itemSchema` stands inside `schema`, where it means nothing")
        if self._is_event_union(schema):
            return self._found(
                "schema of the event", "event", (*self._event_modes(schema), "payload"), item=name
            )
        return self._found("schema of the payload", "payload", self._payload_modes(schema), item=name)

    def _of_array(self, node: Found, name: str) -> _Found:
        """Return the reading of a `schema` of an array: its items are the events."""
        whole = self._whole(node, name, with_items=False)
        items = node.member("items")
        if items.value is None and whole is None:
            return self._nothing("`schema` says nothing of the items of the array")
        if items.value is None or "prefixItems" in node.value:
            return self._found("whole stream", "event", ("text", "parsed"), whole=whole)
        item = self._add(items)
        schema = self.converted.defs[item]
        if shape.property_names(self.converted, schema) & {"data", "event"}:
            return self._found("array of events", "event", self._event_modes(schema), item=item, whole=whole)
        return self._found(
            "array of payloads", "payload", self._payload_modes(schema), item=item, whole=whole
        )

    def _is_event_union(self, schema: Schema) -> bool:
        """Return True if each branch has `data` and no field that an event lacks."""
        own: set[str] = set()
        for part in shape.conjuncts(self.converted, schema):
            own.update(part.get("properties", ()))
        branches = [
            own | shape.property_names(self.converted, branch)
            for branch in shape.alternatives(self.converted, schema)
        ]
        return all("data" in names and names <= set(shape.FIELDS) for names in branches)

    def _is_empty(self, schema: Schema) -> bool:
        """Return True if a schema of the whole body says nothing of its events: a string, or anything."""
        if schema is False:
            return False
        return all(
            shape.types_of(self.converted, branch) == frozenset({"string"})
            or not any(part.keys() - {"allOf", "$ref"} for part in shape.conjuncts(self.converted, branch))
            for branch in shape.alternatives(self.converted, schema)
        )

    def _whole(self, node: Found, name: str, *, with_items: bool) -> str | None:
        """Return the name of the schema of all events as an array; None if it says no more than each item does."""
        schema = self.converted.defs[name]
        types = shape.types_of(self.converted, schema)
        if not isinstance(node.value, dict) or (types is not None and "array" not in types):
            return None
        keys = set(node.value) - _TRIVIAL
        if with_items and "items" in node.value:
            return name
        if not keys & {*_ARRAY_KEYS, "allOf", "anyOf", "oneOf", "not", "if"}:
            return None
        if with_items or "prefixItems" in node.value:
            return name
        # The items are checked one by one, so the whole need not report them again.
        rest = {key: value for key, value in node.value.items() if key != "items"}
        return self._add(Found(self.converter.keep(rest), self.documents.resource_of(node), node.where))

    def _is_unsatisfiable(self, name: str, found: _Found) -> bool:
        """Return True if it is plain that no event satisfies a schema."""
        schema = self.converted.defs[name]
        types = shape.types_of(self.converted, schema)
        if schema is False or (types is not None and not types):
            return True
        if found.reading == "payload":
            return False
        foreign = shape.required_names(self.converted, schema) - set(shape.FIELDS)
        return (types is not None and "object" not in types) or bool(foreign)
