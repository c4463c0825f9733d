"""The hosts that NO_PROXY names: requests to them use no proxy. Pure.

An entry is a host name (with its subdomains), ``.name`` or ``*.name`` (the subdomains alone), an address or a network; with or without a
scheme before it and a port after it. ``*`` stands for every host. This is what httpx and curl accept together: httpx itself fails at an
IPv6 address in brackets and at an IPv6 network, and takes an IPv4 network for a single address.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Self

import attrs
import httpx

from cutover.http.secrets import mask_login

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?:\[(?P<bracketed>[0-9a-f:.]+(?:%[^\s\]]*)?(?:/[0-9]+)?)\]|(?P<host>[^\s\[\]:/@?#]*))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


@attrs.frozen(kw_only=True)
class Unproxied:
    """One entry of NO_PROXY."""

    scheme: str = ""
    """The scheme of the URLs that this entry is about; empty for every scheme."""
    network: Network | None = None
    """The addresses of this entry, often a single one; None for a name."""
    name: str = ""
    """The host name of this entry; empty for every host."""
    subdomains_alone: bool = False
    """True if the host name itself is not meant."""
    port: int | None = None
    """The port of this entry; None for every port."""

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read one entry.

        Raises:
            ValueError: The text is no entry.
        """
        text, shown = entry.strip().lower(), mask_login(entry)
        if (network := _network(text)) is not None:
            return cls(network=network)
        found = _ENTRY.fullmatch(text)
        if found is None:
            raise ValueError(f"{shown!r} is no host name, address or network")
        host = found["bracketed"] or found["host"]
        network = _network(host)
        if found["bracketed"] and network is None:
            raise ValueError(f"{shown!r} holds no IPv6 address")
        name = "" if network is not None else host.removeprefix("*")
        return cls(
            scheme="" if found["scheme"] in {None, "all"} else found["scheme"],
            network=network,
            name=name.removeprefix("."),
            subdomains_alone=name.startswith("."),
            port=int(found["port"]) if found["port"] else None,
        )

    def holds(self, url: httpx.URL) -> bool:
        """Return True if a request to this URL uses no proxy because of this entry."""
        if self.scheme and self.scheme != url.scheme:
            return False
        if self.port is not None and self.port != (url.port or _DEFAULT_PORTS.get(url.scheme)):
            return False
        host = url.host.lower()
        if self.network is not None:
            address = _network(host)
            return address is not None and address.network_address in self.network
        if not self.name:
            return True
        return host.endswith(f".{self.name}") or (host == self.name and not self.subdomains_alone)


def parse_no_proxy(text: str) -> Sequence[Unproxied]:
    """Read the value of NO_PROXY: entries with commas or spaces between them.

    Raises:
        ValueError: An entry is none.
    """
    return tuple(Unproxied.parse(entry) for entry in re.split(r"[\s,]+", text) if entry)


def _network(text: str) -> Network | None:
    """Return the network of an address or of a network; None for any other text. The zone of an address, as in ``fe80::1%eth0``, does not count."""
    try:
        return ipaddress.ip_network(re.sub(r"%[^/]*", "", text), strict=False)
    except ValueError:
        return None
