"""The decisions that a waiting train reads: a store that anybody who may decide can write to, and that the train does not trust.

``Decisions`` and ``DecisionStore`` are the seam: a wait has one decision, the first one that is written. ``DecisionFile`` keeps them in a file of the run
directory, for the same machine. ``bucket_decisions.py`` keeps one object for each wait in the bucket of STATE_URL, for any machine.

The module is longer than most, because the seam and the file, whose reader, writer and masking keep one form of a line, stand together.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Protocol

import attrs
import msgspec

from cutover.errors import NotDecidedError
from cutover.http.secrets import Secrets
from cutover.model.train_events import Waiting
from cutover.record.lock_file import user_name, whose
from cutover.text import decide_command, printable

if sys.platform != "win32":
    import fcntl

FILE = "decision.jsonl"
"""The file in the run directory: one decision a line."""
LONGEST_NAME, LONGEST_REASON = 100, 1000
"""Characters of the decider's name, and of the reason."""
MOST_BYTES = 1 << 16
"""Bytes of the file that are read. A train has a few holds, so a longer file is no file of decisions."""
_READING = os.O_RDONLY | (os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK if sys.platform != "win32" else 0)
"""Flags for a file that somebody else may have put there: follow no link, and do not wait for the other end of a pipe."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@attrs.frozen(kw_only=True)
class Decision:
    """One decision, bound to one wait of one train."""

    run_id: str
    """The train that waits."""
    step_id: str
    wait: str
    """The id of the wait (``Waiting.wait``)."""
    answer: Literal["go", "stop"]
    by: str
    because: str
    at: str
    """Time at which it was written: UTC, ISO 8601."""

    @property
    def waiting(self) -> Waiting:
        """The wait that this is for, without its words."""
        return Waiting(step_id=self.step_id, hold="", wait=self.wait, state="", until="", decide="")

    def masked(self, mask: Callable[[str], str]) -> "Decision":
        """Return the decision with its two texts masked."""
        return attrs.evolve(self, by=mask(self.by), because=mask(self.because))

    @property
    def problem(self) -> str:
        """The reason why this is no decision that a person wrote; empty for a right one."""
        for name, text, longest in (("by", self.by, LONGEST_NAME), ("because", self.because, LONGEST_REASON)):
            if not text.strip():
                return f"{name} is empty"
            if len(text) > longest:
                return f"{name} has {len(text)} characters, and {longest} are allowed"
            if not text.isprintable():
                return f"{name} has characters that cannot be printed: {printable(text)}"
        return ""


class Decisions(Protocol):
    """The decisions of one run, as the train reads them."""

    async def first(self, waiting: Waiting) -> Decision | None:
        """Return the decision of a wait; None while there is none.

        Raises:
            PeerError: The store gave no usable answer. The train asks again.
        """
        ...

    def command(self, wait: str) -> str:
        """Return the shell command that decides ``go`` for a wait, with NAME and TEXT to fill in; empty where nobody can decide."""
        ...

    @property
    def complaints(self) -> tuple[str, ...]:
        """The reasons why something in the store was passed over, each once."""
        ...


class DecisionStore(Decisions, Protocol):
    """A place to which a decider can write."""

    async def put(self, decision: Decision) -> None:
        """Write the decision of a wait.

        Raises:
            NotDecidedError: The wait has a decision already, or the decision could not be written for certain.
        """
        ...


def encode_decision(decision: Decision) -> bytes:
    """Return a decision as one line of JSON, without a line end."""
    return msgspec.json.encode(decision)


def decode_decision(data: bytes, *, run_id: str, waiting: Waiting) -> Decision | None:
    """Return the decision in these bytes if it is one for this wait of this train; None if it is one for another wait.

    Raises:
        ValueError: It is no decision.
    """
    try:
        found = msgspec.json.decode(data, type=Decision)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if problem := found.problem:
        raise ValueError(problem)
    same = (run_id, waiting.step_id, waiting.wait) == (found.run_id, found.step_id, found.wait)
    return found if same else None


def refusal_of_second(earlier: Decision | None) -> str:
    """Return the sentence that refuses a second decision; ``earlier`` is None if the first one cannot be read."""
    shown = (
        "one that cannot be read"
        if earlier is None
        else f"{earlier.answer}, by {earlier.by}: {earlier.because}"
    )
    return f"the train has a decision for this wait already: {shown}; nothing was written"


def note_once(complaints: tuple[str, ...], complaint: str) -> tuple[str, ...]:
    """Return the complaints of a store with one more, if it is the first: one is enough to look there, and a train may read a thousand times."""
    return complaints or (complaint,)


@attrs.define(eq=False)
class DecisionFile:
    """The decisions in a run directory."""

    folder: Path
    run_id: str
    secrets: Secrets = attrs.field(factory=Secrets, kw_only=True)
    """The secrets of the reader. One that a decider has typed is masked in the file too, before anything is read."""
    complaints: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE

    def command(self, wait: str) -> str:
        """Return the shell command that decides ``go`` for a wait."""
        return decide_command(self.folder, shown=wait)

    async def first(self, waiting: Waiting) -> Decision | None:
        """Return the first decision for this wait; lines that are none, or that are for another wait, are passed over."""
        return self._first(waiting)

    def _first(self, waiting: Waiting) -> Decision | None:
        try:
            data = self._masked(_read(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(f"{self.path} was not read: {error}")
            return None
        # Bytes after the last line end are a line that is still being written.
        for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
            try:
                found = decode_decision(line, run_id=self.run_id, waiting=waiting)
            except ValueError as error:
                self._complain(
                    f"{self.path} has a line that is no decision, and it was passed over: {printable(str(error))}"
                )
                continue
            if found is not None:
                return found
        return None

    def _masked(self, data: bytes) -> bytes:
        """Return the content of the file with each secret masked, and write that over it if there was one."""
        lines = data.split(b"\n")
        whole, rest = lines[:-1], lines[-1]
        masked = b"\n".join([*(_masked_line(line, self.secrets) for line in whole), rest])
        if masked != data:
            try:
                _overwrite(self.path, masked)
            except OSError as error:
                self._complain(
                    f"{self.path} holds a secret, which could not be masked: {error}; take it out by hand"
                )
        return masked

    async def put(self, decision: Decision) -> None:
        """Append a decision, unless the wait has one. Deciders of one moment take turns.

        Raises:
            NotDecidedError: The wait has a decision already, or nothing could be written.
        """
        line = encode_decision(decision) + b"\n"
        try:
            with _turn(self.folder):
                if (earlier := self._first(decision.waiting)) is not None:
                    raise NotDecidedError(refusal_of_second(earlier))
                _append(self.path, line)
        except OSError as error:
            raise NotDecidedError(f"{self.path}{whose(self.path)} cannot be written: {error}") from error

    def _complain(self, complaint: str) -> None:
        self.complaints = note_once(self.complaints, complaint)


@attrs.define(eq=False)
class DecisionsOfRehearsal:
    """The decisions of a rehearsal, which waits for nobody: each wait gets a ``go`` that says so."""

    run_id: str
    complaints: tuple[str, ...] = ()

    def command(self, wait: str) -> str:  # noqa: ARG002  the seam's
        """Return an empty text: nobody can decide."""
        return ""

    async def first(self, waiting: Waiting) -> Decision | None:
        """Return a ``go`` in the name of the rehearsal."""
        return Decision(
            run_id=self.run_id,
            step_id=waiting.step_id,
            wait=waiting.wait,
            answer="go",
            by="the rehearsal",
            because="a rehearsal waits for nobody; the live train waits here",
            at=waiting.at,
        )


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Take the turn to write to the file of a folder, and keep it during the block. The folder itself is the lock.

    Raises:
        NotDecidedError: Another process has the turn.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if sys.platform != "win32":
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotDecidedError(
                    "another decision is being written at this moment; look at it: cutover status"
                ) from None
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    """Return the first ``MOST_BYTES`` bytes of a file that only its owner, this user, can have written.

    Raises:
        OSError: It cannot be read, or is another kind of file.
    """
    handle = os.open(path, _READING)
    try:
        _must_be_own(handle)
        return os.pread(handle, MOST_BYTES, 0) if sys.platform != "win32" else os.read(handle, MOST_BYTES)
    finally:
        os.close(handle)


def _masked_line(line: bytes, secrets: Secrets) -> bytes:
    """Return a line of the file, of the same length, with the secrets in a decision's texts masked; in another line, wherever they are."""
    try:
        found = msgspec.json.decode(line, type=Decision)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return secrets.mask(line)
    masked = found.masked(secrets.mask_text)
    return line if masked == found else encode_decision(masked).ljust(len(line))


def _overwrite(path: Path, data: bytes) -> None:
    """Write over the first bytes of the file. What another process appends meanwhile stays."""
    handle = os.open(path, os.O_RDWR | (_READING & ~os.O_RDONLY))
    try:
        _must_be_own(handle)
        if sys.platform != "win32":
            os.pwrite(handle, data, 0)
        else:
            os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def _append(path: Path, line: bytes) -> None:
    """Append a line by one write; after an incomplete line a new one begins."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (_READING & ~os.O_RDONLY)
    handle = os.open(path, flags, 0o600)
    try:
        _must_be_own(handle)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        if size + len(line) > MOST_BYTES:
            raise OSError(f"it has {size} bytes, and {MOST_BYTES} are read; move it away")
        if os.write(handle, line) != len(line):
            os.ftruncate(handle, size)
            raise OSError("short write")
        os.fsync(handle)
    finally:
        os.close(handle)


def _must_be_own(handle: int) -> None:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError("it is not an ordinary file")
    if sys.platform == "win32":
        return
    if found.st_uid != os.geteuid():
        raise OSError(f"it belongs to user {user_name(found.st_uid)}")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise OSError("other users may write to it")
