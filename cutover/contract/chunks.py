"""The schema of a stream's chunks, as data: the kinds and their fields.

A chunk is the JSON object in a message event's data. Its `type` field names its kind. One table lists the fields of each
kind. Two checks are made from this table:

- The fast path is a msgspec tagged union. If it accepts a chunk, the chunk is good, unless it has a forbidden key.
- The exact path checks the fields one by one. It judges the data that the fast path refuses, and describes the defect.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Union

import attrs
import msgspec

from cutover.contract.findings import Deviation

TAG = "type"
"""The name of the field that holds a chunk's kind."""


@attrs.frozen(kw_only=True)
class FieldType:
    """The set of values that a field may have."""

    name: str
    """The description that a finding shows, such as `a string`."""
    accepts: Callable[[Any], bool]
    """Returns True if the client accepts this value. The value is parsed as JavaScript parses it: all numbers are floats."""
    fast: Any
    """The msgspec type that accepts only such values. None if no msgspec type does; the exact path then judges every value."""
    is_open: bool = False
    """True if a value may hold objects with any keys. Such a value must be searched for forbidden keys (`__proto__`)."""


def _is_json(value: object) -> bool:
    """Return True if the AI SDK accepts this as a JSON value.

    It accepts all JSON without infinite numbers: JavaScript reads 1e999 as Infinity, and zod's `number()` refuses it.
    """
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, float) and not math.isfinite(node):
            return False
        waiting.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    return True


def _is_object_of_json(value: object) -> bool:
    """Return True if this is an object and `_is_json` holds for it."""
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
    """Return the type of a field that has one of these strings."""
    return FieldType(
        name="one of " + ", ".join(values),
        accepts=lambda value: isinstance(value, str) and value in values,
        fast=Literal[values],
    )


def list_of(name: str, accepts: Callable[[Any], bool]) -> FieldType:
    """Return the type of a field that holds a list. The exact path judges every such list.

    Args:
        name: The plural noun for the elements, in words.
        accepts: Returns True if an element is good.
    """
    return FieldType(
        name=f"a list of {name}",
        accepts=lambda value: isinstance(value, list) and all(map(accepts, value)),
        fast=None,
        is_open=True,
    )


@attrs.frozen
class Field:
    """One field of a kind of chunk."""

    type: FieldType
    """The values that the field may have."""
    required: bool = True
    """True if every chunk of the kind must have the field."""


def optional(field_type: FieldType) -> Field:
    """Return a field that may be absent. Null is a value and is not the same as absent."""
    return Field(field_type, required=False)


Fields = Mapping[str, Field]
"""Name of a field -> the field."""


@attrs.frozen(kw_only=True, eq=False)
class ChunkSchema:
    """The kinds of chunk that a contract knows, with their fields."""

    kinds: Mapping[str, Fields]
    """Name of a kind -> its fields."""
    families: Mapping[str, Fields] = attrs.field(factory=dict)
    """Prefix, such as `data-` -> the fields of every kind that begins with this prefix. These kinds are one family."""
    unknown_fields: str | None = None
    """The warning about a field that the schema does not list; None if such fields are allowed without a warning."""
    skew: Mapping[tuple[str, str | None, str | None], str] = attrs.field(factory=dict)
    """(kind, field, value) that other versions of the client refuse -> the text of the warning.

    If the field is None, the entry is about every chunk of the kind.
    """
    _skew_by_kind: Mapping[str, Sequence[tuple[tuple[str | None, str | None], str]]] = attrs.field(init=False)

    def skew_of(self, kind: str) -> Sequence[tuple[tuple[str | None, str | None], str]]:
        """Return the version warnings of a kind: pairs of (field, value) and the text of the warning."""
        return self._skew_by_kind.get(kind, ())

    @_skew_by_kind.default
    def _(self) -> Mapping[str, Sequence[tuple[tuple[str | None, str | None], str]]]:
        kinds = {kind for kind, _, _ in self.skew}
        return {
            kind: [(key[1:], note) for key, note in self.skew.items() if key[0] == kind] for kind in kinds
        }

    def fields_of(self, kind: str) -> Fields | None:
        """Return the fields of a kind; None if the kind is not known."""
        fields = self.kinds.get(kind)
        if fields is None:
            family = self.family_of(kind)
            return None if family is None else self.families[family]
        return fields

    def family_of(self, kind: str) -> str | None:
        """Return the prefix of the family that a kind belongs to; None if it belongs to none."""
        return next((prefix for prefix in self.families if kind.startswith(prefix)), None)

    # Three values that belong together: the decoder makes chunks of these classes, and a reader searches chunks of these
    # classes for forbidden keys. They stay with their schema, so that no reader can meet classes that were made twice.

    @cached_property
    def types(self) -> "Mapping[str, ChunkTypes]":
        """Return the struct classes: name of a kind, or prefix of a family -> its classes."""
        return {
            kind: make_types(kind, fields) for kind, fields in (*self.kinds.items(), *self.families.items())
        }

    @cached_property
    def open_structs(self) -> "frozenset[type[Chunk]]":
        """Return the struct classes whose chunks may hold a forbidden key."""
        types = self.types.values()
        return frozenset({each.plain for each in types if each.has_open} | {each.whole for each in types})

    @cached_property
    def decoder(self) -> "msgspec.json.Decoder[Chunk]":
        """Return the first decoder of every reader. A reader makes its own for new kinds or more fields."""
        return make_decoder(self.types, whole=())


