"""The comparison of the answers of two services to one request of a dual run: by status, by headers, by the meaning of the body."""

from collections.abc import Mapping, Sequence

import attrs

from cutover.http.statuses import TOKEN_REFUSED
from cutover.model.asking import MAX_COMPARED
from cutover.model.json_difference import IGNORED, NEW_ALONE, VARIES, Difference, Differences, LeftOut
from cutover.model.json_difference import VOLATILE as VOLATILE_KEYS
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.probe_threads import LeftOut as ThreadsLeftOut
from cutover.model.probe_threads import without_probe_threads
from cutover.model.results import StepStatus
from cutover.model.text_difference import MASK, around_difference, diff, first_difference, masks_in, template

MAX_DEPTH = 100
"""Levels of the deepest JSON that is compared."""
UNCOMPARED_HEADERS = frozenset(
    {
        *("age", "alt-svc", "connection", "content-encoding", "content-length", "date", "etag", "expires"),
        *("keep-alive", "last-modified", "nel", "report-to", "server", "server-timing", "set-cookie"),
        *("traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "via", "x-powered-by"),
        *("x-request-id", "x-correlation-id", "x-runtime", "x-response-time", "x-served-by", "x-timer"),
    }
)
"""Headers of the connection, of the host and of one answer. Their presence depends on what stands before a service."""
_UNCOMPARED_PREFIXES = ("cf-", "x-amz", "x-cache", "x-cloud-trace", "x-envoy-", "x-goog-", "x-ratelimit-")
_SUCCESS, _REDIRECT, _REFUSAL, _SERVER_ERROR = 200, 300, 400, 500
_SHOWN = 5
"""Places of noise that the text of a check names."""


@attrs.frozen(kw_only=True)
class Answer:
    """The answer of one side to one request."""

    status: int | None
    """None if there was no usable reply."""
    meaning: object
    """The value that is compared: decoded JSON, the features of a stream, or a text."""
    said: str
    """The status, or the reason why there is no usable reply, in words."""
    seconds: float | None
    """Latency; None if there was no usable reply, so that a refused connection does not count as a fast reply."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    token: str = "the token"  # noqa: S105  a name
    """The name of the input that gave the token of the request."""
    base_url: str = ""
    """The URL of the service. A redirect to it is compared as a redirect to the service's own URL."""


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
    final: bool = True
    """False if the difference may be noise that has not shown yet, so that the request is asked again."""
    differences: tuple[Difference, ...] = ()
    """The first differences."""
    left_out: tuple[LeftOut, ...] = ()
    """The places that were left out."""

    def describe(self, *, otherwise: str = "") -> str:
        """Return the reason, or ``otherwise`` for an entry that matches, and the note."""
        return "; ".join(filter(None, (self.why or otherwise, self.note)))


def judge(
    entry: ManifestEntry,
    new: Sequence[Answer],
    old: Sequence[Answer],
    *,
    thread_id_prefix: str,
    ignore: Sequence[str] = (),
) -> Verdict:
    """Compare the answers of both services to one request, without their noise and without the threads of probes.

    The status is ``error`` for no reply, a refused token, or a body of which nothing could be compared; ``fail`` for any other
    difference; else ``pass``.

    Args:
        entry: The entry of the manifest.
        new: The answers of the new service.
        old: The answers of the legacy service.
        thread_id_prefix: THREAD_ID_PREFIX.
        ignore: Headers that only the new service has, as places to leave out besides those that the entry names.
    """
    if unusable := _unusable(entry, new, old):
        return unusable
    if why := _other_status(new, old):
        return Verdict(status=StepStatus.FAIL, why=why, final=False)
    if why := _no_success(entry, new[0]):
        return Verdict(status=StepStatus.FAIL, why=why)
    new, old = new[:MAX_COMPARED], old[:MAX_COMPARED]
    found = Differences(ignore=dict.fromkeys(ignore, NEW_ALONE) | dict.fromkeys(entry.ignore, IGNORED))
    one, other = ([answer.meaning for answer in side] for side in (new, old))
    threads: tuple[ThreadsLeftOut, ...] = ()
    nothing = ""
    match entry.response_kind:
        case ResponseKind.JSON:
            one, other, threads = without_probe_threads(one, other, prefix=thread_id_prefix)
            found.compare("", one, other, volatile=VOLATILE_KEYS)
        case ResponseKind.SSE:
            found.compare("stream", one, other)
            _break_promise(entry, found)
        case ResponseKind.TEXT:
            nothing = _compare_texts(found, [str(text) for text in one], [str(text) for text in other])
    # A reader sees the first difference first, and few headers matter to a user.
    headers = [[_headers(answer) for answer in side] for side in (new, old)]
    found.compare("headers", headers[0], headers[1])
    note = "; ".join(filter(None, (*(each.describe() for each in threads), _note(found.left_out))))
    verdict = Verdict(
        status=StepStatus.PASS, note=note, differences=tuple(found.found), left_out=tuple(found.left_out)
    )
    if found.count:
        more = f" (and {found.count - 1} more)" if found.count > 1 else ""
        why = f"the answers differ in meaning: {found.found[0].text}{more}"
        return attrs.evolve(verdict, status=StepStatus.FAIL, why=why, final=False)
    if any(each.unseen for each in threads):
        nothing = "a list could not be compared"
    return attrs.evolve(verdict, status=StepStatus.ERROR, why=nothing) if nothing else verdict


def _unusable(entry: ManifestEntry, new: Sequence[Answer], old: Sequence[Answer]) -> Verdict | None:
    """Return the verdict on an answer that proves nothing, or a failure of the service; None if every answer can be compared."""
    for side, answers in (("new", new), ("legacy", old)):
        for answer in answers:
            if answer.status is None:
                return Verdict(status=StepStatus.ERROR, why=f"the {side} service: {answer.said}")
            if (
                entry.requires_auth
                and answer.status in TOKEN_REFUSED
                and answer.status != entry.expect_status
            ):
                why = f"the {side} service refuses {answer.token}: {answer.said}"
                return Verdict(status=StepStatus.ERROR, why=why)
    for side, answers in (("new", new), ("legacy", old)):
        for answer in answers:
            if (answer.status or 0) >= _SERVER_ERROR:
                return Verdict(status=StepStatus.FAIL, why=f"the {side} service fails: {answer.said}")
    return None


def _other_status(new: Sequence[Answer], old: Sequence[Answer]) -> str:
    """Return the difference between the statuses of all answers; empty if there is none."""
    if len({answer.status for answer in (*new, *old)}) > 1:
        said = [" or ".join(dict.fromkeys(answer.said for answer in side)) for side in (new, old)]
        return f"the new service says {said[0]}, the legacy service {said[1]}"
    return ""


def _no_success(entry: ManifestEntry, answer: Answer) -> str:
    """Return the reason why the status that both services answered does not count as the same; empty if it does."""
    status = answer.status or 0
    if entry.expect_status is not None:
        same = status == entry.expect_status
        return (
            "" if same else f"both services say {answer.said}, and the manifest expects {entry.expect_status}"
        )
    must_succeed = entry.critical or entry.response_kind is ResponseKind.SSE
    if status < _SUCCESS or status >= (_REDIRECT if must_succeed else _REFUSAL):
        return (
            f'both services answer without success: {answer.said}; if that is right, set "expect_status": {status} '
            "in the entry"
        )
    return ""


def _headers(answer: Answer) -> dict[str, object]:
    """Return the headers that are compared, by lower-case name."""
    values: dict[str, str] = {}
    for key, value in answer.headers:
        name, text = key.decode("latin-1").lower(), value.decode("latin-1").strip()
        if name in UNCOMPARED_HEADERS or name.startswith(_UNCOMPARED_PREFIXES):
            continue
        if name == "content-type":
            text = "; ".join(part.strip() for part in text.lower().split(";"))
        if name == "location" and answer.base_url:
            text = text.removeprefix(answer.base_url)
        values[name] = f"{values[name]}, {text}" if name in values else text
    return dict(values)


def _compare_texts(found: Differences, new: Sequence[str], old: Sequence[str]) -> str:
    """Compare the texts of both services; return the reason why nothing could be compared, or an empty text."""
    if found.ignores("text"):
        return ""
    if len({*new, *old}) == 1:
        return ""
    try:
        one, other = template(new), template(old)
    except ValueError as error:
        return f"the text was not compared: {error}"
    if one != other:
        text = f"the texts differ: {first_difference(one, other)}"
        found.add("text", text, diff(other, one), sides=around_difference(one, other))
        return ""
    if number := masks_in(one):
        found.leave_out("text", f"{number} parts of it differ from answer to answer")
    without_text = not any(line.replace(MASK, "").strip() for line in one)
    return (
        "every line differs between two answers of one service, so nothing was compared"
        if without_text
        else ""
    )


def _break_promise(entry: ManifestEntry, found: Differences) -> None:
    """Add a difference if the manifest calls the text of a stream deterministic, and it varies within both services."""
    if entry.deterministic and LeftOut(place="stream.text", reason=VARIES) in found.left_out:
        found.add(
            "stream.text",
            'stream.text varies within each service, but the manifest says "deterministic": true',
        )


def _note(left_out: Sequence[LeftOut]) -> str:
    """Return the places that were left out, in words."""
    if not left_out:
        return ""
    places = ", ".join(each.place for each in left_out[:_SHOWN])
    more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return f"not compared: {places}{more}"


def check_depth(value: object, depth: int = 0) -> None:
    """Check that decoded JSON is not nested too deeply to be compared.

    Raises:
        ValueError: The value has more than ``MAX_DEPTH`` levels.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"its JSON has more than {MAX_DEPTH} levels, and is not compared")
    items: Sequence[object] = ()
    if isinstance(value, Mapping):
        items = tuple(value.values())
    elif isinstance(value, list):
        items = value
    for item in items:
        check_depth(item, depth + 1)
