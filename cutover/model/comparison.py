"""The comparison of two answers in a dual run: by status, by the meaning of JSON, by the order of a stream's events."""

import math
from collections.abc import Sequence

import attrs
import msgspec

from cutover.http.statuses import TOKEN_REFUSED
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.probe_threads import LeftOut, without_probe_threads
from cutover.model.results import StepStatus
from cutover.sse.events import MessageEvent
from cutover.sse.parser import EventStreamParser
from cutover.text import printable

_VOLATILE = frozenset({"generated_at", "generatedAt", "request_id", "requestId"})
_COMPARED_FIELDS = {
    "tool-input": ("toolName",),
    "tool-output": ("status",),
    "finish": ("status",),
    "error": ("code",),
}
"""Kind -> the fields that must agree, besides the order of the kinds. Ids and model text always differ."""
_FOLDED = frozenset({"text-delta", "reasoning-delta"})
MAX_DEPTH = 100
"""Levels of the deepest JSON that is compared."""
_SUCCESS, _REDIRECT, _SERVER_ERROR = 200, 300, 500


@attrs.frozen
class _Boolean:
    """A boolean of JSON. Python takes True for equal to 1, and JSON does not."""

    value: bool


@attrs.frozen(kw_only=True)
class Answer:
    """The answer of one side to one entry."""

    status: int | None
    """None if there was no usable reply."""
    meaning: object
    """The value that is compared: JSON without its volatile keys, or a stream's kinds in order. None for text: no text is compared."""
    said: str
    """The status, or the reason why there is no usable reply, in words."""
    seconds: float | None
    """Latency; None if there was no usable reply, so that a refused connection does not count as a fast reply."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    token: str = "the token"  # noqa: S105  a name
    """The name of the input that gave the token of the request."""


@attrs.frozen(kw_only=True)
class Verdict:
    """The result of the comparison of one entry."""

    status: StepStatus
    why: str = ""
    """The reason why the entry does not match; empty if it matches."""
    note: str = ""
    """The parts of the answers that were not compared, in words; empty if there are none."""
    tolerable: bool = True
    """False if no threshold may tolerate the mismatch."""

    def describe(self, *, otherwise: str = "") -> str:
        """Return the reason, or ``otherwise`` for an entry that matches, and the note."""
        return "; ".join(filter(None, (self.why or otherwise, self.note)))


def judge(entry: ManifestEntry, new: Answer, old: Answer, *, thread_id_prefix: str) -> Verdict:
    """Compare two answers without the threads of probes.

    The status is ``error`` for no reply, a refused token, or a list of which nothing could be compared; ``fail`` for any other
    difference; else ``pass``.
    """
    left_out: tuple[LeftOut, ...] = ()
    if entry.response_kind is ResponseKind.JSON:
        one, other, left_out = without_probe_threads(new.meaning, old.meaning, prefix=thread_id_prefix)
        new, old = attrs.evolve(new, meaning=one), attrs.evolve(old, meaning=other)
    note = "; ".join(each.describe() for each in left_out)
    if why := difference(entry, new, old):
        refused = entry.requires_auth and TOKEN_REFUSED & {new.status, old.status}
        without_evidence = refused or None in {new.status, old.status}
        return Verdict(status=StepStatus.ERROR if without_evidence else StepStatus.FAIL, why=why, note=note)
    if any(each.unseen for each in left_out):
        return Verdict(status=StepStatus.ERROR, why="a list could not be compared", note=note)
    return Verdict(status=StepStatus.PASS, note=note)


def difference(entry: ManifestEntry, new: Answer, old: Answer) -> str:  # noqa: PLR0911  one return for each way to differ
    """Return the reason why two answers differ; an empty text if they agree.

    Equal failures differ too: no usable reply, a refused token, a 5xx status, or no success where the entry must succeed.
    """
    for side, answer in (("new", new), ("legacy", old)):
        if answer.status is None:
            return f"the {side} service: {answer.said}"
        if entry.requires_auth and answer.status in TOKEN_REFUSED:
            return f"the {side} service refuses {answer.token}: {answer.said}"
        if answer.status >= _SERVER_ERROR:
            return f"the {side} service fails: {answer.said}"
    if new.status != old.status:
        return f"the new service says {new.said}, the legacy service {old.said}"
    must_succeed = entry.critical or entry.response_kind is ResponseKind.SSE
    if must_succeed and not _SUCCESS <= (new.status or 0) < _REDIRECT:
        return f"both services answer without success: {new.said}"
    if new.meaning != old.meaning:
        return f"the answers differ in meaning: {_first_difference(new.meaning, old.meaning)}"
    return ""


def order_of(body: bytes) -> list[tuple[object, ...]]:
    """Return the kinds of a stream's chunks in order, each with the values of its ``_COMPARED_FIELDS``.

    A run of text or reasoning deltas counts once, because the same text can come in any number of deltas.
    """
    parser = EventStreamParser()
    order: list[tuple[object, ...]] = []
    for event in (*parser.receive_data(body), *parser.receive_eof()):
        if not isinstance(event, MessageEvent):
            continue
        kind = _kind(event.data)
        if kind[0] not in _FOLDED or not order or order[-1] != kind:
            order.append(kind)
    return order


def _kind(data: str) -> tuple[object, ...]:
    if data == "[DONE]":
        return ("[DONE]",)
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ("not JSON",)
    if not isinstance(chunk, dict):
        return ("not an object",)
    name = str(chunk.get("type"))
    return (name, *(printable(str(chunk.get(field))) for field in _COMPARED_FIELDS.get(name, ())))


def meaning_of(value: object, depth: int = 0) -> object:
    """Return decoded JSON for comparison: without keys that differ at each reply, and with booleans distinct from numbers.

    Raises:
        ValueError: The value has more than ``MAX_DEPTH`` levels.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"its JSON has more than {MAX_DEPTH} levels, and is not compared")
    match value:
        case dict():
            return {key: meaning_of(item, depth + 1) for key, item in value.items() if key not in _VOLATILE}
        case list():
            return [meaning_of(item, depth + 1) for item in value]
        case bool():
            return _Boolean(value)
        case _:
            return value


def _first_difference(new: object, old: object, where: str = "") -> str:
    """Return the first place where two values differ, in words. The values are shown as JSON."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted({*new, *old}, key=str):
            if new.get(key, ...) != old.get(key, ...):
                return _first_difference(
                    new.get(key, ...), old.get(key, ...), f"{where}.{printable(str(key), 60)}"
                )
    if isinstance(new, list) and isinstance(old, list):
        for index, (one, other) in enumerate(zip(new, old, strict=False)):
            if one != other:
                return _first_difference(one, other, f"{where}[{index}]")
        return f"{where or 'the answer'} has {len(new)} items in the new service and {len(old)} in the legacy service"
    one, other = _as_json(new), _as_json(old)
    return f"{where or 'the answer'} is {one} in the new service and {other} in the legacy service"


def _as_json(value: object) -> str:
    """Return a compared value as JSON, shortened; ``nothing`` for a missing one."""
    if value is ...:
        return "nothing"
    return printable(msgspec.json.encode(_plain(value)).decode(), 80)


def _plain(value: object) -> object:
    """Return a compared value as it was before ``meaning_of``."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _Boolean():
            return value.value
        case _:
            return value


def p95(seconds: Sequence[float]) -> float | None:
    """Return the 95th percentile in milliseconds, by nearest rank; None without a measurement."""
    if not seconds:
        return None
    return round(sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1] * 1000, 3)
