"""The holds of a train: it waits for an operator's decision, and watches production meanwhile.

A wait ends with the first of these: the decision ``go``; the decision ``stop``; a fault that the watch sees; its timeout; a journal that
cannot be written any more. Only ``go`` lets the train go on. All other ends are failed checks, so the train undoes its changes.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import Enum

import anyio
import attrs

from cutover.clock import Clock
from cutover.errors import PeerError
from cutover.model.holds import CHECK_KIND, GO, check_id
from cutover.model.results import Check, StepStatus
from cutover.model.train_events import DecisionTaken, Waiting
from cutover.record.decisions import Decision, Decisions
from cutover.text import timestamp
from cutover.train.step_recorder import StepRecorder

POLL_SECONDS = 1.0
"""Seconds between two looks for a decision."""
_DIGEST = 8
"""Hex digits of a wait's id that depend on the state shown."""

KeepWatch = Callable[[float, anyio.Event], Awaitable[bool]]
"""A function that watches production for this many seconds at most. It returns False at once at the first fault. When the event is set, it
begins nothing new, and returns when what still runs has ended."""


class Ending(Enum):
    """The ways in which a wait ends."""

    GO = "go"
    NO_GO = "no go"
    FAULT = "fault"
    """The watch saw a fault, before or after the decision. Its check is the caller's."""


@attrs.frozen(kw_only=True)
class Held:
    """The end of one wait."""

    hold: str
    ending: Ending
    detail: str = ""
    """The decision, or the reason why there is none; empty after a fault."""

    def record(self, recorder: StepRecorder) -> Check:
        """Record the check of a wait that ended with ``go`` or with ``no go``."""
        status = StepStatus.PASS if self.ending is Ending.GO else StepStatus.FAIL
        return recorder.check(check_id(self.hold), status, self.detail, kind=CHECK_KIND, tolerable=False)


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the holds."""

    hold_at: tuple[str, ...]
    """The places where the train waits: shares of the canary in percent, and names of ``NAMED_HOLDS``."""
    hold_timeout: float
    """Longest time in seconds for one wait."""
    run_id: str


@attrs.define(eq=False)
class Holds:
    """The holds of one train."""

    plan: Plan
    clock: Clock
    decisions: Decisions
    _waits: int = 0

    def at(self, hold: str) -> bool:
        """Return True if the train waits at this place."""
        return hold in self.plan.hold_at

    async def wait(self, hold: str, *, state: str, recorder: StepRecorder, keep_watch: KeepWatch) -> Held:
        """Wait for a decision about a state, and watch production meanwhile; return the end of the wait.

        After ``go`` the looks that still run are read to their end. After ``stop``, at the timeout and at a fault nothing is waited for.

        Args:
            hold: The place.
            state: The state that the operator decides about, in words.
            recorder: The recorder of the step that waits.
            keep_watch: Watches production.
        """
        begun = self.clock.now()
        waiting = self._announce(hold, state, recorder)
        ends = anyio.Event()
        answer: DecisionTaken | None = None
        whole = True
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                nonlocal whole
                whole = await keep_watch(self.plan.hold_timeout, ends)
                group.cancel_scope.cancel()

            group.start_soon(watch)
            answer = await self._answer(waiting, recorder)
            if answer is not None and answer.answer == GO:
                ends.set()
            else:
                group.cancel_scope.cancel()
        if not whole:
            return Held(hold=hold, ending=Ending.FAULT)
        if answer is None and recorder.journal.stopped is None:
            # The decision may have come with the last second.
            answer = await self._read(waiting, recorder)
        if answer is None:
            return Held(hold=hold, ending=Ending.NO_GO, detail=recorder.journal.stopped or self._nobody())
        after = f"{self.clock.now() - begun:.0f} s"
        ending = Ending.GO if answer.answer == GO else Ending.NO_GO
        detail = f"{answer.answer}, decided by {answer.by} after {after}: {answer.because}"
        return Held(hold=hold, ending=ending, detail=detail)

    def _nobody(self) -> str:
        return f"no decision came within {self.plan.hold_timeout:g} s (HOLD_TIMEOUT)"

    def _announce(self, hold: str, state: str, recorder: StepRecorder) -> Waiting:
        """Record that the train waits, and give the wait its id."""
        self._waits += 1
        until = timestamp(datetime.now(UTC) + timedelta(seconds=self.plan.hold_timeout))
        shown = f"{self.plan.run_id}\n{recorder.step_id}\n{hold}\n{state}\n{until}"
        wait = f"{self._waits}-{hashlib.sha256(shown.encode()).hexdigest()[:_DIGEST]}"
        waiting = Waiting(
            step_id=recorder.step_id,
            hold=hold,
            wait=wait,
            state=recorder.evidence.secrets.mask_text(state),
            until=until,
            decide=self.decisions.command(wait),
        )
        recorder.journal.record(waiting)
        return waiting

    async def _answer(self, waiting: Waiting, recorder: StepRecorder) -> DecisionTaken | None:
        """Wait for a decision and record it; return None if the journal cannot be written any more."""
        while recorder.journal.stopped is None:
            if (answer := await self._read(waiting, recorder)) is not None:
                return answer
            await self.clock.sleep(POLL_SECONDS)
        return None

    async def _read(self, waiting: Waiting, recorder: StepRecorder) -> DecisionTaken | None:
        """Look once for a decision, and record it; return None if there is none, or if the store gives no answer."""
        journal = recorder.journal
        try:
            found = await self.decisions.first(waiting)
        except PeerError:
            found = None
        journal.complaints += [text for text in self.decisions.complaints if text not in journal.complaints]
        return None if found is None else self._take(found, waiting, recorder)

    def _take(self, found: Decision, waiting: Waiting, recorder: StepRecorder) -> DecisionTaken:
        mask = recorder.evidence.secrets.mask_text
        taken = DecisionTaken(
            step_id=waiting.step_id,
            hold=waiting.hold,
            wait=waiting.wait,
            answer=found.answer,
            by=mask(found.by),
            because=mask(found.because),
        )
        recorder.journal.record(taken)
        return taken
