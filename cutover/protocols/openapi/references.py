"""Finds what a `$ref` names, in the document and in the documents that the caller gives. Nothing is ever fetched.

A schema with `$id` is a resource of its own: a reference inside it is relative to it (JSON Schema 2020-12, 8.2.1). So each
node is looked at together with its resource.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi.source import plain_copy

_METASCHEMA = re.compile(r"https://json-schema\.org/draft/2020-12/(?:schema|meta/[a-z-]+)#?")
_VALUES = frozenset({"example", "examples", "default", "enum", "const", "value"})
"""Keywords whose values are no schemas, so that no `$id` in them counts."""
_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "schemas", "dependentSchemas"})
"""Keywords whose members have names that an author chose, so that no keyword is meant by them."""
_MOST_HOPS = 50
"""Most references in a row from one place. A longer row is a loop."""


@attrs.define(eq=False)
class Resource:
    """One document, or one schema with `$id` in it."""

    uri: str
    """The absolute URI if one is known; empty for a document that does not name itself."""
    root: Any
    """The value at the root of this resource."""
    where: str
    """The place of the root for messages: a JSON pointer, after the name of the document if it is not the first one."""
    is_30: bool
    """True if the document says OpenAPI 3.0, whose schemas are no JSON Schema 2020-12."""
    anchors: dict[str, tuple[Any, str]] = attrs.field(factory=dict)
    """Name of an `$anchor` or `$dynamicAnchor` -> the schema and its place."""
    dynamic: dict[str, tuple[Any, str]] = attrs.field(factory=dict)
    """Name of a `$dynamicAnchor` -> the schema and its place."""


@attrs.frozen(eq=False)
class Found:
    """A node of a document, with the resource that it belongs to."""

    value: Any
    """The value of the node."""
    resource: Resource
    """The resource against which a reference in the node is resolved."""
    where: str
    """The place of the node, for messages."""

    def member(self, *keys: str | int) -> "Found":
        """Return the node at a key of this one. Its value is None if there is none."""
        value, where = self.value, self.where
        for key in keys:
            if isinstance(value, dict):
                value = value.get(key)
            else:
                value = value[key] if isinstance(value, list) and isinstance(key, int) else None
            where = f"{where}/{escape(key)}"
        return Found(value, self.resource, where)


def escape(key: str | int) -> str:
    """Return a key as one token of a JSON pointer (RFC 6901)."""
    return str(key).replace("~", "~0").replace("/", "~1")


@attrs.define(eq=False)
class Documents:
    """The document and the documents that the caller gives for its references to others."""

    root: Found
    """The root of the document."""
    _remote: Mapping[str, Mapping[str, Any]]
    _resources: dict[str, Resource] = attrs.field(factory=dict, init=False)
    _by_node: dict[int, Resource] = attrs.field(factory=dict, init=False)
    # The documents whose resources are known. They stay here, so that the id of a node stays its own.
    _kept: dict[str, Resource] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, document: Mapping[str, Any], remote: Mapping[str, Mapping[str, Any]]) -> "Documents":
        """Return the documents, ready to be looked up in."""
        named = document.get("$self")
        uri = named if isinstance(named, str) else ""
        root = Resource(uri, document, "", str(document.get("openapi", "")).startswith("3.0"))
        documents = cls(Found(document, root, ""), remote)
        documents._keep(uri, root)
        return documents

    def resource_of(self, node: Found) -> Resource:
        """Return the resource that holds inside a node: its own if it has `$id`."""
        return self._by_node.get(id(node.value), node.resource)

    def follow(self, node: Found) -> Found:
        """Return the node, or what its `$ref` names in the end. For path items, responses and media types.

        Raises:
            OpenApiError: If a reference is unresolved, remote or goes round in a loop.
        """
        start = node
        for _ in range(_MOST_HOPS):
            if not isinstance(node.value, dict) or "$ref" not in node.value:
                return node
            node = self.resolve(node.value["$ref"], node)
        raise OpenApiError("openapi.ref-loop", "the references go round in a loop", where=start.where)

    def resolve(self, reference: object, at: Found) -> Found:
        """Return the node that a reference names, seen from the node in which it stands.

        Raises:
            OpenApiError: If there is no such node, or if it is in a document that the caller does not give.
        """
        if not isinstance(reference, str):
            raise OpenApiError("openapi.unresolved-ref", "a $ref is a text", where=at.where)
        part, fragment = urldefrag(reference)
        resource = self._resource(part, reference, at) if part else self.resource_of(at)
        found = self._fragment(resource, unquote(fragment))
        if found is None:
            raise OpenApiError(
                "openapi.unresolved-ref",
                f"{reference!r} names nothing; correct the reference or add what it names",
                where=at.where,
            )
        return found

    def _resource(self, part: str, reference: str, at: Found) -> Resource:
        """Return the resource that the part of a reference before `#` names."""
        full = urljoin(self.resource_of(at).uri, part)
        for uri in (full, part):
            if uri in self._resources:
                return self._resources[uri]
            if uri in self._remote:
                document = plain_copy(self._remote[uri])
                is_30 = (
                    str(document.get("openapi", "")).startswith("3.0")
                    if isinstance(document, dict)
                    else False
                )
                is_30 = is_30 or (
                    self.root.resource.is_30 and not (isinstance(document, dict) and "openapi" in document)
                )
                resource = Resource(full, document, uri + "#", is_30)
                self._keep(uri, resource)
                self._resources.setdefault(full, resource)
                return resource
        raise OpenApiError(
            "openapi.remote-ref",
            f"{reference!r} is in another document, and none is fetched; pass it as remote={{{part!r}: ...}}",
            where=at.where,
        )

    def _fragment(self, resource: Resource, fragment: str) -> Found | None:
        """Return the node at a fragment of a resource: an anchor or a JSON pointer; None if there is none."""
        if fragment and not fragment.startswith("/"):
            anchor = resource.anchors.get(fragment)
            return None if anchor is None else Found(anchor[0], resource, anchor[1])
        node = Found(resource.root, resource, resource.where)
        for token in fragment.split("/")[1:]:
            key: str | int = token.replace("~1", "/").replace("~0", "~")
            if isinstance(node.value, list):
                if not token.isascii() or not token.isdigit():
                    return None
                key = int(token)
                if key >= len(node.value):
                    return None
            elif not isinstance(node.value, dict) or key not in node.value:
                return None
            node = Found(node.value, self.resource_of(node), node.where).member(key)
        return node

    def _keep(self, uri: str, document: Resource) -> None:
        """Note a document and every resource and anchor in it."""
        self._kept[uri] = self._resources[uri] = document
        waiting: list[tuple[Any, Resource, str, bool]] = [(document.root, document, document.where, False)]
        while waiting:
            value, resource, where, named = waiting.pop()
            if isinstance(value, list):
                waiting.extend(
                    (item, resource, f"{where}/{index}", False) for index, item in enumerate(value)
                )
            if not isinstance(value, dict):
                continue
            if not named:
                resource = self._note(value, resource, where)
            for key, member in value.items():
                if named or not (key in _VALUES or key.startswith("x-")):
                    waiting.append((member, resource, f"{where}/{escape(key)}", key in _NAMES and not named))

    def _note(self, node: dict[str, Any], resource: Resource, where: str) -> Resource:
        """Note the `$id` and the anchors of a node, and return the resource that holds inside it."""
        identity = node.get("$id")
        if isinstance(identity, str) and identity.strip("#") and not identity.startswith("#"):
            uri = urldefrag(urljoin(resource.uri, identity))[0]
            resource = Resource(uri, node, where, resource.is_30)
            self._resources.setdefault(uri, resource)
            self._by_node[id(node)] = resource
        for keyword in ("$anchor", "$dynamicAnchor"):
            anchor = node.get(keyword)
            if isinstance(anchor, str):
                resource.anchors.setdefault(anchor, (node, where))
                if keyword == "$dynamicAnchor":
                    resource.dynamic.setdefault(anchor, (node, where))
        return resource


def is_metaschema(reference: str) -> bool:
    """Return True if a reference names a metaschema of JSON Schema, which the validator carries with it."""
    return _METASCHEMA.fullmatch(reference) is not None
