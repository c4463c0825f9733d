"""Chunks of a contract that its owner wrote: which kinds there are, the shape of each, and the reader that finds both in an event.

The reader decodes the data once, to plain values, in which integers stay integers. Then it finds the kind, holds the data to the
kind's shape, and returns an `EventChunk` of a class that stands for the kind.

This module is long because the way of one event is read from top to bottom: its name, its data, its kind, its shape.
"""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import attrs
import msgspec

from cutover.contract.chunks import Refusal, Remarked, Terminator
from cutover.contract.entry_reader import EntryReader
from cutover.contract.findings import Deviation
from cutover.contract.grammar import ServiceError
from cutover.contract.javascript import NotJsonError, decode_plain, parse, whole_number
from cutover.contract.kind_table import KindEntry, KindTable
from cutover.contract.kinds import SINGLE, EventName, Kind
from cutover.contract.paths import (
    MAX_LEVELS,
    MISSING,
    NULL_IS_NOT_ABSENT,
    is_deep,
    parse_path,
    value_at,
    without_null,
)
from cutover.contract.reading import rounded_in
from cutover.contract.shapes.shape import ANYTHING, Shape
from cutover.text import escaped, escaped_lines, printable

_UNDECODABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


_MAX_KINDS = 200
"""Largest number of kinds that a stream without declared kinds may have, so that memory stays bounded. All others count as one."""
_SHOWN_KINDS = 8
"""Number of declared kinds that a finding about an unknown one shows."""


