"""The judge of message events: it reads their data, checks their order, and counts them.

The judge takes events one by one (`take_one`) or many at once (`take`). Both give the same deviations, because a caller
may cut the bytes of a stream anywhere.

Most events of a stream need no report and change nothing except the list of open things. They take a fast path. For each
state of the grammar, `_fast_paths` lists the kinds of chunk that may take it, with the data that one check needs
(`FastPath`). If a chunk names nothing, or names a thing that is open, the judge counts it and is done. All other events
take the exact path, `_take`, which follows the grammar (`Walk`). The exact path may change the state, so it also selects
the list of fast paths for the new state.

This module is long because the fast path and the exact path must count and judge alike, and are read together.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import msgspec

from cutover.contract.chunks import Refusal, Remarked, Terminator
from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.findings import Deviation, Severity
from cutover.contract.grammar import TERMINATOR, KindPlan
from cutover.contract.own_rules import RuleEvent, RuleFollower
from cutover.contract.paths import MISSING
from cutover.contract.reading import REFUSALS, Read, Reader, needs_look
from cutover.contract.rules import GATHERED
from cutover.contract.walk import Walk
from cutover.sse.events import Run
from cutover.text import escaped

_MAX_REMARKS = 256
"""Largest number of different warnings about fields and versions. Each is reported once; further warnings are dropped."""
_NOTHING: tuple[Any, ...] = (MISSING, None, "", [], {})
"""Values at the place of a chunk's content that are no content."""
_NOT_PLAIN_CHUNK = frozenset({Terminator, Refusal, Remarked})


_WANTS_INDEX = frozenset({Terminator, Refusal})
"""Classes of events whose place in the stream matters."""

FastPath: TypeAlias = tuple[Callable[[Any], Any] | None, Mapping[Any, int], KindPlan | None, bool]
"""The data for the fast path of one kind of chunk in one state, as a tuple, because unpacking a tuple is fast:

1. A function that returns the id of the thing that the chunk names; None if it names nothing.
2. The open things among which that id must be.
3. The plan of the kind if it opens something; None if it does not.
4. True if the chunk may hold a forbidden key or a long integer, so that its text must be searched.
"""
_NO_THINGS: Mapping[Any, int] = {}
_ALWAYS_FAST: FastPath = (None, _NO_THINGS, None, False)
"""The fast path of a kind that names nothing. Streams share it, because thousands of them may be open at once."""


