"""A run that is fetched from the bucket of STATE_URL to this machine, to recover it here.

Whoever may write to the bucket may write a journal. So nothing in it decides where a token goes, or which program runs: a recovery takes its
tokens from this machine's own variables, and sends them only to Google and to addresses that these variables name too.
"""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import httpx

from cutover.config.config import RUNS, CutoverConfig, secret_inputs
from cutover.config.values import is_google, parse_url
from cutover.errors import ConfigurationError, NotStartedError, PeerError
from cutover.http.outbound import Outbound
from cutover.model.train_events import TrainEvent, TrainStarted
from cutover.record.bucket import Bucket
from cutover.record.evidence import write_atomically
from cutover.record.journal import parse_journal
from cutover.record.state_address import StateAddress
from cutover.record.state_lock import StateHolder, holder_of
from cutover.text import printable, recover_command
from cutover.wiring.production import live
from cutover.wiring.run_state import LOCKS, journal_copy

_INPUTS = ("STATE_API_URL", "ALLOW_INSECURE_HTTP")
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=20)
_MOST_LOCKS = 100


@attrs.frozen(kw_only=True)
class FetchedRun:
    """A run whose journal was copied to this machine."""

    folder: Path
    """The new run directory with the journal."""
    events: list[TrainEvent]
    state_api_url: str
    """The API that gave the journal."""

    def trusted(self, facts: Mapping[str, object]) -> dict[str, object]:
        """Return the facts of the run that a recovery may use."""
        own = {name: value for name, value in facts.items() if name != "token_sources"}
        return {**own, "state_api_url": self.state_api_url}


async def fetch_run(text: str, given: Mapping[str, str]) -> FetchedRun | str:
    """Fetch a run to a new run directory; return a sentence if there is none to recover.

    Args:
        text: The address of the run, or of all runs.
        given: The variables of this machine.

    Raises:
        ConfigurationError: The address is wrong, or a variable is, or lacks.
        NotStartedError: The bucket cannot be read, holds no such run, or several runs are open.
    """
    try:
        address = StateAddress.parse(text)
    except ValueError as error:
        raise ConfigurationError([f"RUN_DIRECTORY {error}"]) from error
    runs = address.parent if address.run else address
    async with opened_bucket(runs, given) as bucket:
        try:
            locks = [] if address.run else await holders_in(bucket, runs)
            if not address.run and not locks:
                return await _nothing_open(bucket, runs)
            run = address.run or _only(locks, runs)
            lines = await journal_copy(bucket, runs, run).lines()
            if not lines:
                return await _never_began(bucket, runs, run)
        except PeerError as error:
            raise NotStartedError(f"the state in {address} cannot be read: {error}") from error
    data = b"".join(line + b"\n" for line in lines)
    events = parse_journal(data, runs.of_run(run))
    if problems := list(_problems(events, runs, run, given)):
        raise ConfigurationError(problems)
    folder = RUNS / f"{run}-recovery-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    try:
        write_atomically(folder / "journal.jsonl", data)
    except OSError as error:
        raise NotStartedError(
            f"a copy of the journal cannot be written to {folder}: {error}; nothing was changed; run the recovery in a folder that you may "
            "write to"
        ) from error
    return FetchedRun(folder=folder, events=events, state_api_url=bucket.api_url)


@asynccontextmanager
async def opened_bucket(runs: StateAddress, given: Mapping[str, str]) -> AsyncIterator[Bucket]:
    """Give the bucket of an address, with the token and the client that the variables of this machine name.

    Raises:
        ConfigurationError: A variable is wrong, or lacks.
    """
    production = live(_access(runs, given))
    await production.tokens.read(production.config.needs)
    async with production.new_client(_LIMITS) as client:
        yield Bucket(
            outbound=Outbound(client=client, clock=production.clock, secrets=production.secrets),
            api_url=production.config.state_api_url,
            name=runs.bucket,
            token=production.tokens.state,
        )


