"""``recover_cutover``: finish the undo of an interrupted train, or undo a completed cutover, from the journal."""

import contextlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import attrs

from cutover.config.config import CutoverConfig
from cutover.config.values import is_utf8
from cutover.errors import ConfigurationError, NotStartedError
from cutover.model.train_events import Observer, TrainFinished, TrainStarted, UndoFinished, UndoStarted
from cutover.model.undo_plan import plan_undo
from cutover.model.undo_policy import REASONS, RecoveryMode
from cutover.production.traffic.orphans import end_orphans
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal, read_journal
from cutover.record.lock import ServiceLock
from cutover.report.reporter import Reporter
from cutover.text import recover_command
from cutover.train.undo_executor import UNDO_DEADLINE, UndoExecutor, UndoResult
from cutover.wiring.production import Production, live

_CONFIG_FACTS = (
    "base_url",
    "apply_route_flip",
    "stable_revision",
    "canary_revision",
    "project",
    "region",
    "service",
    "traffic_backend",
    "cloud_run_api_url",
    "compat_client_build_id",
    "compat_protocol_version",
    "compat_schema_version",
)


@attrs.frozen(kw_only=True)
class Recovery:
    """The result of a recovery."""

    closed: bool
    """True if the run leaves nothing open, so that the next train may start."""
    detail: str
    """One line for an operator: the state of production, and why."""
    to_do: tuple[str, ...] = ()
    """The things that an operator must check or run; empty if the run is closed."""
    written: tuple[str, ...] = ()
    """The artifacts that a kill had prevented, and that this recovery wrote from the journal; relative to the run directory."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 closed, 4 unresolved."""
        return 0 if self.closed else 4


