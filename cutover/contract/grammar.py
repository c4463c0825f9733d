"""The order of a stream's chunks, as data: a table of states, and the parts and calls that chunks open, name and close.

Two values work together:

- A `Grammar` is the data: one table of states and transitions, and the scopes. A scope is one sort of thing that can be
  open, such as text parts or tool calls. It has a small table of its own, which holds for each thing.
- A `KindPlan` is all that the grammar says about one kind of chunk. It is computed once for each kind.

`cutover.contract.order` makes both tables from the notation. A protocol that needs more writes them down (`open_scope`). The position
of one stream in the tables is a `Walk`.

A chunk takes the fast path or not, depending on its kind and on the state. `KindPlan.fast_states` lists the states in
which a chunk of the kind keeps the state, at most opens something, and can break one rule only: it may name a thing that is
not open. In such a state, the judge checks only this rule.

This module is long because each attribute of the tables is explained where it stands.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

import attrs

from cutover.contract.paths import MISSING, Getter, identity, parse_path

TERMINATOR: Final = "[DONE]"
"""The symbol of the stream's last event in the table, whatever its text is."""
END: Final = "end of the body"
"""The symbol of the end of the body in the table."""
ABSENT: Final = ""
"""The state of a thing that is not open: it was never opened, or has been closed."""
OPEN: Final = "open"
"""The state of an open thing in a scope that `open_scope` makes."""
BEGUN: Final = "begun"
"""The state of a thing in such a scope that has begun to come: it can be named, and its first chunks are not complete."""


MISSING_EVENT_RULES: Final = frozenset(
    {
        "order.start-missing",
        "order.step-missing",
        "order.step-unfinished",
        "order.outside-step",
        "order.finish-before-step",
        "order.finish-missing",
        "order.unexpected",
        "terminator.missing",
    }
)
"""Rules that report a missing event."""


@attrs.frozen
class Transition:
    """One entry of a table: the next state, and the rule that the event breaks, if it breaks one."""

    to: str
    """The next state."""
    rule: str | None = None
    """Id of the broken rule; None if the event is in order."""
    expected: str | None = None
    """The event that should have come, in words; None if the event is in order."""
    is_extra: bool = False
    """True if no missing event explains the broken rule: this event is one too many."""


@attrs.frozen(kw_only=True, eq=False)
class Scope:
    """A type of thing that one chunk opens and later chunks name until it is closed: a part, a call or an approval."""

    name: str
    """The thing in words, such as ``text part``."""
    what_ends: str = ""
    """The part of the thing that must come to its end, in words, such as the input of a call; empty for the whole thing."""
    key: tuple[str, ...]
    """Paths to the values that identify a thing together."""
    flags: tuple[str, ...] = ()
    """Paths to booleans that belong to the identity. An absent one counts as False."""
    moves: Mapping[str, Mapping[str, Transition]]
    """Kind of chunk -> (state of the thing that it names -> transition). A kind that is not here names no such thing."""
    states: tuple[str, ...] = (OPEN,)
    """The states of a thing other than `ABSENT`."""
    unfinished: frozenset[str] = frozenset({OPEN})
    """The states in which a thing must still be closed, where it must be closed."""
    cleared_by: frozenset[str] = frozenset()
    """Kinds of chunk that close all open things, without a report."""
    closed_before: frozenset[str] = frozenset()
    """Kinds of chunk before which every thing must be closed. They report the open ones, and close them."""
    closed_at_end: bool = False
    """True if every thing must be closed before the stream ends."""
    dropped_by: frozenset[str] = frozenset()
    """Kinds of chunk that close the things that were opened in the current step."""
    known: bool = False
    """True if the calls of `StreamContext.known_tool_calls` are open from the beginning of the stream."""
    repeats: tuple[str, ...] = ()
    """Paths whose value every chunk of a thing must repeat from the chunk that opened it, if it has one."""
    counts_from: int | None = None
    """The last value of the first thing's key, which then grows by one with each thing; None if keys are free."""


def open_scope(  # noqa: D417  the other arguments are the attributes of `Scope`
    *,
    opened_by: Iterable[str],
    named_by: Iterable[str] = (),
    closed_by: Iterable[str] = (),
    begun_by: Iterable[str] = (),
    once: Iterable[str] = (),
    rule: str,
    **attributes: Any,  # noqa: ANN401
) -> Scope:
    """Return a scope whose things are open, begun or neither.

    Args:
        opened_by: Kinds of chunk that open a thing, or complete one that has begun. A thing that is open already stays open.
        named_by: Kinds of chunk that must name an open thing. One that has begun is then complete.
        closed_by: Kinds of chunk that close the thing that they name. List a kind in ``named_by`` too if the thing must be open.
        begun_by: Kinds of chunk with which a thing begins. It must be completed where things must be closed. Default: none.
        once: Those of `opened_by` and `begun_by` that break `order.part-reopened` if their thing is there already. Default: none.
        rule: Id of the rule that a chunk breaks if it names a thing that is not open.
    """
    opening, naming, closing = frozenset(opened_by), frozenset(named_by), frozenset(closed_by)
    beginning, once, name = frozenset(begun_by), frozenset(once), attributes["name"]

    def moves_of(kind: str) -> Mapping[str, Transition]:
        after = ABSENT if kind in closing else BEGUN if kind in beginning else OPEN
        unopened = (rule, f"an open {name}") if kind in naming else (None, None)
        reopened = ("order.part-reopened", f"the id of a new {name}") if kind in once else (None, None)
        there = Transition(after, *reopened)
        return {ABSENT: Transition(after, *unopened), OPEN: there} | ({BEGUN: there} if beginning else {})

    return Scope(
        moves={kind: moves_of(kind) for kind in opening | naming | closing | beginning},
        states=(OPEN, BEGUN) if beginning else (OPEN,),
        unfinished=frozenset({BEGUN if beginning else OPEN}),
        **attributes,
    )


