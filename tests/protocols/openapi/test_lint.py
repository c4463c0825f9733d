"""What a look at a document tells: open points, faults that no stream shows, events that hold."""

from typing import Any

import pytest

from cutover.errors import OpenApiError
from cutover.protocols.openapi import (
    EventValidator,
    StreamLint,
    describe_stream,
    lint_document,
    read_document,
)
from tests.support.openapi_events import document, json_text
from tests.support.paths import FIXTURES

FOLDER = FIXTURES / "openapi" / "documents"


def lint(media: Any, **more: Any) -> StreamLint:
    (found,) = lint_document(document(media, **more))
    return found


def rules(media: Any) -> list[str]:
    return [warning.rule for warning in lint(media).warnings]


def test_every_stream_of_a_document_is_looked_at() -> None:
    read = read_document((FOLDER / "broken-remote-ref.yaml").read_bytes())
    found = {item.path: item for item in lint_document(read)}
    assert found["/http"].error is not None
    assert found["/http"].error.rule == "openapi.remote-ref"
    assert found["/mapping"].description is not None
    assert [item.path for item in lint_document(read, path="/mapping")] == ["/mapping"]
    assert lint_document(read, method="post") == []
    assert len(lint_document(read, method="GET")) == len(found)


def test_branches_that_hold_for_the_same_events_are_told() -> None:
    read = read_document((FOLDER / "broken-oneof.yaml").read_bytes())
    found = {item.path: [warning.rule for warning in item.warnings] for item in lint_document(read)}
    assert "openapi.unsatisfiable" in found["/twice"]
    assert found["/never"] == found["/false"] == ["openapi.unsatisfiable"]
    assert found["/overlap"] == ["openapi.overlapping"]
    one = {"properties": {"data": json_text({"type": "object", "required": ["a"]})}}
    two = {"properties": {"data": json_text({"type": "object", "required": ["b"], "properties": {"a": {}}})}}
    assert rules({"itemSchema": {"type": "object", "oneOf": [one, two]}}) == ["openapi.overlapping"]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_the_shown_events_hold(name: str) -> None:
    read = read_document((FOLDER / name).read_bytes())
    for found in lint_document(read):
        if found.description is not None and found.description.reading == "payload":
            check = EventValidator(found.description).check
            assert all(check(None, witness.partition("data: ")[2]) == () for witness in found.witnesses)


def test_open_points_are_named() -> None:
    nothing = lint({})
    assert len(nothing.open_points) == 6
    promises = {"order": "a", "within": {"gap": "3s"}, "resume": "id"}
    item = {"type": "object", "properties": {"event": {"enum": ["a"]}, "id": {}}}
    assert lint({"itemSchema": item, "x-sse-stream": promises}).open_points == ()
    assert any(
        "trying" in point
        for point in lint(
            {"itemSchema": {"required": ["data"], "properties": {"data": {"pattern": "^q+z$"}}}}
        ).open_points
    )


@pytest.mark.parametrize(
    "schema",
    [
        json_text({"type": "array", "minItems": 2, "items": {"type": "integer", "minimum": 3}}),
        json_text({"prefixItems": [{"type": "string"}, {"type": "boolean"}], "items": False, "minItems": 2}),
        json_text({"type": "number", "exclusiveMinimum": 4}),
        json_text({"type": "string", "minLength": 7}),
        json_text({"type": "null"}),
        json_text({"anyOf": [{"oneOf": [{"const": 1}, {"const": 2}]}, {"const": 3}]}),
        json_text({"required": ["free"]}),
        {**json_text({"type": "object"}), "contentEncoding": "base64"},
        {"contentMediaType": "application/json"},
        {"type": "integer"},
    ],
)
def test_a_witness_is_found(schema: Any) -> None:
    item = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": schema, "retry": {"type": "integer"}},
    }
    assert lint({"itemSchema": item}).witnesses


def test_odd_documents() -> None:
    with pytest.raises(OpenApiError, match=r"openapi\.version"):
        lint_document({"swagger": "2.0"})
    assert lint_document({"openapi": "3.1.0"}) == []
    wildcard = {
        "openapi": "3.1.0",
        "paths": {"/x": {"get": {"responses": {"200": {"content": {"*/*": {}}}}}}},
    }
    assert lint_document(wildcard) == []
    broken = {"openapi": "3.1.0", "paths": {"/x": {"get": {"responses": {"200": {"$ref": "#/none"}}}}}}
    (found,) = lint_document(broken)
    assert found.error is not None
    more = {
        "openapi": "3.2.0",
        "paths": {
            "/x": {
                "additionalOperations": {
                    "COPY": {"responses": {"200": {"content": {"text/event-stream": {}}}}}
                }
            }
        },
    }
    assert [item.method for item in lint_document(more)] == ["COPY"]
    loose = {
        "itemSchema": {
            "oneOf": [
                {"type": "integer"},
                {"properties": {"data": json_text({"$ref": "#/components/schemas/T"})}},
            ]
        }
    }
    tree = {"type": "object", "required": ["t"], "properties": {"t": {"$ref": "#/components/schemas/T"}}}
    (found,) = lint_document(document(loose, components={"schemas": {"T": tree}}))
    assert (
        describe_stream(document(loose, components={"schemas": {"T": tree}}), "/x", "get").reading == "event"
    )
