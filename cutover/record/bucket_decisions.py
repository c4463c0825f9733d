"""The decisions of a run in the bucket of STATE_URL: one object for each wait, created on the condition that there is none.

So of two deciders on two machines one wins. Whoever may write to the bucket may decide; the train records the name that is given, and trusts
nothing else of the object.
"""

import secrets

import anyio
import attrs
import msgspec

from cutover.errors import NotDecidedError, PeerError
from cutover.http.secrets import SHORTEST_SECRET
from cutover.model.train_events import Waiting
from cutover.record.bucket import Bucket, StoredObject
from cutover.record.decisions import (
    Decision,
    DecisionFile,
    decode_decision,
    encode_decision,
    note_once,
    refusal_of_second,
)
from cutover.text import decide_command, printable

READ_SECONDS = 5.0
"""Longest time for one look into the bucket, so that a bucket without an answer holds up no decision in the run directory."""
_MASKED = "*" * SHORTEST_SECRET
"""The mark of the shortest secret that is masked."""


class _Entry(msgspec.Struct, frozen=True):
    """The content of one object."""

    writer: str
    decision: msgspec.Raw


def _content(decision: Decision) -> dict[str, object]:
    """Return the content of the object of a decision, of a new writer."""
    return {
        "writer": secrets.token_hex(16),
        "decision": msgspec.json.decode(encode_decision(decision)),
    }


@attrs.define(eq=False, kw_only=True)
class BucketDecisions:
    """The decisions of one run in the bucket."""

    bucket: Bucket
    folder: str
    """The beginning of the objects' names, with a slash at the end."""
    address: str
    """The address of the run, for messages: ``gs://bucket/prefix/RUN``."""
    run_id: str
    complaints: tuple[str, ...] = ()

    def command(self, wait: str) -> str:
        """Return the shell command that decides ``go`` for a wait, from any machine."""
        return decide_command(self.address, shown=wait)

    async def first(self, waiting: Waiting) -> Decision | None:
        """Return the decision of a wait; None while there is none, or if the object is none.

        Raises:
            PeerError: The bucket gave no usable answer.
        """
        stored = await self.bucket.read(self._name(waiting.wait), label="state.decision.read")
        if stored is None:
            return None
        try:
            entry = msgspec.json.decode(stored.content, type=_Entry)
            found = decode_decision(bytes(entry.decision), run_id=self.run_id, waiting=waiting)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            problem = f"the object of the wait {waiting.wait} in {self.address} is no decision, and it was passed over"
            self.complaints = note_once(self.complaints, f"{problem}: {printable(str(error))}")
            return None
        if found is not None and _MASKED in found.by + found.because:
            await self._replace(stored, found)
        return found

    async def _replace(self, stored: StoredObject, decision: Decision) -> None:
        """Write a decision over its object, as the bucket's client has masked it: nobody can tell if the object was masked before."""
        name = self._name(decision.wait)
        try:
            await self.bucket.put(
                name, _content(decision), generation=stored.generation, label="state.decision.mask"
            )
        except PeerError as error:
            problem = f"the object of the wait {decision.wait} in {self.address} may hold a secret, and could not be masked: {error}"
            self.complaints = note_once(self.complaints, f"{problem}; take it out by hand")

    async def put(self, decision: Decision) -> None:
        """Create the object of a wait.

        Raises:
            NotDecidedError: There is one already, or it could not be created for certain.
        """
        try:
            made = await self.bucket.put(
                self._name(decision.wait), _content(decision), generation=0, label="state.decision"
            )
            if made is not None:
                return
            earlier = await self.first(decision.waiting)
        except PeerError as error:
            raise NotDecidedError(
                f"the decision may not be written to {self.address}: {error}; run the command again: it writes nothing twice"
            ) from error
        raise NotDecidedError(refusal_of_second(earlier))

    def _name(self, wait: str) -> str:
        return f"{self.folder}{wait}.json"


@attrs.define(eq=False, kw_only=True)
class DecisionsAnywhere:
    """The decisions of a run in its run directory and in the bucket. The first one that the train reads counts."""

    here: DecisionFile
    anywhere: BucketDecisions

    @property
    def complaints(self) -> tuple[str, ...]:
        """The reasons why something was passed over, in either place."""
        return (*self.here.complaints, *self.anywhere.complaints)

    def command(self, wait: str) -> str:
        """Return the shell command that decides ``go`` for a wait, from any machine."""
        return self.anywhere.command(wait)

    async def first(self, waiting: Waiting) -> Decision | None:
        """Return the decision of a wait from the run directory, else from the bucket.

        Raises:
            PeerError: The bucket gave no usable answer.
        """
        found = await self.here.first(waiting)
        if found is None:
            with anyio.move_on_after(READ_SECONDS):
                found = await self.anywhere.first(waiting)
        return found
