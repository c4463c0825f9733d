r"""Rules of a contract's owner, for what a table of kinds and an order cannot say: a number that must grow, a text that must add up.

A rule is a class with two methods, of which each is optional::

    from cutover.contract import StreamRule

    class NoShouting(StreamRule):
        id = "chat.no-shouting"
        why = "An answer in capitals looks like a fault of the model."

        def event(self, event):
            if event.kind == "text" and event.data["text"].isupper():
                yield "text in small letters", event.data["text"]

`StreamContract(..., rules=(NoShouting(),))` uses it. Each stream gets a copy of the rule (`start`), so attributes may count
and collect. Four rules ship: `Contiguous`, `JoinedJson`, `Unchanged`, `NeverFalls`.

This module is long because the shipped rules are the best examples of the protocol, and stand beside it.
"""

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs
import msgspec

from cutover.contract.findings import Deviation, Severity
from cutover.contract.foreign import words_of
from cutover.contract.javascript import NotJsonError, parse, whole_number
from cutover.contract.paths import MISSING, identity, json_text, parse_path, sent_text, value_at, value_words
from cutover.text import LONGEST, escaped, printable

if TYPE_CHECKING:
    from cutover.contract.definition import StreamContext

_MAX_GROUPS = 10_000
"""Largest number of different values of `by` that a shipped rule follows. It says nothing about further ones."""
_MAX_TEXT = 16 << 20
"""Largest number of characters that `JoinedJson` collects at one time. It says nothing about longer texts."""

_PIECE_BYTES = 64
"""Rough memory of one piece beside its characters, in bytes."""
_MAX_DIGITS = 4000
"""Digits up to which a text counts as a number. Python refuses to make an integer of a much longer one."""
_LONG = 200
"""Characters from which on a rule remembers the digest of a text, and not the text."""

Problem = tuple[str, str]
"""The content that a rule asks for, and the content that came instead, both in words."""


class RuleEvent:
    """One message event, as an own rule sees it. The terminator is none: it is the contract's own."""

    __slots__ = ("_data", "id", "index", "kind", "name", "refused", "retry", "text")

    def __init__(
        self,
        text: str,
        index: int = 0,
        kind: str | None = None,
        name: str | None = None,
        id: str | None = None,  # noqa: A002  the field's name in the standard
        retry: int | None = None,
        refused: bool = False,  # noqa: FBT001, FBT002
        data: Any = MISSING,  # noqa: ANN401
    ) -> None:
        self.text = text
        """The data of the event, as text."""
        self.index = index
        """Index of the event among the message events, from 0."""
        self.kind = kind
        """The kind of the chunk; None if it is unknown."""
        self.name = name
        """The value of the event's own `event` line; None without one."""
        self.id = id
        """The value of the event's own `id` line; None without one."""
        self.retry = retry
        """The value of the event's own `retry` line, in milliseconds; None without one."""
        self.refused = refused
        """True if its kind is unknown, or its data is not of its kind's shape. An event that is out of order is not refused."""
        self._data = data

    @property
    def data(self) -> Any:  # noqa: ANN401  JSON is anything
        """Return the data decoded from JSON; None if it is not JSON. Integers stay integers."""
        if self._data is MISSING:
            try:
                self._data = parse(self.text, parse_int=whole_number)
            except NotJsonError:
                self._data = None
        return self._data

    def at(self, path: str) -> Any:  # noqa: ANN401
        """Return the value at a path, such as `id` or `/data/item/id`; `msgspec.UNSET` if the path leads to nothing."""
        return self._at(parse_path(path))

    def sent(self, path: str) -> str:
        """Return the value at a path for a finding: JSON as it was sent, or another line's value; "nothing" if the path leads to nothing."""
        steps = parse_path(path)
        value = self._at(steps)
        if steps[0] != "data":
            return value_words(value)
        return json_text(value) if value is MISSING else printable(sent_text(self.text, steps[1:], value))

    def _at(self, steps: Sequence[str]) -> Any:  # noqa: ANN401
        if steps[0] == "data":
            return value_at(self.data, steps[1:])
        value = {"event": self.name, "id": self.id, "retry": self.retry}[steps[0]]
        return MISSING if value is None else value