@attrs.define(eq=False, kw_only=True)
class ValueReader(EntryReader):
    """A reader of one stream's events, for a contract that its owner wrote."""

    table: KindTable
    kind: Kind
    named: AbstractSet[str]
    """The kinds that the order names. They are told apart however many kinds come."""
    error: ServiceError | None
    wants_unknown: bool
    """True if unknown fields are to be found."""
    _families: tuple[str, ...] = attrs.field(init=False)
    _by_name: frozenset[str] = attrs.field(init=False)
    _error_at: Sequence[str] | None = attrs.field(init=False)
    # True if an event's name can break a rule.
    _uses_names: bool = attrs.field(init=False)
    # True if the event's name alone is the kind.
    _is_named: bool = attrs.field(init=False)
    # True if no kind is needed to know that the data is not decoded.
    _is_text: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._entries = dict(self.table.entries)
        self._families = tuple(kind[:-1] for kind in self._entries if kind.endswith("*"))
        self._by_name = frozenset(self.kind.overrides)
        self._error_at = (
            None if self.error is None or self.error.member is None else parse_path(self.error.member)
        )
        if self.table.shape is not None:
            names = {SINGLE} if self.kind.is_single else self.named
            self._entries.update({kind: self.table.more(kind, self.table.shape) for kind in sorted(names)})
        if self.error is not None and self.error.kind not in self.table.entries:
            self._entries[self.error.kind] = self.table.more(self.error.kind)
        if self.kind.path is not None and len(self.kind.path) == 1:
            self._entries = {kind: entry.beside(self.kind.path[0]) for kind, entry in self._entries.items()}
        for kind in self.kind.overrides:
            if kind not in self.table.entries:
                self._entries[kind] = self.table.more(kind)
        self._is_text = (
            self.kind.is_single and SINGLE in self._entries and self._entries[SINGLE].shape.is_text
        )
        self._is_named = self.kind.is_name_alone
        # A name that is the kind can only be missing.
        self._uses_names = self.kind.names is not EventName.OPTIONAL or (
            self.kind.by_name and not self._is_named
        )

    def read(self, payloads: Sequence[Any]) -> tuple[list[Any], list[type]]:
        """Read the data of one or more events. Return the chunk, or other `Read`, of each, and the class of each."""
        reads = list(map(self.decode, payloads))
        return reads, list(map(type, reads))

    def look_inside(self, read: Any, payload: str | bytes) -> Any:  # noqa: ANN401, ARG002
        """Return the same: `decode` has looked inside."""
        return read

    def end(self) -> Sequence[Deviation]:
        """Return what only the end shows: nothing."""
        return ()

    def kind_of(self, text: str, name: str | None) -> str | None:
        """Return the kind of an event, from its data and its own `event` line; None if it says none."""
        if text == self.terminator:
            return text
        if self.kind.is_name_alone or name in self._by_name:
            return name or "message"
        if self.kind.is_single:
            return SINGLE
        try:
            return self.kind.find(_decoded(text))
        except NotJsonError:
            return None

    def decode(self, payload: str | bytes) -> Any:  # noqa: ANN401, C901, PLR0911, PLR0912  one event's way, step by step
        """Return the chunk of one event, with remarks if there are any, or its refusal, or the terminator."""
        text = payload if isinstance(payload, str) else payload.decode("utf-8", "replace")
        if text == self.terminator:
            return Terminator()
        name, own_id, retry = self.fields
        kind: str | None
        value: Any = MISSING
        rounded: tuple[Deviation, ...] = ()
        if self._is_named or (name is not None and name in self._by_name):
            kind = name or "message"
            entry = self._entries.get(kind) or self._find(kind)
            if entry is not None and entry.shape.is_text:
                value = text
            if entry is None and name is None and self.kind.names is EventName.REQUIRED:
                return Refusal(Deviation("schema.event-name", "an event line", "no event line"))
        else:
            kind, entry = None, None
            if self._is_text:
                value = text
        if value is MISSING:
            try:
                value = decode_plain(payload)
            except _UNDECODABLE:
                rounded = rounded_in(payload)
                try:
                    value = _decoded(text)
                except NotJsonError as error:
                    deviation = Deviation(
                        "json.syntax",
                        "JSON",
                        f"{escaped_lines(text)} ({error})",
                        path="/data",
                        keyword="contentMediaType",
                    )
                    return Refusal(
                        deviation,
                        kind if entry is not None else None,
                        None if entry is None else self._chunk(entry, text),
                    )
        if self._error_at is not None and self.error is not None and _is_told(value, self._error_at):
            entry = self._entries[self.error.kind]
            return entry.chunk(value, name, own_id, retry)
        if entry is None:
            if kind is None:
                if self.table.shape is not None:
                    wrong = _refusal(self.table.shape, value, text)
                    if wrong is not None:
                        return self._refused(wrong, value)
                kind = self.kind.find(value)
            entry = None if kind is None else self._entries.get(kind) or self._find(kind)
            if entry is None or kind is None:
                return Refusal(self._unknown_kind(kind, value, text))
        # The one shape of all events was held against the data above, unless the event's name alone says its kind.
        if self._is_named or self.table.shape is None or entry.shape is not self.table.shape:
            wrong = _refusal(entry.shape, value, text)
            if wrong is not None:
                return Refusal(wrong, entry.kind, self._chunk(entry, value))
        chunk = self._chunk(entry, value) if self.last else entry.chunk(value, name, own_id, retry)
        unknown = entry.shape.unknown_fields(value, text) if self.wants_unknown else ()
        remarks = self._remarks(kind) if self._uses_names else ()
        remarks += rounded
        return Remarked(chunk, unknown, remarks) if unknown or remarks else chunk

    # There is one path alone, and it is exact.
    judge = decode

    def _find(self, kind: str) -> KindEntry | None:
        """Return the entry of a kind that has no entry of its own; None if it is unknown."""
        if self.table.shape is not None:
            kind = self._bounded(kind, _MAX_KINDS + len(self.named))
            return self._entries.setdefault(kind, self.table.more(kind, self.table.shape))
        family = next((prefix for prefix in self._families if kind.startswith(prefix)), None)
        return None if family is None else self._entries[family + "*"]

    def _refused(self, wrong: Deviation, value: Any) -> Refusal:  # noqa: ANN401
        """Return the refusal of data that is not of the one shape. Its kind counts if the order names it."""
        kind = None if self.kind.function is not None else self.kind.find(value)
        if kind is None or kind not in (self.named if self.kind.path or self.kind.members else {SINGLE}):
            return Refusal(wrong)
        return Refusal(wrong, kind, self._chunk(self._entries[kind], value))

    def _unknown_kind(self, kind: str | None, value: Any, text: str) -> Deviation:  # noqa: ANN401
        """Return the deviation of an event that says no kind, or one that no chunk declares."""
        where, shown = self.kind.where, printable(self.kind.shown(value, text))
        if kind is None and self.kind.path is not None:
            found = value_at(value, self.kind.path)
            path = "/".join(("/data", *self.kind.path))
            if found is MISSING:
                return Deviation(
                    "schema.missing-field", f"a field {where}", shown, path=path, keyword="required"
                )
            return Deviation("schema.field-type", f"a text at {path}", shown, path=path, keyword="type")
        if kind is None and self.kind.members:
            has_some = isinstance(value, dict) and any(name in value for name in self.kind.members)
            rule = "schema.value" if has_some else "schema.missing-field"
            return Deviation(rule, where, shown, path="/data")
        if kind is None:
            return Deviation("schema.unknown-kind", f"a {where}", shown)
        # With one shape for all events, every kind is known.
        known = list(self.table.entries)
        more = f" and {len(known) - _SHOWN_KINDS} more" if len(known) > _SHOWN_KINDS else ""
        wanted = f"a known {where}: {', '.join(known[:_SHOWN_KINDS]) or 'there is none'}{more}"
        if self.kind.path is not None:
            actual = shown
        else:
            has_none = self.kind.is_name_alone and self.fields[0] is None
            actual = f"no {where}" if has_none else f"{where} {escaped(kind)}"
        return Deviation("schema.unknown-kind", printable(wanted), printable(actual))

    def _remarks(self, kind: str | None) -> tuple[Deviation, ...]:
        """Return the rules that the event's own name breaks."""
        name = self.fields[0]
        found: list[Deviation] = []
        if name is None and self.kind.names is EventName.REQUIRED:
            found.append(Deviation("schema.event-name", f"an event line with {kind}", "no event line"))
        elif name is not None and self.kind.names is EventName.FORBIDDEN:
            found.append(Deviation("schema.event-name", "no event line", f"the name {escaped(name)}"))
        elif (
            name is not None
            and self.kind.by_name
            and self.kind.path is not None
            and name not in {kind, *self._by_name}
        ):
            found.append(
                Deviation(
                    "schema.event-name",
                    f"the name {kind}, as in {self.kind.where}",
                    f"the name {escaped(name)}",
                )
            )
        return tuple(found)


