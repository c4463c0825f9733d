"""Events, one by one or many at once: what each is, whether it is in its place, and how many came."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import attrs
import msgspec

from cutover.contract.chunks import ChunkSchema, Refusal, Remarked, Terminator, known_types
from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.grammar import TERMINATOR, Deviation, Grammar, Role, Walk, role_of
from cutover.contract.javascript import is_suspect
from cutover.contract.reading import REFUSALS, ChunkReader, Read
from cutover.text import printable

_REMARKS = 256
"""Different remarks about fields and versions that are made, each once."""
_NO_CHUNK = frozenset({Terminator, Refusal, Remarked})


_Calm: TypeAlias = tuple[Callable[[Any], Any] | None, Mapping[Any, int], Role | None, bool]
"""Of a kind of chunk that is calm in a state: what it names, where that must be open, its role if it opens something, and
whether a forbidden key could hide in it."""


@lru_cache(maxsize=64)
def _known_roles(schema: ChunkSchema, grammar: Grammar) -> Mapping[type[Any], Role]:
    roles: dict[type[Any], Role] = {}
    for kind, types in known_types(schema).items():
        roles[types.plain] = roles[types.whole] = _role_of_kind(schema, grammar, kind)
    return roles


def _role_of_kind(schema: ChunkSchema, grammar: Grammar, kind: str) -> Role:
    return role_of(grammar, kind, schema.fields_of(kind) or (), is_watched=kind in schema.skewed)


@attrs.define(eq=False)
class EventJudge:
    """Judges the data of one stream's message events.

    Most events are calm: in order, and changing nothing but what is open. There is nothing to say of them, and saying nothing
    costs little.
    """

    contract: StreamContract
    context: StreamContext
    walk: Walk = attrs.field(init=False)
    """Where the stream is in its grammar."""
    has_unreadable: bool = attrs.field(default=False, init=False)
    """There was an event of which not even the kind is known."""
    _reader: ChunkReader = attrs.field(init=False)
    _roles: dict[type[Any], Role] = attrs.field(init=False)
    _calm: Mapping[type[Any], _Calm] = attrs.field(init=False)  # in the state that the walk is in
    _calm_in: dict[str, Mapping[type[Any], _Calm]] = attrs.field(factory=dict, init=False)  # by state
    _counts: defaultdict[type[Any], int] = attrs.field(factory=lambda: defaultdict(int), init=False)
    _remarked: set[object] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        contract, context = self.contract, self.context
        room = contract.limits.max_open_bytes
        self.walk = Walk(contract.grammar, context.known_tool_calls, context.expected(), room)
        self._reader = ChunkReader(schema=contract.schema, terminator=contract.terminator)
        self._roles = dict(_known_roles(contract.schema, contract.grammar))
        self._calm = self._find_calm()

    @property
    def event_count(self) -> int:
        """How many events were taken."""
        return sum(self._counts.values()) - self._counts.get(Remarked, 0)

    def take_one(self, payload: str | bytes) -> Sequence[Deviation]:
        """What is wrong with one event."""
        read: Read
        try:
            read = self._reader.decode(payload)
        except REFUSALS:
            read = self._reader.judge(payload)
        else:
            struct = type(read)
            calm = self._calm.get(struct)
            if calm is not None:
                name_of, opened, opener, is_open = calm
                if (
                    (name_of is None or name_of(read) in opened)
                    and not (is_open and is_suspect(payload))
                    and (opener is None or self.walk.opens_calmly(opener, read))
                ):
                    self._counts[struct] += 1
                    return ()
            read = self._reader.look_inside(read, payload)
        self._counts[type(read)] += 1
        return self._take(read)

    def take(self, payloads: Sequence[Any]) -> Sequence[tuple[int, Deviation]]:
        """What is wrong with events that came at once, and with which: as one by one, but faster."""
        reads, structs = self._reader.read(payloads)
        struct, calm = structs[0], self._calm.get(structs[0])
        if calm is not None and structs.count(struct) == len(structs):
            name_of, opened, opener, _ = calm
            if opener is None and (name_of is None or opened.keys() >= set(map(name_of, reads))):
                self._counts[struct] += len(structs)
                return ()
        for met, count in Counter(structs).items():
            self._counts[met] += count
        found: list[tuple[int, Deviation]] = []
        calm_here = self._calm
        for index, read in enumerate(reads):
            calm = calm_here.get(structs[index])
            if calm is not None:
                name_of, opened, opener, _ = calm
                if (name_of is None or name_of(read) in opened) and (
                    opener is None or self.walk.opens_calmly(opener, read)
                ):
                    continue
            deviations = self._take(read)
            calm_here = self._calm
            if deviations:
                found += [(index, deviation) for deviation in deviations]
        return found

    def chunk_counts(self) -> Mapping[str, int]:
        """Kind of chunk, or the terminator -> how many came."""
        counts: Counter[str] = Counter()
        for struct, count in self._counts.items():
            if struct not in _NO_CHUNK:
                counts[self._role_of(struct).kind] += count
        ended = self._counts[Terminator]
        return {**counts, self.contract.terminator: ended} if ended else dict(counts)

    def _role_of(self, struct: type[Any]) -> Role:
        """The role of a kind; one of a family may come for the first time."""
        role = self._roles.get(struct)
        if role is None:
            kind = str(struct.__struct_config__.tag)
            role = self._roles[struct] = _role_of_kind(self.contract.schema, self.contract.grammar, kind)
            self._calm_in.clear()
        return role

    def _take(self, read: Read) -> Sequence[Deviation]:
        """Judge what is not calm."""
        before = self.walk.state
        if type(read) in _NO_CHUNK:
            deviations = self._take_other(read)
        else:
            role = self._role_of(type(read))
            deviations = self.walk.take(role, read)
            if role.is_watched:
                deviations = [*self._skew(role.kind, read), *deviations]
        self._calm = self._calm_in.get(self.walk.state) or self._find_calm()
        if deviations and before in self.contract.grammar.unseen:
            return [msgspec.structs.replace(each, is_unseen=True) for each in deviations]
        return deviations

    def _find_calm(self) -> Mapping[type[Any], _Calm]:
        """What may come in this state without a word, and what it must name."""
        state, opened = self.walk.state, self.walk.opened
        found = self._calm_in[state] = {
            struct: (
                role.key_of,
                opened[role.names[0]] if role.names else {},
                role if role.opens else None,
                struct in self._reader.open_structs,
            )
            for struct, role in self._roles.items()
            if state in role.calm
        }
        return found

    def _take_other(self, read: Read) -> Sequence[Deviation]:
        """Judge what is no chunk, or is one with a remark."""
        if isinstance(read, Refusal):
            if read.kind is None:
                self.has_unreadable = True
                self.walk.excuse()
            else:
                role = _role_of_kind(self.contract.schema, self.contract.grammar, read.kind)
                self.walk.recover(role, read.values)
            return (Deviation(read.rule, read.expected, read.actual),)
        if isinstance(read, Remarked):
            self._counts[type(read.chunk)] += 1
            return [*self._unknown_fields(read), *self._take(read.chunk)]
        return self.walk.move(TERMINATOR, self.contract.terminator)

    def _unknown_fields(self, read: Remarked) -> Iterator[Deviation]:
        kind = str(type(read.chunk).__struct_config__.tag)
        for field in read.unknown:
            if self._is_new((kind, field)):
                actual = f"{printable(field)}: {self.contract.schema.unknown_fields}"
                yield Deviation("schema.unknown-field", f"the fields of {kind}", actual)

    def _skew(self, kind: str, chunk: Read) -> Iterator[Deviation]:
        for (field, value), note in self.contract.schema.skew_of(kind):
            if (field is None or getattr(chunk, field) == value) and self._is_new((kind, field, value)):
                yield Deviation(
                    "schema.version-skew", "what all versions in use take", f"{value or kind}: {note}"
                )

    def _is_new(self, remark: object) -> bool:
        if remark in self._remarked or len(self._remarked) >= _REMARKS:
            return False
        self._remarked.add(remark)
        return True
