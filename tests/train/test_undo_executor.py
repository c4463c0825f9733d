"""An undo that cannot be proven is the loudest outcome: exit 4, and lines that an operator can check and run."""

import json
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import attrs
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.config.gcloud_service import gcloud_service
from cutover.errors import NoAnswerError, RefusedError, UndoUnprovenError
from cutover.http.outbound import MUTATION_DEADLINE, READ_DEADLINE
from cutover.model.gcloud_service import GcloudService
from cutover.model.results import Check, StepStatus
from cutover.model.route_state import GLOBAL, RouteState
from cutover.model.traffic_state import TrafficTarget, split
from cutover.model.train_events import Answered, CheckRecorded, RouteIntended, TrafficIntended, UndoFinished
from cutover.model.undo_plan import Moment, plan_undo
from cutover.production.lane import COMPAT
from cutover.production.services import Services
from cutover.production.traffic.mover import HELD_SECONDS
from cutover.record.journal import Journal, read_journal
from cutover.simulation import FAULTS, Fault
from cutover.simulation.exchange import Fate
from cutover.simulation.faults import Strike
from cutover.train.steps.rollback_drill import STEP_ID as DRILL
from cutover.train.undo_executor import (
    CLOCK_JUMP,
    UNDO_DEADLINE,
    UndoExecutor,
    UndoResult,
    seconds_until_write_expires,
)
from cutover.wiring.embedded import simulated
from cutover.wiring.run import run_production
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, EmbeddedTrain, live_config
from tests.support.unfinished_runs import move_routes, move_traffic

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

STATUS = f"https://chat.example{COMPAT.status_path}"
OVERRIDE = f"https://chat.example{COMPAT.override_path}"


@attrs.define(eq=False)
class Scene:
    """A production, and a train that moved something in it and got no further."""

    trial: EmbeddedTrain
    services: Services
    journal: Journal = attrs.field(factory=Journal)

    async def move_traffic(self) -> None:
        await move_traffic(self.services, self.journal)

    async def move_routes(self) -> None:
        await move_routes(self.services, self.journal)

    async def undo(self) -> UndoResult:
        plan = plan_undo(self.journal.events, stable=STABLE)
        executor = UndoExecutor(
            services=self.services, journal=self.journal, service=GcloudService("s", "p", "r")
        )
        return await executor.undo(plan)

    @property
    def changes(self) -> int:
        """How many requests asked production to change."""
        return sum(row.operation in CHANGES for row in self.trial.production.requests)


@asynccontextmanager
async def scene(directory: Path, *faults: str, **layout: object) -> AsyncIterator[Scene]:
    trial = EmbeddedTrain(
        live_config(directory), faults=tuple(FAULTS[name] for name in faults), layout_changes=dict(layout)
    )
    async with simulated(trial.config, trial.production, clock=EventLoopClock()).services() as services:
        yield Scene(trial, services)


