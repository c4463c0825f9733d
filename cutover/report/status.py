"""The status of a run, for people and for machines."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cutover.model.holds import place
from cutover.model.run_status import RunStatus
from cutover.model.train_events import Waiting
from cutover.model.undo_policy import UNRESOLVED, closed_by_recovery
from cutover.record.lock import RunProcess
from cutover.text import decide_command, recover_command

SCHEMA = "cutover.status.v1"
"""The ``schema`` value of the JSON document. Keys may be added, but never renamed or removed."""

_FACTS = ("dry_run", "stable_revision", "canary_revision", "project", "region", "service")


def state_of(status: RunStatus, process: RunProcess | None) -> str:
    """Return the state of a run in one word.

    ``passed``, ``failed``: it has a verdict. ``running``, ``waiting``, ``undoing``: its process lives. ``killed``: the process of a live
    run has ended without a verdict. ``unknown``: a rehearsal without a verdict, which has no lock to tell.
    """
    if status.verdict is not None:
        return "passed" if status.verdict.passed else "failed"
    if process is not None and process.alive is not False:
        if status.undo_since:
            return "undoing"
        return "waiting" if status.waiting is not None else "running"
    return "unknown" if status.facts.get("dry_run", True) else "killed"


def status_lines(folder: Path | str, status: RunStatus, process: RunProcess | None) -> Iterator[str]:
    """Yield the lines that say where a run stands."""
    facts, state = status.facts, state_of(status, process)
    kind = "rehearsal" if facts.get("dry_run") else "live run"
    yield f"run       {folder}"
    yield f"train     {status.run_id or 'unknown'}: {kind} of {facts.get('canary_revision')} beside {facts.get('stable_revision')}"
    yield f"          of {facts.get('service')} in {facts.get('project')}, {facts.get('region')}; started {status.started_at}"
    yield f"state     {_of_a_recovery(status) or _WORDS[state]}"
    if process is not None:
        yield f"process   {_ALIVE[process.alive]}: {process.holder.describe()}"
    for step_id, since in status.steps:
        yield f"step      {step_id}, since {since}{_ago(since)}"
    if status.split:
        yield f"split     {status.split}, since {status.split_since}{_ago(status.split_since)}"
    if status.undo_since:
        yield f"undo      runs since {status.undo_since}{_ago(status.undo_since)}"
    if state == "waiting" and status.waiting is not None:
        yield from _wait_lines(folder, status.waiting)
    if status.verdict is not None:
        yield from _verdict_lines(folder, status)
    elif state == "killed":
        changed = "may still hold its changes" if status.open else "holds none of its changes"
        yield f"  DO      production {changed}; close the run: {recover_command(folder)}"
    elif state == "unknown":
        yield "          a rehearsal has no lock that would tell whether it still runs; it has changed nothing in production"
    yield f"latest    event at {status.latest_at}{_ago(status.latest_at)}"


_ALIVE = {
    True: "alive",
    False: "not alive",
    None: "named by the lock in STATE_URL, which cannot tell if it is alive",
}
_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "running": "running",
    "waiting": "waiting for a decision",
    "undoing": "undoing its changes",
    "killed": "KILLED: its process has ended without a verdict",
    "unknown": "without a verdict",
}


def _wait_lines(folder: Path | str, waiting: Waiting) -> Iterator[str]:
    yield f"waiting   {place(waiting.hold)}, since {waiting.at}{_ago(waiting.at)}; without a decision it undoes at {waiting.until}"
    yield f"shown     {waiting.state}"
    if waiting.decide:
        # A train with STATE_URL names the command for any machine, which needs a token.
        yield f"  DO      {decide_command(folder, shown=waiting.wait)}"
        yield "          (with stop in place of go, the train undoes its changes)"


def _of_a_recovery(status: RunStatus) -> str:
    """Return how a recovery ended, in words; empty if none did. Its verdict is the operator's deed, and judges no service."""
    verdict = status.verdict
    if verdict is None:
        return ""
    if UNRESOLVED in verdict.reasons:
        return f"UNRESOLVED: {UNRESOLVED}"
    closed = closed_by_recovery(verdict.reasons, proven=status.undo is None or status.undo.proven)
    return f"{closed}, by `cutover recover`" if closed else ""


def _verdict_lines(folder: Path | str, status: RunStatus) -> Iterator[str]:
    verdict = status.verdict
    assert verdict is not None  # noqa: S101  the caller checks it
    if UNRESOLVED in verdict.reasons:
        yield f"verdict   not closed, exit {verdict.exit_code}, at {verdict.at}"
    elif _of_a_recovery(status):
        yield f"closed    at {verdict.at}"
    else:
        yield f"verdict   {'GO' if verdict.passed else 'NO GO'}, exit {verdict.exit_code}, at {verdict.at}"
        for reason in verdict.reasons:
            yield f"reason    {reason}"
    if isinstance(folder, Path):
        yield f"evidence  {folder / 'SUMMARY.md'}"
    if status.undo is not None:
        yield f"undo      {'proven' if status.undo.proven else 'NOT PROVEN'}: {status.undo.detail}"
        for line in status.undo.to_do:
            yield f"  DO      {line}"
    if status.open and not any(
        "cutover recover" in line for line in (status.undo.to_do if status.undo else ())
    ):
        yield f"  DO      close the run: {recover_command(folder)}"


def status_document(folder: Path | str, status: RunStatus, process: RunProcess | None) -> dict[str, object]:
    """Return the same for machines."""
    waiting, verdict, undo = status.waiting, status.verdict, status.undo
    state = state_of(status, process)
    return {
        "schema": SCHEMA,
        "run_directory": str(folder.absolute()) if isinstance(folder, Path) else folder,
        "run_id": status.run_id,
        "state": state,
        **{key: status.facts.get(key) for key in _FACTS},
        "started_at": status.started_at,
        "latest_event_at": status.latest_at,
        "steps": [{"step_id": step_id, "since": since} for step_id, since in status.steps],
        "split": status.split or None,
        "split_since": status.split_since or None,
        "waiting": None
        if state != "waiting" or waiting is None
        else {
            "step_id": waiting.step_id,
            "hold": waiting.hold,
            "wait": waiting.wait,
            "state": waiting.state,
            "since": waiting.at,
            "until": waiting.until,
            "decide": decide_command(folder, shown=waiting.wait) if waiting.decide else "",
        },
        "undo": None
        if undo is None
        else {"proven": undo.proven, "detail": undo.detail, "to_do": list(undo.to_do)},
        "verdict": None
        if verdict is None
        else {
            "passed": verdict.passed,
            "exit_code": verdict.exit_code,
            "reasons": list(verdict.reasons),
            "at": verdict.at,
        },
        "process": None
        if process is None
        else {
            "alive": process.alive,
            "host": process.holder.host,
            "pid": process.holder.pid,
            "since": process.holder.since,
            "user": process.holder.user,
        },
        "recover": recover_command(folder) if state == "killed" or (verdict and status.open) else None,
    }


def _ago(at: str) -> str:
    """Return the time that has passed since a moment, in words; empty if it is none."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    except (ValueError, TypeError):
        return ""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f" ({minutes} min {rest} s ago)" if minutes else f" ({rest} s ago)"