class StreamRule:
    """Base of a rule that the owner of a contract writes. Override `event`, `end` or both.

    A rule sees every message event but the terminator: also one that another rule refused (`RuleEvent.refused`), and those behind the
    last event or an in-band error. One that raises an error gives a finding, and is not asked again.
    """

    id: str = "own.rule"
    """The rule's name in findings and in `StreamContract.severities`. Use a prefix of your own, such as `chat.`."""
    why: str = "A rule of this contract's owner does not hold."
    """One or two sentences: the defect, and its effect on a user."""
    severity: Severity = Severity.VIOLATION
    """The severity of a finding, if the contract sets no other one for the id."""
    kinds: tuple[str, ...] | None = None
    """The kinds of chunk that `event` is called for; None for all events. Fewer kinds make the check faster."""
    reads_fields: bool = True
    """False if `event` never looks at `RuleEvent.name`, `id` and `retry`, which makes the check faster."""

    def start(self, context: "StreamContext") -> Self:  # noqa: ARG002  a rule may want to know the request
        """Return the rule that follows one stream. Default: a deep copy of this one.

        Args:
            context: The facts about the request.
        """
        return copy.deepcopy(self)

    def event(self, event: RuleEvent) -> Iterable[Problem]:  # noqa: ARG002  for subclasses
        """Yield a pair for each defect of this event: the content that the rule asks for, and the content that came."""
        return ()

    def end(self) -> Iterable[Problem]:
        """Yield a pair for each defect that only the end of the body shows.

        It is not called for a stream that broke off, was left or ended before its order allows it, nor after an in-band error. It may be called again at the end of the
        next body of a stream that was resumed.
        """
        return ()


@attrs.define(eq=False)
class RuleFollower:
    """The own rules of one stream."""

    _rules: tuple[StreamRule, ...]
    _all_kinds: bool
    _kinds: frozenset[str]
    # The rules that have raised an error.
    _broken: list[StreamRule] = attrs.field(factory=list, init=False)

    @classmethod
    def start(cls, rules: Sequence[StreamRule], context: "StreamContext") -> "RuleFollower":
        """Return the rules, started for one stream."""
        started = tuple(rule.start(context) for rule in rules)
        kinds = frozenset(kind for rule in started for kind in rule.kinds or ())
        return cls(started, any(rule.kinds is None for rule in started), kinds)

    def follows(self, kind: str) -> bool:
        """Return True if a rule wants to see events of this kind."""
        return self._all_kinds or kind in self._kinds

    def take(self, event: RuleEvent) -> Sequence[Deviation]:
        """Return the deviations that the rules find in an event."""
        found: list[Deviation] = []
        for rule in self._rules:
            if rule.kinds is None or event.kind in rule.kinds:
                found += self._found(rule, lambda rule=rule: rule.event(event), is_refused=event.refused)  # type: ignore[misc]
        return found

    def end(self) -> Sequence[Deviation]:
        """Return the deviations that the rules find at the end of the body."""
        return [each for rule in self._rules for each in self._found(rule, rule.end)]

    def _found(
        self, rule: StreamRule, call: Callable[[], Iterable[Problem]], *, is_refused: bool = False
    ) -> Sequence[Deviation]:
        """Return the deviations that a rule finds. An error that it raises is one, and the last one of this rule.

        An event that another rule refused may lack what the rule reads, so an error is nothing new there.
        """
        if rule in self._broken:
            return ()
        found: list[Deviation] = []
        try:
            problems: Iterable[Any] = call() or ()
            for problem in problems:
                if isinstance(problem, str) or len(problem) != 2:  # noqa: PLR2004
                    raise TypeError("a rule yields pairs: what it expects, and what came")  # noqa: TRY301
                expected, actual = problem
                found.append(
                    Deviation(rule.id, _words(expected, 2 * LONGEST), _words(actual), severity=rule.severity)
                )
        except Exception as error:  # noqa: BLE001  the owner wrote it
            if not is_refused:
                self._broken.append(rule)
                raised = f"{words_of(error)}; the rule is not checked from here on"
                found.append(
                    Deviation(rule.id, "a rule that raises no error", raised, severity=rule.severity)
                )
        return found


