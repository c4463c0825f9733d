"""The first look and the last: no train sets out from a place to which nobody could come back, none ends unread."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from cutover.model.results import Check, StepStatus
from cutover.model.route_state import GLOBAL, RouteState
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import RouteIntended, StepFinished, TrafficIntended, TrainEvent
from cutover.production.routes import control_plane
from cutover.record.journal import read_journal
from cutover.simulation import Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import Fate, Reply, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Rewrite, Scope, Strike
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, EmbeddedTrain, live_config

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
        ((), {"latest": True, "latest_ready": CANARY}, f"LATEST is {CANARY} already"),
        ((), {"stable": CANARY, "canary": STABLE}, f"{STABLE} serves nothing ({CANARY} 100 %)"),
    ],
)
async def test_a_place_from_which_there_is_no_way_back_is_left_alone(
    faults: tuple[Fault, ...], layout: dict[str, object], why: str, tmp_path: Path
) -> None:
    trial = EmbeddedTrain(live_config(tmp_path), faults=faults, layout_changes=layout)
    summary = await trial.run()
    found = row(summary, "preflight", "traffic")
    # Nothing was judged.
    assert found.status is StepStatus.ERROR
    assert why in found.detail
    assert summary.exit_code == 3
    assert not any(request.operation in CHANGES for request in trial.production.requests)


@pytest.mark.parametrize(
    ("operation", "check_id"), [(Operation.ROUTE_STATUS, "routes"), (Operation.SERVICE_READ, "traffic")]
)
async def test_an_unreadable_state_at_the_end_fails_the_train_which_is_undone(
    operation: Operation, check_id: str, tmp_path: Path
) -> None:
    whole = EmbeddedTrain(live_config(tmp_path / "whole"), layout_changes={"instances": 1})
    assert (await whole.run()).passed
    reads = sum(request.operation is operation for request in whole.production.requests)
    last = reads - (control_plane.SAMPLE_READS - 1 if operation is Operation.ROUTE_STATUS else 0)
    struck = fault(operation, FORBIDDEN, first=last, last=last)
    trial = EmbeddedTrain(live_config(tmp_path), faults=(struck,), layout_changes={"instances": 1})
    summary = await trial.run()
    found = row(summary, "final-state", check_id)
    # A denied read says nothing about production, but after a change the train has failed all the same.
    assert (found.status, found.tolerable) == (StepStatus.ERROR, False)
    assert "HTTP 403" in found.detail
    assert summary.exit_code == 1
    assert summary.undo is not None
    assert summary.undo.proven
    assert trial.production.traffic == {STABLE: 100}
    assert set(trial.production.route_targets().values()) == {None}


async def overtaken(trial: EmbeddedTrain, after: str, deed: Callable[[], object]) -> CutoverSummary:
    """Run a train; once this step is over somebody else does something; leave the requests since in the log."""
    seen = 0

    def observe(event: TrainEvent) -> None:
        nonlocal seen
        if isinstance(event, StepFinished) and event.result.step_id == after:
            deed()
            seen = len(trial.production.requests)

    summary = await trial.run(observer=observe)
    assert seen
    trial.production.requests[:] = trial.production.requests[seen:]
    return summary


def intents(trial: EmbeddedTrain) -> list[TrafficIntended | RouteIntended]:
    assert trial.config.output_dir is not None
    events = read_journal(trial.config.output_dir / "journal.jsonl")
    return [event for event in events if isinstance(event, TrafficIntended | RouteIntended)]


class TestOvertaken:
    """Somebody else changes production after the preflight: what they did is never written over."""

    @pytest.mark.parametrize(
        ("layout", "split", "why"),
        [
            (
                {},
                ((STABLE, 60), (CANARY, 40)),
                f"served: captured {STABLE} 100 %, found {STABLE} 60 %, {CANARY} 40 %",
            ),
            ({}, ((CANARY, 100),), f"asked for: captured {STABLE} 100 %, found {CANARY} 100 %"),
            ({}, ((None, 100),), f"asked for: captured {STABLE} 100 %, found LATEST 100 %"),
            ({"latest": True}, ((STABLE, 100),), f"asked for: captured LATEST 100 %, found {STABLE} 100 %"),
            ({}, ((STABLE, 100),), "tags: captured canary="),
        ],
    )
    async def test_a_split_before_the_drill(
        self, layout: dict[str, object], split: tuple[tuple[str | None, int], ...], why: str, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes=layout)
        targets = tuple(Target(revision=name, percent=percent) for name, percent in split)
        summary = await overtaken(
            trial, "stream-smoke-pre", lambda: trial.production._deployment.update(targets, Fate())
        )
        found = row(summary, "canary-rollback-drill", "status-pre")
        assert (found.status, found.tolerable) == (StepStatus.FAIL, False)
        assert why in found.detail
        assert (summary.exit_code, summary.undo) == (1, None)
        assert not any(request.operation in CHANGES for request in trial.production.requests)
        assert trial.production.traffic_spec == targets

    async def test_a_deployment_that_is_under_way(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        deployment = trial.production._deployment
        summary = await overtaken(
            trial, "stream-smoke-pre", lambda: deployment.update(deployment.spec, Fate(settles_after=600.0))
        )
        assert "somebody else is deploying" in row(summary, "canary-rollback-drill", "status-pre").detail
        assert not any(request.operation in CHANGES for request in trial.production.requests)

    @pytest.mark.parametrize("latest", [False, True])
    async def test_a_revision_that_became_ready_matters_where_latest_serves(
        self, latest: bool, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"latest": latest})
        summary = await overtaken(trial, "stream-smoke-pre", trial.production._deployment.deploy)
        assert summary.passed is not latest
        if latest:
            assert "LATEST: captured " in row(summary, "canary-rollback-drill", "status-pre").detail
            assert not any(request.operation in CHANGES for request in trial.production.requests)
        else:
            assert trial.production.traffic == {STABLE: 100}

    @pytest.mark.parametrize("apply", [True, False])
    async def test_an_override_before_the_flip(self, apply: bool, tmp_path: Path) -> None:
        trial = EmbeddedTrain(
            live_config(tmp_path, apply_route_flip=apply), layout_changes={"flipped": not apply}
        )
        stable = trial.production._front_door.all_of(STABLE)

        def override() -> None:
            for instance in stable:
                instance.overrides["auth_entry"] = "legacy"

        summary = await overtaken(trial, "canary-rollback-drill", override)
        found = row(summary, "route-flip", "control-status")
        assert (found.status, found.tolerable) == (StepStatus.FAIL, False)
        was = "clear" if apply else "rust_shell"
        assert found.detail.endswith(f": auth_entry: captured {was}, found legacy")
        assert summary.exit_code == 1
        assert not any(request.operation is Operation.ROUTE_OVERRIDE for request in trial.production.requests)
        assert {instance.overrides["auth_entry"] for instance in stable} == {"legacy"}

    async def test_one_capture_serves_the_whole_train(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        assert (await trial.run()).passed
        traffic = {event.captured for event in intents(trial) if isinstance(event, TrafficIntended)}
        routes = {event.captured for event in intents(trial) if isinstance(event, RouteIntended)}
        assert (len(traffic), len(routes)) == (1, 1)


def test_a_domain_that_nobody_knew_is_told() -> None:
    captured = RouteState(overrides=(("a", None), (GLOBAL, None)))
    found = RouteState(overrides=(("b", "legacy"), (GLOBAL, None)))
    assert (
        captured.differences_from(found)
        == "a: captured clear, found unknown; b: captured unknown, found legacy"
    )
    assert captured.differences_from(attrs.evolve(captured, mode="another")) == ""


def test_a_split_that_is_asked_for_and_not_served_is_told() -> None:
    captured = TrafficState(targets=(TrafficTarget(revision="s", percent=100),), statuses=())
    found = attrs.evolve(captured, statuses=(TrafficTarget(revision="c", percent=100),), generation="8")
    assert captured.differences_from(found) == "served: captured nobody, found c 100 %"
    assert captured.differences_from(attrs.evolve(captured, generation="9", latest_ready="n", etag="9")) == ""
