"""A production's life, at random: trains that meet faults, are cancelled or killed, recoveries, and other people's changes.

After each step production is where the journals say: as it was, as a passed train meant it, where a run means it that is
not recovered, and then no other may start; or where somebody else put it. ``CUTOVER_STATEFUL=500`` lives so many lives.
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
from cutover.record.journal import read_journal
from cutover.record.lock import ServiceLock
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import Fate
from cutover.text import recover_command
from cutover.train.recovery import RecoveryMode
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from cutover.wiring.recover import Recovery, recover_cutover
from cutover.wiring.run import run_production
from tests.support.declared_outcomes import sort
from tests.support.embedded_trains import CANARY, STABLE, TOKENS, Trial, live_config
from tests.support.faulty_trains import LANDED, MEMORY, SCENES, labels
from tests.support.run_invariants import FLIPPED, contradictions
from tests.support.virtual_time import VirtualTimeLoop
from tests.support.wire_faults import OF_ANY, Injection, Kind, Severed

LIVES = os.environ.get("CUTOVER_STATEFUL")
"""How many lives, none like those before; unset: the same few in every run."""
MEANT = dict(FLIPPED)
ALL_STABLE = frozenset({(STABLE, 100)})
Pieces = Mapping[str, object]
"""Production in pieces of which each can be somebody's: the ``split``, the ``tags``, and the override of each route key."""


@attrs.frozen(kw_only=True)
class End:
    """How a train or a recovery is cut off, at one of its events."""

    how: Literal["cancelled", "killed", "killed before the line"]
    number: int


def of_rows(rows: Iterable[Target | TrafficTarget]) -> dict[str, object]:
    """Return the pieces that a specification of the traffic holds."""
    rows = tuple(rows)
    return {
        "split": frozenset((row.revision, row.percent) for row in rows if row.percent),
        "tags": frozenset((row.tag, row.revision) for row in rows if row.tag),
    }


def intended(events: Iterable[TrainEvent]) -> dict[str, set[object]]:
    """Return what a journal names of each piece: what was asked for."""
    told: dict[str, set[object]] = {}
    for event in events:
        match event:
            case TrafficIntended():
                for piece, value in of_rows(event.wanted).items():
                    told.setdefault(piece, set()).add(value)
            case RouteIntended():
                told.setdefault(event.key, set()).add(event.wanted)
            case _:
                pass
    return told


@cache
def _struck() -> tuple[str, ...]:
    found = {label for name in ("cutover", "flip undone", "drill failed") for label in labels(SCENES[name])}
    return tuple(sorted(found))


@st.composite
def faults(draw: st.DrawFn, labels: st.SearchStrategy[str]) -> Injection | None:
    if draw(st.booleans()):
        return None
    label = draw(labels)
    kinds: tuple[Kind, ...] = OF_ANY if label.startswith("recover.") else sort(label).kinds
    if ".routes." in label or label.startswith(
        "flip."
    ):  # an instance that restarts forgets what others set, too
        kinds = tuple(kind for kind in kinds if kind is not Kind.UNDONE)
    return Injection(
        label=label, kind=draw(st.sampled_from(kinds)), number=draw(st.sampled_from((1, 2, None)))
    )


HOWS = st.sampled_from(("killed", "killed before the line"))


def at_a_line(most: int) -> st.SearchStrategy[End]:
    return st.builds(End, how=HOWS, number=st.sampled_from(range(1, most)))


TRAIN_FAULTS = faults(st.deferred(lambda: st.sampled_from(_struck())))
RECOVERY_FAULTS = faults(
    st.deferred(
        lambda: st.sampled_from(
            ("recover.traffic", "recover.routes", *(one for one in _struck() if one.startswith("undo.")))
        )
    )
)
WAYS: tuple[RecoveryMode, ...] = ("finish", "revert", "accept-found", "restore-captured")


