"""The rules for the head of a response, as data. Names and values compare by their meaning, in whatever case they are written."""

from collections.abc import Mapping, Sequence

import attrs

_HTTP_SPACE = " \t"
_LISTS = frozenset(
    {
        "cache-control",
        "connection",
        "content-encoding",
        "pragma",
        "transfer-encoding",
        "vary",
        "x-accel-buffering",
    }
)
"""Headers whose value is a list of words in which neither the case nor the order counts (RFC 9110 5.6.1, RFC 9111 5.2)."""


def media_type(value: str) -> tuple[str, dict[str, str]]:
    """Return the media type of a content-type value, in lower case, and its parameters (RFC 9110 8.3.1 and 5.6.6).

    The names of the parameters are in lower case, and their values are without quotes.
    """
    essence, *parameters = _split(value)
    found: dict[str, str] = {}
    for parameter in parameters:
        name, _, quoted = parameter.partition("=")
        text = quoted.strip(_HTTP_SPACE)
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        found.setdefault(name.strip(_HTTP_SPACE).lower(), text)
    return essence.strip(_HTTP_SPACE).lower(), found


def _split(value: str) -> list[str]:
    """Return the value, split at the semicolons outside quotes."""
    parts, quoted, escaped = [""], False, False
    for char in value:
        if char == ";" and not quoted:
            parts.append("")
            continue
        quoted ^= char == '"' and not escaped
        escaped = char == "\\" and quoted and not escaped
        parts[-1] += char
    return parts


def means_the_same(name: str, one: str, other: str) -> bool:
    """Return True if two values of a header mean the same.

    Args:
        name: The name of the header, in lower case.
        one: The first value.
        other: The second value.
    """
    if name in _LISTS:
        return _words(one) == _words(other)
    if name == "content-type":
        (one_type, one_more), (other_type, other_more) = media_type(one), media_type(other)
        return one_type == other_type and _folded(one_more) == _folded(other_more)
    return one.strip(_HTTP_SPACE) == other.strip(_HTTP_SPACE)


def _words(value: str) -> frozenset[str]:
    """Return the words of a list, in lower case."""
    return frozenset(word.strip(_HTTP_SPACE).lower() for word in value.split(",") if word.strip(_HTTP_SPACE))


def _folded(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Return the parameters with a charset in lower case; the case of other values counts."""
    return {name: value.lower() if name == "charset" else value for name, value in parameters.items()}


def _by_lower_name(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers with their names in lower case."""
    return {name.strip().lower(): value for name, value in headers.items()}


def _lower(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return names in lower case."""
    return tuple(name.strip().lower() for name in ((names,) if isinstance(names, str) else names))


def _essence(value: str | None) -> str | None:
    """Return a media type without its parameters, in lower case."""
    return None if value is None else media_type(value)[0]


def _lower_one(value: str | None) -> str | None:
    """Return a text in lower case."""
    return None if value is None else value.strip().lower()


def _statuses(statuses: int | Sequence[int]) -> tuple[int, ...]:
    """Return one status, or several, as a tuple."""
    return (statuses,) if isinstance(statuses, int) else tuple(statuses)


@attrs.frozen(kw_only=True)
class HeadRules:
    """The rules for the head of the response: status and headers."""

    statuses: tuple[int, ...] = attrs.field(default=(200,), converter=_statuses)
    """The HTTP statuses that are allowed for a stream; one, or several."""
    content_type: str | None = attrs.field(default="text/event-stream", converter=_essence)
    """The media type. It is compared without case and parameters (RFC 9110 8.3.1). None if the client looks at none."""
    charset: str | None = attrs.field(default=None, converter=_lower_one)
    """The required charset parameter of the media type; None if any charset is allowed."""
    required: Mapping[str, str] = attrs.field(factory=dict, converter=_by_lower_name)
    """Name of a required header -> its value. Lists such as `cache-control` compare word by word, in any case and order."""
    refused: tuple[str, ...] = attrs.field(default=(), converter=_lower)
    """Names of headers that must not be there."""
    sunset: tuple[str, ...] = attrs.field(default=(), converter=_lower)
    """Names of headers with the date on which the service ends (RFC 8594)."""
    error_code: str | None = attrs.field(default=None, converter=_lower_one)
    """Name of a header in which a refused request gets its error code, if its body has none; None without one."""
