"""A stream's contract, as data: its kinds of event, their order, the end, the head, the times, and what weighs how much.

This module is long because each field of a contract has its meaning, its default and its slips beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from cutover.contract.chunks import ChunkSchema
from cutover.contract.compiling import CompiledModel, Model, compile_model, refuse_lost_path
from cutover.contract.each import Each, each_of
from cutover.contract.findings import Deviation, Severity
from cutover.contract.framing import Framing
from cutover.contract.grammar import END, Grammar, KindPlan, Scope, ServiceError
from cutover.contract.head_rules import HeadRules
from cutover.contract.kind_table import KindTable
from cutover.contract.kinds import EventName, Kind, kind_of
from cutover.contract.own_rules import StreamRule
from cutover.contract.paths import parse_path
from cutover.contract.rules import RULES
from cutover.contract.shapes.shape import ANYTHING
from cutover.contract.tables import OrderSpec, refuse_unknown_kinds
from cutover.lazy_names import load
from cutover.sse.events import MessageEvent

if TYPE_CHECKING:
    from cutover.contract.reading import Reader

_METHODS = ("GET", "POST")


@attrs.frozen(kw_only=True)
class Limits:
    """The largest sizes and the longest times of a check. Sizes are in bytes, times in seconds.

    They say nothing about a client: most clients have no such limits.
    """

    max_event_bytes: int = 1 << 20
    """Largest size of an event's `data` lines, and of any line. The parser drops a larger event. Default: 1 MiB."""
    max_open_bytes: int = 16 << 20
    """Rough memory for the ids of open parts and calls. Above it, the checker follows no new part or call. Default: 16 MiB."""
    first_event: float = 5.0
    """Seconds from sending the request to the first message event. Default: 5."""
    event_gap: float = 15.0
    """Seconds between two message events, or between the last one and the end. Comments do not count. Default: 15."""
    whole: float = 120.0
    """Seconds from sending the request to the end of the body. Default: 120."""
    held_back_after: float = 1.0
    """Least time to the first byte of a body that counts as held back if its events come all at once. Default: 1."""
    at_once: float = 0.1
    """Seconds within which several events count as having come all at once. Default: 0.1."""


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def _each(value: Any) -> tuple[Each | Scope, ...]:  # noqa: ANN401  one order of parts, or several
    """Return the orders of parts, one or several, as a tuple."""
    several = (value,) if isinstance(value, str | Each | Scope) else value
    return tuple(each_of(each) for each in several)


def _chunks(value: object) -> Any:  # noqa: ANN401
    """Return the kinds of chunk as a table."""
    return (
        value
        if isinstance(value, ChunkSchema) or hasattr(value, "new_reader") or isinstance(value, KindTable)
        else KindTable.of(value)
    )


_SCALARS = str | int | float | bool | None


def _end(value: Any) -> "tuple[str, ...] | Mapping[str, Any]":  # noqa: ANN401
    """Return the end: kinds as a tuple, or values by their path."""
    if not isinstance(value, Mapping):
        return _names(value)
    if not value:
        return ()
    for path, wanted in value.items():
        each = wanted if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)
        if not all(isinstance(one, _SCALARS) for one in each):
            raise ValueError(f"end: give a text, a number, true, false or null for {path}, or a list of such")
    return dict(value)


def _one_of(*values: str | None) -> Any:  # noqa: ANN401  attrs has no type for validators
    """Return a validator that raises a sentence for all but these values."""

    def refuse_others(_: object, attribute: Any, value: object) -> None:  # noqa: ANN401
        if value not in values:
            raise ValueError(f"{attribute.name}={value!r}: give {' or '.join(map(repr, values))}")

    return refuse_others


def _method(value: str) -> str:
    """Return a method in upper case."""
    return value.upper()


def _error(value: "ServiceError | str | None") -> ServiceError | None:
    """Return the in-band error that a kind stands for; any other value as it is."""
    return ServiceError(kind=value) if isinstance(value, str) else value


def _severities(value: "Mapping[str, Severity | str]") -> Mapping[str, Severity]:
    """Return severities by the id of their rule; a word, such as `warning`, stands for one."""
    words = {each.value: each for each in Severity}
    for rule, severity in value.items():
        if not isinstance(severity, Severity) and severity not in words:
            raise ValueError(f"severities: {severity!r} for {rule} is none of {', '.join(words)}")
    return {rule: Severity(severity) for rule, severity in value.items()}


