"""The common part of the readers whose chunks are plain values: an entry for each kind, and the values of an event's other lines."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from cutover.contract.chunks import Chunk
from cutover.contract.kind_table import EventChunk, KindEntry
from cutover.contract.paths import Getter, value_at, value_getter
from cutover.contract.tables import LAST

OTHER_KINDS: Final = "(other kinds)"
"""The kind of all chunks beyond the bounds of a reader."""
_MAX_KIND_LENGTH = 200
"""Largest number of characters in the name of a kind that is not declared."""


@attrs.define(eq=False, kw_only=True)
class EntryReader:
    """A reader of one stream's events that returns an `EventChunk` of a class that stands for the kind."""

    terminator: str | None
    """The exact data of the event that ends the stream; None if no such event does."""
    last: tuple[tuple[tuple[str, ...], tuple[tuple[type, Any], ...]], ...]
    """Pairs of a path, as steps, and the values there, each with its type, that make an event the stream's last one."""
    reads_fields = True
    open_structs: frozenset[type[Chunk]] = frozenset()
    fields: tuple[str | None, str | None, int | None] = (None, None, None)
    """The values of the event's own `event`, `id` and `retry` lines."""
    last_event_id: str = ""
    """The stream's last event ID."""
    _entries: dict[str, KindEntry] = attrs.field(factory=dict, init=False)

    def set_fields(self, name: str | None, own_id: str | None, retry: int | None, last_event_id: str) -> None:
        """Set the values of the other lines of the events that come next."""
        self.fields = (name, own_id, retry)
        self.last_event_id = last_event_id

    @property
    def kinds(self) -> Mapping[type[Any], str]:
        """Return the classes of all kinds that are known now, each with its kind."""
        return {chunk: tag for entry in self._entries.values() for chunk, tag in entry.classes()}

    def getter(self, kind: str, path: str) -> Getter | None:  # noqa: ARG002
        """Return the function that reads a path in a chunk."""
        return value_getter(path)

    def skew_of(self, kind: str) -> Sequence[tuple[tuple[str | None, str | None], str]]:  # noqa: ARG002
        """Return the version warnings of a kind: there are none."""
        return ()

    def _bounded(self, kind: str, most: int) -> str:
        """Return the kind as which a chunk of an undeclared kind counts: its own, or `OTHER_KINDS` beyond the bounds.

        Args:
            kind: The kind, as the event says it.
            most: The largest number of kinds.
        """
        # A kind must not look like the class of a last event.
        is_beyond = len(self._entries) >= most or len(kind) > _MAX_KIND_LENGTH or kind.endswith(LAST)
        return OTHER_KINDS if is_beyond else kind

    def _chunk(self, entry: KindEntry, value: Any) -> EventChunk:  # noqa: ANN401
        """Return the chunk of a value, of the class for last events if the event says that it is one."""
        chunk = entry.chunk(value, *self.fields)
        for steps, values in self.last:
            found = value_at(value, steps[1:]) if steps[0] == "data" else getattr(chunk, steps[0])
            if (type(found), found) in values:
                return entry.last(value, *self.fields)
        return chunk
