"""The judge of message events: it decodes their data, checks their order, and counts them.

The judge takes events one by one (`take_one`) or many at once (`take`). Both give the same deviations, because a caller
may cut the bytes of a stream anywhere.

Most events of a stream need no report and change nothing except the list of open things. They take a fast path. For each
state of the grammar, `_fast_paths` lists the kinds of chunk that may take it, with the data that one check needs
(`FastPath`). If a chunk names nothing, or names a thing that is open, the judge counts it and is done. All other events
take the exact path, `_take`, which follows the grammar (`Walk`). The exact path may change the state, so it also selects
the list of fast paths for the new state.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import attrs
import msgspec

from cutover.contract.chunks import ChunkSchema, Refusal, Remarked, Terminator, known_types
from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.grammar import TERMINATOR, Deviation, Grammar, KindPlan, Walk, plan_kind
from cutover.contract.javascript import is_suspect
from cutover.contract.reading import REFUSALS, ChunkReader, Read
from cutover.text import printable

_MAX_REMARKS = 256
"""Largest number of different warnings about fields and versions. Each is reported once; further warnings are dropped."""
_NOT_PLAIN_CHUNK = frozenset({Terminator, Refusal, Remarked})


FastPath: TypeAlias = tuple[Callable[[Any], Any] | None, Mapping[Any, int], KindPlan | None, bool]
"""The data for the fast path of one kind of chunk in one state, as a tuple, because unpacking a tuple is fast:

