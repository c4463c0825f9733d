"""One request that shows if an address can be reached, and what its connection tells: the proxy, the certificate, the clock.

Any HTTP answer counts, also an error. The request opens its connection as every other request of the same client does, so it looks the
name up, connects and checks the certificate in the same way, and through the same proxy.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import attrs
import httpx

from cutover.errors import NoAnswerError
from cutover.http.causes import describe_failure
from cutover.http.environment import PROXY
from cutover.http.outbound import CLOSE_SECONDS
from cutover.text import printable

REACH_SECONDS = 8.0
"""Seconds for one request. A name server or a firewall that swallows everything costs as many, and no more."""
_PATH = "/robots.txt"
"""A path at which every server answers at once, and which needs no token and starts no work."""
_PROXY_LOGIN = 407
"""Status of a proxy that wants a login (RFC 9110 15.5.8)."""
_DATE_ROUNDING = 0.5
"""Half of the second that a Date header leaves out (RFC 9110 5.6.7)."""


@attrs.frozen(kw_only=True)
class Reached:
    """The answer of one address, and the facts that its connection told."""

    status: int
    remote: str = ""
    """The numeric address and port at the other end; empty through a proxy, and for a service in this process."""
    proxy: str = ""
    """The proxy that the request went through, in words; empty without a proxy."""
    tls_version: str = ""
    """Such as ``TLSv1.3``; empty without TLS."""
    certificate_names: tuple[str, ...] = ()
    """The names that the certificate is for."""
    certificate_ends: float | None = None
    """Unix time at which the certificate expires; None without TLS."""
    certificate_left: float | None = None
    """Seconds until then, by the clock of this machine; None without TLS."""
    clock_ahead: float | None = None
    """Seconds by which the other clock is ahead of this machine's, negative if it is behind; None without a Date header."""


class UnreachedError(NoAnswerError):
    """No answer came from an address."""

    def __init__(self, message: str, *, remedy: str, may_pass: bool = False) -> None:
        super().__init__(message)
        self.remedy = remedy
        """The thing to do."""
        self.may_pass = may_pass
        """True if another try a moment later may succeed."""


async def reach(client: httpx.AsyncClient, url: str, *, name: str, label: str) -> Reached:
    """Send one GET that changes nothing to an address, and return the facts. All of it ends within ``REACH_SECONDS``.

    Args:
        client: The client whose connections are tried.
        url: The base URL of a service.
        name: The input that holds the URL, as the user typed it, for the remedy.
        label: Name of the request.

    Raises:
        UnreachedError: No answer came.
    """
    shown = httpx.URL(url).host
    try:
        with anyio.fail_after(REACH_SECONDS):
            request = client.build_request(
                "GET", url + _PATH, timeout=REACH_SECONDS, extensions={"label": label}
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            facts = _facts(response, time.time())
    except TimeoutError as error:
        raise _silent(shown, name) from error
    except httpx.TimeoutException as error:
        raise _silent(shown, name, proxy=_proxy_in(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise _unreached(error, shown, name) from error
    with (
        anyio.CancelScope(shield=True),
        anyio.move_on_after(CLOSE_SECONDS),
        contextlib.suppress(httpx.HTTPError, OSError),
    ):
        await response.aclose()
    if facts.proxy and facts.status == _PROXY_LOGIN:
        raise UnreachedError(
            f"{shown}: {facts.proxy} asks for a login",
            remedy="put its user and password into the URL of the proxy",
        )
    return facts


def _facts(response: httpx.Response, now: float) -> Reached:
    stream = response.extensions.get("network_stream")
    proxy = str(response.extensions.get(PROXY, ""))
    secure = stream.get_extra_info("ssl_object") if stream is not None else None
    remote = stream.get_extra_info("server_addr") if stream is not None and not proxy else None
    certificate = secure.getpeercert() if secure is not None else None
    ends = ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else None
    return Reached(
        status=response.status_code,
        remote=_remote(remote),
        proxy=proxy,
        tls_version=(secure.version() or "") if secure is not None else "",
        certificate_names=_names(certificate or {}),
        certificate_ends=ends,
        certificate_left=None if ends is None else ends - now,
        clock_ahead=_clock_ahead(response.headers.get("date"), now),
    )


def _remote(found: object) -> str:
    if not isinstance(found, tuple):
        return ""
    host, port = found[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(printable(str(value), 100) for _, value in certificate.get("subjectAltName", ()))


def _clock_ahead(date: str | None, now: float) -> float | None:
    """Return the seconds by which the clock of a Date header is ahead of the time ``now``; None for a header that holds no time."""
    try:
        moment = parsedate_to_datetime(date or "")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.timestamp() + _DATE_ROUNDING - now
    except (ValueError, TypeError, OverflowError):
        return None


def date_of(unix: float) -> str:
    """Return a Unix time as a date in UTC, such as ``2027-01-02``."""
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d}"


def _silent(host: str, name: str, *, proxy: str = "") -> UnreachedError:
    return UnreachedError(
        f"{host} gave no answer within {REACH_SECONDS:g} s{proxy}",
        remedy=f"look for a firewall, a VPN or a name server that does not answer, or correct {name}",
    )


def _proxy_in(error: BaseException) -> str:
    """Return the words about the proxy that the transport has added to an error; empty if there are none."""
    _, found, proxy = str(error).partition("; through ")
    return found + proxy


def _unreached(error: BaseException, host: str, name: str) -> UnreachedError:
    """Return the error for an address, with the remedy for its cause. Through a proxy, the cause lies with the proxy."""
    words, causes = describe_failure(error), tuple(_chain(error))
    proxy = _proxy_in(error)
    refused = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if refused is not None:
        reason = printable(refused.verify_message or str(refused))
        return UnreachedError(
            f"the certificate of {host} is refused: {reason}{proxy}",
            remedy=_for_certificate(refused, host, name),
        )
    if proxy:
        return UnreachedError(
            f"{host}: {words}",
            remedy="start or correct the proxy, or name the host in NO_PROXY",
            may_pass=True,
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes) or isinstance(error, UnicodeError):
        return UnreachedError(
            f"the name {host} is not found in DNS ({words})",
            remedy=f"correct {name}, or repair the DNS or the network of this machine",
            may_pass=any(getattr(cause, "errno", None) == socket.EAI_AGAIN for cause in causes),
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return UnreachedError(
            f"{host}: no TLS connection ({words})",
            remedy=f"check that {name} is an https:// address with the right port",
        )
    return UnreachedError(
        f"{host}: {words}", remedy=f"start what answers there, or correct {name}", may_pass=True
    )


_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""
_NOT_YET = 9
"""X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL."""
_OTHER_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""


def _for_certificate(error: ssl.SSLCertVerificationError, host: str, name: str) -> str:
    if error.verify_code in {_EXPIRED, _NOT_YET}:
        return f"renew the certificate of {host}, or correct the clock of this machine"
    if error.verify_code in _OTHER_NAME:
        return f"correct {name}, or give {host} a certificate for this name"
    return (
        f"if an authority of your own has signed it, name the file with its certificate in SSL_CERT_FILE; else find out what answers "
        f"at {name}"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and the errors that caused it."""
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
