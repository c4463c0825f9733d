"""The report of `cutover preflight`: as lines for an operator, as one JSON document for a script."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.config.config import INPUTS, CutoverConfig
from cutover.model.courses import Course, State, override_courses, tag_course, traffic_course
from cutover.model.results import Check, StepStatus
from cutover.model.traffic_state import describe_shares
from cutover.report.configuration import describe_inputs, source_of, value_of
from cutover.train.steps.preflight import Captured
from cutover.train.steps.route_flip import wanted_routes

SCHEMA = "cutover.preflight.v1"
"""The name of the JSON document. A new key keeps the name; a key that goes, or gets another meaning, needs a new one."""
EXIT_FAILED = 3
"""Exit code of a preflight with a line that failed: a train would end with it as well, before it changes anything."""
_ORDER = (
    "output", "lock", "earlier-runs",
    "address-base-url", "address-cloud-run-api-url", "address-legacy-base-url", "address-state-api-url", "clock", "state",
    "routes", "permission-routes", "traffic", "permission-traffic", "ingress", "revision-stable", "revision-canary", "canary-evidence",
    "token-control", "token-auth", "token-cloud-run", "token-legacy",
)  # fmt: skip
"""The order of the lines, by the id of the check. Other checks follow as they came."""


@attrs.frozen(kw_only=True)
class PreflightReport:
    """The checks of a preflight, and the state of production that it read."""

    config: CutoverConfig
    new_target: str
    """The override that the flip sets."""
    checks: tuple[Check, ...]
    captured: Captured
    facts: Mapping[str, Any]
    """The facts of the train's preflight step, ready for JSON."""

    @property
    def exit_code(self) -> int:
        """The exit code: 0 if no line failed, else 3."""
        return EXIT_FAILED if any(check.status.failed for check in self.checks) else 0

    @property
    def lines(self) -> Sequence[Check]:
        """The checks in the order of the report."""
        return sorted(self.checks, key=_rank)

    def count(self, word: str) -> int:
        """Return the number of lines with this status."""
        return sum(status_of(check) == word for check in self.checks)


def status_of(check: Check) -> str:
    """Return the status of a line: ``ok``, ``warn``, ``fail``, or ``skip`` if nothing was asked."""
    if check.status.failed:
        return "fail"
    if check.status is StepStatus.SKIP:
        return "skip"
    return "warn" if check.warns else "ok"


def as_lines(report: PreflightReport) -> Iterator[str]:
    """Give the lines of the report: the inputs, the checks, the states, the verdict."""
    config = report.config
    live = (
        "a rehearsal on an embedded production; production was not asked"
        if config.dry_run
        else "live, read-only"
    )
    yield f"preflight {config.stable_revision} -> {config.canary_revision}: {live}"
    yield "inputs"
    yield from (f"  {line.rstrip()}" for line in describe_inputs(config))
    yield "checks"
    width = max(len(check.check_id) for check in report.checks)
    for check in report.lines:
        yield f"  {status_of(check):4}  {check.check_id:{width}}  {check.detail}"
    yield "state     restored: what an undo puts back; the drill itself puts traffic and tags back"
    yield from (f"  {line}" for line in _states(report))
    counts = ", ".join(f"{report.count(word)} {word}" for word in ("ok", "warn", "fail", "skip"))
    if report.exit_code:
        verdict = "a train would stop before its first change: mend the lines that fail"
    elif config.dry_run:
        verdict = "the rehearsal shows nothing about production: for that, do not set " + config.source_of(
            "dry_run"
        ).set_to(value=True)
    else:
        verdict = "a train may start" + (": read the warnings first" if report.count("warn") else "")
    yield f"verdict   {counts}, exit {report.exit_code}: {verdict}"


def as_json(report: PreflightReport) -> bytes:
    """Return the report as one JSON document on one line."""
    config = report.config
    document = {
        "schema": SCHEMA,
        "generated_at": utc_now(),
        "live": not config.dry_run,
        "ok": report.exit_code == 0,
        "exit_code": report.exit_code,
        "stable_revision": config.stable_revision,
        "canary_revision": config.canary_revision,
        "counts": {word: report.count(word) for word in ("ok", "warn", "fail", "skip")},
        "inputs": [
            {"input": each.field, "value": value_of(each, config), "source": source_of(each, config)}
            for each in INPUTS
        ],
        "checks": [
            {
                "check_id": check.check_id,
                "status": status_of(check),
                "detail": check.detail,
                "endpoint": check.endpoint,
            }
            for check in report.lines
        ],
        "addresses": report.facts.get("addresses", []),
        "evidence": report.facts.get("evidence"),
        "state": _state_document(report),
    }
    return msgspec.json.encode(document)


def _state_document(report: PreflightReport) -> dict[str, object]:
    traffic, tags, overrides = _courses(report)
    return {
        "traffic": None if traffic is None else attrs.asdict(traffic),
        "tags": None if tags is None else attrs.asdict(tags),
        "overrides": None
        if overrides is None
        else {key: attrs.asdict(course) for key, course in overrides.items()},
    }


def _states(report: PreflightReport) -> Iterator[str]:
    """Give the lines of each part of production: its state now, the states that the train plans, the state that an undo restores."""
    traffic, tags, overrides = _courses(report)
    if traffic is None or tags is None:
        yield "traffic: not known, because it was not read"
    else:
        rows = [("now", traffic.current), *(("planned", state) for state in traffic.planned)]
        for when, state in (*rows, ("restored", traffic.restored)):
            yield f"traffic {when:8}  {describe_shares(dict(state))}"
        yield _line("tags", tags, lambda found: _listed(found) or "none")
    if overrides is None:
        yield "overrides: not known, because they were not read"
        return
    for key, course in overrides.items():
        yield _line(f"override {key}", course, lambda target: target or "clear")


def _listed(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{tag}={revision}" for tag, revision in tags.items())


def _line(part: str, course: Course[State], words: Callable[[State], str]) -> str:
    """Return one line for a part with short states."""
    if not course.planned:
        return f"{part}: {words(course.current)}, not changed by the train"
    planned = " -> ".join(words(state) for state in course.planned)
    return f"{part}: now {words(course.current)}; planned {planned}; restored {words(course.restored)}"


def _courses(
    report: PreflightReport,
) -> tuple[
    Course[Mapping[str, int]] | None,
    Course[Mapping[str, str]] | None,
    Mapping[str, Course[str | None]] | None,
]:
    """Return the courses of the split, of the tags and of the overrides; None for what was not read."""
    config, captured = report.config, report.captured
    traffic = tags = overrides = None
    if captured.traffic is not None:
        traffic = traffic_course(
            captured.traffic,
            stable=config.stable_revision,
            canary=config.canary_revision,
            percents=config.canary_steps,
            promoted=config.promote,
        )
        given = config.canary_tag if captured.evidence.gives_tag else None
        tags = tag_course(captured.traffic, canary=config.canary_revision, given=given)
    if captured.routes is not None:
        wanted = dict(wanted_routes(captured.routes, report.new_target)) if config.apply_route_flip else None
        overrides = override_courses(captured.routes, wanted)
    return traffic, tags, overrides


def _rank(check: Check) -> int:
    """Return the place of a check in the report."""
    return _ORDER.index(check.check_id) if check.check_id in _ORDER else len(_ORDER)
