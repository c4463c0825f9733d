"""The reports of a train to a CI server. One that cannot be written is a line on standard error, and changes no exit code."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import click

from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import TrainEvent
from cutover.report.github import MOST_SUMMARY_BYTES, annotation, annotations, step_summary
from cutover.report.terminal import Terminal


@attrs.define(eq=False, kw_only=True)
class CiReports:
    """The reports of one train. It observes the train events."""

    junit_xml: Path | None
    """The file of the JUnit report; None if none is asked for."""
    variables: Mapping[str, str] = attrs.field(factory=lambda: os.environ, repr=False)
    events: list[TrainEvent] = attrs.field(factory=list, init=False, repr=False)

    def prepare(self) -> None:
        """Empty the file of the JUnit report, so that an earlier report does not look like one of this run.

        Raises:
            click.UsageError: The package for it is missing, or the file cannot be written. Nothing has begun.
        """
        if self.junit_xml is None:
            return
        if importlib.util.find_spec("junitparser") is None:
            raise click.UsageError("--junit-xml needs junitparser: pip install 'stream-cutover[junit]'")
        try:
            self.junit_xml.write_bytes(b"")
        except OSError as error:
            raise click.BadParameter(
                f"{self.junit_xml} cannot be written ({error.strerror})", param_hint="--junit-xml"
            ) from error

    def observe(self, event: TrainEvent) -> None:
        """Keep a train event."""
        self.events.append(event)

    def write(self, terminal: Terminal, *, exit_code: int) -> None:
        """Write every report of a train that has ended, or that did not start."""
        summary = fold(self.events) if self.events else None
        for write in (self._write_junit, self._write_github):
            try:
                write(summary, terminal, exit_code)
            except Exception as error:  # noqa: BLE001  a report must not change the exit code
                terminal.line(f"a report for CI could not be written: {error}; the exit code is correct")

    def _write_junit(self, summary: CutoverSummary | None, _: Terminal, exit_code: int) -> None:
        if self.junit_xml is not None:
            from cutover.report.junit import train_junit  # noqa: PLC0415  only where it is asked for

            self.junit_xml.write_bytes(train_junit(summary, exit_code=exit_code))

    def _write_github(self, summary: CutoverSummary | None, terminal: Terminal, exit_code: int) -> None:
        if not on_github(self.variables):
            return
        if summary is None:
            if exit_code:
                terminal.command(
                    annotation("error", f"cutover: not started, exit code {exit_code}", ["the log says why"])
                )
            return
        for line in annotations(summary):
            terminal.command(line)
        if path := self.variables.get("GITHUB_STEP_SUMMARY"):
            from cutover.report.artifacts import render_markdown  # noqa: PLC0415  only where it is asked for

            with Path(path).open("ab") as file:
                room = MOST_SUMMARY_BYTES - file.tell()
                text = step_summary(render_markdown(summary), room=room)
                file.write(text)
            if not text:
                terminal.line(
                    "the summary of this step has no room left for this run; SUMMARY.md has all of it"
                )


def on_github(variables: Mapping[str, str]) -> bool:
    """Return True on GitHub Actions, and where its runner is copied."""
    return variables.get("GITHUB_ACTIONS") == "true"
