"""The settings of HTTP clients that the environment of the process gives: certificates, a log of TLS keys, proxies.

httpx reads the same variables, but only while it makes a client, and it raises another error for each kind of wrong value, without the
name of the variable. ``read_environment`` reads them once, before a command begins, and names the variable and the remedy. Every client
that talks to the network is made from its result. A rehearsal opens no connection and reads none of this.
"""

import os
import re
import ssl
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import httpx

from cutover.errors import ConfigurationError
from cutover.http.no_proxy import Unproxied, parse_no_proxy
from cutover.http.secrets import mask_login
from cutover.text import printable

_CERT_FILE, _CERT_DIR, _KEY_LOG = "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"
_REQUESTS_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""The variables in which the library requests, and with it google-auth, looks for certificates."""
_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The name by which OpenSSL finds a certificate in a folder (openssl-rehash(1))."""
_LARGEST_PORT = 65_535
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
PROXY = "cutover_proxy"
"""The extension of a response that names the proxy which it came through, in words."""


@attrs.frozen(kw_only=True)
class HttpEnvironment:
    """The certificates and proxies for clients."""

    context: ssl.SSLContext
    """One TLS context for all clients, because making it takes 20 ms."""
    proxies: Mapping[str, httpx.Proxy] = attrs.field(factory=dict, repr=False)
    """Proxies by the scheme of the requested URL: ``http``, ``https``, and ``all`` for a scheme without a proxy of its own."""
    variables: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """The variable that named each proxy, by the same scheme."""
    unproxied: Sequence[Unproxied] = ()
    """The entries of NO_PROXY."""

    def client(
        self,
        *,
        base_url: str = "",
        limits: httpx.Limits = _LIMITS,
        cookies: "httpx._types.CookieTypes | None" = None,
    ) -> httpx.AsyncClient:
        """Return a new client; no connection is opened yet."""
        direct = httpx.AsyncHTTPTransport(verify=self.context, trust_env=False, limits=limits)
        transport = (
            direct
            if not self.proxies
            else _ProxyTransport(
                direct=direct,
                proxies={
                    scheme: _Proxied(
                        transport=_through(proxy, self.context, limits),
                        proxy=f"the proxy {_shown(str(proxy.url))} of {self.variables[scheme]}",
                    )
                    for scheme, proxy in self.proxies.items()
                },
                unproxied=self.unproxied,
            )
        )
        return httpx.AsyncClient(transport=transport, base_url=base_url, cookies=cookies, trust_env=False)


@attrs.define(eq=False, kw_only=True)
class _ProxyTransport(httpx.AsyncBaseTransport):
    """A transport that sends each request through the proxy for its scheme, unless NO_PROXY names its host."""

    direct: httpx.AsyncBaseTransport
    proxies: Mapping[str, httpx.AsyncBaseTransport]
    unproxied: Sequence[Unproxied]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        proxy = self.proxies.get(request.url.scheme) or self.proxies.get("all")
        if proxy is None or any(entry.holds(request.url) for entry in self.unproxied):
            proxy = self.direct
        return await proxy.handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in (self.direct, *self.proxies.values()):
            await transport.aclose()


