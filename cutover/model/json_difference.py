"""The differences between JSON values of two services, by their places, without the noise of each service.

Each service gave several values. At each place, the types and then the values of one service are compared with each other:

- the same in all answers of both services: nothing to tell;
- one in all answers of one service, and another in all answers of the other service: a difference;
- several in both services: noise, which is left out and told;
- several in one service alone: a difference too.

Type and presence are judged apart from the value: a random id that becomes a number, or is missing, is a difference.

``1`` and ``1.0`` are the same number, ``true`` and ``1`` are not the same. The order of an object's keys has no meaning. The order of a
list has: lists are compared item by item. A list whose length varies within both services has no fixed items, and neither has an object
with keys that come and go, such as random ids: of these, only the types of all items together are compared.

The module is a little longer than most, because types, values and arrays are compared by the same rules.
"""

import enum
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import attrs
import msgspec

from cutover.model.text_difference import around_difference, diff, first_difference
from cutover.text import printable

VOLATILE = frozenset({"generated_at", "generatedAt", "request_id", "requestId"})
"""Keys that the lane's services fill anew in each answer, and may name differently."""
MAX_DIFFERENCES = 100
"""Differences, and places of noise, that are kept. The numbers of all of them are kept too, up to the end of the comparison."""
VARIES = "differs between two answers of each service"
IGNORED = "the manifest says to ignore it"
KNOWN = "it is new in each answer"
NEW_ALONE = "it names the revision or the instance, and only the new service has it"
_SHOWN_VALUES = 3


Container = TypeVar("Container", dict[str, object], list[object])


class _Missing(enum.Enum):
    MISSING = "nothing"


MISSING = _Missing.MISSING
_TYPES: dict[type, str] = {
    _Missing: "nothing",
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}
"""Python type -> JSON type. Python takes True for a number, and JSON does not."""


class _Outcome(enum.Enum):
    SAME = "the same in every answer"
    NOISE = "several in both services"
    DIFFERENT = "another in each service"
    ONE_SIDED = "several in one service alone"


@attrs.frozen(kw_only=True)
class Difference:
    """One difference between the services."""

    place: str
    """The place as ``ignore`` of the manifest names it, such as ``.data[0].id``; ``.`` for the whole answer."""
    text: str
    """The difference in words."""
    diff: str = ""
    """The lines of a unified diff, for texts of several lines."""
    new: str = ""
    """The value of the new service, or the lines around the first one that differs; empty if the text says all."""
    old: str = ""
    """The same of the legacy service."""


@attrs.frozen(kw_only=True)
class LeftOut:
    """One place that was left out of the comparison."""

    place: str
    reason: str