def _access(runs: StateAddress, given: Mapping[str, str]) -> CutoverConfig:
    """Return a configuration for the bucket alone. No train runs with it, so its revisions are only words."""
    names = (*_INPUTS, *(name.upper() for name in secret_inputs("cloud_run_access_token")))
    variables = {name: given[name] for name in names if given.get(name)}
    return CutoverConfig.from_env(
        stable_revision="stable",
        canary_revision="canary",
        env={**variables, "DRY_RUN": "0", "STATE_URL": str(runs)},
        needs=frozenset({"cloud_run_access_token"}),
    )


async def holders_in(bucket: Bucket, runs: StateAddress) -> list[StateHolder]:
    """Return the holders of all locks."""
    names = await bucket.names(runs.below(LOCKS, ""), label="state.locks")
    found = [(name, await bucket.read(name, label="state.lock.read")) for name in names[:_MOST_LOCKS]]
    # A lock that is gone by now was released.
    return [holder_of(stored.content, name, runs) for name, stored in found if stored is not None]


async def _nothing_open(bucket: Bucket, runs: StateAddress) -> str:
    """Return the sentence about an address where runs were, and none holds a lock.

    Raises:
        NotStartedError: There was never a run, so the address is likely a wrong one.
    """
    folders = await bucket.folders(runs.below(""), label="state.runs")
    if not any(StateAddress(runs.bucket, folder.rstrip("/")).run for folder in folders):
        raise NotStartedError(f"{runs} holds no run; check that address against STATE_URL of the train")
    return f"nothing was open: no train holds a lock in {runs}"


def _only(locks: list[StateHolder], runs: StateAddress) -> str:
    """Return the run of the only lock.

    Raises:
        NotStartedError: There are several; the message names each with its command.
    """
    if len(locks) == 1 and StateAddress("any", locks[0].run).run:
        return locks[0].run
    shown = (
        f"{printable(each.service)} ({each.describe()}): {recover_command(runs.of_run(printable(each.run)))}"
        for each in locks
    )
    raise NotStartedError(
        f"{runs} holds {len(locks)} locks, so name the run; nothing was changed; {'; '.join(shown)}"
    )


async def _never_began(bucket: Bucket, runs: StateAddress, run: str) -> str:
    """Release the lock of a run that has journaled nothing, and so has changed nothing; return that in words.

    Raises:
        NotStartedError: No lock names this run, so there is no such run.
    """
    for name in await bucket.names(runs.below(LOCKS, ""), label="state.locks"):
        found = await bucket.read(name, label="state.lock.read")
        if found is not None and holder_of(found.content, name, runs).run == run:
            await bucket.delete(name, generation=found.generation, label="state.lock.release")
            return "nothing was open: the train never began, and its lock is released"
    raise NotStartedError(
        f"{runs.of_run(run)} holds no journal; `cutover recover {runs}` finds the run that is open"
    )


def _problems(
    events: list[TrainEvent], runs: StateAddress, run: str, given: Mapping[str, str]
) -> Iterator[str]:
    """Give the problems of a journal that tells a recovery where to send tokens."""
    started = next((event for event in events if isinstance(event, TrainStarted)), None)
    facts: Mapping[str, object] = started.facts if started is not None else {}
    if started is None or started.run_id != run or str(facts.get("state_url")).rstrip("/") != str(runs):
        yield f"the journal in {runs.of_run(run)} is damaged, or of another run; check production by hand"
        return
    for name in ("BASE_URL", "CLOUD_RUN_API_URL", "STATE_API_URL"):
        url = facts.get(name.lower())
        if (name != "BASE_URL" and is_google(str(url))) or parse_url(given.get(name, "")) == url:
            continue
        shown = printable(str(url))
        yield (
            f"{name} must confirm where tokens are sent: the journal in {runs.of_run(run)} names {shown}, and {name} "
            f"{'is ' + given[name] if given.get(name) else 'is not set'}; if that address is yours, set {name}={shown}"
        )
