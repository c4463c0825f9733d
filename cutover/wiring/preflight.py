"""``preflight_cutover``: the first stage of a train alone. It asks production, changes nothing there, and keeps nothing on the disk."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutover.config.config import CutoverConfig
from cutover.config.problems import directory_problems
from cutover.model import step_ids
from cutover.model.results import StepStatus
from cutover.production.lane import COMPAT
from cutover.record.decisions import DecisionsOfRehearsal
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.report.preflight_report import PreflightReport
from cutover.text import recover_command
from cutover.train.engine import Train
from cutover.train.step_recorder import StepRecorder
from cutover.wiring.earlier_runs import unfinished_runs
from cutover.wiring.embedded import rehearsal
from cutover.wiring.production import Production, live

_LEAST_FREE = 100 << 20
"""Free bytes below which there is a warning: the evidence of a run takes a few MB, with room for other programs."""
_TRIED = bytes(64 << 10)
"""The bytes that are written to try a folder."""


async def preflight_cutover(config: CutoverConfig) -> PreflightReport:
    """Ask the production of a configuration all that a train asks before its first change, and return the report.

    With ``dry_run`` an embedded production is asked. Every request has a deadline.

    Raises:
        ConfigurationError: ``what_if`` names a fault that does not exist, a file or a command gives no token, or a variable for
            certificates or proxies cannot be used.
    """
    return await preflight_production(rehearsal(config) if config.dry_run else live(config))


async def preflight_production(production: Production) -> PreflightReport:
    """Ask this production, and return the report; see ``preflight_cutover``."""
    config = production.config
    await production.tokens.read(config.needs)
    # Without a file and a folder, the journal and the evidence stay in memory.
    journal = Journal(now=production.clock.now)
    evidence = EvidenceFolder(root=None, secrets=production.secrets)
    here = StepRecorder(step_id=step_ids.PREFLIGHT, journal=journal, evidence=evidence)
    _check_machine(production, here)
    async with production.services() as services:
        train = Train(
            plan=production.plan(),
            services=services,
            undo_services=production.services,
            # Only a train that is cancelled asks for it.
            interrupted_code=lambda: 0,
            journal=journal,
            evidence=evidence,
            # The first stage waits for nobody.
            decisions=DecisionsOfRehearsal(run_id=production.run_id),
        )
        await train.look()
    results = {result.step_id: result for result in train.results}
    facts = results[step_ids.PREFLIGHT].facts
    await _check_state(production, here, facts)
    return PreflightReport(
        config=config,
        new_target=COMPAT.new_target,
        checks=(*here.checks, *(check for result in train.results for check in result.checks)),
        captured=train.captured,
        facts=facts,
    )


def _check_machine(production: Production, recorder: StepRecorder) -> None:
    """Record the checks of this machine: the folder of the evidence, the lock of the service, and the runs that left something open."""
    config = production.config
    if config.output_dir is not None:
        _check_folder(config.output_dir, config.name_of("output_dir"), recorder)
    if config.dry_run:
        for check_id in ("lock", "earlier-runs"):
            recorder.check(
                check_id,
                StepStatus.SKIP,
                "not looked at: a rehearsal takes no lock and undoes nothing outside",
            )
        return
    obstacle = production.lock().obstacle()
    status = StepStatus.ERROR if obstacle else StepStatus.PASS
    recorder.check(
        "lock", status, obstacle or "no train of this service runs on this machine, and none was killed"
    )
    runs = unfinished_runs(config)
    detail = "no journal beside the run directory leaves a change open"
    if runs:
        commands = "; ".join(recover_command(folder) for folder in runs)
        detail = f"{len(runs)} earlier run(s) left a change open, by their journals: if none of them runs any more: {commands}"
    recorder.check("earlier-runs", StepStatus.PASS, detail, warns=bool(runs))


async def _check_state(production: Production, recorder: StepRecorder, facts: Mapping[str, Any]) -> None:
    """Record if a train could take the lock in STATE_URL and keep its journal there; nothing if the configuration names no such place."""
    async with production.state(production.run_id) as state:
        if state is None:
            return
        name = production.config.name_of("state_api_url")
        if any(each["input"] == name and not each["reached"] for each in facts["addresses"]):
            recorder.check("state", StepStatus.SKIP, f"not asked, because {name} is not reached")
            return
        obstacle = await state.lock.obstacle()
        status = StepStatus.ERROR if obstacle else StepStatus.PASS
        detail = f"no train holds the lock in {production.config.state_url}, and the token may write there"
        recorder.check("state", status, obstacle or detail)


def _check_folder(folder: Path, name: str, recorder: StepRecorder) -> None:
    """Record if the run directory can be made and written. A file without a name is written, and is gone at once; no folder is made."""
    problem, free = next(directory_problems(folder, name), ""), 0
    if not problem:
        try:
            parent = next(each for each in (folder, *folder.absolute().parents) if each.exists())
            with tempfile.TemporaryFile(dir=parent, buffering=0) as file:
                if file.write(_TRIED) != len(_TRIED):
                    problem = f"{name} cannot be written: {folder} (the disk is full)"
            free = shutil.disk_usage(parent).free
        except OSError as error:
            problem = f"{name} cannot be written: {folder} ({error})"
    if problem:
        detail = f"{problem}; set {name} to a folder that can be made and written"
        recorder.check("output", StepStatus.ERROR, detail)
        return
    detail = f"{folder} can be made and written, {free / 1e9:.1f} GB are free"
    if free < _LEAST_FREE:
        detail += f": make room, or set {name} to a folder on another disk"
    recorder.check("output", StepStatus.PASS, detail, warns=free < _LEAST_FREE)
