"""The first look and the last: no train sets out from a place to which nobody could come back, none ends unread."""

from pathlib import Path

import pytest
from trains import CANARY, CHANGES, STABLE, Trial, live_config

from cutover.control_plane import SAMPLE_READS
from cutover.results import Check, StepStatus
from cutover.simulation import Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import Reply, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Rewrite, Scope, Strike
from cutover.summary import CutoverSummary

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

FORBIDDEN = Refuse(problem(403, "forbidden", "No longer."))


def fault(operation: Operation, effect: Effect, *, first: int = 1, last: int | None = None) -> Fault:
    scope = Scope(operations=frozenset({operation}), sites=frozenset(Site), first=first, last=last)
    return Fault(name="c", sentence="C.", strikes=(Strike(scope, effect),), outcome=Outcome(exit_code=1))


def row(summary: CutoverSummary, step_id: str, check_id: str) -> Check:
    step = summary.step(step_id)
    assert step is not None
    return next(check for check in step.checks if check.check_id == check_id)


def said(old: bytes, new: bytes) -> Rewrite:
    """Have a reply say something else in one place."""

    def change(reply: Reply) -> Reply:
        body = tuple(piece.replace(old, new) if isinstance(piece, bytes) else piece for piece in reply.body)
        assert body != reply.body
        return Reply(status=reply.status, headers=reply.headers, body=body)

    return Rewrite(change)


@pytest.mark.parametrize(
    ("faults", "layout", "why"),
    [
        (
            (fault(Operation.SERVICE_READ, said(b'"observedGeneration":"7"', b'"observedGeneration":"6"')),),
            {},
            "somebody else is deploying",
        ),
        (
            (fault(Operation.SERVICE_READ, said(b"CONDITION_SUCCEEDED", b"CONDITION_FAILED")),),
            {},
            "the service's last change failed",
        ),
        ((), {"latest": True, "latest_ready": CANARY}, f"LATEST already is {CANARY}"),
        ((), {"stable": CANARY, "canary": STABLE}, f"{STABLE} serves nothing ({CANARY} 100 %)"),
    ],
)
async def test_a_place_from_which_there_is_no_way_back_is_left_alone(
    faults: tuple[Fault, ...], layout: dict[str, object], why: str, tmp_path: Path
) -> None:
    trial = Trial(live_config(tmp_path), faults=faults, layout_changes=layout)
    summary = await trial.run()
    found = row(summary, "preflight", "traffic")
    assert found.status is StepStatus.FAIL
    assert why in found.detail
    assert summary.exit_code == 1
    assert not any(request.operation in CHANGES for request in trial.production.requests)


@pytest.mark.parametrize(
    ("operation", "check_id"), [(Operation.ROUTE_STATUS, "routes"), (Operation.SERVICE_READ, "traffic")]
)
async def test_what_cannot_be_read_at_the_end_fails_the_train_and_is_undone(
    operation: Operation, check_id: str, tmp_path: Path
) -> None:
    whole = Trial(live_config(tmp_path / "whole"), layout_changes={"instances": 1})
    assert (await whole.run()).passed
    reads = sum(request.operation is operation for request in whole.production.requests)
    last = reads - (SAMPLE_READS - 1 if operation is Operation.ROUTE_STATUS else 0)
    struck = fault(operation, FORBIDDEN, first=last, last=last)
    trial = Trial(live_config(tmp_path), faults=(struck,), layout_changes={"instances": 1})
    summary = await trial.run()
    found = row(summary, "final-state", check_id)
    assert (found.status, found.tolerable) == (StepStatus.FAIL, False)
    assert "HTTP 403" in found.detail
    assert summary.exit_code == 1
    assert summary.undo is not None
    assert summary.undo.proven
    assert trial.production.traffic == {STABLE: 100}
    assert set(trial.production.route_targets().values()) == {None}
