"""The identity of a service for its lock: what the train moves, however its address is written."""

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit

from cutover.config.config import CutoverConfig
from cutover.record.lock import ServiceLock

_GOOGLE = "googleapis.com"
"""The domain of Google's endpoints; each of them, also a regional one, reaches the same services."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def service_lock(config: CutoverConfig) -> ServiceLock:
    """Return the lock of the service that this configuration moves: project, region, service, and the API that knows it.

    BASE_URL is no part of it: two addresses of one service have one split.
    """
    service = (config.project, config.region, config.service)
    # An earlier version took BASE_URL as it was typed.
    typed = dict.fromkeys((config.base_url, config.base_url.lower()))
    return ServiceLock.of(
        *service, _api(config.cloud_run_api_url), earlier=[(*service, address) for address in typed]
    )


def _api(url: str) -> str:
    """Return the identity of an Admin API: empty for every endpoint of Google's, else host, port and path in one spelling."""
    parts = urlsplit(url)
    host = _host(parts.hostname or "")
    if host == _GOOGLE or host.endswith(f".{_GOOGLE}"):
        return ""
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return f"{host} {port} {parts.path.rstrip('/')}"


def _host(name: str) -> str:
    """Return a host in one spelling: lower case, no final dot, the shortest form of an IPv6 address, one name for loopback."""
    name = name.lower().removesuffix(".")
    with suppress(ValueError):
        name = str(ipaddress.ip_address(name))
    return "localhost" if name in _LOOPBACK else name
