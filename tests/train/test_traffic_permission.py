"""The permission to move traffic is tried before anything moves, and a production that cannot be tried is not judged."""

from pathlib import Path

import attrs
import pytest

from cutover.errors import NoAnswerError, PeerError, RefusedError, UnusableReplyError
from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.simulation import FAULTS, VARIANTS, Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.cloud_run import google_error
from cutover.simulation.faults import Outcome, Refuse, Scope, Strike
from cutover.train.step_recorder import StepRecorder
from tests.support.embedded_trains import CHANGES, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def row(summary: CutoverSummary, check_id: str) -> Check:
    step = summary.step("preflight")
    assert step is not None
    return next(check for check in step.checks if check.check_id == check_id)


def refused(operation: Operation, status: int, reason: str) -> Fault:
    scope = Scope(operations=frozenset({operation}), sites=frozenset({Site.CLOUD_RUN}))
    strike = Strike(scope, Refuse(google_error(status, reason, "Injected.")))
    return Fault(name="c", sentence="C.", strikes=(strike,), outcome=Outcome(exit_code=3))


async def test_the_captured_split_is_tried_once_and_nothing_is_changed(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path, canary_steps=(100,)), layout_changes={"latest": True})
    summary = await trial.run()
    assert summary.passed
    assert row(summary, "permission-traffic").detail == "the traffic may be updated"
    operations = [request.operation for request in trial.production.requests]
    assert operations.count(Operation.TRAFFIC_VALIDATE) == 1
    assert operations.count(Operation.TRAFFIC_UPDATE) == 3
    assert operations.index(Operation.TRAFFIC_VALIDATE) < operations.index(Operation.TRAFFIC_UPDATE)


@pytest.mark.parametrize(
    ("status", "reason", "advice"),
    [
        (401, "UNAUTHENTICATED", "; renew CLOUD_RUN_ACCESS_TOKEN (or "),
        (
            403,
            "PERMISSION_DENIED",
            "; ask the owner of the project openagentsgemini to grant run.services.update on openagents-control-service in us-central1 (",
        ),
        (404, "NOT_FOUND", "Injected.)"),
        (409, "ABORTED", "Injected.)"),
        (429, "RESOURCE_EXHAUSTED", "; wait a minute, then start again"),
    ],
)
async def test_a_refused_trial_is_no_evidence_and_says_what_to_do(
    status: int, reason: str, advice: str, tmp_path: Path
) -> None:
    trial = EmbeddedTrain(
        live_config(tmp_path), faults=(refused(Operation.TRAFFIC_VALIDATE, status, reason),)
    )
    summary = await trial.run()
    found = row(summary, "permission-traffic")
    assert (found.status, found.tolerable) == (StepStatus.ERROR, False)
    assert found.detail.startswith(
        "the permission to update the traffic is not proven, and nothing was changed: PATCH "
    )
    assert f"HTTP {status}" in found.detail
    assert advice in found.detail
    assert summary.exit_code == 3
    assert not any(request.operation in CHANGES for request in trial.production.requests)


async def test_an_api_without_validate_only_is_said_and_passes(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path), faults=(VARIANTS["validate-unknown"],))
    summary = await trial.run()
    assert summary.passed
    found = row(summary, "permission-traffic")
    assert found.status is StepStatus.PASS
    assert found.detail.startswith(
        "the permission to update the traffic could not be tried: the API does not take "
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("canary-missing", "; correct CANARY, or SERVICE, REGION or PROJECT"),
        ("canary-not-ready", "; repair it, or name another revision as CANARY"),
    ],
)
async def test_a_revision_that_cannot_be_tried_was_not_judged(name: str, advice: str, tmp_path: Path) -> None:
    summary = await EmbeddedTrain(live_config(tmp_path), faults=(FAULTS[name],)).run()
    found = row(summary, "revision-canary")
    assert found.status is StepStatus.ERROR
    assert found.detail.endswith(advice)
    assert summary.exit_code == 3


@pytest.mark.parametrize(
    ("name", "check_id", "advice"),
    [
        ("cloud-run-401", "traffic", "; renew CLOUD_RUN_ACCESS_TOKEN (or the application default"),
        ("cloud-run-401", "revision-stable", "; renew CLOUD_RUN_ACCESS_TOKEN (or the application default"),
        ("control-401", "routes", "; renew CONTROL_ACCESS_TOKEN"),
    ],
)
async def test_a_read_whose_token_is_refused_asks_for_a_new_token(
    name: str, check_id: str, advice: str, tmp_path: Path
) -> None:
    summary = await EmbeddedTrain(live_config(tmp_path), faults=(FAULTS[name],)).run()
    assert advice in row(summary, check_id).detail


@pytest.mark.parametrize("operation", [Operation.SERVICE_READ, Operation.REVISION_READ])
@pytest.mark.parametrize(("status", "reason"), [(403, "PERMISSION_DENIED"), (429, "RESOURCE_EXHAUSTED")])
async def test_a_denied_read_or_a_quota_that_does_not_end_is_no_evidence(
    operation: Operation, status: int, reason: str, tmp_path: Path
) -> None:
    summary = await EmbeddedTrain(live_config(tmp_path), faults=(refused(operation, status, reason),)).run()
    assert summary.exit_code == 3


@pytest.mark.parametrize(
    "error",
    [
        *(RefusedError("refused", status=status) for status in (0, 401, 403, 404, 429, 500, 503)),
        NoAnswerError("no answer"),
        UnusableReplyError("HTML"),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'status', '')}",
)
def test_a_read_without_a_usable_answer_is_an_error_and_no_verdict(error: PeerError) -> None:
    recorder = StepRecorder(step_id="s", journal=Journal(), evidence=EvidenceFolder(root=None))
    check = recorder.failure("traffic", error, tolerable=False)
    assert (check.status, check.detail) == (StepStatus.ERROR, str(error))
    assert attrs.evolve(recorder.finish(), recorded_at="").status is StepStatus.ERROR
