"""``recover_cutover``: finish the undo of an interrupted train, or undo a completed cutover, from the journal.

The module is longer than most, because one order of locks, journals and endings holds for every way to recover, and because the
configuration of an earlier run is read here from its journal.
"""

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import attrs

from cutover.config.config import TOKEN_INPUTS, CutoverConfig, secret_inputs
from cutover.config.values import is_utf8
from cutover.errors import ConfigurationError, NotStartedError
from cutover.model.train_events import (
    Observer,
    TakenOver,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
)
from cutover.model.undo_plan import UndoPlan, plan_undo
from cutover.model.undo_policy import REASONS, UNRESOLVED, RecoveryMode
from cutover.production.traffic.orphans import end_orphans
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal, read_journal
from cutover.record.lock import ServiceLock
from cutover.record.state_address import is_state_address
from cutover.report.notices.delivery import Notices
from cutover.report.reporter import Reporter
from cutover.text import recover_command
from cutover.train.stream_journal import StreamJournal
from cutover.train.undo_executor import UNDO_DEADLINE, UndoExecutor, UndoResult, seconds_until_routes_rest
from cutover.wiring.fetched_run import fetch_run
from cutover.wiring.notices import notices_of, usable_variables
from cutover.wiring.production import Production, live
from cutover.wiring.run_state import kept, release

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
    "revision_header",
    "instance_header",
    "state_url",
    "state_api_url",
)
_RECOVERY_TOKENS = tuple(
    token for token in TOKEN_INPUTS if token not in {"legacy_auth_token", "slo_prometheus_token"}
)


@attrs.frozen(kw_only=True)
class Recovery:
    """The result of a recovery."""

    closed: bool
    """True if the run leaves nothing open, so that the next train may start."""
    detail: str
    """One line for an operator: the state of production, and why."""
    to_do: tuple[str, ...] = ()
    """The things that an operator must check or run; a run that is closed may leave some too, as the canary of a promotion."""
    written: tuple[str, ...] = ()
    """The artifacts that a kill had prevented, and that this recovery wrote from the journal; relative to the run directory."""
    folder: Path | None = None
    """The run directory with the copy that a recovery from STATE_URL has made; None if the recovery was given a run directory."""

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
    local_only: bool = False,
) -> Recovery:
    """Finish the undo of an interrupted train. If nothing is open, change nothing in production.

    A recovery that is interrupted can be run again.

    Args:
        run_directory: The folder with the journal of the train; or its address in STATE_URL, ``gs://bucket/prefix/RUN``, or that of all runs,
            ``gs://bucket/prefix``, for the only one that is open. From an address, the recovery takes no file and no command that gives a
            token, and sends tokens only to Google and to BASE_URL and CLOUD_RUN_API_URL of ``env``.
        way: ``finish`` finishes the interrupted undo. ``revert`` also undoes a completed cutover. ``accept-found`` closes an
            unfinished run and changes nothing in production, even if production cannot be read. ``restore-captured``
            writes the captured state back, whatever the found state is, after a completed cutover too.
        env: The variables with the tokens that the recovery uses, their files and commands, and ALLOW_INSECURE_HTTP; None for
            the environment of the process. The rest comes from the journal, also a file or a command that gave the train a
            token, unless a variable gives this token. CONTROL_ACCESS_TOKEN is needed if routes are open; AUTH_TOKEN never is.
        observer: Called with each train event.
        local_only: True leaves out the lock and the journal in STATE_URL, for a bucket that cannot be reached.

    Returns:
        The result; ``closed`` is False if an operator must act.

    Raises:
        NotStartedError: There is no usable journal, another train or recovery is live, another train was killed and
            must be recovered first, or the bucket of STATE_URL cannot be used.
        ConfigurationError: A token that the recovery uses is missing, its file or command gives none, an input from the journal
            is wrong, the path of the run directory is not UTF-8, or a variable for certificates or proxies cannot be used.
    """
    given = os.environ if env is None else env
    if isinstance(run_directory, str) and is_state_address(run_directory):
        fetched = await fetch_run(run_directory, given)
        if isinstance(fetched, str):
            return Recovery(closed=True, detail=fetched)
        folder, events = fetched.folder, fetched.events
    else:
        fetched, folder = None, Path(run_directory)
        _refuse_other_bytes(folder)
        try:
            events = read_journal(folder / "journal.jsonl")
        except OSError as error:
            raise NotStartedError(f"{folder} holds no journal: {error}") from error
    started = next((event for event in events if isinstance(event, TrainStarted)), None)
    if started is None:
        return _recover_without_beginning(folder, way)
    if started.facts.get("dry_run"):
        evidence = EvidenceFolder(root=folder)
        written = Reporter(evidence=evidence, journal=Journal(events=events)).complete()
        if evidence.failed is not None:
            warnings.warn(evidence.failed, RuntimeWarning, stacklevel=2)
        return Recovery(closed=True, detail="nothing was open: it was a rehearsal", written=written)
    needs = _needs(_open_parts(events, stable=str(started.facts.get("stable_revision")), mode=way))
    facts = dict(started.facts) if fetched is None else fetched.trusted(started.facts)
    if local_only:
        facts["state_url"] = ""
    if facts.get("state_url"):
        needs |= {"cloud_run_access_token"}
    config = configuration_of_run(facts, folder, given, needs)
    from_bucket = fetched is not None
    recovery = await recover_production(
        live(config), folder, mode=way, observer=observer, from_bucket=from_bucket
    )
    return attrs.evolve(recovery, folder=folder if from_bucket else None)


