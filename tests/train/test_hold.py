"""A train that waits for a decision: it goes on after go, and undoes after stop, a timeout, a fault, or an interruption."""

import json
import resource
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from cutover.errors import NotDecidedError
from cutover.model.holds import Hold, holds_of, open_wait
from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    CheckRecorded,
    Observer,
    RouteIntended,
    TrainEvent,
    TrainFinished,
    Waiting,
)
from cutover.record.decisions import FILE, MOST_BYTES, Decision, DecisionFile
from cutover.record.journal import read_journal
from cutover.simulation import Fault, Operation, Site
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import STREAMS, Fate, problem
from cutover.simulation.faults import Outcome, Refuse, Rewrite, Role, Scope, Strike
from cutover.wiring.decide import Decided, decide
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

BROKEN = Refuse(problem(404, "not_found", "Not found."))
FRONT = frozenset({Site.FRONT})
TAGS = {"canary": "https://canary---chat.example"}
Operator = Callable[["Night"], Coroutine[Any, Any, None]]


class Night:
    """A train that waits, seen by an operator with a second terminal."""

    def __init__(self, trial: EmbeddedTrain) -> None:
        assert trial.config.output_dir is not None
        self.trial, self.folder = trial, trial.config.output_dir

    @property
    def events(self) -> list[TrainEvent]:
        journal = self.folder / "journal.jsonl"
        return read_journal(journal) if journal.exists() else []

    async def waits(self, hold: str) -> Waiting:
        """Wait until the train waits here."""
        while True:
            waiting = open_wait(self.events)
            if waiting is not None and waiting.hold == hold:
                return waiting
            await anyio.sleep(0.5)

    async def decides(
        self, answer: str, shown: str | None = None, because: str = "the dashboards are green"
    ) -> Decided:
        return await decide(self.folder, answer, by="alice", because=because, shown=shown)  # type: ignore[arg-type]

    def write(self, text: str | bytes) -> None:
        path = self.folder / FILE
        with path.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o600)


def _broken(**scope: object) -> Fault:
    """Return a fault that refuses these requests with 404, which breaks the contract."""
    return Fault(
        name="custom",
        sentence="Custom.",
        strikes=(Strike(Scope(**scope), BROKEN),),  # type: ignore[arg-type]
        outcome=Outcome(exit_code=1),
    )


async def _held(
    directory: Path,
    operator: Operator,
    *faults: Fault,
    hold_at: tuple[str, ...] = ("25",),
    hold_timeout: float = 60.0,
    observer: Observer | None = None,
    **changes: object,
) -> tuple[CutoverSummary, EmbeddedTrain, dict[str, Check]]:
    """Run a train beside an operator; return the summary, the production and the checks of the step that waited."""
    waits = {"hold_at": hold_at, "hold_timeout": hold_timeout, "canary_steps": (25, 100)}
    config = live_config(directory, **{**waits, **changes})
    trial = EmbeddedTrain(config, faults=faults, layout_changes={"tag_urls": TAGS})
    summary: CutoverSummary | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(operator, Night(trial))
        summary = await trial.run(observer)
        group.cancel_scope.cancel()
    assert summary is not None
    checks = {check.check_id: check for step in summary.steps for check in step.checks}
    return summary, trial, checks


def _hold(trial: EmbeddedTrain, number: int = 0) -> Hold:
    assert trial.config.output_dir is not None
    return holds_of(read_journal(trial.config.output_dir / "journal.jsonl"))[number]


def _updates(trial: EmbeddedTrain) -> list[float]:
    return [row.time for row in trial.production.requests if row.operation is Operation.TRAFFIC_UPDATE]


async def _nobody(_: Night) -> None:
    """Decide nothing."""


