"""The one writer of the routes: it sets overrides on every instance and proves them.

An override lives in the memory of the one instance that answered. So each override is written in rounds, more often in
each round, and read back by a sample of many reads. In each round, the journal gets one line for an override before its
writes, and one line with their common outcome after them.

The module is a little longer than most, because the rounds, their writes and the answers to them are read together.
"""

import itertools
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
from cutover.model.undo_policy import keys_of_others
from cutover.production.on_refusal import CANCELLED, OnRefusal, reason_not_to_send, until_recorded
from cutover.production.routes.control_plane import SAMPLE_CONCURRENCY, ControlPlane, RouteSample
from cutover.record.journal import Journal

ROUNDS = (1, 20, 40, 60)
"""Number of writes of each key in each round, until a sample agrees. The last round is repeated until the deadline."""


_NO_REPLY = frozenset({"refused", "failed", "unknown"})
"""Outcomes of a write whose reply shows no overrides."""
_NOT_TAKEN = frozenset({"refused", "failed", NOT_SENT})
"""Outcomes of a write that got an error status, or was not sent."""
_PASSING = frozenset({409, 429})
"""Statuses of a refusal that may pass; a 5xx may as well."""
_FAILED_ROUNDS = 2
"""Number of rounds that such a refusal may end before it ends a forward change."""


@attrs.frozen(kw_only=True)
class RouteChange:
    """The result of setting overrides on every instance."""

    proven: bool
    detail: str
    sample: RouteSample | None = None
    keys_of_others: tuple[str, ...] = ()
    """The route keys that somebody else changed meanwhile. They were not written again."""


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
    own_states: Sequence[tuple[str, str | None]] | None = None,
) -> RouteChange:
    """Write overrides in rounds, with growing pauses, until every read of a sample agrees or the deadline has passed.

    The change ends as well when a sample shows that somebody else has changed one of the overrides: nobody is written over. With
    ``OnRefusal.STOP`` it also ends at a refused or unsent write, or at a sample that cannot be read. But a 409, a 429 or a 5xx only ends its
    round, up to two times: an override can be set twice, so it is set again.

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
        own_states: Every (route key, override) pair that this train captured or asked for; any other pair is somebody else's, and ends the
            change. A clear override always counts as its own: an instance that started later has none. None writes over any state.
    """
    ends, refused = clock.now() + ROUTES_DEADLINE, ""
    # A key that is written twice ends with its last value.
    goal = tuple(dict(wanted).items())
    rounds = chain(ROUNDS, repeat(ROUNDS[-1]))
    times, order, failed_rounds = next(rounds), wanted, 0
    for number in itertools.count(1):
        sent = _Round(step_id=step_id, captured=captured, times=times, goal=goal, own_states=own_states)
        await sent.run(
            control,
            order,
            label=label,
            on_refusal=on_refusal,
            journal=journal,
            expired=lambda: clock.now() >= ends,
        )
        if sent.keys_of_others:
            return RouteChange(proven=False, detail=sent.detail, keys_of_others=sent.keys_of_others)
        failed_rounds += sent.stopped
        if sent.stopped and (not sent.may_pass or failed_rounds > _FAILED_ROUNDS):
            return RouteChange(proven=False, detail=sent.detail)
        change = await _read_back(control, goal, own_states, label=label, journal=journal)
        if change.proven or change.keys_of_others:
            return change
        # The refusals of this round, or after the deadline those of the last round that was sent.
        refused = sent.detail if sent.answered else refused
        if refused:
            change = attrs.evolve(change, detail=f"{change.detail} ({refused})")
        unread = change.sample is None and on_refusal is OnRefusal.STOP
        left = ends - clock.now()
        if unread or left <= 0:
            return change
        await clock.sleep(min(pause_after(number, at_least=sent.retry_after), left))
        if own_states is not None:
            # Somebody may have acted in the pause, and a late write may have landed.
            again = await _read_back(control, goal, own_states, label=label, journal=journal)
            if again.proven or again.keys_of_others:
                return again
        if not sent.stopped:
            times, order = next(rounds), goal
    raise AssertionError("rounds never end by themselves")