def _refuse_other_bytes(folder: Path) -> None:
    """Raise ConfigurationError for a run directory whose path is not UTF-8."""
    whole = folder.resolve()
    if not is_utf8(whole):
        problem = (
            "RUN_DIRECTORY is a path that is not UTF-8, and the journal and the lock cannot hold such a path"
        )
        raise ConfigurationError([f"{problem}: {str(whole)!a}; rename the folder"])


async def recover_production(
    production: Production,
    folder: Path,
    *,
    mode: RecoveryMode = "finish",
    observer: Observer | None = None,
    from_bucket: bool = False,
) -> Recovery:
    """Recover a run in this production.

    Args:
        production: The production of the run.
        folder: The run directory with the journal.
        mode: See ``recover_cutover``.
        observer: See ``recover_cutover``.
        from_bucket: True if the operator named the run by its address in STATE_URL. Commands in messages then name it so too.

    Raises:
        NotStartedError: The journal cannot be read or written, another train or recovery is live, or another train was
            killed and must be recovered first.
    """
    notices = notices_of(production, run_directory=folder, recovering=True)
    return await notices.beside(
        lambda: _recover_and_record(production, folder, mode, notices, observer, from_bucket=from_bucket)
    )


async def _recover_and_record(
    production: Production,
    folder: Path,
    mode: RecoveryMode,
    notices: Notices,
    observer: Observer | None,
    *,
    from_bucket: bool,
) -> Recovery:
    """Recover a run with its lock, its journal and its artifacts."""
    await production.tokens.read(production.config.needs)
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(production.state(_run_of(folder)))
        address = state.copy.address if state is not None else ""
        # Take the lock before opening the journal: its train may still be running and writing to it.
        lock = stack.enter_context(production.lock().held(recovering=folder, state=address))
        before = await state.take_over(folder) if state is not None else None
        try:
            journal = Journal.reopen(folder / "journal.jsonl", now=production.clock.now)
        except OSError as error:
            raise NotStartedError(f"the journal in {folder} cannot be written: {error}") from error
        journal.copy = state.copy if state is not None else None
        # A full disk must not prevent a recovery.
        with contextlib.suppress(NotStartedError):
            lock.sign(folder, state=address)
        evidence = EvidenceFolder(root=folder, secrets=production.secrets)
        reporter = Reporter(evidence=evidence, journal=journal)
        notices.events = journal.events
        journal.observers += [reporter.observe, *([observer] if observer else []), notices.observe]
        if observer is not None and journal.events and isinstance(journal.events[-1], TakenOver):
            observer(journal.events[-1])
        unreleased = ""
        try:
            async with kept(state):
                if before is not None:
                    await production.clock.sleep(seconds_until_routes_rest(journal.events))
                recovery = await _recover(production, journal, address if from_bucket else folder, mode)
                recovery = attrs.evolve(recovery, written=reporter.complete())
            if not journal.is_whole:
                recovery = _unrecorded(recovery, journal, folder, mode)
            return recovery
        finally:
            journal.close()
            if journal.is_whole and not plan_undo(journal.events, stable=production.config.stable_revision):
                lock.close()
                unreleased = await release(state)
            for problem in (_lost(journal, folder), unreleased, evidence.failed, *journal.complaints):
                if problem:
                    warnings.warn(problem, RuntimeWarning, stacklevel=2)


def _run_of(folder: Path) -> str:
    """Return the name of the run whose journal a folder holds; empty if the journal has lost its beginning."""
    try:
        events = read_journal(folder / "journal.jsonl")
    except OSError as error:
        raise NotStartedError(f"{folder} holds no journal: {error}") from error
    return next((event.run_id for event in events if isinstance(event, TrainStarted)), "")


def _lost(journal: Journal, folder: Path) -> str:
    """Return the reason why the journal or its copy lacks events, or was late with one; empty if neither does."""
    return journal.broken or (journal.copy.problem(folder) if journal.copy is not None else "")


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


def _open_parts(events: Sequence[TrainEvent], *, stable: str, mode: RecoveryMode) -> UndoPlan:
    """Return the parts of production that a recovery of this journal looks at."""
    plan = plan_undo(events, stable=stable)
    if not plan and mode in {"revert", "restore-captured"}:
        # Plan as if the undo had started; the executor records the start before it changes anything.
        plan = plan_undo([*events, UndoStarted(reason=REASONS[mode])], stable=stable)
    return plan


