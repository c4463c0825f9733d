"""The route-split API: read what the routes are, set overrides, prove them on every instance.

Overrides live in the memory of one instance, so one reply proves nothing. A proof is a sample: 59 status reads in a row
that agree say, with 95 % confidence, that at least 95 % of the requests see that state (0.95 ** 59 < 0.05).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, repeat

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from cutover.clock import Clock
from cutover.errors import PeerError, RefusedError, UnusableReplyError
from cutover.journal import NOT_SENT, Answered, Journal, RouteIntended, RoutesRead
from cutover.lane import Lane
from cutover.outbound import Outbound, Reply, pause_after
from cutover.quoting import printable
from cutover.state import GLOBAL, OnRefusal, RouteState

SAMPLE_READS = 59
"""Status reads that must agree."""
SAMPLE_CONCURRENCY = 8
"""Reads at once."""
ROUNDS = (1, 20, 40, 60)
"""How often each key is written in each round, until a sample agrees; the last round is repeated until the deadline."""
ROUTES_DEADLINE = 60.0
"""Seconds for all the rounds of one change; after them nothing is sent any more, and the routes are read once more."""


@attrs.frozen(kw_only=True)
class Evaluation:
    """Where the route split would send a path, and why."""

    path: str
    target: str
    reason: str
    domain: str | None


@attrs.frozen(kw_only=True)
class RouteSample:
    """The states that a number of status reads saw."""

    shares: tuple[tuple[RouteState, int], ...]
    """(state, in how many reads), the most frequent first."""

    @property
    def agreed(self) -> RouteState | None:
        """The one state that every read saw; None where they differ."""
        return self.shares[0][0] if len(self.shares) == 1 else None

    def holds(self, wanted: Sequence[tuple[str, str | None]]) -> bool:
        """Return whether every read saw these overrides."""
        return all(state.holds(wanted) for state, _ in self.shares)

    def describe(self) -> str:
        """Say which share of the reads saw which state."""
        total = sum(count for _, count in self.shares)
        return "; ".join(f"{count} of {total} reads: {state.describe()}" for state, count in self.shares)


@attrs.define(eq=False)
class ControlPlane:
    """The route-split API of one deployment."""

    outbound: Outbound
    """Its client must open a fresh connection for each request: a kept one may stick to one instance."""
    base_url: str
    lane: Lane
    token: str = attrs.field(repr=False)

    async def status(self, *, label: str) -> RouteState:
        """Read the overrides from whichever instance answers.

        Raises:
            PeerError: No usable answer.
        """
        reply = await self.outbound.read(
            "GET", self.base_url + self.lane.status_path, label=label, headers=self._headers()
        )
        return _route_state(reply.expect_success())

    async def sample(self, *, label: str) -> RouteSample:
        """Read the status as often as a proof takes, eight reads at once.

        Raises:
            PeerError: A read had no usable answer, after retries.
        """
        seen: Counter[RouteState] = Counter()
        failures: list[PeerError] = []
        remaining = iter(range(SAMPLE_READS))

        async def reader() -> None:
            for _ in remaining:
                if failures:
                    return
                try:
                    seen[await self.status(label=label)] += 1
                except PeerError as error:
                    failures.append(error)

        async with anyio.create_task_group() as readers:
            for _ in range(SAMPLE_CONCURRENCY):
                readers.start_soon(reader)
        if failures:
            raise failures[0]
        return RouteSample(shares=tuple(seen.most_common()))

    async def evaluate(self, path: str, *, cohort_key: str, label: str) -> Evaluation:
        """Ask where a path would go.

        Raises:
            PeerError: No usable answer.
        """
        reply = await self.outbound.read(
            "POST",
            self.base_url + self.lane.evaluate_path,
            label=label,
            headers=self._headers(),
            json={"path": path, "cohort_key": cohort_key},
        )
        data = _data(reply.expect_success())
        target = data.get("target")
        if not isinstance(target, str):
            raise UnusableReplyError(f"{reply.request_line}: the reply names no target")
        domain = data.get("route_domain")
        return Evaluation(
            path=path,
            target=printable(target),
            reason=printable(str(data.get("reason") or "")),
            domain=printable(domain) if isinstance(domain, str) else None,
        )

    async def override(self, key: str, word: str, *, label: str) -> RouteState:
        """Set one override, once, on whichever instance answers; return the state that it answers with.

        Raises:
            NoAnswerError: No reply came; it may have taken effect.
            RefusedError: It was refused.
            UnusableReplyError: It was accepted with a reply that does not say so.
        """
        body = {"target": word} if key == GLOBAL else {"target": word, "domain": key}
        reply = await self.outbound.change(
            "POST", self.base_url + self.lane.override_path, label=label, headers=self._headers(), json=body
        )
        return _route_state(reply.expect_success())

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}", "accept": "application/json"}


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
            journal.record(
                RouteIntended(step_id=step_id, key=key, captured=captured, wanted=value, times=times)
            )
            if (
                journal.broken is not None and on_refusal is OnRefusal.STOP
            ):  # what was not written down is not done
                journal.record(Answered(key=key, outcome=NOT_SENT, detail=journal.broken))
                return RouteChange(proven=False, detail=journal.broken)
            answers = _Answers(key=key)
            try:
                await _write(
                    control,
                    value,
                    answers,
                    times=times,
                    label=f"{label}.{position}.{key}",
                    over=lambda: clock.now() >= ends,
                )
            finally:  # also where it was cancelled: no intent stays without an answer
                answer = answers.weightiest()
                journal.record(answer)
            if answer.outcome in {"refused", "failed"} and on_refusal is OnRefusal.STOP:
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
    """What the writes of one override were answered, in one round."""

    key: str
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
                return Answered(key=self.key, outcome=outcome, detail=self.by_outcome[outcome])
        return Answered(key=self.key, outcome=NOT_SENT, detail="cancelled before it was sent")


async def _write(
    control: ControlPlane,
    value: str | None,
    answers: _Answers,
    *,
    times: int,
    label: str,
    over: Callable[[], bool],
) -> None:
    """Write one override so many times, eight at once; no more once the time is over, or the peer asks to be left alone."""
    word = control.lane.override_words.get(value, value or "clear")
    remaining = iter(range(times))

    async def writer() -> None:
        for number in remaining:
            await checkpoint_if_cancelled()  # a write is shielded: this is where one that is cancelled stops
            if number and (over() or answers.retry_after):
                return
            await _write_once(control, value, word, answers, label=label)

    async with anyio.create_task_group() as writers:
        for _ in range(min(times, SAMPLE_CONCURRENCY)):
            writers.start_soon(writer)


async def _write_once(
    control: ControlPlane, value: str | None, word: str, answers: _Answers, *, label: str
) -> None:
    key = answers.key
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


def _data(reply: Reply) -> dict[str, object]:
    decoded = reply.json()
    data = decoded.get("data") if isinstance(decoded, dict) else None
    if not isinstance(data, dict):
        raise UnusableReplyError(f"{reply.request_line}: the reply has no object in `data`")
    return data


def _route_state(reply: Reply) -> RouteState:
    data = _data(reply)
    groups, overrides = data.get("route_groups"), data.get("domain_overrides")
    if not isinstance(groups, list) or "override_target" not in data:
        raise UnusableReplyError(
            f"{reply.request_line}: the reply has no `route_groups` or no `override_target`"
        )
    found: dict[str, str | None] = {}
    for group in groups:
        if not isinstance(group, dict):
            raise UnusableReplyError(f"{reply.request_line}: a route group is no object")
        found[_domain(group.get("domain"), reply)] = _target(group.get("override_target"))
    if isinstance(overrides, dict):
        found |= {_domain(domain, reply): _target(value) for domain, value in overrides.items()}
    mode = ", ".join(
        f"{name}={printable(str(data[name]))}"
        for name in ("enabled", "mode", "cohort_percentage", "force_legacy")
        if name in data
    )
    return RouteState(
        overrides=(*sorted(found.items()), (GLOBAL, _target(data["override_target"]))), mode=mode
    )


def _domain(value: object, reply: Reply) -> str:
    if isinstance(value, str) and value != GLOBAL and re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value):
        return value
    raise UnusableReplyError(f"{reply.request_line}: '{printable(str(value))}' is not the name of a domain")


def _target(value: object) -> str | None:
    """Normalise a target: the API is set with ``rust`` and answers ``rust_shell``."""
    match value:
        case None | "":
            return None
        case "rust":
            return "rust_shell"
        case _:
            return printable(str(value))
