"""One request shows if an address can be reached, and what its connection tells."""

import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import anyio
import pytest
import trustme

from cutover.http import reach as module
from cutover.http.environment import read_environment
from cutover.http.reach import Reached, UnreachedError, reach
from tests.support.raw_server import WAIT, answering

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)
CLOSED = "http://127.0.0.1:9"
"""Nothing listens at this port of loopback, and nothing that the system starts may."""


def answer(*headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 404 Not Found", "content-length: 0", *headers, "", "")).encode()


async def ask(url: str) -> Reached:
    async with read_environment().client() as client:
        return await reach(client, url, name="BASE_URL", label="test")


async def failure(url: str) -> UnreachedError:
    with pytest.raises(UnreachedError) as caught:
        await ask(url)
    return caught.value


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("SSL_CERT_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@asynccontextmanager
async def served_by(certificate: trustme.LeafCert) -> AsyncIterator[str]:
    """Serve https on loopback with this certificate. Yield the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    async with answering(answer(), tls=context) as server:
        yield f"https://localhost:{server.port}"


def trust(authority: trustme.CA, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(folder / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "authority.pem"))


async def test_any_status_is_an_answer_and_shows_the_other_end_and_its_clock() -> None:
    date = formatdate(time.time() - 600, usegmt=True)
    async with answering(answer(f"date: {date}")) as server:
        facts = await ask(server.url(""))
    assert (facts.status, facts.remote) == (404, f"127.0.0.1:{server.port}")
    assert (facts.proxy, facts.tls_version, facts.certificate_names, facts.certificate_ends) == (
        "",
        "",
        (),
        None,
    )
    assert facts.clock_ahead == pytest.approx(-600, abs=3)
    (request,) = server.requests
    assert request.startswith(b"GET /robots.txt HTTP/1.1\r\n")
    assert b"authorization" not in request.lower()


@pytest.mark.parametrize("date", ["", "date: yesterday", "date: Mon, 99 Nov 2026 10:00:00 GMT"])
async def test_without_a_date_the_clock_is_not_known(date: str) -> None:
    async with answering(answer(*filter(None, [date]))) as server:
        assert (await ask(server.url(""))).clock_ahead is None


@pytest.mark.parametrize(("days", "name"), [(400, "localhost"), (3, "localhost")])
async def test_a_certificate_shows_its_names_and_its_end(
    days: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    trust(authority, tmp_path, monkeypatch)
    ends = datetime.now(UTC) + days * DAY
    async with served_by(authority.issue_cert(name, "*.example", not_after=ends)) as url:
        facts = await ask(url)
    assert facts.tls_version == "TLSv1.3"
    assert facts.certificate_names == ("localhost", "*.example")
    assert facts.certificate_ends == pytest.approx(ends.timestamp(), abs=2)
    assert facts.certificate_left == pytest.approx(days * 86_400, abs=60)


async def test_an_expired_certificate_is_refused_and_the_remedy_is_to_renew_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, now = trustme.CA(), datetime.now(UTC)
    trust(authority, tmp_path, monkeypatch)
    async with served_by(
        authority.issue_cert("localhost", not_before=now - 9 * DAY, not_after=now - DAY)
    ) as url:
        error = await failure(url)
    assert str(error) == "the certificate of localhost is refused: certificate has expired"
    assert error.remedy == "renew the certificate of localhost, or correct the clock of this machine"
    assert not error.may_pass


async def test_a_certificate_for_another_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    trust(authority, tmp_path, monkeypatch)
    async with served_by(authority.issue_cert("other.example")) as url:
        error = await failure(url)
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in str(error)
    assert error.remedy == "correct BASE_URL, or give localhost a certificate for this name"


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    async with served_by(trustme.CA().issue_cert("localhost")) as url:
        error = await failure(url)
    assert str(error).startswith("the certificate of localhost is refused: ")
    assert "SSL_CERT_FILE" in error.remedy


async def test_tls_to_a_plain_port_is_named() -> None:
    async with answering(answer()) as server:
        error = await failure(f"https://127.0.0.1:{server.port}")
    assert str(error).startswith("127.0.0.1: no TLS connection (")
    assert "BASE_URL" in error.remedy


async def test_a_closed_port_is_named_without_waiting_for_the_deadline() -> None:
    error = await failure(CLOSED)
    assert str(error).startswith("127.0.0.1: could not connect (")
    assert (error.remedy, error.may_pass) == ("start what answers there, or correct BASE_URL", True)


async def test_a_name_that_cannot_be_found_is_named() -> None:
    # An empty label: no name server is asked.
    error = await failure("https://chat..example")
    assert str(error).startswith("the name chat..example is not found in DNS (")
    assert error.remedy == "correct BASE_URL, or repair the DNS or the network of this machine"


async def test_silence_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REACH_SECONDS", 0.2)
    async with answering(WAIT) as server:
        with anyio.fail_after(20):
            error = await failure(server.url(""))
    assert str(error) == "127.0.0.1 gave no answer within 0.2 s"
    assert "firewall" in error.remedy
    assert not error.may_pass


async def test_a_proxy_is_named_without_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(answer()) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret-word@127.0.0.1:{server.port}")
        facts = await ask("http://chat.example")
    assert facts.proxy == f"the proxy http://127.0.0.1:{server.port} of HTTP_PROXY"
    assert facts.remote == ""
    assert server.requests[0].startswith(b"GET http://chat.example/robots.txt ")


async def test_a_proxy_that_wants_a_login_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(answer().replace(b"404 Not Found", b"407 Login")) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url(""))
        error = await failure("http://chat.example")
    assert str(error) == f"chat.example: the proxy {server.url('')} of HTTP_PROXY asks for a login"
    assert error.remedy == "put its user and password into the URL of the proxy"


async def test_a_dead_proxy_is_blamed_and_not_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", CLOSED)
    error = await failure("https://chat.example")
    assert f"through the proxy {CLOSED} of ALL_PROXY" in str(error)
    assert error.remedy == "start or correct the proxy, or name the host in NO_PROXY"
