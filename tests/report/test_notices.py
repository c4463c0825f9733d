"""The notice that train events lead to, and its payload for each service."""

import json
from collections.abc import Sequence

import attrs
import msgspec
import pytest

from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.train_events import (
    Interrupted,
    StepFinished,
    StepStarted,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    Waiting,
)
from cutover.report.notices import cloud_event, google_chat, pagerduty, slack
from cutover.report.notices.notice import Notice, NoticeKind, notice_of

FACTS = {
    "project": "p",
    "region": "r",
    "service": "chat",
    "base_url": "https://chat.example",
    "stable_revision": "chat-1",
    "canary_revision": "chat-2",
    "dry_run": False,
}
STARTED = TrainStarted(run_id="20260101T000000Z_abcdef", facts=FACTS, at="2026-01-01T00:00:00.000Z")
PROVEN = UndoFinished(proven=True, detail="all is as captured")
OPEN = UndoFinished(proven=False, detail="the split is not as captured", to_do=("look at the split",))
WAITING = Waiting(
    step_id="canary-rollback-drill",
    hold="25",
    wait="1-abc",
    state="chat-2 25 %, chat-1 75 %",
    until="2026-01-01T01:00:00.000Z",
    decide="cutover decide /runs/1 go --by NAME --because TEXT",
)
HOSTILE = "<!channel> <users/all> & *bold* \x1b[31m \u202e ```"


def _notice(*events: TrainEvent, recovering: bool = False, run_directory: str = "/runs/1") -> Notice:
    found = notice_of((STARTED, *events), recovering=recovering, run_directory=run_directory)
    assert found is not None
    return found


def _failed(detail: str, count: int = 1) -> StepFinished:
    checks = tuple(
        Check(check_id=f"alias-{number}", status=StepStatus.FAIL, detail=detail) for number in range(count)
    )
    return StepFinished(result=StepResult(step_id="smoke", status=StepStatus.FAIL, checks=checks))


@pytest.mark.parametrize(
    ("events", "recovering", "kind"),
    [
        ([], False, NoticeKind.STARTED),
        ([WAITING], False, NoticeKind.WAITING),
        ([PROVEN], False, NoticeKind.UNDONE),
        ([TrainFinished(passed=True, exit_code=0)], False, NoticeKind.PASSED),
        ([TrainFinished(passed=False, exit_code=1)], False, NoticeKind.FAILED),
        ([TrainFinished(passed=False, exit_code=3)], False, NoticeKind.FAILED),
        ([TrainFinished(passed=False, exit_code=130)], False, NoticeKind.FAILED),
        ([TrainFinished(passed=False, exit_code=4)], False, NoticeKind.UNRESOLVED),
        ([TrainFinished(passed=False, exit_code=4)], True, NoticeKind.UNRESOLVED),
        ([TrainFinished(passed=False, exit_code=1)], True, NoticeKind.RECOVERED),
        ([StepStarted(step_id="smoke")], False, None),
        ([UndoStarted(reason="a gate does not hold")], False, None),
        ([Interrupted(cause="CancelledError")], False, None),
        # The verdict follows, and says that something is open.
        ([OPEN], False, None),
        # A recovery tells its end alone.
        ([PROVEN], True, None),
    ],
)
def test_the_last_event_decides_which_notice_there_is(
    events: Sequence[TrainEvent], recovering: bool, kind: NoticeKind | None
) -> None:
    found = notice_of((STARTED, *events), recovering=recovering)
    assert (found and found.kind) == kind


def test_a_journal_without_its_beginning_leads_to_no_notice() -> None:
    assert notice_of([TrainFinished(passed=True, exit_code=0)]) is None


def test_a_notice_of_an_open_run_says_what_is_open_and_what_to_do() -> None:
    notice = _notice(OPEN, TrainFinished(passed=False, exit_code=4, reasons=("smoke: 1 failed of 0",)))
    assert "UNRESOLVED" in notice.title
    assert notice.lines == (
        "exit code 4",
        "reason: smoke: 1 failed of 0",
        "undo: the split is not as captured",
        "DO: look at the split",
        "DO: to close the run: cutover recover /runs/1",
    )
    assert notice.text.splitlines()[0] == notice.title
    assert "run directory: /runs/1" in notice.text


