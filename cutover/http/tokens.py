"""The token of one service: a fixed text, or a text from a source that is read again when it expires or is refused.

A source is read before the first request. A later read happens in two cases:

- The token is about to expire. The source says when, or a JSON Web Token does (``exp``, RFC 7519 4.1.4). The signature is not
  verified: the time only decides when to read again, and whether a train may start. If this read fails, the token that still
  lives stays in use.
- The service refused the token with 401. Nothing was done for such a request, so it is sent once more if the source gives
  another token. ``Outbound`` and ``probe_stream`` do that.

Every token that a source gives is added to the secrets to mask.
"""

import base64
import codecs
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import anyio
import attrs
import httpx
import msgspec

from cutover.clock import Clock, EventLoopClock
from cutover.errors import NoAnswerError, PeerError
from cutover.http.secrets import Secrets
from cutover.text import printable

UNAUTHORIZED = 401
"""Status of a service that did not accept the token, and so did nothing (RFC 9110 15.5.2)."""
TOKEN_DEADLINE = 10.0
"""Seconds for one read of a source."""
RENEW_BEFORE = 300.0
"""Seconds before its expiry at which a token is read again; half of its lifetime, if that is less."""
LEAST_PAUSE = 5.0
"""Seconds between two reads of a source that gives the same token again, or fails."""
MAX_SOURCE_BYTES = 64 << 10
"""Bytes of the largest output of a source."""
_VISIBLE = re.compile(r"[!-~]+")


@attrs.frozen(kw_only=True)
class Grant:
    """One token, as its source gave it."""

    token: str = attrs.field(repr=False)
    expires_at: float | None = None
    """Unix time at which the token expires; None if nobody said so."""


class TokenSource(Protocol):
    """A function that returns the current token."""

    async def __call__(self, *, refused: str = "") -> Grant:
        """Return the token that is valid now.

        Args:
            refused: A token that the service has refused. A source that keeps its tokens must not return this one from memory.

        Raises:
            PeerError: There is no token. The message names the input that the user gave.
        """
        ...


@attrs.define(eq=False, kw_only=True)
class Token:
    """The token of one service."""

    name: str = "the token"
    """Name of the input that gives the token, as the user typed it."""
    source: TokenSource | None = None
    """The source to read; None: the token is fixed."""
    grant: Grant | None = None
    """The last token; None before the first read, and for requests without a token."""
    reason: str = ""
    """Reason why requests carry no token, for messages; empty if they carry one."""
    clock: Clock = attrs.field(factory=EventLoopClock, repr=False)
    secrets: Secrets = attrs.field(factory=Secrets, repr=False)
    _renew_at: float = attrs.field(default=-math.inf, init=False, repr=False)
    """Time of ``clock`` from which the source is read again."""
    _ends_at: float = attrs.field(default=math.inf, init=False, repr=False)
    """Time of ``clock`` at which the token expires."""
    _refused_until: float = attrs.field(default=-math.inf, init=False, repr=False)
    """Time of ``clock`` before which a refusal reads nothing, because the source has just given the same token again."""
    _lock: anyio.Lock = attrs.field(factory=anyio.Lock, init=False, repr=False)

    @property
    def renewable(self) -> bool:
        """True if the token has a source."""
        return self.source is not None

    async def value(self) -> str:
        """Return the token that is valid now; an empty text for requests without a token.

        Raises:
            PeerError: The source gave no token, and no earlier token is still valid.
        """
        if self.source is None:
            return self.grant.token if self.grant else ""
        async with self._lock:
            if self.grant is None or self.clock.now() >= self._renew_at:
                await self._renew(self.source)
            assert self.grant is not None  # noqa: S101  a read that gave nothing has raised
            return self.grant.token

    async def renewed(self, refused: str) -> str:
        """Return another token than the one that the service refused, reading the source if need be; empty if there is none.

        Raises:
            PeerError: The source gave no token.
        """
        if self.source is None:
            return ""
        async with self._lock:
            current = self.grant.token if self.grant else ""
            if current == refused and self.clock.now() >= self._refused_until:
                current = (await self._read(self.source, refused)).token
                if current == refused:
                    self._refused_until = self.clock.now() + LEAST_PAUSE
            return "" if current == refused else current

    def seconds_left(self) -> float | None:
        """Return the seconds until the token expires, negative after it; None if that is not known."""
        if self.grant is None or (expires_at := expiry_of(self.grant)) is None:
            return None
        return expires_at - time.time() if self.source is None else self._ends_at - self.clock.now()

    async def _renew(self, source: TokenSource) -> None:
        """Read the source because the token expires. A failed read leaves a token that still lives in use."""
        try:
            await self._read(source, "")
        except PeerError:
            if self.grant is None or self.clock.now() >= self._ends_at:
                raise
            self._renew_at = self.clock.now() + LEAST_PAUSE

    async def _read(self, source: TokenSource, refused: str) -> Grant:
        try:
            with anyio.fail_after(TOKEN_DEADLINE):
                grant = await _ask(source, refused, self.name)
        except TimeoutError as error:
            raise NoAnswerError(f"{self.name} gave no token within {TOKEN_DEADLINE:g} s") from error
        self.secrets.add(grant.token)
        self.grant = grant
        self._renew_at = self._ends_at = math.inf
        if (expires_at := expiry_of(grant)) is not None:
            # The wall clock is read once: a later jump of it must not end a token, or keep an expired one.
            left, now = expires_at - time.time(), self.clock.now()
            self._ends_at = now + left
            self._renew_at = now + max(left - RENEW_BEFORE, left / 2, LEAST_PAUSE)
        return grant


