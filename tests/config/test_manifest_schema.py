"""The JSON Schema of a manifest agrees with its parser, and ``cutover check --manifest`` says what is wrong without a request."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from cutover.cli.commands import main
from cutover.config.manifest import manifest_schema, parse_manifest
from cutover.errors import ConfigurationError

SCHEMA = json.loads(manifest_schema())
ENTRY: dict[str, Any] = {"id": "e", "path": "/x"}
SHIPPED = Path(__file__).parents[2] / "cutover" / "config" / "dual_run_manifest.json"


def agrees_with_schema(entry: object) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid({"requests": [entry]}))


def agrees_with_parser(entry: object) -> bool:
    try:
        parse_manifest(json.dumps({"requests": [entry]}).encode(), name="m")
    except ConfigurationError:
        return False
    return True


def test_the_schema_is_one_and_the_shipped_manifest_keeps_it() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(SHIPPED.read_bytes()), SCHEMA)


@pytest.mark.parametrize(
    "more",
    [
        {},
        *({"method": method} for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")),
        *({"method": "POST", "mutates": changes} for changes in (False, True)),
        {"method": "POST", "response_kind": "sse"},
        {"method": "POST", "expect_status": 422},
        {"path": "/a/{thread_id}?b={c:d}"},
        {"body": {"prompt": "explain what {x} and {} do", "code": "{{a: 1}}", "ids": ["x-{thread_id}"]}},
        *({"response_kind": kind} for kind in ("json", "text", "sse")),
        {"critical": True, "requires_auth": True, "mutates": True},
        {"headers": {"x-a": "b", "accept": ""}},
        {"body": None},
        {"body": [1, {"a": "{thread_id}"}]},
        {"expect_status": 200},
        {"expect_status": 422},
        {"expect_status": 499, "response_kind": "text"},
        {"expect_status": 201, "response_kind": "sse"},
        {"response_kind": "sse", "deterministic": True},
        {"deterministic": False},
        {
            "ignore": [
                ".",
                ".a.b[0]",
                "[1].c",
                ".a.*",
                "headers",
                "headers.vary",
                "text",
                "stream",
                "stream.order",
            ]
        },
    ],
)
def test_both_accept_a_right_entry(more: dict[str, object]) -> None:
    assert agrees_with_parser({**ENTRY, **more})
    assert agrees_with_schema({**ENTRY, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"id": ""},
        {"id": "a b"},
        {"id": ".a"},
        {"id": "a" * 81},
        {"path": "x"},
        {"path": "//x"},
        {"path": "/a b"},
        {"method": "FETCH"},
        {"method": None},
        {"response_kind": "xml"},
        {"critical": "yes"},
        {"requires_auth": 1},
        {"mutates": None},
        {"headers": []},
        {"headers": {"a": 1}},
        {"headers": {"a": "b\r\nc"}},
        {"headers": {"": "c"}},
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"cookie": "a"}},
        {"expect_status": "422"},
        {"expect_status": True},
        {"expect_status": 199},
        {"expect_status": 503},
        {"expect_status": 422, "response_kind": "sse"},
        {"deterministic": True},
        {"deterministic": True, "response_kind": "text"},
        {"ignore": "text"},
        {"ignore": [1]},
        {"ignore": ["body"]},
        {"ignore": ["headers vary"]},
        {"ignore": [""]},
        {"retries": 3},
        {"path": "/a/{foo}"},
        {"path": "/a/{thread_id}/{threadId}"},
        {"body": "{foo}"},
        {"body": {"a": [{"id": "x-{thread}"}]}},
        {"body": {"a": "say { thread_id } twice"}},
        {"headers": {"x-thread": "{thread_id}"}},
        {"method": "POST"},
        {"method": "POST", "response_kind": "text"},
        {"method": "POST", "expect_status": 302},
    ],
)
def test_both_refuse_a_wrong_entry(more: dict[str, object]) -> None:
    assert not agrees_with_parser({**ENTRY, **more})
    assert not agrees_with_schema({**ENTRY, **more})


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"requests": []},
        {"requests": {}},
        {"requests": [1]},
        {"requests": [ENTRY], "defaults": {}},
    ],
)
def test_both_refuse_what_is_no_list_of_entries(document: object) -> None:
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(document)
    with pytest.raises(ConfigurationError):
        parse_manifest(json.dumps(document).encode(), name="m")


@pytest.mark.parametrize(
    ("method", "more", "mutates"),
    [("GET", {}, False), ("POST", {"response_kind": "sse"}, False), ("POST", {"expect_status": 422}, False), ("PUT", {}, True), ("PATCH", {}, True), ("DELETE", {}, True), ("PUT", {"mutates": False}, False)],
)  # fmt: skip
def test_a_method_that_changes_something_is_not_sent_by_default(
    method: str, more: dict[str, object], mutates: bool
) -> None:
    (entry,) = parse_manifest(
        json.dumps({"requests": [{**ENTRY, "method": method, **more}]}).encode(), name="m"
    )
    assert entry.mutates is mutates


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"expect_status": 503}, "m: requests[0] ('e'): 'expect_status' must be a status from 200 to 499, not 503"),
        ({"expect_status": 422, "response_kind": "sse"}, "m: requests[0] ('e'): 'expect_status' 422 is no event stream"),
        ({"deterministic": True}, "m: requests[0] ('e'): 'deterministic' is for 'response_kind' sse alone"),
        ({"ignore": ["body"]}, "m: requests[0] ('e'): 'ignore' holds 'body', which is no place"),
        ({"ignore": "text"}, "m: requests[0] ('e'): 'ignore' must be a list"),
        ({"expect_status": True}, "m: requests[0] ('e'): 'expect_status' must be a whole number"),
        ({"path": "/a/{foo}"}, "m: requests[0] ('e'): 'path' holds {foo}, and {thread_id} is the only placeholder"),
        ({"body": {"id": "{foo}"}}, "m: requests[0] ('e'): 'body' holds {foo}, and {thread_id} is the only placeholder"),
        ({"method": "POST"}, "m: requests[0] ('e'): 'mutates' is missing: a POST that is no event stream must say if it changes something"),
    ],
)  # fmt: skip
def test_a_problem_names_entry_and_key(more: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_manifest(json.dumps({"requests": [{**ENTRY, **more}]}).encode(), name="m")
    assert caught.value.problems[0].startswith(said)


def test_a_wrong_type_hides_no_other_problem() -> None:
    wrong = {
        "id": "a b",
        "path": 1,
        "method": "FETCH",
        "response_kind": ["sse"],
        "critical": "yes",
        "headers": {"cookie": "a"},
        "ignore": ["body"],
        "retries": 1,
    }
    document = {"requests": [wrong, ENTRY, {**ENTRY, "path": 1}], "version": 2}
    with pytest.raises(ConfigurationError) as caught:
        parse_manifest(json.dumps(document).encode(), name="m")
    problems = list(caught.value.problems)
    assert problems[0] == "m: 'version' is not a key of a manifest; its keys are 'requests' and '$schema'"
    assert problems[-1] == "m: the id 'e' is used more than once"
    first = [problem for problem in problems if problem.startswith("m: requests[0] ('a b'): ")]
    for key in ("id", "path", "method", "response_kind", "critical", "headers", "ignore", "retries"):
        assert sum(f": '{key}' " in problem for problem in first) == 1, (key, first)
    assert len(problems) == len(first) + 3


class TestCheckManifest:
    def test_a_right_one_is_told_with_exit_0(self) -> None:
        done = CliRunner().invoke(main, ["check", "--manifest", str(SHIPPED)])
        assert done.exit_code == 0
        assert "10 requests, 0 of which need RUN_MUTATING_REQUESTS=1" in done.output

    def test_every_problem_of_a_wrong_one_is_told_with_exit_2(self, tmp_path: Path) -> None:
        path = tmp_path / "m.json"
        path.write_text('{"requests": [{"id": "a"}, {"id": "b", "path": "/", "retries": 1}]}')
        done = CliRunner().invoke(main, ["check", "--manifest", str(path)])
        assert done.exit_code == 2
        assert f"{path}: requests[0] ('a') lacks the key 'path'" in done.output
        assert f"{path}: requests[1] ('b'): 'retries' is not a key of an entry" in done.output

    def test_a_file_that_is_missing_is_told(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(main, ["check", "--manifest", str(tmp_path / "none.json")])
        assert done.exit_code == 2
        assert "none.json cannot be read: No such file or directory" in done.output

    def test_a_target_beside_it_is_refused(self) -> None:
        done = CliRunner().invoke(main, ["check", "--manifest", str(SHIPPED), "https://chat.example/x"])
        assert done.exit_code == 2
        assert "check the TARGET in a command of its own" in done.output
