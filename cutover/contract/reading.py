"""Message data -> chunks: fast where msgspec and JavaScript agree, exact where they might not.

What msgspec accepts, the client accepts (but for forbidden keys, which are looked for); what it refuses is judged again, by
the same table of fields, as the client would.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from cutover.text import printable

_MAX_FAMILY_KINDS = 64
"""Kinds of a family (``data-weather``) that a reader gets to know; more of them go the exact way, one by one."""
_PATIENCE = 4
"""Chunks with fields beyond the plain ones that are judged exactly before the reader takes whole chunks at once."""

REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the fast path raises where it does not take something."""

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
    decode: Callable[[str | bytes], Chunk] = attrs.field(init=False)
    """The fast path: what it gives is what the client takes, but for forbidden keys; what it refuses, `judge` decides."""
    open_structs: AbstractSet[type[Chunk]] = attrs.field(init=False)
    """Structs in which a forbidden key could hide."""

    def __attrs_post_init__(self) -> None:
        self._types = dict(known_types(self.schema))
        self.decode = _shared_decoder(self.schema).decode
        self.open_structs = _open_structs(self.schema)

    def read(self, payloads: Sequence[Any]) -> tuple[list[Read], list[type]]:
        """What each of `payloads` is, and of which type that is."""
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
        """What was decoded, unless it holds a forbidden key."""
        if type(read) in self.open_structs and is_suspect(payload):
            key = forbidden_key(parse(_decoded(payload)))
            return read if key is None else _forbidden(key)
        return read

    def _look_inside_all(self, payloads: Sequence[Any], reads: list[Read], structs: list[type]) -> None:
        hiding_places = [index for index, struct in enumerate(structs) if struct in self.open_structs]
        if is_suspect(payloads[0][:0].join([payloads[index] for index in hiding_places])):
            for index in hiding_places:
                reads[index] = self.look_inside(reads[index], payloads[index])
                structs[index] = type(reads[index])

    def judge(self, payload: str | bytes) -> Read:
        """The exact path: what the client makes of this data."""
        text = _decoded(payload)
        if text == self.terminator:
            return Terminator()
        value = judge_text(self.schema, text)
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
        self.open_structs |= {types.whole} | ({types.plain} if types.has_open else set())
        self._renew()

    def _renew(self) -> None:
        self.decode = _make_decoder(self._types, whole=self._whole).decode


def judge_text(schema: ChunkSchema, text: str) -> dict[str, Any] | Refusal:
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
