"""What the chunks of a stream look like: the wire schema, as data.

A chunk is the JSON object in a message event's data; its `type` says of which kind it is. One table says what a kind's fields
are. Two readings are made of it: a msgspec tagged union, fast, and believed when it accepts; and, for what that refuses, the
same fields one by one, with words for what is wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import attrs
import msgspec

TAG = "type"
"""The field that names a chunk's kind."""


@attrs.frozen(kw_only=True)
class FieldType:
    """What a field's value may be."""

    name: str
    """In words, for a finding."""
    accepts: Callable[[Any], bool]
    """Whether the client takes this value, parsed as JavaScript would."""
    fast: Any
    """The msgspec type of the same values; None where none comes close, so that the exact path judges each."""
    is_open: bool = False
    """May hold objects with any keys: what is forbidden in a key must be looked for."""


def _is_json(value: object) -> bool:
    """The AI SDK's JSON value: JSON without infinite numbers (zod's number() refuses what 1e999 becomes)."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, float) and not math.isfinite(node):
            return False
        waiting.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    return True


def _is_object_of_json(value: object) -> bool:
    return isinstance(value, dict) and _is_json(value)


STRING = FieldType(name="a string", accepts=lambda value: isinstance(value, str), fast=str)
BOOLEAN = FieldType(name="a boolean", accepts=lambda value: isinstance(value, bool), fast=bool)
ANY = FieldType(name="any JSON value", accepts=lambda _: True, fast=msgspec.Raw, is_open=True)
OBJECT = FieldType(name="an object", accepts=_is_object_of_json, fast=dict[str, Any], is_open=True)
OBJECT_OF_OBJECTS = FieldType(
    name="an object of objects",
    accepts=lambda value: (
        _is_object_of_json(value) and all(isinstance(each, dict) for each in value.values())
    ),
    fast=dict[str, dict[str, Any]],
    is_open=True,
)


def one_of(*values: str) -> FieldType:
    """One of these strings."""
    return FieldType(
        name="one of " + ", ".join(values),
        accepts=lambda value: isinstance(value, str) and value in values,
        fast=Literal[values],
    )


def list_of(name: str, accepts: Callable[[Any], bool]) -> FieldType:
    """A list of what `accepts` takes; each is judged by the exact path."""
    return FieldType(
        name=f"a list of {name}",
        accepts=lambda value: isinstance(value, list) and all(map(accepts, value)),
        fast=None,
        is_open=True,
    )


@attrs.frozen
class Field:
    """A field of a kind of chunk."""

    type: FieldType
    required: bool = True


def optional(field_type: FieldType) -> Field:
    """A field that may be absent, which is not the same as null."""
    return Field(field_type, required=False)


Fields = Mapping[str, Field]


@attrs.frozen(kw_only=True, eq=False)
class ChunkSchema:
    """The kinds of chunk that a contract knows."""

    kinds: Mapping[str, Fields]
    """Kind -> its fields."""
    families: Mapping[str, Fields] = attrs.field(factory=dict)
    """Prefix of a kind -> the fields of all kinds with this prefix."""
    unknown_fields: str | None = None
    """What to warn of where a field is not known; None where nobody minds."""
    skew: Mapping[tuple[str, str | None, str | None], str] = attrs.field(factory=dict)
    """(kind, field, value) that this client takes -> which others refuse it; None stands for any."""
    _skew_by_kind: Mapping[str, Sequence[tuple[tuple[str | None, str | None], str]]] = attrs.field(init=False)

    def skew_of(self, kind: str) -> Sequence[tuple[tuple[str | None, str | None], str]]:
        """(field, value) of a kind -> which other versions refuse it."""
        return self._skew_by_kind.get(kind, ())

    @property
    def skewed(self) -> frozenset[str]:
        """Kinds of which there is anything to say."""
        return frozenset(self._skew_by_kind)

    @_skew_by_kind.default
    def _(self) -> Mapping[str, Sequence[tuple[tuple[str | None, str | None], str]]]:
        kinds = {kind for kind, _, _ in self.skew}
        return {
            kind: [(key[1:], note) for key, note in self.skew.items() if key[0] == kind] for kind in kinds
        }

    def fields_of(self, kind: str) -> Fields | None:
        """The fields of a kind; None where the kind is not known."""
        fields = self.kinds.get(kind)
        if fields is None:
            family = self.family_of(kind)
            return None if family is None else self.families[family]
        return fields

    def family_of(self, kind: str) -> str | None:
        """The prefix of the family that a kind belongs to."""
        return next((prefix for prefix in self.families if kind.startswith(prefix)), None)


Chunk = msgspec.Struct
"""A chunk: a struct made of a schema; its fields are attributes, `msgspec.UNSET` where absent."""


class Terminator(msgspec.Struct, frozen=True, gc=False):
    """The event that says that no more comes: `[DONE]`."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Data that is no chunk of the schema, by the rule that says so."""

    rule: str
    expected: str
    actual: str
    kind: str | None = None
    """The kind that it says it is, where that is a known one."""
    values: Mapping[str, Any] = {}
    """Its fields, as far as they are what they should be."""


class Remarked(msgspec.Struct, frozen=True, gc=False):
    """A chunk that is taken, with something to say about it."""

    chunk: Chunk
    unknown: tuple[str, ...]
    """Fields that the schema does not know."""


@attrs.frozen(kw_only=True, eq=False)
class ChunkTypes:
    """The structs of one kind of chunk."""

    plain: type[Chunk]
    """Without its optional open fields, and refusing what it does not know: what most chunks are."""
    whole: type[Chunk]
    """With all its fields, whatever else there may be."""
    has_open: bool
    """Even the plain one may hold objects with any keys."""


@lru_cache(maxsize=32)
def known_types(schema: ChunkSchema) -> Mapping[str, ChunkTypes]:
    """The structs of every kind that a schema names, and of every family, by its prefix."""
    kinds = {kind: make_types(kind, fields) for kind, fields in schema.kinds.items()}
    return kinds | {prefix: make_types(prefix, fields) for prefix, fields in schema.families.items()}


def make_types(kind: str, fields: Fields) -> ChunkTypes:
    """Make the structs of a kind."""
    plain = {name: field for name, field in fields.items() if field.required or not field.type.is_open}
    return ChunkTypes(
        plain=_make_struct(kind, plain, forbid_unknown_fields=True),
        whole=_make_struct(kind, fields, forbid_unknown_fields=False),
        has_open=any(field.type.is_open for field in plain.values()),
    )


_NOTHING = Annotated[int, msgspec.Meta(gt=0, lt=0)]
"""A type that takes no value at all: the exact path judges whatever comes."""


def _make_struct(kind: str, fields: Fields, *, forbid_unknown_fields: bool) -> type[Chunk]:
    members: list[Any] = []
    for name, field in sorted(fields.items(), key=lambda item: not item[1].required):
        fast = _NOTHING if field.type.fast is None else field.type.fast
        members.append((name, fast) if field.required else (name, fast | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(
        "".join(part.title() for part in kind.split("-")) or "Chunk",
        members,
        tag_field=TAG,
        tag=kind,
        frozen=True,
        gc=False,
        forbid_unknown_fields=forbid_unknown_fields,
    )
