"""The service of a run in gcloud commands, from the facts that its journal keeps."""

from collections.abc import Mapping

from cutover.config.values import is_google
from cutover.model.gcloud_service import GcloudService


def gcloud_service(facts: Mapping[str, object]) -> GcloudService:
    """Return the service in the commands that an operator types to show or to mend the production of a run."""
    if facts.get("dry_run"):
        return GcloudService.to_fill_in()
    api_url = str(facts.get("cloud_run_api_url") or "")
    # As a traffic backend, gcloud has its own settings, which the operator's gcloud shares.
    elsewhere = facts.get("traffic_backend") != "gcloud" and api_url != "" and not is_google(api_url)
    name, project, region = (str(facts.get(key)) for key in ("service", "project", "region"))
    return GcloudService(name, project, region, api_url if elsewhere else "")
