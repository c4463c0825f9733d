"""The watch after a GO: round by round it proves the overrides, the split and the contract once more. It changes nothing.

An override lives in the memory of one instance, so it is lost when that instance is replaced, and an instance that starts later never has it.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.losses import MOST_FAILED
from cutover.model.route_state import GLOBAL
from cutover.model.traffic_state import describe_shares
from cutover.model.train_events import StepFinished, TrafficRead, TrainEvent, TrainFinished
from cutover.production.routes.control_plane import RouteSample
from cutover.production.services import Services
from cutover.train.smoke_looks import LOST_BY_CHANCE, ask


class RoundStatus(enum.Enum):
    """The result of one round, or of one of its checks."""

    HELD = "held"
    LOST = "LOST"
    """Production is not as the train left it, or a stream broke its contract."""
    UNKNOWN = "UNKNOWN"
    """There was no answer that shows it."""


@attrs.frozen(kw_only=True)
class Goal:
    """The state of production that a passed train has left."""

    overrides: tuple[tuple[str, str | None], ...]
    """(route key, override)."""
    shares: tuple[tuple[str, int], ...]
    """(revision, percent) of the split."""


@attrs.frozen(kw_only=True)
class Look:
    """One check of a round."""

    name: str
    """``routes``, ``traffic``, or ``stream`` and the name of the alias."""
    status: RoundStatus
    detail: str
    to_do: tuple[str, ...] = ()
    """The commands with which an operator sets a lost override again."""


@attrs.frozen(kw_only=True)
class Round:
    """One round of the watch."""

    number: int
    looks: tuple[Look, ...]

    @property
    def status(self) -> RoundStatus:
        """The worst status of the checks: LOST before UNKNOWN before HELD."""
        return worst(look.status for look in self.looks)


def worst(statuses: Iterable[RoundStatus]) -> RoundStatus:
    """Return the worst of these statuses; UNKNOWN if there is none."""
    found = set(statuses)
    for status in (RoundStatus.LOST, RoundStatus.UNKNOWN):
        if status in found:
            return status
    return RoundStatus.HELD if found else RoundStatus.UNKNOWN


def goal_of(events: Sequence[TrainEvent]) -> Goal | None:
    """Return the state that a train has left; None unless its last verdict is GO."""
    verdicts = [event for event in events if isinstance(event, TrainFinished)]
    if not verdicts or not verdicts[-1].passed:
        return None
    results = {event.result.step_id: event.result for event in events if isinstance(event, StepFinished)}
    reads = [event.found for event in events if isinstance(event, TrafficRead) and event.proven]
    flip = results.get(step_ids.FLIP)
    routes = flip.facts.get("routes") if flip is not None else None
    if not isinstance(routes, Mapping) or not reads:
        return None
    overrides = ((str(key), None if value is None else str(value)) for key, value in routes.items())
    return Goal(overrides=tuple(overrides), shares=tuple(reads[-1].served().items()))


async def take_round(number: int, goal: Goal, services: Services) -> Round:
    """Sample the overrides, read the split and probe every alias, side by side."""
    looks: dict[str, Look] = {}

    async def streams() -> None:
        asked = await ask(services.prober, services.clock, label="watch", most_failed=MOST_FAILED)
        for alias, log in asked.logs.items():
            shown = log.first_bad or log.first
            assert shown is not None  # noqa: S101  each alias is asked
            status, detail = RoundStatus.HELD, shown.describe()
            if log.bad and asked.passed:
                detail = f"{LOST_BY_CHANCE}; {log.bad} of {log.count} failed: {detail}"
            elif log.bad:
                status = RoundStatus.UNKNOWN if log.bad == log.without_evidence else RoundStatus.LOST
            looks[f"stream {alias}"] = Look(name=f"stream {alias}", status=status, detail=detail)

    async def routes() -> None:
        looks["routes"] = await _routes(goal, services)

    async def traffic() -> None:
        looks["traffic"] = await _traffic(goal, services)

    async with anyio.create_task_group() as group:
        for check in (routes, traffic, streams):
            group.start_soon(check)
    return Round(number=number, looks=tuple(looks[name] for name in sorted(looks)))


async def _routes(goal: Goal, services: Services) -> Look:
    try:
        sample = await services.control.sample(label="watch.routes")
    except PeerError as error:
        return Look(name="routes", status=RoundStatus.UNKNOWN, detail=str(error))
    if sample.holds(goal.overrides):
        return Look(name="routes", status=RoundStatus.HELD, detail=f"{sample.reads} reads agree")
    lost = _lost_keys(goal, sample)
    return Look(
        name="routes",
        status=RoundStatus.LOST,
        detail=_describe_loss(goal, sample),
        to_do=tuple(services.control.curl(key, dict(goal.overrides)[key]) for key in lost),
    )


def _lost_keys(goal: Goal, sample: RouteSample) -> list[str]:
    """Return the route keys that some read saw with another override, the global one last, as a flip writes them."""
    lost = [
        key
        for key, value in goal.overrides
        if any(answer.state.get(key) != value for answer in sample.answers)
    ]
    return sorted(lost, key=lambda key: key == GLOBAL)


def _describe_loss(goal: Goal, sample: RouteSample) -> str:
    """Return who lost which overrides, in words."""
    losses = []
    for answer in sample.answers:
        wrong = [
            f"{key} is {answer.state.get(key) or 'clear'}, not {value or 'clear'}"
            for key, value in goal.overrides
            if answer.state.get(key) != value
        ]
        if wrong:
            losses.append(f"{answer.origin} ({answer.reads} of {sample.reads} reads): {', '.join(wrong)}")
    return "; ".join(losses)


async def _traffic(goal: Goal, services: Services) -> Look:
    try:
        state = await services.traffic.read(label="watch.traffic")
    except PeerError as error:
        return Look(name="traffic", status=RoundStatus.UNKNOWN, detail=str(error))
    served = state.served()
    if served == dict(goal.shares):
        return Look(name="traffic", status=RoundStatus.HELD, detail=describe_shares(served))
    left = describe_shares(dict(goal.shares))
    detail = f"{describe_shares(served)} is served, and the train left {left}"
    return Look(name="traffic", status=RoundStatus.LOST, detail=detail)