def _decoded(text: str) -> Any:  # noqa: ANN401
    """Return the value of a JSON text by the exact path, in which integers stay integers."""
    try:
        return msgspec.json.decode(text)
    except _UNDECODABLE:
        return parse(text, parse_int=whole_number)


def _is_told(value: Any, path: Sequence[str]) -> bool:  # noqa: ANN401
    """Return True if there is something at this path other than null, false or an empty text."""
    found = value_at(value, path[1:])
    return found is not MISSING and found is not None and found is not False and found != ""


def _refusal(shape: Shape, value: Any, text: str) -> Deviation | None:  # noqa: ANN401
    """Return the first rule that data breaks; None if it is right. What is very deep is only right if anything is."""
    if (
        len(text) > MAX_LEVELS
        and text.count("[") + text.count("{") > MAX_LEVELS
        and isinstance(value, dict | list)
        and is_deep(value)
    ):
        levels = f"objects and arrays inside each other, at most {MAX_LEVELS}"
        return None if shape is ANYTHING else Deviation("schema.value", levels, "more", path="/data")
    wrong = shape.refusal(value, text)
    if wrong is not None and wrong.rule == "schema.field-type" and _is_optional_null(shape, value, wrong):
        return msgspec.structs.replace(wrong, actual=wrong.actual + NULL_IS_NOT_ABSENT)
    return wrong


def _is_optional_null(shape: Shape, value: Any, wrong: Deviation) -> bool:  # noqa: ANN401
    """Return True if the value that is of the wrong type is the null of a field that may be absent."""
    without = without_null(value, (wrong.path or "").removeprefix("/data"))
    other = None if without is None else shape.refusal(without, json.dumps(without))
    return without is not None and (other is None or other.rule != "schema.missing-field")