async def test_go_lets_the_train_go_on_and_names_who_and_why(tmp_path: Path) -> None:
    times: list[float] = []

    async def operator(night: Night) -> None:
        for hold in ("25", "100", "flip"):
            await night.waits(hold)
            await anyio.sleep(20)
            times.append(anyio.current_time())
            assert (await night.decides("go")).taken

    summary, trial, checks = await _held(tmp_path, operator, hold_at=("25", "100", "flip"))
    assert summary.passed
    assert [hold.waiting.hold for hold in summary.holds] == ["25", "100", "flip"]
    assert {(hold.decision.answer, hold.decision.by) for hold in summary.holds if hold.decision} == {
        ("go", "alice")
    }
    assert checks["hold-25"].detail.startswith("go, decided by alice after 2")
    assert checks["hold-25"].detail.endswith(" s: the dashboards are green")
    # The canary kept 25 % until the decision, and 100 % too.
    to_25, to_100, back, *_ = _updates(trial)
    assert to_100 - to_25 > 20
    assert to_100 - times[0] < 3
    assert back - to_100 > 20
    document = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert document["holds"][1]["hold"] == "100"
    assert document["holds"][1]["answer"] == "go"
    assert document["holds"][1]["because"] == "the dashboards are green"
    page = (tmp_path / "run" / "SUMMARY.md").read_text()
    assert "| at 25 % | go | alice | the dashboards are green |" in page


async def test_the_flip_waits_before_its_first_override_and_shows_what_it_sets(tmp_path: Path) -> None:
    async def operator(night: Night) -> None:
        waiting = await night.waits("flip")
        assert not [event for event in night.events if isinstance(event, RouteIntended)]
        assert "the flip sets all of them to rust_shell" in waiting.state
        await night.decides("stop")

    summary, trial, checks = await _held(tmp_path, operator, hold_at=("flip",))
    assert summary.exit_code == 1
    assert not [row for row in trial.production.requests if row.operation is Operation.ROUTE_OVERRIDE]
    assert checks["hold-flip"].detail.startswith("stop, decided by alice")
    assert trial.production.traffic == {STABLE: 100}


@pytest.mark.parametrize(("last", "passes"), [(20, True), (10**6, False)])
async def test_before_the_flip_one_failed_turn_is_weighed_and_a_front_door_that_fails_ends_the_wait(
    last: int, passes: bool, tmp_path: Path
) -> None:
    # At the front door stable answers the smoke and the looks after the rollback; in the wait its turn 20 fails, or each from 20 on.
    scope = Scope(operations=STREAMS, sites=FRONT, role=Role.STABLE, first=20, last=last)
    failed = Refuse(problem(500, "internal", "Something went wrong."))
    fault = attrs.evolve(_broken(operations=STREAMS), strikes=(Strike(scope, failed),))

    async def operator(night: Night) -> None:
        await night.waits("flip")
        await anyio.sleep(50)
        await night.decides("go")

    changes: dict[str, Any] = {
        "hold_at": ("flip",),
        "canary_steps": (100,),
        "canary_soak_seconds": 60.0,
        "max_canary_worse_percent": 10.0,
    }
    if passes:
        summary, trial, checks = await _held(tmp_path, operator, fault, **changes)
        assert summary.passed
        assert checks["hold-flip"].detail.startswith("go, decided by alice")
        assert [row.status for row in trial.production.requests if row.operation in STREAMS].count(500) == 1
    else:
        summary, trial, checks = await _held(tmp_path, _nobody, fault, **changes)
        # Stable fails by itself, and nothing of this train is in force.
        assert summary.exit_code == 3
        assert checks["hold-flip"].detail.startswith(
            "baseline unhealthy: more than 10 % of the turns fail, at 95 %: "
        )
        assert not [row for row in trial.production.requests if row.operation is Operation.ROUTE_OVERRIDE]