@attrs.define(eq=False)
class Differences:
    """The differences and the noise that were found so far, for one request."""

    ignore: Mapping[str, str] = attrs.field(factory=dict)
    """Places to leave out, each with everything below it -> the reason."""
    found: list[Difference] = attrs.field(factory=list)
    left_out: list[LeftOut] = attrs.field(factory=list)
    count: int = 0
    """The number of all differences; ``found`` holds the first of them."""

    def add(self, place: str, text: str, diff: str = "", *, sides: tuple[str, str] = ("", "")) -> None:
        """Add one difference; ``sides`` are the values of the new and of the legacy service, in that order."""
        self.count += 1
        if len(self.found) < MAX_DIFFERENCES:
            new, old = sides
            self.found.append(Difference(place=place or ".", text=text, diff=diff, new=new, old=old))

    def leave_out(self, place: str, reason: str) -> None:
        """Note a place that was left out."""
        noted = LeftOut(place=place or ".", reason=reason)
        if len(self.left_out) < MAX_DIFFERENCES and noted not in self.left_out:
            self.left_out.append(noted)

    def ignores(self, place: str) -> bool:
        """Return True, and note it, if this place or one above it is to be left out."""
        place = place or "."
        for ignored, reason in self.ignore.items():
            # `.` stands for the whole JSON, whose places begin with a dot or a bracket.
            whole = ignored == "." and place[0] in ".["
            if whole or place == ignored or (place.startswith(ignored) and place[len(ignored)] in ".["):
                self.leave_out(place, reason)
                return True
        return False

    def compare(
        self,
        place: str,
        new: Sequence[object],
        old: Sequence[object],
        *,
        volatile: Collection[str] = (),
    ) -> None:
        """Compare the values of both services at one place, and below it.

        Args:
            place: The place.
            new: One value for each answer of the new service; ``MISSING`` where an answer has none.
            old: The same for the legacy service.
            volatile: Keys of objects to leave out at every level.
        """
        if self.ignores(place):
            return
        outcome = self._weigh(place, new, old, _type)
        if outcome is _Outcome.NOISE:
            # Few answers may have a value here, so its noise is not known: the types below alone are compared.
            self._compare_types(place, new, old, volatile)
        elif outcome is _Outcome.SAME:
            if isinstance(new[0], dict):
                self._compare_objects(place, _of(dict, new), _of(dict, old), volatile)
            elif isinstance(new[0], list):
                self._compare_lists(place, _of(list, new), _of(list, old), volatile)
            else:
                self._weigh(place, new, old, _value)

    def _weigh(
        self, place: str, new: Sequence[object], old: Sequence[object], key: Callable[[object], Hashable]
    ) -> _Outcome:
        """Compare one property of the values, and note a difference or noise."""
        one, other = _distinct(new, key), _distinct(old, key)
        outcome = _outcome(one.keys(), other.keys())
        named = place or "the answer"
        if outcome is _Outcome.NOISE:
            self.leave_out(place, VARIES)
        elif outcome is _Outcome.DIFFERENT:
            first, second = (next(iter(side.values())) for side in (one, other))
            if isinstance(first, str) and isinstance(second, str) and "\n" in first + second:
                lines = first.splitlines(), second.splitlines()
                text = f"{named} differs: {first_difference(*lines)}"
                self.add(place, text, diff(lines[1], lines[0]), sides=around_difference(*lines))
                return outcome
            sides = shown(first), shown(second)
            self.add(
                place,
                f"{named} is {sides[0]} in the new service and {sides[1]} in the legacy service",
                sides=sides,
            )
        elif outcome is _Outcome.ONE_SIDED:
            sides = _listed(one.values()), _listed(other.values())
            self.add(
                place,
                f"{named} varies in one service alone: it is {sides[0]} in the new service and {sides[1]} in the legacy service",
                sides=sides,
            )
        return outcome

    def _compare_objects(
        self,
        place: str,
        new: Sequence[Mapping[str, object]],
        old: Sequence[Mapping[str, object]],
        volatile: Collection[str],
    ) -> None:
        keys = {key for value in (*new, *old) for key in value}
        # Keys that come and go in one service, and that the other never has, are ids if both services have such keys.
        own = [_fleeting_keys(new) - _all_keys(old), _fleeting_keys(old) - _all_keys(new)]
        names = own[0] | own[1] if all(own) else set()
        if names:
            self.leave_out(f"{place}.*", VARIES)
            values = [[value[key] for value in side for key in value if key in names] for side in (new, old)]
            self._compare_types(f"{place}.*", values[0], values[1], volatile)
        for key in sorted(keys - names):
            below = f"{place}.{printable(key, 60)}"
            if key in volatile:
                self.leave_out(below, KNOWN)
                continue
            columns = [[value.get(key, MISSING) for value in side] for side in (new, old)]
            self.compare(below, columns[0], columns[1], volatile=volatile)

    def _compare_lists(
        self,
        place: str,
        new: Sequence[Sequence[object]],
        old: Sequence[Sequence[object]],
        volatile: Collection[str],
    ) -> None:
        one, other = (list(dict.fromkeys(map(len, side))) for side in (new, old))
        outcome = _outcome(one, other)
        named = place or "the answer"
        if outcome is _Outcome.DIFFERENT:
            self.add(
                place,
                f"{named} has {one[0]} items in the new service and {other[0]} in the legacy service",
                sides=(_items(one[0]), _items(other[0])),
            )
        elif outcome is _Outcome.ONE_SIDED:
            numbers = _listed(sorted(one)), _listed(sorted(other))
            self.add(
                place,
                f"{named} varies in one service alone: it has {numbers[0]} items in the new service "
                f"and {numbers[1]} in the legacy service",
                sides=(f"{numbers[0]} items", f"{numbers[1]} items"),
            )
        elif outcome is _Outcome.NOISE:
            self.leave_out(f"{place}[*]", VARIES)
            items = [[item for value in side for item in value] for side in (new, old)]
            self._compare_types(f"{place}[*]", items[0], items[1], volatile)
        else:
            for index in range(one[0]):
                columns = [[value[index] for value in side] for side in (new, old)]
                self.compare(f"{place}[{index}]", columns[0], columns[1], volatile=volatile)

    def _compare_types(
        self, place: str, new: Sequence[object], old: Sequence[object], volatile: Collection[str]
    ) -> None:
        """Compare the types of items that have no fixed place. If one service has none of them, nothing is known about them."""
        if not new or not old or self.ignores(place):
            return
        one, other = set(map(_type, new)), set(map(_type, old))
        if one != other:
            types = " or ".join(sorted(one)), " or ".join(sorted(other))
            text = f"{place} is {types[0]} in the new service and {types[1]} in the legacy service"
            self.add(place, text, sides=types)
            return
        lists = [[item for value in _of(list, side) for item in value] for side in (new, old)]
        self._compare_types(f"{place}[*]", lists[0], lists[1], volatile)
        objects = [_of(dict, side) for side in (new, old)]
        for key in sorted({key for side in objects for value in side for key in value} - set(volatile)):
            columns = [[value.get(key, MISSING) for value in side] for side in objects]
            self._compare_types(f"{place}.{printable(key, 60)}", columns[0], columns[1], volatile)


