"""The walk: the position of one stream in its grammar, that is, its state and the things that are open.

If a chunk breaks the order, the walk reports a `Deviation` and goes on as if the missing event had come. So one mistake
of a service gives one finding, not a finding for each later chunk.

This module is long because each way in which a chunk opens, moves or closes a thing changes the same few tables.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import attrs

from cutover.contract.findings import Deviation
from cutover.contract.grammar import ABSENT, BEGUN, END, OPEN, Grammar, KindPlan, ServiceError, Transition
from cutover.contract.paths import MISSING, identity, json_text, parse_path, value_words
from cutover.text import printable

_GUESSED = -2
"""The step of a thing that was never opened: a chunk named it, and that was reported."""
_ENTRY_BYTES = 120
"""Rough memory of one open part or call without its id, in bytes."""

Key = Hashable
"""The identity of a thing: the value of its id; a tuple of values if several paths or flags identify it."""


@attrs.define(eq=False)
class Walk:
    """The position of one stream in its grammar. It moves on with each chunk and reports broken rules."""

    grammar: Grammar
    """The order that the stream must keep."""
    known: frozenset[str]
    """Ids of the tool calls that were made before this stream."""
    _room: int
    """Rough memory that is left for the ids of open things, in bytes; negative once it is used up."""
    state: str = attrs.field(init=False)
    """The current state: a key of `Grammar.states`."""
    service_error: str | None = attrs.field(default=None, init=False)
    """The code of the first error that the service reported; None without one."""
    ends_unreadable: bool = attrs.field(default=False, init=False)
    """True if the stream ended with an event that could not be read. It stands in the terminator's place."""
    things: tuple[dict[str, dict[Key, int]], ...] = attrs.field(init=False)
    """For each scope: state -> (key of a thing in it -> number of the step that opened it; -1 if it was open before the stream)."""
    # (scope, key) -> the values that every chunk of the thing must repeat.
    _repeated: dict[tuple[int, Key], tuple[Any, ...]] = attrs.field(factory=dict, init=False)
    # (scope, key without its last value) -> the last value that the next thing must have, and another one that it may have after a wrong number.
    _next: dict[tuple[int, Key], tuple[int, int]] = attrs.field(factory=dict, init=False)
    # The number of steps that have begun.
    _step: int = attrs.field(default=0, init=False)
    # The symbols that have come.
    _seen: set[str] = attrs.field(factory=set, init=False)
    # The number of unreadable events that have hidden no report yet. Each may be the event that seems to be missing later, so
    # each hides one report.
    _unreadable: int = attrs.field(default=0, init=False)
    # Scope -> the number of refused chunks whose id was lost, so that a thing seems not open, or left open. Each hides one report there.
    _lost: Counter[int] = attrs.field(factory=Counter, init=False)
    # The symbols that have been reported as missing, and may come late.
    _missed: set[str] = attrs.field(factory=set, init=False)
    # The number of chunks reported as unexpected. Each may have told that the end of a part is missing, so each excuses one open part.
    _told: int = attrs.field(default=0, init=False)
    # True while a chunk is taken that has been reported as unexpected in the order of all events.
    _is_told: bool = attrs.field(default=False, init=False)
    # True once the memory for open things is used up. From then on, a thing that seems not open is not reported.
    _is_full: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.state = self.grammar.initial
        self.things = tuple({state: {} for state in scope.states} for scope in self.grammar.scopes)
        for scope, states in zip(self.grammar.scopes, self.things, strict=True):
            if scope.known:
                states[OPEN].update(dict.fromkeys(_known_keys(self.known, len(scope.flags)), -1))

    @property
    def expectation(self) -> str:
        """Return the event that must come before the body may end, in words."""
        return self.grammar.transitions[self.state, END].expected or END

    @property
    def is_over(self) -> bool:
        """Return True if the stream is over, so that the body may end."""
        return self.state in self.grammar.closed

    @property
    def is_broken_off(self) -> bool:
        """Return True if the turn broke off, such as by an abort, so that nothing is missing."""
        return self.service_error is not None or not self._seen.isdisjoint(self.grammar.breaks_off)

    @property
    def may_end(self) -> bool:
        """Return True if the body may end here."""
        return self.grammar.transitions[self.state, END].rule is None

    def open_fast(self, plan: KindPlan, chunk: Any) -> bool:  # noqa: ANN401
        """Open or complete the things that a chunk on the fast path opens.

        Return False, and change nothing, if there may be something to report: only the first scope of the plan can show that.
        """
        things, step, left = self.things, self._step, len(plan.fast_opens)
        for at, key_of, state, may_be_there in plan.fast_opens:
            key, states = key_of(chunk), things[at]
            opened = states[OPEN]
            if key in opened:
                if not may_be_there:
                    return False
            elif len(states) > 1 and key in states[BEGUN]:
                if not may_be_there:
                    return False
                states[state][key] = states[BEGUN].pop(key)
            else:
                # Most ids are plain texts.
                size = _ENTRY_BYTES + len(key) if type(key) is str else _entry_bytes(key)
                # There must be room for the things in the other scopes too.
                if self._room < left * size or key == "" or (type(key) is tuple and "" in key):
                    return False
                self._room -= size
                states[state][key] = step
            left -= 1
        return True

    def take(self, plan: KindPlan, chunk: Any) -> Sequence[Deviation]:  # noqa: ANN401
        """Move on by one chunk, and return the rules that it breaks. The walk goes on as if a missing event had come."""
        found: list[Deviation] = []
        move = plan.moves[self.state]
        if move.rule is not None:
            found += self._report_move(move, plan.symbol, plan.kind)
        self.state = move.to
        self._seen.add(plan.symbol)
        # A missing event is missing in the order of its part too: that is one fault.
        self._is_told = move.rule == "order.unexpected"
        self._told += self._is_told and not move.is_extra
        found += self._change(plan, chunk)
        self._is_told = False
        if self._room < 0 and not self._is_full:
            self._is_full = True
            found.append(
                Deviation("order.too-many-open", "fewer open parts and calls, or shorter ids", plan.kind)
            )
        if plan.error is not None and plan.error_value is not None:
            found += self._check_failure(plan.kind, plan.error, plan.error_value(chunk))
        return found

    def move(self, symbol: str, actual: str) -> Sequence[Deviation]:
        """Move on by an event that is not a chunk (the terminator, the end), and return the rules that it breaks."""
        move = self.grammar.transitions[self.state, symbol]
        found = () if move.rule is None else self._report_move(move, symbol, actual)
        self.state = move.to
        self._seen.add(symbol)
        return found

    def end(self) -> Sequence[Deviation]:
        """Move on by the end of the body, and return the rules that it breaks. Report open parts only if the body may end here."""
        open_still: list[Deviation] = []
        if self.may_end:
            for at, scope in enumerate(self.grammar.scopes):
                open_still += self._left_open(at) if scope.closed_at_end else ()
        return [*open_still, *self.move(END, END)]

    def note_unreadable(self) -> None:
        """Count an event that could not be read, or whose kind is unknown.

        This event hides the next report of a missing event, or of a thing that is not open.
        """
        self._unreadable += 1

    def note_tolerated(self, actual: str) -> Sequence[Deviation]:
        """Return the rule that an event breaks behind the end, although the contract tolerates that it cannot be read."""
        move = self.grammar.transitions[self.state, self.grammar.other]
        if move.rule in {"terminator.trailing", "order.after-finish"}:
            return (Deviation(move.rule, move.expected or "", actual),)
        return ()

    def take_refused(
        self,
        plan: KindPlan,
        chunk: Any,  # noqa: ANN401
        refused: Deviation | None = None,
        *,
        is_tolerated: bool = False,
    ) -> Sequence[Deviation]:
        """Move on by a chunk that the schema refused but whose kind is known, and return the rules that it breaks.

        There are none if the refusal is a violation: one event gives one finding.

        Args:
            plan: The plan of the kind.
            chunk: The good part of the chunk. It may lack fields.
            refused: The broken rule, if the chunk still has the refused value; None if it has good values alone.
            is_tolerated: True if the contract does not make a violation of the refusal, which then hides nothing.
        """
        found: list[Deviation] = []
        move = plan.moves[self.state]
        if is_tolerated:
            found += self._report_move(move, plan.symbol, plan.kind)
            self._is_told = move.rule == "order.unexpected"
        self.state = move.to
        self._seen.add(plan.symbol)
        # If the field with the key is missing, the chunk can open or close nothing.
        lost = self._without_key(plan, chunk, refused, is_tolerated=is_tolerated)
        for at in lost:
            # The thing that it opens will seem not open, or the thing that it closes will seem left open.
            self._lost[at] += _opens_or_ends(plan, at, self.grammar.scopes[at].unfinished)
        changed = self._change(plan, chunk, lost)
        found += changed if is_tolerated else ()
        self._is_told = False
        return found

    def _without_key(
        self,
        plan: KindPlan,
        chunk: Any,  # noqa: ANN401
        refused: Deviation | None,
        *,
        is_tolerated: bool,
    ) -> Sequence[int]:
        """Return the scopes for which a refused chunk has no usable key: it is missing, or part of what was refused."""
        if refused is None:
            return [at for at, _ in plan.touches if not _has_key(plan, at, chunk)]
        steps = tuple((refused.path or "").split("/")[1:])
        if is_tolerated or refused.rule in {"schema.missing-field", "schema.unknown-field"}:
            # What is there may still be right.
            steps = ("",)
        return [
            at
            for at, _ in plan.touches
            if any(parse_path(path)[: len(steps)] == steps for path in self.grammar.scopes[at].key)
            or _is_absent(plan.keys[at](chunk))
        ]

    def _report_move(self, move: Transition, symbol: str, actual: str) -> Sequence[Deviation]:
        """Return the rule that a transition breaks, unless its cause has been reported before."""
        # The table calls this event a duplicate, but no such event has come: the event is late, and was reported as missing.
        if move.rule is None or (move.rule == "order.duplicate" and symbol not in self._seen):
            return ()
        if move.rule == "order.after-finish" and symbol in self._missed:
            self._missed.discard(symbol)
            return ()
        may_hide = self.ends_unreadable if move.rule == "terminator.missing" else not move.is_extra
        if self._unreadable and move.rule in self.grammar.excused and may_hide:
            self._unreadable -= 1
            return ()
        if move.expected is not None and move.expected in self.grammar.symbols:
            self._missed.add(move.expected)
        return (Deviation(move.rule, move.expected or "", actual),)

    def _change(self, plan: KindPlan, chunk: Any, lost: Sequence[int] = ()) -> Sequence[Deviation]:  # noqa: ANN401
        """Open, move and close the things that the chunk is about, and report what is out of order there.

        Args:
            plan: The plan of its kind.
            chunk: The chunk.
            lost: The scopes for which it has no key.
        """
        found: list[Deviation] = []
        self._step += plan.starts_step
        for at in plan.clears:
            if plan.kind in self.grammar.scopes[at].closed_before:
                found += self._left_open(at)
            for state in self.things[at].values():
                for key in state:
                    self._free(at, key)
                # An emptied dict that was large stays slow to iterate over, unless it is cleared.
                state.clear()
        for at in plan.drops:
            for state in self.things[at].values():
                for key in [key for key, step in state.items() if step == self._step]:
                    del state[key]
                    self._free(at, key)
        for at, moves in plan.touches:
            if at not in lost:
                found += self._touch(plan, at, moves, plan.keys[at](chunk), chunk)
        # A chunk may open things in two scopes, and its empty id is one fault.
        return list(dict.fromkeys(found)) if len(found) > 1 else found

    def _touch(
        self,
        plan: KindPlan,
        at: int,
        moves: Any,  # noqa: ANN401  Mapping[str, Transition]
        key: Key,
        chunk: Any,  # noqa: ANN401
    ) -> Sequence[Deviation]:
        """Move the thing with this key on by one chunk, and return the rules that the chunk breaks for it."""
        states = self.things[at]
        before = next((name for name, keys in states.items() if key in keys), ABSENT)
        move = moves[before]
        fault = self._fault(plan, at, moves, key, before)
        found = [] if fault is None else [fault]
        if move.to != before:
            step = states[before].pop(key) if before != ABSENT else None
            if step is not None and move.to != ABSENT:
                states[move.to][key] = step
            elif step is not None:
                self._free(at, key)
            else:
                scope = self.grammar.scopes[at]
                self._put(at, key, move.to, step=_GUESSED if move.rule is not None else self._step)
                if scope.counts_from is not None:
                    gap = self._count(plan.kind, at, key)
                    found += () if move.rule is not None or self._is_told else gap
        if at in plan.repeats:
            found += self._compare(plan, at, key, tuple(identity(read(chunk)) for read in plan.repeats[at]))
        return found

    def _fault(
        self,
        plan: KindPlan,
        at: int,
        moves: Any,  # noqa: ANN401  Mapping[str, Transition]
        key: Key,
        before: str,
    ) -> Deviation | None:
        """Return the rule that a chunk breaks for the thing with this key, unless its cause has been reported before.

        Args:
            plan: The plan of the chunk's kind.
            at: The scope.
            moves: The transitions of the thing on this kind.
            key: The key.
            before: The state of the thing.
        """
        move = moves[before]
        if before == ABSENT and _opens(moves) and _is_empty(key):
            empty = Deviation("order.empty-id", "an id that is not empty", f"{plan.kind} with an empty id")
            return None if self._is_told else empty
        # The thing may have been opened after the memory for open things was used up.
        if move.rule is None or self._is_told or (before == ABSENT and self._is_full):
            return None
        is_reopened = move.rule == "order.part-reopened"
        if is_reopened and self.things[at][before][key] == _GUESSED:
            # Its opening was reported as missing. Here it comes, late.
            self.things[at][before][key] = self._step
            return None
        if not move.is_extra and self._is_explained(at, 1):
            return None
        actual = printable(f"{plan.kind} for {self._describe(at, key)}")
        return Deviation(
            move.rule, move.expected or "", f"{actual}, which is open already" if is_reopened else actual
        )

    def _compare(self, plan: KindPlan, at: int, key: Key, values: tuple[Any, ...]) -> Sequence[Deviation]:
        """Return the deviations of values that differ from those of the chunk that opened the thing."""
        if not any(key in keys for keys in self.things[at].values()):
            return ()
        opened = self._repeated.get((at, key))
        if opened is None:
            self._repeated[at, key] = opened = values
            self._room -= sum(map(_length, values))
        paths = self.grammar.scopes[at].repeats
        return [
            Deviation(
                "order.part-field",
                f"{path} {printable(_describe_part(old, new))}",
                printable(f"{plan.kind} with {_describe_part(new, old)}"),
            )
            for path, old, new in zip(paths, opened, values, strict=True)
            if _ABSENT_PART not in (old, new) and old != new
        ]

    def _count(self, kind: str, at: int, key: Key) -> Sequence[Deviation]:
        """Return the deviation of a new thing whose number is not the next one.

        After a wrong number, the next one may go on from it, or from the number that it should have been.
        """
        *group, number = key if isinstance(key, tuple) else (key,)
        counted, start = (at, tuple(group)), self.grammar.scopes[at].counts_from or 0
        wanted, other = self._next.get(counted, (start, start))
        if counted in self._next or self._room >= 0:
            self._room -= 0 if counted in self._next else _entry_bytes(counted)
            after = number + 1 if type(number) is int else wanted + 1
            self._next[counted] = (after, after) if number in (wanted, other) else (wanted + 1, after)
        if number in (wanted, other):
            return ()
        actual = printable(f"{kind} for {self._describe(at, key)}")
        if type(number) is not int:
            actual += ", which is no integer"
        return (Deviation("order.index-gap", f"the number {wanted}", actual),)

    def _put(self, at: int, key: Key, state: str, *, step: int) -> None:
        """Open a thing in this state, in this step, if there is memory left for it."""
        if self._room >= 0:
            self._room -= _entry_bytes(key)
            self.things[at][state][key] = step

    def _free(self, at: int, key: Key) -> None:
        """Give back the memory of a thing that is no longer open."""
        self._room += _entry_bytes(key) + sum(map(_length, self._repeated.pop((at, key), ())))

    def _left_open(self, at: int) -> Sequence[Deviation]:
        """Return the warning about open things of this scope that should be closed; nothing after a symbol of `breaks_off`."""
        scope, states = self.grammar.scopes[at], self.things[at]
        keys = [
            key
            for state in scope.states
            if state in scope.unfinished
            for key, step in states[state].items()
            if step != _GUESSED
        ]
        if not keys or self.is_broken_off:
            return ()
        if self._is_explained(at, len(keys)):
            return ()
        if len(keys) <= self._told:
            self._told -= len(keys)
            return ()
        names = ", ".join(self._describe(at, key) for key in keys)
        return (
            Deviation(
                "order.part-left-open",
                f"the end of each {scope.what_ends or scope.name}",
                f"no end for {printable(names)}",
            ),
        )

    def _is_explained(self, at: int, count: int) -> bool:
        """Return True if events that could not be read explain this number of faults of the scope, which they then hide."""
        here = min(count, self._lost[at])
        if count - here > self._unreadable:
            return False
        self._lost[at] -= here
        self._unreadable -= count - here
        return True

    def _describe(self, at: int, key: Key) -> str:
        """Return the identity of a thing in words, for a finding."""
        scope = self.grammar.scopes[at]
        parts = key if isinstance(key, tuple) and len(scope.key) + len(scope.flags) > 1 else (key,)
        words = ", ".join(map(_describe_part, parts[: len(scope.key)]))
        flags = [
            name if is_set else f"not {name}"
            for name, is_set in zip(scope.flags, parts[len(scope.key) :], strict=True)
        ]
        return f"{words} ({', '.join(flags)})" if flags else words

    def _check_failure(self, kind: str, error: ServiceError, value: Any) -> Sequence[Deviation]:  # noqa: ANN401
        """Return the error that the service reports, or the deviation of a finish with the wrong status."""
        if kind == error.kind:
            code = "no code" if value is MISSING else value_words(value)
            self.service_error = self.service_error or code
            return (Deviation("stream.service-error", "a turn without an error", code),)
        failed = self.service_error is not None
        if failed is (value == error.failed) or value is MISSING:
            return ()
        wanted = (
            f"{error.status} {error.failed}"
            if failed
            else f"{error.status} other than {error.failed}, or an error before it"
        )
        return (Deviation("order.finish-status", wanted, value_words(value)),)


