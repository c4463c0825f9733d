"""The train's requests that are no probes: each has a label, a deadline and a size limit, and its reply is masked.

The file is longer than 300 lines, because the rules of one request (tries, deadlines, closing, errors) depend on each other and are read
together.
"""

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlencode

import anyio
import attrs
import httpx
import msgspec

from cutover.clock import Clock
from cutover.errors import NoAnswerError, PeerError, RefusedError, UnusableReplyError
from cutover.http.causes import CONNECT_TIMEOUT, describe_failure
from cutover.http.error_bodies import error_in, quoted
from cutover.http.secrets import Secrets
from cutover.http.tokens import UNAUTHORIZED, Token, bearer
from cutover.text import LONGEST, printable

READ_DEADLINE = 10.0
"""Seconds for one request that changes nothing. The read of its token has as many."""
MUTATION_DEADLINE = 20.0
"""Seconds for one request that changes something, including the reads of its token. Cancellation does not end the request."""
MAX_REPLY_BYTES = 16 << 20
"""Bytes of the largest reply body that is read."""
CLOSE_SECONDS = 5.0
"""Seconds that closing a connection may take. After that the caller stops waiting and leaves the connection to the client."""
ATTEMPTS = 3
"""Tries of a request that changes nothing, before it counts as failed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Longest pause in seconds after the first try, and after any later try. It doubles with each try from the first value on."""
READ_LIMIT = 2 * READ_DEADLINE + FIRST_PAUSE
"""Seconds for all tries of a request that changes nothing, with the pauses between them: two tries that hang have their time."""
_SHORTEST_TRY = 1.0
"""Seconds of the shortest try. Where fewer are left of ``READ_LIMIT``, there is no further try."""
MAX_RETRY_AFTER = 10.0
"""Longest pause in seconds that a ``retry-after`` header can ask for. A longer one is cut to this."""

_LEAST_SECONDS = 2.0
"""Seconds that must be left of ``MUTATION_DEADLINE`` to send a change once more."""
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


def pause_after(tries: int, *, at_least: float = 0.0) -> float:
    """Return the seconds to wait after this many tries: at least ``at_least``, the seconds of ``retry-after``.

    The pause grows up to a bound. A random factor of 0.5 to 1 spreads clients that failed at the same time.
    """
    longest = min(FIRST_PAUSE * 2.0 ** min(tries - 1, 16), LONGEST_PAUSE)
    return max(longest * random.uniform(0.5, 1.0), at_least)  # noqa: S311  it spreads retries and guards no secret


