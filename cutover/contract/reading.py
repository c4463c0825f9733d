"""The reader that turns the data of message events into chunks, or into refusals.

The fast path is a msgspec decoder made from the schema (`ChunkReader.decode`). If it accepts the data, the client accepts
the data too, unless the data has a forbidden key such as `__proto__`: the reader searches for these keys. If the decoder
refuses the data, the exact path (`ChunkReader.judge`) decides with the same table of fields, as the client would.

The reader makes a new decoder in two cases, so that more chunks take the fast path:

- A kind of a family, such as `data-weather`, comes for the first time.
- Several chunks of one kind had more fields than its plain class (`ChunkTypes`) accepts. From then on, the decoder uses
  the class with all fields for this kind.

This module is long because the fast path and the exact path must agree, and are read together.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Protocol

import attrs
import msgspec

from cutover.contract.chunks import (
    TAG,
    Chunk,
    ChunkSchema,
    ChunkTypes,
    Fields,
    Refusal,
    Remarked,
    Terminator,
    make_decoder,
    make_types,
)
from cutover.contract.findings import Deviation
from cutover.contract.javascript import (
    MAX_SAFE_INTEGER,
    NotJsonError,
    forbidden_key,
    is_suspect,
    may_hold_unsafe_integer,
    parse,
    unsafe_integer,
)
from cutover.contract.paths import MISSING, NULL_IS_NOT_ABSENT, Getter, parse_path, sent_text
from cutover.text import escaped, escaped_lines, printable

_MAX_FAMILY_KINDS = 64
"""Largest number of family kinds, such as ``data-weather``, in a decoder. Other family kinds take the exact path."""
_EXTENDED_CHUNKS_BEFORE_WHOLE = 4
"""Number of chunks of one kind with more than the plain fields after which the decoder uses the class with all fields."""

REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors that the fast path raises if it refuses data."""

Read = Chunk | Terminator | Refusal | Remarked
"""The result of reading one event's data."""


class _Tagged(msgspec.Struct):
    type: str


class Reader(Protocol):
    """A reader of one stream: it turns the data of message events into chunks, in the order of the stream."""

    @property
    def reads_fields(self) -> bool:
        """True if the reader wants the events' own `event`, `id` and `retry` lines."""

    @property
    def fields(self) -> tuple[str | None, str | None, int | None]:
        """Return the values of those lines, as `set_fields` has set them."""

    def set_fields(self, name: str | None, own_id: str | None, retry: int | None, last_event_id: str) -> None:
        """Set the values of those lines of the events that come next, and the stream's last event ID."""

    @property
    def kinds(self) -> Mapping[type[Any], str]:
        """Return the class of each kind of chunk that is known now, with its kind."""

    @property
    def open_structs(self) -> AbstractSet[type[Chunk]]:
        """Return the classes whose chunks may hold a forbidden key."""

    def getter(self, kind: str, path: str) -> Getter | None:
        """Return the function that reads a path in a chunk of this kind; None if the kind has no such field."""

    def skew_of(self, kind: str) -> Sequence[tuple[tuple[str | None, str | None], str]]:
        """Return the version warnings of a kind: pairs of (field, value) and the text of the warning."""

    def kind_of(self, text: str, name: str | None) -> str | None:
        """Return the kind of an event, from its data and its own `event` line; None if it says none."""

    @property
    def decode(self) -> Callable[[str | bytes], Any]:
        """Return the fast path: it returns the chunk, which may still hold a forbidden key, or raises one of `REFUSALS`."""

    def judge(self, payload: str | bytes) -> "Read":
        """Return the result of reading data by the exact path."""

    def look_inside(self, read: Any, payload: str | bytes) -> Any:  # noqa: ANN401
        """Return the same chunk, or a refusal if its data holds a forbidden key."""

    def read(self, payloads: Sequence[Any]) -> tuple[list[Any], list[type]]:
        """Read the data of one or more events. Return the chunk, or other `Read`, of each, and the class of each."""

    def end(self) -> Sequence[Deviation]:
        """Return the rules about the whole stream that only its end shows to be broken."""


