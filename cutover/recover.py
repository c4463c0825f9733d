"""``recover_cutover``: finish the undo of a train that was cut off, from its journal."""

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from cutover.config import CutoverConfig
from cutover.errors import NotStartedError, PeerError
from cutover.evidence import EvidenceFolder
from cutover.journal import (
    Journal,
    Observer,
    RouteIntended,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    read_journal,
)
from cutover.production import Production, live
from cutover.report import Reporter
from cutover.state import describe_shares, shares
from cutover.steps import Peers
from cutover.undo import UndoPlan, carry_out, plan_undo

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
)


@attrs.frozen(kw_only=True)
class Recovery:
    """What became of a recovery."""

    closed: bool
    """Whether nothing is left open."""
    detail: str
    to_do: tuple[str, ...] = ()
    """What an operator must check and run, where something is."""

    @property
    def exit_code(self) -> int:
        """As the command exits: 0 closed, 4 unresolved."""
        return 0 if self.closed else 4


async def recover_cutover(
    run_directory: Path | str, *, env: Mapping[str, str] | None = None, observer: Observer | None = None
) -> Recovery:
    """Finish the undo of an interrupted train; where nothing is open, do nothing.

    Args:
        run_directory: Of the train that was cut off.
        env: Where the tokens are; the process's environment where it is None. Everything else is in the journal.
        observer: Called with each train event.

    Raises:
        NotStartedError: There is no readable journal, or another train is live.
        ConfigurationError: A token is missing.
    """
    folder = Path(run_directory)
    path = folder / "journal.jsonl"
    try:
        started = next((event for event in read_journal(path) if isinstance(event, TrainStarted)), None)
    except OSError as error:
        raise NotStartedError(f"{folder} holds no journal: {error}") from error
    if started is None or started.facts.get("dry_run"):
        return Recovery(closed=True, detail="nothing was open: it was a rehearsal, or never began")
    production = live(_config(started.facts, folder, env))
    with production.lock().held(
        recovering=folder
    ) as lock:  # before the journal is touched: its train may be live
        journal = Journal.reopen(path)
        evidence = EvidenceFolder(root=folder, secrets=production.secrets)
        journal.observers += [
            Reporter(evidence=evidence, journal=journal).observe,
            *([observer] if observer else []),
        ]
        try:
            recovery = await _recover(production, journal)
        finally:
            journal.close()
        if recovery.closed:
            lock.close()
        return recovery


def _config(facts: Mapping[str, object], folder: Path, env: Mapping[str, str] | None) -> CutoverConfig:
    given = os.environ if env is None else env
    names = ("CONTROL_ACCESS_TOKEN", "AUTH_TOKEN", "CLOUD_RUN_ACCESS_TOKEN", "ALLOW_INSECURE_HTTP")
    tokens = {name: given[name] for name in names if name in given}
    values = {name: facts[name] for name in _CONFIG_FACTS if name in facts}
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


async def _recover(production: Production, journal: Journal) -> Recovery:
    stable = production.config.stable_revision
    plan = plan_undo(journal.events, stable=stable)
    if not plan:
        return Recovery(closed=True, detail="nothing was open")
    async with production.peers(purpose="r") as peers:
        if moved_on := await _moved_on(plan, journal.events, peers):
            return Recovery(closed=False, detail=moved_on)
        journal.record(UndoStarted(reason="recovery"))
        undone = await carry_out(plan, peers, journal, service=production.plan().gcloud_service)
    journal.record(UndoFinished(proven=undone.proven, detail=undone.detail, to_do=undone.to_do))
    journal.record(TrainFinished(passed=False, exit_code=1 if undone.proven else 4, reasons=("recovered",)))
    return Recovery(closed=undone.proven, detail=undone.detail, to_do=undone.to_do)


async def _moved_on(plan: UndoPlan, events: list[TrainEvent], peers: Peers) -> str:
    """Say how production differs from everything that the train knew; empty where it does not, or cannot be read."""
    try:
        if plan.traffic is not None:
            found = await peers.traffic.read(label="recover.traffic")
            intents = [event for event in events if isinstance(event, TrafficIntended)]
            known = [plan.traffic.captured.targets, *(event.wanted for event in intents)]
            if not any(found.asks_for(targets) or found.serves(targets) for targets in known):
                captured = describe_shares(plan.traffic.captured.served())
                intended = describe_shares(shares(intents[-1].wanted, latest=found.latest_ready))
                return _three_states("traffic", captured, intended, describe_shares(found.served()))
        if plan.routes is not None:
            sample = await peers.control.sample(label="recover.routes")
            intended_values = {
                (event.key, event.wanted) for event in events if isinstance(event, RouteIntended)
            }
            for key, captured_value in plan.routes.values:
                allowed = {captured_value, None, *(value for name, value in intended_values if name == key)}
                for state, _ in sample.shares:
                    if state.get(key) not in allowed:
                        intended = ", ".join(
                            f"{name}={value or 'clear'}" for name, value in sorted(intended_values, key=str)
                        )
                        return _three_states(
                            "the routes", plan.routes.captured.describe(), intended, state.describe()
                        )
    except PeerError:
        return ""  # the undo itself reads with more patience
    return ""


def _three_states(what: str, captured: str, intended: str, found: str) -> str:
    return f"{what}: production has moved on, nothing was touched. captured: {captured}; intended: {intended}; found: {found}"
