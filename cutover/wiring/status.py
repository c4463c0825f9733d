"""The status of a run: its journal and its lock, read and never changed, also while its train runs."""

import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

from cutover.config.config import RUNS
from cutover.errors import ConfigurationError, NotStartedError, PeerError
from cutover.model.run_status import RunStatus, run_status
from cutover.model.train_events import TrainEvent
from cutover.record.earlier_runs import newest_run
from cutover.record.journal import parse_journal, read_journal
from cutover.record.journal_copy import JournalCopy
from cutover.record.lock import Holder, RunProcess, process_of
from cutover.record.lock_file import user_name
from cutover.record.state_address import StateAddress
from cutover.text import printable
from cutover.wiring.fetched_run import holders_in, opened_bucket
from cutover.wiring.run_state import journal_copy


@attrs.frozen(kw_only=True)
class RunView:
    """The status of a run, its folder and its process."""

    folder: Path | str
    """The run directory, or the address of the run in STATE_URL."""
    status: RunStatus
    process: RunProcess | None
    """The process that a lock of this machine names for the run; None if none does, as for a rehearsal."""


def look_at(run_directory: Path) -> RunView:
    """Return the status of the run in a folder.

    Raises:
        ConfigurationError: The folder holds no run, or it cannot be read.
        NotStartedError: The locks cannot be read.
    """
    # The lock first: a train that ends between the two reads has its verdict in the journal then.
    process = process_of(run_directory)
    return RunView(folder=run_directory, status=run_status(read_run(run_directory)), process=process)


async def look_in_bucket(text: str, given: Mapping[str, str]) -> RunView:
    """Return the status of the run at an address in STATE_URL.

    Args:
        text: The address.
        given: The variables with the token for the bucket.

    Raises:
        ConfigurationError: It is no address of a run, or a variable is wrong or lacks.
        NotStartedError: There is no such run, or the bucket cannot be read.
    """
    address = run_address(text)
    async with opened_bucket(address.parent, given) as bucket:
        try:
            holders = await holders_in(bucket, address.parent)
        except PeerError as error:
            raise NotStartedError(f"the locks in {address.parent} cannot be read: {error}") from error
        events = await read_copy(journal_copy(bucket, address.parent, address.run))
    held = next((holder for holder in holders if holder.run == address.run), None)
    process = None
    if held is not None:
        holder = Holder(
            host=held.host, pid=held.pid, since=held.since, run_directory=str(address), user=held.user
        )
        process = RunProcess(holder=holder, alive=None)
    return RunView(folder=str(address), status=run_status(events), process=process)


async def fetch_events(address: StateAddress, given: Mapping[str, str]) -> list[TrainEvent]:
    """Return the events of the run at an address in STATE_URL, with the token for the bucket in these variables.

    Raises:
        ConfigurationError: A variable is wrong or lacks.
        NotStartedError: There is no such run, or the bucket cannot be read.
    """
    async with opened_bucket(address.parent, given) as bucket:
        return await read_copy(journal_copy(bucket, address.parent, address.run))


async def read_copy(copy: JournalCopy) -> list[TrainEvent]:
    """Return the events of a run in STATE_URL.

    Raises:
        NotStartedError: There are none, or they cannot be read.
    """
    try:
        lines = await copy.lines()
    except PeerError as error:
        raise NotStartedError(f"{copy.address} cannot be read: {error}") from error
    if not lines:
        raise NotStartedError(f"{copy.address} holds no run")
    return parse_journal(b"".join(line + b"\n" for line in lines), copy.address)


def run_address(text: str) -> StateAddress:
    """Return the address of a run in a bucket.

    Raises:
        ConfigurationError: It is not such an address.
    """
    try:
        address = StateAddress.parse(text)
    except ValueError as error:
        raise ConfigurationError([f"RUN_DIRECTORY {error}"]) from error
    if not address.run:
        raise ConfigurationError([f"RUN_DIRECTORY must name one run, such as {address}/RUN, not {address}"])
    return address


def latest_run(variables: Mapping[str, str]) -> Path:
    """Return the run directory that OUTPUT_DIR names; without it the newest one in the folder of runs.

    Raises:
        ConfigurationError: There is none.
    """
    if given := variables.get("OUTPUT_DIR"):
        return Path(given)
    if (found := newest_run(RUNS)) is None:
        problem = f"there is no run in {RUNS} (seen from this folder), and OUTPUT_DIR is not set"
        raise ConfigurationError([f"{problem}: name the run directory, as `cutover run` printed it"])
    return found


def read_run(run_directory: Path) -> list[TrainEvent]:
    """Return the events of the run in a folder.

    Raises:
        ConfigurationError: The folder holds no run, or its journal cannot be read.
    """
    path = run_directory / "journal.jsonl"
    shown = printable(str(run_directory), 1000)
    try:
        return read_journal(path)
    except FileNotFoundError:
        raise ConfigurationError(
            [f"{shown} is no run directory: it has no journal.jsonl; `cutover run` names the run directory"]
        ) from None
    except PermissionError:
        owner = f", it belongs to user {_owner(path)}" if _owner(path) else ""
        raise ConfigurationError([f"{shown} cannot be read by this user{owner}"]) from None
    except (OSError, NotStartedError) as error:
        raise ConfigurationError([f"{shown} cannot be read: {error}"]) from error


def _owner(path: Path) -> str:
    try:
        return "" if sys.platform == "win32" else user_name(path.parent.stat().st_uid)
    except OSError:
        return ""