@attrs.frozen(kw_only=True)
class ServiceError:
    """The way in which a service reports, inside the stream, that the turn failed."""

    kind: str
    """The kind of the error chunk."""
    code: str = "/data"
    """Path to the error code in that chunk. Default: all of its data."""
    member: str | None = attrs.field(default=None)
    """Path to a value that makes any chunk an error, whatever its kind is: an object, a text or a number, but not null, false or "".
    Default None: the kind alone decides."""
    is_last: bool = False
    """True if the error chunk ends the stream, so that nothing may follow it. Default: what follows is not judged."""
    finish: str | None = None
    """The kind of the turn's last chunk, if it has a status that reports a failure; else None."""
    status: str | None = None
    """Path to the status in the turn's last chunk. A chunk without it is accepted."""
    failed: str | None = None
    """The value of that status after an error. Without an error it must not have this value."""

    @member.validator
    def _is_in_data(self, _: object, member: str | None) -> None:
        """Refuse a path that does not lead into the data."""
        if member is not None and parse_path(member)[0] != "data":
            raise ValueError(
                f"the member {member} of an error is no field of the data; for an event name give the error's kind"
            )


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
    unseen: frozenset[str] = frozenset()
    """States in which the client has stopped reading. It refuses nothing there, so findings there are warnings."""
    breaks_off: frozenset[str] = frozenset()
    """Symbols after which an open part gives no warning, such as an abort."""
    excused: frozenset[str] = MISSING_EVENT_RULES
    """Rules that an event that could not be read excuses once, because it may be the missing one.

    It excuses a missing terminator only in the terminator's place, as the last event of the stream.
    """
    terminator_alone_is_empty: bool = False
    """True if a stream of nothing but the terminator is an empty stream, and not a turn whose start is missing."""
    closed: frozenset[str] = frozenset()
    """States in which the stream is over, so that the body may end and open parts are reported."""
    moves: Mapping[str, Mapping[str, Transition]] = attrs.field(init=False, repr=False)
    """Symbol -> (state -> the transition): `transitions`, by their symbol."""

    @moves.default
    def _by_symbol(self) -> Mapping[str, Mapping[str, Transition]]:
        moves: dict[str, dict[str, Transition]] = {}
        for (state, symbol), transition in self.transitions.items():
            moves.setdefault(symbol, {})[state] = transition
        return moves

    def symbol(self, kind: str) -> str:
        """Return the symbol of a kind of chunk in the table."""
        family = kind.partition("-")[0] + "-*"
        return self.symbols.get(kind) or self.symbols.get(family, self.other)


@attrs.frozen(kw_only=True, eq=False)
class KindPlan:
    """All that the grammar says about one kind of chunk. Scopes are given by their index in `Grammar.scopes`."""

    kind: str
    """The kind."""
    symbol: str
    """Its symbol in the table."""
    moves: Mapping[str, Transition]
    """State -> the transition on this kind."""
    touches: tuple[tuple[int, Mapping[str, Transition]], ...]
    """Scopes in which the kind opens, names or closes a thing, each with the transitions of that thing."""
    keys: Mapping[int, Callable[[Any], Hashable]]
    """Each of these scopes -> the function that returns the key of the thing that a chunk is about."""
    clears: tuple[int, ...]
    """Scopes in which the kind closes everything."""
    drops: tuple[int, ...]
    """Scopes in which the kind closes everything that the current step opened."""
    starts_step: bool
    """True if the kind begins a step."""
    repeats: Mapping[int, tuple[Getter, ...]]
    """Scope -> functions that return the values that every chunk of a thing must repeat."""
    error: ServiceError | None
    """The service error that the kind reports or repeats; None for all other kinds."""
    error_value: Getter | None
    """Returns the code of an error chunk, or the status of the turn's last chunk; None for all other kinds."""
    is_watched: bool
    """True if the judge must look at every such chunk. The chunk then never takes the fast path."""
    content: Getter | None
    """Returns the content of a chunk, which may be empty; None for kinds without content."""
    fast_states: frozenset[str]
    """States in which a chunk of the kind may take the fast path: it is in order if the thing that it names is open."""
    fast_name: tuple[int, str] | None
    """Scope and state of the thing that a chunk on the fast path names; None if it names nothing."""
    fast_opens: tuple[tuple[int, Callable[[Any], Hashable], str, bool], ...]
    """Scopes in which a chunk on the fast path opens a thing: the scope, its function of `keys`, the state of the opened thing, and True
    if the thing may be there already. The first scope alone can have False. All have the same paths to their ids."""


