"""What a document says about a stream: the operation, the response, the end, the promises, the errors and the warnings."""

from typing import Any

import pytest

from cutover.errors import OpenApiError
from cutover.protocols.openapi import EventValidator, StreamPromises, TerminalEvent, describe_stream
from tests.support.openapi_events import document, json_text

EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
STREAM = {"content": {"text/event-stream": {"itemSchema": EVENT}}}


def paths(**responses: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {"/x": {"get": {"responses": responses}}}}


def refused(rule: str, described: Any, path: str = "/x", method: str = "get", **more: Any) -> OpenApiError:
    with pytest.raises(OpenApiError) as caught:
        describe_stream(described, path, method, **more)
    assert caught.value.rule == rule, caught.value
    return caught.value


def warned(media: Any, version: str = "3.2.0", **more: Any) -> list[str]:
    return [
        warning.rule for warning in describe_stream(document(media, version, **more), "/x", "get").warnings
    ]


def test_a_concrete_path_comes_before_a_template() -> None:
    def named(kind: str) -> dict[str, Any]:
        return {
            "get": {
                "responses": {"200": {"content": {"text/event-stream": {"x-speakeasy-sse-sentinel": kind}}}}
            }
        }

    described = {
        "openapi": "3.1.0",
        "paths": {
            "/{any}/{more}": named("any"),
            "/a/{id}": named("template"),
            "/a/b": named("concrete"),
            "/f/{name}.json": named("part"),
        },
    }
    for path, kind in (
        ("/a/b", "concrete"),
        ("/a/c", "template"),
        ("/a/{id}", "template"),
        ("/f/x.json", "part"),
        ("/q/r?s=1", "any"),
    ):
        assert describe_stream(described, path, "GET").terminator == kind
    refused("openapi.no-operation", described, "/a/b/c")
    refused("openapi.no-operation", described, "/q//")
    assert "GET" in str(refused("openapi.no-operation", described, "/a/b", "POST"))
    refused("openapi.no-operation", {"openapi": "3.1.0"})
    refused("openapi.no-operation", {"openapi": "3.1.0", "paths": {"/x": {}}})


def test_a_method_of_3_2_is_found() -> None:
    described = {
        "openapi": "3.2.0",
        "paths": {
            "/x": {
                "query": {"responses": {"200": STREAM}},
                "additionalOperations": {"COPY": {"responses": {"200": STREAM}}},
            }
        },
    }
    assert describe_stream(described, "/x", "query").method == "QUERY"
    assert describe_stream(described, "/x", "COPY").method == "COPY"
    assert describe_stream(described, "/x", "copy").method == "COPY"


@pytest.mark.parametrize(
    ("responses", "statuses"),
    [
        ({"404": STREAM, "200": STREAM}, (200,)),
        ({"202": STREAM, "201": STREAM}, (201,)),
        ({"200": {"description": "none"}, "201": STREAM}, (201,)),
        ({"2XX": STREAM, "404": STREAM}, tuple(range(200, 300))),
        ({"default": STREAM, "404": STREAM}, tuple(range(200, 300))),
        ({"default": STREAM, "204": {}}, tuple(code for code in range(200, 300) if code != 204)),
    ],
)
def test_only_a_success_response_counts(responses: Any, statuses: Any) -> None:
    assert describe_stream(paths(**responses), "/x", "get").statuses == statuses


def test_an_operation_without_a_stream_is_an_error() -> None:
    refused("openapi.no-event-stream", paths(**{"404": STREAM}))
    refused("openapi.no-event-stream", paths(**{"200": {"content": {"application/json": {}}}}))
    refused("openapi.no-event-stream", paths(**{"200": {}}))
    refused("openapi.no-event-stream", {"openapi": "3.1.0", "paths": {"/x": {"get": {}}}})


