"""Certificates and proxies from the environment: what works, and how a value that cannot work is named."""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import certifi
import httpx
import pytest

from cutover.errors import ConfigurationError
from cutover.http.environment import read_environment
from cutover.http.no_proxy import parse_no_proxy

NAMES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSLKEYLOGFILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "REQUEST_METHOD",
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without any of the variables."""
    for name in tuple(os.environ):
        if name in NAMES or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def problems(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], **options: bool
) -> tuple[str, ...]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        read_environment(**options)
    return caught.value.problems


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SSL_CERT_FILE", "/no/such/file.pem", "No such file or directory"),
        ("SSL_CERT_FILE", "/", "Is a directory"),
        ("SSL_CERT_FILE", os.devnull, "it holds no certificate in PEM form"),
        ("SSL_CERT_FILE", __file__, "it holds no certificate in PEM form"),
        ("SSL_CERT_FILE", "/\udcff", "No such file or directory"),
        ("SSL_CERT_DIR", "/no/such/folder", "names no folder"),
        ("SSL_CERT_DIR", str(Path(__file__).parent), "names a folder without certificates"),
        ("SSLKEYLOGFILE", "/no/such/folder/keys.log", "No such file or directory"),
        ("SSLKEYLOGFILE", "/", "Is a directory"),
        ("ALL_PROXY", "socks://host:1080", "write socks5://, or unset ALL_PROXY"),
        ("all_proxy", "socks4://host:1080", "all_proxy starts with socks4://"),
        ("HTTP_PROXY", "ftp://host", "HTTP_PROXY starts with ftp://"),
        ("http_proxy", "http://", "http_proxy is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://[::1", "HTTPS_PROXY is not the URL of a proxy"),
        ("https_proxy", "http://host:port", "https_proxy is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://host:0", "HTTPS_PROXY is not the URL of a proxy"),
        ("HTTPS_PROXY", "host:65536", "HTTPS_PROXY is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://two words", "HTTPS_PROXY is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://host\x07", "HTTPS_PROXY is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://\udcff", "HTTPS_PROXY is not the URL of a proxy"),
        ("HTTPS_PROXY", f"http://{'a' * 64}.example", "HTTPS_PROXY is not the URL of a proxy"),
        ("HTTPS_PROXY", "http://a..example", "HTTPS_PROXY is not the URL of a proxy"),
        ("NO_PROXY", "[::1", "NO_PROXY: '[::1' is no host name, address or network"),
        ("no_proxy", "localhost,host:port", "no_proxy: 'host:port' is no host name"),
        ("NO_PROXY", "10.0.0.0/33", "'10.0.0.0/33' is no host name"),
        ("NO_PROXY", "[10]", "'[10]' holds no IPv6 address"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_variable(
    name: str, value: str, reason: str, *, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = problems(monkeypatch, {name: value}, tls=tls)
    assert problem.startswith(name)
    assert reason in problem
    assert problem.isprintable()


def test_every_problem_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"SSL_CERT_FILE": "/none", "ALL_PROXY": "socks4://h", "HTTPS_PROXY": "ftp://h", "NO_PROXY": "["}
    assert sorted(problem.split()[0].strip(":") for problem in problems(monkeypatch, wrong)) == sorted(wrong)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "SOCKS5"])
def test_a_socks_proxy_without_its_package_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    (problem,) = problems(monkeypatch, {"ALL_PROXY": f"{scheme}://127.0.0.1:9"})
    assert problem == (
        f"ALL_PROXY names a SOCKS proxy, {scheme}://127.0.0.1:9, and the package for it is missing: pip install 'httpx[socks]', or unset ALL_PROXY"
    )


@pytest.mark.parametrize(
    "value", ["http://user:secret-word@", "ftp://user:secret-word@host", "http://u:secret-word/@h:x"]
)
def test_the_password_of_a_proxy_is_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "secret-word" not in "".join(problems(monkeypatch, {"HTTPS_PROXY": value}))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("ALL_PROXY", "socks://me:secret-word@127.0.0.1:1080/", "socks://***@127.0.0.1:1080/"),
        ("all_proxy", "me:secret-word@host:x1", "http://***@host:***"),
        ("HTTPS_PROXY", "http://me:secret-word", "http://me:***"),
        ("HTTPS_PROXY", "http://host:65536", "http://host:65536"),
        ("HTTPS_PROXY", "http://[fe80::ab", "http://[fe80::ab"),
        ("HTTPS_PROXY", "http://[fe80::ab]:99999", "http://[fe80::ab]:99999"),
        ("http_proxy", "ftp://me:secret-word@host:21/", "ftp://***@host:21/"),
        ("NO_PROXY", "localhost,me:secret-word@[::", "'***@[::'"),
    ],
)
def test_a_refused_value_is_shown_without_its_login(
    name: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = problems(monkeypatch, {name: value})
    assert problem.startswith(name)
    assert shown in problem
    assert "secret-word" not in problem


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_cannot_be_reached_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://me:secret-word@127.0.0.1:9")
    async with read_environment().client() as client:
        with pytest.raises(
            httpx.ConnectError, match=r"; through the proxy http://127\.0\.0\.1:9 of ALL_PROXY"
        ) as caught:
            await client.get(f"{scheme}://service.example/")
    assert "secret-word" not in str(caught.value)


def test_a_bundle_for_google_matters_only_with_default_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"REQUESTS_CA_BUNDLE": "/no/such/bundle.pem"}
    (problem,) = problems(monkeypatch, wrong, default_credentials=True)
    assert problem.startswith("REQUESTS_CA_BUNDLE names no file: /no/such/bundle.pem")
    read_environment()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    read_environment(default_credentials=True)


def test_certificates_come_from_the_file_else_from_the_folder_else_from_certifi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = read_environment().context.get_ca_certs()
    assert len(usual) > 50
    assert read_environment(tls=False).context.get_ca_certs() == []
    # OpenSSL reads a folder when it needs a certificate, so none is loaded yet.
    (tmp_path / "5ed36f99.0").write_text("")
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join(("/no/such/folder", str(tmp_path))))
    assert read_environment().context.get_ca_certs() == []
    one = ssl.DER_cert_to_PEM_cert(
        ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)[0]
    )
    (tmp_path / "one.pem").write_text(one)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one.pem"))
    assert len(read_environment(tls=False).context.get_ca_certs()) == 1
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    assert read_environment().context.keylog_filename == str(tmp_path / "keys.log")


def test_no_context_trusts_everybody() -> None:
    """A client for plain http that is sent to https fails, and does not skip the check of the certificate."""
    for tls in (True, False):
        context = read_environment(tls=tls).context
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("", [], ["http://a.example", "http://[::1]"]),
        ("*", ["http://a.example", "https://[::1]:8080"], []),
        ("a.example", ["http://a.example", "https://b.a.example:8"], ["http://ba.example", "http://example"]),
        (".a.example", ["http://b.a.example"], ["http://a.example"]),
        ("*.a.example", ["http://b.a.example"], ["http://a.example"]),
        ("A.Example", ["http://a.example"], []),
        ("::1", ["http://[::1]", "https://[0:0::1]:80"], ["http://[::2]", "http://127.0.0.1"]),
        ("[::1]", ["http://[::1]:5"], ["http://[::2]"]),
        ("[::1]:80", ["http://[::1]"], ["https://[::1]", "http://[::1]:81"]),
        ("fd00::/8", ["http://[fd12::1]"], ["http://[fe80::1]", "http://fd12.example"]),
        ("[fe80::1%eth0]", ["http://[fe80::1]"], ["http://[fe80::2]"]),
        (
            "localhost,[::1],fd00::/8",
            ["http://[fd12::1]", "http://[::1]", "http://localhost"],
            ["http://[fe80::1]"],
        ),
        ("[fd00::/8]", ["http://[fd12::1]"], ["http://[fe80::1]"]),
        ("10.1.2.3/8", ["http://10.200.0.1"], ["http://11.0.0.1", "http://10.example"]),
        ("127.0.0.1", ["http://127.0.0.1:9"], ["http://127.0.0.2"]),
        ("127.0.0.1:9", ["http://127.0.0.1:9"], ["http://127.0.0.1"]),
        ("localhost", ["http://localhost:1"], ["http://localhosts"]),
        ("a.example:443", ["https://a.example"], ["http://a.example"]),
        ("https://a.example", ["https://a.example"], ["http://a.example"]),
        ("all://a.example/", ["http://a.example"], ["http://b.example"]),
        (
            " x.example, a.example  b.example,,",
            ["http://a.example", "http://b.example"],
            ["http://c.example"],
        ),
    ],
)
def test_no_proxy_names_hosts_addresses_and_networks(
    no_proxy: str, direct: list[str], proxied: list[str]
) -> None:
    entries = parse_no_proxy(no_proxy)
    for url in (*direct, *proxied):
        assert any(entry.holds(httpx.URL(url)) for entry in entries) == (url in direct), url


@asynccontextmanager
async def answering(name: str, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve HTTP on loopback. Each reply is the name of the server and the target of the request, as it was received."""

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            target = (await stream.receive()).split(b" ")[1]
            body = name.encode() + b" " + target
            await stream.send(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )

    async with (
        await anyio.create_tcp_listener(local_host=host) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  of anyio, not of Django
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_requests_go_through_the_proxy_unless_no_proxy_names_their_host(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering("proxy") as proxy, answering("service") as service:
        for value in (proxy, proxy.removeprefix("http://")):
            monkeypatch.setenv(name, value)
            monkeypatch.delenv("NO_PROXY", raising=False)
            async with read_environment(tls=False).client(base_url=service) as client:
                assert (await client.get("/x")).text == f"proxy {service}/x"
            monkeypatch.setenv("NO_PROXY", "[::1],127.0.0.0/8")
            async with read_environment(tls=False).client(base_url=service) as client:
                assert (await client.get("/x")).text == "service /x"


@pytest.mark.anyio
async def test_a_proxy_of_the_scheme_wins_over_the_proxy_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering("proxy") as proxy, answering("other") as other, answering("service") as service:
        monkeypatch.setenv("ALL_PROXY", other)
        monkeypatch.setenv("HTTP_PROXY", proxy)
        async with read_environment(tls=False).client() as client:
            assert (await client.get(service)).text == f"proxy {service}/"
        monkeypatch.delenv("HTTP_PROXY")
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        async with read_environment().client() as client:
            assert (await client.get(service)).text == f"other {service}/"


@pytest.mark.anyio
async def test_an_ipv6_address_in_no_proxy_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with answering("service", "::1") as service:
        for entry in ("::1", "[::1]", "::/64"):
            monkeypatch.setenv("NO_PROXY", entry)
            async with read_environment(tls=False).client() as client:
                assert (await client.get(service)).text == "service /"


def test_no_proxy_for_every_host_makes_the_proxies_irrelevant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://nobody:1")
    monkeypatch.setenv("NO_PROXY", "*")
    assert not read_environment(tls=False).proxies
