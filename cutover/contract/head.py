"""The checks of a response's head: the status and the headers, held to the rules of a contract."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import attrs

from cutover.contract.findings import Deviation
from cutover.contract.head_rules import HeadRules, means_the_same, media_type
from cutover.text import escaped, escaped_lines, printable

_REDIRECTS = range(300, 400)
_HTTP_SPACE = " \t"
_NO_CODING = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""Values of `content-encoding` with which nothing is compressed. Only `identity` is registered; the others stand there often."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# IMF-fixdate, the form of a date that a sender must use (RFC 9110 5.6.7): Tue, 30 Jun 2026 00:00:00 GMT
_HTTP_DATE = re.compile(
    r"[A-Za-z]{3}, ([0-9]{2}) ([A-Za-z]{3}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


@attrs.frozen(kw_only=True)
class Head:
    """The status and the headers of a response."""

    status: int
    """The HTTP status code."""
    headers: Mapping[str, Sequence[str]]
    """Name in lower case -> its values, in the order of the response, without surrounding space."""

    @classmethod
    def of(cls, status: int, headers: Sequence[tuple[bytes, bytes]]) -> "Head":
        """Return the head made from raw headers: names in any case, values in latin-1."""
        values: dict[str, list[str]] = defaultdict(list)
        for name, value in headers:
            values[name.decode("latin-1").lower()].append(value.decode("latin-1").strip(_HTTP_SPACE))
        return cls(status=status, headers=values)

    def first(self, name: str) -> str | None:
        """Return the first value of a header; None if it is absent.

        Args:
            name: The name of the header, in lower case.
        """
        return next(iter(self.headers.get(name, ())), None)

    def words(self, name: str) -> Sequence[str]:
        """Return the words of a header whose value is a list, in lower case and in order. It may come several times.

        Args:
            name: The name of the header, in lower case.
        """
        words = ",".join(self.headers.get(name, ())).split(",")
        return [word.strip(_HTTP_SPACE).lower() for word in words]


def judge_head(rules: HeadRules, head: Head, *, asked_at: datetime | None = None) -> Iterator[Deviation]:
    """Yield a deviation for each rule that the headers break.

    Args:
        rules: The rules for the head.
        head: The head.
        asked_at: The time of the request, with a time zone; None if unknown, and then no date counts as passed.
    """
    yield from _content_type(rules, head)
    for name in dict.fromkeys((*rules.required, *rules.refused, "content-type")):
        values = head.headers.get(name, ())
        if any(not means_the_same(name, values[0], value) for value in values[1:]):
            yield Deviation("head.header-conflict", f"one {name}", escaped(", ".join(values)))
        elif name in rules.refused and values:
            yield Deviation("head.header-refused", f"no {name}", escaped(f"{name}: {values[0]}"))
        elif name in rules.required and not values:
            yield Deviation("head.header-missing", f"{name}: {rules.required[name]}", "no such header")
        elif name in rules.required and not means_the_same(name, values[0], rules.required[name]):
            yield Deviation(
                "head.header-value", f"{name}: {rules.required[name]}", escaped(f"{name}: {values[0]}")
            )
    codings = [each for each in head.words("content-encoding") if each not in _NO_CODING]
    if codings:
        yield Deviation(
            "head.compressed",
            "an identity content-encoding",
            f"a stream compressed with {escaped(', '.join(codings))}",
        )
    length = head.first("content-length")
    if length is not None and "chunked" in head.words("transfer-encoding"):
        yield Deviation(
            "head.length-and-chunked",
            "a content-length or a chunked transfer-encoding",
            escaped(f"both, and content-length: {length}"),
        )
    if asked_at is not None:
        yield from _sunset(rules, head, asked_at)


def _sunset(rules: HeadRules, head: Head, asked_at: datetime) -> Iterator[Deviation]:
    """Yield one deviation if the date on which the service ends has passed, however many headers name it."""
    for name in rules.sunset:
        value = head.first(name)
        date = None if value is None else date_in(value)
        if value is not None and date is not None and date <= asked_at:
            yield Deviation(
                "head.sunset", "a service that has not reached its end", escaped(f"{name}: {value}")
            )
            return


def date_in(value: str) -> datetime | None:
    """Return the time that a header names, as an HTTP date or as ISO 8601; None for anything else.

    A date without a time is its first second, and a time without a time zone is in UTC.
    """
    found = _HTTP_DATE.fullmatch(value)
    try:
        if found is None:
            date = datetime.fromisoformat(value)
            return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        day, month, year, hour, minute, second = found.groups()
        number = _MONTHS.index(month.lower()) + 1
        return datetime(int(year), number, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None


def _content_type(rules: HeadRules, head: Head) -> Iterator[Deviation]:
    """Yield a deviation if the content type or its charset is wrong."""
    if rules.content_type is None:
        return
    value = head.first("content-type")
    wanted = rules.content_type + ("" if rules.charset is None else f"; charset={rules.charset}")
    if value is None:
        yield Deviation("head.content-type", wanted, "no content-type")
        return
    essence, parameters = media_type(value)
    if essence != rules.content_type:
        yield Deviation("head.content-type", wanted, escaped(value))
    elif rules.charset is not None and parameters.get("charset", "").lower() != rules.charset:
        yield Deviation("head.charset", wanted, escaped(value))


def judge_status(rules: HeadRules, head: Head) -> Deviation | None:
    """Return the deviation of a wrong status; None if the status is allowed.

    For a redirect, the deviation names the target.
    """
    if head.status in rules.statuses:
        return None
    wanted = " or ".join(map(str, rules.statuses[:3]))
    if head.status in _REDIRECTS:
        where = head.first("location")
        return Deviation(
            "head.redirect",
            wanted,
            f"{head.status} without a location" if where is None else f"{head.status} to {escaped(where)}",
        )
    return Deviation("head.status", wanted, str(head.status))


def error_in(rules: HeadRules, head: Head, body: bytes) -> tuple[str | None, str]:
    """Return the error code of a reply that refuses a request (None if it has none), and a text to show.

    The code is `error.code` of a JSON body, or the value of the header `HeadRules.error_code`. The message is `error.message`, or
    `message`. The text is "code: message", or the one of the two that came; if neither came, it is the beginning of the body.
    """
    code = message = None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        error = value.get("error")
        error = error if isinstance(error, dict) else {}
        code, message = error.get("code"), error.get("message", value.get("message"))
    if not isinstance(code, str):
        code = None if rules.error_code is None else head.first(rules.error_code)
    words = [escaped(each) for each in (code, message) if isinstance(each, str)]
    return (None if code is None else printable(code)), ": ".join(words) or escaped_lines(body)