@attrs.define(eq=False, kw_only=True)
class ChunkReader:
    """A reader of one stream: it turns the data of message events into chunks, in the order of the stream."""

    schema: ChunkSchema
    """The kinds of chunk and their fields."""
    terminator: str | None
    """The exact data of the event that ends the stream; None if no such event does."""
    reads_fields = False
    fields: tuple[str | None, str | None, int | None] = (None, None, None)
    # Kind -> the number of its chunks that had more than the plain fields.
    _extended_chunks: Counter[str] = attrs.field(factory=Counter, init=False)
    # The kinds for which the decoder uses the class with all fields.
    _whole: set[str] = attrs.field(factory=set, init=False)
    # Kind, or prefix of a family -> its struct classes. A kind of a family is added when it first comes.
    _types: dict[str, ChunkTypes] = attrs.field(init=False)
    decode: Callable[[str | bytes], Chunk] = attrs.field(init=False)
    """The fast path: returns the chunk, which may still hold a forbidden key, or raises one of `REFUSALS`."""
    open_structs: AbstractSet[type[Chunk]] = attrs.field(init=False)
    """The struct classes whose chunks may hold a forbidden key."""

    def __attrs_post_init__(self) -> None:
        self._types = dict(self.schema.types)
        self.decode = self.schema.decoder.decode
        self.open_structs = self.schema.open_structs

    @property
    def kinds(self) -> Mapping[type[Any], str]:
        """Return the struct classes of all kinds that are known now, families by their prefix, each with its kind."""
        return {struct: kind for kind, types in self._types.items() for struct in (types.plain, types.whole)}

    def set_fields(
        self,
        name: str | None,
        own_id: str | None,
        retry: int | None,
        last_event_id: str,  # noqa: ARG002
    ) -> None:
        """Set the values of the other lines. A table of fields is about the data alone, but own rules may read them."""
        self.fields = (name, own_id, retry)

    def skew_of(self, kind: str) -> Sequence[tuple[tuple[str | None, str | None], str]]:
        """Return the version warnings of a kind: pairs of (field, value) and the text of the warning."""
        return self.schema.skew_of(kind)

    def kind_of(self, text: str, name: str | None) -> str | None:
        """Return the kind of an event, from its data alone; None if it says none."""
        if text == self.terminator:
            return text
        try:
            return msgspec.json.decode(text, type=_Tagged).type
        except REFUSALS:
            return name

    def end(self) -> Sequence[Deviation]:
        """Return what only the end shows: nothing."""
        return ()

    def getter(self, kind: str, path: str) -> Getter | None:
        """Return the function that reads a path in a chunk of this kind; None if the kind has no such field.

        Raises:
            ValueError: If the path leads into a field. A table of fields says nothing about what is inside.
        """
        field, *steps = parse_path(path)
        if field != "data" or len(steps) != 1:
            raise ValueError(
                f"the path {path} is not one field of the data, which is all that a table of fields knows"
            )
        return attrgetter(steps[0]) if steps[0] in (self.schema.fields_of(kind) or ()) else None

    def read(self, payloads: Sequence[Any]) -> tuple[list[Read], list[type]]:
        """Read the data of one or more events. Return the chunk, or other `Read`, of each, and the class of each."""
        reads: list[Read] = []
        waiting: Iterator[Any] = iter(payloads)
        while True:
            try:
                reads.extend(map(self.decode, waiting))
                break
            except REFUSALS:
                reads.append(self.judge(payloads[len(reads)]))
        structs = list(map(type, reads))
        alike = structs.count(structs[0]) == len(structs)
        if structs[0] in self.open_structs if alike else not self.open_structs.isdisjoint(structs):
            self._look_inside_all(payloads, reads, structs)
        return reads, structs

    def look_inside(self, read: Read, payload: str | bytes) -> Read:
        """Return the same chunk, or a refusal if its data holds a forbidden key."""
        if type(read) in self.open_structs and needs_look(payload):
            key = forbidden_key(parse(_decoded(payload)))
            return _with_remarks(read, (), payload) if key is None else _forbidden(key)
        return read

    def _look_inside_all(self, payloads: Sequence[Any], reads: list[Read], structs: list[type]) -> None:
        """Replace each chunk that holds a forbidden key by a refusal, in both lists."""
        hiding_places = [index for index, struct in enumerate(structs) if struct in self.open_structs]
        if needs_look(payloads[0][:0].join([payloads[index] for index in hiding_places])):
            for index in hiding_places:
                reads[index] = self.look_inside(reads[index], payloads[index])
                structs[index] = type(reads[index])

    def judge(self, payload: str | bytes) -> Read:
        """Return the result of reading data by the exact path, as the client would read it. This may replace `decode`."""
        text = _decoded(payload)
        if text == self.terminator:
            return Terminator()
        value = judge_text(self.schema, text)
        if isinstance(value, Refusal):
            return value
        kind = value[TAG]
        fields = self.schema.fields_of(kind) or {}
        if kind not in self._types and len(self._types) < len(self.schema.types) + _MAX_FAMILY_KINDS:
            self._add_family_kind(kind, fields)
        types = self._types.get(kind) or self._types[self.schema.family_of(kind) or kind]
        chunk = types.whole(**{name: value[name] for name in fields if name in value})
        unknown = tuple(name for name in value if name not in fields and name != TAG)
        if kind in self._types and not value.keys() <= {TAG, *types.plain.__struct_fields__}:
            self._count_extended_chunk(kind)
        return _with_remarks(chunk, unknown if self.schema.unknown_fields is not None else (), payload)

    def _count_extended_chunk(self, kind: str) -> None:
        """Count a chunk with more than the plain fields; after a few, let the decoder accept such chunks of this kind.

        The count depends on the fields of the chunks alone, so findings do not depend on how the bytes are cut.
        """
        self._extended_chunks[kind] += 1
        if self._extended_chunks[kind] == _EXTENDED_CHUNKS_BEFORE_WHOLE:
            self._whole.add(kind)
            self._replace_decoder()

    def _add_family_kind(self, kind: str, fields: Fields) -> None:
        """Add a kind of a family to the decoder."""
        types = make_types(kind, fields)
        self._types[kind] = types
        self.open_structs |= {types.whole} | ({types.plain} if types.has_open else set())
        self._replace_decoder()

    def _replace_decoder(self) -> None:
        """Make a new decoder for the kinds that are known now."""
        self.decode = make_decoder(self._types, whole=self._whole).decode


