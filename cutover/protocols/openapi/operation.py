"""Finds the operation in a document, its success response and the media type that describes the event stream."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi.references import Documents, Found

_MEDIA_TYPES = ("text/event-stream", "text/*", "*/*")
"""Keys of `content` that cover an event stream, the most exact first."""
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
FERN = "x-fern-streaming"
_NO_OPERATION, _NO_STREAM = "openapi.no-operation", "openapi.no-event-stream"


@attrs.frozen(kw_only=True, eq=False)
class Operation:
    """One operation of a document."""

    path: str
    """The path as the document has it."""
    method: str
    """The method, in capitals."""
    node: Found
    """The operation object."""


@attrs.frozen(kw_only=True, eq=False)
class StreamResponse:
    """The success response of an operation, and the part of it that describes the event stream."""

    statuses: tuple[int, ...]
    """The HTTP statuses that the document declares for the stream."""
    media: Found
    """The media type object. For Fern's extension, an object whose `schema` is the one of the stream."""
    explicit: bool
    """True if the document names `text/event-stream` or the extension, not only `text/*` or `*/*`."""
    fern: Mapping[str, Any] | None
    """Fern's extension, if the operation has it for an event stream."""


def operations(documents: Documents) -> Iterator[Operation]:
    """Yield all operations of the document, in its order."""
    paths = documents.root.member("paths")
    for path in paths.value if isinstance(paths.value, dict) else ():
        item = documents.follow(paths.member(path))
        for method in METHODS:
            if isinstance(item.member(method).value, dict):
                yield Operation(path=path, method=method.upper(), node=item.member(method))
        more = item.member("additionalOperations")
        for method in more.value if isinstance(more.value, dict) else ():
            yield Operation(path=path, method=method, node=more.member(method))


def find_operation(documents: Documents, path: str, method: str) -> Operation:
    """Return the operation of a path and a method. A concrete path comes before a template that fits it.

    Raises:
        OpenApiError: If there is no such operation, or a reference on the way does not resolve.
    """
    paths = documents.root.member("paths")
    known = paths.value if isinstance(paths.value, dict) else {}
    plain = path.partition("?")[0].partition("#")[0]
    fitting = [template for template in known if template in {path, plain}] or sorted(
        (template for template in known if _fits(template, plain)), key=_concreteness
    )
    allowed: list[str] = []
    for template in fitting:
        item = documents.follow(paths.member(template))
        more = item.member("additionalOperations")
        found = item.member(method.lower()) if method.lower() in METHODS else more.member(method)
        for other in more.value if isinstance(more.value, dict) else ():
            if found.value is None and other.upper() == method.upper():
                found = more.member(other)
        if isinstance(found.value, dict):
            return Operation(path=template, method=method.upper(), node=found)
        allowed.extend(name.upper() for name in METHODS if isinstance(item.member(name).value, dict))
    if fitting:
        names = ", ".join(allowed) or "none"
        raise OpenApiError(
            _NO_OPERATION, f"{path} has no method {method.upper()}; it has {names}", where=f"{paths.where}"
        )
    shown = ", ".join(list(known)[:5]) or "none"
    raise OpenApiError(
        _NO_OPERATION, f"the document has no path {path}; its paths begin with {shown}", where="/paths"
    )


def _fits(template: str, path: str) -> bool:
    """Return True if a concrete path fits a template. A parameter takes one segment or a part of it, never a slash."""
    if "{" not in template:
        return False
    parts = re.split(r"\{[^{}]*\}", template)
    return re.fullmatch("[^/]+".join(map(re.escape, parts)), path) is not None


def _concreteness(template: str) -> tuple[list[bool], int]:
    """Return a key that sorts templates: the one whose segments are concrete for longest comes first."""
    return ["{" in segment for segment in template.split("/")], -len(template)


def find_response(documents: Documents, operation: Operation) -> StreamResponse:
    """Return the success response that describes the event stream: an exact 2xx (200 first), `2XX` or `default`.

    Raises:
        OpenApiError: If no success response has an event stream, or a reference on the way does not resolve.
    """
    responses = operation.node.member("responses")
    declared = responses.value if isinstance(responses.value, dict) else {}
    exact = sorted(key for key in declared if re.fullmatch("2[0-9][0-9]", key))
    ranges = [key for key in declared if key.upper() == "2XX"]
    keys = [*exact, *ranges, *(["default"] if "default" in declared else [])]
    fern = operation.node.member(FERN)
    streams = isinstance(fern.value, dict) and fern.value.get("format") == "sse"
    found = []
    for key in keys:
        response = documents.follow(responses.member(key))
        others = [int(other) for other in exact if other != key]
        statuses = (
            (int(key),) if key in exact else tuple(code for code in range(200, 300) if code not in others)
        )
        media = _media_type(documents, response)
        if streams:
            own = _fern_media(documents, fern, response)
            if own is not None:
                media = own, True
        if media is not None:
            found.append(
                StreamResponse(
                    statuses=statuses,
                    media=documents.follow(media[0]),
                    explicit=media[1],
                    fern=fern.value if streams else None,
                )
            )
    if not found:
        raise OpenApiError(
            _NO_STREAM,
            f"{operation.method} {operation.path} has no success response with text/event-stream; "
            f"its success responses: {', '.join(keys) or 'none'}",
            where=operation.node.where,
        )
    return next((response for response in found if response.explicit), found[0])


def _media_type(documents: Documents, response: Found) -> tuple[Found, bool] | None:
    """Return the media type object that covers an event stream, and True if its key names it; None without one."""
    content = response.member("content")
    keys = {} if not isinstance(content.value, dict) else content.value
    for wanted in _MEDIA_TYPES:
        for key in keys:
            if key.partition(";")[0].strip().lower() == wanted:
                return documents.follow(content.member(key)), wanted == _MEDIA_TYPES[0]
    return None


def _fern_media(documents: Documents, fern: Found, response: Found) -> Found | None:
    """Return an object whose `schema` is the one that Fern's extension names; None if the media type says it."""
    if "response-stream" in fern.value:
        stream = fern.member("response-stream")
        return Found({"schema": stream.value}, stream.resource, stream.where)
    content = response.member("content")
    event_stream = _media_type(documents, response)
    if not isinstance(content.value, dict) or (event_stream is not None and event_stream[1]):
        return None
    for key in content.value:
        if key.partition(";")[0].strip().lower() == "application/json":
            return documents.follow(content.member(key))
    return None
