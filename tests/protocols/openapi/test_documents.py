"""Reading a document: JSON and YAML with their traps, overlays, hostile documents, and no access to anything."""

import builtins
import datetime as dt
import io
import json
import socket
import sys
from typing import Any

import pytest

from cutover.errors import CutoverError, OpenApiError
from cutover.protocols.openapi import (
    EventValidator,
    apply_overlay,
    describe_stream,
    lint_document,
    read_document,
)
from cutover.protocols.openapi.overlay import find_nodes
from tests.support.openapi_events import document, json_text
from tests.support.paths import FIXTURES

YAML = """
openapi: 3.1.0
paths:
  /x:
    get:
      responses:
        200:
          description: 2026-01-01
          content: {text/event-stream: {itemSchema: {type: object, required: [data]}}}
"""


def refused(source: Any, match: str) -> OpenApiError:
    with pytest.raises(OpenApiError, match=match) as caught:
        read_document(source)
    assert caught.value.rule == "openapi.syntax"
    assert isinstance(caught.value, CutoverError | ValueError)
    return caught.value


def test_yaml_keys_are_texts_and_timestamps_stay_texts() -> None:
    for source in (YAML, YAML.encode(), "\ufeff" + YAML, ("\ufeff" + YAML).encode()):
        read = read_document(source)
        response = read["paths"]["/x"]["get"]["responses"]["200"]
        assert response["description"] == "2026-01-01"
        assert describe_stream(read, "/x", "get").statuses == (200,)


def test_yaml_is_version_1_2() -> None:
    read = read_document("a: no\nb: on\nc: 010\nd: ~\ne: .nan\ntrue: 1\nnull: 2\n1.5: 3\n")
    assert read == {"a": "no", "b": "on", "c": 10, "d": None, "e": "nan", "true": 1, "null": 2, "1.5": 3}


def test_json_is_recognised_by_its_brace() -> None:
    assert read_document(' \n{"openapi": "3.1.0"}') == {"openapi": "3.1.0"}
    assert read_document("{openapi: 3.1.0}") == {"openapi": "3.1.0"}
    assert read_document("openapi: 3.1") == {"openapi": 3.1}
    assert describe_stream({**document({}), "openapi": 3.1}, "/x", "get").path == "/x"


def test_a_mapping_is_copied() -> None:
    given = {200: [{"a": (1,)}]}
    read = read_document(given)  # type: ignore[arg-type]
    assert read == {"200": [{"a": [1]}]}
    read["200"][0]["a"].append(2)
    assert given == {200: [{"a": (1,)}]}


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ('{"a": 1', "not JSON"),
        ('{"a": NaN}', "NaN"),
        ("a: [1", "neither JSON nor YAML"),
        ("a: 1\na: 2\n", "neither JSON nor YAML"),
        ("a: !foo x\n", "neither JSON nor YAML"),
        ("a: 1\n---\nb: 2\n", "neither JSON nor YAML"),
        ("just text", "not an object"),
        ("", "not an object"),
        ("[1, 2]", "not an object"),
        (b"\xff\xfe{", "not UTF-8"),
        ({"a": dt.date(2026, 1, 1)}, "date"),
        ({"a": {(1, 2): 3}}, "key"),
        ("a: !!binary aGk=\n", "bytes"),
        ("{" + '"a":{' * 5000 + "}" * 5001, "deep"),
        ("a: " + "[" * 3000 + "]" * 3000, "deep"),
        ('{"a":' * 200 + "1" + "}" * 200, "deeper than"),
        ("a: &a [*a]\n", "deep"),
        ("a: " + "1" * 5000, "neither|int"),
    ],
)  # fmt: skip
def test_bad_text_is_one_clear_error(source: Any, match: str) -> None:
    refused(source, match)


