"""The identity of a service for its lock: what the train moves, however its address is written."""

from cutover.config.config import CutoverConfig
from cutover.config.values import is_google, is_loopback
from cutover.http.places import place_of
from cutover.record.lock import ServiceLock


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


def service_key(config: CutoverConfig) -> str:
    """Return the name of this service in the bucket of STATE_URL."""
    return ServiceLock.key(config.project, config.region, config.service, _api(config.cloud_run_api_url))


def _api(url: str) -> str:
    """Return the identity of an Admin API: empty for every endpoint of Google's, else its place; loopback has one name."""
    # Each endpoint of Google's, also a regional one, reaches the same services.
    if is_google(url):
        return ""
    place = place_of(url)
    return f"{'localhost' if is_loopback(place.host) else place.host} {place.port} {place.path}"
