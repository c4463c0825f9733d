"""Contracts from OpenAPI documents: `contract_from` makes one, and `OpenApiReader` holds the events of a stream to it.

The document says what each event must be (`describe_stream`, `EventValidator`). `x-sse-stream` and the end marks become the order,
the end, the times and the resuming of a `StreamContract`, so that the checker is the same as for every other contract.

This module is long because the promises of a document and the reader that keeps them are one translation.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from cutover.contract.chunks import Refusal, Remarked, Terminator
from cutover.contract.compiling import Model
from cutover.contract.definition import Limits, StreamContract
from cutover.contract.entry_reader import EntryReader
from cutover.contract.findings import Deviation, Severity
from cutover.contract.head_rules import HeadRules
from cutover.contract.kind_table import KindEntry, KindTable
from cutover.contract.kinds import Kind
from cutover.contract.order import OrderError
from cutover.contract.paths import parse_path, value_at
from cutover.errors import OpenApiError
from cutover.protocols.openapi.description import Reading, StreamDescription, describe_stream
from cutover.protocols.openapi.event_validator import EventValidator
from cutover.protocols.openapi.faults import WARNINGS, Problem
from cutover.protocols.openapi.overlay import apply_overlay
from cutover.protocols.openapi.source import read_document
from cutover.text import printable

_MAX_KINDS = 1000
"""Largest number of kinds that one stream may have. All further ones count as one kind."""
_MAX_WHOLE_BYTES = 16 << 20
"""Rough size of the events that are kept for a schema of the whole stream."""
_PLACELESS = frozenset({"schema.inherited-id", "schema.write-only"})
"""Rules whose problem tells no value."""
_SHOWN_KINDS = 8
"""Number of kinds that a finding about an unknown one shows."""
_BY_NAME = ("event",)
_ITEM_BYTES = 500
"""Rough memory of one kept event without its data."""


def contract_from(
    document: str | bytes | Mapping[str, Any],
    path: str,
    method: str | None = None,
    *,
    overlays: Sequence[str | bytes | Mapping[str, Any]] = (),
    remote: Mapping[str, str | bytes | Mapping[str, Any]] | None = None,
    terminator: str | None = None,
    reading: Reading | None = None,
    name: str | None = None,
) -> StreamContract:
    """Return the contract of a stream that an OpenAPI document describes. Nothing is fetched.

    Args:
        document: The document: JSON or YAML as text or bytes, or its content as a mapping.
        path: The path of the operation, as in the document, or concrete.
        method: The method. Default None: the one that has an event stream; GET before POST.
        overlays: OpenAPI Overlays to apply to the document, in this order.
        remote: Other documents that it refers to: the reference without its fragment -> the document.
        terminator: The data of the event that ends the stream, if the document does not say it.
        reading: `"event"` or `"payload"`: what the schema is about, if it is read wrongly.
        name: The name of the contract in reports. Default: the method and the path.

    Raises:
        OpenApiError: If no contract can be derived. Its `rule` says why.
        ValueError: If `reading` is another word.
    """
    if reading not in {None, "event", "payload"}:
        raise ValueError(f"reading={reading!r}: give 'event' or 'payload'")
    whole = read_document(document)
    for overlay in overlays:
        whole = apply_overlay(whole, read_document(overlay))
    others = {reference: read_document(other) for reference, other in (remote or {}).items()}

    def describe(by: str) -> StreamDescription:
        return describe_stream(whole, path, by, remote=others, terminator=terminator, reading=reading)

    return contract_of(_first_described(describe) if method is None else describe(method), name=name)


def contract_of(described: StreamDescription, *, name: str | None = None) -> StreamContract:
    """Return the contract of a described stream.

    Args:
        described: What the document says.
        name: The name of the contract in reports. Default: the method and the path.

    Raises:
        OpenApiError: If the promised order has a slip, or a schema is no JSON Schema.
    """
    promises, usual = described.promises, Limits()
    ends: dict[str, list[str]] = {}
    for event in described.terminal:
        ends.setdefault(event.pointer, []).append(event.value)
    try:
        return StreamContract(
            name=name or f"{described.method} {described.path}",
            chunks=OpenApiEvents(described),
            kind=Kind.event_name(),
            order=promises.order,
            each=promises.each,
            terminator=described.terminator,
            end=ends,
            endless=promises.endless,
            head=HeadRules(
                statuses=described.statuses,
                content_type=described.content_type
                if "*" not in described.content_type
                else "text/event-stream",
            ),
            method=described.method if described.method in {"GET", "POST"} else "POST",
            resume=promises.resume,
            limits=attrs.evolve(
                usual,
                first_event=usual.first_event if promises.first is None else promises.first,
                event_gap=usual.event_gap if promises.gap is None else promises.gap,
                whole=usual.whole if promises.total is None else promises.total,
            ),
            severities={"stream.empty": Severity.WARNING},
            remarks=tuple(
                Deviation(warning.rule, "", f"{warning.message} ({warning.where})")
                for warning in described.warnings
            ),
        )
    except OrderError as error:
        raise OpenApiError("openapi.bad-promise", str(error), where=described.path) from error


def _first_described(describe: Callable[[str], StreamDescription]) -> StreamDescription:
    """Return the description of the path's first method that has an event stream.

    Raises:
        OpenApiError: If neither GET nor POST has one: the error of the one that comes nearest.
    """
    errors: list[OpenApiError] = []
    for method in ("GET", "POST"):
        try:
            return describe(method)
        except OpenApiError as error:
            errors.append(error)
    raise next((error for error in errors if error.rule != "openapi.no-operation"), errors[0])


@attrs.frozen(eq=False)
class OpenApiEvents:
    """The events of a stream, as its document describes them: the `chunks` of its contract."""

    description: StreamDescription
    """The content of the document, as far as it concerns this stream."""
    _validator: EventValidator = attrs.field(init=False)
    # The entries of the kinds that have come, for all streams together.
    _table: KindTable = attrs.field(factory=lambda: KindTable(entries={}, shape=None), init=False)

    @_validator.default
    def _build(self) -> EventValidator:
        return EventValidator(self.description)

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """Return the kinds that the schema names; None if it allows any."""
        return self.description.kinds if self.description.has_promises else None

    def new_reader(self, model: Model) -> "OpenApiReader":
        """Return a reader for one stream."""
        return OpenApiReader(
            validator=copy.copy(self._validator),
            table=self._table,
            terminator=model.spec.terminator,
            last=model.last,
        )


@attrs.define(eq=False, kw_only=True)
class OpenApiReader(EntryReader):
    """A reader of one stream's events, which holds each to the document."""

    validator: EventValidator
    """The check of this stream's events."""
    table: KindTable
    """The entries of the kinds that have come in any stream."""
    _kind_at: tuple[str, ...] | None = attrs.field(init=False)
    _items: list[dict[str, Any]] | None = attrs.field(init=False)
    # True if a good event may still need a remark, be the last one, or be kept.
    _is_rich: bool = attrs.field(init=False)
    _room: int = attrs.field(default=_MAX_WHOLE_BYTES, init=False)

    def __attrs_post_init__(self) -> None:
        described = self.validator.description
        at = parse_path(described.promises.kind) if described.has_promises else None
        self._kind_at = _BY_NAME if at == _BY_NAME else at
        self._items = None if described.whole is None else []
        self._is_rich = bool(self.last) or self._items is not None
        for kind in described.kinds or ():
            self._entries[kind] = self.table.more(kind)

    def kind_of(self, text: str, name: str | None) -> str | None:
        """Return the kind of an event, from its data and its own `event` line."""
        if text == self.validator.description.terminator:
            return text
        self.validator.check(name, text)
        return self._kind(self.validator.value, name)

    def read(self, payloads: Sequence[Any]) -> tuple[list[Any], list[type]]:
        """Read the data of one or more events. Return the chunk, or other `Read`, of each, and the class of each."""
        reads = list(map(self.decode, payloads))
        return reads, list(map(type, reads))

    def look_inside(self, read: Any, payload: str | bytes) -> Any:  # noqa: ANN401, ARG002
        """Return the same: `decode` has looked inside."""
        return read

    def decode(self, payload: str | bytes) -> Any:  # noqa: ANN401
        """Return the chunk of one event, with its warnings if there are any, or its refusal, or the terminator."""
        text = payload if isinstance(payload, str) else payload.decode("utf-8", "replace")
        validator = self.validator
        name, own_id, retry = self.fields
        if text == self.terminator:
            return Terminator()
        problems = validator.check(name, text, own_id, retry, self.last_event_id)
        value = validator.value
        kind = (name or "message") if self._kind_at is _BY_NAME else self._kind(value, name)
        if not (problems or self._is_rich) and kind in self._entries:
            # Most events are good, and of a kind that has come before.
            return self._entries[kind].chunk(text if value is None else value, name, own_id, retry)
        if self._items is not None:
            self._keep(text)
        if problems and problems[0].rule not in WARNINGS:
            problem = problems[0]
            known = None if kind is None or problem.rule in {"json.syntax", "schema.unknown-kind"} else kind
            chunk = (
                None if known is None else self._chunk(self._find(known), text if value is None else value)
            )
            return Refusal(_deviation(problem, Severity.VIOLATION, validator.description.kinds), known, chunk)
        chunk = self._chunk(self._find(kind or "message"), text if value is None else value)
        remarks = tuple(_deviation(problem, Severity.WARNING) for problem in problems)
        return Remarked(chunk, (), remarks) if remarks else chunk

    judge = decode
    """The exact path, which is the same."""

    def end(self) -> Sequence[Deviation]:
        """Return the fault of the whole stream as an array of events, if the document has a schema for it."""
        if self._items is None:
            return ()
        if self._room < 0:
            wanted = f"events of at most {_MAX_WHOLE_BYTES} bytes together"
            return (
                Deviation(
                    "schema.stream",
                    wanted,
                    "more, which was not checked as a whole",
                    severity=Severity.WARNING,
                ),
            )
        return [
            _deviation(problem, Severity.VIOLATION) for problem in self.validator.check_whole(self._items)
        ]

    def _kind(self, value: Any, name: str | None) -> str | None:  # noqa: ANN401
        """Return the kind of an event: where the document says it, else its name, else the field `type` of its data."""
        at = self._kind_at
        if at is None:
            found = name or (value.get("type") if type(value) is dict else None)
            return found if isinstance(found, str) else "message"
        found = self.fields[1] if at == ("id",) else value_at(value, at[1:])
        return found if isinstance(found, str) else None

    def _find(self, kind: str) -> KindEntry:
        """Return the entry of a kind."""
        entry = self._entries.get(kind)
        if entry is None:
            kind = self._bounded(kind, _MAX_KINDS)
            entry = self._entries.setdefault(kind, self.table.more(kind))
        return entry

    def _keep(self, text: str) -> None:
        """Keep an event for the schema of the whole stream, if there is room."""
        self._room -= len(text) + _ITEM_BYTES
        if self._items is not None and self._room >= 0:
            name, own_id, retry = self.fields
            self._items.append(self.validator.item(name, text, own_id, retry))


def _deviation(problem: Problem, severity: Severity, kinds: Sequence[str] | None = None) -> Deviation:
    """Return a problem as the checker reports it.

    Args:
        problem: The problem.
        severity: Its severity, if the contract sets no other one.
        kinds: The kinds that the document names; None if it names none.
    """
    expected = problem.expected
    if problem.rule == "schema.unknown-kind" and kinds:
        more = f" and {len(kinds) - _SHOWN_KINDS} more" if len(kinds) > _SHOWN_KINDS else ""
        expected = printable(f"a known kind: {', '.join(kinds[:_SHOWN_KINDS])}{more}")
    return Deviation(
        problem.rule,
        expected,
        f"{problem.path} {problem.actual}"
        if problem.path and problem.rule not in _PLACELESS
        else problem.actual,
        severity=severity,
        path=problem.path,
        keyword=problem.keyword,
    )