@attrs.frozen(kw_only=True)
class Reply:
    """One reply whose body was read to its end. Secrets in its headers and body are masked."""

    label: str
    """Name of the request, for fault injection and logs."""
    request_line: str
    """Method and URL of the request."""
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    elapsed: float
    """Seconds from the start of the last try to the last byte. ``read`` includes the request for the token, ``change`` does not."""

    def header(self, name: str) -> str | None:
        """Return the value of the first header with this name, upper or lower case; None without such a header."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> object:
        """Return the body decoded from JSON.

        Raises:
            UnusableReplyError: The body is not JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            shown = printable(self.body[:120].decode("utf-8", "replace"), 80)
            raise UnusableReplyError(
                f"{self.request_line}: a JSON reply was expected, not {shown!r}"
            ) from error

    def expect_success(self) -> "Reply":
        """Return this reply if its status is 2xx.

        Raises:
            RefusedError: The status is not 2xx. The message quotes the status and the error in the body.
        """
        if not self.is_success:
            raise RefusedError(
                f"{self.request_line}: {self.describe()}", status=self.status, retry_after=self.retry_after
            )
        return self

    @property
    def retry_after(self) -> float:
        """Seconds to wait, from the ``retry-after`` header (RFC 9110 10.2.3), up to a bound; 0 if it holds no number."""
        try:
            seconds = float(self.header("retry-after") or 0)
        except ValueError:
            # The header may be a date. It is ignored, because it depends on the clock of the service.
            return 0.0
        return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else 0.0

    @property
    def is_success(self) -> bool:
        """True if the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_redirect(self) -> bool:
        """True for a 3xx status. A ``location`` header alone is no redirect (RFC 9110 10.2.2)."""
        return HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST

    @property
    def has_error(self) -> bool:
        """True if the body is JSON and holds an error: an object ``error`` with details, or a text ``message``."""
        return error_in(self.body) is not None

    def describe(self) -> str:
        """Return the status, the target of a redirect and the error in the body, as one line.

        A refusal (4xx, 5xx) without an error in JSON quotes the beginning of its body.
        """
        text = f"HTTP {self.status}"
        if self.is_redirect and (location := self.header("location")):
            text += f", a redirect to {printable(location)} (not followed)"
        error = error_in(self.body)
        if error is not None:
            return f"{text} ({printable(error, LONGEST)})"
        return f"{text} ({quoted(self.body)})" if self.status >= HTTPStatus.BAD_REQUEST else text


@attrs.define(eq=False)
class Outbound:
    """An HTTP client with the train's rules: labels, deadlines, size limits, safe retries, no redirects."""

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
        authorize: Token | None = None,
        json: object = None,
        form: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
        limit: float = READ_LIMIT,
        most_bytes: int = MAX_REPLY_BYTES,
    ) -> Reply:
        """Send a request that changes nothing, and return its reply.

        No reply, or a status of 429, 500, 502, 503 or 504, leads to another try, up to ``attempts`` tries. A try that
        starts after 10 s is the last. All tries together end within ``limit`` seconds: the last one gets the time that is left,
        and a pause that would leave too little time ends the read. The last reply is returned with any status. A request whose
        token is refused with 401 is sent once more within its try, if there is another token.

        The body is ``json``, or the fields of a ``form``, or none. A reply of more than ``most_bytes`` is not read to its end.

        Raises:
            NoAnswerError: The last try got no reply, or its token could not be read.
            RefusedError: There is no token to send. There is no further try.
            UnusableReplyError: The reply is too large, or the source of the token raised it.
        """
        started, attempt = self.clock.now(), 0
        content = _json_body(json) if form is None else _form_body(form)
        while True:
            attempt += 1
            spent = self.clock.now() - started
            last = attempt >= attempts or spent > READ_DEADLINE
            pause = pause_after(attempt)
            try:
                reply = await self._send(
                    method,
                    url,
                    label=label,
                    headers=headers,
                    authorize=authorize,
                    content=content,
                    until=started + limit,
                    most_bytes=most_bytes,
                )
            except NoAnswerError:
                if last or self._leaves_too_little(started + limit, pause):
                    raise
            else:
                pause = max(pause, reply.retry_after)
                if last or reply.status not in _TRANSIENT or self._leaves_too_little(started + limit, pause):
                    return reply
            await self.clock.sleep(pause)

    def _leaves_too_little(self, until: float, pause: float) -> bool:
        """Return True if a pause leaves no time for another try of a read that ends at the time ``until``."""
        return self.clock.now() + pause + _SHORTEST_TRY > until

    async def change(  # type: ignore[return]  # this scope is a shield and never cancelled
        self,
        method: str,
        url: str,
        *,
        label: str,
        headers: Mapping[str, str] | None = None,
        authorize: Token | None = None,
        json: object = None,
    ) -> Reply:
        """Send a request that changes something, and return its reply.

        The request is sent once, and once more if its token was refused with 401 and there is another one: a 401 means that
        nothing was done. Cancellation does not interrupt it: an interrupted change may take effect unnoticed.

        Raises:
            NoAnswerError: No reply came. The change may have taken effect.
            RefusedError: There is no token to send, or none after a refusal. Nothing was done.
            UnusableReplyError: The reply is too large. The change may have taken effect.
        """
        started, line = self.clock.now(), f"{method} {url}"

        async def send(token: str) -> Reply:
            return await self._send_once(
                method,
                url,
                label=label,
                headers={**(headers or {}), **bearer(token)},
                content=_json_body(json),
                deadline=MUTATION_DEADLINE - (self.clock.now() - started),
            )

        with anyio.CancelScope(shield=True):
            if authorize is None:
                return await send("")
            token = await self._for_change(
                authorize.value, seconds=READ_DEADLINE, status=0, state=f"{line}: nothing was sent"
            )
            reply = await send(token)
            # The second request needs some time of its own before the deadline.
            left = MUTATION_DEADLINE - (self.clock.now() - started) - _LEAST_SECONDS
            if reply.status != UNAUTHORIZED or left <= 0:
                return reply
            other = await self._for_change(
                lambda: authorize.renewed(token),
                seconds=left,
                status=UNAUTHORIZED,
                state=f"{line}: {reply.describe()}, nothing was done, and there is no other token",
            )
            return await send(other) if other else reply

    async def _for_change(
        self, fetch: Callable[[], Awaitable[str]], *, seconds: float, status: int, state: str
    ) -> str:
        """Fetch a token for a change that has had no effect so far. A fetch without an answer is tried again.

        Raises:
            RefusedError: There is no token. The message begins with ``state``.
        """
        reason = f"no token within {seconds:.3g} s"
        with anyio.move_on_after(seconds):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await fetch()
                except NoAnswerError as error:
                    reason = str(error)
                except RefusedError as error:
                    # The status is the token service's. A 5xx of it would say that the change may have taken effect.
                    known = error.status if error.for_certain else status
                    raise RefusedError(f"{state}: {error}", status=known) from error
                except PeerError as error:
                    raise RefusedError(f"{state}: {error}", status=status) from error
                if attempt < ATTEMPTS:
                    await self.clock.sleep(pause_after(attempt))
        raise RefusedError(f"{state}: {reason}", status=status)

    async def _send(
        self,
        method: str,
        url: str,
        *,
        label: str,
        headers: Mapping[str, str] | None,
        authorize: Token | None,
        content: "_Content",
        until: float,
        most_bytes: int,
    ) -> Reply:
        """Send a read; send it once more if its token was refused and there is another one. All ends at the time ``until``."""
        line = f"{method} {url}"

        async def send(token: str) -> Reply:
            fields = {**(headers or {}), **bearer(token)}
            return await self._send_once(
                method,
                url,
                label=label,
                headers=fields,
                content=content,
                deadline=self._seconds(until),
                most_bytes=most_bytes,
            )

        if authorize is None:
            return await send("")
        token = await self._for_read(authorize.value, line, until)
        reply = await send(token)
        if reply.status != UNAUTHORIZED or self._seconds(until) < _SHORTEST_TRY:
            return reply
        other = await self._for_read(lambda: authorize.renewed(token), line, until)
        return await send(other) if other else reply

    def _seconds(self, until: float) -> float:
        """Return the seconds for the next part of a read: those that are left, but no more than ``READ_DEADLINE``."""
        return max(0.0, min(READ_DEADLINE, until - self.clock.now()))

    async def _for_read(self, fetch: Callable[[], Awaitable[str]], line: str, until: float) -> str:
        """Fetch a token for a read.

        Raises:
            NoAnswerError: The token did not come in time.
            PeerError: The source of the token raised it.
        """
        seconds = self._seconds(until)
        try:
            with anyio.fail_after(seconds):
                return await fetch()
        except TimeoutError as error:
            raise NoAnswerError(f"{line}: no token within {seconds:.3g} s") from error

    async def _send_once(
        self,
        method: str,
        url: str,
        *,
        label: str,
        headers: Mapping[str, str],
        content: "_Content",
        deadline: float,
        most_bytes: int = MAX_REPLY_BYTES,
    ) -> Reply:
        line = f"{method} {url}"
        started = self.clock.now()
        try:
            with anyio.fail_after(deadline):
                body_type, body = content
                fields = {} if body is None else {"content-type": body_type}
                fields |= headers
                request = self.client.build_request(
                    method,
                    url,
                    headers=fields,
                    content=body,
                    timeout=httpx.Timeout(deadline, connect=min(CONNECT_TIMEOUT, deadline)),
                    extensions={"label": label},
                )
                response = await self.client.send(request, stream=True, follow_redirects=False)
                try:
                    reply, ended = await self._body(response, line, most_bytes)
                finally:
                    await _close(response)
        except TimeoutError as error:
            raise NoAnswerError(f"{line}: no complete reply within {deadline:.3g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise NoAnswerError(f"{line}: {describe_failure(error)}") from error
        return Reply(
            label=label,
            request_line=line,
            status=response.status_code,
            headers=tuple((key, self.secrets.mask(value)) for key, value in response.headers.raw),
            body=self.secrets.mask(reply),
            elapsed=ended - started,
        )

    async def _body(self, response: httpx.Response, line: str, most: int) -> tuple[bytes, float]:
        """Return the body of a reply, and the time of its last byte. httpx closes the connection before the body ends for its reader."""
        parts, size, ended = [], 0, self.clock.now()
        async for part in response.aiter_bytes():
            ended = self.clock.now()
            size += len(part)
            if size > most:
                raise UnusableReplyError(f"{line}: the reply is larger than {most} bytes")
            parts.append(part)
        return b"".join(parts), ended


_Content = tuple[str, bytes | None]
"""The content type and the body of a request; None for no body."""


def _json_body(value: object) -> _Content:
    return "application/json", None if value is None else msgspec.json.encode(value)


def _form_body(fields: Mapping[str, str]) -> _Content:
    return "application/x-www-form-urlencoded", urlencode(fields).encode()


async def _close(response: httpx.Response) -> None:
    """Close a connection, within a bound of its own. The reply is complete, or given up, so a failure to close changes nothing."""
    with (
        anyio.CancelScope(shield=True),
        anyio.move_on_after(CLOSE_SECONDS),
        suppress(httpx.HTTPError, OSError),
    ):
        await response.aclose()
