"""The kinds of chunk of a contract that its owner wrote, each with its shape and with the classes of its chunks."""

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from cutover.contract.shapes.choice import shape_of
from cutover.contract.shapes.shape import ANYTHING, Shape
from cutover.contract.tables import LAST


class EventChunk(msgspec.Struct, frozen=True, gc=False):
    """One event that was decoded to plain values. Each kind has a class of its own below this one."""

    data: Any
    """The decoded data; the text itself if the shape is `TEXT`."""
    event: str | None
    """The value of the event's own `event` line; None without one."""
    id: str | None
    """The value of the event's own `id` line; None without one."""
    retry: int | None
    """The value of the event's own `retry` line, in milliseconds; None without one."""


@attrs.frozen(eq=False)
class KindEntry:
    """One kind: its shape and its classes."""

    kind: str
    shape: Shape
    chunk: type[EventChunk]
    """The class of a chunk of this kind."""
    last: type[EventChunk]
    """The class of a chunk of this kind that says that it is the stream's last one."""

    def classes(self) -> Sequence[tuple[type[EventChunk], str]]:
        """Return the classes of this kind, each with the tag that tells them apart."""
        return ((self.chunk, self.kind), (self.last, self.kind + LAST))

    def beside(self, tag: str) -> "KindEntry":
        """Return the same entry for objects that have the field with their kind too."""
        shape = self.shape.beside(tag)
        return self if shape is self.shape else KindEntry(self.kind, shape, self.chunk, self.last)


def entry_of(kind: str, shape: Shape = ANYTHING) -> KindEntry:
    """Return the entry of a kind."""
    name = (
        "".join(part.title() for part in "".join(c if c.isalnum() else " " for c in kind).split()) or "Chunk"
    )

    def made(tag: str) -> type[EventChunk]:
        chunk: Any = msgspec.defstruct(
            name, [], bases=(EventChunk,), tag_field="kind", tag=tag, frozen=True, gc=False
        )
        return chunk  # type: ignore[no-any-return]

    return KindEntry(kind, shape, made(kind), made(kind + LAST))


_MAX_MORE = 1000
"""Largest number of entries for kinds that are not declared."""


@attrs.frozen(kw_only=True, eq=False)
class KindTable:
    """The kinds of chunk of a contract, each with its shape."""

    entries: Mapping[str, KindEntry]
    """Kind -> its entry. A kind that ends with `*` stands for all kinds that begin like it."""
    shape: Shape | None
    """The one shape of all events, if the kind does not decide it; else None."""
    # The other kinds that came, each with its entry, for all streams together: making a class takes long. Contracts that
    # share the table may need a kind with the one shape, and with any shape; the second part of the key tells the two apart.
    _more: dict[tuple[str, bool], KindEntry] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, chunks: object) -> "KindTable":
        """Return the table of the kinds that an owner declared: a mapping from kind to shape, or one shape for all.

        Raises:
            ValueError: If a shape is of no known sort; the message names the kind.
        """
        if isinstance(chunks, Mapping) and not _is_json_schema(chunks):
            named = {_name_of(kind): shape for kind, shape in chunks.items()}
            entries = {kind: entry_of(kind, shape_of(shape, kind)) for kind, shape in named.items()}
            return cls(entries=entries, shape=None)
        return cls(entries={}, shape=shape_of(chunks, "of every event"))

    def more(self, kind: str, shape: Shape = ANYTHING) -> KindEntry:
        """Return the entry of a kind that is not declared, such as that of an in-band error."""
        key = (kind, shape is ANYTHING)
        entry = self._more.get(key)
        if entry is None:
            entry = entry_of(kind, shape)
            # Streams decide which kinds come, so they must not fill the memory.
            if len(self._more) < _MAX_MORE:
                self._more[key] = entry
        return entry

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """Return the declared kinds; None if a chunk may have any kind."""
        return tuple(self.entries) if self.shape is None else None


def _name_of(kind: object) -> str:
    """Return the name of a kind that stands as a key of a table; of an enum's member its value."""
    name = kind.value if isinstance(kind, enum.Enum) else kind
    if not isinstance(name, str):
        raise ValueError(f"chunks: the kind {kind!r} is no text")  # noqa: TRY004  all slips are ValueErrors
    return name


_SCHEMA_WORDS = frozenset(
    {"$ref", "$schema", "type", "properties", "oneOf", "anyOf", "allOf", "const", "enum", "required"}
)


def _is_json_schema(chunks: Mapping[Any, Any]) -> bool:
    """Return True if a mapping is one JSON Schema for all events, and not one shape for each kind."""
    return any(
        word in _SCHEMA_WORDS
        and isinstance(value, str | list | bool | Mapping)
        and not (isinstance(value, Mapping) and word != "properties")
        for word, value in chunks.items()
    )