def _with_remarks(chunk: Chunk, unknown: tuple[str, ...], payload: str | bytes) -> Chunk | Remarked:
    """Return the chunk, with remarks if it has unknown fields, or an integer that JavaScript rounds."""
    rounded = rounded_in(payload)
    return Remarked(chunk, unknown, rounded) if unknown or rounded else chunk


def rounded_in(payload: str | bytes) -> tuple[Deviation, ...]:
    """Return the deviation of JSON with an integer that JavaScript may round; else nothing."""
    found = unsafe_integer(_decoded(payload)) if may_hold_unsafe_integer(payload) else None
    if found is None:
        return ()
    sent, written = found
    read_as = f", which JavaScript reads as {printable(written)}" if written != sent else ""
    wanted = f"integers up to {MAX_SAFE_INTEGER}, which JavaScript keeps exactly"
    return (Deviation("json.unsafe-integer", wanted, printable(sent) + read_as),)


def needs_look(payload: str | bytes) -> bool:
    """Return True if the text of a chunk with any JSON in it may hold a forbidden key or a long integer."""
    return is_suspect(payload) or may_hold_unsafe_integer(payload)


def judge_text(schema: ChunkSchema, text: str) -> dict[str, Any] | Refusal:
    """Return the fields of a chunk, or the first reason why the client refuses the data."""
    try:
        value = parse(text)
    except NotJsonError as error:
        return Refusal(Deviation("json.syntax", "JSON", f"{escaped_lines(text)} ({error})"))
    key = forbidden_key(value)
    if key is not None:
        return _forbidden(key)
    if not isinstance(value, dict):
        return Refusal(Deviation("schema.not-object", "an object", printable(text)))
    kind = value.get(TAG)
    fields = schema.fields_of(kind) if isinstance(kind, str) else None
    if fields is None or not isinstance(kind, str):
        return Refusal(Deviation("schema.unknown-kind", "a known type", _shown(text, value, TAG)))
    good = {
        name: value[name]
        for name, field in fields.items()
        if name in value and field.type.accepts(value[name])
    }
    for name, field in fields.items():
        if name in good or (name not in value and not field.required):
            continue
        rule = "schema.field-type" if name in value else "schema.missing-field"
        wanted = f"{kind} with a field {name}: {field.type.name}"
        got = _shown(text, value, name)
        if value.get(name, MISSING) is None and not field.required:
            got += NULL_IS_NOT_ABSENT
        absent = {name: msgspec.UNSET for name, field in fields.items() if not field.required}
        chunk = SimpleNamespace(**{**absent, **good})
        return Refusal(Deviation(rule, wanted, got, path=f"/data/{name}"), kind, chunk)
    return value


def _forbidden(key: str) -> Refusal:
    """Return the refusal of data with this key, which could reach the prototype of a JavaScript object."""
    return Refusal(Deviation("json.prototype", "no key that reaches a prototype", key))


def _shown(text: str, value: dict[str, Any], name: str) -> str:
    """Return a field with its value as it was sent, for a finding; if it is absent, the names of the fields that came.

    Args:
        text: The data of the event.
        value: The object in it.
        name: The name of the field.
    """
    if name not in value:
        return f"no {name}, only {escaped(', '.join(value))}"
    return f"{name}: {printable(sent_text(text, (name,), value[name]))}"


def _decoded(payload: str | bytes) -> str:
    """Return a payload as text. Bytes that are not UTF-8 become U+FFFD, as in a client."""
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
