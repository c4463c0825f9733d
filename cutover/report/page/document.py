"""The document ``report.html``, rendered from the train events.

It has no script and loads nothing: its policy allows one style sheet, by its hash. Every text is made printable and escaped, because most
of it came off the wire. The same events give the same bytes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from cutover.model import step_ids
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import TrainEvent, TrainFinished
from cutover.model.undo_plan import plan_undo
from cutover.report.page.commands import commands
from cutover.report.page.compared import compared
from cutover.report.page.counted import counted
from cutover.report.page.courses import courses
from cutover.report.page.gate_rows import WORDS, gate_rows
from cutover.report.page.moved import what_moves
from cutover.report.page.permissions import permissions
from cutover.report.page.production_state import route_rows, routes_state, traffic_state
from cutover.report.page.quotes import quotes
from cutover.report.page.spans import streams_of
from cutover.report.page.story import tell
from cutover.report.page.timeline import timeline
from cutover.report.page.users import had_by_users
from cutover.text import printable

_FACTS = ("base_url", "service", "project", "region", "stable_revision", "canary_revision")
_LONGEST = 2000
"""Largest number of characters of one text on the page."""


def render_page(events: Sequence[TrainEvent], *, folder: Path | str | None = None) -> bytes:
    """Return the content of ``report.html``.

    Args:
        events: The events of the run, also of one that was cut off.
        folder: The run directory, or the address of the run in STATE_URL, for the commands. None: they say RUN_DIR.
    """
    summary = fold(events)
    plan = plan_undo(events, stable=str(summary.facts.get("stable_revision")))
    broken = next((stream for stream in streams_of(events) if not stream.ok), None)
    shown, more_quotes = quotes(events, summary)
    finished = any(isinstance(event, TrainFinished) for event in events)
    style = _style()
    text = _template().render(
        style=Markup(style),  # noqa: S704  the sheet is part of this package
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        summary=summary,
        facts={name: summary.facts.get(name, "unknown") for name in _FACTS},
        rehearsed=bool(summary.facts.get("dry_run")),
        budget=_budget(summary),
        gates=gate_rows(summary),
        words=WORDS,
        counted=counted(events, summary),
        story=tell(events, summary, plan, folder),
        parts=(traffic_state(events, summary, plan), routes_state(events, summary, plan)),
        moves=what_moves(events, summary),
        users=had_by_users(events, summary, plan),
        permissions=permissions(events, summary),
        timeline=timeline(events, summary),
        courses=courses(events, summary),
        quotes=shown,
        more_quotes=more_quotes,
        routes=route_rows(events, summary),
        comparison=summary.step(step_ids.DUAL_RUN),
        compared=compared(summary),
        commands=commands(summary, plan, broken, folder=folder, is_finished=finished),
    )
    return text.encode("utf-8", "backslashreplace")


def _budget(summary: CutoverSummary) -> str:
    """Return the figure that the train began with, in words; empty without one."""
    budget = summary.facts.get("budget")
    if not isinstance(budget, Mapping) or "consumed_percent" not in budget:
        return ""
    consumed, allowed, source = (
        budget.get(name) for name in ("consumed_percent", "max_consumed_percent", "source")
    )
    return f"Error budget at the start: {consumed} % consumed, {allowed} % allowed, source: {source}."


def _safe(value: object) -> object:
    """Return a text without a sign that could change how the page reads, such as a control or a change of direction."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(value, _LONGEST)


@cache
def _style() -> str:
    return (resources.files("cutover.report") / "templates" / "report.css").read_text("utf-8").strip()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cutover.report"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_safe,
    )
    return environment.get_template("report.html.jinja")
