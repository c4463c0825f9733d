"""In which order chunks come: states and transitions as one table, and what must be open before it is named.

A deviation is reported where it happens, and the walk goes on as if what was missing had come: one cause, one finding.

It is long because the table, the scopes of what is open, and the walk over both are one idea, and are read together.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from cutover.contract.chunks import Chunk
from cutover.text import printable

TERMINATOR: Final = "[DONE]"
"""The table's name for the stream's last event."""
END: Final = "end of the body"
"""The table's name for the end of the body."""

_MISSING = frozenset(
    {
        "order.start-missing",
        "order.step-missing",
        "order.step-unfinished",
        "order.outside-step",
        "order.finish-before-step",
        "order.finish-missing",
        "terminator.missing",
    }
)
"""Rules that are broken where an event is missing: perhaps it came, and could not be read."""
_ENTRY = 120
"""Bytes that one open part takes beside its id, about."""


@attrs.frozen
class Transition:
    """Where a state goes on a symbol, and which rule that breaks, if one."""

    to: str
    rule: str | None = None
    expected: str | None = None
    """What should have come instead; None where nothing is wrong."""


@attrs.frozen(kw_only=True)
class Scope:
    """Parts, calls or approvals: what one chunk opens and others name, until it is closed."""

    name: str
    """What is open, in words: ``text part``."""
    key: tuple[str, ...]
    """Fields that name it."""
    opened_by: frozenset[str]
    """Kinds that open one."""
    named_by: frozenset[str] = frozenset()
    """Kinds that must name an open one."""
    closed_by: frozenset[str] = frozenset()
    """Of those, the kinds that close it."""
    cleared_by: frozenset[str] = frozenset()
    """Kinds that close them all."""
    dropped_by: frozenset[str] = frozenset()
    """Kinds that close those which the current step opened."""
    rule: str
    """The rule that naming what is not open breaks."""
    known: bool = False
    """The request's context may name some that are open from the start: calls of the message that is continued."""
    must_close: bool = False
    """One that is open when all are closed, or when the turn is over, is worth a warning."""


@attrs.frozen(kw_only=True)
class Agreement:
    """A field that has one value throughout a stream."""

    field: str
    rule: str
    """The rule that another value breaks."""
    expected: str | None = None
    """The attribute of the request's context that holds the value, where the request decides it."""


@attrs.frozen(kw_only=True)
class ServiceError:
    """The chunk by which a service says that the turn failed."""

    kind: str
    code: str
    """The field that says why."""
    finish: str | None = None
    """Kind of the turn's last chunk, if it repeats that the turn failed."""
    status: str | None = None
    """The field of that chunk."""
    failed: str | None = None
    """Its value after an error, and only then."""


