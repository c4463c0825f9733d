"""The one writer of the routes: it sets overrides on every instance and proves them.

An override lives in the memory of the one instance that answered. So each override is written in rounds, more often in
each round, and read back by a sample of many reads. In each round, the journal gets one line for an override before its
writes, and one line with their common outcome after them.
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
"""Number of writes of each key in each round, until a sample agrees. The last round is repeated until the deadline."""


@attrs.frozen(kw_only=True)
class RouteChange:
    """The result of setting overrides on every instance."""

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
    """Write overrides in rounds, with growing pauses, until every read of a sample agrees or the deadline has passed.

    With ``OnRefusal.STOP`` the change also ends at a refused, failed (5xx) or unsent write, or at a sample that cannot be read.

    Rounds are needed: with ten instances, "write on each disagreement until k reads agree" passes falsely in a third of
    all cases.

    Args:
        control: The route-split API.
        wanted: (route key, override or None for clear), in the order of the writes.
        captured: The overrides before the train's first change, for the undo.
        step_id: The step that makes the change.
        label: Prefix of the labels of the requests.
        on_refusal: The reaction to a refused write.
        journal: The journal for intents, answers and read-backs.
        clock: The clock of the train.
    """
    ends = clock.now() + ROUTES_DEADLINE
    refused = ""
    # A key that is written twice ends with its last value.
    goal = tuple(dict(wanted).items())
    change = RouteChange(proven=False, detail="nothing was written")
    for number, times in enumerate(chain(ROUNDS, repeat(ROUNDS[-1])), 1):
        refused = "" if clock.now() < ends else refused
        retry_after = 0.0
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
                expired=lambda: clock.now() >= ends,
            )
            if answer.outcome in {"refused", "failed", NOT_SENT} and on_refusal is OnRefusal.STOP:
                return RouteChange(proven=False, detail=answer.detail)
            refused = refused or answer.detail
            retry_after = max(retry_after, answers.retry_after)
        change = await _read_back(control, goal, label=label, journal=journal)
        if change.proven:
            return change
        if refused:
            change = attrs.evolve(change, detail=f"{change.detail} ({refused})")
        unread = change.sample is None and on_refusal is OnRefusal.STOP
        left = ends - clock.now()
        if unread or left <= 0:
            break
        await clock.sleep(min(pause_after(number, at_least=retry_after), left))
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
    detail = sample.describe() if proven else f"not every instance took the overrides: {sample.describe()}"
    return RouteChange(proven=proven, detail=detail, sample=sample)


@attrs.define(eq=False)
class _Answers:
    """The answers to the writes of one intended change."""

    intent: RouteIntended
    by_outcome: dict[str, str] = attrs.field(factory=dict)
    """Outcome -> its first detail."""
    retry_after: float = 0.0
    """The longest ``retry-after`` of the answers, in seconds."""

    def add(self, outcome: str, detail: str = "", *, retry_after: float = 0.0) -> None:
        """Add the answer to one write."""
        self.by_outcome.setdefault(outcome, detail)
        self.retry_after = max(self.retry_after, retry_after)

    def most_important(self) -> Answered:
        """Return the answer that matters most to an undo. ``refused`` means that every write was refused."""
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
    expired: Callable[[], bool],
) -> Answered:
    """Journal the intent, write one override as often as intended, and journal and return the outcome."""
    journal.record(answers.intent)
    try:
        if journal.stopped is not None and on_refusal is OnRefusal.STOP:
            # A forward change that cannot be journaled is not sent.
            answers.add(NOT_SENT, journal.stopped)
        else:
            await _write(control, answers, label=label, expired=expired)
    # A cancelled change gets its answer too: no intent stays without one.
    finally:
        answer = answers.most_important()
        journal.record(answer)
    return answer


async def _write(
    control: ControlPlane, answers: _Answers, *, label: str, expired: Callable[[], bool]
) -> None:
    """Send the writes, at most eight at once; stop when the time is over or the service asks for a pause."""
    times = answers.intent.times
    remaining = iter(range(times))

    async def writer() -> None:
        for number in remaining:
            # A write is shielded, so a cancelled change stops here, between two writes.
            await checkpoint_if_cancelled()
            if number and (expired() or answers.retry_after):
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