def test_media_types_are_compared_without_case_and_parameters() -> None:
    for key in ("Text/Event-Stream; charset=utf-8", "text/*", "*/*"):
        described = paths(**{"200": {"content": {"application/json": {}, key: {"itemSchema": EVENT}}}})
        assert describe_stream(described, "/x", "get").item is not None
    both = paths(**{"200": {"content": {"*/*": {}, "text/event-stream": {"itemSchema": EVENT}}}})
    assert describe_stream(both, "/x", "get").item is not None
    later = paths(**{"200": {"content": {"*/*": {}}}, "201": STREAM})
    assert describe_stream(later, "/x", "get").statuses == (201,)


def test_path_items_responses_and_media_types_may_be_references() -> None:
    described: dict[str, Any] = {
        "openapi": "3.2.0",
        "paths": {"/x": {"$ref": "#/components/pathItems/X"}},
        "components": {
            "pathItems": {"X": {"get": {"responses": {"200": {"$ref": "#/components/responses/R"}}}}},
            "responses": {"R": {"content": {"text/event-stream": {"$ref": "#/components/mediaTypes/M"}}}},
            "mediaTypes": {"M": {"itemSchema": {"$ref": "#/components/schemas/E"}}},
            "schemas": {"E": EVENT},
        },
    }
    assert describe_stream(described, "/x", "get").item is not None
    described["paths"]["/x"]["$ref"] = "#/components/pathItems/None"
    refused("openapi.unresolved-ref", described)
    described["paths"]["/x"]["$ref"] = "#/paths/~1x"
    refused("openapi.ref-loop", described)


def test_a_reference_may_lead_into_a_list_and_two_may_lead_to_one_place() -> None:
    described = schemas(
        A={
            "allOf": [
                {"$ref": "#/components/schemas/B/allOf/0"},
                {"$ref": "#/components/schemas/C"},
                {"$ref": "#/components/schemas/C"},
            ]
        },
        B={"allOf": [{"$ref": "#/components/schemas/C"}]},
        C=EVENT,
    )
    assert describe_stream(described, "/x", "get").modes == ("text",)


def test_unions_are_looked_into_up_to_a_bound() -> None:
    deep: Any = {"properties": {"event": {"const": "a"}, "data": {"type": "integer"}}}
    for _ in range(30):
        deep = {"anyOf": [deep, {"type": "null"}]}
    found = describe_stream(document({"itemSchema": deep}), "/x", "get")
    assert found.kinds is None
    as_schema = describe_stream(document({"schema": deep}), "/x", "get")
    assert as_schema.item is not None
    either = {"anyOf": [{"type": "null"}, EVENT]}
    assert describe_stream(document({"schema": either}), "/x", "get").dialect == "schema of the event"
    constants = {"properties": {"event": {"enum": [{"a": 1}, "b"], "const": "b"}}}
    assert describe_stream(document({"itemSchema": constants}), "/x", "get").kinds == ("b",)


def schemas(**all_: Any) -> dict[str, Any]:
    first = next(iter(all_))
    return document({"itemSchema": {"$ref": f"#/components/schemas/{first}"}}, components={"schemas": all_})


