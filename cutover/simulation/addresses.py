"""The service that a request is for, found by its authority and then by its path."""

import enum
import urllib.parse
from collections.abc import Mapping

import attrs

from cutover.simulation.layout import Layout

_CLOUD_RUN_PATHS = ("/v1/projects/", "/v2/projects/", "/apis/")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Site(enum.Enum):
    """The services that requests arrive at."""

    FRONT = "front door"
    TAG = "a tagged revision's own URL"
    CLOUD_RUN = "Cloud Run API"
    LEGACY = "legacy service"


@attrs.frozen
class Place:
    """A service, and the path below its URL."""

    site: Site
    path: str
    tag: str | None = None


def locate(layout: Layout, tag_urls: Mapping[str, str], *, authority: str, path: str) -> Place | None:
    """Return the service with the longest base path; the Cloud Run API wins over the front door; None if no service matches.

    Args:
        layout: the URLs of the services.
        tag_urls: URL by tag, as served now.
        authority: the request's host, with its port where it has one.
        path: the request's path.
    """
    urls = [
        (layout.cloud_run_url, Site.CLOUD_RUN, None),
        (_regional(layout.cloud_run_url, layout.region), Site.CLOUD_RUN, None),
        (layout.legacy_url, Site.LEGACY, None),
        *((url, Site.TAG, tag) for tag, url in tag_urls.items()),
        (layout.front_url, Site.FRONT, None),
    ]
    found: Place | None = None
    longest = -1
    for url, site, tag in urls:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))
        base = parts.path.rstrip("/")
        below = path.removeprefix(base) if path == base or path.startswith(f"{base}/") else None
        wanted = site is not Site.CLOUD_RUN or (below is not None and below.startswith(_CLOUD_RUN_PATHS))
        if below is not None and wanted and len(base) > longest and _same_host(authority, host):
            found, longest = Place(site, below or "/", tag), len(base)
    return found


def _regional(url: str, region: str) -> str:
    """Return the host where gcloud looks for an API: the region stands before the host's name."""
    return url.replace("://", f"://{region}-", 1)


def _same_host(authority: str, host: str) -> bool:
    asked = authority.lower()
    return host in (asked, asked.removesuffix(":443"), asked.removesuffix(":80"))
