"""The reports that GitHub Actions shows: annotations (workflow commands) and the summary of a job's step, within their limits.

Gitea and Forgejo read the same. A report that GitHub takes is best effort: it changes no verdict.
"""

from collections.abc import Iterator, Sequence

from cutover.model.summary import CutoverSummary
from cutover.text import printable

MOST_ANNOTATIONS = 10
"""Errors, and warnings, that GitHub keeps for one step."""
MOST_SUMMARY_BYTES = 1024 * 1024
"""Bytes of the summary of one step. GitHub refuses a larger one as a whole."""
_LONGEST = 1000
"""Characters of the longest annotation."""
_IN_MESSAGE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTY = _IN_MESSAGE | str.maketrans({":": "%3A", ",": "%2C"})
_CUT = "\n\nThis summary was cut here: GitHub takes 1 MiB for a step. The whole text is SUMMARY.md in the run directory.\n"


def annotation(level: str, title: str, lines: Sequence[str]) -> str:
    """Return the workflow command of one annotation. ``level`` is ``error`` or ``warning``."""
    message = "\n".join(printable(line, _LONGEST) for line in lines).translate(_IN_MESSAGE)
    return f"::{level} title={printable(title).translate(_IN_PROPERTY)}::{message}"


def annotations(summary: CutoverSummary) -> list[str]:
    """Return the annotations of a train: errors for a run that did not pass, warnings for what a run that passed tolerated."""
    failed = [
        (f"{step.step_id}, {check.check_id}", check.detail)
        for step in summary.steps
        for check in step.checks
        if check.status.failed
    ]
    if summary.passed:
        blind = [("blind drill", "nothing showed whether the canary answered")] if summary.blind_drill else []
        return list(_bounded("warning", [*blind, *((f"tolerated: {title}", text) for title, text in failed)]))
    return [
        annotation("error", f"cutover: NO GO, exit code {summary.exit_code}", _state(summary)),
        *_bounded("error", failed, most=MOST_ANNOTATIONS - 1),
    ]


def step_summary(markdown: str, *, room: int) -> bytes:
    """Return the text for the file of a step's summary, cut at a line end to ``room`` bytes with a note; empty if nothing fits."""
    whole = (markdown.rstrip("\n") + "\n").encode()
    if len(whole) <= room:
        return whole
    kept = whole[: max(room - len(_CUT.encode()), 0)].rpartition(b"\n")[0]
    return kept + _CUT.encode() if kept else b""


def _state(summary: CutoverSummary) -> list[str]:
    """Return the reasons, the state of production and the things to do."""
    undo = summary.undo
    lines = list(summary.reasons)
    if undo is not None:
        lines.append(f"undo {'proven' if undo.proven else 'NOT PROVEN'}: {undo.detail}")
        lines += [f"DO: {line}" for line in undo.to_do]
    return lines


def _bounded(level: str, rows: Sequence[tuple[str, str]], *, most: int = MOST_ANNOTATIONS) -> Iterator[str]:
    """Give an annotation for each row; the last one counts the rows that are left out."""
    shown = rows if len(rows) <= most else rows[: most - 1]
    for title, text in shown:
        yield annotation(level, title, [text])
    if len(shown) < len(rows):
        yield annotation(level, "cutover", [f"{len(rows) - len(shown)} more are in SUMMARY.md"])
