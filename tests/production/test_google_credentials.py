"""Application default credentials: a token is fetched when it is needed and kept while it is valid; errors say what to set."""

import json
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import anyio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import RefreshError, TransportError

from cutover.errors import NoAnswerError, RefusedError
from cutover.production.traffic import google_credentials
from cutover.production.traffic.google_credentials import DefaultCredentials

pytestmark = pytest.mark.anyio


class TokenEndpoint(ThreadingHTTPServer):
    """A fake token endpoint: it answers each request with a new token, refuses it, breaks the connection, or lets it hang."""

    daemon_threads = True
    status = 200
    given = 0
    """Number of requests answered so far."""
    breaks = 0
    """Number of the next connections that break."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        # While this is not set, requests hang.
        self.answers = Event()
        self.answers.set()


class _Handler(BaseHTTPRequestHandler):
    server: TokenEndpoint

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.server.breaks:
            self.server.breaks -= 1
            return
        self.server.answers.wait()
        self.server.given += 1
        good = {"access_token": f"token-{self.server.given}", "expires_in": 3600, "token_type": "Bearer"}
        body = json.dumps(good if self.server.status == 200 else {"error": "invalid_grant"}).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture
def service_account(
    endpoint: TokenEndpoint, private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Set the environment of a job whose service account gets its tokens from the fake endpoint; return the account's file."""
    path = tmp_path / "account.json"
    account = {
        "type": "service_account",
        "project_id": "p",
        "client_email": "cutover@p.example",
        "private_key": private_key,
        "token_uri": f"http://127.0.0.1:{endpoint.server_port}/token",
    }
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


@pytest.mark.usefixtures("service_account")
async def test_a_token_is_fetched_once_and_kept(endpoint: TokenEndpoint) -> None:
    credentials = DefaultCredentials()
    tokens: list[str] = []

    async def ask() -> None:
        tokens.append(await credentials.token())

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(ask)
    assert tokens == ["token-1"] * 4
    assert endpoint.given == 1


@pytest.mark.usefixtures("service_account")
async def test_a_refused_token_is_replaced_and_each_token_tells_its_expiry(endpoint: TokenEndpoint) -> None:
    credentials = DefaultCredentials()
    first = await credentials()
    assert first.token == "token-1"
    assert first.expires_at is not None
    assert 3500 < first.expires_at - time.time() <= 3600
    assert (await credentials(refused="another")).token == "token-1"
    assert (await credentials(refused="token-1")).token == "token-2"
    assert endpoint.given == 2


@pytest.mark.usefixtures("service_account")
async def test_the_error_of_a_refused_refresh_says_what_to_set(endpoint: TokenEndpoint) -> None:
    endpoint.status = 400
    with pytest.raises(RefusedError, match=r"invalid_grant.*set CLOUD_RUN_ACCESS_TOKEN") as caught:
        await DefaultCredentials().token()
    assert caught.value.status == 401


@pytest.mark.usefixtures("service_account")
async def test_a_broken_connection_is_no_answer_and_the_next_attempt_may_succeed(
    endpoint: TokenEndpoint,
) -> None:
    endpoint.breaks = 1
    credentials = DefaultCredentials()
    with pytest.raises(NoAnswerError, match="application default credentials gave no token"):
        await credentials.token()
    assert await credentials.token() == "token-1"


@pytest.mark.usefixtures("service_account")
async def test_a_refresh_that_hangs_ends_at_the_deadline(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All callers that wait for the same refresh get the error, and a later call is not blocked."""
    monkeypatch.setattr(google_credentials, "TOKEN_DEADLINE", 0.5)
    endpoint.answers.clear()
    credentials = DefaultCredentials()
    messages: list[str] = []

    async def ask() -> None:
        with pytest.raises(NoAnswerError, match=r"gave no token within 0\.5 s") as caught:
            await credentials.token()
        messages.append(str(caught.value))

    with anyio.fail_after(5.0):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
    assert len(messages) == 3
    endpoint.answers.set()
    assert (await credentials.token()).startswith("token-")


@pytest.mark.usefixtures("service_account")
async def test_a_refresh_that_hangs_can_be_cancelled(endpoint: TokenEndpoint) -> None:
    endpoint.answers.clear()
    started = anyio.current_time()
    with anyio.move_on_after(0.2) as scope:
        await DefaultCredentials().token()
    assert scope.cancelled_caught
    assert anyio.current_time() - started < google_credentials.TOKEN_DEADLINE / 2


@pytest.mark.usefixtures("service_account")
async def test_the_thread_of_a_refresh_that_hangs_ends(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the process would wait for the thread at its exit."""
    monkeypatch.setattr(google_credentials, "TOKEN_DEADLINE", 0.2)
    endpoint.answers.clear()
    with anyio.fail_after(5.0), pytest.raises(NoAnswerError, match="timed out"):
        await anyio.to_thread.run_sync(DefaultCredentials()._valid_token, abandon_on_cancel=True)


class MetadataServerError(RefreshError):
    """The error of a virtual machine's credentials after a failed request."""

    __cause__ = TransportError("reset")  # type: ignore[no-untyped-call]


class TemporaryError(RefreshError):
    """A refresh error that may be temporary."""

    retryable = True


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (TransportError, NoAnswerError),
        (MetadataServerError, NoAnswerError),
        (TemporaryError, NoAnswerError),
        (RefreshError, RefusedError),
    ],
)
async def test_only_a_lasting_error_counts_as_a_refusal(
    failure: type[Exception], kind: type[Exception]
) -> None:
    class Failing:
        valid = False

        def refresh(self, _: object) -> None:
            raise failure("the reason")

    with pytest.raises(kind, match=r"application default credentials.*\(the reason\)"):
        await DefaultCredentials(credentials=Failing()).token()


async def test_the_error_without_credentials_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(RefusedError, match=r"no application default credentials.*set CLOUD_RUN_ACCESS_TOKEN"):
        await DefaultCredentials().token()


async def test_the_error_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # The import fails as if google-auth were not installed.
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(RefusedError, match=r"pip install 'stream-cutover\[gcp\]'"):
        await DefaultCredentials().token()
