"""An event stream and a JSON Schema check that share nothing with the code under test."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import jsonschema
from jsonschema.protocols import Validator
from referencing import Registry


class WireEvent(NamedTuple):
    """One event as the wire has it: None for a line that is not there."""

    event: str | None
    data: str
    id: str | None
    retry: int | None
    last_event_id: str


def wire_events(body: bytes) -> Iterator[WireEvent]:
    """Yield the events of a body (WHATWG HTML 9.2.6), line by line."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    fields: dict[str, Any] = {}
    last = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if "data" in fields:
                data = "\n".join(fields["data"])
                yield WireEvent(fields.get("event"), data, fields.get("id"), fields.get("retry"), last)
            last = fields.get("id", last)
            fields = {}
        elif name == "data":
            fields.setdefault("data", []).append(value)
        elif name == "event" or (name == "id" and "\0" not in value):
            fields[name] = value
        elif name == "retry" and value.isascii() and value.isdigit():
            fields["retry"] = int(value)


def document(media: Mapping[str, Any], version: str = "3.2.0", **more: Any) -> dict[str, Any]:
    """Return a document with one stream: GET /x."""
    return {
        "openapi": version,
        "paths": {"/x": {"get": {"responses": {"200": {"content": {"text/event-stream": dict(media)}}}}}},
        **more,
    }


def json_text(schema: Any) -> dict[str, Any]:
    """Return the schema of a text that holds JSON."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _content(validator: Any, media: str, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if not isinstance(instance, str):
        return
    is_json = media.partition(";")[0].strip().endswith(("/json", "+json"))
    try:
        text = (
            base64.b64decode(instance, validate=True).decode()
            if schema.get("contentEncoding") == "base64"
            else instance
        )
        value = json.loads(text, parse_constant=_refuse) if is_json else text
    except (binascii.Error, ValueError):
        yield jsonschema.ValidationError("not decoded")
        return
    if is_json or media.startswith("text/"):
        yield from validator.descend(value, schema.get("contentSchema", True))


_Extended = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"contentMediaType": _content})


def reference_validator(schema: Any, components: Mapping[str, Any] | None = None) -> Validator:
    """Return a validator that asserts content in place and fetches nothing."""
    whole = {"allOf": [schema], "components": {"schemas": dict(components or {})}}
    return _Extended(whole, registry=Registry())


def holds_in_some_way(validator: Validator, event: WireEvent) -> bool:
    """Return True if an event holds as it came, with the default name, or with the inherited id."""
    fields = {"event": event.event or None, "data": event.data, "id": event.id, "retry": event.retry}
    came = {name: value for name, value in fields.items() if value is not None}
    names = [{}] if event.event else [{}, {"event": "message"}]
    ids = [{}] if event.id is not None or not event.last_event_id else [{}, {"id": event.last_event_id}]
    return any(validator.is_valid(came | name | identity) for name in names for identity in ids)
