"""Message data -> chunks: fast where msgspec and JavaScript agree, exact where they might not.

What msgspec accepts, the client accepts (but for forbidden keys, which are looked for); what it refuses is judged again, by
the same table of fields, as the client would.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, Union

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
    known_types,
    make_types,
)
from cutover.contract.javascript import NotJsonError, forbidden_key, is_suspect, parse
from cutover.quoting import printable

_MAX_FAMILY_KINDS = 64
"""Kinds of a family (``data-weather``) that a reader gets to know; more of them go the exact way, one by one."""
_PATIENCE = 4
"""Chunks with fields beyond the plain ones that are judged exactly before the reader takes whole chunks at once."""

Read = Chunk | Terminator | Refusal | Remarked


@lru_cache(maxsize=64)
def _shared_decoder(schema: ChunkSchema) -> "msgspec.json.Decoder[Chunk]":
    return _make_decoder(known_types(schema), whole=())


def _make_decoder(
    types: Mapping[str, ChunkTypes], *, whole: Collection[str]
) -> "msgspec.json.Decoder[Chunk]":
    structs = tuple(each.whole if kind in whole else each.plain for kind, each in types.items())
    return msgspec.json.Decoder(Union[structs])  # noqa: UP007  made at run time


@lru_cache(maxsize=32)
def _open_structs(schema: ChunkSchema) -> frozenset[type[Chunk]]:
    """Structs in which a forbidden key could hide."""
    types = known_types(schema).values()
    return frozenset({each.plain for each in types if each.has_open} | {each.whole for each in types})


@attrs.define(eq=False, kw_only=True)
class ChunkReader:
    """Reads the data of message events, in their order."""

    schema: ChunkSchema
    terminator: str
    """Data that ends the stream, to the letter."""
    _strange: Counter[str] = attrs.field(
        factory=Counter, init=False
    )  # chunks with more than the plain fields, by kind
    _whole: set[str] = attrs.field(
        factory=set, init=False
    )  # kinds of which whole chunks are taken at once, else plain ones
    _types: dict[str, ChunkTypes] = attrs.field(init=False)  # by kind; those of a family as they come
    _decoder: "msgspec.json.Decoder[Chunk]" = attrs.field(init=False)
    _open: AbstractSet[type[Chunk]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._types = dict(known_types(self.schema))
        self._decoder = _shared_decoder(self.schema)
        self._open = _open_structs(self.schema)

    def read(self, payloads: Sequence[Any]) -> tuple[list[Read], list[type]]:
        """What each of `payloads` is, and of which type that is."""
        reads: list[Read] = []
        waiting: Iterator[Any] = iter(payloads)
        while True:
            try:
                reads.extend(map(self._decoder.decode, waiting))
                break
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                reads.append(self._judge(payloads[len(reads)]))
        kinds = list(map(type, reads))
        alike = kinds.count(kinds[0]) == len(kinds)
        if kinds[0] in self._open if alike else not self._open.isdisjoint(kinds):
            self._look_for_forbidden_keys(payloads, reads, kinds)
        return reads, kinds

    def read_one(self, payload: str | bytes) -> Read:
        """What `payload` is."""
        try:
            read: Read = self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            read = self._judge(payload)
        else:
            if type(read) in self._open and is_suspect(payload):
                key = forbidden_key(parse(_decoded(payload)))
                read = read if key is None else _forbidden(key)
        return read

    def _look_for_forbidden_keys(self, payloads: Sequence[Any], reads: list[Read], kinds: list[type]) -> None:
        joined = "\n".join(payloads) if isinstance(payloads[0], str) else b"\n".join(payloads)
        if not is_suspect(joined):
            return
        for index, payload in enumerate(payloads):
            if kinds[index] in self._open and is_suspect(payload):
                key = forbidden_key(parse(_decoded(payload)))
                if key is not None:
                    reads[index] = _forbidden(key)
                    kinds[index] = Refusal

    def _judge(self, payload: str | bytes) -> Read:
        """The exact path: what the client makes of this data."""
        text = _decoded(payload)
        if text == self.terminator:
            return Terminator()
        value = judge(self.schema, text)
        if isinstance(value, Refusal):
            return value
        kind = value[TAG]
        fields = self.schema.fields_of(kind) or {}
        if kind not in self._types and len(self._types) < len(known_types(self.schema)) + _MAX_FAMILY_KINDS:
            self._meet(kind, fields)
        types = self._types.get(kind) or self._types[self.schema.family_of(kind) or kind]
        chunk = types.whole(**{name: value[name] for name in fields if name in value})
        unknown = tuple(name for name in value if name not in fields and name != TAG)
        if kind in self._types and not value.keys() <= {TAG, *types.plain.__struct_fields__}:
            self._put_up_with(kind)
        return Remarked(chunk, unknown) if unknown and self.schema.unknown_fields is not None else chunk

    def _put_up_with(self, kind: str) -> None:
        """A chunk of this kind has more than the plain fields; after a few the fast path takes such chunks whole.

        It counts what is in the chunk, not how it came here, so that findings do not depend on how the bytes are cut.
        """
        self._strange[kind] += 1
        if self._strange[kind] == _PATIENCE:
            self._whole.add(kind)
            self._renew()

    def _meet(self, kind: str, fields: Fields) -> None:
        """A kind of a family came for the first time; from now on the fast path knows it."""
        types = make_types(kind, fields)
        self._types[kind] = types
        self._open |= {types.whole} | ({types.plain} if types.has_open else set())
        self._renew()

    def _renew(self) -> None:
        self._decoder = _make_decoder(self._types, whole=self._whole)


def judge(schema: ChunkSchema, text: str) -> dict[str, Any] | Refusal:
    """What the client makes of one event's data, exactly: JSON, then the schema, field by field."""
    try:
        value = parse(text)
    except NotJsonError as error:
        return Refusal("json.syntax", "JSON", f"{printable(text)} ({error})")
    key = forbidden_key(value)
    if key is not None:
        return _forbidden(key)
    if not isinstance(value, dict):
        return Refusal("schema.not-object", "an object", printable(text))
    kind = value.get(TAG)
    fields = schema.fields_of(kind) if isinstance(kind, str) else None
    if fields is None or not isinstance(kind, str):
        return Refusal("schema.unknown-kind", "a known type", _shown(value, TAG))
    good = {
        name: value[name]
        for name, field in fields.items()
        if name in value and field.type.accepts(value[name])
    }
    for name, field in fields.items():
        if name in good or (name not in value and not field.required):
            continue
        rule = "schema.field-type" if name in value else "schema.missing-field"
        return Refusal(rule, f"{kind} with {name}, {field.type.name}", _shown(value, name), kind, good)
    return value


def _forbidden(key: str) -> Refusal:
    return Refusal("json.prototype", "no key that reaches a prototype", key)


def _shown(value: dict[str, Any], name: str) -> str:
    return (
        printable(f"{name}: {value[name]!r}")
        if name in value
        else f"no {name}, but {printable(', '.join(value))}"
    )


def _decoded(payload: str | bytes) -> str:
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
