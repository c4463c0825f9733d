"""Events, one by one or many at once: what each is, whether it is in its place, and how many came."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs
import msgspec

from cutover.contract.chunks import ChunkSchema, Refusal, Remarked, Terminator, known_types
from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.grammar import TERMINATOR, Deviation, Grammar, Role, Walk, role_of
from cutover.contract.reading import ChunkReader, Read
from cutover.quoting import printable

_REMARKS = 256
"""Different remarks about fields and versions that are made, each once."""
_NO_CHUNK = frozenset({Terminator, Refusal, Remarked})


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
    _counts: dict[type[Any], int] = attrs.field(init=False)
    _remarked: set[object] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        contract, context = self.contract, self.context
        room = contract.limits.max_open_bytes
        self.walk = Walk(contract.grammar, context.known_tool_calls, context.expected(), room)
        self._reader = ChunkReader(schema=contract.schema, terminator=contract.terminator)
        self._roles = dict(_known_roles(contract.schema, contract.grammar))
        self._counts = dict.fromkeys((*self._roles, *_NO_CHUNK), 0)

    def take_one(self, payload: str | bytes) -> Sequence[Deviation]:
        """What is wrong with one event."""
        read = self._reader.read_one(payload)
        struct = type(read)
        role = self._roles.get(struct) or self._meet(struct)
        self._counts[struct] += 1
        if (
            role is not None
            and self.walk.state in role.calm
            and (role.key_of is None or role.key_of(read) in self.walk.opened[role.names[0]])
            and (not role.opens or self.walk.opens_calmly(role, read))
        ):
            return ()
        return self._take(read, role)

    def take(self, payloads: Sequence[Any]) -> Sequence[tuple[int, Deviation]]:
        """What is wrong with events that came at once, and with which: as one by one, but faster."""
        reads, structs = self._reader.read(payloads)
        walk, roles, opened, counts = self.walk, self._roles, self.walk.opened, self._counts
        struct, count = structs[0], len(structs)
        role = roles.get(struct)
        if role is not None and structs.count(struct) == count and walk.takes_calmly(role, reads):
            counts[struct] += count
            return ()
        found: list[tuple[int, Deviation]] = []
        for index, read in enumerate(reads):
            struct = structs[index]
            role = roles.get(struct) or self._meet(struct)
            counts[struct] += 1
            if (
                role is None
                or walk.state not in role.calm
                or (role.key_of is not None and role.key_of(read) not in opened[role.names[0]])
                or (role.opens and not walk.opens_calmly(role, read))
            ):
                deviations = self._take(read, role)
                if deviations:
                    found += [(index, deviation) for deviation in deviations]
        return found

    def chunk_counts(self) -> Mapping[str, int]:
        """Kind of chunk, or the terminator -> how many came."""
        counts: Counter[str] = Counter()
        for struct, count in self._counts.items():
            if count and (role := self._roles.get(struct)):
                counts[role.kind] += count
        ended = self._counts[Terminator]
        return {**counts, self.contract.terminator: ended} if ended else dict(counts)

    def _meet(self, struct: type[Any]) -> Role | None:
        """The role of a kind of a family that comes for the first time; None for what is no chunk."""
        if struct in _NO_CHUNK:
            return None
        kind = str(struct.__struct_config__.tag)
        role = self._roles[struct] = _role_of_kind(self.contract.schema, self.contract.grammar, kind)
        self._counts[struct] = 0
        return role

    def _take(self, read: Read, role: Role | None) -> Sequence[Deviation]:
        """Judge what is not calm."""
        before = self.walk.state
        if role is None:
            deviations = self._take_other(read)
        elif role.is_watched:
            deviations = [*self._skew(role.kind, read), *self.walk.take(role, read)]
        else:
            deviations = self.walk.take(role, read)
        if deviations and before in self.contract.grammar.unseen:
            return [msgspec.structs.replace(each, is_unseen=True) for each in deviations]
        return deviations

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
            struct = type(read.chunk)
            known = self._roles.get(struct) or self._meet(struct)
            self._counts[struct] += 1
            return [*self._unknown_fields(read), *self._take(read.chunk, known)]
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
