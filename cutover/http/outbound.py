"""The one way out: every request of the train has a label, a deadline and a bound, and what comes back is masked."""

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import anyio
import attrs
import httpx
import msgspec

from cutover.clock import Clock
from cutover.errors import NoAnswerError, RefusedError, UnusableReplyError
from cutover.http.secrets import Secrets
from cutover.text import printable

CONNECT_TIMEOUT = 10.0
"""Seconds to reach a host."""
READ_DEADLINE = 10.0
"""Seconds for one request that changes nothing, connect to last byte."""
MUTATION_DEADLINE = 20.0
"""Seconds for one request that changes something, its token included; it is never cut before."""
MAX_REPLY_BYTES = 16 << 20
"""Bytes of one reply's body that are read."""
ATTEMPTS = 3
"""How often a request that changes nothing is sent before its failure counts."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds at most between two tries of the same; doubled from the first to the longest."""
MAX_RETRY_AFTER = 10.0
"""Seconds of ``retry-after`` that are heeded; a longer one is cut to this."""


HeaderSource = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives the headers of one attempt that may take a request of their own, such as a token; raises a ``PeerError``."""

_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_MAX_CODE = 200


def pause_after(tries: int, *, wish: float = 0.0) -> float:
    """Return how many seconds to wait after so many tries: a random half to whole of a pause that grows up to a bound.

    Random, so that those who were turned away together do not come back together; and no less than the peer wishes.
    """
    longest = min(FIRST_PAUSE * 2.0 ** min(tries - 1, 16), LONGEST_PAUSE)
    return max(longest * random.uniform(0.5, 1.0), wish)  # noqa: S311  jitter, not a secret


@attrs.frozen(kw_only=True)
class Reply:
    """One reply, read to its end."""

    label: str
    request_line: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    elapsed: float
    """Seconds from sending to the last byte."""

    def header(self, name: str) -> str | None:
        """Return the first header of this name, whatever its case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> object:
        """Decode the body.

        Raises:
            UnusableReplyError: It is not JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            shown = printable(self.body[:120].decode("utf-8", "replace"), 80)
            raise UnusableReplyError(
                f"{self.request_line}: a JSON reply was expected, not {shown!r}"
            ) from error

    def expect_success(self) -> "Reply":
        """Return the reply itself.

        Raises:
            RefusedError: Its status is not 2xx; the message quotes the status and what the body says.
        """
        if not HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES:
            raise RefusedError(
                f"{self.request_line}: {self.describe()}", status=self.status, retry_after=self.retry_after
            )
        return self

    @property
    def retry_after(self) -> float:
        """Seconds that the peer wishes to be left alone (RFC 9110 10.2.3), up to a bound; 0 where it says nothing usable."""
        try:
            seconds = float(self.header("retry-after") or 0)
        except ValueError:  # a date: heeding it would trust the peer's clock
            return 0.0
        return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else 0.0

    def describe(self) -> str:
        """Say the status, where a redirect led, and the error that the body names."""
        text = f"HTTP {self.status}"
        if location := self.header("location"):
            text += f", a redirect to {printable(location)} (not followed)"
        return text + _quoted_error(self.body)


def _quoted_error(body: bytes) -> str:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, dict):
        said = [str(error[key]) for key in ("code", "status", "message") if error.get(key) is not None]
        return f" ({printable(': '.join(said), _MAX_CODE)})" if said else ""
    message = decoded.get("message") if isinstance(decoded, dict) else None
    return f" ({printable(message, _MAX_CODE)})" if isinstance(message, str) else ""


@attrs.define(eq=False)
class Outbound:
    """A client under the train's rules: labels, deadlines, bounds, retries where they are safe, no redirects, no cookies."""

    client: httpx.AsyncClient
    clock: Clock
    secrets: Secrets = attrs.field(factory=Secrets)

    async def read(
        self,
        method: str,
        url: str,
        *,
        label: str,
        headers: Mapping[str, str] | None = None,
        authorize: HeaderSource | None = None,
        json: object = None,
        attempts: int = ATTEMPTS,
    ) -> Reply:
        """Send a request that changes nothing; a passing fault is tried again, a persistent one is told.

        Raises:
            NoAnswerError: No attempt had a reply, or headers to be sent with.
            RefusedError: Its headers were refused.
        """
        started, attempt = self.clock.now(), 0
        while True:
            attempt += 1
            last = attempt >= attempts or self.clock.now() - started > READ_DEADLINE
            wish = 0.0
            try:
                reply = await self._send(
                    method,
                    url,
                    label=label,
                    headers=headers,
                    authorize=authorize,
                    json=json,
                    deadline=READ_DEADLINE,
                )
            except NoAnswerError:
                if last:
                    raise
            else:
                if last or reply.status not in _TRANSIENT:
                    return reply
                wish = reply.retry_after
            await self.clock.sleep(pause_after(attempt, wish=wish))

    async def change(  # type: ignore[return]  # the scope only shields: it is never cancelled
        self,
        method: str,
        url: str,
        *,
        label: str,
        headers: Mapping[str, str] | None = None,
        authorize: HeaderSource | None = None,
        json: object = None,
    ) -> Reply:
        """Send a request that changes something: once, and shielded, for one that is cut may take effect later, unseen.

        Raises:
            NoAnswerError: No reply came; it may have taken effect.
            RefusedError: Its headers were not to be had; nothing was sent.
        """
        started = self.clock.now()
        with anyio.CancelScope(shield=True):
            if authorize is not None:
                headers = {**(headers or {}), **await self._authorized(authorize, f"{method} {url}")}
            return await self._send(
                method,
                url,
                label=label,
                headers=headers,
                authorize=None,
                json=json,
                deadline=MUTATION_DEADLINE - (self.clock.now() - started),
            )

    async def _authorized(self, authorize: HeaderSource, line: str) -> Mapping[str, str]:
        """Have the headers of a change, which is not sent meanwhile: so a passing fault is tried again.

        Raises:
            RefusedError: They were not to be had.
        """
        why = f"no token within {READ_DEADLINE:g} s"
        with anyio.move_on_after(READ_DEADLINE):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await authorize()
                except NoAnswerError as error:
                    why = str(error)
                if attempt < ATTEMPTS:
                    await self.clock.sleep(pause_after(attempt))
        raise RefusedError(f"{line}: nothing was sent: {why}", status=0)

    async def _send(
        self,
        method: str,
        url: str,
        *,
        label: str,
        headers: Mapping[str, str] | None,
        authorize: HeaderSource | None,
        json: object,
        deadline: float,
    ) -> Reply:
        line = f"{method} {url}"
        started = self.clock.now()
        try:
            with anyio.fail_after(deadline):
                fields = {} if json is None else {"content-type": "application/json"}
                fields |= {**(headers or {}), **(await authorize() if authorize is not None else {})}
                request = self.client.build_request(
                    method,
                    url,
                    headers=fields,
                    content=None if json is None else msgspec.json.encode(json),
                    timeout=httpx.Timeout(deadline, connect=min(CONNECT_TIMEOUT, deadline)),
                    extensions={"label": label},
                )
                response = await self.client.send(request, stream=True, follow_redirects=False)
                try:
                    body = await _bounded(response, line)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise NoAnswerError(f"{line}: no complete reply within {deadline:.3g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise NoAnswerError(f"{line}: {describe_failure(error)}") from error
        return Reply(
            label=label,
            request_line=line,
            status=response.status_code,
            headers=tuple((key, self.secrets.mask(value)) for key, value in response.headers.raw),
            body=self.secrets.mask(body),
            elapsed=self.clock.now() - started,
        )


async def _bounded(response: httpx.Response, line: str) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_REPLY_BYTES:
            raise UnusableReplyError(f"{line}: the reply is larger than {MAX_REPLY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def describe_failure(error: BaseException) -> str:
    """Say in a reader's words why there was no reply."""
    match error:
        case httpx.ConnectTimeout():
            reason = f"no connection within {CONNECT_TIMEOUT:g} s"
        case httpx.ConnectError():
            reason = "could not connect"
        case httpx.TimeoutException():
            reason = "timed out"
        case httpx.RemoteProtocolError():
            reason = "the reply was cut short"
        case httpx.ReadError():
            reason = "the connection was reset"
        case httpx.DecodingError():
            reason = "the reply's content-encoding is broken"
        case _:
            reason = "failed"
    said = printable(str(error))
    return f"{reason} ({said})" if said else f"{reason} ({type(error).__name__})"
