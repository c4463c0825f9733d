"""The tables of an order: a contract's `order`, `each` and end become a `Grammar`.

A state of the table is a state of the order's automaton while the turn goes on, or one of three words behind its end: `_ENDED` (the
last event has come, the terminator has not), `_OVER`, `_FAILED` (the service has reported an error: nothing more is asked of it).
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import attrs

from cutover.contract.grammar import (
    ABSENT,
    END,
    MISSING_EVENT_RULES,
    TERMINATOR,
    Grammar,
    Scope,
    ServiceError,
    Transition,
)
from cutover.contract.order import ANY, Automaton, OrderError, parse_order
from cutover.contract.paths import parse_path

_ENDED: Final = "ended"
_OVER: Final = "over"
_FAILED: Final = "failed"
_ANYWHERE: Final = "(anywhere)"
_ERROR: Final = "(error)"
LAST: Final = " (last)"
"""What the symbol of a chunk ends with if a value in the chunk says that it is the stream's last one."""
_OPENING = re.compile(r"[-_./]?(start|started|begin|open|opened|added|create|created)$", re.IGNORECASE)


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return one name, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Each:
    """The order of the events that share an id: `Each("text-start text-delta* text-end by id")`.

    Parts with different ids may be interleaved. In `StreamContract.each`, a plain text is short for an `Each` without options.

    Raises:
        OrderError: If the notation has a slip. It is a ValueError.
    """

    order: str
    """The order of one part, then `by`, then the path to the id, or several paths: `... by output_index content_index`."""
    name: str = attrs.field(default="", kw_only=True)
    """The part in words, for findings. Default: the first kind without its ending, such as `text part`."""
    reopens: bool = attrs.field(default=False, kw_only=True)
    """True if an id may come again once its part has ended."""
    must_close: bool = attrs.field(default=True, kw_only=True)
    """True if every part must have ended when the stream ends."""
    closed_before: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    """Kinds before which every part must have ended. They report the open ones."""
    closed_by: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    """Kinds that end all open parts at once."""
    repeats: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    """Paths to fields of the first event of a part that its later events must repeat, where they have them."""
    counts_from: int | None = attrs.field(default=None, kw_only=True)
    """The id of the first part, if ids count up by one without a gap. Of several paths, the last one counts within the others."""
    parts: tuple[str, tuple[str, ...]] = attrs.field(init=False, repr=False)
    """The order without `by`, and the paths."""

    @parts.default
    def _split(self) -> tuple[str, tuple[str, ...]]:
        order, by, paths = self.order.rpartition(" by ")
        keys = tuple(path for path in re.split(r"[\s,]+", paths.strip()) if path)
        if not by or not keys:
            raise OrderError(
                f"the order {self.order!r} of `each` does not say which events belong together; end it with `by` and a path, such as `by id`"
            )
        for path in (*keys, *self.repeats):
            parse_path(path)
        if ANY in parse_order(order).symbols:
            raise OrderError(
                f"the order {order!r} of `each` has a dot; name the kinds, because the others belong to no part"
            )
        return order, keys

    @property
    def kinds(self) -> frozenset[str]:
        """Return the kinds that the order of a part names."""
        return parse_order(self.parts[0]).symbols

    def scope(self) -> Scope:
        """Return the same, as a table."""
        order, keys = self.parts
        automaton = parse_order(order)
        name = self.name or _part_name(automaton)
        states = [ABSENT, *(str(state) for state in range(1, len(automaton.moves)))]
        return Scope(
            name=name,
            key=keys,
            moves={kind: self._moves(automaton, kind, name, states) for kind in automaton.symbols},
            states=tuple(states[1:]),
            unfinished=frozenset(
                state for state, accepts in zip(states, automaton.accepts, strict=True) if not accepts
            ),
            cleared_by=frozenset(self.closed_by),
            closed_before=frozenset(self.closed_before),
            closed_at_end=self.must_close,
            repeats=self.repeats,
            counts_from=self.counts_from,
        )

    def _moves(
        self, automaton: Automaton, kind: str, name: str, states: list[str]
    ) -> Mapping[str, Transition]:
        """Return the transitions of a part on this kind."""
        moves: dict[str, Transition] = {}
        for state, word in enumerate(states):
            after = automaton.moves[state].get(kind)
            opens = automaton.moves[0].get(kind)
            if after is None and self.reopens and automaton.accepts[state]:
                after = opens
            if after is not None:
                is_done = not automaton.moves[after]
                moves[word] = Transition(ABSENT if is_done and self.reopens else states[after])
                continue
            resumed = automaton.resume_at(state, kind)
            to = word if resumed is None else states[resumed]
            if resumed is not None and self.reopens and not automaton.moves[resumed]:
                to = ABSENT
            if state == 0 or (not automaton.moves[state] and opens is None):
                moves[word] = Transition(to, "order.unopened-part", f"an open {name}")
            elif not automaton.moves[state]:
                moves[word] = Transition(to, "order.unexpected", f"another id: the {name} has ended")
            else:
                moves[word] = Transition(to, "order.unexpected", automaton.next_in(state))
        return moves


