"""A client of the Prometheus HTTP API that asks for one number: at a Prometheus server, or at Cloud Monitoring.

A number counts only if the answer leaves no doubt: status 200, ``success``, no warning, exactly one series, a finite value. Everything else
raises an error with the reason, because a missing or half an answer must not pass for a good one.
"""

import math
from urllib.parse import urlencode

import attrs
import msgspec

from cutover.errors import NoAnswerError, PeerError, RefusedError, UnusableReplyError
from cutover.http.outbound import Outbound, Reply
from cutover.http.tokens import Token
from cutover.text import LONGEST, printable

MAX_ANSWER_BYTES = 1 << 16
"""Bytes of the largest answer that is read. An answer with one number has some hundred bytes."""
NO_SAMPLE = "the metric does not exist, or has no sample"
"""The usual reason for a result without a series."""
_OK = 200


class _Labelled(msgspec.Struct, frozen=True):
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True):
    resultType: str  # noqa: N815  the API's name
    result: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data | None = None
    errorType: str = ""  # noqa: N815
    error: str = ""
    warnings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PromqlApi:
    """One server that answers PromQL queries."""

    outbound: Outbound
    url: str
    """The address above ``/api/v1/query``."""
    token: Token | None = None
    """None: requests carry no token."""
    by_get: bool = False
    """True for Cloud Monitoring, which takes a query in the URL alone. A Prometheus server gets it in the body, since a URL may be too long."""

    async def number(self, query: str, *, at: float, label: str, no_series: str = NO_SAMPLE) -> float:
        """Return the number that a query gives at one moment.

        Args:
            query: The PromQL query. Its result is one series, or a scalar.
            at: The moment, in seconds since 1970.
            label: Label of the request.
            no_series: The reason for a result without a series.

        Raises:
            PeerError: There is no such number; the message gives the reason.
        """
        address = f"{self.url}/api/v1/query"
        fields = {"query": query, "time": f"{at:.3f}"}
        whole = f"{address}?{urlencode(fields)}" if self.by_get else address
        try:
            reply = await self.outbound.read(
                "GET" if self.by_get else "POST",
                whole,
                label=label,
                authorize=self.token,
                form=None if self.by_get else fields,
                most_bytes=MAX_ANSWER_BYTES,
            )
        except NoAnswerError as error:
            # The address with the whole query would hide the reason.
            raise NoAnswerError(str(error).replace(whole, address)) from error
        except RefusedError as error:
            raise RefusedError(str(error).replace(whole, address), status=error.status) from error
        except PeerError as error:
            raise UnusableReplyError(str(error).replace(whole, address)) from error
        try:
            return _number(reply, no_series)
        except ValueError as error:
            raise UnusableReplyError(
                f"{address}: {error}; the query was {printable(query, LONGEST)}"
            ) from error


def _number(reply: Reply, no_series: str) -> float:
    """Return the number in an answer.

    Raises:
        ValueError: There is none; the message gives the reason.
    """
    try:
        answer = msgspec.json.decode(reply.body, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # An answer without JSON comes from something else, such as a proxy.
        raise ValueError(
            reply.describe() if reply.status != _OK else "the answer is no JSON of Prometheus"
        ) from None
    if reply.status != _OK or answer.status != "success":
        why = printable(f"{answer.errorType}: {answer.error}", LONGEST) if answer.error else "no reason given"
        raise ValueError(f"HTTP {reply.status} ({why})")
    if answer.warnings:
        raise ValueError(f"the server warns: {printable('; '.join(answer.warnings), LONGEST)}")
    if answer.data is None:
        raise ValueError("the answer holds no data")
    text = _only_value(answer.data, no_series)
    # Python reads more texts than Prometheus writes, such as 1_0; none of them is a wrong number.
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the result is {printable(text, 20)}, no finite number: nothing was counted")
    return value


def _only_value(data: _Data, no_series: str) -> str:
    """Return the value of the only series of a vector, or of a scalar, as Prometheus writes it.

    Raises:
        ValueError: The result is another one.
    """
    try:
        if data.resultType == "scalar":
            return msgspec.json.decode(data.result, type=tuple[float, str])[1]
        if data.resultType != "vector":
            raise ValueError(f"the result is a {printable(data.resultType, 20)}, not a vector or a scalar")
        series = msgspec.json.decode(data.result, type=tuple[_Labelled, ...])
    except msgspec.MsgspecError:
        raise ValueError("the answer is no JSON of Prometheus") from None
    if not series:
        raise ValueError(f"no series: {no_series}")
    if len(series) > 1:
        raise ValueError(f"{len(series)} series, where one was expected: use sum(...)")
    return series[0].value[1]
