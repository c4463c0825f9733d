"""Overrides set, and proven, on every instance: the one writer of the routes.

Each override is in the memory of the instance that answered, so it is written in rounds, more often in each, and read back
by a sample of all of them: intent, writes, answer, proof, as ``TrafficMover`` has it for the split.
"""

from collections.abc import Callable, Sequence
from itertools import chain, repeat

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from cutover.clock import Clock
from cutover.errors import PeerError, RefusedError
from cutover.http.outbound import pause_after
from cutover.model.route_state import ROUTES_DEADLINE, RouteState
from cutover.model.train_events import NOT_SENT, Answered, RouteIntended, RoutesRead
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.control_plane import SAMPLE_CONCURRENCY, ControlPlane, RouteSample
from cutover.record.journal import Journal

ROUNDS = (1, 20, 40, 60)
"""How often each key is written in each round, until a sample agrees; the last round is repeated until the deadline."""


@attrs.frozen(kw_only=True)
class RouteChange:
    """What became of an attempt to set overrides on every instance."""

    proven: bool
    detail: str
    sample: RouteSample | None = None


async def set_routes(
    control: ControlPlane,
    wanted: Sequence[tuple[str, str | None]],
    *,
    captured: RouteState,
    step_id: str,
    label: str,
    on_refusal: OnRefusal,
    journal: Journal,
    clock: Clock,
) -> RouteChange:
    """Write overrides in rounds, with growing pauses, until a sample of every read agrees, or the deadline has passed.

    "Write on each disagreement until k agree" passes falsely in a third of all cases with ten instances; rounds do not.

    Args:
        control: Where to.
        wanted: (route key, override or None for clear), in the order in which to write them.
        captured: What was there before the train touched anything; undo goes back to it.
        step_id: The step on whose behalf this is.
        label: Prefix of the labels of the requests.
        on_refusal: Whether a refused write ends it, or only delays it.
        journal: Where intents, answers and read-backs go.
        clock: Time.
    """
    ends = clock.now() + ROUTES_DEADLINE
    refused = ""
    goal = tuple(dict(wanted).items())  # a key that is written twice is meant to end with its last value
    change = RouteChange(proven=False, detail="nothing was written")
    for number, times in enumerate(chain(ROUNDS, repeat(ROUNDS[-1])), 1):
        refused = "" if clock.now() < ends else refused
        wish = 0.0
        for position, (key, value) in enumerate(wanted if number == 1 else goal):
            await checkpoint_if_cancelled()
            if clock.now() >= ends:
                break
            answers = _Answers(
                RouteIntended(step_id=step_id, key=key, captured=captured, wanted=value, times=times)
            )
            answer = await _set(
                control,
                answers,
                label=f"{label}.{position}.{key}",
                on_refusal=on_refusal,
                journal=journal,
                over=lambda: clock.now() >= ends,
            )
            if answer.outcome in {"refused", "failed", NOT_SENT} and on_refusal is OnRefusal.STOP:
                return RouteChange(proven=False, detail=answer.detail)
            refused = refused or answer.detail
            wish = max(wish, answers.retry_after)
        change = await _read_back(control, goal, label=label, journal=journal)
        if change.proven:
            return change
        if refused:
            change = attrs.evolve(change, detail=f"{change.detail} ({refused})")
        unread = change.sample is None and on_refusal is OnRefusal.STOP
        left = ends - clock.now()
        if unread or left <= 0:
            break
        await clock.sleep(min(pause_after(number, wish=wish), left))
    return change


async def _read_back(
    control: ControlPlane, goal: Sequence[tuple[str, str | None]], *, label: str, journal: Journal
) -> RouteChange:
    try:
        sample = await control.sample(label=f"{label}.read-back")
    except PeerError as error:
        return RouteChange(proven=False, detail=f"the routes could not be read back: {error}")
    proven = sample.holds(goal)
    journal.record(RoutesRead(shares=sample.shares, proven=proven))
    said = sample.describe() if proven else f"not every instance took the overrides: {sample.describe()}"
    return RouteChange(proven=proven, detail=said, sample=sample)


@attrs.define(eq=False)
class _Answers:
    """What the writes of one intent were answered."""

    intent: RouteIntended
    by_outcome: dict[str, str] = attrs.field(factory=dict)
    """The first detail of each outcome."""
    retry_after: float = 0.0
    """Seconds: the longest that one of them asked for."""

    def add(self, outcome: str, detail: str = "", *, retry_after: float = 0.0) -> None:
        """Add one."""
        self.by_outcome.setdefault(outcome, detail)
        self.retry_after = max(self.retry_after, retry_after)

    def weightiest(self) -> Answered:
        """Return the answer that weighs most for an undo; refused means that every write was."""
        for outcome in ("unknown", "failed", "no effect", "accepted", "refused"):
            if outcome in self.by_outcome:
                return Answered(key=self.intent.key, outcome=outcome, detail=self.by_outcome[outcome])
        why = self.by_outcome.get(NOT_SENT, "cancelled before it was sent")
        return Answered(key=self.intent.key, outcome=NOT_SENT, detail=why)


async def _set(
    control: ControlPlane,
    answers: _Answers,
    *,
    label: str,
    on_refusal: OnRefusal,
    journal: Journal,
    over: Callable[[], bool],
) -> Answered:
    """Write one override as often as is intended, between its two journal lines."""
    journal.record(answers.intent)
    try:
        if journal.broken is not None and on_refusal is OnRefusal.STOP:
            answers.add(NOT_SENT, journal.broken)  # what was not written down is not done
        else:
            await _write(control, answers, label=label, over=over)
    finally:  # also where it was cancelled: no intent stays without an answer
        answer = answers.weightiest()
        journal.record(answer)
    return answer


async def _write(control: ControlPlane, answers: _Answers, *, label: str, over: Callable[[], bool]) -> None:
    """Write eight at once; no more once the time is over, or the peer asks to be left alone."""
    times = answers.intent.times
    remaining = iter(range(times))

    async def writer() -> None:
        for number in remaining:
            await checkpoint_if_cancelled()  # a write is shielded: this is where one that is cancelled stops
            if number and (over() or answers.retry_after):
                return
            await _write_once(control, answers, label=label)

    async with anyio.create_task_group() as writers:
        for _ in range(min(times, SAMPLE_CONCURRENCY)):
            writers.start_soon(writer)


async def _write_once(control: ControlPlane, answers: _Answers, *, label: str) -> None:
    key, value = answers.intent.key, answers.intent.wanted
    word = control.lane.override_words.get(value, value or "clear")
    try:
        state = await control.override(key, word, label=label)
    except RefusedError as error:
        answers.add("refused" if error.for_certain else "failed", str(error), retry_after=error.retry_after)
    except PeerError as error:
        answers.add("unknown", str(error))
    else:
        if state.get(key) == value:
            answers.add("accepted")
        else:
            answers.add("no effect", f"the reply to {key}={word} says {key}={state.get(key) or 'clear'}")