def _needs(plan: UndoPlan) -> frozenset[str]:
    """Return the things that a recovery uses for certain: its folder, the tokens, and the program gcloud if it reads the traffic."""
    traffic = {"cloud_run_access_token", "gcloud"} if plan.traffic is not None else set()
    routes = {"control_access_token"} if plan.routes is not None else set()
    return frozenset({"output_dir"} | traffic | routes)


def configuration_of_run(
    facts: Mapping[str, object], folder: Path, env: Mapping[str, str] | None, needs: frozenset[str]
) -> CutoverConfig:
    """Return the configuration of an earlier run, from the facts in its journal and the variables that give tokens.

    Args:
        facts: The facts of ``TrainStarted``.
        folder: The run directory.
        env: The variables; None for the environment of the process.
        needs: The tokens that are needed, by field, and the program gcloud.

    Raises:
        NotStartedError: The facts name no revisions.
        ConfigurationError: A token is missing, or an input is wrong.
    """
    given = os.environ if env is None else env
    values: dict[str, Any] = {name: facts[name] for name in _CONFIG_FACTS if facts.get(name) is not None}
    if not {"stable_revision", "canary_revision"} <= values.keys():
        raise NotStartedError(f"{folder}: the journal does not say which revisions its train was for")
    stable, canary = str(values.pop("stable_revision")), str(values.pop("canary_revision"))
    variables = {name: given[name] for name in ("ALLOW_INSECURE_HTTP",) if name in given}
    variables |= usable_variables(given)
    sources = facts.get("token_sources")
    for token in _RECOVERY_TOKENS:
        fields = secret_inputs(token)
        own = {name.upper(): given[name.upper()] for name in fields if given.get(name.upper())}
        variables |= own
        if not own and isinstance(sources, dict):
            values |= {field: str(sources[field]) for field in fields[1:] if sources.get(field)}
    control = secret_inputs("control_access_token")
    if control[0] in needs and not any(variables.get(name.upper()) or values.get(name) for name in control):
        token, file, command = (name.upper() for name in control)
        lost = f"{token} is missing: without it the routes of this run cannot be read or set back; "
        raise ConfigurationError([f"{lost}set it, or {file}, or {command}"])
    return CutoverConfig.from_env(
        stable_revision=stable,
        canary_revision=canary,
        env={**variables, "DRY_RUN": "0"},
        output_dir=folder / "recovery",
        needs=needs,
        **values,
    )


async def _recover(production: Production, journal: Journal, run: Path | str, mode: RecoveryMode) -> Recovery:
    """Recover the run of this journal, and record the result in the journal."""
    stable = production.config.stable_revision
    unfinished = bool(plan_undo(journal.events, stable=stable))
    plan = _open_parts(journal.events, stable=stable, mode=mode)
    if not plan:
        return _close_without_undo(journal, run, mode)
    if left := await end_orphans(journal.events):
        return Recovery(closed=False, detail=left)
    async with production.services(purpose="r") as services:
        streams = StreamJournal(journal=journal, front_door=services.prober.base_url)
        services.prober.on_end = streams.take_unless_refused
        executor = UndoExecutor(
            services=services,
            journal=journal,
            service=production.plan().gcloud_service,
            folder=run,
            recovering=mode,
        )
        undone = UndoResult(
            proven=False,
            detail=f"the changes could not be proven undone within {UNDO_DEADLINE:g} s",
            to_do=executor.by_hand(plan),
        )
        try:
            with anyio.move_on_after(UNDO_DEADLINE):
                undone = await executor.undo(plan)
        finally:
            streams.flush()
    recovery = Recovery(closed=undone.proven, detail=undone.detail, to_do=undone.to_do)
    if unfinished or executor.begun:
        journal.record(UndoFinished(proven=recovery.closed, detail=recovery.detail, to_do=recovery.to_do))
        _conclude(journal, mode, closed=recovery.closed)
    return recovery


def _unrecorded(recovery: Recovery, journal: Journal, folder: Path, mode: RecoveryMode) -> Recovery:
    """Return the result of a recovery that could not be written to the journal, or to its copy: the run stays open."""
    options = () if mode == "finish" else (f"--{mode}",)
    first = "make room on the disk" if journal.broken is not None else "when STATE_URL can be written again"
    if journal.taken_over is not None:
        first = "when that recovery has ended"
    again = f"{first}, then run the recovery again: {recover_command(folder, *options)}"
    detail = f"{recovery.detail}; but {_lost(journal, folder)}"
    return Recovery(closed=False, detail=detail, to_do=(*recovery.to_do, again))


def _close_without_undo(journal: Journal, run: Path | str, mode: RecoveryMode) -> Recovery:
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
        detail += f": the cutover is complete; to undo it: {recover_command(run, '--revert')}"
    return Recovery(closed=True, detail=detail)


def _conclude(journal: Journal, mode: RecoveryMode, *, closed: bool) -> None:
    """Record the verdict: not passed, with the exit code 1, or 4 if the run is not closed. The summary is written then."""
    reason = REASONS[mode] if closed else UNRESOLVED
    journal.record(TrainFinished(passed=False, exit_code=1 if closed else 4, reasons=(reason,)))
