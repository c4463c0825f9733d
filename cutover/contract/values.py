"""Chunks of a contract that its owner wrote: which kinds there are, the shape of each, and the reader that finds both in an event.

The reader decodes the data once, to plain values, in which integers stay integers. Then it finds the kind, holds the data to the
kind's shape, and returns an `EventChunk` of a class that stands for the kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from cutover.contract.chunks import Chunk, Refusal, Remarked, Terminator
from cutover.contract.findings import Deviation
from cutover.contract.grammar import ServiceError
from cutover.contract.javascript import NotJsonError, parse, whole_number
from cutover.contract.kinds import EventName, Kind
from cutover.contract.paths import MISSING, Getter, parse_path, value_at, value_getter
from cutover.contract.shapes.choice import shape_of
from cutover.contract.shapes.shape import ANYTHING, Shape
from cutover.contract.tables import LAST
from cutover.text import printable

_UNDECODABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


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


def new_entry(kind: str, shape: Shape = ANYTHING) -> KindEntry:
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


@attrs.frozen(kw_only=True, eq=False)
class KindTable:
    """The kinds of chunk of a contract, each with its shape."""

    entries: Mapping[str, KindEntry]
    """Kind -> its entry. A kind that ends with `*` stands for all kinds that begin like it."""
    shape: Shape | None
    """The one shape of all events, if the kind does not decide it; else None."""
    _more: dict[str, KindEntry] = attrs.field(factory=dict, init=False)
    # Kinds that no owner declares but that can come, each with its entry, for all streams together: making a class takes long.

    @classmethod
    def of(cls, chunks: object) -> "KindTable":
        """Return the table of the kinds that an owner declared: a mapping from kind to shape, or one shape for all.

        Raises:
            ValueError: If a shape is of no known sort; the message names the kind.
        """
        if isinstance(chunks, Mapping) and not _is_json_schema(chunks):
            entries = {
                str(kind): new_entry(str(kind), shape_of(shape, str(kind))) for kind, shape in chunks.items()
            }
            return cls(entries=entries, shape=None)
        return cls(entries={}, shape=shape_of(chunks, "of every event"))

    def more(self, kind: str, shape: Shape = ANYTHING) -> KindEntry:
        """Return the entry of a kind that is not declared, such as that of an in-band error."""
        entry = self._more.get(kind)
        if entry is None:
            entry = new_entry(kind, shape)
            # Streams decide which kinds come, so they must not fill the memory.
            if len(self._more) < _MAX_KINDS:
                self._more[kind] = entry
        return entry

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """Return the declared kinds; None if a chunk may have any kind."""
        return tuple(self.entries) if self.shape is None else None


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


_MAX_KINDS = 1000
"""Largest number of kinds that a stream without declared kinds may have, so that memory stays bounded."""


@attrs.define(eq=False, kw_only=True)
class ValueReader:
    """A reader of one stream's events, for a contract that its owner wrote."""

    table: KindTable
    kind: Kind
    terminator: str | None
    last: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]
    """Pairs of a path, as steps, and the values there that make an event the stream's last one."""
    error: ServiceError | None
    wants_unknown: bool
    """True if unknown fields are to be found."""
    reads_fields = True
    open_structs: frozenset[type[Chunk]] = frozenset()
    fields: tuple[str | None, str | None, int | None] = (None, None, None)
    """The values of the event's own `event`, `id` and `retry` lines."""
    _entries: dict[str, KindEntry] = attrs.field(init=False)
    _families: tuple[str, ...] = attrs.field(init=False)
    _by_name: frozenset[str] = attrs.field(init=False)
    _error_at: Sequence[str] | None = attrs.field(init=False)
    # True if an event's name can break a rule, or say the kind.
    _uses_names: bool = attrs.field(init=False)
    _one: KindEntry | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._entries = dict(self.table.entries)
        self._families = tuple(kind[:-1] for kind in self._entries if kind.endswith("*"))
        self._by_name = frozenset(self.kind.overrides)
        self._error_at = (
            None if self.error is None or self.error.member is None else parse_path(self.error.member)
        )
        if self.error is not None and self.error.kind not in self._entries:
            self._entries[self.error.kind] = self.table.more(self.error.kind)
        if self.kind.path is not None and len(self.kind.path) == 1:
            self._entries = {kind: entry.beside(self.kind.path[0]) for kind, entry in self._entries.items()}
        for kind in self.kind.overrides:
            if kind not in self._entries:
                self._entries[kind] = self.table.more(kind)
        self._uses_names = (
            self.kind.by_name or self.kind.names is not EventName.OPTIONAL or bool(self._by_name)
        )

    def set_fields(
        self,
        name: str | None,
        own_id: str | None,
        retry: int | None,
        last_event_id: str,  # noqa: ARG002  no contract of this sort asks for it
    ) -> None:
        """Set the values of the other lines of the events that come next."""
        self.fields = (name, own_id, retry)

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

    def read(self, payloads: Sequence[Any]) -> tuple[list[Any], list[type]]:
        """Read the data of one or more events. Return the chunk, or other `Read`, of each, and the class of each."""
        reads = list(map(self.decode, payloads))
        return reads, list(map(type, reads))

    def look_inside(self, read: Any, payload: str | bytes) -> Any:  # noqa: ANN401, ARG002
        """Return the same: `decode` has looked inside."""
        return read

    def end(self) -> Sequence[Deviation]:
        """Return what only the end shows: nothing."""
        return ()

    def judge(self, payload: str | bytes) -> Any:  # noqa: ANN401
        """Return what `decode` returns."""
        return self.decode(payload)

    def kind_of(self, text: str, name: str | None) -> str | None:
        """Return the kind of an event, from its data and its own `event` line; None if it says none."""
        if text == self.terminator:
            return text
        if self.kind.is_name_alone or name in self._by_name:
            return name or "message"
        try:
            return self.kind.find(_decoded(text))
        except NotJsonError:
            return None

    def decode(self, payload: str | bytes) -> Any:  # noqa: ANN401, C901, PLR0911, PLR0912  one event's way, step by step
        """Return the chunk of one event, with remarks if there are any, or its refusal, or the terminator."""
        text = payload if isinstance(payload, str) else payload.decode("utf-8", "replace")
        if text == self.terminator:
            return Terminator()
        name, own_id, retry = self.fields
        kind: str | None
        value: Any = MISSING
        if self.kind.is_name_alone or (name is not None and name in self._by_name):
            kind = name or "message"
            entry = self._find(kind)
            if entry is not None and entry.shape.is_text:
                value = text
        else:
            kind, entry = None, None
        if value is MISSING:
            try:
                value = msgspec.json.decode(payload)
            except _UNDECODABLE:
                try:
                    value = _decoded(text)
                except NotJsonError as error:
                    deviation = Deviation(
                        "json.syntax",
                        "JSON",
                        f"{printable(text)} ({error})",
                        path="/data",
                        keyword="contentMediaType",
                    )
                    return Refusal(
                        deviation,
                        kind if entry is not None else None,
                        None if entry is None else self._chunk(entry, text),
                    )
        if self._error_at is not None and self.error is not None and _is_told(value, self._error_at):
            entry = self._entries[self.error.kind]
            return entry.chunk(value, name, own_id, retry)
        if entry is None:
            if kind is None:
                if self.table.shape is not None:
                    wrong = self.table.shape.refusal(value, text)
                    if wrong is not None:
                        return Refusal(wrong)
                kind = self.kind.find(value)
            entry = None if kind is None else self._find(kind)
            if entry is None or kind is None:
                return Refusal(self._unknown_kind(kind, value))
        if self.table.shape is None or entry.shape is not self.table.shape:
            wrong = entry.shape.refusal(value, text)
            if wrong is not None:
                return Refusal(wrong, entry.kind, self._chunk(entry, value))
        chunk = self._chunk(entry, value)
        unknown = entry.shape.unknown_fields(value, text) if self.wants_unknown else ()
        remarks = self._remarks(kind) if self._uses_names else ()
        return Remarked(chunk, unknown, remarks) if unknown or remarks else chunk

    def _find(self, kind: str) -> KindEntry | None:
        """Return the entry of a kind; None if it is unknown."""
        entry = self._entries.get(kind)
        if entry is not None:
            return entry
        if self.table.shape is not None and len(self._entries) < _MAX_KINDS:
            entry = self._entries[kind] = self.table.more(kind, self.table.shape)
            return entry
        family = next((prefix for prefix in self._families if kind.startswith(prefix)), None)
        return None if family is None else self._entries[family + "*"]

    def _chunk(self, entry: KindEntry, value: Any) -> EventChunk:  # noqa: ANN401
        """Return the chunk of a value, of the class for last events if the value says that it is one."""
        name, own_id, retry = self.fields
        chunk = entry.chunk(value, name, own_id, retry)
        for steps, values in self.last:
            found = value_at(value, steps[1:]) if steps[0] == "data" else getattr(chunk, steps[0])
            if any(type(found) is type(each) and found == each for each in values):
                return entry.last(value, *self.fields)
        return chunk

    def _unknown_kind(self, kind: str | None, value: Any) -> Deviation:  # noqa: ANN401
        """Return the deviation of an event whose kind no chunk declares."""
        known = ", ".join(self.table.entries) or "any"
        actual = (
            self.kind.shown(value)
            if kind is None or self.kind.path is not None
            else f"{self.kind.where} {kind}"
        )
        return Deviation("schema.unknown-kind", f"a known {self.kind.where}: {known}", printable(actual))

    def _remarks(self, kind: str | None) -> tuple[Deviation, ...]:
        """Return the rules that the event's own name breaks."""
        name = self.fields[0]
        found: list[Deviation] = []
        if name is None and self.kind.names is EventName.REQUIRED:
            found.append(Deviation("schema.event-name", f"an event line with {kind}", "no event line"))
        elif name is not None and self.kind.names is EventName.FORBIDDEN:
            found.append(Deviation("schema.event-name", "no event line", printable(f"the name {name}")))
        elif (
            name is not None
            and self.kind.by_name
            and self.kind.path is not None
            and name not in {kind, *self._by_name}
        ):
            found.append(
                Deviation(
                    "schema.event-name",
                    f"the name {kind}, as in {self.kind.where}",
                    printable(f"the name {name}"),
                )
            )
        return tuple(found)


def _decoded(text: str) -> Any:  # noqa: ANN401
    """Return the value of a JSON text by the exact path, in which integers stay integers."""
    return parse(text, parse_int=whole_number)


def _is_told(value: Any, path: Sequence[str]) -> bool:  # noqa: ANN401
    """Return True if there is something at this path other than null, false or an empty text."""
    found = value_at(value, path[1:])
    return found is not MISSING and found is not None and found is not False and found != ""
