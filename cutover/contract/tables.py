"""The tables of an order: a contract's `order`, `each` and end become a `Grammar`.

A state of the table is a state of the order's automaton while the turn goes on, or one of three words behind its end: `_ENDED` (the
last event has come, the terminator has not), `_OVER`, `_FAILED` (the service has reported an error: nothing more is asked of it).
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import attrs

from cutover.contract.each import Each
from cutover.contract.grammar import (
    END,
    MISSING_EVENT_RULES,
    TERMINATOR,
    Grammar,
    Scope,
    ServiceError,
    Transition,
)
from cutover.contract.order import ANY, Automaton, OrderError, parse_order

_ENDED: Final = "ended"
_OVER: Final = "over"
_FAILED: Final = "failed"
_ANYWHERE: Final = "(anywhere)"
_ERROR: Final = "(error)"
LAST: Final = " (last)"
"""The ending of the symbol of a chunk in which a value says that it is the stream's last one."""
_MAX_ENTRIES = 200_000
"""Largest number of pairs of a state and a kind in the tables of an order."""


@attrs.frozen(kw_only=True)
class OrderSpec:
    """All that a contract says about order and end; see the fields of `StreamContract` of the same names."""

    order: str | None
    each: tuple[Each | Scope, ...]
    anywhere: tuple[str, ...]
    terminator: str | None
    end_kinds: tuple[str, ...]
    ends_by_value: bool
    after_end: tuple[str, ...]
    endless: bool
    error: ServiceError | None
    kinds: tuple[str, ...] | None
    """The kinds that the chunks declare; None if a chunk may have any kind."""

    @property
    def named(self) -> frozenset[str]:
        """Return the kinds that order and end name."""
        order = frozenset() if self.order is None else parse_order(self.order).symbols - {ANY}
        scopes = [each.kinds if isinstance(each, Each) else frozenset(each.moves) for each in self.each]
        return order.union(*scopes, self.anywhere, self.end_kinds, self.after_end)

    @property
    def ends_by_event(self) -> bool:
        """Return True if a chunk says that it is the last one."""
        return bool(self.end_kinds) or self.ends_by_value

    @property
    def last_event(self) -> str:
        """Return the last event of the stream, in words."""
        return self.terminator or " or ".join(self.end_kinds) or "the event that says that it is the last one"


@lru_cache(maxsize=256)
def grammar_of(spec: OrderSpec) -> Grammar:
    """Return the tables.

    Raises:
        OrderError: If the order names a kind that no chunk declares, can never end, or contradicts the rest.
    """
    automaton = parse_order(spec.order if spec.order is not None else f"{ANY}*")
    _refuse_slips(spec, automaton)
    if spec.after_end and spec.terminator is None and not spec.ends_by_event:
        raise OrderError(
            "after_end says what may follow the last event, but no event is the last one; give a terminator or an end"
        )
    if spec.kinds is not None and not set(spec.kinds) - automaton.symbols - set(spec.anywhere):
        automaton = automaton.without(ANY)
    if not spec.endless and not automaton.can_end():
        raise OrderError(
            f"the order {spec.order!r} can never end, because its dot stands for no kind: all kinds are named"
        )
    builder = _Builder(spec, automaton)
    scopes = tuple(each if isinstance(each, Scope) else each.scope() for each in spec.each)
    if spec.endless:
        scopes = tuple(attrs.evolve(scope, closed_at_end=False) for scope in scopes)
    return builder.grammar(scopes)


def refuse_unknown_kinds(place: str, names: Iterable[str], kinds: tuple[str, ...] | None) -> None:
    """Raise for a name that is none of the declared kinds. With None, a chunk may have any kind.

    Raises:
        OrderError: If a name is unknown; the message says in which place.
    """
    for name in sorted(names):
        if kinds is not None and name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else f"declared: {', '.join(kinds) or 'none'}"
            raise OrderError(f"{place} names the kind {name}, which no chunk declares; {hint}")