@attrs.define(eq=False)
class EventJudge:
    """The judge of one stream's message events: it reports the rules that their data and their order break."""

    contract: StreamContract
    """The contract that the stream must keep."""
    context: StreamContext
    """The facts about the request."""
    walk: Walk = attrs.field(init=False)
    """The position of the stream in its grammar."""
    reads_fields: bool = attrs.field(init=False)
    """True if the contract is about the events' names, IDs or retries too."""
    has_unreadable: bool = attrs.field(default=False, init=False)
    """True if an event came whose kind could not be read or is unknown."""
    _reader: Reader = attrs.field(init=False)
    # Struct class of a chunk -> the plan of its kind.
    _plans: dict[type[Any], KindPlan] = attrs.field(init=False)
    # The fast paths in the current state of the walk: struct class of a chunk -> its fast path.
    _fast_paths: Mapping[type[Any], FastPath] = attrs.field(init=False)
    # State -> the fast paths in that state, as far as the stream has reached it.
    _fast_paths_by_state: dict[str, Mapping[type[Any], FastPath]] = attrs.field(factory=dict, init=False)
    # Struct class of a chunk, or class of another event -> the number of events.
    _counts: defaultdict[type[Any], int] = attrs.field(factory=lambda: defaultdict(int), init=False)
    # The class of the last chunk that took its fast path alone, and that path; None once the state may have changed. Most chunks of a
    # live stream are of the same class as the one before, and to look up and count each of them would take time.
    _same: type[Any] | None = attrs.field(default=None, init=False)
    _same_path: FastPath | None = attrs.field(default=None, init=False)
    # The number of further chunks of that class, which are not in `_counts` yet.
    _again: int = attrs.field(default=0, init=False)
    awaits_content: bool = attrs.field(init=False)
    """True until the first event with content has come; False if the contract does not say what content is."""
    # The number of events of a kind with content that were empty, before the first one with content.
    _hollow: int = attrs.field(default=0, init=False)
    # The number of events up to the last one that could not be read; None before it.
    _unreadable_at: int | None = attrs.field(default=None, init=False)
    # The warnings about fields and versions that have been reported.
    _remarked: set[object] = attrs.field(factory=set, init=False)
    # The own rules of the contract; None if it has none.
    _rules: RuleFollower | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        contract, context = self.contract, self.context
        self.walk = Walk(contract.grammar, context.known_tool_calls, contract.limits.max_open_bytes)
        self._reader = contract.new_reader()
        self.reads_fields = self._reader.reads_fields or any(rule.reads_fields for rule in contract.rules)
        self.awaits_content = bool(contract.content)
        self._plans = dict(contract.plans)
        self._rules = RuleFollower.start(contract.rules, context) if contract.rules else None
        self._fast_paths = self._find_fast_paths()

    @property
    def event_count(self) -> int:
        """Return the number of message events so far."""
        # A `Remarked` counts twice: once itself, and once as the chunk in it.
        return sum(self._counts.values()) - self._counts.get(Remarked, 0) + self._again

    @property
    def is_terminator_alone(self) -> bool:
        """Return True if nothing but the terminator has come, and the contract takes that for an empty stream."""
        is_alone = 0 < self._counts[Terminator] == self.event_count and self._unreadable_at is None
        return is_alone and self.contract.grammar.terminator_alone_is_empty

    @property
    def shows_nothing(self) -> bool:
        """Return True if a client has shown nothing, as far as the contract says what it shows: no content, and no error or abort."""
        if not self.awaits_content or self.walk.is_broken_off:
            return False
        came = self.chunk_counts()
        exact = {each for each in self.contract.visible if not each.endswith("*")}
        families = tuple(each[:-1] for each in self.contract.visible if each.endswith("*"))
        return not any(kind in exact or (families and kind.startswith(families)) for kind in came)

    @property
    def content_count(self) -> int:
        """Return the number of events of kinds with content, from the first one with content on."""
        if self.awaits_content or not self.contract.content:
            return 0
        counts = self.chunk_counts()
        return sum(counts.get(kind, 0) for kind in self.contract.content) - self._hollow

    def set_fields(self, name: str | None, own_id: str | None, retry: int | None, last_event_id: str) -> None:
        """Set the other fields of the event that `take_one` takes next. Needed only if the judge `reads_fields`."""
        self._reader.set_fields(name, own_id, retry, last_event_id)

    def take_one(self, payload: str | bytes) -> Sequence[Deviation]:
        """Judge one event, and return the rules that it breaks."""
        read: Read
        try:
            read = self._reader.decode(payload)
        except REFUSALS:
            read = self._reader.judge(payload)
        else:
            struct = type(read)
            fast = self._same_path if struct is self._same else self._fast_paths.get(struct)
            if fast is not None:
                name_of, opened, opener, is_open = fast
                if (
                    (name_of is None or name_of(read) in opened)
                    and not (is_open and needs_look(payload))
                    and (opener is None or self.walk.open_fast(opener, read))
                ):
                    if struct is self._same:
                        self._again += 1
                    else:
                        self._count_again()
                        self._counts[struct] += 1
                        self._same, self._same_path = struct, fast
                    return ()
            read = self._reader.look_inside(read, payload)
        index = self.event_count if self._rules is not None or type(read) in _WANTS_INDEX else -1
        self._counts[type(read)] += 1
        return self._take(read, payload, index)

    def take(self, run: Run) -> Sequence[tuple[int, Deviation]]:
        """Judge events that came together, and return pairs of the index of an event and a rule that it breaks.

        The result is the same as with `take_one` for each event, but the work is less.
        """
        payloads: Sequence[Any] = run.payloads
        if self.reads_fields:
            self._reader.set_fields(run.name, run.id, run.retry, run.last_event_id)
        if len(payloads) == 1:
            one = self.take_one(payloads[0])
            return [(0, deviation) for deviation in one] if one else ()
        reads, structs = self._reader.read(payloads)
        struct, fast = structs[0], self._fast_paths.get(structs[0])
        if fast is not None and structs.count(struct) == len(structs):
            name_of, opened, opener, _ = fast
            if opener is None and (name_of is None or opened.keys() >= set(map(name_of, reads))):
                self._counts[struct] += len(structs)
                return ()
        begins = self.event_count
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
            deviations = self._take(read, payloads[index], begins + index)
            fast_here = self._fast_paths
            if deviations:
                found += [(index, deviation) for deviation in deviations]
        return found

    def end(self) -> Sequence[Deviation]:
        """Judge the end of the body, and return the rules that it breaks."""
        # A stream that ended too early, or with an in-band error, is not asked for more.
        is_whole = self.walk.may_end and self.walk.service_error is None
        own = () if self._rules is None or not is_whole else self._rules.end()
        self.walk.ends_unreadable = self._unreadable_at == self.event_count
        return [*self._reader.end(), *self.walk.end(), *own]

    def note_unreadable(self, count: int) -> None:
        """Note an event that could not be read: it may be the event that seems to be missing later.

        Args:
            count: The number of message events so far.
        """
        self.walk.note_unreadable()
        self._unreadable_at = count

    def chunk_counts(self) -> Mapping[str, int]:
        """Return the number of chunks of each kind, and of terminators. Refused chunks do not count."""
        self._count_again()
        counts: Counter[str] = Counter()
        for struct, count in self._counts.items():
            if struct not in _NOT_PLAIN_CHUNK:
                counts[self._plan_of(struct).kind] += count
        ended = self._counts[Terminator]
        return {**counts, str(self.contract.terminator): ended} if ended else dict(counts)

    def _count_again(self) -> None:
        """Count the chunks of the same class as the one before."""
        if self._again and self._same is not None:
            self._counts[self._same] += self._again
            self._again = 0

    def _plan_of(self, struct: type[Any]) -> KindPlan:
        """Return the plan of a chunk's kind. A kind of a family, such as `data-weather`, is planned at its first chunk."""
        plan = self._plans.get(struct)
        if plan is None:
            kind = str(struct.__struct_config__.tag)
            plan = self._plans[struct] = self.contract.plan_kind(kind, self._reader)
            self._fast_paths_by_state.clear()
        return plan

    def _take(self, read: Read, payload: str | bytes, index: int) -> Sequence[Deviation]:
        """Judge an event by the exact path, and select the fast paths of the new state.

        Args:
            read: The event, as the reader has read it.
            payload: Its data.
            index: Its index in the stream, from 0. Only own rules, refusals and terminators need it.
        """
        before = self.walk.state
        if type(read) in _NOT_PLAIN_CHUNK:
            deviations = self._take_other(read, index)
        else:
            plan = self._plan_of(type(read))
            deviations = self.walk.take(plan, read)
            if plan.is_watched:
                deviations = [*self._skew(plan.kind, read), *deviations]
            if self.awaits_content:
                self._look_for_content(plan, read, before)
        if self._rules is not None:
            deviations = [*deviations, *self._follow(read, payload, index)]
        self._count_again()
        self._same = None
        self._fast_paths = self._fast_paths_by_state.get(self.walk.state) or self._find_fast_paths()
        if deviations and before in self.contract.grammar.unseen:
            return [msgspec.structs.replace(each, is_unseen=True) for each in deviations]
        return deviations

    def _follow(self, read: Read, payload: str | bytes, index: int) -> Sequence[Deviation]:
        """Return the deviations that the contract's own rules find in an event."""
        if self._rules is None or isinstance(read, Terminator):
            return ()
        chunk = read.chunk if isinstance(read, Remarked) else read
        kind = read.kind if isinstance(read, Refusal) else self._plan_of(type(chunk)).kind
        name, own_id, retry = self._reader.fields
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
        return self._rules.take(
            RuleEvent(
                text,
                index,
                kind,
                name,
                own_id,
                retry,
                isinstance(read, Refusal),
                getattr(chunk, "data", MISSING),
            )
        )

    def _look_for_content(self, plan: KindPlan, chunk: Any, state: str) -> None:  # noqa: ANN401
        """Note that the first content has come, if the chunk has content and a client still reads in this state."""
        if plan.content is None or state in self.contract.grammar.unseen:
            return
        if plan.content(chunk) in _NOTHING:
            self._hollow += 1
            return
        self.awaits_content = False
        # From now on, chunks with content may take the fast path.
        self._fast_paths_by_state.clear()

    def _find_fast_paths(self) -> Mapping[type[Any], FastPath]:
        """Return the fast paths in the current state, and keep them for the next time."""
        state, things = self.walk.state, self.walk.things
        found: dict[type[Any], FastPath] = {}
        for struct, plan in self._plans.items():
            if (
                state in plan.fast_states
                and not (self.awaits_content and plan.content is not None)
                and not (self._rules is not None and self._rules.follows(plan.kind))
            ):
                name_of, opened = None, _NO_THINGS
                if plan.fast_name is not None:
                    at, loop = plan.fast_name
                    name_of, opened = plan.keys[at], things[at][loop]
                opens, is_open = plan if plan.fast_opens else None, struct in self._reader.open_structs
                path = (name_of, opened, opens, is_open)
                found[struct] = _ALWAYS_FAST if path == _ALWAYS_FAST else path
        self._fast_paths_by_state[state] = found
        return found

    def _take_other(self, read: Read, index: int) -> Sequence[Deviation]:
        """Judge an event that is not a chunk, or a chunk with a warning."""
        if isinstance(read, Refusal):
            return self._take_refusal(read, index)
        if isinstance(read, Remarked):
            self._counts[type(read.chunk)] += 1
            plan = self._plan_of(type(read.chunk))
            before = self.walk.state
            taken = self.walk.take(plan, read.chunk)
            if self.awaits_content:
                self._look_for_content(plan, read.chunk, before)
            skew = self._skew(plan.kind, read.chunk) if plan.is_watched else ()
            return [*self._unknown_fields(read), *self._new(read.deviations), *skew, *taken]
        if index == 0 and self.contract.grammar.terminator_alone_is_empty and self._unreadable_at is None:
            # The checker reports an empty stream at the end of the body, where it is known that nothing else came.
            self.walk.state = self.contract.grammar.transitions[self.walk.state, TERMINATOR].to
            return ()
        return self.walk.move(TERMINATOR, str(self.contract.terminator))

    def _take_refusal(self, read: Refusal, index: int) -> Sequence[Deviation]:
        """Judge an event that the contract does not accept as a chunk.

        A refusal that is a violation is the one finding about its event, and explains what seems to be missing later. One that
        the contract tolerates explains nothing.
        """
        deviation = read.deviation
        is_unseen = self.walk.state in self.contract.grammar.unseen
        is_tolerated = is_unseen or self.contract.severity_of(deviation) is not Severity.VIOLATION
        if isinstance(read.chunk, msgspec.Struct):
            # The class tells too whether the chunk says that it is the stream's last one.
            plan = self._plan_of(type(read.chunk))
            more = self.walk.take_refused(plan, read.chunk, deviation, is_tolerated=is_tolerated)
        elif read.kind is not None:
            plan = self.contract.plan_kind(read.kind, self._reader)
            more = self.walk.take_refused(plan, read.chunk, is_tolerated=is_tolerated)
        elif is_tolerated:
            more = self.walk.note_tolerated(deviation.actual)
        else:
            self.has_unreadable = True
            more = ()
            self.note_unreadable(index + 1)
        return (deviation, *more)

    def _unknown_fields(self, read: Remarked) -> Iterator[Deviation]:
        """Yield the new warnings about fields that the contract does not list."""
        kind = self._plan_of(type(read.chunk)).kind
        for field in read.unknown:
            if self._is_new((kind, field)):
                why = self.contract.why_unknown_fields
                actual = f"{escaped(field)}: {why}" if why else escaped(field)
                yield Deviation("schema.unknown-field", f"only known fields of {kind}", actual)

    def _new(self, deviations: Sequence[Deviation]) -> Iterator[Deviation]:
        """Yield the deviations, those that are warnings only once for each rule, path and content, unless the checker gathers them."""
        for each in deviations:
            is_warning = self.contract.severity_of(each) is Severity.WARNING and each.rule not in GATHERED
            if not is_warning or self._is_new((each.rule, each.path, each.expected)):
                yield each

    def _skew(self, kind: str, chunk: Read) -> Iterator[Deviation]:
        """Yield the new warnings about values that other client versions refuse."""
        for (field, value), note in self._reader.skew_of(kind):
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
