"""The order of a stream's chunks: a table of states, and the parts and calls that chunks open, name and close.

Three values work together:

- A `Grammar` is the data: one table of states and transitions, and the scopes. A scope is one sort of thing that can be
  open, such as text parts or tool calls.
- A `KindPlan` is all that the grammar says about one kind of chunk. It is computed once for each kind.
- A `Walk` is the position of one stream in the grammar: its state, and the things that are open.

If a chunk breaks the order, the walk reports a `Deviation` and goes on as if the missing event had come. So one mistake
of a service gives one finding, not a finding for each later chunk.

A chunk takes the fast path or not, depending on its kind and on the state. `KindPlan.fast_states` lists the states in
which a chunk of the kind keeps the state, at most opens something, and can break one rule only: it may name a thing that is
not open. In such a state, the judge checks only this rule.

This module is long because the table, the scopes and the walk explain each other and are read together.
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
"""The symbol of the stream's last event in the table."""
END: Final = "end of the body"
"""The symbol of the end of the body in the table."""

_MISSING_EVENT_RULES = frozenset(
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
"""Rules that report a missing event. If an event could not be read, it may be the missing one."""
_ENTRY_BYTES = 120
"""Rough memory of one open part or call without its id, in bytes."""


@attrs.frozen
class Transition:
    """One entry of the table: the next state, and the rule that the event breaks, if it breaks one."""

    to: str
    """The next state."""
    rule: str | None = None
    """Id of the broken rule; None if the event is in order."""
    expected: str | None = None
    """The event that should have come, in words; None if the event is in order."""


@attrs.frozen(kw_only=True)
class Scope:
    """A type of thing that one chunk opens and later chunks name until it is closed: a part, a call or an approval."""

    name: str
    """The thing in words, such as ``text part``."""
    key: tuple[str, ...]
    """Names of the chunk fields that identify a thing."""
    opened_by: frozenset[str]
    """Kinds of chunk that open a thing."""
    named_by: frozenset[str] = frozenset()
    """Kinds of chunk that must name an open thing."""
    closed_by: frozenset[str] = frozenset()
    """Kinds of chunk that close the thing that they name. List a kind in ``named_by`` too if the thing must be open."""
    cleared_by: frozenset[str] = frozenset()
    """Kinds of chunk that close all open things."""
    dropped_by: frozenset[str] = frozenset()
    """Kinds of chunk that close the things that were opened in the current step."""
    rule: str
    """Id of the rule that a chunk breaks if it names a thing that is not open."""
    known: bool = False
    """True if the calls of `StreamContext.known_tool_calls` are open from the beginning of the stream."""
    must_close: bool = False
    """True if a thing gives a warning when it is still open at a ``cleared_by`` chunk or at the end of a terminated stream."""


@attrs.frozen(kw_only=True)
class Agreement:
    """A field that must have the same value in all chunks of a stream that have the field."""

    field: str
    """The name of the field."""
    rule: str
    """Id of the rule that a second value breaks."""


@attrs.frozen(kw_only=True)
class ServiceError:
    """The way in which a service reports that the turn failed."""

    kind: str
    """The kind of the error chunk."""
    code: str
    """The field of that chunk that holds the error code."""
    finish: str | None = None
    """The kind of the turn's last chunk, if it has a status that reports a failure; else None."""
    status: str | None = None
    """The field of the turn's last chunk that holds the status. A chunk without this field is accepted."""
    failed: str | None = None
    """The value of that field after an error. Without an error it must not have this value."""


@attrs.frozen(kw_only=True, eq=False)
class Grammar:
    """The order of a stream's events, as data."""

    initial: str
    """The state before the first event."""
    symbols: Mapping[str, str]
    """Kind of chunk -> its symbol in the table. ``data-*`` stands for all kinds that begin with ``data-``."""
    other: str
    """The symbol of all other kinds."""
    transitions: Mapping[tuple[str, str], Transition]
    """(state, symbol) -> the transition. Every pair has an entry."""
    states: Mapping[str, str]
    """State -> its meaning in words, for reports."""
    new_step: frozenset[str] = frozenset()
    """Kinds of chunk that begin a step."""
    scopes: tuple[Scope, ...] = ()
    """The types of things that can be open."""
    agreements: tuple[Agreement, ...] = ()
    """The fields that must keep one value."""
    error: ServiceError | None = None
    """The way in which a service reports a failed turn; None if the protocol has none."""
    unseen: frozenset[str] = frozenset()
    """States in which the client has stopped reading. It refuses nothing there, so findings there are warnings."""
    breaks_off: frozenset[str] = frozenset()
    """Symbols after which an open part gives no warning, such as an abort."""
    closed: frozenset[str] = frozenset()
    """States in which the terminator has come, so that the body may end."""

    def symbol(self, kind: str) -> str:
        """Return the symbol of a kind of chunk in the table."""
        family = kind.partition("-")[0] + "-*"
        return self.symbols.get(kind) or self.symbols.get(family, self.other)


class Deviation(msgspec.Struct, frozen=True, gc=False):
    """One broken rule, before the checker turns it into a `Finding`: it has no severity and no place yet."""

    rule: str
    """Id of the broken rule."""
    expected: str
    """The content that the rule asks for, in words."""
    actual: str
    """The content that came instead, in words."""
    is_unseen: bool = False
    """True if the client had stopped reading before. It does not refuse the chunk, so the finding is a warning."""


@attrs.frozen(kw_only=True, eq=False)
class KindPlan:
    """All that the grammar says about one kind of chunk. Scopes are given by their index in `Grammar.scopes`."""

    kind: str
    """The kind."""
    symbol: str
    """Its symbol in the table."""
    moves: Mapping[str, Transition]
    """State -> the transition on this kind."""
    opens: tuple[int, ...]
    """Scopes in which the kind opens something."""
    names: tuple[int, ...]
    """Scopes in which the kind must name something open."""
    closes: tuple[int, ...]
    """Scopes in which the kind closes the thing that it names."""
    clears: tuple[int, ...]
    """Scopes in which the kind closes everything."""
    drops: tuple[int, ...]
    """Scopes in which the kind closes everything that the current step opened."""
    starts_step: bool
    """True if the kind begins a step."""
    agreements: tuple[Agreement, ...]
    """The fields of the kind that must keep one value."""
    error: ServiceError | None
    """The service error that the kind reports or repeats; None for all other kinds."""
    is_watched: bool
    """True if the judge must look for version warnings in such a chunk. The chunk then never takes the fast path."""
    changes: bool
    """True if the kind begins a step, or opens or closes anything."""
    fast_states: frozenset[str]
    """States in which a chunk of the kind may take the fast path: it is in order if the thing that it names is open."""
    key_of: Callable[[Any], Any] | None
    """Returns the id of the thing that a chunk names; None if the kind names nothing or has no fast path."""


def plan_kind(grammar: Grammar, kind: str, fields: Iterable[str], *, is_watched: bool) -> KindPlan:
    """Return all that the grammar says about one kind of chunk.

    Args:
        grammar: The grammar.
        kind: The kind.
        fields: The names of the kind's fields.
        is_watched: True if the kind must never take the fast path.
    """

    def scopes(attribute: str) -> tuple[int, ...]:
        """Return the scopes that list the kind in this attribute."""
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
    can_be_fast = len(keys) <= 1 and not (agreements or error or is_watched) and (opens_only or not changes)
    return KindPlan(
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
        fast_states=frozenset(
            state for state, move in moves.items() if can_be_fast and move == Transition(state)
        ),
        key_of=attrgetter(keys[0]) if can_be_fast and keys else None,
    )


_Key: TypeAlias = str | tuple[str, bool]
"""The identity of an open thing: its id; or, if ``Scope.key`` has two fields, its id and True if it is dynamic."""


def _key_getter(scope: Scope) -> Callable[[Any], _Key]:
    """Return a function that returns the key of the thing that a chunk opens, names or closes."""
    name = attrgetter(scope.key[0])
    if len(scope.key) == 1:
        return name
    qualifier = attrgetter(scope.key[1])
    return lambda chunk: (name(chunk), qualifier(chunk) is True)


_QUALIFIERS = ("dynamic",)
"""Names of fields that are part of a key and may be absent."""


def _known_keys(scope: Scope, known: Iterable[str]) -> Iterator[_Key]:
    """Yield the keys that are open in this scope from the beginning of the stream."""
    if scope.known:
        for name in known:
            yield from [(name, False), (name, True)] if len(scope.key) > 1 else [name]


def _describe(key: _Key) -> str:
    """Return the identity of an open thing in words, for a finding."""
    return key if isinstance(key, str) else f"{key[0]} ({'dynamic' if key[1] else 'not dynamic'})"


@attrs.define(eq=False)
class Walk:
    """The position of one stream in its grammar. It moves on with each chunk and reports broken rules."""

    grammar: Grammar
    """The order that the stream must keep."""
    known: frozenset[str]
    """Ids of the tool calls that were made before this stream."""
    expected: Mapping[str, str]
    """Name of a field -> the value that the request fixes."""
    _room: int
    """Rough memory that is left for the ids of open things, in bytes; negative once it is used up."""
    state: str = attrs.field(init=False)
    """The current state: a key of `Grammar.states`."""
    service_error: str | None = attrs.field(default=None, init=False)
    """The code of the first error that the service reported; None without one."""
    opened: tuple[dict[_Key, int], ...] = attrs.field(init=False)
    """For each scope: key of an open thing -> number of the step that opened it; -1 if it was open before the stream."""
    # For each scope: the function that returns the key of the thing that a chunk is about.
    _key_of: tuple[Callable[[Any], _Key], ...] = attrs.field(init=False)
    # Field of `Grammar.agreements` -> its last value; before its first chunk, the value that the request fixes, if any.
    _agreed: dict[str, Any] = attrs.field(init=False)
    # The number of steps that have begun.
    _step: int = attrs.field(default=0, init=False)
    # The symbols that have come.
    _seen: set[str] = attrs.field(factory=set, init=False)
    # The number of unreadable events that have hidden no report yet. Each may be the event that seems to be missing later, so
    # each hides one report.
    _unreadable: int = attrs.field(default=0, init=False)
    # True once the memory for open things is used up. From then on, a thing that seems not open is not reported.
    _is_full: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.state = self.grammar.initial
        self.opened = tuple(
            dict.fromkeys(_known_keys(scope, self.known), -1) for scope in self.grammar.scopes
        )
        self._key_of = tuple(map(_key_getter, self.grammar.scopes))
        self._agreed = dict(self.expected)

    @property
    def expectation(self) -> str:
        """Return the event that must come before the body may end, in words."""
        return self.grammar.transitions[self.state, END].expected or END

    @property
    def is_over(self) -> bool:
        """Return True if the terminator has come, so that the body may end."""
        return self.state in self.grammar.closed

    def open_fast(self, plan: KindPlan, chunk: Any) -> bool:  # noqa: ANN401
        """Open the things that a chunk on the fast path opens. Return False if the memory for open things is used up."""
        for at in plan.opens:
            key = self._key_of[at](chunk)
            if key not in self.opened[at]:
                self._open(at, key)
        return self._room >= 0

    def take(self, plan: KindPlan, chunk: Chunk) -> Sequence[Deviation]:
        """Move on by one chunk, and return the rules that it breaks. The walk goes on as if a missing event had come."""
        found: list[Deviation] = []
        move = plan.moves[self.state]
        if move.rule is not None:
            found += self._report_move(move, plan.symbol, plan.kind)
        self.state = move.to
        self._seen.add(plan.symbol)
        for at in plan.names:
            key = self._key_of[at](chunk)
            if key not in self.opened[at]:
                found += self._report_unopened(at, key, plan.kind)
        if plan.changes:
            found += self._change(plan, chunk)
        if self._room < 0 and not self._is_full:
            self._is_full = True
            found.append(
                Deviation("order.too-many-open", "fewer open parts and calls, or shorter ids", plan.kind)
            )
        for agreement in plan.agreements:
            found += self._check_agreement(agreement, getattr(chunk, agreement.field))
        if plan.error is not None:
            found += self._check_failure(plan.error, plan.kind, chunk)
        return found

    def move(self, symbol: str, actual: str) -> Sequence[Deviation]:
        """Move on by an event that is not a chunk (the terminator, the end), and return the rules that it breaks."""
        move = self.grammar.transitions[self.state, symbol]
        found = () if move.rule is None else self._report_move(move, symbol, actual)
        self.state = move.to
        self._seen.add(symbol)
        return found

    def _report_move(self, move: Transition, symbol: str, actual: str) -> Sequence[Deviation]:
        """Return the rule that a transition breaks, unless its cause has been reported before."""
        # The table calls this event a duplicate, but no such event has come: the event is late, and was reported as missing.
        if move.rule is None or (move.rule == "order.duplicate" and symbol not in self._seen):
            return ()
        if self._unreadable and move.rule in _MISSING_EVENT_RULES:
            self._unreadable -= 1
            return ()
        return (Deviation(move.rule, move.expected or "", actual),)

    def end(self) -> Sequence[Deviation]:
        """Move on by the end of the body, and return the rules that it breaks. Report open parts only after the terminator."""
        open_still = (
            [each for at in range(len(self.opened)) for each in self._left_open(at)] if self.is_over else []
        )
        return [*open_still, *self.move(END, END)]

    def note_unreadable(self) -> None:
        """Count an event that could not be read, or whose kind is unknown.

        This event hides the next report of a missing event, or of a thing that is not open.
        """
        self._unreadable += 1

    def take_refused(self, plan: KindPlan, values: Mapping[str, Any]) -> None:
        """Move on, without a report, by a chunk that the schema refused but whose kind is known.

        Args:
            plan: The plan of the kind.
            values: The fields of the chunk that are good.
        """
        self.state = plan.moves[self.state].to
        self._seen.add(plan.symbol)
        # If the field with the key is missing, the chunk can open or close nothing.
        with contextlib.suppress(AttributeError):
            self._change(plan, SimpleNamespace(**{**dict.fromkeys(_QUALIFIERS, False), **values}))

    def _report_unopened(self, at: int, key: _Key, kind: str) -> Sequence[Deviation]:
        """Return the deviation of a chunk that names a thing that is not open, unless the walk may have missed its opening."""
        # The thing may have been opened after the memory for open things was used up.
        if self._is_full:
            return ()
        # From here on the thing counts as open, so that it is reported once.
        self._open(at, key)
        if self._unreadable:
            self._unreadable -= 1
            return ()
        scope = self.grammar.scopes[at]
        return (Deviation(scope.rule, f"an open {scope.name}", printable(f"{kind} for {_describe(key)}")),)

    def _change(self, plan: KindPlan, chunk: Any) -> Sequence[Deviation]:  # noqa: ANN401
        """Open and close the things that the chunk opens and closes, and report those that were left open."""
        found: list[Deviation] = []
        self._step += plan.starts_step
        for at in plan.closes:
            self._close(at, self._key_of[at](chunk))
        for at in plan.clears:
            found += self._left_open(at)
            for key in list(self.opened[at]):
                self._close(at, key)
        for at in plan.drops:
            for key in [key for key, step in self.opened[at].items() if step == self._step]:
                self._close(at, key)
        for at in plan.opens:
            self._open(at, self._key_of[at](chunk))
        return found

    def _open(self, at: int, key: _Key) -> None:
        """Open a thing, if there is memory left for it."""
        opened = self.opened[at]
        if key not in opened and self._room >= 0:
            self._room -= _ENTRY_BYTES + len(key[0] if isinstance(key, tuple) else key)
            opened[key] = self._step

    def _close(self, at: int, key: _Key) -> None:
        """Close a thing, if it is open."""
        if self.opened[at].pop(key, None) is not None:
            self._room += _ENTRY_BYTES + len(key[0] if isinstance(key, tuple) else key)

    def _left_open(self, at: int) -> Sequence[Deviation]:
        """Return the warning about open things of this scope that must be closed; nothing after a symbol of `breaks_off`."""
        scope, opened = self.grammar.scopes[at], self.opened[at]
        if not (scope.must_close and opened and self._seen.isdisjoint(self.grammar.breaks_off)):
            return ()
        return (
            Deviation(
                "order.part-left-open",
                f"the end of each {scope.name}",
                f"no end for {printable(', '.join(map(_describe, opened)))}",
            ),
        )

    def _check_agreement(self, agreement: Agreement, value: Any) -> Sequence[Deviation]:  # noqa: ANN401
        """Return the deviation of a field that has another value than before. From then on, the new value counts."""
        if value is msgspec.UNSET:
            return ()
        agreed = self._agreed.setdefault(agreement.field, value)
        if value == agreed:
            return ()
        self._agreed[agreement.field] = value
        return (Deviation(agreement.rule, f"{agreement.field} {printable(agreed)}", printable(value)),)

    def _check_failure(self, error: ServiceError, kind: str, chunk: Chunk) -> Sequence[Deviation]:
        """Return the error that the service reports, or the deviation of a finish with the wrong status."""
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
            else f"{error.status} other than {error.failed}, or an error before it"
        )
        return (Deviation("order.finish-status", wanted, printable(str(status))),)
