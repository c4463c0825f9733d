r"""The notation for order: a regular expression over the kinds of chunk, and the automaton that it stands for.

    start .* (finish | error)

Kinds stand beside each other; `?`, `*` and `+` follow what may be absent or come again; a bar separates choices; parentheses group.
`.` is any kind that the expression does not name. A name with a space or one of these signs stands in quotes: `"text start"`.

`parse_order` reads the notation, and `Automaton` is the result: states, the kinds that may come in each, and whether the order may
end there. The constructions are those of the textbooks.
"""

import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs

ANY: Final = "."
"""The symbol of all kinds that an order does not name."""
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>[()|?*+])|"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<name>[^\s()|?*+"']+))"""
)
_MAX_TOKENS = 1000
_MAX_STATES = 4000
_MAX_DEPTH = 100
_MAX_NAMES = 12
"""Largest number of kinds that a finding lists."""


class OrderError(ValueError):
    """The notation has a slip; the message is a sentence about it."""


@attrs.frozen(kw_only=True, eq=False)
class Automaton:
    """The states of an order. State 0 is the first."""

    text: str
    """The notation that it was made from."""
    moves: tuple[Mapping[str, int], ...]
    """For each state: symbol that may come -> the next state."""
    accepts: tuple[bool, ...]
    """For each state: True if the order may end there."""
    symbols: frozenset[str] = attrs.field(init=False, repr=False)
    """The kinds that the order names, and `ANY` if it has a dot."""

    @symbols.default
    def _find_symbols(self) -> frozenset[str]:
        return frozenset(symbol for moves in self.moves for symbol in moves)

    def next_in(self, state: int) -> str:
        """Return the events that may come next, in words, for a finding."""
        names = ["any other kind" if symbol == ANY else symbol for symbol in self.moves[state]]
        if len(names) > _MAX_NAMES:
            names = [*names[:_MAX_NAMES], f"{len(names) - _MAX_NAMES} other kinds"]
        names += ["the end"] if self.accepts[state] and names else []
        return " or ".join(names) or "nothing more"

    def resumed(self, state: int) -> Mapping[str, int]:
        """Return the state after each symbol that may come here or later, as if the fewest missing events had come before it.

        A symbol that is not in the result is one too many here.
        """
        after_symbol: dict[str, int] = {}
        seen, waiting = {state}, deque([state])
        while waiting:
            for symbol, after in self.moves[waiting.popleft()].items():
                after_symbol.setdefault(symbol, after)
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return after_symbol

    def without(self, symbol: str) -> "Automaton":
        """Return the same order for streams in which this symbol cannot come. No move leads where the order cannot end."""
        ends = {state for state, accepts in enumerate(self.accepts) if accepts}
        size = -1
        while len(ends) > size:
            size = len(ends)
            ends |= {
                state
                for state, here in enumerate(self.moves)
                if any(to in ends for each, to in here.items() if each != symbol)
            }
        moves = tuple(
            {each: to for each, to in here.items() if each != symbol and to in ends} for here in self.moves
        )
        return attrs.evolve(self, moves=moves)

    def can_end(self) -> bool:
        """Return True if the order can end. Each move of an order leads to a place from where it can."""
        return self.accepts[0] or bool(self.moves[0])


@lru_cache(maxsize=256)
def parse_order(text: str) -> Automaton:
    """Return the automaton of an order.

    Raises:
        OrderError: If the notation has a slip.
    """
    parser = _Parser(text, _tokens(text))
    whole = parser.choice(0)
    if parser.at < len(parser.tokens):
        raise OrderError(f"the order {text!r} has a ) without its (")
    return _determined(text, parser.steps, whole)


def _tokens(text: str) -> Sequence[tuple[str, str]]:
    """Return the tokens: pairs of "sign" or "name", and the text."""
    found: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None:
            raise OrderError(f"the order {text!r} has a quotation mark without its second one")
        at = token.end()
        sort = "sign" if token["sign"] else "name"
        if ANY in {token["double"], token["single"]}:
            raise OrderError(f"the order {text!r} has a dot in quotation marks; no kind can be named so")
        found.append((sort, token["sign"] or token["double"] or token["single"] or token["name"]))
    if not found:
        raise OrderError("the order is empty; leave it out if any order is right")
    if len(found) > _MAX_TOKENS:
        raise OrderError(
            f"the order has more than {_MAX_TOKENS} words; split it into `each` orders, or give a table"
        )
    return found