Chunk = msgspec.Struct
"""A decoded chunk. Its class stands for its kind: it is made from the schema (`ChunkTypes`), or for the kind (`EventChunk`).

Each field of a class from a schema is an attribute. An absent field is `msgspec.UNSET`.
"""


class Terminator(msgspec.Struct, frozen=True, gc=False):
    """The event that ends the stream, such as `[DONE]`."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Data that the contract does not accept as a chunk, with the first rule that the data breaks."""

    deviation: Deviation
    """The broken rule."""
    kind: str | None = None
    """The kind, if the data has a known one and no forbidden key; else None."""
    chunk: Any = None
    """The good part of a chunk of that kind: its attributes are those of a chunk, but some may be missing. None without a kind."""


class Remarked(msgspec.Struct, frozen=True, gc=False):
    """A chunk that the client accepts, but about which there is something to say."""

    chunk: Chunk
    """The accepted chunk."""
    unknown: tuple[str, ...] = ()
    """The names of the fields, or the paths to them, that the contract does not list."""
    deviations: tuple[Deviation, ...] = ()
    """Other rules that the chunk breaks."""


@attrs.frozen(kw_only=True, eq=False)
class ChunkTypes:
    """The two struct classes of one kind of chunk."""

    plain: type[Chunk]
    """The class without optional open fields, which refuses unknown fields. Most chunks fit it, and it is faster."""
    whole: type[Chunk]
    """The class with all fields of the kind, which ignores unknown fields."""
    has_open: bool
    """True if the plain class has a field that may hold objects with any keys."""


def make_types(kind: str, fields: Fields) -> ChunkTypes:
    """Return the struct classes of a kind with these fields."""
    plain = {name: field for name, field in fields.items() if field.required or not field.type.is_open}
    return ChunkTypes(
        plain=_make_struct(kind, plain, forbid_unknown_fields=True),
        whole=_make_struct(kind, fields, forbid_unknown_fields=False),
        has_open=any(field.type.is_open for field in plain.values()),
    )


def make_decoder(types: Mapping[str, ChunkTypes], *, whole: Collection[str]) -> "msgspec.json.Decoder[Chunk]":
    """Return a decoder for these kinds.

    Args:
        types: Kind -> its struct classes.
        whole: The kinds for which the class with all fields is used.
    """
    structs = tuple(each.whole if kind in whole else each.plain for kind, each in types.items())
    return msgspec.json.Decoder(Union[structs])  # noqa: UP007  made at run time


_NOTHING = Annotated[int, msgspec.Meta(gt=0, lt=0)]
"""A type that accepts no value, so that the exact path judges every value."""


def _make_struct(kind: str, fields: Fields, *, forbid_unknown_fields: bool) -> type[Chunk]:
    """Return a struct class of a kind, with required fields first, as msgspec asks."""
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