async def test_a_token_that_is_refused_while_the_flip_waits_is_nobodys_fault(tmp_path: Path) -> None:
    scope = Scope(operations=STREAMS, sites=FRONT, role=Role.STABLE, first=20)
    refused = Refuse(problem(401, "unauthorized", "The token is not valid."))
    fault = attrs.evolve(_broken(operations=STREAMS), strikes=(Strike(scope, refused),))
    changes: dict[str, Any] = {
        "hold_at": ("flip",),
        "canary_steps": (100,),
        "canary_soak_seconds": 60.0,
        "max_canary_worse_percent": 10.0,
    }
    summary, trial, checks = await _held(tmp_path, _nobody, fault, **changes)
    assert checks["hold-flip"].status is StepStatus.ERROR
    assert "AUTH_TOKEN was refused" in checks["hold-flip"].detail
    assert "baseline unhealthy" not in checks["hold-flip"].detail
    assert summary.undo is None
    assert trial.production.traffic == {STABLE: 100}
    assert not [row for row in trial.production.requests if row.operation is Operation.ROUTE_OVERRIDE]


async def test_overrides_that_somebody_changes_while_the_flip_waits_stop_the_flip(tmp_path: Path) -> None:
    async def operator(night: Night) -> None:
        await night.waits("flip")
        for instance in night.trial.production._front_door.all_of(STABLE):
            instance.overrides["auth_entry"] = "legacy"
        await night.decides("go")

    summary, _, _ = await _held(tmp_path, operator, hold_at=("flip",))
    flip = summary.step("route-flip")
    assert flip is not None
    assert "control-status-after-hold: the overrides have changed since the preflight" in flip.detail
    assert summary.exit_code == 1


async def test_the_promotion_waits_with_all_traffic_on_stable(tmp_path: Path) -> None:
    answers = iter(("go", "stop"))
    shown: list[str] = []

    async def operator(night: Night) -> None:
        waiting = await night.waits("promote")
        shown.append(waiting.state)
        assert night.trial.production.traffic == {STABLE: 100}
        assert (await night.decides(next(answers))).taken

    changes = {"hold_at": ("promote",), "promote": True, "canary_steps": (100,)}
    summary, trial, _ = await _held(tmp_path / "go", operator, **changes)  # type: ignore[arg-type]
    assert (summary.passed, trial.production.traffic) == (True, {CANARY: 100})
    assert set(trial.production.route_targets().values()) == {"rust_shell"}
    assert shown == [f"{STABLE} 100 %; the promotion gives {CANARY} all traffic"]
    summary, trial, checks = await _held(tmp_path / "stop", operator, **changes)  # type: ignore[arg-type]
    assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})
    assert checks["hold-promote"].detail.startswith("stop, decided by alice")
    # The flip was undone too.
    assert set(trial.production.route_targets().values()) == {None}


@pytest.mark.parametrize("decides", [False, True])
async def test_a_turn_that_fails_in_the_last_second_does_not_prolong_the_wait(
    decides: bool, tmp_path: Path
) -> None:
    """Without a decision the wait ends with its time. After go, the turn is decided before the train goes on."""
    fails_from = [float("inf")]

    def lose_one(reply: object) -> object:
        if anyio.current_time() < fails_from[0]:
            return reply
        fails_from[0] = float("inf")
        return problem(503, "unavailable", "Try again later.")

    scope = Scope(operations=STREAMS, sites=frozenset({Site.TAG}), role=Role.CANARY)
    fault = attrs.evolve(_broken(operations=STREAMS), strikes=(Strike(scope, Rewrite(lose_one)),))  # type: ignore[arg-type]

    async def operator(night: Night) -> None:
        await night.waits("25")
        fails_from[0] = anyio.current_time() + 48
        await anyio.sleep(58)
        if decides:
            assert (await night.decides("go")).taken

    began: list[float] = []

    def observe(event: TrainEvent) -> None:
        if isinstance(event, Waiting):
            began.append(anyio.current_time())

    summary, trial, checks = await _held(
        tmp_path, operator, fault, observer=observe, canary_soak_seconds=30.0, max_canary_worse_percent=2.0
    )
    statuses = [row.status for row in trial.production.requests if row.operation in STREAMS]
    assert statuses.count(503) == 1
    if decides:
        assert summary.passed, {name: check.detail for name, check in checks.items() if check.status.failed}
        assert checks["hold-25"].detail.startswith("go, decided by alice")
        assert _updates(trial)[1] - began[0] > 60
    else:
        assert checks["hold-25"].detail == "no decision came within 60 s (HOLD_TIMEOUT)"
        assert _updates(trial)[1] - began[0] == pytest.approx(60, abs=2)


