"""Application default credentials: a token is fetched when one is needed, kept while it holds, and its lack is told."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import anyio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cutover.errors import RefusedError
from cutover.traffic.google_credentials import DefaultCredentials

pytestmark = pytest.mark.anyio


class TokenEndpoint(HTTPServer):
    """Gives a new token at each request, or refuses."""

    status = 200
    given = 0


class _Handler(BaseHTTPRequestHandler):
    server: TokenEndpoint

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.given += 1
        good = {"access_token": f"token-{self.server.given}", "expires_in": 3600, "token_type": "Bearer"}
        body = json.dumps(good if self.server.status == 200 else {"error": "invalid_grant"}).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
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
    """The environment of a job with a service account whose tokens come from the endpoint."""
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
async def test_a_refresh_that_is_refused_says_what_to_set(endpoint: TokenEndpoint) -> None:
    endpoint.status = 400
    with pytest.raises(RefusedError, match=r"invalid_grant.*set CLOUD_RUN_ACCESS_TOKEN") as caught:
        await DefaultCredentials().token()
    assert caught.value.status == 401


async def test_no_credentials_at_all_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(RefusedError, match=r"no application default credentials.*set CLOUD_RUN_ACCESS_TOKEN"):
        await DefaultCredentials().token()


async def test_without_the_extra_it_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)  # as where it is not installed
    with pytest.raises(RefusedError, match=r"pip install 'stream-cutover\[gcp\]'"):
        await DefaultCredentials().token()
