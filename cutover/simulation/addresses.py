"""Finds the service that a request is for, by the host and the path of the request."""

import enum
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from contextlib import suppress
from functools import cache

import attrs

from cutover.simulation.layout import Layout

METRICS_PATH = "/metrics"
"""Path of the page of metrics, at the URL of the Cloud Run API."""
_TOKENS_URL = "https://oauth2.googleapis.com"
_CLOUD_RUN_PATHS = ("/v1/projects/", "/v2/projects/", "/apis/", METRICS_PATH)
_STORAGE_PATHS = ("/storage/v1/", "/upload/storage/v1/")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Site(enum.Enum):
    """The service that a request arrives at."""

    FRONT = "front door"
    TAG = "a tagged revision's own URL"
    CLOUD_RUN = "Cloud Run API"
    LEGACY = "legacy service"
    TOKENS = "Google's page about tokens"
    STORAGE = "Cloud Storage API"


_OWN_PATHS = {Site.CLOUD_RUN: _CLOUD_RUN_PATHS, Site.STORAGE: _STORAGE_PATHS}
"""A service that may share its host with another one, and the beginnings of its own paths."""


@attrs.frozen
class Place:
    """A service, and the request's path relative to the URL of that service."""

    site: Site
    path: str
    tag: str | None = None
    """Traffic tag that the request's URL belongs to; None for any URL that is not a tag's own."""


def locate(layout: Layout, tag_urls: Mapping[str, str], *, authority: str, path: str) -> Place | None:
    """Return the service that a request is for, or None if no service has such a URL.

    The URL with the longest matching path wins. A tie goes to the Cloud Run API (for its own paths alone, such as
    ``/v2/projects/...``), then to the legacy service, Cloud Storage (for its own paths alone), the tags and the front door.

    Args:
        layout: the URLs of the services.
        tag_urls: URL by traffic tag, at this moment.
        authority: the request's host, with its port if it has one.
        path: the request's path.
    """
    urls = [
        (layout.cloud_run_url, Site.CLOUD_RUN, None),
        (_regional(layout.cloud_run_url, layout.region), Site.CLOUD_RUN, None),
        (layout.legacy_url, Site.LEGACY, None),
        (_TOKENS_URL, Site.TOKENS, None),
        (layout.storage_url, Site.STORAGE, None),
        *((url, Site.TAG, tag) for tag, url in tag_urls.items()),
        (layout.front_url, Site.FRONT, None),
    ]
    found: Place | None = None
    longest = -1
    for url, site, tag in urls:
        host, base = _parts(url)
        below = path.removeprefix(base) if path == base or path.startswith(f"{base}/") else None
        wanted = below is not None and below.startswith(_OWN_PATHS.get(site, ""))
        if below is not None and wanted and len(base) > longest and _same_host(authority, host):
            found, longest = Place(site, below or "/", tag), len(base)
    return found


@cache
def _parts(url: str) -> tuple[str, str]:
    """Return the host of a service's URL, in the spelling of `_spelled`, and its path."""
    parts = urllib.parse.urlsplit(url)
    return _spelled(parts.netloc).removesuffix(_DEFAULT_PORTS.get(parts.scheme, "")), parts.path.rstrip("/")


def _regional(url: str, region: str) -> str:
    """Return the URL that gcloud uses for an API: the region stands before the host name. An IPv6 address has no such URL."""
    return url if "://[" in url else url.replace("://", f"://{region}-", 1)


def _same_host(authority: str, host: str) -> bool:
    requested = _spelled(authority)
    return host in (requested, requested.removesuffix(":443"), requested.removesuffix(":80"))


def _spelled(authority: str) -> str:
    """Return a host and its port in one spelling: lower case, an IPv6 address in its shortest form, a port without leading zeros."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?", authority.lower())
    if found is None:
        return authority.lower()
    host, port = found[1], (found[2] or "").lstrip("0")
    if host.startswith("["):
        with suppress(ValueError):
            host = f"[{ipaddress.ip_address(host[1:-1])}]"
    return f"{host}:{port}" if port else host