@pytest.mark.parametrize(
    ("described", "rule"),
    [
        (
            schemas(A={"$ref": "#/components/schemas/B"}, B={"$ref": "#/components/schemas/A"}),
            "openapi.ref-loop",
        ),
        (schemas(A={"$ref": "#/components/schemas/A"}), "openapi.ref-loop"),
        (schemas(A={"allOf": [{"type": "object"}, {"$ref": "#/components/schemas/A"}]}), "openapi.ref-loop"),
        (schemas(A={"anyOf": [{"not": {"$ref": "#/components/schemas/A"}}]}), "openapi.ref-loop"),
        (
            schemas(A={"if": True, "then": {"dependentSchemas": {"a": {"$ref": "#/components/schemas/A"}}}}),
            "openapi.ref-loop",
        ),
        (
            schemas(
                A={
                    "properties": {
                        "data": {
                            "contentMediaType": "text/plain",
                            "contentSchema": {"$ref": "#/components/schemas/B"},
                        }
                    }
                },
                B={"contentMediaType": "text/x", "contentSchema": {"$ref": "#/components/schemas/B"}},
            ),
            "openapi.ref-loop",
        ),
        (schemas(A={"$ref": "#/components/schemas/Z"}), "openapi.unresolved-ref"),
        (
            schemas(A={"$ref": "#/components/schemas/B/allOf/1"}, B={"allOf": [True]}),
            "openapi.unresolved-ref",
        ),
        (
            schemas(A={"$ref": "#/components/schemas/B/allOf/x"}, B={"allOf": [True]}),
            "openapi.unresolved-ref",
        ),
        (schemas(A={"$ref": "#/openapi/x"}), "openapi.unresolved-ref"),
        (schemas(A={"$ref": "#anchor"}), "openapi.unresolved-ref"),
        (schemas(A={"$ref": 5}), "openapi.unresolved-ref"),
        (schemas(A={"properties": {"data": {"$ref": "x.yaml"}}}), "openapi.remote-ref"),
        (schemas(A={"$ref": "http://json-schema.org/draft-07/schema#"}), "openapi.remote-ref"),
        (schemas(A=5), "openapi.bad-schema"),
        (schemas(A={"properties": []}), "openapi.bad-schema"),
        (schemas(A={"allOf": {}}), "openapi.bad-schema"),
        (schemas(A={"oneOf": []}), "openapi.bad-schema"),
    ],
)
def test_a_reference_or_schema_that_cannot_be_used_is_an_error(described: Any, rule: str) -> None:
    assert refused(rule, described).where.startswith("/")


@pytest.mark.parametrize("schema", [{"type": "number2"}, {"pattern": "["}, {"minimum": "x"}, {"enum": 5}])
def test_a_malformed_keyword_is_found_before_the_stream(schema: Any) -> None:
    for one in (schema, {"properties": {"data": json_text(schema)}}):
        with pytest.raises(OpenApiError, match="bad-schema"):
            EventValidator(describe_stream(document({"itemSchema": {**EVENT, **one}}), "/x", "get"))
    whole = document({"itemSchema": EVENT, "schema": {"minItems": 1, "contains": schema}})
    with pytest.raises(OpenApiError, match="bad-schema"):
        EventValidator(describe_stream(whole, "/x", "get"))


def test_what_is_not_reached_does_not_matter() -> None:
    described = document(
        {"itemSchema": EVENT}, components={"schemas": {"Bad": {"$ref": "http://x.test/"}, "Worse": 5}}
    )
    assert describe_stream(described, "/x", "get").warnings == ()


def test_recursion_through_a_member_is_sound() -> None:
    tree = {
        "type": "object",
        "properties": {"a": {"$ref": "#/components/schemas/A"}},
        "additionalProperties": {"$ref": "#/components/schemas/A"},
    }
    described = document(
        {"itemSchema": {"properties": {"data": json_text({"$ref": "#/components/schemas/A"})}}},
        components={"schemas": {"A": tree}},
    )
    assert (
        EventValidator(describe_stream(described, "/x", "get")).check(None, '{"a":{"a":5}}')[0].path
        == "/data/a/a"
    )