@attrs.frozen(kw_only=True, eq=False)
class Grammar:
    """The order of a stream's events, as data."""

    initial: str
    """State before the first event."""
    symbols: Mapping[str, str]
    """Kind of chunk -> its symbol in the table; ``data-*`` stands for all that begin with ``data-``."""
    other: str
    """The symbol of every other kind."""
    transitions: Mapping[tuple[str, str], Transition]
    """(state, symbol) -> what follows; it holds every pair."""
    states: Mapping[str, str]
    """State -> what it means, for a reader."""
    new_step: frozenset[str] = frozenset()
    """Kinds that begin a step."""
    scopes: tuple[Scope, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    error: ServiceError | None = None
    unseen: frozenset[str] = frozenset()
    """States in which the client has stopped reading: what is wrong there, it does not refuse."""
    breaks_off: frozenset[str] = frozenset()
    """Symbols after which nobody wonders what was left open."""
    closed: frozenset[str] = frozenset()
    """States in which the turn is over, so that nothing more has to come."""

    def symbol(self, kind: str) -> str:
        """The table's name for a kind of chunk."""
        family = kind.partition("-")[0] + "-*"
        return self.symbols.get(kind) or self.symbols.get(family, self.other)


class Deviation(msgspec.Struct, frozen=True, gc=False):
    """A rule that an event broke."""

    rule: str
    expected: str
    actual: str
    is_unseen: bool = False
    """The client had stopped reading, so it does not refuse it."""


@attrs.frozen(kw_only=True, eq=False)
class Role:
    """All that the grammar has to say of one kind of chunk."""

    kind: str
    symbol: str
    moves: Mapping[str, Transition]
    """State -> where it goes from there."""
    opens: tuple[int, ...]
    names: tuple[int, ...]
    closes: tuple[int, ...]
    clears: tuple[int, ...]
    drops: tuple[int, ...]
    starts_step: bool
    agreements: tuple[Agreement, ...]
    error: ServiceError | None
    """Set where the kind says that the turn failed."""
    is_watched: bool
    """Whether there is more to look at than its place."""
    changes: bool
    """Whether it opens or closes anything."""
    calm: frozenset[str]
    """States in which such a chunk is in order and does nothing but open something, if what it names is open."""
    key_of: Callable[[Any], Any] | None
    """What it names, where it is calm anywhere and names anything."""


def role_of(grammar: Grammar, kind: str, fields: Iterable[str], *, is_watched: bool) -> Role:
    """Gather what the grammar says of a kind; of one that is watched for more than its place, none is calm."""

    def scopes(attribute: str) -> tuple[int, ...]:
        return tuple(at for at, scope in enumerate(grammar.scopes) if kind in getattr(scope, attribute))

    symbol = grammar.symbol(kind)
    moves = {state: to for (state, name), to in grammar.transitions.items() if name == symbol}
    agreements = tuple(each for each in grammar.agreements if each.field in fields)
    opens, names, closes = scopes("opened_by"), scopes("named_by"), scopes("closed_by")
    clears, drops = scopes("cleared_by"), scopes("dropped_by")
    starts_step = kind in grammar.new_step
    error = (
        grammar.error
        if grammar.error is not None and kind in {grammar.error.kind, grammar.error.finish}
        else None
    )
    changes = starts_step or any((opens, closes, clears, drops))
    keys = [key for at in names for key in grammar.scopes[at].key]
    opens_only = changes and not (starts_step or closes or clears or drops)
    is_calm = len(keys) <= 1 and not (agreements or error or is_watched) and (opens_only or not changes)
    return Role(
        kind=kind,
        symbol=symbol,
        moves=moves,
        opens=opens,
        names=names,
        closes=closes,
        clears=clears,
        drops=drops,
        starts_step=starts_step,
        agreements=agreements,
        error=error,
        is_watched=is_watched,
        changes=changes,
        calm=frozenset(state for state, move in moves.items() if is_calm and move == Transition(state)),
        key_of=attrgetter(keys[0]) if is_calm and keys else None,
    )


_Key: TypeAlias = str | tuple[str, bool]
"""What names something open: its id, and whether it is dynamic where that is part of the name."""


def _key_getter(scope: Scope) -> Callable[[Any], _Key]:
    """How to find the name of what a chunk is about."""
    name = attrgetter(scope.key[0])
    if len(scope.key) == 1:
        return name
    qualifier = attrgetter(scope.key[1])
    return lambda chunk: (name(chunk), qualifier(chunk) is True)


_QUALIFIERS = ("dynamic",)
"""Fields that qualify a name, and may be absent."""


def _known_keys(scope: Scope, known: Iterable[str]) -> Iterator[_Key]:
    if scope.known:
        for name in known:
            yield from [(name, False), (name, True)] if len(scope.key) > 1 else [name]


def _words(key: _Key) -> str:
    return key if isinstance(key, str) else f"{key[0]} ({'dynamic' if key[1] else 'not dynamic'})"


@attrs.define(eq=False)
class Walk:
    """One stream's way through a grammar."""

    grammar: Grammar
    known: frozenset[str]
    """Tool calls that were made before this stream."""
    expected: Mapping[str, str]
    """Field -> the value that the request decides."""
    _room: int
    """Bytes, about, that the names of what is open may still take."""
    state: str = attrs.field(init=False)
    service_error: str | None = attrs.field(default=None, init=False)
    """The code of the first error that the service reported."""
    opened: tuple[dict[_Key, int], ...] = attrs.field(init=False)
    """By scope: what is open -> the step that opened it."""
    _key_of: tuple[Callable[[Any], _Key], ...] = attrs.field(init=False)  # by scope
    _agreed: dict[str, Any] = attrs.field(init=False)
    _step: int = attrs.field(default=0, init=False)
    _seen: set[str] = attrs.field(factory=set, init=False)  # symbols
    _excused: int = attrs.field(
        default=0, init=False
    )  # events that could not be read, and may be what is missed
    _lost: bool = attrs.field(default=False, init=False)  # that there is no room left was said

    def __attrs_post_init__(self) -> None:
        self.state = self.grammar.initial
        self.opened = tuple(
            dict.fromkeys(_known_keys(scope, self.known), -1) for scope in self.grammar.scopes
        )
        self._key_of = tuple(map(_key_getter, self.grammar.scopes))
        self._agreed = dict(self.expected)

    @property
    def expectation(self) -> str:
        """What should come before the body may end."""
        return self.grammar.transitions[self.state, END].expected or END

    @property
    def is_over(self) -> bool:
        """Whether the turn is over, so that nothing more has to come."""
        return self.state in self.grammar.closed

    def opens_calmly(self, role: Role, chunk: Any) -> bool:  # noqa: ANN401
        """Open what a calm chunk opens; whether there was room."""
        for at in role.opens:
            key = self._key_of[at](chunk)
            if key not in self.opened[at]:
                self._open(at, key)
        return self._room >= 0

    def take(self, role: Role, chunk: Chunk) -> Sequence[Deviation]:
        """One chunk: what is wrong with its place; the walk goes on as if it were not."""
        found: list[Deviation] = []
        move = role.moves[self.state]
        if move.rule is not None:
            found += self._break(move, role.symbol, role.kind)
        self.state = move.to
        self._seen.add(role.symbol)
        for at in role.names:
            key = self._key_of[at](chunk)
            if key not in self.opened[at]:
                found += self._miss(at, key, role.kind)
        if role.changes:
            found += self._change(role, chunk)
        if self._room < 0 and not self._lost:
            self._lost = True
            found.append(Deviation("order.too-many-open", "fewer or shorter names", role.kind))
        for agreement in role.agreements:
            found += self._agree(agreement, getattr(chunk, agreement.field))
        if role.error is not None:
            found += self._fail(role.error, role.kind, chunk)
        return found

    def move(self, symbol: str, what: str) -> Sequence[Deviation]:
        """Follow the table on what is no chunk."""
        move = self.grammar.transitions[self.state, symbol]
        found = () if move.rule is None else self._break(move, symbol, what)
        self.state = move.to
        self._seen.add(symbol)
        return found

    def _break(self, move: Transition, symbol: str, what: str) -> Sequence[Deviation]:
        if move.rule is None or (move.rule == "order.duplicate" and symbol not in self._seen):
            return ()  # late, rather than twice; that it was missing has been said
        if self._excused and move.rule in _MISSING:
            self._excused -= 1
            return ()
        return (Deviation(move.rule, move.expected or "", what),)

    def end(self) -> Sequence[Deviation]:
        """The body ended."""
        open_still = (
            [each for at in range(len(self.opened)) for each in self._left_open(at)] if self.is_over else []
        )
        return [*open_still, *self.move(END, END)]

    def excuse(self) -> None:
        """An event could not be read: the next thing that seems to be missing may have been it."""
        self._excused += 1

    def recover(self, role: Role, values: Mapping[str, Any]) -> None:
        """A chunk was refused, but its kind is known: it has its place all the same."""
        self.state = role.moves[self.state].to
        self._seen.add(role.symbol)
        with contextlib.suppress(AttributeError):  # where what it names is missing, nothing can be opened
            self._change(role, SimpleNamespace(**{**dict.fromkeys(_QUALIFIERS, False), **values}))

    def _miss(self, at: int, key: _Key, kind: str) -> Sequence[Deviation]:
        """Something is named that is not open."""
        if self._lost:
            return ()  # perhaps it was
        self._open(at, key)  # so that it is missed once
        if self._excused:
            self._excused -= 1
            return ()
        scope = self.grammar.scopes[at]
        return (
            Deviation(scope.rule, f"a {scope.name} that is open", printable(f"{kind} for {_words(key)}")),
        )

    def _change(self, role: Role, chunk: Any) -> Sequence[Deviation]:  # noqa: ANN401
        """Open and close what the chunk opens and closes."""
        found: list[Deviation] = []
        self._step += role.starts_step
        for at in role.closes:
            self._close(at, self._key_of[at](chunk))
        for at in role.clears:
            found += self._left_open(at)
            for key in list(self.opened[at]):
                self._close(at, key)
        for at in role.drops:
            for key in [key for key, step in self.opened[at].items() if step == self._step]:
                self._close(at, key)
        for at in role.opens:
            self._open(at, self._key_of[at](chunk))
        return found

    def _open(self, at: int, key: _Key) -> None:
        opened = self.opened[at]
        if key not in opened and self._room >= 0:
            self._room -= _ENTRY + len(key[0] if isinstance(key, tuple) else key)
            opened[key] = self._step

    def _close(self, at: int, key: _Key) -> None:
        if self.opened[at].pop(key, None) is not None:
            self._room += _ENTRY + len(key[0] if isinstance(key, tuple) else key)

    def _left_open(self, at: int) -> Sequence[Deviation]:
        scope, opened = self.grammar.scopes[at], self.opened[at]
        if not (scope.must_close and opened and self._seen.isdisjoint(self.grammar.breaks_off)):
            return ()
        return (
            Deviation(
                "order.part-left-open",
                f"the end of each {scope.name}",
                printable(", ".join(map(_words, opened))),
            ),
        )

    def _agree(self, agreement: Agreement, value: Any) -> Sequence[Deviation]:  # noqa: ANN401
        if value is msgspec.UNSET:
            return ()
        agreed = self._agreed.setdefault(agreement.field, value)
        if value == agreed:
            return ()
        self._agreed[agreement.field] = value
        return (Deviation(agreement.rule, f"{agreement.field} {printable(agreed)}", printable(value)),)

    def _fail(self, error: ServiceError, kind: str, chunk: Chunk) -> Sequence[Deviation]:
        if kind == error.kind:
            code = printable(getattr(chunk, error.code))
            self.service_error = self.service_error or code
            return (Deviation("stream.service-error", "a turn without an error", code),)
        status = None if error.status is None else getattr(chunk, error.status)
        failed = self.service_error is not None
        if failed is (status == error.failed) or status is msgspec.UNSET:
            return ()
        wanted = (
            f"{error.status} {error.failed}"
            if failed
            else f"{error.status} other than {error.failed}, or an error"
        )
        return (Deviation("order.finish-status", wanted, printable(str(status))),)
