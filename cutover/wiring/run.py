"""``run_cutover``: runs one release train, from its configuration to its summary."""

import os
import socket
import warnings
from collections.abc import Callable
from contextlib import AsyncExitStack
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
from cutover.production.lane import COMPAT
from cutover.record.bucket_decisions import DecisionsAnywhere
from cutover.record.decisions import DecisionFile, Decisions, DecisionsOfRehearsal
from cutover.record.evidence import EvidenceFolder, make_private_folder
from cutover.record.journal import Journal
from cutover.record.lock import ServiceLock
from cutover.report.notices.delivery import Notices
from cutover.report.reporter import Reporter
from cutover.text import recover_command
from cutover.train.engine import Train
from cutover.wiring.embedded import rehearsal
from cutover.wiring.notices import notices_of
from cutover.wiring.production import Production, live
from cutover.wiring.run_state import RunState, kept, release

NOT_STARTED = 3
"""Exit code of a train that could not start."""
INTERRUPTED = 130
"""Exit code of a train that was interrupted and undone, if the caller gives no other code."""


async def run_cutover(
    config: CutoverConfig,
    *,
    observer: Observer | None = None,
    interrupted_code: Callable[[], int] = lambda: INTERRUPTED,
) -> CutoverSummary:
    """Run one release train and return its summary: a rehearsal on an embedded production, or a live train.

    If the run is cancelled, or stopped by a fault in cutover itself, it first undoes its changes, shielded from any
    cancellation, and then raises the same error again. The artifacts are written in this case too.
    A ``RuntimeWarning`` says that the journal or the evidence could not be written, or that an observer raised.

    Args:
        config: The configuration of the train; ``dry_run`` decides between a rehearsal and a live train.
        observer: Called with each train event as it happens; an observer that raises is not called again.
        interrupted_code: Called if the run is cancelled; returns the exit code for the summary.

    Returns:
        The summary; ``passed`` and ``exit_code`` hold the verdict.

    Raises:
        ConfigurationError: ``what_if`` names a fault that does not exist, a file or a command gives no token, or a variable for
            certificates or proxies cannot be used by a live train.
        NotStartedError: A train for this service is live or was never recovered, also on another machine (STATE_URL), or the run
            directory or its journal cannot be made; nothing was touched.
        UndoUnprovenError: The run was cancelled, or stopped by a fault, and its changes could not be proven undone.
    """
    production = rehearsal(config) if config.dry_run else live(config)
    return await run_production(production, observer=observer, interrupted_code=interrupted_code)


async def run_production(
    production: Production,
    *,
    observer: Observer | None = None,
    interrupted_code: Callable[[], int] = lambda: INTERRUPTED,
) -> CutoverSummary:
    """Run one release train in this production and return its summary; see ``run_cutover``."""
    notices = notices_of(production, run_directory=production.config.output_dir)
    return await notices.beside(lambda: _run_and_record(production, notices, observer, interrupted_code))


async def _run_and_record(
    production: Production,
    notices: Notices,
    observer: Observer | None,
    interrupted_code: Callable[[], int],
) -> CutoverSummary:
    """Run one release train with its lock, its journal and its artifacts, and return its summary."""
    config = production.config
    await production.tokens.read(config.needs)
    async with AsyncExitStack() as stack:
        lock = None
        if not config.dry_run and config.output_dir is not None:
            lock = stack.enter_context(production.lock().held())
        state = await stack.enter_async_context(production.state(production.run_id))
        if state is not None:
            await state.begin()
        try:
            if config.output_dir is not None:
                _create_folder(config.output_dir)
            journal = _open_journal(config.output_dir, now=production.clock.now)
        except NotStartedError:
            await release(state)
            raise
        stack.callback(journal.close)
        evidence = EvidenceFolder(root=config.output_dir, secrets=production.secrets)
        # From here on a missing artifact stops the train as a broken journal does.
        journal.evidence = evidence
        journal.copy = state.copy if state is not None else None
        reporter = Reporter(evidence=evidence, journal=journal)
        notices.events = journal.events
        journal.observers += [reporter.observe, *([observer] if observer else []), notices.observe]
        facts = {**config.facts(), "route_target": COMPAT.new_target, **_process(config)}
        journal.record(TrainStarted(run_id=production.run_id, facts=facts))
        try:
            if lock is not None and config.output_dir is not None and journal.broken is None:
                # From here on a train that is cut off can be recovered.
                lock.sign(config.output_dir, state=journal.address)
            async with kept(state):
                await _run_train(production, journal, reporter, interrupted_code, state)
        finally:
            await _end(journal, evidence, lock, state, stable=config.stable_revision)
        return fold(journal.events)