def _refuse_slips(spec: OrderSpec, automaton: Automaton) -> None:
    """Raise for a kind that no chunk declares, and for a kind that the order never allows."""
    used = {
        "order": automaton.symbols - {ANY},
        "anywhere": spec.anywhere,
        "end": spec.end_kinds,
        "after_end": spec.after_end,
    }
    for each in spec.each:
        if isinstance(each, Each):
            used[f"each {each.order!r}"] = {*each.kinds, *each.closed_by, *each.closed_before}
    for place, names in used.items():
        refuse_unknown_kinds(place, names, spec.kinds)
        for name in sorted(names):
            if (
                place != "after_end"
                and spec.order is not None
                and ANY not in automaton.symbols
                and name not in (*automaton.symbols, *spec.anywhere)
            ):
                raise OrderError(
                    f"{place} names the kind {name}, which the order {spec.order!r} never allows"
                )
    twice = sorted(set(spec.anywhere) & automaton.symbols)
    if twice:
        raise OrderError(
            f"the kind {twice[0]} may come anywhere, so the order {spec.order!r} cannot count it"
        )
    for name in spec.end_kinds:
        symbol = name if name in automaton.symbols else ANY
        if not any(automaton.accepts[moves[symbol]] for moves in automaton.moves if symbol in moves):
            raise OrderError(f"end names the kind {name}, with which the order {spec.order!r} cannot end")


