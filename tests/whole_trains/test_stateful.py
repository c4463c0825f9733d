"""Random histories of one production: trains with faults, cancellations, kills, recoveries, and other people's changes.

After each step the journals explain the state of production. It is as captured; or as a passed train changed it; or as an
unrecovered run asked for, and then no other run may start; or as somebody else changed it. ``CUTOVER_STATEFUL=500`` tries
500 new histories. Longer than 300 lines: one state machine holds all steps, because any step may follow any other.
"""

import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from unittest.mock import patch

import anyio
import attrs
import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.errors import NotStartedError, UndoUnprovenError
from cutover.model.traffic_state import TrafficTarget
from cutover.model.train_events import (
    CheckRecorded,
    Observer,
    RouteIntended,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    UndoStarted,
)
from cutover.model.undo_policy import RecoveryMode
from cutover.record.journal import read_journal
from cutover.record.lock import ServiceLock
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import Fate
from cutover.text import recover_command
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from cutover.wiring.recover import Recovery, recover_cutover
from cutover.wiring.run import run_production
from tests.support.declared_outcomes import request_group
from tests.support.embedded_trains import CANARY, STABLE, TOKENS, EmbeddedTrain, live_config
from tests.support.faulty_trains import LANDING_SECONDS, MEMORY, SCENARIOS, label_counts
from tests.support.run_invariants import FLIPPED, contradictions
from tests.support.virtual_time import VirtualTimeLoop
from tests.support.wire_faults import ANY_REQUEST_FAULTS, Injection, KillableTransport, WireFault

HISTORIES = os.environ.get("CUTOVER_STATEFUL")
"""Number of random histories to try. Unset: the same few in every run."""
FLIPPED_ROUTES = dict(FLIPPED)
ALL_ON_STABLE = frozenset({(STABLE, 100)})
Pieces = Mapping[str, object]
"""State of production in pieces that change separately: ``split``, ``tags``, and the override of each route key."""


@attrs.frozen(kw_only=True)
class Cutoff:
    """The event at which a train or a recovery is cut off, and the manner."""

    how: Literal["cancelled", "killed", "killed before the line"]
    number: int
    """Number of the event, from one."""


def pieces_of(rows: Iterable[Target | TrafficTarget]) -> dict[str, object]:
    """Return the pieces in the rows of a traffic specification."""
    rows = tuple(rows)
    return {
        "split": frozenset((row.revision, row.percent) for row in rows if row.percent),
        "tags": frozenset((row.tag, row.revision) for row in rows if row.tag),
    }


def intended(events: Iterable[TrainEvent]) -> dict[str, set[object]]:
    """Return the values that a journal asked for, for each piece."""
    values: dict[str, set[object]] = {}
    for event in events:
        match event:
            case TrafficIntended():
                for piece, value in pieces_of(event.wanted).items():
                    values.setdefault(piece, set()).add(value)
            case RouteIntended():
                values.setdefault(event.key, set()).add(event.wanted)
            case _:
                pass
    return values


@cache
def _train_labels() -> tuple[str, ...]:
    names = ("cutover", "flip undone", "drill failed")
    return tuple(sorted({label for name in names for label in label_counts(SCENARIOS[name])}))


@st.composite
def faults(draw: st.DrawFn, labels: st.SearchStrategy[str]) -> Injection | None:
    if draw(st.booleans()):
        return None
    label = draw(labels)
    choices: tuple[WireFault, ...] = (
        ANY_REQUEST_FAULTS if label.startswith("recover.") else request_group(label).faults
    )
    # an instance that restarts loses the overrides that other people set, too
    if ".routes." in label or label.startswith("flip."):
        choices = tuple(fault for fault in choices if fault is not WireFault.UNDONE)
    return Injection(
        label=label, fault=draw(st.sampled_from(choices)), number=draw(st.sampled_from((1, 2, None)))
    )


KILLS = st.sampled_from(("killed", "killed before the line"))


def at_a_line(most: int) -> st.SearchStrategy[Cutoff]:
    return st.builds(Cutoff, how=KILLS, number=st.sampled_from(range(1, most)))


TRAIN_FAULTS = faults(st.deferred(lambda: st.sampled_from(_train_labels())))
RECOVERY_FAULTS = faults(
    st.deferred(
        lambda: st.sampled_from(
            (
                "recover.traffic",
                "recover.routes",
                *(one for one in _train_labels() if one.startswith("undo.")),
            )
        )
    )
)
RECOVERY_MODES: tuple[RecoveryMode, ...] = ("finish", "revert", "accept-found", "restore-captured")


