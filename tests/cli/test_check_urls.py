"""`cutover check` against URLs: a new chat turn at an alias, any request at other paths, several targets in parallel."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cutover.cli.commands import main
from tests.support.commands import Served, served

HEADER = ("--header", "Authorization: Bearer $MARKED_TOKEN")


@pytest.fixture(scope="module")
def simulation() -> Iterator[Served]:
    with served() as found:
        yield found


def check(simulation: Served, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments], env={"MARKED_TOKEN": simulation.env["AUTH_TOKEN"]})


def url(simulation: Served, path: str) -> str:
    return simulation.env["BASE_URL"] + path


def test_each_alias_gets_a_new_chat_turn(simulation: Served) -> None:
    targets = [url(simulation, "/api/chat/stream"), url(simulation, "/api/chats/thread_mine/stream")]
    done = check(simulation, *HEADER, *targets)
    assert done.exit_code == 0, done.output
    assert [line.split(": ok ")[0] for line in done.output.splitlines()] == targets


def test_without_the_token_the_target_is_broken_with_status_401(simulation: Served) -> None:
    done = check(simulation, url(simulation, "/api/chat/stream"))
    assert done.exit_code == 1
    assert "BROKEN" in done.output
    assert "head.status" in done.output
    assert "401" in done.output


def test_a_body_that_the_user_gives_is_sent_unchanged(simulation: Served) -> None:
    body = json.dumps({"id": "thread_own", "messages": [{"role": "user", "content": "hello"}]})
    done = check(simulation, *HEADER, "--json", "--data", body, url(simulation, "/api/chat/stream"))
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert (document["ok"], document["unreachable"]) == (True, None)
    assert document["event_count"] >= 4


def test_another_path_is_checked_against_the_contract_too(simulation: Served) -> None:
    done = check(simulation, *HEADER, url(simulation, "/openapi.json"))
    assert done.exit_code == 1
    assert "violation" in done.output


def test_several_targets_are_printed_in_the_given_order_and_the_highest_exit_code_counts(
    simulation: Served, tmp_path: Path
) -> None:
    recording = tmp_path / "empty.sse"
    recording.write_bytes(b"")
    good = url(simulation, "/api/chat/stream")
    done = check(simulation, *HEADER, str(recording), "http://127.0.0.1:9/api/chat/stream", good)
    assert done.exit_code == 3
    heads = [line for line in done.output.splitlines() if not line.startswith("  ")]
    assert [line.split(": ")[1].split()[0] for line in heads] == ["BROKEN", "UNREACHABLE", "ok"]
    assert check(simulation, *HEADER, str(recording), good).exit_code == 1


def test_the_token_is_not_in_the_output(simulation: Served) -> None:
    for target in ("/api/chat/stream", "/nowhere"):
        done = check(simulation, *HEADER, "--json", url(simulation, target))
        assert simulation.env["AUTH_TOKEN"] not in done.output


def test_the_same_target_given_twice_is_checked_twice(simulation: Served) -> None:
    target = url(simulation, "/api/chat/stream")
    done = check(simulation, *HEADER, target, target)
    assert done.exit_code == 0
    assert done.output.count(": ok ") == 2
