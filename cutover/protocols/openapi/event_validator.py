"""Holds the events of one stream to the schema that an OpenAPI document gives.

A good event usually takes a lane: one look at its name, one decoding, one schema (`lanes`). All other events are judged
exactly, in each way in which the document may be read: with the event as it came, with the default name `message` if it has
no name, with the inherited id if it has no id, and with its data as text or parsed if the document leaves that open. An
event that holds in one of these ways holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from cutover.contract.reading import rounded_in
from cutover.protocols.openapi import shape
from cutover.protocols.openapi.description import Mode, StreamDescription
from cutover.protocols.openapi.faults import WARNINGS, FaultFinder, Problem
from cutover.protocols.openapi.json_text import NotJsonError, decode_json, fast_decode
from cutover.protocols.openapi.lanes import OPEN, LaneCompiler, Lanes
from cutover.protocols.openapi.validation import Validators
from cutover.text import escaped, escaped_lines

_NO_JSON: Final = object()


@attrs.frozen(eq=False)
class _Attempt:
    """One way to read an event."""

    mode: Mode
    """The way to read its data."""
    value: Any
    """The value that the schema is applied to; `_NO_JSON` if the data is no JSON and this way needs it."""
    inherits: bool
    """True if the event has the id of an earlier one."""


@attrs.define(eq=False)
class EventValidator:
    """The check of one stream's events against its document. It keeps nothing of an event but its decoded data.

    Raises:
        OpenApiError: If jsonschema-rs is not installed, or a schema is no JSON Schema.
    """

    description: StreamDescription
    """The facts that the document states."""
    value: Any = attrs.field(default=None, init=False)
    """The decoded data of the last event, if it was decoded; None if not, or if it is no JSON."""
    _validators: Validators = attrs.field(init=False)
    _finder: FaultFinder = attrs.field(init=False)
    _lanes: dict[str | None, Any] = attrs.field(init=False)
    _other: Any = attrs.field(init=False)
    # True if a reader of the events wants the decoded data although no schema asks for it.
    _always_decodes: bool = attrs.field(init=False)
    _has_advice: bool = attrs.field(init=False)
    # Names of the fields that the item schema knows.
    _names: frozenset[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        described = self.description
        converted = described.converted
        self._validators = Validators(converted)
        paths: set[tuple[str, ...]] = {("event",)} if described.reading == "event" else set()
        kind = tuple(described.promises.kind.split("/")[1:])
        if described.has_promises:
            paths.add(kind if described.reading == "event" else kind[1:])
        self._finder = FaultFinder(validators=self._validators, kind_paths=frozenset(paths))
        pointers = [described.promises.kind, *(end.pointer for end in described.terminal)]
        pointers.extend(each.rpartition(" by ")[2].strip() for each in described.promises.each)
        self._always_decodes = any(pointer.startswith("/data/") for pointer in pointers)
        self._has_advice, self._names = False, frozenset()
        lanes = Lanes(by_name={}, other=OPEN)
        if described.item is not None:
            # A faulty schema is an error now, not at the first event that takes the exact path.
            self._validators.of(described.item)
            schema = {"$ref": f"#/$defs/{described.item}"}
            self._has_advice = self._validators.has_advice(schema)
            self._names = shape.property_names(converted, schema)
            lanes = LaneCompiler(validators=self._validators, modes=described.modes).compile(described.item)
        if described.whole is not None:
            self._validators.of(described.whole)
        for content in converted.contents:
            if content.schema is not None:
                self._validators.of(content.schema)
        self._lanes, self._other = lanes.by_name, lanes.other

    def check(
        self,
        event: str | None,
        data: str,
        id: str | None = None,  # noqa: A002  the name of the field
        retry: int | None = None,
        last_event_id: str = "",
    ) -> Sequence[Problem]:
        """Return the fault of an event, if it has one, or else the warnings about it. A good event gives nothing.

        `value` then holds its decoded data.

        Args:
            event: The value of its `event` line; None without one. An empty one counts as absent.
            data: The values of its `data` lines, joined by LF.
            id: The value of its `id` line; None without one.
            retry: The value of its `retry` line, in milliseconds; None without one.
            last_event_id: The stream's last event ID before this event; empty without one.
        """
        lane = self._lanes.get(event, self._other)
        if lane is not None and (lane.is_plain or lane.admits(data, id, retry)):
            if lane.decodes:
                try:
                    value = fast_decode(data)
                    field = lane.field
                    test = lane.of_value if field is None else lane.table[value[field]]
                    if test is None or test(value):
                        self.value = value
                        return ()
                except (ValueError, KeyError, TypeError, RecursionError):
                    pass
            elif lane.of_text is None or lane.of_text(data):
                self.value = _decoded(data) if self._always_decodes else None
                return ()
        return self._judge(event or None, data, id, retry, last_event_id)

    def item(self, event: str | None, data: str, id: str | None, retry: int | None) -> dict[str, Any]:  # noqa: A002
        """Return an event as `check_whole` takes it: the fields that it has.

        Keep one for each event only if `description.whole` is not None, and bound their number: the whole stream is
        checked at its end, in one piece.
        """
        fields = {"data": data, "event": event or None, "id": id, "retry": retry}
        return {name: value for name, value in fields.items() if value is not None}

    def check_whole(self, items: Sequence[Mapping[str, Any]]) -> Sequence[Problem]:
        """Return the fault of the whole stream as an array of its events, if it has one. Call it at the end of the stream.

        Args:
            items: The result of `item` for each event, without the terminator.
        """
        name = self.description.whole
        if name is None:
            return ()
        validator, first = self._validators.of(name), None
        for mode in self.description.modes:
            for fills in (False, True):
                array = [_read(item, mode, fills=fills) for item in items]
                if _NO_JSON in array:
                    continue
                if validator.is_valid(array):
                    return ()
                first = array if first is None else first
        if first is None:
            return ()
        self._finder.look_at(None)
        fault = self._finder.problems(name, first)[0]
        return (Problem("schema.stream", fault.path, fault.keyword, fault.expected, fault.actual),)

    def _judge(
        self,
        event: str | None,
        data: str,
        id: str | None,  # noqa: A002
        retry: int | None,
        last_event_id: str,
    ) -> Sequence[Problem]:
        """Return what `check` returns, for any event."""
        described = self.description
        name = described.item
        self.value = None if described.terminator == data else _decoded(data)
        if name is None or described.terminator == data:
            return ()
        decoded = self.value if self.value is not None or data.strip(" \t\r\n") == "null" else _NO_JSON
        attempts = list(self._attempts(event, data, id, retry, last_event_id, decoded))
        is_valid = self._validators.of(name).is_valid
        for attempt in sorted(attempts, key=lambda attempt: attempt.inherits):
            if attempt.value is not _NO_JSON and is_valid(attempt.value):
                return self._warnings(name, attempt, data, last_event_id)
        return (self._fault(name, attempts, data),)

    def _attempts(
        self,
        event: str | None,
        data: str,
        id: str | None,  # noqa: A002
        retry: int | None,
        last_event_id: str,
        decoded: object,
    ) -> Iterator[_Attempt]:
        """Yield each way to read an event, the usual ones first."""
        for mode in self.description.modes:
            if mode in {"payload", "payload text"}:
                value = data if mode == "payload text" else decoded
                # A payload that looks like an event must at least have one of its fields.
                if self.description.reading == "payload" or (
                    isinstance(value, dict) and value.keys() & self._names
                ):
                    yield _Attempt(mode, value, inherits=False)
                continue
            value = data if mode == "text" else decoded
            fields = self.item(event, "", id, retry) | {"data": value}
            names = [fields] if event is not None else [fields | {"event": "message"}, fields]
            for inherited in (False, True) if id is None and last_event_id else (False,):
                more = {"id": last_event_id} if inherited else {}
                for one in names:
                    yield _Attempt(mode, _NO_JSON if value is _NO_JSON else one | more, inherits=inherited)

    def _warnings(self, name: str, attempt: _Attempt, data: str, last_event_id: str) -> Sequence[Problem]:
        """Return the warnings about an event that holds."""
        found: dict[str, Problem] = {}
        for each in () if self.value is None else rounded_in(data):
            found[each.rule] = Problem(each.rule, "", "", each.expected, each.actual)
        if attempt.inherits:
            actual = f"none; the id {escaped(last_event_id)} is inherited"
            found["id"] = Problem("schema.inherited-id", "/id", "required", "an id line", actual)
        if self._has_advice:
            self._look_at(data, attempt)
            for problem in self._finder.problems(name, attempt.value, advisory=True):
                if problem.rule in WARNINGS:
                    found.setdefault(problem.rule, problem)
        return tuple(found.values())

    def _fault(self, name: str, attempts: Sequence[_Attempt], data: str) -> Problem:
        """Return the fault of an event that holds in no way: that of the reading which comes nearest."""
        best: dict[str, tuple[int, Problem]] = {}
        for attempt in attempts:
            if attempt.mode == "payload text" or (
                attempt.mode == "payload" and self.description.reading == "event"
            ):
                continue
            if attempt.value is _NO_JSON:
                path = "" if attempt.mode == "payload" else "/data"
                fault = Problem("json.syntax", path, "contentMediaType", "JSON", escaped_lines(data))
                best[attempt.mode] = (1, fault)
                continue
            self._look_at(data, attempt)
            problems = self._finder.problems(name, attempt.value)
            if attempt.mode not in best or len(problems) < best[attempt.mode][0]:
                best[attempt.mode] = (len(problems), problems[0])
        text, parsed = best.get("text"), best.get("parsed")
        if text is not None and parsed is not None:
            wants_json = text[1].path == "/data" and text[1].keyword == "type"
            if wants_json or (parsed[1].rule != "json.syntax" and parsed[0] < text[0]):
                return parsed[1]
            return text[1]
        return next(iter(best.values()))[1]

    def _look_at(self, data: str, attempt: _Attempt) -> None:
        """Let the finder show the values of an attempt as they were sent."""
        self._finder.look_at(data, () if attempt.mode == "payload" else ("data",))


def _decoded(data: str) -> Any:  # noqa: ANN401
    """Return the value of a JSON text; None if it is no JSON."""
    try:
        return decode_json(data)
    except NotJsonError:
        return None


def _read(item: Mapping[str, Any], mode: Mode, *, fills: bool) -> Any:  # noqa: ANN401
    """Return an event of the whole stream in one way to read it; `_NO_JSON` if that way needs JSON."""
    if mode in {"payload", "parsed"}:
        try:
            value = decode_json(item["data"])
        except NotJsonError:
            return _NO_JSON
    else:
        value = item["data"]
    if mode in {"payload", "payload text"}:
        return value
    return ({"event": "message"} if fills else {}) | dict(item) | {"data": value}