async def test_stop_undoes_at_once_and_the_reason_names_who_and_why(tmp_path: Path) -> None:
    written: list[float] = []

    async def operator(night: Night) -> None:
        await night.waits("25")
        await anyio.sleep(7)
        written.append(anyio.current_time())
        assert (await night.decides("stop")).taken

    summary, trial, checks = await _held(tmp_path, operator)
    assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})
    assert _updates(trial)[1] - written[0] < 2
    assert checks["hold-25"].status is StepStatus.FAIL
    assert any(
        reason.startswith("hold at 25 %: stop, decided by alice after ")
        and reason.endswith(": the dashboards are green")
        for reason in summary.reasons
    )
    assert checks["rollback"].status is StepStatus.PASS
    assert "traffic-100" not in checks


async def test_a_timeout_undoes_however_many_failed_checks_are_tolerated(tmp_path: Path) -> None:
    summary, trial, checks = await _held(tmp_path, _nobody, max_canary_drill_failures=9)
    assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})
    assert checks["hold-25"].detail == "no decision came within 60 s (HOLD_TIMEOUT)"
    assert "hold at 25 %: no decision came within 60 s (HOLD_TIMEOUT)" in summary.reasons
    to_25, back, *_ = _updates(trial)
    assert back - to_25 == pytest.approx(60, abs=2)


async def test_while_the_train_waits_every_alias_is_looked_at_everywhere(tmp_path: Path) -> None:
    _, trial, _ = await _held(tmp_path, _nobody, canary_look_seconds=5.0)
    to_25, back, *_ = _updates(trial)
    for site in (Site.FRONT, Site.TAG):
        for operation in (Operation.CHAT_STREAM, Operation.CHATS_STREAM):
            rows = [
                row.time
                for row in trial.production.requests
                if row.operation is operation and row.site is site and to_25 <= row.time <= back
            ]
            times = [to_25, *rows, back]
            assert max(after - before for before, after in pairwise(times)) <= 5.01


async def test_a_canary_that_turns_bad_while_the_train_waits_is_rolled_back_at_once(tmp_path: Path) -> None:
    # The canary's own URL answers 2 streams before the drill, and 2 at each look: one at 25 %, then in the wait.
    fault = _broken(operations=STREAMS, sites=frozenset({Site.TAG}), role=Role.CANARY, first=13)
    summary, trial, checks = await _held(
        tmp_path, _nobody, fault, hold_timeout=600.0, max_canary_drill_failures=9
    )
    assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})
    assert f"{CANARY} breaks the contract at its own URL" in checks["hold-25"].detail
    bad = next(row.time for row in trial.production.requests if row.site is Site.TAG and row.status == 404)
    to_25, back, *_ = _updates(trial)
    assert 0 < bad - to_25 < 60
    assert back - bad < 0.5
    assert _hold(trial).decision is None


async def test_go_counts_after_a_share_whose_failure_is_tolerated(tmp_path: Path) -> None:
    # The canary's own URL answers 2 streams before the drill; then one breaks the contract at 25 %, before the wait.
    fault = _broken(operations=STREAMS, sites=frozenset({Site.TAG}), role=Role.CANARY, first=3, last=3)

    async def operator(night: Night) -> None:
        await night.waits("25")
        await night.decides("go")

    summary, _, checks = await _held(
        tmp_path, operator, fault, hold_timeout=600.0, max_canary_drill_failures=1
    )
    assert checks["traffic-25"].status is StepStatus.FAIL
    assert checks["hold-25"].status is StepStatus.PASS, checks["hold-25"].detail
    assert checks["traffic-100"].status is StepStatus.PASS
    assert summary.passed


