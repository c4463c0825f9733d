"""`cutover check` against a URL: a turn of its own at an alias, any request elsewhere, several targets side by side."""

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


def test_each_alias_gets_a_turn_of_its_own(simulation: Served) -> None:
    targets = [url(simulation, "/api/chat/stream"), url(simulation, "/api/chats/thread_mine/stream")]
    done = check(simulation, *HEADER, *targets)
    assert done.exit_code == 0, done.output
    assert [line.split(": ok ")[0] for line in done.output.splitlines()] == targets


def test_without_the_token_it_is_broken_and_says_so(simulation: Served) -> None:
    done = check(simulation, url(simulation, "/api/chat/stream"))
    assert done.exit_code == 1
    assert "BROKEN" in done.output
    assert "head.status" in done.output
    assert "401" in done.output


def test_a_body_of_ones_own_is_sent_as_it_is(simulation: Served) -> None:
    body = json.dumps({"id": "thread_own", "messages": [{"role": "user", "content": "hello"}]})
    done = check(simulation, *HEADER, "--json", "--data", body, url(simulation, "/api/chat/stream"))
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert (document["ok"], document["unreachable"]) == (True, None)
    assert document["event_count"] >= 4


def test_another_path_is_held_against_the_contract_too(simulation: Served) -> None:
    done = check(simulation, *HEADER, url(simulation, "/openapi.json"))
    assert done.exit_code == 1
    assert "violation" in done.output


def test_several_targets_are_told_in_the_order_given_and_the_worst_decides(
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


def test_the_token_is_not_in_what_is_said(simulation: Served) -> None:
    for target in ("/api/chat/stream", "/nowhere"):
        done = check(simulation, *HEADER, "--json", url(simulation, target))
        assert simulation.env["AUTH_TOKEN"] not in done.output


def test_the_same_target_twice_is_judged_twice(simulation: Served) -> None:
    target = url(simulation, "/api/chat/stream")
    done = check(simulation, *HEADER, target, target)
    assert done.exit_code == 0
    assert done.output.count(": ok ") == 2