@attrs.define
class _Parser:
    """A parser by recursive descent. A part of the order is a pair of numbered places: its beginning and its end."""

    text: str
    tokens: Sequence[tuple[str, str]]
    at: int = 0
    steps: list[list[tuple[str | None, int]]] = attrs.field(factory=list)
    """Place -> pairs of a symbol (None: no event is needed) and the next place."""

    def choice(self, depth: int) -> tuple[int, int]:
        """Read parts that are separated by bars."""
        if depth > _MAX_DEPTH:
            raise OrderError(
                f"the order {self.text[:60]!r}... has more than {_MAX_DEPTH} parentheses inside each other"
            )
        parts = [self.sequence(depth)]
        while self._is_sign("|"):
            self.at += 1
            parts.append(self.sequence(depth))
        if len(parts) == 1:
            return parts[0]
        begin, end = self._place(), self._place()
        for first, last in parts:
            self.steps[begin].append((None, first))
            self.steps[last].append((None, end))
        return begin, end

    def sequence(self, depth: int) -> tuple[int, int]:
        """Read parts that stand beside each other."""
        begin = end = self._place()
        count = 0
        while self.at < len(self.tokens) and not self._is_sign("|") and not self._is_sign(")"):
            first, last = self._repeated(depth)
            self.steps[end].append((None, first))
            end, count = last, count + 1
        if not count:
            raise OrderError(
                f"the order {self.text!r} has a place where a kind is missing, beside a | or inside ()"
            )
        return begin, end

    def _repeated(self, depth: int) -> tuple[int, int]:
        """Read one part and the sign behind it."""
        first, last = self._one(depth)
        if (
            self.at < len(self.tokens)
            and self.tokens[self.at][0] == "sign"
            and self.tokens[self.at][1] in "?*+"
        ):
            sign = self.tokens[self.at][1]
            self.at += 1
            begin, end = self._place(), self._place()
            self.steps[begin].append((None, first))
            self.steps[last].append((None, end))
            if sign in "?*":
                self.steps[begin].append((None, end))
            if sign in "*+":
                self.steps[last].append((None, first))
            first, last = begin, end
            if (
                self.at < len(self.tokens)
                and self.tokens[self.at][0] == "sign"
                and self.tokens[self.at][1] in "?*+"
            ):
                raise OrderError(
                    f"the order {self.text!r} has {sign}{self.tokens[self.at][1]}; one of the two signs is enough"
                )
        return first, last

    def _one(self, depth: int) -> tuple[int, int]:
        """Read a kind, or parentheses."""
        sort, word = self.tokens[self.at]
        self.at += 1
        if sort == "name":
            begin, end = self._place(), self._place()
            self.steps[begin].append((word, end))
            return begin, end
        if word != "(":
            raise OrderError(f"the order {self.text!r} has a {word} that follows nothing")
        inside = self.choice(depth + 1)
        if not self._is_sign(")"):
            raise OrderError(f"the order {self.text!r} has a ( without its )")
        self.at += 1
        return inside

    def _is_sign(self, sign: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] == ("sign", sign)

    def _place(self) -> int:
        self.steps.append([])
        return len(self.steps) - 1


def _determined(  # noqa: C901  the construction in one piece, as in the textbooks
    text: str, steps: Sequence[Sequence[tuple[str | None, int]]], whole: tuple[int, int]
) -> Automaton:
    """Return the automaton in which each event leads to one state (subset construction)."""

    def closure(places: frozenset[int]) -> frozenset[int]:
        seen, waiting = set(places), list(places)
        while waiting:
            for symbol, to in steps[waiting.pop()]:
                if symbol is None and to not in seen:
                    seen.add(to)
                    waiting.append(to)
        return frozenset(seen)

    states = [closure(frozenset({whole[0]}))]
    numbers = {states[0]: 0}
    moves: list[dict[str, int]] = []
    for places in states:
        targets: dict[str, set[int]] = {}
        for place in sorted(places):
            for symbol, to in steps[place]:
                if symbol is not None:
                    targets.setdefault(symbol, set()).add(to)
        here: dict[str, int] = {}
        for symbol, reached in targets.items():
            after = closure(frozenset(reached))
            if after not in numbers:
                if len(states) >= _MAX_STATES:
                    raise OrderError(
                        f"the order {text[:60]!r}... needs more than {_MAX_STATES} states; give a table instead"
                    )
                numbers[after] = len(states)
                states.append(after)
            here[symbol] = numbers[after]
        moves.append(here)
    return _smallest(text, moves, [whole[1] in places for places in states])


def _smallest(text: str, moves: Sequence[Mapping[str, int]], accepts: Sequence[bool]) -> Automaton:
    """Return the automaton with the fewest states: states that nothing can tell apart become one (Moore)."""
    classes = [int(accept) for accept in accepts]
    while True:
        looks = [
            (classes[state], tuple(sorted((symbol, classes[to]) for symbol, to in here.items())))
            for state, here in enumerate(moves)
        ]
        numbers = {look: number for number, look in enumerate(dict.fromkeys(looks))}
        finer = [numbers[look] for look in looks]
        if len(numbers) == len(set(classes)):
            break
        classes = finer
    # The first state of each class stands for all of it. State 0 is the first of its class, which is class 0.
    first = [finer.index(number) for number in range(len(numbers))]
    return Automaton(
        text=text,
        moves=tuple({symbol: finer[to] for symbol, to in moves[state].items()} for state in first),
        accepts=tuple(accepts[state] for state in first),
    )