def route_commands(to_do: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read the curl lines as a shell does: key -> the body that it posts; the token is a variable."""
    found = {}
    for line in to_do:
        assert "'authorization: Bearer '$CONTROL_ACCESS_TOKEN" in line
        words = shlex.split(line)
        assert words[:4] == ["curl", "-X", "POST", OVERRIDE]
        body = json.loads(words[words.index("-d") + 1])
        found[body.get("domain", GLOBAL)] = body
    return found


@pytest.mark.slow
class TestUnproven:
    async def test_routes_that_cannot_be_changed_are_not_proven(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), faults=(FAULTS["override-sticks"],))
        summary = await trial.run()
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert summary.undo.detail.startswith("the routes could not be proven undone: not every instance")
        check, *commands, recover = summary.undo.to_do
        assert recover.endswith(f"cutover recover {tmp_path / 'run'}")
        assert check.startswith(f"check that {STATUS} says ")
        assert check.endswith("global=clear on every instance")
        bodies = route_commands(commands)
        assert list(bodies)[-1] == GLOBAL
        assert bodies[GLOBAL] == {"target": "clear"}
        assert bodies["auth_entry"] == {"target": "clear", "domain": "auth_entry"}
        # The state of the routes is unknown, so no smoke could say anything.
        assert summary.step("stream-smoke-undone") is None
        shown = (tmp_path / "run" / "SUMMARY.md").read_text()
        assert "CONTROL\\_ACCESS\\_TOKEN" in shown

    async def test_traffic_that_stays_on_the_canary_is_not_proven(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), faults=(FAULTS["rollback-403"],))
        summary = await trial.run()
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert "the traffic could not be proven undone: " in summary.undo.detail
        assert "HTTP 403" in summary.undo.detail
        # A refusal alone would not say in which state production is.
        assert summary.undo.detail.endswith(f"; at the last read {CANARY} 100 % is served")
        service = gcloud_service(trial.config.facts())
        assert summary.undo.to_do == (
            f"check that {STABLE} 100 % is served: {service.command('describe')}",
            service.command("update-traffic", "--to-revisions", f"{STABLE}=100"),
            f"or, once production answers: cutover recover {tmp_path / 'run'}",
        )

    async def test_both_parts_are_tried_and_reported_although_both_fail(self, tmp_path: Path) -> None:
        async with scene(tmp_path, "override-sticks", "rollback-403") as found:
            await found.move_routes()
            await found.move_traffic()
            undone = await found.undo()
        assert not undone.proven
        traffic, routes = undone.detail.split("; the routes")
        assert traffic.startswith("the traffic could not be proven undone: ")
        assert "could not be proven undone: " in routes
        assert [line.split()[0] for line in undone.to_do] == ["check", "gcloud", "check", "curl", "curl"]
        assert found.trial.production.traffic == {STABLE: 95, CANARY: 5}

    async def test_one_part_is_undone_although_the_other_cannot_be(self, tmp_path: Path) -> None:
        async with scene(tmp_path, "override-sticks") as found:
            await found.move_routes()
            await found.move_traffic()
            undone = await found.undo()
        assert not undone.proven
        assert f"traffic is back: {STABLE} 100 %" in undone.detail
        assert [line.split()[0] for line in undone.to_do] == ["check", "curl", "curl"]
        assert found.trial.production.traffic == {STABLE: 100}

    async def test_routes_that_cannot_be_read_are_not_proven(self, tmp_path: Path) -> None:
        async with scene(tmp_path, "status-html-after-flip") as found:
            captured = await found.services.control.status(label="pre")
            found.journal.record(
                RouteIntended(step_id="route-flip", key=GLOBAL, captured=captured, wanted=None, times=1)
            )
            found.journal.record(Answered(key=GLOBAL, outcome="accepted"))
            # Any instance may answer.
            for _ in range(40):
                await found.services.control.override(GLOBAL, "rust", label="flip")
            undone = await found.undo()
        # Once they are clear again, they can be read.
        assert undone.proven
        assert found.changes > 40

    async def test_traffic_that_cannot_be_read_is_not_proven(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.services = attrs.evolve(found.services, traffic=Blind(found.services.traffic))  # type: ignore[arg-type]
            undone = await found.undo()
        assert not undone.proven
        assert undone.detail.startswith("the traffic could not be proven undone: ")
        assert [line.split()[0] for line in undone.to_do] == ["check", "gcloud"]

    async def test_traffic_that_takes_all_its_time_leaves_some_for_the_routes(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            await found.move_traffic()

            class Slow(Blind):
                async def read(self, *, label: str) -> object:
                    await anyio.sleep(100.0)
                    return await super().read(label=label)

            found.services = attrs.evolve(found.services, traffic=Slow(found.services.traffic))  # type: ignore[arg-type]
            with anyio.fail_after(UNDO_DEADLINE):
                undone = await found.undo()
            state = await found.services.control.status(label="look")
        assert not undone.proven
        assert "the traffic could not be proven undone within" in undone.detail
        assert undone.detail.endswith("routes are as captured (auth_entry=clear, global=clear)")
        assert state.get(GLOBAL) is None

    async def test_an_undo_whose_services_hang_ends_at_its_deadline_with_commands(
        self, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        production = simulated(trial.config, trial.production, clock=EventLoopClock())
        hanging: list[str] = []

        class Hanging(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                hanging.append(request.method)
                await anyio.sleep_forever()
                raise AssertionError

        def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
            if undoing:
                return httpx.AsyncClient(transport=Hanging())
            return production.new_client(limits)

        undoing: list[object] = []
        with (
            anyio.CancelScope() as scope,
            pytest.raises(UndoUnprovenError, match="could not be proven undone"),
        ):

            def cancel_while_the_traffic_moves(event: object) -> None:
                if isinstance(event, TrafficIntended) and not undoing:
                    undoing.append(event)
                    scope.cancel()

            await run_production(
                attrs.evolve(production, new_client=new_client), observer=cancel_while_the_traffic_moves
            )
        assert hanging
        last = read_journal(tmp_path / "run" / "journal.jsonl")[-2]
        assert isinstance(last, UndoFinished)
        assert [line.split()[0] for line in last.to_do] == [
            "check",
            "gcloud",
            "or,",
            # The start of the smoke is reported, although it never ended.
        ]
        assert anyio.current_time() <= MUTATION_DEADLINE + UNDO_DEADLINE + READ_DEADLINE


@attrs.define(eq=False)
class Blind:
    """A traffic backend that is never read, or not before it has been written to."""

    inner: object
    sees_again: bool = False
    written: bool = False
    project: str = "p"
    region: str = "r"
    service: str = "s"

    async def read(self, *, label: str) -> object:
        if self.sees_again and self.written:
            return await self.inner.read(label=label)  # type: ignore[attr-defined]
        raise RefusedError("GET https://run.example: HTTP 403", status=403)

    async def write(self, targets: Sequence[TrafficTarget], **more: object) -> None:
        self.written = True
        await self.inner.write(targets, **more)  # type: ignore[attr-defined]


class TestLatest:
    async def test_latest_is_restored_if_it_is_still_the_same_revision(self, tmp_path: Path) -> None:
        async with scene(tmp_path, latest=True) as found:
            await found.move_traffic()
            undone = await found.undo()
        assert undone.proven
        assert [row.revision for row in found.trial.production.traffic_spec if row.percent] == [None]

    async def test_latest_stays_pinned_if_somebody_has_deployed_since(self, tmp_path: Path) -> None:
        """Putting LATEST back would give everybody a revision that nobody tested."""
        async with scene(tmp_path, "deployed-meanwhile", latest=True) as found:
            await found.move_traffic()
            state = await found.services.traffic.read(label="pre")
            # Somebody deploys at this moment.
            with pytest.raises(RefusedError):
                await found.services.traffic.write(
                    split(state, {STABLE: 75, CANARY: 25}), etag=state.etag, label="drill.25"
                )
            undone = await found.undo()
        assert not undone.proven
        assert undone.detail.startswith(f"LATEST was {STABLE} and now is ")
        assert undone.detail.endswith(f"pinned on {STABLE} 100 %")
        assert undone.to_do[0].endswith("--to-latest")
        assert found.trial.production.traffic == {STABLE: 100}
        # An operator closes it.
        assert plan_undo(found.journal.events, stable=STABLE)

    @pytest.mark.parametrize("sees_again", [False, True])
    async def test_latest_is_not_restored_if_it_cannot_be_read(
        self, sees_again: bool, tmp_path: Path
    ) -> None:
        """Where nobody can say what LATEST is by now, it is pinned until somebody can."""
        async with scene(tmp_path, latest=True) as found:
            await found.move_traffic()
            blind = Blind(found.services.traffic, sees_again=sees_again)
            found.services = attrs.evolve(found.services, traffic=blind)  # type: ignore[arg-type]
            undone = await found.undo()
        assert undone.proven is sees_again
        asked = [row.revision for row in found.trial.production.traffic_spec if row.percent]
        assert asked == [None if sees_again else STABLE]

    async def test_a_failed_first_read_does_not_matter_if_the_second_works(self, tmp_path: Path) -> None:
        """What was not known then is known at the proof: stable serves, as it is to after a failed drill."""
        async with scene(tmp_path, latest=True) as found:
            await found.move_traffic()
            failed = Check(check_id="traffic-5", status=StepStatus.FAIL)
            found.journal.record(CheckRecorded(step_id=DRILL, check=failed))
            blind = Blind(found.services.traffic, sees_again=True)
            found.services = attrs.evolve(found.services, traffic=blind)  # type: ignore[arg-type]
            undone = await found.undo()
        assert (undone.proven, undone.to_do) == (True, ())
        assert found.trial.production.traffic == {STABLE: 100}

    async def test_the_drill_does_not_restore_latest_over_a_deploy(self, tmp_path: Path) -> None:
        """Somebody deploys between the drill's last look and the write that would put LATEST back."""
        restore = attrs.evolve(FAULTS["rollback-409-once"].strikes[0].scope, first=2, last=2)
        overtaken = FAULTS["deployed-meanwhile"].strikes[0].effect
        fault = attrs.evolve(FAULTS["deployed-meanwhile"], strikes=(Strike(restore, overtaken),))
        trial = EmbeddedTrain(
            live_config(tmp_path, canary_steps=(5, 100)), faults=(fault,), layout_changes={"latest": True}
        )
        summary = await trial.run()
        assert summary.exit_code == 4
        assert trial.production.traffic == {STABLE: 100}
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        assert drill.checks[-1].check_id == "status-post"
        assert "which nobody tested: pinned on" in drill.checks[-1].detail

    async def test_the_drill_leaves_latest_pinned_too(self, tmp_path: Path) -> None:
        rollback = FAULTS["rollback-409-once"].strikes[0].scope
        overtaken = FAULTS["deployed-meanwhile"].strikes[0].effect
        fault = attrs.evolve(FAULTS["rollback-409-once"], strikes=(Strike(rollback, overtaken),))
        trial = EmbeddedTrain(live_config(tmp_path), faults=(fault,), layout_changes={"latest": True})
        summary = await trial.run()
        assert (
            summary.exit_code == 4
            # The service has changed, so only an operator can decide.
        )
        assert summary.undo is not None
        assert "--to-latest" in summary.undo.to_do[0]
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        row = next(check for check in drill.checks if check.check_id == "status-post")
        assert row.status is StepStatus.FAIL
        assert row.detail.startswith(f"LATEST was {STABLE} and now is ")
        assert "which nobody tested" in row.detail
        assert trial.production.traffic == {STABLE: 100}


class TestNothingLeftToDo:
    async def test_nothing_is_written_where_nothing_was_applied(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            assert await found.undo() == UndoResult(proven=True, detail="nothing had been applied")
        assert found.changes == 0

    async def test_a_state_that_is_as_captured_already_is_only_read(self, tmp_path: Path) -> None:
        """A change that was answered, and is gone again, is not written a second time."""
        async with scene(tmp_path) as found:
            await found.move_traffic()
            captured = found.journal.events[0]
            assert isinstance(captured, TrafficIntended)
            state = await found.services.traffic.read(label="somebody")
            await found.services.traffic.write(captured.captured.targets, etag=state.etag, label="somebody")
            before = found.changes
            undone = await found.undo()
        assert (undone.proven, undone.detail) == (True, f"traffic is as it should be ({STABLE} 100 %)")
        assert found.changes == before

    async def test_routes_of_a_write_with_an_answer_are_only_read(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            captured = await found.services.control.status(label="pre")
            found.journal.record(
                RouteIntended(
                    step_id="route-flip", key=GLOBAL, captured=captured, wanted="rust_shell", times=1
                )
            )
            found.journal.record(Answered(key=GLOBAL, outcome="refused"))
            undone = await found.undo()
        assert (undone.proven, undone.detail) == (True, "routes are as captured (global=clear)")
        assert found.changes == 0

    async def test_a_write_without_an_answer_is_written_over_and_read_again_later(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            captured = await found.services.control.status(label="pre")
            found.journal.record(
                RouteIntended(
                    step_id="route-flip", key=GLOBAL, captured=captured, wanted="rust_shell", times=1
                )
            )
            started = anyio.current_time()
            undone = await found.undo()
            assert anyio.current_time() - started >= HELD_SECONDS
        assert undone.proven
        assert found.changes == 1

    async def test_a_second_plan_after_a_proven_undo_is_empty(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            undone = await found.undo()
            assert plan_undo(found.journal.events, stable=STABLE)
            found.journal.record(UndoFinished(proven=undone.proven, detail=undone.detail))
            assert not plan_undo(found.journal.events, stable=STABLE)


async def test_a_late_effect_is_found_and_taken_back_again(tmp_path: Path) -> None:
    """An override whose reply was lost lands two seconds after the undo has already been read as well."""
    lost = FAULTS["override-reply-lost"].strikes[0]
    fault: Fault = attrs.evolve(
        FAULTS["override-late"],
        strikes=(
            Strike(lost.scope, Fate(after=2.0)),
            Strike(lost.scope, lost.effect),
        ),
    )
    trial = EmbeddedTrain(live_config(tmp_path), faults=(fault,))
    async with simulated(trial.config, trial.production, clock=EventLoopClock()).services() as services:
        found = Scene(trial, services)
        captured = await services.control.status(label="pre")
        found.journal.record(
            RouteIntended(step_id="route-flip", key=GLOBAL, captured=captured, wanted="rust_shell", times=1)
        )
        with pytest.raises(NoAnswerError):
            await services.control.override(GLOBAL, "rust", label="flip")
        found.journal.record(Answered(key=GLOBAL, outcome="unknown"))
        undone = await found.undo()
        assert undone.proven, undone.detail
        await anyio.sleep(10.0)
    rows = [row for row in trial.production.routes if row["revision"] == STABLE]
    assert {row["global"] for row in rows} == {None}


class TestExpiryOfWrites:
    """An intent may stand for many writes: the last one was sent no later than its answer."""

    AT = "2026-11-25T12:00:00.000Z"
    ANSWERED = "2026-11-25T12:00:30.000Z"
    LATEST = "2026-11-25T12:01:00.000Z"

    @pytest.mark.parametrize(
        ("times", "outcome", "last_sent_at", "last_unanswered_at"),
        [
            (20, "unknown", ANSWERED, ANSWERED),
            (1, "failed", ANSWERED, ANSWERED),
            (20, "accepted", ANSWERED, ""),
            (1, "", AT, AT),
            (20, "", LATEST, LATEST),
        ],
    )
    def test_the_expiry_of_override_writes(
        self, times: int, outcome: str, last_sent_at: str, last_unanswered_at: str
    ) -> None:
        captured = RouteState(overrides=((GLOBAL, None),))
        intent = RouteIntended(
            step_id="route-flip", key=GLOBAL, captured=captured, wanted="rust_shell", times=times, at=self.AT
        )
        answers = [Answered(key=GLOBAL, outcome=outcome, at=self.ANSWERED)] if outcome else []
        plan = plan_undo([intent, *answers], stable=STABLE)
        assert plan.routes is not None
        assert plan.routes.last_sent == Moment(at=last_sent_at)
        unanswered = Moment(at=last_unanswered_at) if last_unanswered_at else None
        assert plan.routes.last_unanswered == unanswered

    @pytest.mark.parametrize(("passed", "left"), [(0.0, 20.0), (5.0, 15.0), (20.0, 0.0), (500.0, 0.0)])
    def test_the_monotonic_clock_decides_inside_the_process_that_sent_the_write(
        self, passed: float, left: float
    ) -> None:
        """However the wall clock jumps in the meantime."""
        for jump in (-86_400.0, -60.0, 0.0, 60.0, 86_400.0):
            wall = datetime.fromisoformat(self.AT) + timedelta(seconds=passed + jump)
            sent = Moment(at=self.AT, tick=7.0)
            assert seconds_until_write_expires(sent, now=7.0 + passed, wall=wall) == left

    @pytest.mark.parametrize("jump", [-CLOCK_JUMP, -30.0, 0.0, 30.0, CLOCK_JUMP])
    @pytest.mark.parametrize("passed", [0.0, 1.0, 19.0, 30.0, 80.0])
    def test_a_jump_of_a_minute_between_two_processes_shortens_no_wait(
        self, passed: float, jump: float
    ) -> None:
        wall = datetime.fromisoformat(self.AT) + timedelta(seconds=passed + jump)
        left = seconds_until_write_expires(Moment(at=self.AT), now=0.0, wall=wall)
        assert max(0.0, MUTATION_DEADLINE - passed) <= left <= MUTATION_DEADLINE

    def test_a_write_of_long_ago_needs_no_wait_in_another_process(self) -> None:
        wall = datetime.fromisoformat(self.AT) + timedelta(hours=1)
        assert seconds_until_write_expires(Moment(at=self.AT), now=0.0, wall=wall) == 0.0

    @pytest.mark.parametrize("at", ["no time", "2026-01-01T00:00:00", "2999-01-01T00:00:00.000Z"])
    def test_a_time_that_says_nothing_is_waited_for(self, at: str) -> None:
        wall = datetime.fromisoformat(self.AT)
        assert seconds_until_write_expires(Moment(at=at), now=0.0, wall=wall) == MUTATION_DEADLINE