@attrs.define(eq=False, kw_only=True)
class _Proxied(httpx.AsyncBaseTransport):
    """A transport through one proxy. It names the proxy in its responses, and in its failures: the host of the request may be well."""

    transport: httpx.AsyncBaseTransport
    proxy: str
    """The proxy in words."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        try:
            response = await self.transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise type(error)(f"{error}; through {self.proxy}".removeprefix("; ")) from error
        response.extensions = {**response.extensions, PROXY: self.proxy}
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        await self.transport.aclose()


def _through(proxy: httpx.Proxy, context: ssl.SSLContext, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, proxy=proxy)


def read_environment(*, tls: bool = True, default_credentials: bool = False) -> HttpEnvironment:
    """Return the certificates and proxies that the environment of this process names.

    Args:
        tls: False if no requested URL is https. Then certificates are loaded only if a variable names them or a proxy is https.
        default_credentials: True if Google's library will ask for tokens; it reads variables of its own.

    Raises:
        ConfigurationError: A variable cannot be used; every such variable is named.
    """
    problems: list[str] = []
    named = any(os.environ.get(name) for name in (_CERT_FILE, _CERT_DIR, _KEY_LOG))
    given = _given_proxies()
    secure = tls or named or any(url.lower().startswith("https://") for _, url in given.values())
    context = _context(problems) if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproxied = _unproxied(problems)
    everything = any(entry == Unproxied() for entry in unproxied)
    proxies = (
        {}
        if everything
        else {
            scheme: proxy
            for scheme, (name, url) in given.items()
            if (proxy := _proxy(name, url, context, problems)) is not None
        }
    )
    if default_credentials:
        problems += _bundle_problems()
    if problems:
        raise ConfigurationError(problems)
    variables = {scheme: name for scheme, (name, _) in given.items()}
    return HttpEnvironment(context=context, proxies=proxies, variables=variables, unproxied=unproxied)


def _context(problems: list[str]) -> ssl.SSLContext:
    """Return the context for the certificates that the environment names, else for those of certifi."""
    name = next((name for name in (_CERT_FILE, _CERT_DIR) if os.environ.get(name)), "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    key_log = "" if sys.flags.ignore_environment else os.environ.get(_KEY_LOG, "")
    if key_log:
        try:
            context.keylog_filename = key_log
        except OSError as error:
            problems.append(
                f"{_KEY_LOG} names a file that cannot be written: {printable(key_log)} ({error.strerror or error}); "
                f"correct it, or unset {_KEY_LOG}"
            )
            return context
    folders = [Path(text) for text in os.environ.get(_CERT_DIR, "").split(os.pathsep) if text]
    if folders and not any(folder.is_dir() for folder in folders):
        problems.append(
            f"{_CERT_DIR} names no folder: {printable(os.environ[_CERT_DIR])}; correct it, or unset {_CERT_DIR}"
        )
        return context
    # httpx looks into the folder only if there is no SSL_CERT_FILE.
    if name == _CERT_DIR and not any(map(_holds_certificates, folders)):
        problems.append(
            f"{_CERT_DIR} names a folder without certificates: {printable(os.environ[_CERT_DIR])}; OpenSSL finds them by names such as "
            f"5ed36f99.0, which `openssl rehash FOLDER` makes; correct it, or unset {_CERT_DIR}"
        )
        return context
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        # ssl.SSLError is an OSError: the file holds no certificate.
        if not name:
            raise
        reason = (
            error.strerror
            if not isinstance(error, ssl.SSLError) and error.strerror
            else "it holds no certificate in PEM form"
        )
        problems.append(
            f"{name} cannot be used: {printable(os.environ[name])} ({reason}); correct it, or unset {name}"
        )
    return context


def _holds_certificates(folder: Path) -> bool:
    """Return True if a folder has a certificate under the name by which OpenSSL finds it."""
    try:
        return any(_HASHED_NAME.fullmatch(path.name) for path in folder.iterdir())
    except OSError:
        return False


def _given_proxies() -> dict[str, tuple[str, str]]:
    """Return the variable and the URL of each proxy that the environment, or else the system, names, by the scheme of requests."""
    found = urllib.request.getproxies()
    given = {}
    for scheme in ("http", "https", "all"):
        if url := found.get(scheme, "").strip():
            spellings = [
                name
                for name in os.environ
                if name.lower() == f"{scheme}_proxy" and os.environ[name].strip() == url
            ]
            name = min(spellings, default=f"the system's proxy for {scheme}")
            given[scheme] = (name, url if "://" in url else f"http://{url}")
    return given


def _proxy(name: str, url: str, context: ssl.SSLContext, problems: list[str]) -> httpx.Proxy | None:
    """Return a proxy that can be used; else None, and note the problem."""
    scheme, shown = url.partition("://")[0].lower(), _shown(url)
    wanted = "http://, https://, socks5:// or socks5h:// and a host"
    remedy = f"correct it, or unset {name}"
    try:
        if scheme not in _PROXY_SCHEMES:
            # The name `socks` is what some desktops write; they mean SOCKS 5.
            hint = "socks5://" if scheme == "socks" else ""
            problems.append(
                f"{name} starts with {printable(scheme)}://: {shown}; a proxy's URL is {wanted}; "
                + (f"write {hint}, or unset {name}" if hint else remedy)
            )
            return None
        proxy = httpx.Proxy(url, ssl_context=context if scheme == "https" else None)
        # The system looks the name up in this encoding, and fails at an empty or too long label.
        proxy.url.host.encode("idna")
        port = 1 if proxy.url.port is None else proxy.url.port
        if not proxy.url.host or " " in url or not 0 < port <= _LARGEST_PORT:
            raise ValueError("no host, or a port that does not exist")  # noqa: TRY301  one message for every such value
        # The transport is made only to see whether it can be made; it opens no connection.
        _through(proxy, context, _LIMITS)
    except ImportError:
        problems.append(
            f"{name} names a SOCKS proxy, {shown}, and the package for it is missing: pip install 'httpx[socks]', or unset {name}"
        )
        return None
    except (httpx.InvalidURL, ValueError):
        problems.append(f"{name} is not the URL of a proxy: {shown}; write {wanted}; {remedy}")
        return None
    return proxy


def _shown(url: str) -> str:
    """Return the URL of a proxy without its login. A port that is no number may be a part of a password, so it is left out too."""
    shown = mask_login(url)
    # In brackets stands an IPv6 address, which has colons of its own.
    return printable(shown if "[" in shown else re.sub(r":(?!//|[0-9]*(?:/|\Z)).*\Z", ":***", shown))


def _unproxied(problems: list[str]) -> Sequence[Unproxied]:
    """Return the entries of NO_PROXY; note an entry that is none."""
    text = urllib.request.getproxies_environment().get("no", "")
    try:
        return parse_no_proxy(text)
    except ValueError as error:
        name = min(
            (name for name in os.environ if name.lower() == "no_proxy" and os.environ[name] == text),
            default="NO_PROXY",
        )
        problems.append(
            f"{name}: {printable(str(error))}; write hosts with commas between them, such as localhost,[::1],10.0.0.0/8"
        )
        return ()


def _bundle_problems() -> list[str]:
    """Return the problem of the file with certificates for Google's library; none if no variable names a file."""
    name = next((name for name in _REQUESTS_BUNDLES if os.environ.get(name)), "")
    if not name or Path(os.environ[name]).exists():
        return []
    return [f"{name} names no file: {printable(os.environ[name])}; correct it, or unset {name}"]
