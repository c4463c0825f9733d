"""Train events made into the content of artifacts: each step's summary and log, ``steps.jsonl``, ``summary.json`` and ``SUMMARY.md``."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import attrs
import jinja2
import msgspec

from cutover.model import step_ids
from cutover.model.gates import Gate
from cutover.model.holds import Hold, place
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import BudgetRead, StepFinished, TrainEvent
from cutover.report.check_verdicts import as_document
from cutover.text import printable

SCHEMA = "openagents.webparity.production_stream_cutover.v1"
"""The ``schema`` value of the run's ``summary.json``."""
_STEP_SCHEMAS = {
    step_ids.SMOKE_PRE: "openagents.webparity.production_stream_smoke.v1",
    step_ids.SMOKE_POST: "openagents.webparity.production_stream_smoke.v1",
    step_ids.SMOKE_UNDONE: "openagents.webparity.production_stream_smoke.v1",
    step_ids.FLIP: "openagents.webparity.route_flip.v1",
    step_ids.DRILL: "openagents.webparity.canary_drill.v1",
    step_ids.PROMOTION: "openagents.webparity.canary_promotion.v1",
    step_ids.DUAL_RUN: "openagents.webparity.staging_dual_run_diff.v1",
}
_OTHER_SCHEMA = "openagents.webparity.cutover_step.v1"


def step_file(result: StepResult) -> str:
    """Return the file of a step's summary, relative to the run directory."""
    return f"{result.step_id}/summary.json"


def step_summary(result: StepResult) -> bytes:
    """Return the content of a step's ``summary.json``."""
    return _json(step_document(result))


def step_rows(events: Sequence[TrainEvent]) -> bytes:
    """Return the content of ``steps.jsonl``: one line for each finished step."""
    steps = [event.result for event in events if isinstance(event, StepFinished)]
    return b"".join(msgspec.json.encode(step_row(step)) + b"\n" for step in steps)


def summary_files(events: Sequence[TrainEvent]) -> dict[str, bytes]:
    """Return the files that tell the verdict. ``summary.json`` comes last: where it is new, all are."""
    summary = fold(events)
    return {"SUMMARY.md": render_markdown(summary).encode(), "summary.json": _json(summary_document(summary))}


def all_files(events: Sequence[TrainEvent]) -> dict[str, bytes]:
    """Return every file that is made from the events alone, ``summary.json`` last."""
    files: dict[str, bytes] = {}
    for step in fold(events).steps:
        files[step_file(step)] = step_summary(step)
        files[f"{step.step_id}/step.log"] = step_log(step)
    return {**files, "steps.jsonl": step_rows(events), **summary_files(events)}


def summary_document(summary: CutoverSummary) -> dict[str, object]:
    """Return the content of the run's ``summary.json``.

    Other programs read it: keys may be added, but never renamed or removed.
    """
    facts = summary.facts
    keys = (
        "base_url",
        "dry_run",
        "apply_route_flip",
        "stable_revision",
        "canary_revision",
        "project",
        "region",
    )
    failed = sum(step.status.failed for step in summary.steps)
    return {
        "schema": SCHEMA,
        "generated_at": summary.finished_at or datetime.now(UTC).isoformat(),
        **{key: facts.get(key) for key in (*keys, "service", "run_dual_run")},
        "gates": _gates_document(summary),
        "totals": {
            "step_count": len(summary.steps),
            "passed": sum(step.status is StepStatus.PASS for step in summary.steps),
            "failed": failed,
            "skipped": sum(step.status is StepStatus.SKIP for step in summary.steps),
        },
        "overall_status": summary.overall_status,
        "exit_code": summary.exit_code,
        "reasons": list(summary.reasons),
        "interrupted": summary.interrupted,
        "blind_drill": summary.blind_drill,
        "undo": None if summary.undo is None else _undo_document(summary),
        "holds": [_hold_document(hold) for hold in summary.holds],
        "sentinels": [_sentinel_document(tally) for tally in summary.sentinels],
        "started_at": summary.started_at,
        "steps": [step_row(step) for step in summary.steps],
    }


def step_row(step: StepResult) -> dict[str, object]:
    """Return the fields of one step that ``steps.jsonl``, the run's ``summary.json`` and the step's ``summary.json`` share."""
    return {
        "step_id": step.step_id,
        "status": step.status.value,
        "detail": step.detail,
        "artifact": step.artifact,
        "failure_count": step.failure_count,
        "recorded_at": step.recorded_at,
    }


def step_document(step: StepResult) -> dict[str, object]:
    """Return the content of one step's own ``summary.json``."""
    rows = [_check_document(check) for check in step.checks]
    passed = sum(check.status is StepStatus.PASS for check in step.checks)
    failed = sum(check.status.failed for check in step.checks)
    return {
        "schema": _STEP_SCHEMAS.get(step.step_id, _OTHER_SCHEMA),
        **step_row(step),
        "checks": rows,
        **({"steps": rows} if step.step_id == step_ids.DRILL else {}),
        "sentinels": [_sentinel_document(tally) for tally in step.sentinels],
        **step.facts,
        "totals": {"check_count": len(rows), "passed": passed, "failed": failed} | _own_totals(step),
    }


