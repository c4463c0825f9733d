"""The service in the gcloud commands that an operator types."""

import shlex
from collections.abc import Iterable
from typing import Self

import attrs

from cutover.model.traffic_state import TrafficTarget


@attrs.frozen
class GcloudService:
    """A Cloud Run service, as gcloud commands name it."""

    name: str
    project: str
    region: str
    api_url: str = ""
    """URL of the Cloud Run API that the run used, where that is not Google's. The commands then go there too."""

    @classmethod
    def to_fill_in(cls) -> Self:
        """Return the service of a rehearsal: nobody should change real production because a simulated one needs it."""
        return cls("SERVICE", "PROJECT", "REGION")

    def command(self, verb: str, *options: str) -> str:
        """Return the shell command ``gcloud run services VERB`` for this service."""
        api = (
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN={shlex.quote(f'{self.api_url}/')} " if self.api_url else ""
        )
        where = ("--project", self.project, "--region", self.region)
        return api + shlex.join(["gcloud", "run", "services", verb, self.name, *where, *options])

    def to_split(self, targets: Iterable[TrafficTarget]) -> str:
        """Return the shell command that gives each target its percentage."""
        rows = ",".join(f"{row.revision or 'LATEST'}={row.percent}" for row in targets if row.percent)
        return self.command("update-traffic", "--to-revisions", rows)