async def test_a_decision_does_not_hide_a_stream_that_still_runs(tmp_path: Path) -> None:
    """The look that runs when go comes is read to its end, and its fault counts."""
    fault = _broken(operations=STREAMS, sites=frozenset({Site.TAG}), role=Role.CANARY, first=5)

    async def operator(night: Night) -> None:
        # The decision is there before the first look of the wait has an answer.
        await night.waits("25")
        await night.decides("go")

    summary, _, checks = await _held(tmp_path, operator, fault)
    assert summary.exit_code == 1
    assert checks["hold-25"].status.failed


async def test_a_split_that_somebody_changes_while_the_train_waits_ends_the_wait(tmp_path: Path) -> None:
    async def operator(night: Night) -> None:
        await night.waits("25")
        tags = [row for row in night.trial.production.traffic_spec if row.tag]
        rows = (Target(revision=STABLE, percent=60), Target(revision=CANARY, percent=40), *tags)
        night.trial.production._deployment.update(rows, Fate())

    _, _, checks = await _held(tmp_path, operator, hold_timeout=600.0)
    assert checks["hold-25"].detail.startswith("the split did not hold through the wait: ")


async def test_an_interruption_while_the_train_waits_undoes(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path, hold_at=("25",), hold_timeout=600.0))
    with anyio.move_on_after(120):
        await trial.run()
    assert trial.production.traffic == {STABLE: 100}
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    last = events[-1]
    assert isinstance(last, TrainFinished)
    assert last.exit_code == 130
    assert open_wait(events) is None


async def test_decisions_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    refusals: list[str] = []

    async def refused(night: Night, answer: str, shown: str | None = None) -> None:
        path = night.folder / FILE
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(NotDecidedError) as caught:
            await night.decides(answer, shown)
        assert (path.read_bytes() if path.exists() else None) == before
        refusals.append(str(caught.value))

    async def operator(night: Night) -> None:
        await anyio.sleep(5)
        await refused(night, "go")
        first = await night.waits("25")
        await refused(night, "go", "9-00000000")
        assert (await night.decides("go", first.wait)).taken
        await refused(night, "stop")
        await night.waits("100")
        await refused(night, "go", first.wait)
        assert (await night.decides("go")).taken

    summary, trial, _ = await _held(tmp_path, operator, hold_at=("25", "100"), canary_soak_seconds=10.0)
    assert summary.passed
    await refused(Night(trial), "go")
    early, unknown, second, earlier, late = refusals
    assert early.startswith("the train waits for no decision; nothing was written")
    assert "--shown 9-00000000 is not the state that the train waits with now" in unknown
    assert "the train waits for no decision now; the last one was go, by alice" in second
    assert "it waits at 100 % with the state" in earlier
    assert "the train has ended: GO" in late


async def test_garbage_and_foreign_decisions_in_the_file_are_passed_over(tmp_path: Path) -> None:
    async def operator(night: Night) -> None:
        waiting = await night.waits("25")
        right = {"run_id": "another", "step_id": waiting.step_id, "wait": waiting.wait, "answer": "go"}
        right |= {"by": "mallory", "because": "x", "at": "now"}
        night.write(json.dumps(right) + "\n")
        night.write(b"\x00\xff garbage\n[]\n" + b"[" * 5000 + b"\n")
        night.write(json.dumps({**right, "answer": "maybe"}) + "\n")
        night.write(json.dumps({**right, "by": "a\nb"}) + "\n")
        night.write('{"half a line')
        await anyio.sleep(30)
        assert open_wait(night.events) is not None
        assert (await night.decides("go", because="I have marked-auth-token")).taken

    with pytest.warns(RuntimeWarning, match="has a line that is no decision, and it was passed over"):
        summary, _, _ = await _held(tmp_path, operator)
    assert summary.passed
    # No token reaches an artifact, also not by the hand of an operator.
    assert [(each.decision.by, each.decision.because) for each in summary.holds if each.decision] == [
        ("alice", "I have " + "*" * len("marked-auth-token"))
    ]