async def _end(
    journal: Journal,
    evidence: EvidenceFolder,
    lock: ServiceLock | None,
    state: RunState | None,
    *,
    stable: str,
) -> None:
    """Release the locks if nothing is open, and warn of what could not be recorded."""
    problems = []
    if state is not None and evidence.root is not None:
        problems.append(state.copy.problem(evidence.root))
    if _leaves_nothing_open(journal, stable=stable):
        problems.append(await release(state))
        if lock is not None:
            lock.close()
    for problem in (journal.broken, *problems, _missing(evidence, journal), *journal.complaints):
        if problem:
            warnings.warn(problem, RuntimeWarning, stacklevel=3)


def _leaves_nothing_open(journal: Journal, *, stable: str) -> bool:
    """Return True if no change is left to undo.

    A recovery reads the journal file, or its copy. If one of them is incomplete, every intended change counts as open, even one not sent.
    """
    if not journal.is_whole:
        return not any(isinstance(event, TrafficIntended | RouteIntended) for event in journal.events)
    return not plan_undo(journal.events, stable=stable)


async def _run_train(
    production: Production,
    journal: Journal,
    reporter: Reporter,
    interrupted_code: Callable[[], int],
    state: RunState | None,
) -> None:
    """Run the train. If the train stops before its first change and has not recorded its end, record the end here."""
    try:
        async with production.services() as services:
            train = Train(
                plan=production.plan(),
                services=services,
                undo_services=lambda: production.services(purpose="u"),
                interrupted_code=interrupted_code,
                journal=journal,
                evidence=reporter.evidence,
                decisions=_decisions(production, state),
                write_step=reporter.write_step,
                prepare_verdict=reporter.prepare_verdict,
            )
            await train.run()
    except BaseException as error:
        if not changes(journal.events) and not isinstance(journal.events[-1], TrainFinished):
            # The train could not start, so it has not recorded its end.
            failed = isinstance(error, Exception)
            why = (
                f"the train could not start: {root_cause(error)!r}"
                if failed
                else "interrupted before the train started"
            )
            code = NOT_STARTED if failed else interrupted_code()
            journal.record(TrainFinished(passed=False, exit_code=code, reasons=(why,)))
        raise


def _decisions(production: Production, state: RunState | None) -> Decisions:
    """Return the decisions that the train's holds wait for."""
    config = production.config
    if config.dry_run or config.output_dir is None:
        return DecisionsOfRehearsal(run_id=production.run_id)
    here = DecisionFile(folder=config.output_dir, run_id=production.run_id, secrets=production.secrets)
    return here if state is None else DecisionsAnywhere(here=here, anywhere=state.decisions)


def _missing(evidence: EvidenceFolder, journal: Journal) -> str:
    """Return the warning about an artifact that could not be written; empty if all were written."""
    if evidence.failed is None or evidence.root is None:
        return ""
    last = journal.events[-1]
    if isinstance(last, TrainFinished) and last.passed:
        # Its content was on the disk before the verdict; only its name could not be given. Nothing in production is wrong.
        again = recover_command(evidence.root)
        return f"{evidence.failed}; the journal holds the verdict, and the cutover is complete; to write the file: {again}"
    return evidence.failed


def _process(config: CutoverConfig) -> dict[str, object]:
    """Return where a live train runs, for whoever finds its journal without a verdict; a rehearsal leaves nothing open."""
    return {} if config.dry_run else {"process": {"host": socket.gethostname(), "pid": os.getpid()}}


def _create_folder(folder: Path) -> None:
    """Make the run directory for its owner alone, unless it exists; the folders above it are ordinary ones."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_private_folder(folder)
    except OSError as error:
        raise NotStartedError(f"OUTPUT_DIR cannot be made: {error}") from error


def _open_journal(folder: Path | None, *, now: Callable[[], float]) -> Journal:
    if folder is None:
        return Journal(now=now)
    try:
        return Journal.create(folder / "journal.jsonl", now=now)
    except OSError as error:
        raise NotStartedError(f"the journal cannot be made: {error}") from error
