"""The sentences about what a run moves, in its own names: from where to where, and which service is the new one."""

from collections.abc import Sequence

from cutover.model import step_ids
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import RouteIntended, TrainEvent, changes


def what_moves(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[str, ...]:
    """Return what the run moves, one sentence for each thing; empty if the journal has lost its beginning."""
    facts = summary.facts
    if "stable_revision" not in facts:
        return ()
    name = {key: str(facts.get(key, "unknown")) for key in ("stable_revision", "canary_revision", "service")}
    where = ", ".join(str(facts[key]) for key in ("project", "region") if facts.get(key))
    end = (
        "; with PROMOTE=1 it keeps all of it at the end"
        if facts.get("promote")
        else ", and then all of it back"
    )
    traffic = (
        f"The traffic of the Cloud Run service {name['service']}{f' ({where})' if where else ''} moves from the revision {name['stable_revision']} (stable) "
        f"to {name['canary_revision']} (canary), share by share{end}."
    )
    return (traffic, _routes(events, summary), *_comparison(summary))


def _routes(events: Sequence[TrainEvent], summary: CutoverSummary) -> str:
    """Return where the routes go: to the new service, by the name that the route-split API gives it."""
    written = (
        event.wanted for event in changes(events) if isinstance(event, RouteIntended) and _flips(event)
    )
    target = summary.facts.get("route_target") or next(filter(None, written), None)
    named = f", which the routes call {target}" if target else ""
    base_url = summary.facts.get("base_url", "unknown")
    if not summary.facts.get("apply_route_flip"):
        return f"The routes of {base_url} do not move: the run only looks if they lead to the new service{named}."
    return f"The routes of {base_url} move from the legacy service to the new service{named}."


def _flips(event: RouteIntended) -> bool:
    return event.step_id in {step_ids.FLIP, step_ids.PROMOTION}


def _comparison(summary: CutoverSummary) -> tuple[str, ...]:
    facts = summary.facts
    if not facts.get("run_dual_run"):
        return ()
    answers = facts.get("canary_revision" if facts.get("promote") else "stable_revision")
    new = f"{facts.get('base_url')} as the new service, where {answers} has all of the traffic then"
    return (f"The comparison asks {new}, and {facts.get('legacy_base_url')} as the legacy one.",)