def test_an_alias_bomb_is_refused_in_time() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join(['*a' + str(n - 1)] * 9)}]" for n in range(1, 12)]
    refused("\n".join(lines), "values")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    described = describe_stream(read_document(YAML), "/x", "get")
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    refused(YAML, r"stream-cutover\[openapi\]")
    assert read_document('{"a": 1}') == {"a": 1}
    with pytest.raises(OpenApiError, match=r"stream-cutover\[openapi\]") as caught:
        EventValidator(described)
    assert caught.value.rule == "openapi.not-installed"


def test_nothing_is_opened_or_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [path.read_text() for path in sorted((FIXTURES / "openapi" / "documents").iterdir())]
    list(lint_document(read_document(texts[0])))

    def deny(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was opened")

    for owner, name in ((socket, "socket"), (socket, "getaddrinfo"), (builtins, "open"), (io, "open")):
        monkeypatch.setattr(owner, name, deny)
    errors = {
        lint.error.rule
        for text in texts
        for lint in lint_document(read_document(text))
        if lint.error is not None
    }
    monkeypatch.undo()
    assert errors == {"openapi.remote-ref"}


def overlay(*actions: Any) -> dict[str, Any]:
    return {"overlay": "1.0.0", "info": {"title": "x", "version": "1"}, "actions": list(actions)}


BASE = {
    "paths": {
        "/a": {"get": {"tags": ["x"], "n": 1}, "post": {"n": 2}},
        "/b": {"get": {"n": 1, "deep": {"n": 3}}},
    },
    "list": [{"k": "a"}, {"k": "b"}, {"k": 1}],
}


def test_an_overlay_updates_and_removes() -> None:
    before = json.dumps(BASE)
    update = {"x-new": {"y": [1]}, "tags": ["z"], "n": {"m": 1}}
    changed = apply_overlay(
        BASE,
        overlay(
            {"target": "$.paths['/a'].get", "update": update}, {"target": "$.paths['/b']", "remove": True}
        ),
    )
    assert changed["paths"] == {
        "/a": {"get": {"tags": ["x", "z"], "n": {"m": 1}, "x-new": {"y": [1]}}, "post": {"n": 2}}
    }
    again = apply_overlay(
        changed, overlay({"target": "$.paths['/a'].get.x-new", "update": {"y": [2], "z": 3}})
    )
    assert again["paths"]["/a"]["get"]["x-new"] == {"y": [1, 2], "z": 3}
    assert apply_overlay(BASE, overlay({"target": "$.list", "update": {"k": 5}}))["list"][3] == {"k": 5}
    assert apply_overlay(BASE, overlay({"target": "$.list[*]", "remove": True}))["list"] == []
    assert apply_overlay(BASE, overlay({"target": "$..*", "remove": True})) == {}
    assert apply_overlay(BASE, overlay({"target": "$", "update": {"openapi": "3.2.0"}}))["openapi"] == "3.2.0"
    merged = apply_overlay(BASE, overlay({"target": "$.paths['/b']", "update": {"get": {"deep": {"m": 4}}}}))
    assert merged["paths"]["/b"] == {"get": {"n": 1, "deep": {"n": 3, "m": 4}}}
    assert json.dumps(BASE) == before
    assert update == {"x-new": {"y": [1]}, "tags": ["z"], "n": {"m": 1}}


def test_an_overlay_adds_promises_to_a_written_document() -> None:
    read = read_document((FIXTURES / "openapi" / "documents" / "fastapi-0.165.json").read_bytes())
    added = overlay(
        {
            "target": "$.paths['/r/chat'].post.responses['200'].content['text/event-stream']",
            "update": {
                "x-sse-stream": {"kind": "/data/type", "order": "delta* done", "within": {"gap": "15s"}}
            },
        }
    )
    found = describe_stream(apply_overlay(read, added), "/r/chat", "post")
    assert (found.promises.order, found.promises.gap, found.kinds) == ("delta* done", 15.0, ("delta", "done"))
    assert not describe_stream(read, "/r/chat", "post").has_promises


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("$", 1), ("$.paths", 1), ("$.paths.*", 2), ("$.paths[*].get", 2), ("$..n", 4), ("$.paths..n", 4), ("$..get.n", 2),
        ('$["paths"]["/a"]', 1), ("$.list[0]", 1), ("$.list[-1]", 1), ("$.list[9]", 0), ("$.paths[0]", 0), ("$.none", 0),
        ("$.list[?@.k == 'a']", 1), ("$.list[?(@.k != 'a')]", 2), ("$.list[?@.k==1]", 1), ("$.list[?@.k == true]", 0),
        ("$.list[?@['k']]", 3), ("$.list[?@.z]", 0), ("$.list[?@.z != 1]", 3), ("$.paths[?@.get.n == 1]", 2), ("$..['n']", 4),
        ("$.list..*", 6), ("$.n.*", 0), (" $.paths ", 1), ("$.paths['/a'].get.tags[*]", 1),
    ],
)  # fmt: skip
def test_the_paths_of_an_overlay(path: str, count: int) -> None:
    assert len(find_nodes(BASE, path)) == count


