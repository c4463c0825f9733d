"""The use of Google's application default credentials: only without CLOUD_RUN_ACCESS_TOKEN, and only for an address of Google's."""

from cutover.config.config import CutoverConfig
from cutover.config.values import is_google


def uses_default_credentials(config: CutoverConfig) -> bool:
    """Return True if application default credentials give the Admin API's token."""
    return _has_no_token(config) and is_google(config.cloud_run_api_url)


def state_uses_default_credentials(config: CutoverConfig) -> bool:
    """Return True if application default credentials give the token for the bucket of STATE_URL, with gcloud too."""
    return (
        bool(config.state_url)
        and not config.given("cloud_run_access_token")
        and is_google(config.state_api_url)
    )


def why_no_default_credentials(config: CutoverConfig) -> str:
    """Return the sentence that says why requests to the Admin API carry no token; an empty text if they carry one."""
    if not _has_no_token(config) or is_google(config.cloud_run_api_url):
        return ""
    return (
        f"{config.name_of('cloud_run_access_token')} is not set, and {config.name_of('cloud_run_api_url')} "
        f"({config.cloud_run_api_url}) is no https address of googleapis.com, so application default credentials are not sent "
        "there: requests carry no token"
    )


def _has_no_token(config: CutoverConfig) -> bool:
    return config.traffic_backend != "gcloud" and not config.given("cloud_run_access_token")