1. A function that returns the id of the thing that the chunk names; None if it names nothing.
2. The open things among which that id must be.
3. The plan of the kind if it opens something; None if it does not.
4. True if the chunk may hold a forbidden key, so that its text must be searched.
"""


@lru_cache(maxsize=64)
def _known_plans(schema: ChunkSchema, grammar: Grammar) -> Mapping[type[Any], KindPlan]:
    """Return the plans of all kinds that the schema names: struct class of a chunk -> plan."""
    plans: dict[type[Any], KindPlan] = {}
    for kind, types in known_types(schema).items():
        plans[types.plain] = plans[types.whole] = _plan_of_kind(schema, grammar, kind)
    return plans


def _plan_of_kind(schema: ChunkSchema, grammar: Grammar, kind: str) -> KindPlan:
    """Return the plan of a kind of chunk."""
    return plan_kind(grammar, kind, schema.fields_of(kind) or (), is_watched=kind in schema.skewed)


@attrs.define(eq=False)
class EventJudge:
    """The judge of one stream's message events: it reports the rules that their data and their order break."""

    contract: StreamContract
    """The contract that the stream must keep."""
    context: StreamContext
    """The facts about the request."""
    walk: Walk = attrs.field(init=False)
    """The position of the stream in its grammar."""
    has_unreadable: bool = attrs.field(default=False, init=False)
    """True if an event came whose kind could not be read or is unknown."""
    _reader: ChunkReader = attrs.field(init=False)
    # Struct class of a chunk -> the plan of its kind.
    _plans: dict[type[Any], KindPlan] = attrs.field(init=False)
    # The fast paths in the current state of the walk: struct class of a chunk -> its fast path.
    _fast_paths: Mapping[type[Any], FastPath] = attrs.field(init=False)
    # State -> the fast paths in that state, as far as the stream has reached it.
    _fast_paths_by_state: dict[str, Mapping[type[Any], FastPath]] = attrs.field(factory=dict, init=False)
    # Struct class of a chunk, or class of another event -> the number of events.
    _counts: defaultdict[type[Any], int] = attrs.field(factory=lambda: defaultdict(int), init=False)
    # The warnings about fields and versions that have been reported.
    _remarked: set[object] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        contract, context = self.contract, self.context
        room = contract.limits.max_open_bytes
        self.walk = Walk(contract.grammar, context.known_tool_calls, context.expected(), room)
        self._reader = ChunkReader(schema=contract.schema, terminator=contract.terminator)
        self._plans = dict(_known_plans(contract.schema, contract.grammar))
        self._fast_paths = self._find_fast_paths()

    @property
    def event_count(self) -> int:
        """Return the number of message events so far."""
        # A `Remarked` counts twice: once itself, and once as the chunk in it.
        return sum(self._counts.values()) - self._counts.get(Remarked, 0)

    def take_one(self, payload: str | bytes) -> Sequence[Deviation]:
        """Judge one event, and return the rules that it breaks."""
        read: Read
        try:
            read = self._reader.decode(payload)
        except REFUSALS:
            read = self._reader.judge(payload)
        else:
            struct = type(read)
            fast = self._fast_paths.get(struct)
            if fast is not None:
                name_of, opened, opener, is_open = fast
                if (
                    (name_of is None or name_of(read) in opened)
                    and not (is_open and is_suspect(payload))
                    and (opener is None or self.walk.open_fast(opener, read))
                ):
                    self._counts[struct] += 1
                    return ()
            read = self._reader.look_inside(read, payload)
        self._counts[type(read)] += 1
        return self._take(read)

    def take(self, payloads: Sequence[Any]) -> Sequence[tuple[int, Deviation]]:
        """Judge events that came together, and return pairs of the index of an event and a rule that it breaks.

        The result is the same as with `take_one` for each event, but the work is less.
        """
        reads, structs = self._reader.read(payloads)
        struct, fast = structs[0], self._fast_paths.get(structs[0])
        if fast is not None and structs.count(struct) == len(structs):
            name_of, opened, opener, _ = fast
            if opener is None and (name_of is None or opened.keys() >= set(map(name_of, reads))):
                self._counts[struct] += len(structs)
                return ()
        for came, count in Counter(structs).items():
            self._counts[came] += count
        found: list[tuple[int, Deviation]] = []
        fast_here = self._fast_paths
        for index, read in enumerate(reads):
            fast = fast_here.get(structs[index])
            if fast is not None:
                name_of, opened, opener, _ = fast
                if (name_of is None or name_of(read) in opened) and (
                    opener is None or self.walk.open_fast(opener, read)
                ):
                    continue
            deviations = self._take(read)
            fast_here = self._fast_paths
            if deviations:
                found += [(index, deviation) for deviation in deviations]
        return found

    def chunk_counts(self) -> Mapping[str, int]:
        """Return the number of chunks of each kind, and of terminators. Refused chunks do not count."""
        counts: Counter[str] = Counter()
        for struct, count in self._counts.items():
            if struct not in _NOT_PLAIN_CHUNK:
                counts[self._plan_of(struct).kind] += count
        ended = self._counts[Terminator]
        return {**counts, self.contract.terminator: ended} if ended else dict(counts)

    def _plan_of(self, struct: type[Any]) -> KindPlan:
        """Return the plan of a chunk's kind. A kind of a family, such as `data-weather`, is planned at its first chunk."""
        plan = self._plans.get(struct)
        if plan is None:
            kind = str(struct.__struct_config__.tag)
            plan = self._plans[struct] = _plan_of_kind(self.contract.schema, self.contract.grammar, kind)
            self._fast_paths_by_state.clear()
        return plan

    def _take(self, read: Read) -> Sequence[Deviation]:
        """Judge an event by the exact path, and select the fast paths of the new state."""
        before = self.walk.state
        if type(read) in _NOT_PLAIN_CHUNK:
            deviations = self._take_other(read)
        else:
            plan = self._plan_of(type(read))
            deviations = self.walk.take(plan, read)
            if plan.is_watched:
                deviations = [*self._skew(plan.kind, read), *deviations]
        self._fast_paths = self._fast_paths_by_state.get(self.walk.state) or self._find_fast_paths()
        if deviations and before in self.contract.grammar.unseen:
            return [msgspec.structs.replace(each, is_unseen=True) for each in deviations]
        return deviations

    def _find_fast_paths(self) -> Mapping[type[Any], FastPath]:
        """Return the fast paths in the current state, and keep them for the next time."""
        state, opened = self.walk.state, self.walk.opened
        found = self._fast_paths_by_state[state] = {
            struct: (
                plan.key_of,
                opened[plan.names[0]] if plan.names else {},
                plan if plan.opens else None,
                struct in self._reader.open_structs,
            )
            for struct, plan in self._plans.items()
            if state in plan.fast_states
        }
        return found

    def _take_other(self, read: Read) -> Sequence[Deviation]:
        """Judge an event that is not a chunk, or a chunk with a warning."""
        if isinstance(read, Refusal):
            if read.kind is None:
                self.has_unreadable = True
                self.walk.note_unreadable()
            else:
                plan = _plan_of_kind(self.contract.schema, self.contract.grammar, read.kind)
                self.walk.take_refused(plan, read.values)
            return (Deviation(read.rule, read.expected, read.actual),)
        if isinstance(read, Remarked):
            self._counts[type(read.chunk)] += 1
            return [*self._unknown_fields(read), *self._take(read.chunk)]
        return self.walk.move(TERMINATOR, self.contract.terminator)

    def _unknown_fields(self, read: Remarked) -> Iterator[Deviation]:
        """Yield the new warnings about fields that the schema does not list."""
        kind = str(type(read.chunk).__struct_config__.tag)
        for field in read.unknown:
            if self._is_new((kind, field)):
                actual = f"{printable(field)}: {self.contract.schema.unknown_fields}"
                yield Deviation("schema.unknown-field", f"only known fields of {kind}", actual)

    def _skew(self, kind: str, chunk: Read) -> Iterator[Deviation]:
        """Yield the new warnings about values that other client versions refuse."""
        for (field, value), note in self.contract.schema.skew_of(kind):
            if (field is None or getattr(chunk, field) == value) and self._is_new((kind, field, value)):
                yield Deviation(
                    "schema.version-skew",
                    "a chunk that all client versions in use accept",
                    f"{value or kind}: {note}",
                )

    def _is_new(self, remark: object) -> bool:
        """Return True, and remember this warning, if it is new and fewer than `_MAX_REMARKS` are remembered."""
        if remark in self._remarked or len(self._remarked) >= _MAX_REMARKS:
            return False
        self._remarked.add(remark)
        return True
