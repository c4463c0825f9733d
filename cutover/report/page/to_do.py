"""The things that an operator must do now: what stands in the way, and the steps in their order, each with its command."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from cutover.config.gcloud_service import gcloud_service
from cutover.config.manifest import PLACE
from cutover.config.values import is_loopback
from cutover.model import step_ids
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import describe_shares, shares
from cutover.model.train_events import (
    TRAFFIC,
    Answered,
    RouteIntended,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    UndoStarted,
    changes,
)
from cutover.model.undo_plan import UndoPlan
from cutover.report.page.commands import recover
from cutover.report.page.compared import compared
from cutover.report.page.writes import refused_ways_back
from cutover.text import status_command

_COMMAND = re.compile(r"(?:cutover|(?:CLOUDSDK_\S+ )?gcloud|curl) ")
_BEFORE_A_COMMAND = re.compile(f": (?={_COMMAND.pattern})")
_REQUEST = re.compile(r"^[A-Z]+ \S+: ")
_LATER = "or, once production answers"
"""The beginning of the line that asks for a recovery."""


@attrs.frozen(kw_only=True)
class Do:
    """One step of an operator, with its command; without a command the text says all."""

    text: str
    command: str = ""


@attrs.frozen(kw_only=True)
class ToDo:
    """The things that an operator must do now, in order."""

    obstacle: str = ""
    """The reason why the run could not do it itself, in one sentence; empty if nothing is known."""
    steps: tuple[Do, ...] = ()
    """Empty if nothing is open."""


def to_do(
    events: Sequence[TrainEvent],
    summary: CutoverSummary,
    plan: UndoPlan,
    folder: Path | str | None,
    *,
    finished: bool,
) -> ToDo:
    """Return the things that an operator must do now; nothing after a rehearsal, whose production has ended with it."""
    if summary.facts.get("dry_run"):
        return ToDo()
    if summary.undo is not None and not summary.undo.proven:
        refusal, advice = _refusal(events, summary)
        steps = tuple(_in_order(summary.undo.to_do))
        first = (Do(text=f"{advice[:1].upper()}{advice[1:]}."),) if advice and steps else ()
        return ToDo(obstacle=refusal, steps=(*first, *steps))
    if plan or (not finished and events):
        return ToDo(steps=tuple(_of_a_cut_off_run(events, summary, plan, folder)))
    return ToDo()


def _in_order(lines: Iterable[str]) -> Iterable[Do]:
    """Give the lines of the undo as steps that follow one another. A command without words belongs to the check before it."""
    checked = False
    for number, line in enumerate(lines):
        text, command = _parts(line)
        if not text:
            text = "If it is not, set it" if checked else "Then run"
        elif text == _LATER:
            text = "Then let cutover prove it, and close the run" if number else "Once production answers"
        elif number == 0:
            text = text.removeprefix("or, ")
        checked = text.startswith("check that") or (checked and text == "If it is not, set it")
        yield Do(text=f"{text[:1].upper()}{text[1:]}{':' if command else ''}", command=command)


def _parts(line: str) -> tuple[str, str]:
    """Return the words of a line, and the command at its end; either may be empty."""
    if _COMMAND.match(line):
        return "", line
    found = _BEFORE_A_COMMAND.search(line)
    return (line[: found.start()], line[found.end() :]) if found else (line, "")


def _refusal(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[str, str]:
    """Return why production refused the way back, if its last answer was a refusal, and the advice of that answer."""
    began = next((number for number, event in enumerate(events) if isinstance(event, UndoStarted)), None)
    answers = [event for event in events[began:] if isinstance(event, Answered)] if began is not None else []
    if not answers or answers[-1].outcome != "refused":
        return "", ""
    reason, _, advice = answers[-1].detail.partition("; ")
    of_traffic = answers[-1].key == TRAFFIC
    count = refused_ways_back(events, summary, of_traffic=of_traffic)
    times = f"{count} times" if count > 1 else "once"
    part = "traffic" if of_traffic else "overrides"
    return f"Production refused the way back of the {part} {times}: {_REQUEST.sub('', reason)}.", advice


def _of_a_cut_off_run(
    events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan, folder: Path | str | None
) -> Iterable[Do]:
    """Give the steps for a run without a verdict: find out if it still runs, recover it; or restore the split by hand."""
    process = summary.facts.get("process")
    where = (
        f"It ran as pid {process.get('pid')} on {process.get('host')}. " if isinstance(process, dict) else ""
    )
    last = f"The last event of its journal is of {events[-1].at[:19].replace('T', ' ')} UTC. "
    look = (
        "Look there if it still runs; where it stands, from any machine:"
        if isinstance(folder, str)
        else "See if it still runs; on that host, in any folder:"
    )
    yield Do(
        text=f"{where}{last}{look}",
        command="cutover status RUN_DIR" if folder is None else status_command(folder),
    )
    undoes = any(isinstance(event, UndoStarted) for event in events)
    yield Do(
        text="If it still runs, let it end: it undoes its changes."
        if undoes
        else "If it still runs, it goes on with the shares and steps that are left. Let it, or stop it with one SIGINT to its pid: it then undoes its "
        "changes itself."
    )
    yield Do(
        text="If it does not run any more, recover it: cutover undoes what is open, and proves it:",
        command=recover(folder),
    )
    service = gcloud_service(summary.facts)
    # An API on loopback ends with its host.
    if plan.traffic is not None and not is_loopback(urlsplit(service.api_url).hostname or ""):
        wanted = plan.traffic
        served = describe_shares(shares(wanted.targets, latest=wanted.captured.latest_ready))
        yield Do(
            text=f"If you cannot reach that host, set the split by hand to {served}; a run that still lives sees that somebody else has changed it, "
            "and writes nothing over it. Recover the run later. By hand:",
            command=service.to_split(wanted.targets),
        )
        yield Do(text="See what is served then:", command=service.command("describe"))
    if any(isinstance(event, RouteIntended) for event in events) and plan.routes is not None:
        values = ", ".join(f"{key} = {value or 'clear'}" for key, value in plan.routes.values)
        yield Do(text=f"By hand, the overrides should be: {values}.")


def next_steps(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[Do, ...]:
    """Return what comes after a run that did not pass and left nothing open."""
    steps = []
    if was_moved_by_others(events):
        steps.append(_who_moved_it(events, summary))
    again = (
        "Then run the same rehearsal again"
        if summary.facts.get("dry_run")
        else "Then run the same train again"
    )
    is_open = summary.undo is not None and not summary.undo.proven
    closed = "" if is_open else " Nothing of this run is left to be undone."
    dual_run = summary.step(step_ids.DUAL_RUN)
    if summary.judged_nothing:
        steps.append(Do(text="Remove the cause that is named here; nothing is judged yet."))
    elif dual_run is not None and dual_run.status.failed:
        steps.append(Do(text=f"Mend each difference in one of the services.{_ignored(summary)}{closed}"))
    elif not steps and (not summary.closed_by_recovery or any(gate.refuses for gate in summary.gates)):
        steps.append(Do(text=f"Mend what broke before you try again.{closed}"))
    left = _in_order(summary.undo.to_do) if summary.undo is not None else ()
    return (*left, *steps, Do(text=f"{again}; its command is at the end of this page."))


def _ignored(summary: CutoverSummary) -> str:
    """Return how a manifest leaves out the differences of the first request; empty if it cannot, because no place is named."""
    for row in compared(summary):
        places = dict.fromkeys(pair.place for pair in row.differences if PLACE.fullmatch(pair.place))
        if places:
            ignored = json.dumps(list(places), ensure_ascii=False)
            return (
                " If one is meant to be, leave its place out of the comparison, in REQUESTS_FILE; "
                f'all those of {row.name}, in its entry: "ignore": {ignored}.'
            )
    return ""


def _who_moved_it(events: Sequence[TrainEvent], summary: CutoverSummary) -> Do:
    """Return the step that finds out who moved the traffic. Google's audit log knows nothing of a simulated production."""
    who = "find out who moved the traffic, and agree with them"
    service = gcloud_service(summary.facts)
    if summary.facts.get("dry_run"):
        return Do(text=f"In a live run: {who}; the audit log names the account.")
    if service.api_url:
        return Do(text=f"{who.capitalize()}. Ask those who run the Cloud Run API at {service.api_url}.")
    query = f'protoPayload.serviceName="run.googleapis.com" AND protoPayload.resourceName:"{service.name}" AND timestamp>="{events[0].at}"'
    command = shlex.join(["gcloud", "logging", "read", query, "--project", service.project])
    return Do(text=f"{who.capitalize()}; the audit log names the account:", command=command)


def was_moved_by_others(events: Sequence[TrainEvent]) -> bool:
    """Return True if the traffic came back although the run itself wrote no way back, as the undo of what is as captured."""
    asked = [event for event in changes(events) if isinstance(event, TrafficIntended)]
    last = next((event for event in reversed(events) if isinstance(event, TrafficRead)), None)
    if not asked or last is None or last.found.served() != asked[0].captured.served():
        return False
    return not asked[0].captured.splits_as(asked[0].wanted) and not any(
        event.step_id == step_ids.UNDO or (number > 0 and event.captured.splits_as(event.wanted))
        for number, event in enumerate(asked)
    )
