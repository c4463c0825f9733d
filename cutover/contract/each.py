"""The order of parts: events that share an id follow an order of their own, and become a scope of the `Grammar`."""

import re
from collections.abc import Iterable, Mapping

import attrs

from cutover.contract.grammar import ABSENT, Scope, Transition
from cutover.contract.order import ANY, Automaton, OrderError, parse_order
from cutover.contract.paths import parse_path

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
        if self.reopens and self.counts_from is not None:
            raise OrderError(
                f"each {self.order!r} has both reopens and counts_from; an id that comes again is not the next number"
            )
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
            moves={kind: self._moves(automaton, kind, name, states) for kind in sorted(automaton.symbols)},
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
            resumed = automaton.resumed(state).get(kind)
            to = word if resumed is None else states[resumed]
            if resumed is not None and self.reopens and not automaton.moves[resumed]:
                to = ABSENT
            if state == 0 or (not automaton.moves[state] and opens is None):
                # An ended part does not open again, so no missing event explains this one.
                moves[word] = Transition(to, "order.unopened-part", f"an open {name}", is_extra=state > 0)
            elif not automaton.moves[state]:
                ended = f"another id: the {name} has ended"
                moves[word] = Transition(to, "order.unexpected", ended, is_extra=True)
            else:
                expected = automaton.next_in(state)
                moves[word] = Transition(to, "order.unexpected", expected, is_extra=resumed is None)
        return moves


def _part_name(automaton: Automaton) -> str:
    """Return a name for the part that an order describes: its first kind without the ending that says that it opens."""
    opener = next(iter(automaton.moves[0]))
    return f"{_OPENING.sub('', opener) or opener} part"


def each_of(value: "str | Each | Scope") -> "Each | Scope":
    """Return the order of parts that a text stands for; any other value as it is."""
    return Each(value) if isinstance(value, str) else value