def _own_totals(step: StepResult) -> dict[str, Any]:
    """Return the totals in the facts of the step, which replace the counts of its checks; empty if there are none."""
    own = step.facts.get("totals")
    return own if isinstance(own, dict) else {}


def _gates_document(summary: CutoverSummary) -> dict[str, object]:
    gates: dict[str, object] = {gate.name: _gate_document(gate) for gate in summary.gates}
    dual = summary.step(step_ids.DUAL_RUN)
    latency = dual.facts.get("latency_ms") if dual else None
    delta = latency.get("p95_delta") if isinstance(latency, Mapping) else None
    gates["dual_run"] = _gate_document(summary.gate("dual_run")) | {"observed_p95_delta_ms": delta}
    budget = summary.facts.get("budget")
    budget = budget if isinstance(budget, Mapping) else {}
    error_budget = _gate_document(summary.gate("error_budget")) | {
        "observed_consumed_percent": budget.get("consumed_percent"),
        "max_consumed_percent": budget.get("max_consumed_percent"),
        "source": budget.get("source"),
    }
    if summary.budget_readings:
        # The last reading is the one that the verdict rests on.
        last = summary.budget_readings[-1].reading
        error_budget |= {
            "observed_consumed_percent": last.consumed_percent,
            "readings": [_reading_document(event) for event in summary.budget_readings],
        }
    gates["error_budget"] = error_budget
    return gates


def _reading_document(event: BudgetRead) -> dict[str, object]:
    return {"at": event.at, "step_id": event.step_id, "moment": event.moment, **attrs.asdict(event.reading)}


def _gate_document(gate: Gate) -> dict[str, object]:
    return {
        "observed_failed": gate.observed_failed,
        "max_failed": gate.max_failed,
        "evaluated": gate.evaluated,
        "configured": gate.configured,
        "holds": gate.holds,
    }


def _undo_document(summary: CutoverSummary) -> dict[str, object]:
    assert summary.undo is not None  # noqa: S101  the caller checks it
    return {"proven": summary.undo.proven, "detail": summary.undo.detail, "to_do": list(summary.undo.to_do)}


def _hold_document(hold: Hold) -> dict[str, object]:
    waiting, decision, check = hold.waiting, hold.decision, hold.check
    return {
        "step_id": waiting.step_id,
        "hold": waiting.hold,
        "wait": waiting.wait,
        "state": waiting.state,
        "since": waiting.at,
        "until": waiting.until,
        "answer": decision.answer if decision else None,
        "by": decision.by if decision else None,
        "because": decision.because if decision else None,
        "decided_at": decision.at if decision else None,
        "status": check.status.value if check else None,
        "detail": check.detail if check else None,
    }


def _sentinel_document(tally: SentinelTally) -> dict[str, object]:
    return {
        "change": tally.change,
        "streams": tally.streams,
        "broken": tally.broken,
        "by_chance": tally.by_chance,
        "responses": tally.responses,
        "responses_in_flight": tally.in_flight,
        "revisions": dict(tally.revisions),
        "break_rate_bound": tally.break_rate_bound,
        "details": list(tally.details),
    }


def _check_document(check: Check) -> dict[str, object]:
    document = attrs.asdict(check, filter=attrs.filters.exclude("findings", "tolerable"))
    findings = [as_document(finding) for finding in check.findings]
    return document | {"status": check.status.value, "findings": findings}


def step_log(step: StepResult) -> bytes:
    """Return the content of a step's ``step.log``: its result, its checks and their findings."""
    lines = [f"{step.recorded_at} {step.step_id} {step.status.value}: {step.detail}"]
    for check in step.checks:
        lines.append(f"{check.recorded_at} {check.check_id} {check.status.value}: {check.detail}")
        lines += [
            f"    {finding.severity.value} {finding.rule} event {finding.event_index} byte {finding.byte_offset}: {finding.message}"
            for finding in check.findings
        ]
    return ("\n".join(lines) + "\n").encode()


def _json(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


_MARKUP = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_{}[]()#+!|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)


def markdown(text: object) -> str:
    """Return a text escaped for a Markdown table cell or paragraph.

    A reader sees the text itself. The text adds no markup and cannot end its table row. White space becomes single spaces.
    """
    shown = " ".join(str(text).split())
    return printable(shown, limit=len(shown)).translate(_MARKUP)


def render_markdown(summary: CutoverSummary) -> str:
    """Return the content of ``SUMMARY.md``."""
    return _template().render(summary=summary, facts=summary.facts, place=place)


@cache
def _template() -> jinja2.Template:
    """Return the compiled template; it is compiled once, because that takes a third of a rehearsal's time."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cutover.report"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  this is Markdown: `finalize` escapes every value
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=markdown,
    )
    return environment.get_template("SUMMARY.md.jinja")
