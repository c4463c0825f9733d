"""Application default credentials for the Admin API. They need the extra ``gcp``."""

from datetime import UTC
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import attrs

from cutover.errors import NoAnswerError, PeerError, RefusedError
from cutover.http.tokens import Grant
from cutover.text import printable

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_DEADLINE = 8.0
"""Seconds for one token: fewer than a read has, so that this deadline passes first and its error names the credentials."""
_SHOWN = 200


@attrs.define(eq=False)
class DefaultCredentials:
    """The application default credentials of this environment, refreshed when they expire."""

    _credentials: Any = None
    _lock: anyio.Lock = attrs.field(factory=anyio.Lock)

    async def __call__(self, *, refused: str = "") -> Grant:
        """Return an access token that is valid now, with its expiry; see ``TokenSource``."""
        token = await self.token(refused=refused)
        # google-auth keeps a naive time in UTC.
        expiry = getattr(self._credentials, "expiry", None)
        return Grant(
            token=token, expires_at=None if expiry is None else expiry.replace(tzinfo=UTC).timestamp()
        )

    async def token(self, *, refused: str = "") -> str:
        """Return an access token that is valid now. The token ``refused`` is replaced, even if it looks valid.

        Raises:
            NoAnswerError: The source of the token did not answer; another attempt may work.
            RefusedError: The extra ``gcp`` is not installed, there are no credentials, or the credentials were refused.
        """
        try:
            with anyio.fail_after(TOKEN_DEADLINE):
                async with self._lock:
                    # An abandoned thread may still refresh the credentials; its token is valid as well.
                    return await anyio.to_thread.run_sync(self._valid_token, refused, abandon_on_cancel=True)
        except TimeoutError as error:
            raise NoAnswerError(
                f"application default credentials gave no token within {TOKEN_DEADLINE:g} s; "
                "where there are none, set CLOUD_RUN_ACCESS_TOKEN"
            ) from error

    def _valid_token(self, refused: str = "") -> str:
        try:
            import google.auth  # noqa: PLC0415  an extra
            import google.auth.exceptions  # noqa: PLC0415
            import google.auth.transport.requests  # noqa: PLC0415
        except ImportError as error:
            raise RefusedError(
                "CLOUD_RUN_ACCESS_TOKEN is not set, and application default credentials need the extra: "
                "pip install 'stream-cutover[gcp]'",
                status=401,
            ) from error
        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[SCOPE])
            if not self._credentials.valid or (refused and self._credentials.token == refused):
                # Without a timeout an abandoned thread would delay the end of the process by two minutes.
                self._credentials.refresh(
                    partial(google.auth.transport.requests.Request(), timeout=TOKEN_DEADLINE)
                )
        except google.auth.exceptions.GoogleAuthError as error:
            # The credentials of a virtual machine wrap the error of their request.
            temporary = error.retryable or any(
                isinstance(cause, google.auth.exceptions.TransportError) for cause in (error, error.__cause__)
            )
            raise _peer_error(error, temporary=temporary) from error
        return str(self._credentials.token)


def _peer_error(error: Exception, *, temporary: bool) -> PeerError:
    """Return the error for credentials that gave no token: ``NoAnswerError`` if the cause is temporary, else ``RefusedError``."""
    detail = printable(str(error), _SHOWN)
    if temporary:
        return NoAnswerError(f"application default credentials gave no token ({detail})")
    return RefusedError(
        f"no application default credentials ({detail}); set CLOUD_RUN_ACCESS_TOKEN", status=401
    )