@attrs.define(eq=False, kw_only=True)
class _Round:
    """One round of writes: each override once, or several times."""

    step_id: str
    captured: RouteState
    times: int
    goal: Sequence[tuple[str, str | None]]
    own_states: Sequence[tuple[str, str | None]] | None
    detail: str = ""
    """The first problem of this round; empty if there was none."""
    keys_of_others: tuple[str, ...] = ()
    """The route keys that somebody else has changed, by a reply to a write of another key. The round ends there."""
    retry_after: float = 0.0
    """The longest ``retry-after`` of the answers, in seconds."""
    answered: bool = False
    """True if a write of this round was due before the deadline."""
    stopped: bool = False
    """True if a refusal ended the round of a forward change early."""
    may_pass: bool = True
    """True if that refusal may pass."""

    async def run(
        self,
        control: ControlPlane,
        order: Sequence[tuple[str, str | None]],
        *,
        label: str,
        on_refusal: OnRefusal,
        journal: Journal,
        expired: Callable[[], bool],
    ) -> None:
        """Write the overrides in this order, until the time is over; a forward change also ends at a refusal."""
        for position, (key, value) in enumerate(order):
            await checkpoint_if_cancelled()
            if expired():
                return
            answers = _Answers(
                RouteIntended(
                    step_id=self.step_id, key=key, captured=self.captured, wanted=value, times=self.times
                ),
                watched=tuple(dict.fromkeys(other for other, _ in self.goal if other != key)),
                own_states=self.own_states,
            )
            answer = await _set(
                control,
                answers,
                label=f"{label}.{position}.{key}",
                on_refusal=on_refusal,
                journal=journal,
                expired=expired,
            )
            self.answered = True
            self.detail = self.detail or answer.detail
            self.retry_after = max(self.retry_after, answers.retry_after)
            if answer.outcome in _NO_REPLY and self.own_states is not None:
                await self._look_at_others(control, answers, label=f"{label}.{position}.look")
            if answers.keys_of_others:
                self.keys_of_others = answers.keys_of_others
                self.detail = f"somebody else has changed {', '.join(self.keys_of_others)} in the meantime"
                return
            if answer.outcome in _NOT_TAKEN and (on_refusal is OnRefusal.STOP or journal.taken_over):
                self.detail, self.stopped, self.may_pass = answer.detail, True, answers.may_pass
                return

    async def _look_at_others(self, control: ControlPlane, answers: "_Answers", *, label: str) -> None:
        """Read the overrides once after a write without a good reply: nobody has seen those of others since it began."""
        try:
            found = await control.status(label=label, attempts=1)
        except PeerError:
            return
        keys = [key for key, _ in self.goal]
        answers.keys_of_others = answers.keys_of_others or keys_of_others(
            [found], keys=keys, own_states=self.own_states or ()
        )


async def _read_back(
    control: ControlPlane,
    goal: Sequence[tuple[str, str | None]],
    own_states: Sequence[tuple[str, str | None]] | None,
    *,
    label: str,
    journal: Journal,
) -> RouteChange:
    try:
        sample = await control.sample(label=f"{label}.read-back")
    except PeerError as error:
        return RouteChange(proven=False, detail=f"the routes could not be read back: {error}")
    proven = sample.holds(goal)
    journal.record(RoutesRead(shares=sample.shares, proven=proven))
    detail = sample.describe() if proven else f"not every instance took the overrides: {sample.describe()}"
    others: tuple[str, ...] = ()
    if not proven and own_states is not None:
        states = [state for state, _ in sample.shares]
        others = keys_of_others(states, keys=[key for key, _ in goal], own_states=own_states)
    if others:
        detail = f"somebody else has changed {', '.join(others)} in the meantime: {sample.describe()}"
    return RouteChange(proven=proven, detail=detail, sample=sample, keys_of_others=others)


@attrs.define(eq=False)
class _Answers:
    """The answers to the writes of one intended change."""

    intent: RouteIntended
    watched: tuple[str, ...] = ()
    """The other route keys of the change. A reply shows them too."""
    own_states: Sequence[tuple[str, str | None]] | None = None
    keys_of_others: tuple[str, ...] = ()
    """The watched keys that somebody else has changed, by a reply."""
    by_outcome: dict[str, str] = attrs.field(factory=dict)
    """Outcome -> its first detail."""
    retry_after: float = 0.0
    """The longest ``retry-after`` of the answers, in seconds."""
    may_pass: bool = True
    """True if each refusal so far may pass: a 409, a 429 or a 5xx. False if the writes were not sent."""

    def add(self, outcome: str, detail: str = "", *, retry_after: float = 0.0) -> None:
        """Add the answer to one write."""
        self.by_outcome.setdefault(outcome, detail)
        self.retry_after = max(self.retry_after, retry_after)

    def most_important(self) -> Answered:
        """Return the answer that matters most to an undo. ``refused`` means that every write was refused."""
        for outcome in ("unknown", "failed", "no effect", "accepted", "refused"):
            if outcome in self.by_outcome:
                return Answered(key=self.intent.key, outcome=outcome, detail=self.by_outcome[outcome])
        why = self.by_outcome.get(NOT_SENT, CANCELLED)
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
        await until_recorded(journal, on_refusal)
        if reason := reason_not_to_send(journal, on_refusal):
            answers.add(NOT_SENT, reason)
            answers.may_pass = False
        else:
            await _write(
                control, answers, label=label, expired=lambda: expired() or journal.taken_over is not None
            )
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
            if number and (expired() or answers.retry_after or answers.keys_of_others):
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
        answers.may_pass = answers.may_pass and (error.status in _PASSING or not error.for_certain)
        answers.add("refused" if error.for_certain else "failed", str(error), retry_after=error.retry_after)
    except PeerError as error:
        answers.add("unknown", str(error))
    else:
        if answers.own_states is not None:
            others = keys_of_others([state], keys=answers.watched, own_states=answers.own_states)
            answers.keys_of_others = answers.keys_of_others or others
        if state.get(key) == value:
            answers.add("accepted")
        else:
            answers.add("no effect", f"the reply to {key}={word} says {key}={state.get(key) or 'clear'}")
