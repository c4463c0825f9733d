"""The place where an event says its kind: a field of its data, its name, which member is there, or what a function finds."""

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from cutover.contract.foreign import words_of
from cutover.contract.paths import MISSING, json_text, parse_path, sent_text, value_at

SINGLE: Final = "event"
"""The kind of all events of a stream that has only one."""


class EventName(enum.Enum):
    """The use that a stream makes of the `event` line."""

    OPTIONAL = "optional"
    """An event may have a name or not."""
    REQUIRED = "required"
    """Every event has a name."""
    FORBIDDEN = "forbidden"
    """No event has a name."""


def _event_name(value: str | EventName) -> EventName:
    """Return the use of the `event` line that a word stands for."""
    words = [each.value for each in EventName]
    if not isinstance(value, EventName) and value not in words:
        raise ValueError(f"names={value!r}: give one of {', '.join(words)}")
    return EventName(value)


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Kind:
    """The place where an event says its kind. Make one with `field`, `event_name`, `both`, `member`, `single` or `of`.

    As `StreamContract.kind`, a text is short for the first two: `kind="type"`, `kind="/data/delta/type"`, `kind="/event"`.
    """

    path: tuple[str, ...] | None = None
    """Steps to the field of the data; None if the kind stands elsewhere."""
    by_name: bool = False
    """True if the event's name is the kind. With a path too, both must agree."""
    members: tuple[str, ...] = ()
    """Names of fields of the data. Exactly one of them is there, and it is the kind."""
    function: Callable[[Any], str | None] | None = None
    """Returns the kind of decoded data; None for data of no known kind."""
    names: EventName = attrs.field(default=EventName.OPTIONAL, converter=_event_name)
    """The use of the `event` line: `"optional"`, `"required"` or `"forbidden"`."""
    overrides: tuple[str, ...] = attrs.field(default=(), converter=_names)
    """Names, such as `error` or `ping`, that are the event's kind whatever its data says."""

    def __attrs_post_init__(self) -> None:
        if self.by_name and self.names is EventName.FORBIDDEN:
            raise ValueError("the kind is the event's name, so the name cannot be forbidden")

    @classmethod
    def field(cls, path: str, *, names: str = "optional", overrides: str | Sequence[str] = ()) -> "Kind":
        """Return a kind in a field of the data: `type`, or a pointer such as `/data/delta/type`.

        Raises:
            ValueError: If the path does not lead into the data.
        """
        field, *steps = parse_path(path)
        if field != "data" or not steps:
            raise ValueError(
                f"the kind {path} is no field of the data, such as type; for the event's name alone write kind='/event'"
            )
        return cls(path=tuple(steps), names=names, overrides=overrides)

    @classmethod
    def event_name(cls, *, names: str = "optional") -> "Kind":
        """Return a kind that is the event's name. An event without one has the kind `message` (WHATWG HTML 9.2.6)."""
        return cls(by_name=True, names=names)

    @classmethod
    def both(cls, path: str, *, names: str = "required", overrides: str | Sequence[str] = ()) -> "Kind":
        """Return a kind in a field of the data that the event's name repeats. If they differ, the field counts."""
        return attrs.evolve(cls.field(path, names=names, overrides=overrides), by_name=True)

    @classmethod
    def member(cls, *members: str, names: str = "optional", overrides: str | Sequence[str] = ()) -> "Kind":
        """Return a kind that is the one of these fields that the data has."""
        return cls(members=members, names=names, overrides=overrides)

    @classmethod
    def single(cls, *, names: str = "optional", overrides: str | Sequence[str] = ()) -> "Kind":
        """Return the kind of a stream whose events all have one shape: `event`."""
        return cls(names=names, overrides=overrides)

    @classmethod
    def of(
        cls,
        function: Callable[[Any], str | None],
        *,
        names: str = "optional",
        overrides: str | Sequence[str] = (),
    ) -> "Kind":
        """Return a kind that a function of the decoded data finds. It is called for data of the right shape alone."""
        return cls(function=function, names=names, overrides=overrides)

    @property
    def is_single(self) -> bool:
        """Return True if all events have one kind."""
        return self.path is None and not self.by_name and not self.members and self.function is None

    @property
    def is_name_alone(self) -> bool:
        """Return True if the event's name alone is the kind."""
        return self.by_name and self.path is None

    @property
    def where(self) -> str:
        """Return the place in words, for a finding."""
        if self.is_name_alone:
            return "event name"
        if self.members:
            return f"exactly one of the fields {', '.join(self.members)}"
        if self.path is not None:
            return "/".join(self.path)
        return "kind"

    def find(self, data: Any) -> str | None:  # noqa: ANN401  JSON is anything
        """Return the kind that decoded data says; None if it says none."""
        if self.path is not None:
            # A field of an object at the top is by far the most frequent place.
            is_top = len(self.path) == 1 and type(data) is dict
            value = data.get(self.path[0]) if is_top else value_at(data, self.path)
            return value if isinstance(value, str) else None
        if self.members:
            there = [name for name in self.members if isinstance(data, dict) and name in data]
            return there[0] if len(there) == 1 else None
        if self.function is not None:
            try:
                kind = self.function(data)
            except Exception:  # noqa: BLE001  the owner wrote it for right data, and this may be wrong
                return None
            return kind if isinstance(kind, str) else None
        return SINGLE

    def shown(self, data: Any, text: str) -> str:  # noqa: ANN401
        """Return what came in place of a known kind, in words.

        Args:
            data: The decoded data.
            text: The data itself.
        """
        if self.path is not None:
            value = value_at(data, self.path)
            return (
                f"no {self.where}"
                if value is MISSING
                else f"{self.where}: {sent_text(text, self.path, value)}"
            )
        if self.members:
            there = [name for name in self.members if isinstance(data, dict) and name in data]
            return f"{', '.join(there) or 'none of them'}"
        return self._told_by_function(data)

    def _told_by_function(self, data: Any) -> str:  # noqa: ANN401
        """Return what the function does with data for which it finds no kind."""
        if self.function is None:
            return "data of no known kind"
        name = getattr(self.function, "__name__", "the function")
        try:
            found = self.function(data)
        except Exception as error:  # noqa: BLE001  the owner wrote it
            return f"{name} raised {words_of(error)}"
        return f"{name} returned {json_text(found)}"


def kind_of(value: "Kind | str | Callable[[Any], str | None]") -> Kind:
    """Return the kind that a text or a function stands for; any other value as it is.

    Raises:
        ValueError: If the text is no path to a kind.
    """
    if isinstance(value, Kind):
        return value
    if isinstance(value, str):
        return Kind.event_name() if value == "/event" else Kind.field(value)
    if callable(value):
        return Kind.of(value)
    raise ValueError(
        f"kind={value!r}: give a path, such as 'type' or '/event', a function of the data, or a `Kind`"
    )
