"""The writer of a run's artifacts: while the train runs, for its verdict, and where a kill prevented them."""

from collections.abc import Sequence
from pathlib import Path

import attrs
import msgspec

from cutover.model.results import StepResult
from cutover.model.summary import fold
from cutover.model.train_events import StepFinished, TakenOver, TrainEvent, TrainFinished, UnknownEvent
from cutover.record.evidence import EvidenceFolder, StagedFile
from cutover.record.journal import Journal
from cutover.report.artifacts import all_files, step_file, step_log, step_rows, step_summary, summary_files
from cutover.report.page.document import render_page
from cutover.report.page.file_name import FILE


@attrs.define(eq=False)
class Reporter:
    """The writer of a run's artifacts. It observes the train events, and the train asks it for the files that a verdict needs.

    A file that cannot be written, for whatever reason, is noted in ``evidence.failed``; no error is raised.
    """

    evidence: EvidenceFolder
    """The folder to write to."""
    journal: Journal
    """The events of the run so far; they include the event that is being observed."""
    _prepared: tuple[TrainEvent, tuple[StagedFile, ...]] | None = None
    """The verdict that is about to be journaled, and the staged files that tell it."""
    _written_step: StepResult | None = None
    """The step whose summary was written before its event."""

    def observe(self, event: TrainEvent) -> None:
        """Write the artifacts that this event completes: those of a finished step, or those of the finished train."""
        try:
            match event:
                case StepFinished():
                    if event.result != self._written_step:
                        self._write_step_summary(event.result)
                    self._write_step_log(event.result)
                    self._write_steps()
                case TrainFinished():
                    self._publish_verdict(event)
                case _:
                    pass
        except Exception as error:  # noqa: BLE001  a fault in cutover itself costs evidence as a full disk does, and never an undo
            self.evidence.missing(_artifact_of(event), error)
        if isinstance(event, TrainFinished):
            self._write_page()

    def write_step(self, result: StepResult) -> str | None:
        """Write the summary of a step that is about to finish. Return its file, or None if it was not written."""
        named = attrs.evolve(result, artifact=step_file(result))
        try:
            written = self._write_step_summary(named)
        except Exception as error:  # noqa: BLE001  as above
            self.evidence.missing(step_file(result), error)
            written = None
        if written is not None:
            self._written_step = named
        return written

    def prepare_verdict(self, verdict: TrainEvent) -> bool:
        """Stage the files that tell this verdict; return False if any artifact of the run could not be written.

        They get their names when the verdict is in the journal: a kill before that leaves no file that says more than the journal.
        """
        self._discard_prepared()
        if self.evidence.root is None:
            return True
        try:
            files = [
                self.evidence.stage(name, content)
                for name, content in summary_files([*self.journal.events, verdict]).items()
            ]
        except Exception as error:  # noqa: BLE001  as above
            self.evidence.missing("summary.json", error)
            files = []
        self._prepared = (verdict, tuple(file for file in files if file is not None))
        if self.evidence.failed is not None:
            self._discard_prepared()
        return self.evidence.failed is None

    def complete(self) -> tuple[str, ...]:
        """Write the artifacts of a finished run that a kill has prevented; return their paths relative to the run directory.

        Without a verdict at the end of the journal nothing is written. A summary that tells an earlier verdict is written again, and with
        it every other file. So are the files of a step that was cut off and that say more than the journal.
        """
        root, events = self.evidence.root, self.journal.events
        if root is None or not _has_verdict(events):
            return ()
        summary = fold(events)
        stale = _verdict_in(root / "summary.json") != (summary.finished_at, summary.exit_code)
        finished = {event.result.step_id for event in events if isinstance(event, StepFinished)}
        written: list[str | None] = []
        try:
            files = {FILE: render_page(events, folder=root), **all_files(events)}
            for name, content in files.items():
                is_there = (root / name).exists()
                cut_off = "/" in name and name.partition("/")[0] not in finished
                differs = (
                    is_there and cut_off and (root / name).read_bytes() != self.evidence.secrets.mask(content)
                )
                if stale or differs or not is_there:
                    written.append(self.evidence.write(name, content))
        except Exception as error:  # noqa: BLE001  as above
            self.evidence.missing("summary.json", error)
        return tuple(name for name in written if name is not None)

    def _write_step_summary(self, result: StepResult) -> str | None:
        return self.evidence.write(step_file(result), step_summary(result))

    def _write_step_log(self, result: StepResult) -> None:
        self.evidence.write(f"{result.step_id}/step.log", step_log(result))

    def _write_steps(self) -> None:
        self.evidence.write("steps.jsonl", step_rows(self.journal.events))

    def _publish_verdict(self, verdict: TrainEvent) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] == verdict:
            for staged in prepared[1]:
                self.evidence.publish(staged)
            return
        for staged in prepared[1] if prepared is not None else ():
            self.evidence.discard(staged)
        for name, content in summary_files(self.journal.events).items():
            self.evidence.write(name, content)

    def _write_page(self) -> None:
        """Write ``report.html``, after the verdict: no fault of the page may change it."""
        if self.evidence.root is None:
            return
        try:
            self.evidence.write(FILE, render_page(self.journal.events, folder=self.evidence.root))
        except Exception as error:  # noqa: BLE001  as above
            self.evidence.missing(FILE, error)

    def _discard_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        for staged in prepared[1] if prepared is not None else ():
            self.evidence.discard(staged)


def _artifact_of(event: TrainEvent) -> str:
    return step_file(event.result) if isinstance(event, StepFinished) else "summary.json"


def _has_verdict(events: Sequence[TrainEvent]) -> bool:
    """Return True if nothing that counts follows the last verdict."""
    known = [event for event in events if not isinstance(event, UnknownEvent | TakenOver)]
    return bool(known) and isinstance(known[-1], TrainFinished)


def _verdict_in(path: Path) -> tuple[object, object] | None:
    """Return the time and the exit code that a ``summary.json`` tells; None if there is none to be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found.get("generated_at"), found.get("exit_code")
