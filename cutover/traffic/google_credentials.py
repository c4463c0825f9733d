"""Application default credentials for the Admin API; needs the extra ``gcp``."""

from typing import Any

import anyio
import anyio.to_thread
import attrs

from cutover.errors import RefusedError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@attrs.define(eq=False)
class DefaultCredentials:
    """The environment's own Google credentials, refreshed when they expire."""

    _credentials: Any = None
    _lock: anyio.Lock = attrs.field(factory=anyio.Lock)

    async def token(self) -> str:
        """Return an access token that is valid now.

        Raises:
            RefusedError: There are no credentials, or they cannot be refreshed.
        """
        async with self._lock:
            return await anyio.to_thread.run_sync(self._valid_token)

    def _valid_token(self) -> str:
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
            if not self._credentials.valid:
                self._credentials.refresh(google.auth.transport.requests.Request())
        except google.auth.exceptions.GoogleAuthError as error:
            raise RefusedError(
                f"no application default credentials ({error}); set CLOUD_RUN_ACCESS_TOKEN", status=401
            ) from error
        return str(self._credentials.token)
