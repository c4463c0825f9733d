"""The lock of a service in the bucket of STATE_URL: one train at a time, whatever machine it runs on.

The lock is an object. A train creates it on the condition that there is none, and deletes it when nothing of the train is open. It does not
expire: nobody can know from afar that a process is dead. Only a recovery takes it over, on the condition that nobody has changed it since the
recovery read it.
"""

import os
import secrets
import socket
import sys
from collections.abc import Mapping

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError, PeerError, RefusedError
from cutover.record.bucket import Bucket
from cutover.record.lock_file import user_name
from cutover.record.state_address import StateAddress
from cutover.text import printable, recover_command


@attrs.frozen(kw_only=True)
class StateHolder:
    """The process that runs, or ran, a train or its recovery."""

    host: str
    pid: int
    since: str
    user: str
    service: str
    """The service in words: ``SERVICE in PROJECT, REGION``."""
    run: str
    """The name of the run, also for its recovery."""
    writer: str
    """A text that no other process has."""

    def describe(self) -> str:
        """Return the process, its machine, its user and the time of its start in words, safe to print."""
        host, user, since = (printable(text, 80) for text in (self.host, self.user, self.since))
        return f"pid {self.pid} on {host}, user {user}, since {since}"


def this_process(*, service: str, run: str) -> StateHolder:
    """Return this process as the holder of a lock."""
    return StateHolder(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=utc_now(),
        user=user_name(os.geteuid()) if sys.platform != "win32" else "?",
        service=service,
        run=run,
        writer=secrets.token_hex(16),
    )


@attrs.define(eq=False, kw_only=True)
class StateLock:
    """The lock of one service."""

    bucket: Bucket
    address: StateAddress
    """The address of all runs."""
    name: str
    """The name of the object."""
    _generation: int | None = None
    """The generation of this process's own lock; None if it does not hold the lock."""

    async def take(self, holder: StateHolder) -> None:
        """Take the lock for a new train.

        Raises:
            NotStartedError: Another train holds it, or was not recovered, or the lock cannot be read or written.
        """
        try:
            self._generation = await self.bucket.put(
                self.name, _content(holder), generation=0, label="state.lock"
            )
            if self._generation is not None:
                return
            found = await self.found()
        except PeerError as error:
            # A lost answer may hide that the lock was made.
            made = (
                ""
                if isinstance(error, RefusedError) and error.for_certain
                else (
                    f"; if a later start finds that lock held by pid {holder.pid} on {holder.host}, release it: "
                    f"{recover_command(self.address.of_run(holder.run))}"
                )
            )
            raise NotStartedError(
                f"the lock in STATE_URL ({self.address}) cannot be taken: {error}{made}"
            ) from error
        if found is None:
            raise NotStartedError(
                f"the lock in STATE_URL ({self.address}) was taken and released at this moment; nothing was changed; start again"
            )
        raise NotStartedError(_held(found[0], self.address))

    async def take_over(self, holder: StateHolder) -> StateHolder | None:
        """Take the lock for the recovery of a run; return the holder before it, None if there was none.

        Raises:
            NotStartedError: The lock is of another run, somebody else has just taken it, or it cannot be read or written.
        """
        try:
            found = await self.found()
            before, generation = found or (None, 0)
            if before is not None and before.run != holder.run:
                raise NotStartedError(_held(before, self.address))
            self._generation = await self.bucket.put(
                self.name, _content(holder), generation=generation, label="state.lock"
            )
        except PeerError as error:
            raise NotStartedError(
                f"the lock in STATE_URL ({self.address}) cannot be taken over: {error}; nothing was changed"
            ) from error
        if self._generation is None:
            raise NotStartedError(
                f"somebody else has changed the lock in STATE_URL ({self.address}) at this moment; nothing was changed; run the recovery again"
            )
        return before

    async def found(self) -> tuple[StateHolder, int] | None:
        """Return the holder and the generation of the lock; None if nobody holds it.

        Raises:
            PeerError: The lock cannot be read.
            NotStartedError: It is damaged.
        """
        stored = await self.bucket.read(self.name, label="state.lock.read")
        return (
            None
            if stored is None
            else (holder_of(stored.content, self.name, self.address), stored.generation)
        )

    async def obstacle(self) -> str:
        """Return the reason why a train could not take this lock and keep its journal now, and the thing to do; an empty text if it could.

        Nothing is written: the lock is read, and Cloud Storage is asked for the permissions of the token.
        """
        state = f"STATE_URL ({self.address})"
        try:
            found = await self.found()
            missing = await self.bucket.missing_permission(label="state.permissions")
        except PeerError as error:
            return f"{state} cannot be read: {error}"
        except NotStartedError as error:
            return str(error)
        if found is not None:
            return _held(found[0], self.address)
        if missing:
            return f"the token may not write to {state}: {missing} is missing; grant roles/storage.objectUser on its bucket to the account"
        return ""

    async def release(self) -> str:
        """Delete the lock, if this process holds it; return the problem if that failed, else an empty text."""
        generation, self._generation = self._generation, None
        if generation is None:
            return ""
        try:
            # If it has another generation, somebody else has taken it over: then it is theirs.
            await self.bucket.delete(self.name, generation=generation, label="state.lock.release")
        except PeerError as error:
            return f"the lock in STATE_URL ({self.address}) cannot be released: {error}"
        return ""


def holder_of(content: bytes, name: str, address: StateAddress) -> StateHolder:
    """Return the holder that the content of a lock names.

    Raises:
        NotStartedError: The content is no such text.
    """
    try:
        return msgspec.json.decode(content, type=StateHolder)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotStartedError(
            f"the lock {printable(name)} in {address} is damaged and names no run; nothing was changed; check production, then delete "
            f"gs://{address.bucket}/{printable(name)}"
        ) from error


def _content(holder: StateHolder) -> Mapping[str, object]:
    return attrs.asdict(holder)


def _held(holder: StateHolder, address: StateAddress) -> str:
    """Return who holds a lock, and what to do."""
    return (
        f"another train of {printable(holder.service)} runs, or was killed and is not recovered: {holder.describe()}, run "
        f"{printable(holder.run)}; wait for its end; if that process is dead, production may still hold its changes, and any machine can "
        f"finish it: {recover_command(address.of_run(printable(holder.run)))}"
    )
