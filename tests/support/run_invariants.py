"""What must hold after any train, however it went: production, journal, artifacts and exit code tell one story."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import msgspec

from cutover.model.summary import fold
from cutover.model.train_events import (
    TRAFFIC,
    Answered,
    RouteIntended,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    UndoFinished,
)
from cutover.model.undo_plan import plan_undo
from cutover.record.journal import read_journal
from cutover.report.terminal import conclusion
from cutover.simulation import Operation, SimulatedProduction
from cutover.simulation.deployment import Target
from tests.support.embedded_trains import CANARY, STABLE

AS_CAPTURED, AS_MEANT, ON_STABLE, OPEN = "as captured", "as meant", "on stable", "not put back"
"""Where a train leaves production. A train that passes leaves the routes flipped and the traffic as captured, or promoted."""


def left_behind(production: SimulatedProduction, before: "State") -> str:
    """Say where production is, now that everything that was late has landed."""
    now = state(production)
    if now == before:
        return AS_CAPTURED
    tags = {target for target in before.asked if not target.percent}
    promoted = attrs.evolve(
        before, served={CANARY: 100}, asked=frozenset({Target(revision=CANARY, percent=100), *tags})
    )
    meant = (attrs.evolve(each, overrides=now.overrides) for each in (before, promoted))
    if now in meant and set(now.overrides) == {FLIPPED}:
        return AS_MEANT
    return ON_STABLE if now == attrs.evolve(before, asked=now.asked) else OPEN


FLIPPED = tuple(
    (key, "rust_shell")
    for key in ("account_settings_admin", "auth_entry", "billing_l402", "chat_pilot", "global")
)


@attrs.frozen(kw_only=True)
class State:
    """Everything that a train may move."""

    served: dict[str, int]
    reconciling: bool
    asked: frozenset[Target]
    overrides: tuple[tuple[tuple[str, object], ...], ...]
    """Of each instance of stable."""


def state(production: SimulatedProduction) -> State:
    """Look at production from within."""
    held: list[dict[str, object]] = []
    for row in production.routes:
        domains = row["domains"]
        assert isinstance(domains, dict)
        if row["revision"] == STABLE:
            held.append(domains | ({} if row["global"] is None else {"global": row["global"]}))
    return State(
        served=production.traffic,
        reconciling=production.reconciling,
        asked=frozenset(production.traffic_spec),
        overrides=tuple(tuple(sorted(one.items())) for one in held),
    )


def contradictions(production: SimulatedProduction, folder: Path) -> Iterator[str]:
    """Yield what the journal, the artifacts and the requests that were sent do not agree on."""
    events = read_journal(folder / "journal.jsonl")
    yield from _open_intents(events)
    yield from _unwritten(production, events)
    last = events[-1]
    if not isinstance(last, TrainFinished):
        yield f"the journal ends with {type(last).__name__}"
        return
    written = msgspec.json.decode((folder / "summary.json").read_bytes())
    summary = fold(events)
    if (written["exit_code"], written["overall_status"]) != (last.exit_code, summary.overall_status):
        yield "summary.json and the journal disagree"
    if summary.passed != (last.exit_code == 0):
        yield f"passed is {summary.passed} with exit code {last.exit_code}"
    outstanding = bool(plan_undo(events, stable=STABLE))
    if outstanding != (last.exit_code == 4):
        yield f"something is outstanding: {outstanding}, with exit code {last.exit_code}"
    undo = next((event for event in reversed(events) if isinstance(event, UndoFinished)), None)
    if last.exit_code == 4:
        yield from _silence(undo, folder)
    elif undo is not None and not undo.proven:
        yield "an undo that was not proven, without exit code 4"


def _silence(undo: UndoFinished | None, folder: Path) -> Iterator[str]:
    """Yield what an operator is not told who must act."""
    said = conclusion(fold(read_journal(folder / "journal.jsonl")), evidence=None)
    if undo is None or undo.proven or undo.to_do == ():
        yield "exit code 4 without a word on what to do"
        return
    for words in ("check that ", f"cutover recover {folder}"):
        if not any(line.startswith("  DO      ") and words in line for line in said):
            yield f"the last lines do not say {words!r}"
    if not any("curl -X POST" in line or "gcloud run services update-traffic" in line for line in said):
        yield "the last lines do not say which command puts it back"
    if undo.to_do[0] not in (folder / "SUMMARY.md").read_text().replace("\\", ""):
        yield "SUMMARY.md does not say what to do"


def _open_intents(events: Sequence[TrainEvent]) -> Iterator[str]:
    pending: set[str] = set()
    for event in events:
        match event:
            case TrafficIntended() | RouteIntended():
                key = TRAFFIC if isinstance(event, TrafficIntended) else event.key
                if key in pending:
                    yield f"{key} is intended anew before it was answered"
                pending.add(key)
            case Answered():
                if event.key not in pending:
                    yield f"{event.key} is answered, and was not intended"
                pending.discard(event.key)
            case _:
                pass
    yield from (f"{key} was never answered" for key in sorted(pending))


def _unwritten(production: SimulatedProduction, events: Sequence[TrainEvent]) -> Iterator[str]:
    """Yield the changes that production was asked for and the journal does not know of."""
    asked = [row.operation for row in production.requests]
    intended = sum(isinstance(event, TrafficIntended) for event in events)
    if asked.count(Operation.TRAFFIC_UPDATE) > intended:
        yield "more updates of the traffic than intents"
    intended = sum(event.times for event in events if isinstance(event, RouteIntended))
    if asked.count(Operation.ROUTE_OVERRIDE) > intended:
        yield "more overrides than intents"