def _words(value: object, limit: int = LONGEST) -> str:
    """Return what a rule yields: words as they are, and any other value as JSON."""
    return printable(value if isinstance(value, str) else json_text(value), limit)


def _paths(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one path, or several, as a tuple."""
    paths = (value,) if isinstance(value, str) else tuple(value)
    for path in paths:
        parse_path(path)
    return paths


def _kinds(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one kind, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def _one_path(_: object, __: object, path: str) -> None:
    """Refuse a path that leads nowhere."""
    parse_path(path)


def _short(key: Hashable) -> Hashable:
    """Return a key, or the digest of a long one."""
    match key:
        case str() if len(key) > _LONG:
            return ("digest", hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())
        case (str(sort), str(text)):
            return (sort, _short(text))
        case _:
            return key


@attrs.define(eq=False)
class _PathRule(StreamRule):
    """A rule about the value at one path, in groups of events."""

    path: str = attrs.field(validator=_one_path)
    """Path to the value, such as `seq`, `/data/seq` or `/id`."""
    by: tuple[str, ...] = attrs.field(default=(), converter=_paths, kw_only=True)
    """Paths whose values say which events belong together, such as `index`. Default: all events do."""
    kinds: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_kinds), kw_only=True
    )
    """The kinds of chunk that the rule looks at; None for all events."""
    id: str = attrs.field(default="", kw_only=True)
    """The rule's id in findings. Default: the id of the shipped rule."""
    severity: Severity = attrs.field(default=Severity.VIOLATION, kw_only=True)
    """The severity of a finding, if the contract sets no other one."""
    reads_fields: bool = attrs.field(default=False, init=False)
    """True if a path leads to another line of the event than its data."""
    default_id: ClassVar[str] = ""
    _last: dict[Hashable, Any] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.id = self.id or self.default_id
        self.reads_fields = any(parse_path(path)[0] != "data" for path in (self.path, *self.by))

    @property
    def paths(self) -> tuple[str, ...]:
        """Return all paths of the rule."""
        return (self.path, *self.by)

    def start(self, context: "StreamContext") -> Self:  # noqa: ARG002
        """Return the rule for one stream, which has seen nothing yet."""
        started = copy.copy(self)
        started._last = {}  # noqa: SLF001  its own copy
        return started

    def _group(self, event: RuleEvent) -> Hashable:
        """Return the group that an event belongs to."""
        return tuple(_short(identity(event.at(path))) for path in self.by)

    def _keep(self, group: Hashable, value: Any) -> None:  # noqa: ANN401
        """Remember the last value of a group, if there is room for the group."""
        if group in self._last or len(self._last) < _MAX_GROUPS:
            self._last[group] = value


@attrs.define(eq=False)
class Contiguous(_PathRule):
    """A counter without a gap: the value at the path is an integer that grows by one from event to event (`sequence.gap`).

    A text of digits counts too, as in an event's id. An event without the path is passed over.
    """

    start_at: int | None = attrs.field(default=None, kw_only=True)
    """The first value of each group. Default None: any integer."""
    default_id: ClassVar[str] = "sequence.gap"
    why = "A number that grows by one with each event left one out, or came again: an event was lost or doubled."

    def event(self, event: RuleEvent) -> Iterable[Problem]:
        """Yield a defect if the number is not the next one. The count goes on from the number that came."""
        value = event.at(self.path)
        if value is MISSING:
            return
        if isinstance(value, str) and len(value) < _MAX_DIGITS and value.isascii() and value.isdigit():
            value = int(value)
        group = self._group(event)
        wanted = self._last[group] + 1 if group in self._last else self.start_at
        if type(value) is not int:
            yield f"an integer at {self.path}", event.sent(self.path)
            return
        if wanted is not None and value != wanted:
            yield f"{self.path} {wanted}", event.sent(self.path)
        self._keep(group, value)


@attrs.define(eq=False)
class NeverFalls(_PathRule):
    """A figure that never falls, such as a count of tokens or a percentage (`sequence.fell`)."""

    default_id: ClassVar[str] = "sequence.fell"
    why = "A figure that can only grow became smaller: events came in the wrong order, or two streams were mixed."

    def event(self, event: RuleEvent) -> Iterable[Problem]:
        """Yield a defect if the figure is smaller than before. A value that is no number is passed over."""
        value, group = event.at(self.path), self._group(event)
        if type(value) not in {int, float}:
            return
        # An integer is shown as it was sent; a float, such as 1e3, has several spellings.
        shown = event.sent(self.path) if type(value) is float else str(value)
        before, before_shown = self._last.get(group, (value, shown))
        if value < before:
            yield f"{self.path} {before_shown} or more", shown
        self._keep(group, (value, shown))


@attrs.define(eq=False)
class Unchanged(_PathRule):
    """A field that has the same value in all events that have the field (`sequence.changed`)."""

    request: str | None = attrs.field(default=None, kw_only=True)
    """Name of the attribute of `StreamContext` that fixes the first value, if the request is known. Default: the first event does."""
    default_id: ClassVar[str] = "sequence.changed"
    why = "A field that names the whole stream changed within it: two streams may be mixed."

    def start(self, context: "StreamContext") -> Self:
        """Return the rule for one stream, with the value that the request fixes, if it fixes one."""
        started = super().start(context)
        fixed = None if self.request is None else getattr(context, self.request)
        if fixed is not None:
            started._last[()] = _short(identity(fixed)), value_words(fixed)  # noqa: SLF001  its own copy
        return started

    def event(self, event: RuleEvent) -> Iterable[Problem]:
        """Yield a defect if the value is another one than before. From then on, the new value counts."""
        value, group = event.at(self.path), self._group(event)
        if value is MISSING or event.refused:
            return
        key, shown = (
            _short(identity(value)),
            value_words(value) if isinstance(value, str) else event.sent(self.path),
        )
        before, before_shown = self._last.get(group, (key, shown))
        if before != key:
            yield f"{self.path} {before_shown}", shown
        self._keep(group, (key, shown))


@attrs.define(eq=False)
class JoinedJson(_PathRule):
    """A text that comes in pieces and is JSON once its last piece has come (`sequence.json`).

    An event of a kind in `until` ends the text of its group; the end of the body ends all texts. A text without a piece, or of empty
    pieces, is no defect.
    """

    until: tuple[str, ...] = attrs.field(default=(), converter=_kinds, kw_only=True)
    """The kinds of chunk that end a text. Give `kinds` too if other kinds have the path."""
    default_id: ClassVar[str] = "sequence.json"
    why = (
        "The pieces of a text that must be JSON do not make JSON together: a piece was lost, doubled or cut."
    )
    _size: int = attrs.field(default=0, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        _PathRule.__attrs_post_init__(self)
        if self.kinds is not None:
            self.kinds = (*self.kinds, *self.until)

    def event(self, event: RuleEvent) -> Iterable[Problem]:
        """Collect a piece, or yield a defect if the text that this event ends is not JSON."""
        group = self._group(event)
        if event.kind in self.until:
            yield from self._judge(self._last.pop(group, None))
            return
        piece = event.at(self.path)
        if not isinstance(piece, str) or not piece:
            return
        self._keep(group, self._last.get(group, []))
        pieces = self._last.get(group)
        if pieces is None:
            return
        self._size += len(piece) + _PIECE_BYTES
        pieces.append(piece)
        if self._size > _MAX_TEXT:
            # The text is too long to be judged, and so is no piece of it that comes later.
            self._forget(pieces)
            self._last[group] = None

    def end(self) -> Iterable[Problem]:
        """Yield a defect for each text that ends with the body and is not JSON."""
        for pieces in self._last.values():
            yield from self._judge(pieces)

    def _forget(self, pieces: Sequence[str]) -> None:
        """Give back the memory of a text."""
        self._size -= sum(map(len, pieces)) + len(pieces) * _PIECE_BYTES

    def _judge(self, pieces: Sequence[str] | None) -> Iterable[Problem]:
        """Yield a defect if the pieces do not make JSON. Of a text that was too long nothing is known."""
        if pieces is None:
            return
        text = "".join(pieces)
        self._forget(pieces)
        if text.strip():
            try:
                msgspec.json.decode(text)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                try:
                    parse(text)
                except NotJsonError as error:
                    yield f"pieces of {self.path} that make JSON together", f"{escaped(text)} ({error})"