class Life(RuleBasedStateMachine):
    """One production, and what is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.room = Path(self._stack.enter_context(TemporaryDirectory(dir=MEMORY))) / "room"
        self.room.mkdir()
        self._stack.enter_context(patch.dict(os.environ, {"XDG_STATE_HOME": str(self.room / "state")}))
        self.now = 0.0
        self.runs = 0
        self.folder: Path | None = None
        """Of the last run."""
        self.others: dict[str, set[object]] = {}
        """What somebody else made of a piece since that run began."""
        self.deployed = False
        """Whether somebody deployed since it began, where LATEST then stands for another revision."""

    @initialize(latest=st.booleans())
    def begin(self, latest: bool) -> None:
        self.latest = latest
        self.production = Trial(
            live_config(self.room), layout_changes={"instances": 1, "latest": latest}
        ).production
        self.own_states = self.captured = self.found()

    # what is looked at

    def found(self) -> Pieces:
        """Look at production from within."""
        [held] = [row for row in self.production.routes if row["revision"] == STABLE]
        domains = held["domains"]
        assert isinstance(domains, dict)
        overrides = {key: domains.get(key) for key in MEANT} | {"global": held["global"]}
        return of_rows(self.production.traffic_spec) | overrides

    @property
    def told(self) -> list[TrainEvent]:
        return [] if self.folder is None else read_journal(self.folder / "journal.jsonl")

    def is_open(self) -> bool:
        """Whether the lock says that the last run is to be recovered."""
        return self.folder is not None and ServiceLock.left_by(self.folder) is not None

    @property
    def has_passed(self) -> bool:
        """Whether the last run's last word is that it passed; a recovery that has begun since takes that back."""
        words = [event for event in self.told if isinstance(event, TrainFinished | UndoStarted)]
        return bool(words) and isinstance(words[-1], TrainFinished) and words[-1].passed

    def put_back(self, piece: str) -> set[object]:
        """Return what an undo of the last run makes of a piece."""
        failed = any(
            isinstance(event, CheckRecorded)
            and event.step_id == "canary-rollback-drill"
            and event.check.status.failed
            for event in self.told
        )
        return (
            {ALL_STABLE}
            if failed and piece == "split" and self._touched_traffic()
            else {self.captured[piece]}
        )

    def _touched_traffic(self) -> bool:
        return any(isinstance(event, TrafficIntended) for event in self.told)

    # how it is done

    def _within(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run on time that goes on where it stopped."""
        loop = VirtualTimeLoop()
        loop.skipped = self.now
        anyio.run(work, backend="asyncio", backend_options={"loop_factory": lambda: loop})
        self.now = loop.skipped

    def _on(self, wire: Severed) -> Callable[[CutoverConfig], Production]:
        def live(config: CutoverConfig) -> Production:
            plain = simulated(config, self.production, clock=EventLoopClock())
            return attrs.evolve(
                plain, new_client=lambda _: httpx.AsyncClient(transport=wire), run_id=f"life-{self.runs}"
            )

        return live

    def _carry_out(
        self, work: Callable[[Severed, Observer], Awaitable[object]], fault: Injection | None, end: End | None
    ) -> bool:
        """Do it on a wire with this fault, cut off at this end; return whether it was killed: then nothing is undone.

        What is killed may go on, for it sends nothing any more, and what it writes is thrown away.
        """
        wire = Severed(self.production, () if fault is None else (fault,))
        kept = self.room.with_name("kept")

        died_at = 0.0

        async def to_its_end() -> None:
            seen = 0

            def observe(_: TrainEvent) -> None:
                nonlocal seen, died_at
                seen += 1
                if end is None or seen != end.number:
                    return
                if end.how == "cancelled":
                    scope.cancel()
                    return
                wire.is_dead = True
                died_at = anyio.current_time()
                shutil.copytree(self.room, kept)

            with anyio.CancelScope() as scope, suppress(UndoUnprovenError):  # the journal says it, too
                await work(wire, observe)
            if not wire.is_dead:
                await anyio.sleep(LANDED)
                self.production.traffic  # noqa: B018  what was late has landed

        self._within(to_its_end)
        if not wire.is_dead:
            return False
        self.now = died_at
        shutil.rmtree(self.room)
        kept.rename(self.room)
        if end is not None and end.how == "killed before the line" and self.folder is not None:
            journal = self.folder / "journal.jsonl"
            journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
        return True

    # what happens

    @precondition(lambda self: not self.is_open())
    @rule(fault=TRAIN_FAULTS, end=at_a_line(140))
    def run_and_be_killed(self, fault: Injection | None, end: End) -> None:
        """Somebody runs a train, and its machine dies."""
        self.run(fault, end)

    @rule(
        fault=TRAIN_FAULTS,
        end=st.none() | st.builds(End, how=st.just("cancelled"), number=st.sampled_from(range(1, 140))),
    )
    def run(self, fault: Injection | None, end: End | None) -> None:
        """Somebody runs a train."""
        self.production.requests.clear()
        if self.is_open():
            self._is_refused()
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

        async def train(wire: Severed, observe: Observer) -> None:
            await run_production(self._on(wire)(config), observer=observe)

        if self._carry_out(train, fault, end):
            return
        wrong = list(contradictions(self.production, folder))
        if end is not None:  # a write that a cancellation cuts off has no answer
            wrong = [one for one in wrong if "answered" not in one]
        assert not wrong, wrong
        last = self.told[-1]
        assert isinstance(last, TrainFinished)
        assert self.is_open() == (last.exit_code == 4)
        if fault is None and end is None and served == {STABLE: 100}:
            assert last.passed
        if self.is_open():
            return
        if last.passed:
            self.own_states = {**self.captured, **MEANT}
        else:
            self.own_states = {piece: self.put_back(piece).pop() for piece in self.captured}

    def _is_refused(self) -> None:
        assert self.folder is not None
        config = live_config(self.room, output_dir=self.room / "refused")

        async def train(wire: Severed, observe: Observer) -> None:
            with pytest.raises(NotStartedError) as caught:
                await run_production(self._on(wire)(config), observer=observe)
            assert recover_command(self.folder or "") in str(caught.value)

        before = self.found()
        self._carry_out(train, None, None)
        assert not self.production.requests
        assert not (self.room / "refused").exists()
        assert {piece for piece, value in self.found().items() if value != before[piece]} <= intended(
            self.told
        ).keys()

    @precondition(lambda self: self.folder is not None)
    @rule(
        way=st.sampled_from(WAYS),
        fault=RECOVERY_FAULTS,
        end=st.none() | at_a_line(15),
    )
    def recover(self, way: RecoveryMode, fault: Injection | None, end: End | None) -> None:
        """Somebody recovers the last run."""
        was_open, had_passed, before = self.is_open(), self.has_passed, self.found()
        got: list[Recovery] = []

        async def recovery(wire: Severed, observe: Observer) -> None:
            assert self.folder is not None
            with patch("cutover.wiring.recover.live", self._on(wire)):
                got.append(await recover_cutover(self.folder, way=way, env=TOKENS, observer=observe))

        if self._carry_out(recovery, fault, end):
            return
        [said] = got
        if not said.closed:
            assert fault or self.others or self.deployed, said.detail
            assert any("--accept-found" in line for line in said.to_do)
            if fault is None and way in {"finish", "revert"} and not self.deployed:
                assert (
                    "production has moved on: somebody else has changed it, and recovery changed nothing"
                    in said.detail
                )
                for piece in self.others:
                    assert self.found()[piece] in {before[piece], *self.put_back(piece)}, piece
            return
        assert not self.is_open()
        self._is_closed(way, before, was_open=was_open, had_passed=had_passed)

    def _is_closed(self, way: RecoveryMode, before: Pieces, *, was_open: bool, had_passed: bool) -> None:
        found = self.found()
        if had_passed and way in {"finish", "accept-found"}:
            self.own_states = {**self.captured, **MEANT} if was_open else self.own_states
            assert all(found[piece] == self.own_states[piece] for piece in found if piece not in self.others)
        elif way == "accept-found" or not (was_open or had_passed):
            for piece, value in found.items():
                assert value in {before[piece], *intended(self.told).get(piece, ())}, piece
        else:
            for piece, value in found.items():
                mine = self.put_back(piece)
                assert value in mine | ({before[piece]} if piece in self.others else set()), (
                    piece,
                    value,
                    mine,
                )
        self.own_states = found

    def _somebody_else(self, change: Callable[[], object]) -> None:
        async def play() -> None:
            self.production.traffic  # noqa: B018  what is due by now comes first
            before = self.found()
            change()
            for piece, value in self.found().items():
                if value != before[piece]:
                    self.others.setdefault(piece, set()).add(value)

        self._within(play)
        if not self.is_open():
            self.own_states = self.found()

    @rule(kind=st.sampled_from(("share", "tag", "stable", "deploy")))
    def move_traffic(self, kind: str) -> None:
        """Somebody moves the traffic, or names a revision, or deploys one."""
        if kind == "deploy":
            self._somebody_else(self.production._deployment.deploy)
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
        self._somebody_else(lambda: self.production._deployment.update(rows, Fate()))

    @rule(key=st.sampled_from(sorted(MEANT)), value=st.sampled_from((None, "legacy", "rust_shell")))
    def set_override(self, key: str, value: str | None) -> None:
        """Somebody sets an override, or clears one."""
        [stable] = self.production._front_door.all_of(STABLE)

        def change() -> None:
            stable.overrides.pop(key, None)
            if value is not None:
                stable.overrides[key] = value

        self._somebody_else(change)

    @rule(seconds=st.sampled_from((1.0, 5.0, 600.0)))
    def pass_time(self, seconds: float) -> None:
        """Nobody does anything."""

        async def wait() -> None:
            await anyio.sleep(seconds)
            self.production.traffic  # noqa: B018  what was late has landed

        self._within(wait)

    # what holds

    @invariant()
    def production_is_where_the_journals_say(self) -> None:
        if not hasattr(self, "known"):
            return
        told = intended(self.told) if self.is_open() else {}
        others = self.others if self.is_open() else {}
        for piece, value in self.found().items():
            assert value in {self.own_states[piece], *told.get(piece, ()), *others.get(piece, ())}, (
                piece,
                value,
            )
        if not self.is_open():
            assert not self.production.reconciling
            assert self.production._deployment.statuses == self.production.traffic_spec

    def teardown(self) -> None:
        """Whatever happened: it is recovered, and the next train passes."""
        with self._stack:
            if not hasattr(self, "known"):
                return
            self._is_brought_home()

    def _is_brought_home(self) -> None:
        if self.is_open():
            self.recover("finish", None, None)
        if self.is_open():
            self.recover("restore-captured", None, None)
            assert not self.is_open()
        self.production_is_where_the_journals_say()
        self.move_traffic("stable")
        self.run(None, None)
        assert self.has_passed
        assert {**self.captured, **MEANT} == self.found()


@pytest.mark.usefixtures("small_samples")
def test_production_is_never_left_in_a_state_that_no_journal_tells() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=int(LIVES) if LIVES else 25,
            stateful_step_count=20 if LIVES else 6,
            derandomize=not LIVES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