def test_a_notice_of_a_waiting_train_says_where_until_when_and_how_to_decide() -> None:
    assert _notice(WAITING).lines == (
        "it waits at 25 %, with this state: chat-2 25 %, chat-1 75 %",
        "at 2026-01-01T01:00:00.000Z the train stops waiting, and undoes its changes",
        "DO: cutover decide /runs/1 go --by NAME --because TEXT",
    )


def test_a_rehearsal_is_marked_in_the_title() -> None:
    rehearsal = attrs.evolve(STARTED, facts={**FACTS, "dry_run": True})
    found = notice_of([rehearsal])
    assert found is not None
    assert found.title.startswith("[rehearsal] cutover of chat (chat-2): started")


def test_two_notices_of_one_train_have_two_ids_and_one_source() -> None:
    first, last = (cloud_event.payload(_notice(*events)) for events in ((), (PROVEN,)))
    assert first["id"] != last["id"]
    assert first["source"] == last["source"] == "/projects/p/locations/r/services/chat"


def test_a_cloud_event_has_the_required_attributes_as_texts() -> None:
    event = json.loads(json.dumps(cloud_event.payload(_notice(TrainFinished(passed=True, exit_code=0)))))
    required = {"specversion", "id", "source", "type"}
    assert {name for name in required if isinstance(event[name], str) and event[name]} == required
    assert (event["specversion"], event["type"]) == ("1.0", "com.openagents.cutover.train.passed")
    assert event["data"]["exit_code"] == 0
    assert event["data"]["canary_revision"] == "chat-2"


def test_text_off_the_wire_marks_no_link_and_no_mention() -> None:
    notice = _notice(_failed(HOSTILE), TrainFinished(passed=False, exit_code=1, reasons=(HOSTILE,)))
    in_slack = str(slack.payload(notice)["text"])
    assert "&lt;!channel&gt;" in in_slack
    assert not set("<>") & set(in_slack)
    in_chat = str(google_chat.payload(notice)["text"])
    assert not set("<>") & set(in_chat)
    assert "users/all" in in_chat
    for text in (in_slack, in_chat):
        assert not {"\x1b", "\u202e"} & set(text)


@pytest.mark.parametrize("character", ["&", "\N{GRINNING FACE}", "<", "\x00"])
def test_the_largest_notice_stays_within_the_limits_of_every_service(character: str) -> None:
    long = character * 100_000
    failed = _failed(long, count=40)
    notice = _notice(failed, TrainFinished(passed=False, exit_code=4, reasons=(long,) * 40))
    assert len(str(slack.payload(notice)["text"])) <= 40_000
    assert len(msgspec.json.encode(google_chat.payload(notice))) <= 32_000
    event = pagerduty.payload(notice, routing_key="k")
    assert event is not None
    assert len(msgspec.json.encode(event)) <= 512 * 1024
    # A command may read its input late: the pipe holds all of it.
    assert len(msgspec.json.encode(cloud_event.payload(notice))) <= 256 * 1024
    assert notice.lines[-1].endswith("more lines are in SUMMARY.md")


def test_a_long_train_id_and_service_are_cut_for_pagerduty() -> None:
    facts = {**FACTS, "service": "s" * 5000, "canary_revision": "c" * 5000}
    found = notice_of(
        [attrs.evolve(STARTED, run_id="i" * 5000, facts=facts), TrainFinished(passed=False, exit_code=4)]
    )
    assert found is not None
    event = pagerduty.payload(found, routing_key="k")
    assert event is not None
    assert len(str(event["dedup_key"])) <= 255
    assert len(event["payload"]["summary"]) <= 1024  # type: ignore[index]


@pytest.mark.parametrize("kind", NoticeKind)
def test_only_an_open_run_pages_and_only_a_recovery_resolves(kind: NoticeKind) -> None:
    event = pagerduty.payload(attrs.evolve(_notice(), kind=kind), routing_key="the-key")
    action = {NoticeKind.UNRESOLVED: "trigger", NoticeKind.RECOVERED: "resolve"}.get(kind)
    assert (event and event["event_action"]) == action
    if event is not None:
        assert (event["routing_key"], event["dedup_key"]) == ("the-key", STARTED.run_id)
