"""The state of one run in the bucket of STATE_URL: the lock of its service, and the copy of its journal."""

import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import anyio
import attrs

from cutover.clock import utc_now
from cutover.config.config import CutoverConfig
from cutover.errors import NotStartedError, PeerError
from cutover.http.outbound import Outbound
from cutover.http.tokens import Token
from cutover.model.train_events import TakenOver, TrainEvent, TrainFinished, UnknownEvent
from cutover.record.bucket import Bucket
from cutover.record.bucket_decisions import BucketDecisions
from cutover.record.evidence import write_atomically
from cutover.record.journal import line_of_event, parse_journal
from cutover.record.journal_copy import JournalCopy, merged
from cutover.record.state_address import StateAddress
from cutover.record.state_lock import StateHolder, StateLock, this_process
from cutover.text import recover_command
from cutover.wiring.service_lock import service_key

LOCKS = "locks"
_TRIES = 20
"""Number of times that a recovery tries to write the next event, if the process before it still writes events."""


@attrs.frozen(kw_only=True)
class RunState:
    """The lock and the copy of one run. ``Production.state`` gives it, with a client of its own."""

    lock: StateLock
    copy: JournalCopy
    decisions: BucketDecisions
    holder: StateHolder
    """This process."""

    async def begin(self) -> None:
        """Take the lock for a new train.

        Raises:
            NotStartedError: Another train holds it, or it cannot be taken.
        """
        await self.lock.take(self.holder)

    async def take_over(self, folder: Path) -> StateHolder | None:
        """Take the lock for a recovery, stop the process that wrote the run before, and bring the journal on disk and its copy together.

        The journal in the bucket is the truth from the first difference on; what the disk says instead is kept beside it. After the event
        ``TakenOver`` is in the bucket, no other process can write to the run, and so none sends a change any more.

        Returns:
            The process that held the lock before, if it may still be alive; None if there was none, or it was on this machine, where the
            lock on disk shows that it is dead.

        Raises:
            NotStartedError: The lock is another run's, or the bucket or the disk cannot be read or written.
        """
        before = await self.lock.take_over(self.holder)
        path = folder / "journal.jsonl"
        try:
            whole = path.read_bytes()
            local = whole[: whole.rfind(b"\n") + 1].splitlines()
            copied = await self.copy.lines()
            for _ in range(_TRIES):
                lines, same = merged(local, copied)
                ending = self._ending(before, parse_journal(_file(lines), self.copy.address))
                if await self._create([*lines[len(copied) :], *ending]):
                    break
                copied += await self.copy.lines(after=len(copied))
            else:
                raise NotStartedError(
                    f"another process writes to {self.copy.address} again and again; nothing was changed; stop it ({_who(before)}), then "
                    "run the recovery again"
                )
            if same < min(len(local), len(copied)):
                path.replace(_aside(path))
            if lines + ending != local:
                write_atomically(path, _file([*lines, *ending]))
        except PeerError as error:
            raise NotStartedError(f"the journal in STATE_URL cannot be taken over: {error}") from error
        except OSError as error:
            raise NotStartedError(f"the journal in {folder} cannot be written: {error}") from error
        return None if before is None or before.host == socket.gethostname() else before

    def _ending(self, before: StateHolder | None, events: Sequence[TrainEvent]) -> list[bytes]:
        """Return the line that stops the process before this one; none for a run that is closed and that nobody holds."""
        known = [event for event in events if not isinstance(event, UnknownEvent)]
        if before is None and known and isinstance(known[-1], TrainFinished):
            return []
        event = TakenOver(by=self.holder.describe(), before=_who(before), at=utc_now())
        return [line_of_event(event, with_version=True).rstrip(b"\n")]

    async def _create(self, lines: Sequence[bytes]) -> bool:
        """Write these events to the bucket, one after another; return False at the first that another process has written."""
        for line in lines:
            if not await self.copy.create(line):
                return False
        return True


def kept(state: RunState | None) -> AbstractAsyncContextManager[None]:
    """Return a context that keeps the copy of the journal up to date; without a state it does nothing."""
    return nullcontext() if state is None else state.copy.kept()


async def release(state: RunState | None) -> str:  # type: ignore[return]  # this scope is a shield and never cancelled
    """Release the lock in STATE_URL, also after a cancellation; return the problem if that failed, with the command that does it later."""
    with anyio.CancelScope(shield=True):
        problem = await state.lock.release() if state is not None else ""
        return f"{problem}; to release it: {recover_command(state.copy.address)}" if problem and state else ""


def run_state(config: CutoverConfig, run: str, *, outbound: Outbound, token: Token) -> RunState:
    """Return the state of a run, as the configuration places it. No request is sent yet."""
    address = StateAddress.parse(config.state_url)
    bucket = Bucket(outbound=outbound, api_url=config.state_api_url, name=address.bucket, token=token)
    service = f"{config.service} in {config.project}, {config.region}"
    return RunState(
        lock=StateLock(
            bucket=bucket, address=address, name=address.below(LOCKS, f"{service_key(config)}.json")
        ),
        copy=journal_copy(bucket, address, run),
        decisions=bucket_decisions(bucket, address, run),
        holder=this_process(service=service, run=run),
    )


def journal_copy(bucket: Bucket, address: StateAddress, run: str) -> JournalCopy:
    """Return the copy of the journal of a run."""
    return JournalCopy(
        bucket=bucket,
        folder=address.below(run, "journal", ""),
        address=address.of_run(run),
        clock=bucket.outbound.clock,
    )


def bucket_decisions(bucket: Bucket, address: StateAddress, run: str) -> BucketDecisions:
    """Return the decisions of a run."""
    return BucketDecisions(
        bucket=bucket,
        folder=address.below(run, "decisions", ""),
        address=address.of_run(run),
        run_id=run,
    )


def _who(holder: StateHolder | None) -> str:
    return "" if holder is None else holder.describe()


def _file(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _aside(path: Path) -> Path:
    """Return a new name for a journal on disk that the one in the bucket replaces."""
    number = 1
    while (aside := path.with_name(f"journal.replaced-{number}.jsonl")).exists():
        number += 1
    return aside