def test_other_documents_are_used_if_the_caller_gives_them() -> None:
    described = document({"itemSchema": {"$ref": "./shared.yaml#/Event"}})
    remote = {
        "Event": {**EVENT, "properties": {"data": json_text({"$ref": "#/Item"})}},
        "Item": {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
    }
    found = describe_stream(described, "/x", "get", remote={"./shared.yaml": remote})
    assert EventValidator(found).check(None, "1")[0].keyword == "exclusiveMinimum"
    described["$self"] = "https://x.test/api/openapi.yaml"
    found = describe_stream(described, "/x", "get", remote={"https://x.test/api/shared.yaml": remote})
    assert EventValidator(found).check(None, "2") == ()
    refused("openapi.unresolved-ref", described, remote={"https://x.test/api/shared.yaml": {}})
    old = document({"schema": {"$ref": "a.json"}}, "3.0.0")
    parts: dict[str, Any] = {
        "a.json": {"type": "object", "properties": {"v": {"$ref": "b.json"}, "w": {"$ref": "b.json"}}},
        "b.json": {"openapi": "3.1.0", "type": "string"},
    }
    assert describe_stream(old, "/x", "get", remote=parts).reading == "payload"
    own = document(
        {"itemSchema": {"$ref": "https://x.test/self#/components/schemas/E"}},
        components={"schemas": {"E": EVENT}},
    )
    own["$self"] = "https://x.test/self"
    assert describe_stream(own, "/x", "get").item is not None


def test_versions() -> None:
    refused("openapi.version", {"swagger": "2.0", "paths": {}})
    refused("openapi.version", {"paths": {}})
    refused("openapi.version", {"openapi": "4.0.0"})
    assert warned({"itemSchema": EVENT}, "3.3.0") == ["openapi.version-unknown"]
    assert warned({"itemSchema": EVENT}, "3.0.4") == []


@pytest.mark.parametrize(
    ("media", "rules"),
    [
        ({}, ["openapi.no-item-schema"]),
        ({"schema": {}}, ["openapi.no-item-schema"]),
        ({"schema": True}, ["openapi.no-item-schema"]),
        ({"schema": {"type": "string"}}, ["openapi.no-item-schema"]),
        ({"schema": {"type": "string", "description": "the stream", "format": "binary"}}, ["openapi.no-item-schema"]),
        ({"schema": {"type": "object", "itemSchema": EVENT}}, ["openapi.no-item-schema"]),
        ({"schema": {"type": "array", "itemSchema": EVENT}}, ["openapi.no-item-schema"]),
        ({"schema": {"type": "array"}}, ["openapi.no-item-schema"]),
        ({"schema": {"type": "object"}}, []),
        ({"itemSchema": True}, []),
        ({"itemSchema": False}, ["openapi.unsatisfiable"]),
        ({"schema": False}, ["openapi.unsatisfiable"]),
        ({"itemSchema": {"type": "string"}}, ["openapi.unsatisfiable"]),
        ({"itemSchema": {"allOf": [{"type": "object"}, {"type": "string"}]}}, ["openapi.unsatisfiable"]),
        ({"itemSchema": {**EVENT, "required": ["payload"]}}, ["openapi.unsatisfiable"]),
        ({"itemSchema": {"properties": {"text": {}}}}, ["openapi.item-is-payload"]),
        ({"itemSchema": {"required": ["text"], "properties": {"id": {}, "text": {}}}}, ["openapi.item-is-payload"]),
        ({"itemSchema": {"properties": {"id": {}, "text": {}}}}, []),
        ({"itemSchema": {**EVENT, "oneOf": [{"properties": {"event": {"const": "a"}}}, {}]}}, ["openapi.overlapping"]),
        ({"itemSchema": {**EVENT, "oneOf": [{"properties": {"event": {"const": "a"}}}, {"oneOf": [True, False]}]}}, ["openapi.overlapping"]),
        ({"itemSchema": {**EVENT, "oneOf": [{"properties": {"data": json_text({})}}, {"properties": {"event": {"const": "a"}}}]}}, ["openapi.overlapping"]),
        ({"itemSchema": {**EVENT, "oneOf": [{"properties": {"data": json_text({"type": "object"})}}, {"properties": {"event": {"const": "a"}}}]}}, []),
        ({"itemSchema": {"oneOf": [{"properties": {"a": {}}}, {"type": "object"}]}}, ["openapi.item-is-payload", "openapi.overlapping"]),
        ({"itemSchema": {**EVENT, "anyOf": [{}, {}]}}, []),
    ],
)  # fmt: skip
def test_a_weak_document_is_told(media: Any, rules: list[str]) -> None:
    assert warned(media) == rules


def marked(*branches: Any, **more: Any) -> Any:
    return describe_stream(document({"itemSchema": {**more, "oneOf": list(branches)}}), "/x", "get")


END = {"x-ms-sse-terminal-event": True}


def test_a_marked_branch_is_the_end_if_it_is_pinned() -> None:
    named = marked(
        {"properties": {"event": {"enum": ["end", "stop"]}}, **END}, {"properties": {"event": {"const": "a"}}}
    )
    assert named.terminal == (
        TerminalEvent(pointer="/event", value="end"),
        TerminalEvent(pointer="/event", value="stop"),
    )
    text = marked(
        {"properties": {"data": {"const": "[DONE]"}}, **END},
        {"properties": {"data": json_text({"type": "object"})}},
    )
    assert (text.terminator, text.terminal) == ("[DONE]", ())
    by_kind = marked(
        {"properties": {"data": json_text({"properties": {"n": {}, "t/x": {"const": "end"}}})}, **END},
        {"properties": {"data": json_text({"properties": {"t/x": {"const": "a"}}})}},
    )
    assert by_kind.terminal == (TerminalEvent(pointer="/data/t~1x", value="end"),)
    loose = marked(
        {"properties": {"data": json_text({"properties": {"t": {"const": "end"}}})}, **END},
        {"properties": {"data": json_text({"type": "object"})}},
    )
    assert [warning.rule for warning in loose.warnings] == ["openapi.terminal-unpinned"]
    nested = marked(
        {"anyOf": [{"properties": {"event": {"const": "end"}}, **END}]},
        {"properties": {"event": {"const": "a"}}},
    )
    assert nested.terminal == (TerminalEvent(pointer="/event", value="end"),)
    numbers = marked(
        {"properties": {"data": json_text({"properties": {"t": {"const": 1}}})}, **END},
        {"properties": {"event": {"const": "a"}}},
    )
    assert numbers.terminal == ()


def test_a_mark_beside_a_reference_counts_in_every_version() -> None:
    for version in ("3.0.3", "3.2.0"):
        described = document(
            {
                "schema": {
                    "anyOf": [{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B", **END}]
                }
            },
            version,
            components={
                "schemas": {
                    "A": {"type": "object", "properties": {"type": {"type": "string", "enum": ["a"]}}},
                    "B": {"type": "object", "properties": {"type": {"type": "string", "enum": ["b"]}}},
                }
            },
        )
        found = describe_stream(described, "/x", "get")
        assert found.terminal == (TerminalEvent(pointer="/data/type", value="b"),)


def test_the_ends_come_in_this_order() -> None:
    media = {"itemSchema": EVENT, "x-speakeasy-sse-sentinel": "S", "x-sse-stream": {"terminator": "P"}}
    assert describe_stream(document(media), "/x", "get", terminator="U").terminator == "U"
    assert describe_stream(document(media), "/x", "get").terminator == "P"
    del media["x-sse-stream"]
    assert describe_stream(document(media), "/x", "get").terminator == "S"
    refused("openapi.bad-promise", document({"itemSchema": EVENT, "x-speakeasy-sse-sentinel": True}))


def fern(extension: Any, content: Any) -> dict[str, Any]:
    described = paths(**{"200": {"content": content}})
    described["paths"]["/x"]["get"]["x-fern-streaming"] = extension
    return described


def test_the_extension_of_fern() -> None:
    chunk = {"type": "object", "properties": {"text": {}}}
    other = {"type": "object", "properties": {"whole": {}}}
    found = describe_stream(
        fern({"format": "sse", "terminator": "[END]"}, {"application/json": {"schema": chunk}}), "/x", "get"
    )
    assert (found.terminator, found.reading, found.dialect) == ("[END]", "payload", "x-fern-streaming")
    found = describe_stream(
        fern({"format": "sse", "response-stream": chunk}, {"application/json": {"schema": other}}),
        "/x",
        "get",
    )
    assert "text" in found.converted.defs[found.item or ""]["properties"]  # type: ignore[index]
    found = describe_stream(
        fern({"format": "sse", "terminator": "x"}, {"text/event-stream": {"itemSchema": EVENT}}), "/x", "get"
    )
    assert (found.reading, found.terminator) == ("event", "x")
    for extension in (True, {"format": "json"}, {}):
        refused("openapi.no-event-stream", fern(extension, {"application/json": {"schema": chunk}}))
    refused("openapi.no-event-stream", fern({"format": "sse"}, {"application/xml": {}}))
    refused("openapi.no-event-stream", fern({"format": "sse"}, None))


def promised(value: Any) -> StreamPromises:
    return describe_stream(document({"itemSchema": EVENT, "x-sse-stream": value}), "/x", "get").promises


def test_the_promises_are_read() -> None:
    assert promised({}) == StreamPromises()
    assert promised(
        {
            "order": "a b*",
            "each": ["a b by /data/id"],
            "kind": "/data/type",
            "terminator": "[DONE]",
            "endless": True,
            "within": {"first": "500ms", "gap": "3s", "total": "10m"},
            "resume": "id",
        }
    ) == StreamPromises(
        order="a b*", each=("a b by /data/id",), kind="/data/type", terminator="[DONE]", endless=True,
        first=0.5, gap=3.0, total=600.0, resume="id",
    )  # fmt: skip
    on_operation = document({"itemSchema": EVENT})
    on_operation["paths"]["/x"]["get"]["x-sse-stream"] = {"order": "a"}
    assert describe_stream(on_operation, "/x", "get").promises.order == "a"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (5, ""),
        ({"ordre": "a"}, "/ordre"),
        ({"order": 5}, "/order"),
        ({"order": " "}, "/order"),
        ({"each": "a by /id"}, "/each"),
        ({"each": ["a"]}, "/each"),
        ({"each": [5]}, "/each"),
        ({"each": ["a by id"]}, "/each"),
        ({"kind": "event"}, "/kind"),
        ({"kind": "/type"}, "/kind"),
        ({"kind": 5}, "/kind"),
        ({"terminator": 5}, "/terminator"),
        ({"endless": "yes"}, "/endless"),
        ({"within": 5}, "/within"),
        ({"within": {"last": "3s"}}, "/within/last"),
        ({"within": {"gap": "3"}}, "/within/gap"),
        ({"within": {"gap": 3}}, "/within/gap"),
        ({"within": {"gap": "0s"}}, "/within/gap"),
        ({"resume": "token"}, "/resume"),
    ],
)
def test_a_slip_in_a_promise_is_an_error(value: Any, place: str) -> None:
    error = refused("openapi.bad-promise", document({"itemSchema": EVENT, "x-sse-stream": value}))
    assert error.where.endswith("/x-sse-stream" + place)


def test_the_kinds_are_those_that_the_schema_names() -> None:
    def kinds(schema: Any, kind: str = "/event", **more: Any) -> Any:
        return describe_stream(
            document({"itemSchema": schema, "x-sse-stream": {"kind": kind}}), "/x", "get", **more
        ).kinds

    assert kinds(EVENT) is None
    assert kinds({"properties": {"event": {"enum": ["a", 1]}}}) == ("a",)
    assert kinds(
        {"properties": {"event": {"enum": ["a", "b"]}}, "oneOf": [{"properties": {"event": {"const": "b"}}}]}
    ) == ("b",)
    assert kinds({"oneOf": [{"properties": {"event": {"const": "b"}}}, {"properties": {"data": {}}}]}) is None
    typed = {
        "properties": {
            "data": json_text(
                {
                    "anyOf": [
                        {"properties": {"t": {"const": "a"}}},
                        {"properties": {"t": {"const": "b"}}},
                        {"type": "null"},
                        False,
                    ]
                }
            )
        }
    }
    assert kinds(typed, "/data/t") == ("a", "b")
    assert kinds({"properties": {"t": {"const": "a"}}}, "/data/t", reading="payload") == ("a",)
    assert kinds({"properties": {"t": {"const": "a"}}}, "/event", reading="payload") is None
    assert describe_stream(document({}), "/x", "get").kinds is None
