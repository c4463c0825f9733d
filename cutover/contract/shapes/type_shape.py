"""Shapes given by a type that msgspec takes: `Struct`, dataclass, attrs class, `TypedDict`, `Literal`, unions."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec

from cutover.contract.findings import Deviation, Severity
from cutover.contract.foreign import words_of
from cutover.contract.shapes.places import MAX_UNKNOWN, names_of, path_of, shown, without
from cutover.text import escaped, printable

_PLACE = re.compile(r"^(?P<what>.*) - at `(?P<place>(?:key in )?\$.*)`$", re.DOTALL)


@attrs.frozen
class _Items:
    """A list, or an object with any keys, and the tree of each of its values."""

    tree: Any
    is_list: bool


@attrs.frozen
class _Tagged:
    """A union: the field that tells its types apart, and the tree of each type."""

    field: str
    trees: Mapping[Any, Any]


_Tree = Mapping[str, Any] | _Items | _Tagged | None
"""Name of a field -> the tree of its value. None: anything may be inside."""


def known_names(info: Any, depth: int = 0) -> _Tree:  # noqa: ANN401, PLR0911  a tree of msgspec's own classes
    """Return the names of the fields that a type knows, as far as they can be told."""
    inspect_ = msgspec.inspect
    # A type may contain itself.
    if depth > 8:  # noqa: PLR2004
        return None
    match info:
        case inspect_.Metadata(type=inner):
            return known_names(inner, depth)
        case (
            inspect_.StructType()
            | inspect_.DataclassType()
            | inspect_.TypedDictType()
            | inspect_.NamedTupleType()
        ):
            if isinstance(info, inspect_.NamedTupleType) or (
                isinstance(info, inspect_.StructType) and info.array_like
            ):
                return None
            names = {field.encode_name: known_names(field.type, depth + 1) for field in info.fields}
            tag_field = getattr(info, "tag_field", None)
            return names if tag_field is None else {tag_field: None, **names}
        case (
            inspect_.ListType(item_type=item)
            | inspect_.VarTupleType(item_type=item)
            | inspect_.SetType(item_type=item)
        ):
            return _Items(known_names(item, depth + 1), is_list=True)
        case inspect_.DictType(value_type=item):
            return _Items(known_names(item, depth + 1), is_list=False)
        case inspect_.UnionType(types=types):
            options = [option for option in types if not isinstance(option, inspect_.NoneType)]
            if len(options) == 1:
                return known_names(options[0], depth + 1)
            structs = [option for option in options if isinstance(option, inspect_.StructType)]
            # Only structs with tags can stand in a union with others, and then all have the same tag field.
            if len(structs) < len(options) or structs[0].tag_field is None:
                return None
            return _Tagged(structs[0].tag_field, {each.tag: known_names(each, depth + 1) for each in structs})
        case _:
            return None


def closed_names(info: Any) -> tuple[frozenset[str], ...]:  # noqa: ANN401  a tree of msgspec's own classes
    """Return the fields of each type, among the options of a type, that refuses all other fields."""
    options = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return tuple(
        frozenset({each.tag_field or "", *(field.encode_name for field in each.fields)})
        for each in options
        if isinstance(each, msgspec.inspect.StructType) and each.forbid_unknown_fields
    )


def _unknown(value: Any, tree: _Tree, place: tuple[str, ...]) -> Iterable[str]:  # noqa: ANN401
    """Yield the paths to the fields of a value that the tree does not know."""
    match tree:
        case _Items(tree=inner, is_list=True) if isinstance(value, list):
            for item in value:
                yield from _unknown(item, inner, (*place, "*"))
        case _Items(tree=inner, is_list=False) if isinstance(value, dict):
            for item in value.values():
                yield from _unknown(item, inner, (*place, "*"))
        case _Tagged(field=field, trees=trees) if isinstance(value, dict):
            yield from _unknown(value, trees.get(value.get(field)), place)
        case Mapping() if isinstance(value, dict):
            for name, item in value.items():
                if name in tree:
                    yield from _unknown(item, tree[name], (*place, name))
                else:
                    yield "/".join((*place, name))


def _may_have(tree: _Tree, steps: tuple[str, ...]) -> bool:
    """Return False if no value that the tree describes has a value at these names."""
    if tree is None or not steps:
        return True
    match tree:
        case _Items(tree=inner):
            return _may_have(inner, steps[1:])
        case _Tagged(trees=trees):
            return any(_may_have(each, steps) for each in trees.values())
        case _:
            return steps[0] in tree and _may_have(tree[steps[0]], steps[1:])


def _with_tag(tree: _Tree, tag: str) -> _Tree:
    """Return the tree of objects that may have the field with their kind too."""
    match tree:
        case _Tagged(field=field, trees=trees):
            return _Tagged(field, {name: _with_tag(each, tag) for name, each in trees.items()})
        case Mapping():
            return {tag: None, **tree}
        case _:
            return tree


@attrs.frozen
class TypeShape:
    """A shape given by a type that msgspec takes."""

    type: Any
    names: _Tree
    closed: tuple[frozenset[str], ...] = ()
    """For each type among the options that refuses fields that it does not list: the fields that it lists."""
    hidden: str | None = None
    """The field with the kind, which the type must not see; None if it lists that field, or refuses none."""
    listed: frozenset[str] | None = attrs.field(init=False)
    """The fields that the type lists, if it knows no fields below them; else None."""
    is_text = False

    @listed.default
    def _look_below(self) -> frozenset[str] | None:
        names = self.names
        return frozenset(names) if isinstance(names, Mapping) and not any(names.values()) else None

    def beside(self, tag: str) -> "TypeShape":
        """Return the same shape for objects that have the field with their kind too."""
        hidden = tag if any(tag not in listed for listed in self.closed) else None
        return attrs.evolve(self, names=_with_tag(self.names, tag), hidden=hidden)

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401
        """Return the first rule that this data breaks; None if the data is right."""
        try:
            seen = value if self.hidden is None else without(value, self.hidden)
            msgspec.convert(seen, self.type, str_keys=True)
        except msgspec.ValidationError as error:
            return _of_msgspec(str(error), value, text)
        except Exception as error:  # noqa: BLE001  lone surrogates in a tag, or an error of the owner's `__post_init__`
            got = f"{shown('/data', value, text)} ({words_of(error)})"
            return Deviation("schema.value", "data that its type accepts", got, path="/data")
        return None

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401, ARG002
        """Return the paths to the fields that the type does not know. Of a union without tags nothing is known."""
        # Most events have no more fields than their type lists.
        if self.listed is not None and type(value) is dict and self.listed.issuperset(value):
            return ()
        return tuple(dict.fromkeys(_unknown(value, self.names, ())))[:MAX_UNKNOWN]

    def has_path(self, steps: tuple[str, ...]) -> bool:
        """Return False if the type knows all its fields, and none of them is there."""
        return _may_have(self.names, steps)


def _of_msgspec(message: str, value: Any, text: str) -> Deviation:  # noqa: ANN401
    """Return the deviation that one message of msgspec tells."""
    found = _PLACE.match(message)
    what, place = (found["what"], found["place"]) if found else (message, "$")
    path, held = path_of(place.removeprefix("key in "), value)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if missing:
        return Deviation(
            "schema.missing-field", f"a field {missing[1]}", names_of(held), path=path, keyword="required"
        )
    extra = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if extra:
        return Deviation(
            "schema.unknown-field",
            "only known fields",
            escaped(extra[1]),
            severity=Severity.VIOLATION,
            path=path,
        )
    got = shown(path, held, text)
    if what.startswith("Invalid "):
        return Deviation("schema.unknown-value", "a known value", got, path=path, keyword="enum")
    wanted = re.fullmatch(r"Expected `(.*?)`(, got .*)?", what, re.DOTALL)
    if wanted and wanted[2]:
        return Deviation("schema.field-type", wanted[1], got, path=path, keyword="type")
    return Deviation("schema.value", printable(what.removeprefix("Expected ")), got, path=path)
