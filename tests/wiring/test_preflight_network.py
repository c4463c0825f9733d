"""`cutover preflight` on real connections: a network that is dead, and a production that gcloud is asked about."""

import time
from pathlib import Path

import anyio
import pytest

from cutover.report.preflight_report import PreflightReport, as_lines, status_of
from cutover.wiring.preflight import preflight_cutover, preflight_production
from tests.support.embedded_trains import CHANGES, live_config
from tests.support.served_production import fake_gcloud, served

CLOSED = "http://127.0.0.1:9"
"""Nothing listens at this port of loopback, and nothing that the system starts may."""


def statuses(report: PreflightReport) -> dict[str, str]:
    return {check.check_id: status_of(check) for check in report.lines}


def detail(report: PreflightReport, check_id: str) -> str:
    return next(check.detail for check in report.checks if check.check_id == check_id)


@pytest.mark.anyio
async def test_a_dead_network_gives_one_clear_line_for_each_address_at_once(tmp_path: Path) -> None:
    config = live_config(
        tmp_path,
        base_url=CLOSED,
        cloud_run_api_url="https://run..example",
        legacy_base_url="http://127.0.0.1:19",
        run_dual_run=True,
    )
    began = time.monotonic()
    report = await preflight_cutover(config)
    assert time.monotonic() - began < 8
    failed = [check for check in report.lines if check.status.failed]
    assert [check.check_id for check in failed] == [
        "address-base-url",
        "address-cloud-run-api-url",
        "address-legacy-base-url",
    ]
    assert [check.detail.partition(" (")[0] for check in failed] == [
        "BASE_URL is not reached: 127.0.0.1: could not connect",
        "CLOUD_RUN_API_URL is not reached: the name run..example is not found in DNS",
        "LEGACY_BASE_URL is not reached: 127.0.0.1: could not connect",
    ]
    skipped = {name for name, status in statuses(report).items() if status == "skip"}
    assert {
        "routes",
        "permission-routes",
        "traffic",
        "permission-traffic",
        "revision-canary",
        "clock",
        "token-auth",
    } <= skipped
    assert detail(report, "traffic") == "not asked, because CLOUD_RUN_API_URL is not reached"
    assert report.exit_code == 3
    assert "traffic: not known, because it was not read" in "\n".join(as_lines(report))


@pytest.mark.slow
def test_gcloud_has_no_trial_and_that_is_said(tmp_path: Path) -> None:
    with fake_gcloud(tmp_path), served(tmp_path) as production:
        report = anyio.run(preflight_production, production.live())
        found = statuses(report)
        assert "address-cloud-run-api-url" not in found
        assert found["permission-traffic"] == "warn"
        assert "gcloud has no dry run of an update; check that its account has " in detail(
            report, "permission-traffic"
        )
        assert report.exit_code == 0
        assert not any(entry.operation in CHANGES for entry in production.production.requests)