def _outcome(new: Collection[Hashable], old: Collection[Hashable]) -> _Outcome:
    """Compare the distinct values of the new service with those of the legacy service."""
    if len(new) > 1 and len(old) > 1:
        return _Outcome.NOISE
    if len(new) > 1 or len(old) > 1:
        return _Outcome.ONE_SIDED
    return _Outcome.SAME if list(new) == list(old) else _Outcome.DIFFERENT


def _distinct(values: Iterable[object], key: Callable[[object], Hashable]) -> dict[Hashable, object]:
    """Return the distinct values in order: key -> the first value with it."""
    found: dict[Hashable, object] = {}
    for value in values:
        found.setdefault(key(value), value)
    return found


def _of(kind: type[Container], values: Iterable[object]) -> list[Container]:
    """Return the values of one type."""
    return [value for value in values if isinstance(value, kind)]


def _type(value: object) -> str:
    """Return the JSON type of a value, in words."""
    return _TYPES[type(value)]


def _value(value: object) -> Hashable:
    """Return a value that is neither object nor list, for comparison with values of the same type."""
    assert isinstance(value, Hashable)  # noqa: S101  the other types were compared before
    return value


def _all_keys(values: Iterable[Mapping[str, object]]) -> set[str]:
    return {key for value in values for key in value}


def _fleeting_keys(values: Sequence[Mapping[str, object]]) -> set[str]:
    """Return the keys that some of these objects have and some have not."""
    return {key for key in _all_keys(values) if not all(key in value for value in values)}


def shown(value: object) -> str:
    """Return a value as JSON, shortened; ``nothing`` for a missing one."""
    if value is MISSING:
        return "nothing"
    return printable(msgspec.json.encode(value).decode(), 80)


def _items(number: int) -> str:
    return f"{number} item{'' if number == 1 else 's'}"


def _listed(values: Collection[object]) -> str:
    """Return the first few values in words."""
    text = " or ".join(shown(value) for value in list(values)[:_SHOWN_VALUES])
    return f"{text} or another value" if len(values) > _SHOWN_VALUES else text