async def recover_cutover(
    run_directory: Path | str,
    *,
    way: RecoveryMode = "finish",
    env: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> Recovery:
    """Finish the undo of an interrupted train. If nothing is open, change nothing in production.

    A recovery that is interrupted can be run again.

    Args:
        run_directory: The folder with the journal of the train.
        way: ``finish`` finishes the interrupted undo. ``revert`` also undoes a completed cutover. ``accept-found`` closes an
            unfinished run and changes nothing in production, even if production cannot be read. ``restore-captured``
            writes the captured state back, whatever the found state is, after a completed cutover too.
        env: The variables with the tokens, and ALLOW_INSECURE_HTTP; None for the environment of the process. The rest comes
            from the journal.
        observer: Called with each train event.

    Returns:
        The result; ``closed`` is False if an operator must act.

    Raises:
        NotStartedError: There is no usable journal, another train or recovery is live, or another train was killed and
            must be recovered first.
        ConfigurationError: A token is missing, an input from the journal is wrong, the path of the run directory is not
            UTF-8, or a variable for certificates or proxies cannot be used.
    """
    folder = Path(run_directory)
    _refuse_other_bytes(folder)
    try:
        events = read_journal(folder / "journal.jsonl")
        started = next((event for event in events if isinstance(event, TrainStarted)), None)
    except OSError as error:
        raise NotStartedError(f"{folder} holds no journal: {error}") from error
    if started is None:
        return _recover_without_beginning(folder, way)
    if started.facts.get("dry_run"):
        evidence = EvidenceFolder(root=folder)
        written = Reporter(evidence=evidence, journal=Journal(events=events)).complete()
        if evidence.failed is not None:
            warnings.warn(evidence.failed, RuntimeWarning, stacklevel=2)
        return Recovery(closed=True, detail="nothing was open: it was a rehearsal", written=written)
    return await recover_production(
        live(_config(started.facts, folder, env)), folder, mode=way, observer=observer
    )


def _refuse_other_bytes(folder: Path) -> None:
    """Raise ConfigurationError for a run directory whose path is not UTF-8."""
    whole = folder.resolve()
    if not is_utf8(whole):
        problem = "RUN_DIRECTORY has a path that is not UTF-8, but the journal and the lock name it"
        raise ConfigurationError([f"{problem}: {str(whole)!a}; rename the folder"])


async def recover_production(
    production: Production, folder: Path, *, mode: RecoveryMode = "finish", observer: Observer | None = None
) -> Recovery:
    """Recover a run in this production.

    Raises:
        NotStartedError: The journal cannot be read or written, another train or recovery is live, or another train was
            killed and must be recovered first.
    """
    # Take the lock before opening the journal: its train may still be running and writing to it.
    with production.lock().held(recovering=folder) as lock:
        try:
            journal = Journal.reopen(folder / "journal.jsonl", now=production.clock.now)
        except OSError as error:
            raise NotStartedError(f"the journal in {folder} cannot be written: {error}") from error
        # A full disk must not prevent a recovery.
        with contextlib.suppress(NotStartedError):
            lock.sign(folder)
        evidence = EvidenceFolder(root=folder, secrets=production.secrets)
        reporter = Reporter(evidence=evidence, journal=journal)
        journal.observers += [reporter.observe, *([observer] if observer else [])]
        try:
            recovery = await _recover(production, journal, folder, mode)
            return attrs.evolve(recovery, written=reporter.complete())
        finally:
            journal.close()
            if journal.broken is None and not plan_undo(
                journal.events, stable=production.config.stable_revision
            ):
                lock.close()
            for problem in (journal.broken, evidence.failed, *journal.complaints):
                if problem:
                    warnings.warn(problem, RuntimeWarning, stacklevel=2)


def _recover_without_beginning(folder: Path, mode: RecoveryMode) -> Recovery:
    """Recover a run whose journal has lost its first event, and with it the configuration of the train.

    Production is not read or changed. Only ``accept-found`` empties the lock of such a run.
    """
    lock = ServiceLock.left_by(folder)
    if lock is None:
        return Recovery(closed=True, detail="nothing was open: the train never began")
    if mode != "accept-found":
        return Recovery(
            closed=False,
            detail="the journal has lost its beginning, and the lock shows that its train was live: nobody knows what the train changed",
            to_do=(
                "check that production has the right traffic split and routes",
                f"then, to let the next train start: {recover_command(folder, '--accept-found')}",
            ),
        )
    with lock.held(recovering=folder):
        lock.close()
    return Recovery(
        closed=True,
        detail="the journal has lost its beginning; production was not read, and its state was accepted as it is",
    )


def _config(facts: Mapping[str, object], folder: Path, env: Mapping[str, str] | None) -> CutoverConfig:
    given = os.environ if env is None else env
    names = ("CONTROL_ACCESS_TOKEN", "AUTH_TOKEN", "CLOUD_RUN_ACCESS_TOKEN", "ALLOW_INSECURE_HTTP")
    tokens = {name: given[name] for name in names if name in given}
    values: dict[str, Any] = {name: facts[name] for name in _CONFIG_FACTS if name in facts}
    if not {"stable_revision", "canary_revision"} <= values.keys():
        raise NotStartedError(f"{folder}: the journal does not say which revisions its train was for")
    stable, canary = str(values.pop("stable_revision")), str(values.pop("canary_revision"))
    return CutoverConfig.from_env(
        stable_revision=stable,
        canary_revision=canary,
        env={**tokens, "DRY_RUN": "0"},
        output_dir=folder / "recovery",
        **values,
    )


async def _recover(production: Production, journal: Journal, folder: Path, mode: RecoveryMode) -> Recovery:
    """Recover the run of this journal, and record the result in the journal."""
    stable = production.config.stable_revision
    unfinished = bool(plan_undo(journal.events, stable=stable))
    events = journal.events
    if not unfinished and mode in {"revert", "restore-captured"}:
        # Plan as if the undo had started; the recoverer records the start before it changes anything.
        events = [*events, UndoStarted(reason=REASONS[mode])]
    plan = plan_undo(events, stable=stable)
    if not plan:
        return _close_without_undo(journal, folder, mode)
    if left := await end_orphans(journal.events):
        return Recovery(closed=False, detail=left)
    async with production.services(purpose="r") as services:
        executor = UndoExecutor(
            services=services,
            journal=journal,
            service=production.plan().gcloud_service,
            folder=folder,
            recovering=mode,
        )
        undone = UndoResult(
            proven=False,
            detail=f"the changes could not be proven undone within {UNDO_DEADLINE:g} s",
            to_do=executor.by_hand(plan),
        )
        with anyio.move_on_after(UNDO_DEADLINE):
            undone = await executor.undo(plan)
    recovery = Recovery(closed=undone.proven, detail=undone.detail, to_do=undone.to_do)
    if unfinished or executor.begun:
        journal.record(UndoFinished(proven=recovery.closed, detail=recovery.detail, to_do=recovery.to_do))
        _conclude(journal, mode, closed=recovery.closed)
    return recovery if journal.broken is None else _unrecorded(recovery, journal.broken, folder, mode)


def _unrecorded(recovery: Recovery, why: str, folder: Path, mode: RecoveryMode) -> Recovery:
    """Return the result of a recovery that could not be written to the journal: the run stays open."""
    options = () if mode == "finish" else (f"--{mode}",)
    again = f"make room on the disk, then run the recovery again: {recover_command(folder, *options)}"
    return Recovery(closed=False, detail=f"{recovery.detail}; but {why}", to_do=(*recovery.to_do, again))


def _close_without_undo(journal: Journal, folder: Path, mode: RecoveryMode) -> Recovery:
    """Close a run that needs no undo.

    If the train was cut off before its verdict, record the verdict here, so that the run gets a summary.
    """
    closings = [
        event for event in journal.events if isinstance(event, UndoStarted | UndoFinished | TrainFinished)
    ]
    if not closings or not isinstance(closings[-1], TrainFinished):
        _conclude(journal, "finish", closed=True)
    detail = "nothing was open"
    passed = any(isinstance(event, TrainFinished) and event.passed for event in closings[-1:])
    if passed and mode == "finish":
        detail += f": the cutover is complete; to undo it: {recover_command(folder, '--revert')}"
    recovery = Recovery(closed=True, detail=detail)
    return recovery if journal.broken is None else _unrecorded(recovery, journal.broken, folder, mode)


def _conclude(journal: Journal, mode: RecoveryMode, *, closed: bool) -> None:
    """Record the verdict: not passed, with the exit code 1, or 4 if the run is not closed. The summary is written then."""
    journal.record(TrainFinished(passed=False, exit_code=1 if closed else 4, reasons=(REASONS[mode],)))