def _part_name(automaton: Automaton) -> str:
    """Return a name for the part that an order describes: its first kind without the ending that says that it opens."""
    opener = next(iter(automaton.moves[0]))
    return f"{_OPENING.sub('', opener) or opener} part"


def each_of(value: "str | Each | Scope") -> "Each | Scope":
    """Return the order of parts that a text stands for; any other value as it is."""
    return Each(value) if isinstance(value, str) else value


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
    if spec.kinds is not None and not set(spec.kinds) - automaton.symbols - set(spec.anywhere):
        automaton = automaton.without(frozenset({ANY}))
    if not spec.endless and not automaton.can_end():
        raise OrderError(
            f"the order {spec.order!r} can never end, because its dot stands for no kind: all kinds are named"
        )
    builder = _Builder(spec, automaton)
    scopes = tuple(each if isinstance(each, Scope) else each.scope() for each in spec.each)
    if spec.endless:
        scopes = tuple(attrs.evolve(scope, closed_at_end=False) for scope in scopes)
    return builder.grammar(scopes)


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
        for name in sorted(names):
            if spec.kinds is not None and name not in spec.kinds:
                near = difflib.get_close_matches(name, spec.kinds, n=1)
                hint = f"did you mean {near[0]}?" if near else f"declared: {', '.join(spec.kinds) or 'none'}"
                raise OrderError(f"{place} names the kind {name}, which no chunk declares; {hint}")
            if (
                place != "after_end"
                and spec.order is not None
                and ANY not in automaton.symbols
                and name not in (*automaton.symbols, *spec.anywhere)
            ):
                raise OrderError(
                    f"{place} names the kind {name}, which the order {spec.order!r} never allows"
                )


@attrs.frozen
class _Builder:
    """The tables of one order, while they are built."""

    spec: OrderSpec
    automaton: Automaton

    def grammar(self, scopes: tuple[Scope, ...]) -> Grammar:
        spec, automaton = self.spec, self.automaton
        named = (automaton.symbols - {ANY}) | set(spec.end_kinds) | set(spec.after_end)
        symbols = {name: name for name in named}
        symbols.update(dict.fromkeys(spec.anywhere, _ANYWHERE))
        if spec.error is not None and spec.error.kind not in automaton.symbols:
            symbols[spec.error.kind] = _ERROR
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
            breaks_off=frozenset({_ERROR, *((spec.error.kind,) if spec.error is not None else ())}),
            # An unreadable event is no terminator: the terminator is known by its whole text.
            excused=MISSING_EVENT_RULES - {"terminator.missing"},
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
        after = self.automaton.moves[state].get(known)
        if after is not None:
            return Transition(str(after))
        expected = self.automaton.next_in(state)
        if not self.automaton.moves[state]:
            return Transition(here, "order.after-finish", self.spec.terminator or "nothing more")
        resumed = self.automaton.resume_at(state, known)
        return Transition(here if resumed is None else str(resumed), "order.unexpected", expected)

    def _last(self, move: Transition) -> Transition:
        """Return the transition of an event that says that it is the last one."""
        to = _OVER if self.spec.terminator is None else _ENDED
        if move.rule is not None or move.to == _FAILED:
            return attrs.evolve(move, to=to)
        state = int(move.to)
        if self.automaton.accepts[state]:
            return Transition(to)
        return Transition(to, "order.finish-missing", self.automaton.next_in(state))

    def _after(self, word: str, symbol: str) -> Transition:
        """Return the transition of an event behind the end."""
        if word == _FAILED or symbol in {_ANYWHERE, *self.spec.after_end}:
            return Transition(word)
        if symbol in self.spec.end_kinds:
            return Transition(word, "terminator.count", f"one {' or '.join(self.spec.end_kinds)}")
        return Transition(
            word, "terminator.trailing", "nothing more" if word == _OVER else self.spec.last_event
        )

    def _terminator(self, state: int) -> Transition:
        if not self.automaton.accepts[state]:
            return Transition(_OVER, "order.finish-missing", self.automaton.next_in(state))
        if self.spec.ends_by_event:
            last = attrs.evolve(self.spec, terminator=None).last_event
            return Transition(_OVER, "order.finish-missing", last)
        return Transition(_OVER)

    def _end(self, state: int) -> Transition:
        here = str(state)
        if self.spec.endless:
            return Transition(here)
        if not self.automaton.accepts[state]:
            return Transition(here, "order.finish-missing", self.automaton.next_in(state))
        if self.spec.terminator is not None or self.spec.ends_by_event:
            return Transition(here, "terminator.missing", self.spec.last_event)
        return Transition(here)
