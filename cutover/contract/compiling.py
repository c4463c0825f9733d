"""A contract made ready for its streams: the tables of its order, the plan of each kind, and new readers.

All of it depends on a few fields of the contract alone, so that variants of a contract (other limits, other severities) share it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import attrs

from cutover.contract.chunks import ChunkSchema
from cutover.contract.grammar import END, TERMINATOR, Grammar, KindPlan, ServiceError, plan_kind
from cutover.contract.kind_table import KindTable
from cutover.contract.kinds import SINGLE, Kind
from cutover.contract.paths import parse_path
from cutover.contract.reading import ChunkReader, Reader
from cutover.contract.tables import LAST, OrderSpec, grammar_of
from cutover.contract.values import ValueReader

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
    last: tuple[tuple[tuple[str, ...], tuple[tuple[type, Any], ...]], ...]
    """Pairs of a path, as steps, and the values there, each with its type, that make an event the stream's last one."""
    wants_unknown: bool
    """True if fields that the contract does not list are to be found."""
    content: tuple[tuple[str, str], ...]
    """Pairs of a kind with content and the path to it."""

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
                named=self.spec.named,
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
        content=dict(model.content).get(kind),
        is_watched=bool(reader.skew_of(kind)),
    )
    if tag == kind:
        return plan
    return attrs.evolve(plan, moves=grammar.moves.get(plan.symbol + LAST, {}), fast_states=frozenset())


_compiled: "WeakValueDictionary[Model, CompiledModel]" = WeakValueDictionary()
"""The compiled models of all contracts that are alive, so that variants of a contract share one."""


def compile_model(model: Model) -> CompiledModel:
    """Return the tables and plans of a model.

    Raises:
        ValueError: If the order has a slip, or a path leads to a field that no chunk has.
    """
    compiled = _compiled.get(model)
    if compiled is None:
        compiled = _compiled[model] = _compile(model)
    return compiled


def _compile(model: Model) -> CompiledModel:
    """Return the tables and plans of a model for which there are none yet."""
    if isinstance(model.order, Grammar):
        grammar = model.order
        _refuse_both(model.spec)
        _refuse_gaps(grammar)
    else:
        grammar = grammar_of(model.spec)
    if isinstance(model.chunks, KindTable):
        _refuse_lost_kinds(model.chunks, model.kind)
        _refuse_lost_paths(model.chunks, model.kind, grammar)
    reader = model.new_reader()
    compiled = CompiledModel(model, grammar, {})
    plans = {struct: compiled.plan(kind, reader) for struct, kind in reader.kinds.items()}
    return attrs.evolve(compiled, plans=plans)


def _refuse_both(spec: OrderSpec) -> None:
    """Raise for fields beside a table, which says all about the order itself."""
    beside = {
        "each": spec.each,
        "anywhere": spec.anywhere,
        "end": spec.end_kinds or spec.ends_by_value,
        "after_end": spec.after_end,
        "endless": spec.endless,
    }
    given = [name for name, value in beside.items() if value]
    if given:
        raise ValueError(f"the order is a table, which says {', '.join(given)} too; write it there")


def _refuse_gaps(grammar: Grammar) -> None:
    """Raise for a table without an entry for a state and a symbol that a stream may bring together."""
    for symbol in sorted({*grammar.symbols.values(), grammar.other, TERMINATOR, END}):
        moves = grammar.moves.get(symbol, {})
        for state in grammar.states:
            if state not in moves:
                raise ValueError(
                    f"the table of the order has no transition for {symbol} in the state {state}"
                )
            if moves[state].to not in grammar.states:
                raise ValueError(
                    f"the table of the order leads to {moves[state].to}, which is no state, by {symbol} in the state {state}"
                )


def _refuse_lost_kinds(table: KindTable, kind: Kind) -> None:
    """Raise for kinds that no event can say, and for members that no chunk declares."""
    kinds = table.kinds
    if kinds is None:
        if kind.path is not None and table.shape is not None and table.shape.is_text:
            raise ValueError(f"chunks is TEXT, so no event can say its kind in {kind.where}")
        return
    if kind.is_single and SINGLE not in kinds:
        raise ValueError(
            "all events have one kind, so chunks must be one shape, and not a shape for each kind"
        )
    lost = [member for member in kind.members if member not in kinds]
    if lost:
        raise ValueError(f"kind names the fields {', '.join(lost)}, which no chunk declares")
    text = [name for name, entry in table.entries.items() if entry.shape.is_text]
    unsaid = [name for name in text if not (kind.by_name or kind.is_single or name in kind.overrides)]
    if unsaid:
        raise ValueError(
            f"the kind {unsaid[0]} is declared as TEXT, which has no {kind.where}; only an event's name can say its kind"
        )


def _refuse_lost_paths(table: KindTable, place: Kind, grammar: Grammar) -> None:
    """Raise for an id of a part at a path that none of the part's kinds can have."""
    for scope in grammar.scopes:
        for kind in sorted(scope.moves):
            for path in scope.key:
                what = f"each: the path {path} of a {scope.name}"
                refuse_lost_path(table, place, path, (kind,), what)


def refuse_lost_path(chunks: Chunks, place: Kind, path: str, kinds: Sequence[str] | None, what: str) -> None:
    """Raise for a path that no chunk has.

    Args:
        chunks: The kinds of chunk of the contract.
        place: The place of the kind, which every chunk has.
        path: The path.
        kinds: The kinds of chunk in which it is looked for; None for all.
        what: The path and its use in words, for the message.
    """
    field, *steps = parse_path(path)
    if not isinstance(chunks, KindTable) or field != "data" or tuple(steps) == place.path:
        return
    if chunks.shape is not None:
        shapes = [chunks.shape]
    else:
        shapes = [chunks.entries[kind].shape for kind in kinds or chunks.entries if kind in chunks.entries]
    if shapes and not any(shape.has_path(tuple(steps)) for shape in shapes):
        where = "chunk" if kinds is None else f"chunk of the kind {' or '.join(kinds)}"
        raise ValueError(f"{what} is in no {where}")
