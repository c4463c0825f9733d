"""The gates in words: the state of each, with the unit of what it counts."""

import attrs

from cutover.model import step_ids
from cutover.model.gates import GATES, Gate
from cutover.model.results import StepStatus
from cutover.model.summary import CutoverSummary

_STEPS = {name: ids for name, ids, _ in GATES}


@attrs.frozen(kw_only=True)
class GateRow:
    """One gate. The counts are empty for a gate that counted nothing."""

    name: str
    tone: str
    state: str
    note: str
    observed: str
    allowed: str


def gate_rows(summary: CutoverSummary) -> tuple[GateRow, ...]:
    """Return the gates in their order."""
    return tuple(_row(gate, summary) for gate in summary.gates)


def _row(gate: Gate, summary: CutoverSummary) -> GateRow:
    ran = [
        step
        for step in summary.steps
        if step.step_id in _STEPS.get(gate.name, ()) and step.status is not StepStatus.SKIP
    ]
    is_cut = any(step.step_id in summary.cut_off for step in ran) and not summary.finished_at
    unit = "sentinel stream" if gate.name == "broken_streams" else "check"
    plural = "" if gate.observed_failed == 1 else "s"
    if gate.name == "broken_streams" and not gate.configured:
        state = "nothing counted" if summary.finished_at else "cut off"
        tone, note = "none", "no step has counted sentinel streams"
    elif not gate.configured:
        tone, state, note = "none", "not part of this run", ""
    elif is_cut:
        tone, state, note = "act", "cut off", f"{ran[-1].step_id} has no result"
    elif gate.holds:
        tone, state, note = "good", "holds", ""
    elif not gate.evaluated and not gate.refuses:
        done = ", ".join(f"{step.step_id} {step.status.value}" for step in ran)
        tone, state, note = (
            "none",
            "not finished" if done else "not reached",
            f"so far: {done}" if done else "",
        )
    else:
        tone, state = "bad", "does not hold"
        note = "one failure is never tolerated" if gate.intolerable else ""
    counts = gate.configured and not is_cut and bool(ran or gate.name == "broken_streams")
    return GateRow(
        name=gate.name,
        tone=tone,
        state=state,
        note=note,
        observed=f"{gate.observed_failed} {unit}{plural}" if counts else "",
        allowed=str(gate.max_failed) if counts else "",
    )


WORDS = (
    ("front door", "the public address that users call; it passes each request to a revision"),
    ("sentinel", "a stream of the run that is in flight while a change is made; if it breaks, the change broke it"),
    ("held request, held response", "a sentinel whose last byte, or whose reading, waits until the change is made"),
    ("probe", "a stream of the run that no change finds in flight: it starts before the first change, or after one"),
    ("turn", "one question of a chat with its answer, which is one stream; the counts of a canary's turns are of all shares so far"),
    ("alias", "one of the paths of the chat endpoint that is being moved"),
    ("contract", "the rules that a stream must keep, such as the order of its events; a finding names the rule that it broke"),
    ("thread", "the conversation that a stream belongs to; the logs of the service have its name"),
    ("tag URL", "an address that leads to one revision, whatever the split is"),
    ("recorded stream", "a sentinel or a probe whose course the journal keeps; the streams of the comparison are not among them"),
    ("check", "one named result of a step; it may look at many streams, at one, or at none"),
    ("smoke", "a small set of probes, before the first change and after the last one"),
    ("soak", "the time in which a share of the canary is watched"),
    ("drill", f"the step {step_ids.DRILL}: it gives the canary more and more traffic, then all of it back to stable"),
    ("train", "the whole run, with all of its steps"),
    ("revision", "one deployed version of the Cloud Run service; the split says which share of the requests each of them answers"),
    ("override", "the setting of one route: it sends the route to the new or to the legacy service; clear: the route has none, and goes where its mode says"),
    ("mode", "the setting for all routes that have no override: to which service they go"),
    ("gate", "a limit for failures; a gate that does not hold means NO GO"),
    ("hold", "a place where the run waits for the decision of an operator"),
    ("captured", "as the run found production at its beginning"),
    ("untouched", "never written by this run; it was read at the beginning"),
    ("proven", "read back from production after the last write, and as it should be"),
    ("not proven", "a change of this run may still be there"),
)  # fmt: skip
"""The words of the page, explained."""