@pytest.mark.parametrize("kind", ["link", "open to others", "folder"])
async def test_a_file_that_somebody_else_may_have_written_decides_nothing(kind: str, tmp_path: Path) -> None:
    refusals: list[str] = []

    async def operator(night: Night) -> None:
        waiting = await night.waits("25")
        run_id = next(event.run_id for event in night.events if hasattr(event, "run_id"))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        decision = Decision(
            run_id=run_id,
            step_id=waiting.step_id,
            wait=waiting.wait,
            answer="go",
            by="mallory",
            because="x",
            at="now",
        )
        await DecisionFile(folder=elsewhere, run_id=run_id).put(decision)
        path = night.folder / FILE
        if kind == "link":
            path.symlink_to(elsewhere / FILE)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_bytes((elsewhere / FILE).read_bytes())
            path.chmod(0o666)
        with pytest.raises(NotDecidedError) as refused:
            await night.decides("go")
        refusals.append(str(refused.value))

    with pytest.warns(RuntimeWarning, match="was not read"):
        summary, _, checks = await _held(tmp_path, operator)
    assert summary.exit_code == 1
    assert checks["hold-25"].detail == "no decision came within 60 s (HOLD_TIMEOUT)"
    assert "cannot be written" in refusals[0]


async def test_a_secret_of_the_train_is_masked_in_the_file_too(tmp_path: Path) -> None:
    async def operator(night: Night) -> None:
        await night.waits("25")
        night.write(b'not JSON, with "marked-control-token"\n')
        # The decider's own environment lacks the token, so only the train can know it.
        because = "it is \u00e9 marked-auth-token"
        decided = await decide(night.folder, "go", by="marked-control-token", because=because, env={})
        assert decided.taken
        assert "marked" not in decided.decision.by + decided.decision.because

    with pytest.warns(RuntimeWarning, match="a line that is no decision"):
        summary, trial, _ = await _held(tmp_path, operator)
    assert summary.passed
    content = (tmp_path / "run" / FILE).read_text()
    assert "marked" not in content
    garbage, line = content.splitlines()
    assert garbage == f'not JSON, with "{"*" * 20}"'
    row = json.loads(line)
    assert (row["by"], row["because"]) == ("*" * 20, f"it is \u00e9 {'*' * 17}")
    assert _hold(trial).decision is not None


async def test_two_deciders_have_one_decision(tmp_path: Path) -> None:
    store = DecisionFile(folder=tmp_path, run_id="r")

    def decision(by: str) -> Decision:
        return Decision(run_id="r", step_id="s", wait="1-a", answer="go", by=by, because="b", at="now")

    await store.put(decision("first"))
    with pytest.raises(NotDecidedError, match="has a decision for this wait already: go, by first: b"):
        await store.put(decision("second"))
    assert len((tmp_path / FILE).read_bytes().splitlines()) == 1
    (tmp_path / FILE).write_bytes(b"x" * MOST_BYTES)
    with pytest.raises(NotDecidedError, match="move it away"):
        await store.put(decision("third"))


async def test_a_disk_that_is_full_when_the_train_waits_undoes(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event: TrainEvent) -> None:
        if isinstance(event, CheckRecorded) and event.check.check_id == "traffic-25":
            size = (tmp_path / "run" / "journal.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    try:
        with pytest.warns(RuntimeWarning, match="cannot be written"):
            summary, trial, checks = await _held(tmp_path, _nobody, observer=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert summary.exit_code == 1
    assert "the journal cannot be written" in checks["hold-25"].detail
    assert trial.production.traffic == {STABLE: 100}
