"""The route flip: which answers of a write path are a redirect, and which answers of the second look are evidence."""

from pathlib import Path

import pytest

from cutover.model.results import Check, StepStatus
from cutover.simulation import Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import NO_REPLY, Reply, json_reply
from cutover.simulation.faults import Effect, Outcome, Refuse, Scope, Strike
from tests.support.embedded_trains import EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

PATHS = 11
"""Number of evaluated paths."""


async def flipped(directory: Path, *strikes: tuple[Scope, Effect]) -> dict[str, Check]:
    """Run a train on a production with these faults; return the checks of its flip by id."""
    fault = Fault(
        name="custom",
        sentence="Custom.",
        strikes=tuple(Strike(scope, effect) for scope, effect in strikes),
        outcome=Outcome(exit_code=1),
    )
    summary = await EmbeddedTrain(live_config(directory), faults=(fault,)).run()
    flip = summary.step("route-flip")
    assert flip is not None
    return {check.check_id: check for check in flip.checks}


def at(operation: Operation, **limits: object) -> Scope:
    return Scope(operations=frozenset({operation}), sites=frozenset({Site.FRONT}), **limits)  # type: ignore[arg-type]


class TestWriteProbes:
    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (201, StepStatus.PASS),
            (202, StepStatus.PASS),
            (401, StepStatus.PASS),
            (422, StepStatus.PASS),
            (301, StepStatus.FAIL),
            (307, StepStatus.FAIL),
            (503, StepStatus.FAIL),
        ],
    )
    async def test_a_location_is_a_redirect_in_a_3xx_answer_alone(
        self, status: int, outcome: StepStatus, tmp_path: Path
    ) -> None:
        answer = Reply(status=status, headers=(("location", "/api/things/7"),))
        checks = await flipped(tmp_path, (at(Operation.WRITE), Refuse(answer)))
        probes = [check for name, check in checks.items() if name.startswith("write-")]
        assert [check.status for check in probes] == [outcome] * 3
        assert all(("a redirect to" in check.detail) is (300 <= status < 400) for check in probes)


class TestSecondLook:
    async def test_no_answer_is_no_evidence(self, tmp_path: Path) -> None:
        checks = await flipped(tmp_path, (at(Operation.ROUTE_EVALUATE, first=PATHS + 1), Refuse(NO_REPLY)))
        assert checks["confirm-evaluations"].status is StepStatus.ERROR
        assert checks["evaluate-root"].status is StepStatus.PASS

    async def test_one_path_that_leads_elsewhere_is_evidence_beside_paths_without_an_answer(
        self, tmp_path: Path
    ) -> None:
        legacy = json_reply({"data": {"path": "/", "target": "legacy", "reason": "lost"}})
        last = at(Operation.ROUTE_EVALUATE, first=PATHS + 1, last=PATHS + 1)
        later = at(Operation.ROUTE_EVALUATE, first=PATHS + 2)
        checks = await flipped(tmp_path, (last, Refuse(legacy)), (later, Refuse(NO_REPLY)))
        check = checks["confirm-evaluations"]
        assert check.status is StepStatus.FAIL
        assert "leads to legacy (lost)" in check.detail.split("; ")[0]