def _known_keys(known: frozenset[str], flags: int) -> Sequence[Key]:
    """Return the keys that are open from the beginning of the stream. A known id is open whatever its flags are."""
    if not flags:
        return tuple(known)
    return [
        (name, *(bool(number >> bit & 1) for bit in range(flags)))
        for name in known
        for number in range(1 << flags)
    ]


def _opens(moves: Mapping[str, Transition]) -> bool:
    """Return True if a chunk with these transitions opens a thing that is not open."""
    return moves[ABSENT].rule is None and moves[ABSENT].to != ABSENT


def _is_empty(key: Key) -> bool:
    """Return True if a part of a key is an empty text."""
    return key == "" or (type(key) is tuple and "" in key)


def _opens_or_ends(plan: KindPlan, at: int, unfinished: frozenset[str]) -> bool:
    """Return True if a chunk of this kind can open a thing in this scope, or end one."""
    moves = next(moves for scope, moves in plan.touches if scope == at)
    ends = any(move.to not in unfinished for state, move in moves.items() if state in unfinished)
    return ends or moves[ABSENT].rule is None


def _has_key(plan: KindPlan, at: int, chunk: Any) -> bool:  # noqa: ANN401
    """Return True if the good part of a chunk has the fields that matter in this scope: those of its key, and those that it repeats."""
    try:
        for read in (plan.keys[at], *plan.repeats.get(at, ())):
            read(chunk)
    except AttributeError:
        return False
    return True


_ABSENT_PART = identity(MISSING)


def _is_absent(key: Key) -> bool:
    """Return True if a part of a key is missing in its chunk."""
    return key == _ABSENT_PART or (isinstance(key, tuple) and _ABSENT_PART in key)


def _entry_bytes(key: Key) -> int:
    """Return the rough memory of one open thing, in bytes."""
    return _ENTRY_BYTES + (len(key) if type(key) is str else _length(key))


def _length(value: Hashable) -> int:
    """Return the rough memory of a value of a key, beyond that of a small one, in bytes."""
    if isinstance(value, tuple):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str) else value.bit_length() // 8 if isinstance(value, int) else 0


def _describe_part(value: Any, other: Any = None) -> str:  # noqa: ANN401
    """Return one value of a key in words. Beside a number that looks the same, a text stands in quotation marks."""
    match value:
        case str() if type(other) is int and value == str(other):
            return json_text(value)
        case ("absent",):
            return "no id"
        case ("constant", constant):
            return json_text(constant)
        case ("json", text):
            return str(text)
        case _:
            return value_words(value)
