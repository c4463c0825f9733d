"""The service of a run in the gcloud commands that an operator types."""

import pytest

from cutover.config.gcloud_service import gcloud_service

FACTS = {
    "service": "chat",
    "project": "p",
    "region": "r",
    "dry_run": False,
    "traffic_backend": "cloud-run-api",
    "cloud_run_api_url": "https://run.googleapis.com",
}
SHOWN = "gcloud run services describe chat --project p --region r"


@pytest.mark.parametrize(
    ("changed", "command"),
    [
        ({}, SHOWN),
        ({"cloud_run_api_url": "https://europe-west1-run.googleapis.com"}, SHOWN),
        (
            {"cloud_run_api_url": "http://127.0.0.1:8080"},
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN=http://127.0.0.1:8080/ {SHOWN}",
        ),
        # gcloud has settings of its own, and the operator's gcloud has the same.
        ({"cloud_run_api_url": "http://127.0.0.1:8080", "traffic_backend": "gcloud"}, SHOWN),
        ({"dry_run": True}, "gcloud run services describe SERVICE --project PROJECT --region REGION"),
    ],
    ids=["Google", "a region of Google", "loopback", "by gcloud", "a rehearsal"],
)
def test_a_command_reaches_the_api_that_the_run_used(changed: dict[str, object], command: str) -> None:
    assert gcloud_service({**FACTS, **changed}).command("describe") == command


def test_what_a_shell_would_read_otherwise_is_quoted() -> None:
    service = gcloud_service({**FACTS, "service": "a b"})
    assert service.command("update-traffic", "--to-revisions", "x;y=100") == (
        "gcloud run services update-traffic 'a b' --project p --region r --to-revisions 'x;y=100'"
    )