class ProductionHistory(RuleBasedStateMachine):
    """One production, and the test's own record of its changes."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.room = Path(self._stack.enter_context(TemporaryDirectory(dir=MEMORY))) / "room"
        self.room.mkdir()
        self._stack.enter_context(patch.dict(os.environ, {"XDG_STATE_HOME": str(self.room / "state")}))
        self.has_begun = False
        self.now = 0.0
        self.runs = 0
        self.folder: Path | None = None
        """Run directory of the last run."""
        self.others: dict[str, set[object]] = {}
        """Values that somebody else gave each piece since the last run began."""
        self.deployed = False
        """True if somebody deployed since the last run began and so made LATEST, which has traffic, another revision."""

    @initialize(latest=st.booleans())
    def begin(self, latest: bool) -> None:
        self.latest = latest
        self.production = EmbeddedTrain(
            live_config(self.room), layout_changes={"instances": 1, "latest": latest}
        ).production
        self.own_states = self.captured = self.found()
        self.has_begun = True

    # the state of production and of the last run

    def found(self) -> Pieces:
        """Return the present state of production, read from the simulation itself."""
        [held] = [row for row in self.production.routes if row["revision"] == STABLE]
        domains = held["domains"]
        assert isinstance(domains, dict)
        overrides = {key: domains.get(key) for key in FLIPPED_ROUTES} | {"global": held["global"]}
        return pieces_of(self.production.traffic_spec) | overrides

    @property
    def events(self) -> list[TrainEvent]:
        """The journal of the last run."""
        return [] if self.folder is None else read_journal(self.folder / "journal.jsonl")

    def is_open(self) -> bool:
        """Return True if the lock marks the last run as unfinished."""
        return self.folder is not None and ServiceLock.left_by(self.folder) is not None

    @property
    def has_passed(self) -> bool:
        """True if the last run passed and no recovery has begun since."""
        marks = [event for event in self.events if isinstance(event, TrainFinished | UndoStarted)]
        return bool(marks) and isinstance(marks[-1], TrainFinished) and marks[-1].passed

    def undone_values(self, piece: str) -> set[object]:
        """Return the values that an undo of the last run may give a piece."""
        failed = any(
            isinstance(event, CheckRecorded)
            and event.step_id == "canary-rollback-drill"
            and event.check.status.failed
            for event in self.events
        )
        return (
            {ALL_ON_STABLE}
            if failed and piece == "split" and self._touched_traffic()
            else {self.captured[piece]}
        )

    def _touched_traffic(self) -> bool:
        return any(isinstance(event, TrafficIntended) for event in self.events)

    # running a train or a recovery

    def _run_on_virtual_time(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run the work on virtual time that continues where it stopped."""
        loop = VirtualTimeLoop()
        loop.skipped = self.now
        anyio.run(work, backend="asyncio", backend_options={"loop_factory": lambda: loop})
        self.now = loop.skipped

    def _live_over(self, transport: KillableTransport) -> Callable[[CutoverConfig], Production]:
        """Return a replacement for ``live``: the production of a configuration, reached over the transport."""

        def live(config: CutoverConfig) -> Production:
            plain = simulated(config, self.production, clock=EventLoopClock())
            return attrs.evolve(
                plain,
                new_client=lambda _: httpx.AsyncClient(transport=transport),
                run_id=f"history-{self.runs}",
            )

        return live

    def _carry_out(
        self,
        work: Callable[[KillableTransport, Observer], Awaitable[object]],
        fault: Injection | None,
        cutoff: Cutoff | None,
    ) -> bool:
        """Run the work with this fault and cut it off. Return True if it was killed, so that nothing is undone.

        Killed work runs on in process, but it sends no more requests, and its later files are thrown away.
        """
        transport = KillableTransport(self.production, () if fault is None else (fault,))
        kept = self.room.with_name("kept")

        died_at = 0.0

        async def to_its_end() -> None:
            seen = 0

            def observe(_: TrainEvent) -> None:
                nonlocal seen, died_at
                seen += 1
                if cutoff is None or seen != cutoff.number:
                    return
                if cutoff.how == "cancelled":
                    scope.cancel()
                    return
                transport.is_dead = True
                died_at = anyio.current_time()
                shutil.copytree(self.room, kept)

            # the journal records an unproven undo too
            with anyio.CancelScope() as scope, suppress(UndoUnprovenError):
                await work(transport, observe)
            if not transport.is_dead:
                await anyio.sleep(LANDING_SECONDS)
                self.production.traffic  # noqa: B018  the property lands the late effects

        self._run_on_virtual_time(to_its_end)
        if not transport.is_dead:
            return False
        self.now = died_at
        shutil.rmtree(self.room)
        kept.rename(self.room)
        if cutoff is not None and cutoff.how == "killed before the line" and self.folder is not None:
            journal = self.folder / "journal.jsonl"
            journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
        return True

    # steps of a history

    @precondition(lambda self: not self.is_open())
    @rule(fault=TRAIN_FAULTS, cutoff=at_a_line(140))
    def run_and_be_killed(self, fault: Injection | None, cutoff: Cutoff) -> None:
        """Run a train and kill it."""
        self.run(fault, cutoff)

    @rule(
        fault=TRAIN_FAULTS,
        cutoff=st.none() | st.builds(Cutoff, how=st.just("cancelled"), number=st.sampled_from(range(1, 140))),
    )
    def run(self, fault: Injection | None, cutoff: Cutoff | None) -> None:
        """Run a train, perhaps with a fault, and perhaps cancel it."""
        self.production.requests.clear()
        if self.is_open():
            self._check_refusal()
            return
        self.runs += 1
        self.folder = folder = self.room / f"run-{self.runs}"
        self.own_states = self.captured = self.found()
        self.others, self.deployed = {}, False
        config = live_config(
            self.room,
            output_dir=folder,
            canary_soak_seconds=2.0,
            flip_confirm_seconds=2.0,
            canary_steps=(5, 100),
        )
        served = self.production.traffic

        async def train(transport: KillableTransport, observe: Observer) -> None:
            await run_production(self._live_over(transport)(config), observer=observe)

        if self._carry_out(train, fault, cutoff):
            return
        wrong = list(contradictions(self.production, folder))
        # a write that a cancellation cuts off has no answer
        if cutoff is not None:
            wrong = [one for one in wrong if "answered" not in one]
        assert not wrong, wrong
        last = self.events[-1]
        assert isinstance(last, TrainFinished)
        assert self.is_open() == (last.exit_code == 4)
        if fault is None and cutoff is None and served == {STABLE: 100}:
            assert last.passed
        if self.is_open():
            return
        if last.passed:
            self.own_states = {**self.captured, **FLIPPED_ROUTES}
        else:
            self.own_states = {piece: self.undone_values(piece).pop() for piece in self.captured}

    def _check_refusal(self) -> None:
        assert self.folder is not None
        config = live_config(self.room, output_dir=self.room / "refused")

        async def train(transport: KillableTransport, observe: Observer) -> None:
            with pytest.raises(NotStartedError) as caught:
                await run_production(self._live_over(transport)(config), observer=observe)
            assert recover_command(self.folder or "") in str(caught.value)

        before = self.found()
        self._carry_out(train, None, None)
        assert not self.production.requests
        assert not (self.room / "refused").exists()
        assert {piece for piece, value in self.found().items() if value != before[piece]} <= intended(
            self.events
        ).keys()

    @precondition(lambda self: self.folder is not None)
    @rule(
        mode=st.sampled_from(RECOVERY_MODES),
        fault=RECOVERY_FAULTS,
        cutoff=st.none() | at_a_line(15),
    )
    def recover(self, mode: RecoveryMode, fault: Injection | None, cutoff: Cutoff | None) -> None:
        """Recover the last run."""
        was_open, had_passed, before = self.is_open(), self.has_passed, self.found()
        recoveries: list[Recovery] = []

        async def recovery(transport: KillableTransport, observe: Observer) -> None:
            assert self.folder is not None
            with patch("cutover.wiring.recover.live", self._live_over(transport)):
                recoveries.append(await recover_cutover(self.folder, way=mode, env=TOKENS, observer=observe))

        if self._carry_out(recovery, fault, cutoff):
            return
        [result] = recoveries
        if not result.closed:
            assert fault or self.others or self.deployed, result.detail
            assert any("--accept-found" in line for line in result.to_do)
            if fault is None and mode in {"finish", "revert"} and not self.deployed:
                assert (
                    "production has moved on: somebody else has changed it, and recovery changed nothing"
                    in result.detail
                )
                for piece in self.others:
                    assert self.found()[piece] in {before[piece], *self.undone_values(piece)}, piece
            return
        assert not self.is_open()
        self._check_closed(mode, before, was_open=was_open, had_passed=had_passed)

    def _check_closed(self, mode: RecoveryMode, before: Pieces, *, was_open: bool, had_passed: bool) -> None:
        found = self.found()
        if had_passed and mode in {"finish", "accept-found"}:
            self.own_states = {**self.captured, **FLIPPED_ROUTES} if was_open else self.own_states
            assert all(found[piece] == self.own_states[piece] for piece in found if piece not in self.others)
        elif mode == "accept-found" or not (was_open or had_passed):
            for piece, value in found.items():
                assert value in {before[piece], *intended(self.events).get(piece, ())}, piece
        else:
            for piece, value in found.items():
                mine = self.undone_values(piece)
                assert value in mine | ({before[piece]} if piece in self.others else set()), (
                    piece,
                    value,
                    mine,
                )
        self.own_states = found

    def _change_by_somebody_else(self, change: Callable[[], object]) -> None:
        async def play() -> None:
            self.production.traffic  # noqa: B018  the property lands effects that are due before the change
            before = self.found()
            change()
            for piece, value in self.found().items():
                if value != before[piece]:
                    self.others.setdefault(piece, set()).add(value)

        self._run_on_virtual_time(play)
        if not self.is_open():
            self.own_states = self.found()

    @rule(kind=st.sampled_from(("share", "tag", "stable", "deploy")))
    def move_traffic(self, kind: str) -> None:
        """Somebody else moves the traffic, tags a revision, or deploys one."""
        if kind == "deploy":
            self._change_by_somebody_else(self.production._deployment.deploy)
            self.deployed = self.latest
            return
        rows = {
            "share": (Target(revision=STABLE, percent=70), Target(revision=CANARY, percent=30)),
            "tag": (*self.production.traffic_spec, Target(revision=STABLE, tag="mine")),
            "stable": (Target(revision=STABLE, percent=100),),
        }[kind]
        tags = tuple(
            Target(revision=row.revision, tag=row.tag) for row in self.production.traffic_spec if row.tag
        )
        if kind != "tag":
            rows = (*rows, *tags)
        elif any(row.tag == "mine" for row in tags):
            return
        self._change_by_somebody_else(lambda: self.production._deployment.update(rows, Fate()))

    @rule(key=st.sampled_from(sorted(FLIPPED_ROUTES)), value=st.sampled_from((None, "legacy", "rust_shell")))
    def set_override(self, key: str, value: str | None) -> None:
        """Somebody else sets or clears an override."""
        [stable] = self.production._front_door.all_of(STABLE)

        def change() -> None:
            stable.overrides.pop(key, None)
            if value is not None:
                stable.overrides[key] = value

        self._change_by_somebody_else(change)

    @rule(seconds=st.sampled_from((1.0, 5.0, 600.0)))
    def pass_time(self, seconds: float) -> None:
        """Let time pass without a change."""

        async def wait() -> None:
            await anyio.sleep(seconds)
            self.production.traffic  # noqa: B018  the property lands the late effects

        self._run_on_virtual_time(wait)

    # conditions that always hold

    @invariant()
    def production_is_where_the_journals_say(self) -> None:
        if not self.has_begun:
            return
        asked = intended(self.events) if self.is_open() else {}
        others = self.others if self.is_open() else {}
        for piece, value in self.found().items():
            assert value in {self.own_states[piece], *asked.get(piece, ()), *others.get(piece, ())}, (
                piece,
                value,
            )
        if not self.is_open():
            assert not self.production.reconciling
            assert self.production._deployment.statuses == self.production.traffic_spec

    def teardown(self) -> None:
        """Recover the last run after any history; then the next train passes."""
        with self._stack:
            if not self.has_begun:
                return
            self._recover_and_run_again()

    def _recover_and_run_again(self) -> None:
        if self.is_open():
            self.recover("finish", None, None)
        if self.is_open():
            self.recover("restore-captured", None, None)
            assert not self.is_open()
        self.production_is_where_the_journals_say()
        self.move_traffic("stable")
        self.run(None, None)
        assert self.has_passed
        assert {**self.captured, **FLIPPED_ROUTES} == self.found()


def test_the_journals_always_explain_the_state_of_production() -> None:
    run_state_machine_as_test(
        ProductionHistory,
        settings=settings(
            max_examples=int(HISTORIES) if HISTORIES else 25,
            stateful_step_count=20 if HISTORIES else 6,
            derandomize=not HISTORIES,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
