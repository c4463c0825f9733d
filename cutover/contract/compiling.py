"""A contract made ready for its streams: the tables of its order, the plan of each kind, and new readers.

All of it depends on a few fields of the contract alone, so that variants of a contract (other limits, other severities) share it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import attrs

from cutover.contract.chunks import ChunkSchema
from cutover.contract.grammar import Grammar, KindPlan, ServiceError, plan_kind
from cutover.contract.kinds import Kind
from cutover.contract.paths import parse_path
from cutover.contract.reading import ChunkReader, Reader
from cutover.contract.tables import LAST, OrderSpec, grammar_of
from cutover.contract.values import KindTable, ValueReader

Chunks: TypeAlias = Any
"""The kinds of chunk: a `ChunkSchema`, a `KindTable`, or another value with `kinds` and `new_reader`."""


@attrs.frozen(kw_only=True)
class Model:
    """The fields of a contract that decide how its events are read and in which order they may come."""

    chunks: Chunks
    kind: Kind
    order: Grammar | str | None
    spec: OrderSpec
    """All fields about order and end."""
    last: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]
    """Pairs of a path, as steps, and the values there that make an event the stream's last one."""
    wants_unknown: bool
    """True if fields that the contract does not list are to be found."""

    @property
    def error(self) -> ServiceError | None:
        """Return the way in which the service reports a failed turn."""
        return self.spec.error

    def new_reader(self) -> Reader:
        """Return a reader for one stream."""
        if isinstance(self.chunks, ChunkSchema):
            return ChunkReader(schema=self.chunks, terminator=self.spec.terminator)
        if isinstance(self.chunks, KindTable):
            return ValueReader(
                table=self.chunks,
                kind=self.kind,
                terminator=self.spec.terminator,
                last=self.last,
                error=self.error,
                wants_unknown=self.wants_unknown,
            )
        reader: Reader = self.chunks.new_reader(self)
        return reader


@attrs.frozen(eq=False)
class CompiledModel:
    """The tables and plans of a model."""

    model: Model
    grammar: Grammar
    plans: Mapping[type[Any], KindPlan]
    """Class of a chunk -> the plan of its kind, for the kinds that are declared."""
    _plans_by_kind: dict[str, KindPlan] = attrs.field(factory=dict)

    def plan(self, kind: str, reader: Reader) -> KindPlan:
        """Return the plan of a kind."""
        plan = self._plans_by_kind.get(kind)
        if plan is None:
            plan = _plan(self.model, self.grammar, kind, reader)
            # A stream decides which kinds come, so they must not fill the memory.
            if len(self._plans_by_kind) < _MAX_PLANS:
                self._plans_by_kind[kind] = plan
        return plan


_MAX_PLANS = 2000


def _plan(model: Model, grammar: Grammar, tag: str, reader: Reader) -> KindPlan:
    """Return the plan of a kind, or of the kind's chunks that say that they are the last ones."""
    kind = tag.removesuffix(LAST)
    plan = plan_kind(
        grammar,
        kind,
        lambda path: reader.getter(kind, path),
        error=model.error,
        is_watched=bool(reader.skew_of(kind)),
    )
    if tag == kind:
        return plan
    moves = {state: to for (state, symbol), to in grammar.transitions.items() if symbol == plan.symbol + LAST}
    return attrs.evolve(plan, moves=moves, fast_states=frozenset())


@lru_cache(maxsize=256)
def compile_model(model: Model) -> CompiledModel:
    """Return the tables and plans of a model.

    Raises:
        ValueError: If the order has a slip, or a path leads to a field that no chunk has.
    """
    grammar = model.order if isinstance(model.order, Grammar) else grammar_of(model.spec)
    if isinstance(model.chunks, KindTable):
        _refuse_lost_paths(model.chunks, grammar)
    reader = model.new_reader()
    compiled = CompiledModel(model, grammar, {})
    plans = {struct: compiled.plan(kind, reader) for struct, kind in reader.kinds.items()}
    return attrs.evolve(compiled, plans=plans)


def _refuse_lost_paths(table: KindTable, grammar: Grammar) -> None:
    """Raise for an id of a part at a path that none of the part's kinds can have."""
    for scope in grammar.scopes:
        for kind in scope.moves:
            entry = table.entries.get(kind)
            for path in scope.key:
                field, *steps = parse_path(path)
                if entry is not None and field == "data" and not entry.shape.has_path(tuple(steps)):
                    raise ValueError(
                        f"each: the kind {kind} has no field at the path {path}, which identifies a {scope.name}"
                    )