@pytest.mark.parametrize(
    "bad",
    [
        {}, {"overlay": "2.0.0"}, {"overlay": 1}, overlay(), {"overlay": "1.0.0", "actions": {}}, overlay(5), overlay({}),
        overlay({"target": "$.none", "remove": True}), overlay({"target": "$.paths"}), overlay({"target": "$", "remove": True}),
        overlay({"target": "paths", "update": {}}), overlay({"target": "$.list[1:2]", "update": {}}),
        overlay({"target": "$.list[?length(@.k) > 1]", "update": {}}), overlay({"target": "$.paths..", "update": {}}),
        overlay({"target": "$.paths['/a'].get.n", "update": {"a": 1}}), overlay({"target": "$.paths.", "update": {}}),
    ],
)  # fmt: skip
def test_a_bad_overlay_is_an_error(bad: Any) -> None:
    with pytest.raises(OpenApiError) as caught:
        apply_overlay(BASE, bad)
    assert caught.value.rule == "openapi.overlay"


def test_a_path_that_meets_too_many_nodes_is_an_error() -> None:
    with pytest.raises(OpenApiError, match="more than"):
        find_nodes({"a": [[0] * 400] * 400}, "$..*")


def test_hostile_documents_are_refused_or_fast() -> None:
    wide = {"enum": [f"v{n}" for n in range(50_000)]}
    found = EventValidator(
        describe_stream(document({"itemSchema": {"properties": {"event": wide}}}), "/x", "get")
    )
    assert found.check("v7", "x") == ()
    assert found.check("w", "x")[0].rule == "schema.unknown-kind"
    bomb = {f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 9} for n in range(30)} | {
        "S30": {}
    }
    with pytest.raises(OpenApiError, match="apply to one value"):
        describe_stream(
            document({"itemSchema": {"$ref": "#/components/schemas/S0"}}, components={"schemas": bomb}),
            "/x",
            "get",
        )
    large: dict[str, Any] = {"properties": {f"p{n}": {} for n in range(100_001)}}
    with pytest.raises(OpenApiError, match="more than"):
        describe_stream(document({"itemSchema": large}), "/x", "get")
    chain = {f"S{n}": {"$ref": f"#/components/schemas/S{n + 1}"} for n in range(3000)} | {"S3000": {}}
    described = document({"itemSchema": {"$ref": "#/components/schemas/S0"}}, components={"schemas": chain})
    assert describe_stream(described, "/x", "get").modes == ("text",)
    many = {
        "anyOf": [
            {"properties": {"event": {"const": f"k{n}"}, "data": json_text({"type": "object"})}}
            for n in range(500)
        ]
    }
    found = EventValidator(describe_stream(document({"itemSchema": {"type": "object", **many}}), "/x", "get"))
    assert found.check("k499", "{}") == ()
    assert found.check("k500", "{}")[0].rule == "schema.unknown-kind"


def test_a_pattern_does_not_backtrack() -> None:
    slow = {"itemSchema": {"properties": {"data": {"type": "string", "pattern": "^(a+)+$"}}}}
    assert EventValidator(describe_stream(document(slow), "/x", "get")).check(None, "a" * 5000 + "!") != ()
