"""``run_cutover``: one release train from its configuration to its summary."""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cutover.config.config import CutoverConfig
from cutover.errors import NotStartedError, root_cause
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import (
    Observer,
    RouteIntended,
    TrafficIntended,
    TrainFinished,
    TrainStarted,
    changes,
)
from cutover.model.undo_plan import plan_undo
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.report.artifacts import Reporter
from cutover.train.engine import Train
from cutover.wiring.embedded import rehearsal
from cutover.wiring.production import Production, live

NO_EVIDENCE = 3
"""Exit code of a train that could not begin."""
INTERRUPTED = 130
"""Exit code of a train that was interrupted, and undone, where nobody says by what."""


async def run_cutover(
    config: CutoverConfig,
    *,
    observer: Observer | None = None,
    interrupted_code: Callable[[], int] = lambda: INTERRUPTED,
) -> CutoverSummary:
    """Run one release train: a rehearsal on an embedded production, or live.

    Args:
        config: What to cut over, and how carefully.
        observer: Called with each train event as it happens; one that raises is not called again.
        interrupted_code: Asked when the run is cancelled: the exit code that says by what, for the summary to hold.

    Returns:
        What was done, found and decided; ``passed`` and ``exit_code`` hold the verdict.

    Raises:
        ConfigurationError: ``what_if`` names a fault that there is not.
        NotStartedError: A train for this service is live or was never recovered, or the run directory cannot be made;
            nothing was touched.
        UndoUnprovenError: The run was cancelled, and what had been applied could not be proven undone.

    Cancellation is undone first, shielded, and raised again; the artifacts are there all the same.
    """
    production = rehearsal(config) if config.dry_run else live(config)
    return await run_production(production, observer=observer, interrupted_code=interrupted_code)


async def run_production(
    production: Production,
    *,
    observer: Observer | None = None,
    interrupted_code: Callable[[], int] = lambda: INTERRUPTED,
) -> CutoverSummary:
    """Run one release train against these services."""
    config = production.config
    with ExitStack() as stack:
        lock = None
        if not config.dry_run and config.output_dir is not None:
            lock = stack.enter_context(production.lock().held())
        if config.output_dir is not None:
            _make(config.output_dir)
        journal = _open_journal(config.output_dir)
        stack.callback(journal.close)
        evidence = EvidenceFolder(root=config.output_dir, secrets=production.secrets)
        journal.observers += [
            Reporter(evidence=evidence, journal=journal).observe,
            *([observer] if observer else []),
        ]
        journal.record(TrainStarted(run_id=production.run_id, facts=config.facts()))
        if lock is not None and config.output_dir is not None and journal.broken is None:
            lock.sign(config.output_dir)  # from here on a train that is cut off can be recovered
        try:
            await _ride(production, journal, evidence, interrupted_code)
        finally:
            if lock is not None and _closed(journal, stable=config.stable_revision):
                lock.close()
            for problem in (journal.broken, evidence.failed, *journal.complaints):
                if problem:
                    warnings.warn(problem, RuntimeWarning, stacklevel=2)
        return fold(journal.events)


def _closed(journal: Journal, *, stable: str) -> bool:
    """Whether nothing is open, also by what is on disk: for that is what a recovery would go by."""
    if journal.broken is not None:
        return not any(isinstance(event, TrafficIntended | RouteIntended) for event in journal.events)
    return not plan_undo(journal.events, stable=stable)


async def _ride(
    production: Production, journal: Journal, evidence: EvidenceFolder, interrupted_code: Callable[[], int]
) -> None:
    try:
        async with production.services() as services:
            train = Train(
                plan=production.plan(),
                services=services,
                undo_services=lambda: production.services(purpose="u"),
                interrupted_code=interrupted_code,
                journal=journal,
                evidence=evidence,
            )
            await train.run()
    except BaseException as error:
        if not changes(journal.events) and not isinstance(journal.events[-1], TrainFinished):
            # before the train could be armed
            failed = isinstance(error, Exception)
            why = f"it could not begin: {root_cause(error)!r}" if failed else "interrupted at its start"
            code = NO_EVIDENCE if failed else interrupted_code()
            journal.record(TrainFinished(passed=False, exit_code=code, reasons=(why,)))
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotStartedError(f"OUTPUT_DIR cannot be made: {error}") from error


def _open_journal(folder: Path | None) -> Journal:
    if folder is None:
        return Journal()
    try:
        return Journal.create(folder / "journal.jsonl")
    except OSError as error:
        raise NotStartedError(f"the journal cannot be made: {error}") from error