@attrs.frozen
class _Builder:
    """The tables of one order, while they are built."""

    spec: OrderSpec
    automaton: Automaton
    # For each state: the events that may come next, in words, and the state after each symbol that has come too early.
    _next: tuple[tuple[str, Mapping[str, int]], ...] = attrs.field(init=False)

    @_next.default
    def _find_next(self) -> tuple[tuple[str, Mapping[str, int]], ...]:
        states = range(len(self.automaton.moves))
        return tuple((self.automaton.next_in(state), self.automaton.resumed(state)) for state in states)

    def grammar(self, scopes: tuple[Scope, ...]) -> Grammar:
        spec, automaton = self.spec, self.automaton
        named = (automaton.symbols - {ANY}) | set(spec.end_kinds) | set(spec.after_end)
        symbols = {name: name for name in named}
        symbols.update(dict.fromkeys(spec.anywhere, _ANYWHERE))
        if spec.error is not None and spec.error.kind not in symbols:
            symbols[spec.error.kind] = _ERROR
        if len(set(symbols.values())) * len(automaton.moves) > _MAX_ENTRIES:
            raise OrderError(
                f"the order needs a table of more than {_MAX_ENTRIES} entries; split it into `each` orders"
            )
        table: dict[tuple[str, str], Transition] = {}
        for symbol in {*symbols.values(), ANY, _ANYWHERE, _ERROR}:
            for state in range(len(automaton.moves)):
                move = self._move(state, symbol)
                table[str(state), symbol] = move
                table[str(state), symbol + LAST] = self._last(move)
            for word in (_ENDED, _OVER, _FAILED):
                table[word, symbol] = table[word, symbol + LAST] = self._after(word, symbol)
            for state in range(len(automaton.moves)):
                if symbol in spec.end_kinds:
                    table[str(state), symbol] = table[str(state), symbol + LAST]
        for state in range(len(automaton.moves)):
            table[str(state), TERMINATOR] = self._terminator(state)
            table[str(state), END] = self._end(state)
        missing = ("terminator.missing", spec.last_event)
        table[_ENDED, TERMINATOR] = table[_FAILED, TERMINATOR] = Transition(_OVER)
        table[_OVER, TERMINATOR] = Transition(_OVER, "terminator.count", f"one {spec.last_event}")
        table[_ENDED, END] = Transition(_ENDED, *missing)
        table[_OVER, END], table[_FAILED, END] = Transition(_OVER), Transition(_FAILED)
        return Grammar(
            initial="0",
            symbols=symbols,
            other=ANY,
            transitions=table,
            states=self._words(),
            scopes=scopes,
            # An unreadable event is no terminator: the terminator is known by its whole text.
            excused=MISSING_EVENT_RULES - {"terminator.missing"},
            breaks_off=frozenset({_ERROR, *((spec.error.kind,) if spec.error is not None else ())}),
            closed=frozenset({_OVER}),
        )

    def _words(self) -> Mapping[str, str]:
        """Return the meaning of each state, for reports."""
        words = {
            str(state): f"next: {self.automaton.next_in(state)}" for state in range(len(self.automaton.moves))
        }
        words |= {"0": "nothing has come"} if self.spec.order is not None else {"0": "any event may come"}
        return {
            **words,
            _ENDED: "the last event has come",
            _OVER: "the stream is over",
            _FAILED: "the service has reported an error",
        }

    def _move(self, state: int, symbol: str) -> Transition:
        """Return the transition of an event in a state of the order."""
        here = str(state)
        if symbol == _ANYWHERE:
            return Transition(here)
        if symbol == _ERROR:
            return Transition(_FAILED)
        known = symbol if symbol in self.automaton.symbols else ANY
        is_error = self.spec.error is not None and self.spec.error.kind == symbol
        after = self.automaton.moves[state].get(known)
        if after is not None:
            # An order that names the error says what may follow it. A terminator is not asked for.
            is_last = is_error and self.automaton.accepts[after] and self._has_last_event
            return Transition(_FAILED if is_last else str(after))
        if is_error:
            return Transition(_FAILED)
        expected, resumable = self._next[state]
        if not self.automaton.moves[state]:
            return Transition(here, "order.after-finish", self.spec.terminator or "nothing more")
        resumed = resumable.get(known)
        to = here if resumed is None else str(resumed)
        return Transition(to, "order.unexpected", expected, is_extra=resumed is None)

    def _last(self, move: Transition) -> Transition:
        """Return the transition of an event that says that it is the last one."""
        to = _OVER if self.spec.terminator is None else _ENDED
        if move.rule is not None or move.to == _FAILED:
            return attrs.evolve(move, to=to)
        state = int(move.to)
        if self.automaton.accepts[state]:
            return Transition(to)
        return Transition(to, "order.finish-missing", self._next[state][0])

    def _after(self, word: str, symbol: str) -> Transition:
        """Return the transition of an event behind the end."""
        if word == _FAILED and self.spec.error is not None and self.spec.error.is_last:
            return Transition(word, "terminator.trailing", "nothing more after the error")
        if word == _FAILED or symbol in {_ANYWHERE, *self.spec.after_end}:
            return Transition(word)
        if symbol in self.spec.end_kinds:
            return Transition(word, "terminator.count", f"one {' or '.join(self.spec.end_kinds)}")
        return Transition(
            word, "terminator.trailing", "nothing more" if word == _OVER else self.spec.last_event
        )

    @property
    def _has_last_event(self) -> bool:
        """Return True if an event ends the stream, and not the body's end alone."""
        return self.spec.terminator is not None or self.spec.ends_by_event

    def _terminator(self, state: int) -> Transition:
        if not self.automaton.accepts[state]:
            return Transition(_OVER, "order.finish-missing", self._next[state][0])
        if self.spec.ends_by_event:
            last = attrs.evolve(self.spec, terminator=None).last_event
            return Transition(_OVER, "order.finish-missing", last)
        return Transition(_OVER)

    def _end(self, state: int) -> Transition:
        here = str(state)
        if self.spec.endless:
            return Transition(here)
        if not self.automaton.accepts[state]:
            return Transition(here, "order.finish-missing", self._next[state][0])
        if self._has_last_event:
            return Transition(here, "terminator.missing", self.spec.last_event)
        return Transition(here)
