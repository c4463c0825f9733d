"""Places: one place on the network has many spellings as a URL. This file brings them to one form. It asks no name server.

The form follows RFC 3986 6.2.2 and 6.2.3: case, default port, percent-encoding, dot segments. Further it has the ASCII form of an
international host name, one spelling of an IP address, no dot at the end of the host, and no slash at the end of the path.
"""

import ipaddress
import re
import socket
from urllib.parse import unquote, urlsplit

import attrs

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


@attrs.frozen(kw_only=True)
class Place:
    """The place that a URL names. Two URLs name the same place if their places are equal."""

    scheme: str
    host: str
    port: int | None
    """Port, also where the URL leaves it out; None for a scheme without a default port."""
    path: str


def place_of(url: str) -> Place:
    """Return the place that an absolute URL names. Query and fragment do not belong to it.

    Raises:
        ValueError: The URL has a wrong port, or a bracket without its partner.
    """
    parts = urlsplit(url)
    return Place(
        scheme=parts.scheme,
        host=_host(parts.hostname or ""),
        port=_DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port,
        path=_path(parts.path),
    )


def _host(name: str) -> str:
    host = unquote(name).lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            # No such name can exist, and it is equal to its own spelling alone.
            return host
    host = host.removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _ipv4(host)
    # A connection to an IPv4-mapped address (RFC 4291 2.5.5.2) is an IPv4 connection.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _ipv4(host: str) -> str:
    """Return a host with its usual spelling if it is a rare spelling of an IPv4 address, such as ``127.1`` or ``0x7f000001``."""
    if not re.fullmatch(r"[0-9a-fx.]+", host):
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _path(path: str) -> str:
    def decoded(match: re.Match[str]) -> str:
        # RFC 3986 6.2.2.2: an encoded unreserved character is equal to the character; 6.2.2.1: the hexadecimal digits are upper case.
        char = unquote(match.group())
        return char if _UNRESERVED.fullmatch(char) else match.group().upper()

    segments: list[str] = []
    for segment in _ENCODED.sub(decoded, path).split("/"):
        if segment == "..":
            # The first segment is empty: it stands before the first slash.
            del segments[max(1, len(segments) - 1) :]
        elif segment != ".":
            segments.append(segment)
    return "/".join(segments).rstrip("/")