def plan_kind(
    grammar: Grammar,
    kind: str,
    getter: Callable[[str], Getter | None],
    *,
    error: ServiceError | None,
    content: str | None,
    is_watched: bool,
) -> KindPlan:
    """Return all that the grammar says about one kind of chunk.

    Args:
        grammar: The grammar.
        kind: The kind.
        getter: Returns the function that reads a path in such a chunk; None if the kind has no such field.
        error: The service error of the contract.
        content: The path to the kind's content; None if it has none.
        is_watched: True if the kind must never take the fast path.
    """
    scopes = tuple(enumerate(grammar.scopes))
    touches = tuple((at, scope.moves[kind]) for at, scope in scopes if kind in scope.moves)
    clears = tuple(at for at, scope in scopes if kind in scope.cleared_by | scope.closed_before)
    drops = tuple(at for at, scope in scopes if kind in scope.dropped_by)
    repeats = {
        at: tuple(getter(path) or _missing for path in grammar.scopes[at].repeats)
        for at, _ in touches
        if grammar.scopes[at].repeats
    }
    told = error if error is not None and kind in {error.kind, error.finish} else None
    where = None if told is None else told.code if kind == told.kind else told.status
    symbol = grammar.symbol(kind)
    moves = grammar.moves[symbol]
    names = [(at, loop) for at, moved in touches if (loop := _named_state(moved)) is not None]
    opens = [at for at, moved in touches if _only_opens(grammar.scopes[at], moved)]
    are_alike = len({grammar.scopes[at].key for at in opens}) <= 1
    strict = [at for at in opens if grammar.scopes[at].moves[kind][OPEN].rule is not None]
    starts_step = kind in grammar.new_step
    keys = {at: key_getter(grammar.scopes[at], getter) for at, _ in touches}
    is_fast = (
        not (is_watched or told or starts_step or clears or drops or repeats)
        and len(names) <= 1
        and len(names) + len(opens) == len(touches)
        and are_alike
        and len(strict) <= 1
        and len(opens) <= _MOST_OPENED
    )
    return KindPlan(
        kind=kind,
        symbol=symbol,
        moves=moves,
        touches=touches,
        keys=keys,
        clears=clears,
        drops=drops,
        starts_step=starts_step,
        repeats=repeats,
        error=told,
        error_value=None if where is None else getter(where) or _missing,
        is_watched=is_watched,
        content=None if content is None else getter(content),
        fast_states=frozenset(
            state for state, move in moves.items() if is_fast and move == Transition(state)
        ),
        fast_name=names[0] if is_fast and names else None,
        fast_opens=tuple(
            sorted(
                (
                    (at, keys[at], moved[ABSENT].to, moved[OPEN].rule is None)
                    for at, moved in touches
                    if is_fast and at in opens
                ),
                key=lambda opened: opened[3],
            )
        ),
    )


_MOST_OPENED = 2
"""Largest number of scopes in which a chunk on the fast path opens a thing."""


def _missing(_: object) -> Any:  # noqa: ANN401
    """Return the value of a field that a kind does not have."""
    return MISSING


def _named_state(moves: Mapping[str, Transition]) -> str | None:
    """Return the one state that a thing keeps when a chunk names it; None if there is no such state, or several."""
    kept = [state for state, move in moves.items() if state != ABSENT and move == Transition(state)]
    absent = moves.get(ABSENT)
    return kept[0] if len(kept) == 1 and absent is not None and absent.rule is not None else None


def _only_opens(scope: Scope, moves: Mapping[str, Transition]) -> bool:
    """Return True if a chunk with these transitions opens or completes a thing, and changes nothing in one that is open."""
    return (
        scope.counts_from is None
        and not scope.repeats
        and scope.states in {(OPEN,), (OPEN, BEGUN)}
        and moves[ABSENT].rule is None
        and moves[ABSENT].to in {OPEN, BEGUN}
    )


def key_getter(scope: Scope, getter: Callable[[str], Getter | None]) -> Callable[[Any], Hashable]:
    """Return a function that returns the key of the thing that a chunk opens, names or closes."""
    parts = [getter(path) or _missing for path in scope.key]
    flags = [getter(path) or _missing for path in scope.flags]
    if len(parts) == 1 and not flags:
        first = parts[0]
        if isinstance(first, attrgetter):
            # A table of fields knows that ids are text, and the fast path asks for the id of each event.
            return first

        def one_part(chunk: Any) -> Hashable:  # noqa: ANN401
            value = first(chunk)
            return value if type(value) in _PLAIN else identity(value)

        return one_part
    return lambda chunk: (
        *(identity(part(chunk)) for part in parts),
        *(flag(chunk) is True for flag in flags),
    )


_PLAIN = frozenset({str, int})
"""Types of values that are parts of keys as they are."""