async def _ask(source: TokenSource, refused: str, name: str) -> Grant:
    """Return what a source gives.

    Raises:
        NoAnswerError: The source failed on the network without making a ``PeerError`` of it.
        PeerError: The source raised it.
    """
    try:
        return await source(refused=refused)
    except (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(f"{name} could not be fetched: {printable(repr(error))}") from error


def fixed(token: "str | Token") -> Token:
    """Return a token that stays the same; an empty text means requests without a token. A ``Token`` is returned as it is."""
    if isinstance(token, Token):
        return token
    return Token(grant=Grant(token=token) if token else None)


def bearer(token: str) -> Mapping[str, str]:
    """Return the header that carries a token (RFC 6750 2.1); no header for an empty text."""
    return {"authorization": f"Bearer {token}"} if token else {}


def token_problem(text: str) -> str:
    """Return the reason why a text is no token; an empty text if it is one. The reason does not show the text."""
    return "" if _VISIBLE.fullmatch(text) else "must be printable ASCII without spaces"


def read_grant(data: bytes) -> Grant:
    """Read what a source gave: a bare token, or JSON such as ``{"token": "...", "expiration": "2026-11-28T12:00:00Z"}``.

    Raises:
        ValueError: It is neither. The message is a predicate, such as "gives nothing", and shows no part of the data.
    """
    if len(data) > MAX_SOURCE_BYTES:
        raise ValueError(f"gives more than {MAX_SOURCE_BYTES} bytes")
    data = data.removeprefix(codecs.BOM_UTF8).strip()
    if data.startswith(b'"'):
        raise ValueError("gives a text in quotes; write it without them")
    if not data:
        raise ValueError("gives nothing")
    if data.startswith(b"{"):
        return _grant_of_json(data)
    token = data.decode("utf-8", "replace")
    if problem := token_problem(token):
        raise ValueError(f"gives no token: a token {problem}")
    return Grant(token=token)


def _grant_of_json(data: bytes) -> Grant:
    try:
        found = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("gives neither a bare token nor JSON") from None
    token, expiration = found.get("token"), found.get("expiration")
    if not isinstance(token, str) or (problem := token_problem(token)):
        reason = problem if isinstance(token, str) else "must be a text"
        raise ValueError(f"gives no token: `token` in its JSON {reason}")
    if expiration is None:
        return Grant(token=token)
    try:
        moment = datetime.fromisoformat(expiration)  # type: ignore[arg-type]  # the wrong type raises TypeError
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return Grant(token=token, expires_at=moment.timestamp())
    except (TypeError, ValueError, OverflowError):
        raise ValueError("gives a token whose `expiration` is no ISO time") from None


def expiry_of(grant: Grant) -> float | None:
    """Return the Unix time at which a token expires: as its source says, else as it says itself, else None."""
    return grant.expires_at if grant.expires_at is not None else _expiry_of_jwt(grant.token)


def _expiry_of_jwt(token: str) -> float | None:
    """Return ``exp`` of a JSON Web Token, unverified; None if the text is none, or has no such claim."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  header, claims and signature (RFC 7515 7.1)
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    expires_at = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        return None
    return float(expires_at) if abs(expires_at) < 1e12 else None  # noqa: PLR2004  a later time is a mistake