def _rules(value: "StreamRule | Sequence[StreamRule]") -> tuple[StreamRule, ...]:
    """Return one rule, or several, as a tuple.

    Raises:
        ValueError: If one is no instance of a rule, or its kinds are one text, in which each letter would count as a kind.
    """
    rules: tuple[Any, ...] = (value,) if isinstance(value, StreamRule | type) else tuple(value)
    for rule in rules:
        if not isinstance(rule, StreamRule):
            hint = f"; write {rule.__name__}()" if isinstance(rule, type) else ""
            raise ValueError(f"rules: {rule!r} is no instance of StreamRule{hint}")  # noqa: TRY004  a slip
        if isinstance(rule.kinds, str):
            raise ValueError(  # noqa: TRY004  a slip
                f"rules: the kinds of {rule.id} are one text; write kinds = ({rule.kinds!r},)"
            )
    return rules


def _is_a(wanted: type) -> Callable[[object, "attrs.Attribute[Any]", object], None]:
    """Return a validator that refuses a value of another type in a sentence."""

    def check(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, wanted):
            given = type(value).__name__
            raise ValueError(f"{attribute.name}: give a {wanted.__name__}(...), not a {given}")  # noqa: TRY004  as above

    return check


@attrs.frozen(kw_only=True)
class StreamContract:
    """All that a stream must satisfy. Make a variant of a contract with `attrs.evolve`.

    Raises:
        ValueError: If the contract has a slip: an order that names a kind that no chunk declares or that can never end, a path that
            leads nowhere, a severity for a rule that does not exist. The message is a sentence about it.
    """

    name: str
    """The contract's name on the command line and in reports."""
    chunks: Any = attrs.field(default=ANYTHING, converter=_chunks)
    """The kinds of chunk: a mapping from kind to shape, or one shape for all events; see `cutover.contract.shapes.choice`. Default: any JSON."""
    kind: Kind = attrs.field(default=Kind.field("type"), converter=kind_of)
    """The place where an event says its kind: `"type"` (a field of its data), `"/event"` (its name), a function, or a `Kind`."""
    order: Grammar | str | None = None
    """The order of all events, such as `"start .* (finish | error)"`; None if any order is right. A table says what the notation cannot."""
    each: tuple[Each | Scope, ...] = attrs.field(default=(), converter=_each)
    """The order of events that share an id, such as `"text-start text-delta* text-end by id"`; one, or several."""
    anywhere: tuple[str, ...] = attrs.field(default=(), converter=_names)
    """Kinds that may come anywhere, such as `ping`: no order counts them."""
    terminator: str | None = None
    """The exact data of the event that ends the stream, such as `[DONE]`, whatever its name is; None without one."""
    end: tuple[str, ...] | Mapping[str, Any] = attrs.field(default=(), converter=_end)
    """The last event: its kind or kinds, or a path and the value or values there, such as `{"/data/done": True}`. Default: the body's end."""
    after_end: tuple[str, ...] = attrs.field(default=(), converter=_names)
    """Kinds that may follow the last event."""
    endless: bool = False
    """True if the stream has no end of its own: the end of the body, wherever it comes, is then no fault."""
    error: ServiceError | None = attrs.field(default=None, converter=_error)
    """The event that reports a failed turn: a kind, or a `ServiceError`. It may come at any place, and nothing more is asked after it."""
    content: Mapping[str, str] = attrs.field(factory=dict)
    """Kind -> the path to its content, such as `{"text-delta": "delta"}`: the answer itself, if it is not empty there. Default: unknown.

    It gives `Timings.first_content` and `ContractReport.content_count`, and a whole turn without content breaks `stream.no-content`.
    """
    visible: tuple[str, ...] = attrs.field(default=(), converter=_names)
    """Kinds without content that a user sees too, such as a file; `data-*` stands for a family. With one, a turn is not empty."""
    rules: tuple[StreamRule, ...] = attrs.field(default=(), converter=_rules)
    """Rules of the contract's owner; see `cutover.contract.own_rules`."""
    framing: Framing = attrs.field(factory=Framing, validator=_is_a(Framing))
    """Rules about the bytes, for a client that reads less than the standard allows."""
    head: HeadRules = attrs.field(factory=HeadRules, validator=_is_a(HeadRules))
    """The rules for status and headers."""
    method: str = attrs.field(default="POST", converter=_method, validator=_one_of(*_METHODS))
    """The method of the request that starts the stream: POST or GET."""
    resume: str | None = attrs.field(default=None, validator=_one_of(None, "id"))
    """`id` if each event has an id, and a request with `Last-Event-ID` goes on behind it (WHATWG HTML 9.2.4); else None."""
    limits: Limits = attrs.field(factory=Limits, validator=_is_a(Limits))
    """The largest sizes and the longest times."""
    severities: Mapping[str, Severity] = attrs.field(factory=dict, converter=_severities)
    """Rule id -> its severity in this contract, for rules whose default severity its owner changes. It wins over `strict()`, except
    that a `LOSS` is what `strict()` makes a violation."""
    protocol_severities: Mapping[str, Severity] = attrs.field(factory=dict, converter=_severities)
    """Rule id -> its severity in the protocol that the contract describes. Shipped contracts have it; `severities` wins over it."""
    remarks: tuple[Deviation, ...] = ()
    """Weaknesses of the contract itself, such as those of the document that it was read from. Every report shows them."""
    _compiled: CompiledModel = attrs.field(init=False, eq=False, repr=False)
    # The strict form, once it was asked for: thousands of streams share it.
    _strict_form: "list[StreamContract]" = attrs.field(factory=list, init=False, eq=False, repr=False)

    @classmethod
    def from_openapi(
        cls,
        document: "str | bytes | Mapping[str, Any]",
        path: str,
        method: str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> "StreamContract":
        """Return the contract of a stream that an OpenAPI document describes. Nothing is fetched. It needs the extra `openapi`.

        Args:
            document: The document: JSON or YAML as text or bytes, or its content as a mapping.
            path: The path of the operation, as in the document, or concrete.
            method: The method. Default None: GET or POST, whichever the path has; if it has both, the one with an event stream.
            options: `overlays` (OpenAPI Overlays to apply first), `remote` (reference without its fragment -> the document that it
                names), `terminator` (the data of the last event, if the document does not say it), `reading` (`"event"` or `"payload"`:
                what the schema is about, if it is read wrongly) and `name` (the contract's name in reports).

        Raises:
            OpenApiError: If no contract can be derived. Its `rule` says why. It is a ValueError.
        """
        # The work is done in a higher layer; the method is here because users look for it here.
        contract: StreamContract = load("cutover.protocols.openapi.contract", "contract_from")(
            document, path, method, **options
        )
        return contract

    @_compiled.default
    def _compile(self) -> CompiledModel:
        return compile_model(self._model())

    @rules.validator
    def _usable(self, _: object, rules: tuple[StreamRule, ...]) -> None:
        """Refuse a rule about a kind that no chunk declares, or about a path that no chunk has."""
        declared = self._declared_kinds()
        for rule in rules:
            names = {*(rule.kinds or ()), *getattr(rule, "until", ())}
            refuse_unknown_kinds(f"the rule {rule.id}", names, declared)
            for path in getattr(rule, "paths", ()):
                what = f"the rule {rule.id}: the path {path}"
                refuse_lost_path(self.chunks, self.kind, path, rule.kinds, what)

    @content.validator
    def _found_in_chunks(self, _: object, content: Mapping[str, str]) -> None:
        """Refuse content of a kind that no chunk declares, or at a path that no such chunk has."""
        refuse_unknown_kinds("content", content, self._declared_kinds())
        for kind, path in content.items():
            refuse_lost_path(self.chunks, self.kind, path, (kind,), f"content: the path {path} of {kind}")

    @visible.validator
    def _declared(self, _: object, visible: tuple[str, ...]) -> None:
        """Refuse a kind that no chunk declares."""
        refuse_unknown_kinds("visible", visible, self._declared_kinds())

    @severities.validator
    @protocol_severities.validator
    def _known(self, _: object, severities: Mapping[str, Severity]) -> None:
        """Refuse a severity for a rule that does not exist."""
        unknown = sorted(severities.keys() - RULES.keys() - {rule.id for rule in self.rules})
        if unknown:
            raise ValueError(f"severities: no such rule: {', '.join(unknown)}")

    def _model(self) -> Model:
        """Return the fields that decide how events are read and in which order they may come."""
        is_map = isinstance(self.end, Mapping)
        values = self.end.items() if isinstance(self.end, Mapping) else ()
        last = tuple(
            (
                parse_path(path),
                tuple(
                    (type(each), each)
                    for each in (value if isinstance(value, list | tuple | set | frozenset) else (value,))
                ),
            )
            for path, value in values
        )
        order = self.order
        spec = OrderSpec(
            order=order if isinstance(order, str) else None,
            each=self.each,
            anywhere=self.anywhere,
            terminator=self.terminator,
            end_kinds=() if is_map else tuple(self.end),
            ends_by_value=is_map,
            after_end=self.after_end,
            endless=self.endless,
            error=self.error,
            kinds=self._declared_kinds(),
        )
        return Model(
            chunks=self.chunks,
            kind=self.kind,
            order=order,
            spec=spec,
            last=last,
            wants_unknown=self.severity("schema.unknown-field") is not Severity.IGNORED,
            content=tuple(self.content.items()),
        )

    def _declared_kinds(self) -> tuple[str, ...] | None:
        """Return the kinds that a chunk may have; None if it may have any."""
        kinds: tuple[str, ...] | None = (
            self.chunks.kinds if not isinstance(self.chunks, ChunkSchema) else None
        )
        if kinds is None:
            return (
                ("event", *self.kind.overrides)
                if self.kind.is_single and isinstance(self.chunks, KindTable)
                else None
            )
        error = () if self.error is None else (self.error.kind,)
        return tuple(dict.fromkeys((*kinds, *self.kind.overrides, *error)))

    @property
    def grammar(self) -> Grammar:
        """Return the order, as tables."""
        return self._compiled.grammar

    @property
    def schema(self) -> Any:  # noqa: ANN401
        """Return `chunks`, by its earlier name."""
        return self.chunks

    @property
    def plans(self) -> Mapping[type[Any], KindPlan]:
        """Return the plan of each declared kind, by the class of its chunks."""
        return self._compiled.plans

    @property
    def why_unknown_fields(self) -> str | None:
        """Return the reason why an unknown field deserves a warning, as far as the contract tells one."""
        return self.chunks.unknown_fields if isinstance(self.chunks, ChunkSchema) else None

    def new_reader(self) -> "Reader":
        """Return a reader for one stream."""
        return self._compiled.model.new_reader()

    def plan_kind(self, kind: str, reader: "Reader") -> KindPlan:
        """Return all that the order says about a kind of chunk."""
        return self._compiled.plan(kind, reader)

    def kind_of(self, event: MessageEvent) -> str | None:
        """Return the kind of an event, or the terminator's text; None if the event says no kind."""
        return self.new_reader().kind_of(event.data, event.name)

    @property
    def wants_names(self) -> bool:
        """Return True if the contract says something about the events' names, so that a name is no surprise."""
        return self.kind.by_name or self.kind.names is not EventName.OPTIONAL or self.framing.event_line

    @property
    def may_be_empty(self) -> bool:
        """Return True if a body without any event is no fault: the stream is endless, or its order says so.

        A contract that gives `stream.empty` a severity wants to hear of it all the same.
        """
        if "stream.empty" in self.severities:
            return False
        return self.endless or (
            isinstance(self.order, str) and self.grammar.transitions[self.grammar.initial, END].rule is None
        )

    def severity(self, rule: str) -> Severity:
        """Return the severity of a rule in this contract.

        Raises:
            KeyError: If there is no rule with this id.
        """
        given = self.severities.get(rule, self.protocol_severities.get(rule))
        if given is not None:
            return given
        if rule == "order.part-left-open" and self.each:
            # An owner who writes down when a part ends means it.
            return Severity.VIOLATION
        own = next((each.severity for each in self.rules if each.id == rule), None)
        return RULES[rule].severity if own is None else own

    def severity_of(self, deviation: Deviation) -> Severity:
        """Return the severity of a broken rule: the contract's, else the one that came with the deviation, else the rule's own."""
        if deviation.is_unseen:
            return Severity.WARNING
        is_given = deviation.rule in self.severities or deviation.rule in self.protocol_severities
        if deviation.severity is not None and not is_given:
            return deviation.severity
        return self.severity(deviation.rule)

    def strict(self) -> "StreamContract":
        """Return a copy of this contract in which every loss is a violation. Each call returns the same one."""
        if not self._strict_form:
            self._strict_form.append(self._make_strict())
        return self._strict_form[0]

    def _make_strict(self) -> "StreamContract":
        ids = (*RULES, *(rule.id for rule in self.rules))
        losses = {rule: Severity.VIOLATION for rule in ids if self.severity(rule) is Severity.LOSS}
        # A variant of the copy with severities of its own is then strict too.
        return attrs.evolve(
            self,
            severities={rule: losses.get(rule, severity) for rule, severity in self.severities.items()},
            protocol_severities={**self.protocol_severities, **losses},
        )


@attrs.frozen(kw_only=True)
class StreamContext:
    """The facts about the request that the stream answers. A contract cannot know them by itself."""

    thread_id: str | None = None
    """The id of the request's thread; None if unknown, and then any one thread is accepted."""
    known_tool_calls: frozenset[str] = frozenset()
    """Ids of the tool calls in the message that this stream continues. The stream may refer to them."""
    asked_at: datetime | None = None
    """The time of the request, with a time zone; None if unknown, and then no date in a header counts as passed."""
