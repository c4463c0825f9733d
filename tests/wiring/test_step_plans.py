"""An input keeps its name from the configuration to the plan of its step, and nothing stands in between."""

from pathlib import Path
from types import ModuleType

import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.config.manifest import shipped_manifest
from cutover.http.secrets import Secrets
from cutover.model.gcloud_service import GcloudService
from cutover.train import canary_plan
from cutover.train.engine import TrainPlan
from cutover.train.steps import dual_run, error_budget, final_state, preflight, rollback_drill, route_flip
from cutover.wiring.step_plans import train_plan
from cutover.wiring.token_sources import Tokens, tokens_of
from tests.support.embedded_trains import live_config

DERIVED = {
    "new",
    "share",
    "old",
    "contract",
    "thread_id",
    "thread_prefix",
    "gcloud_service",
    "earlier_run",
    "seconds_needed",
    "turns_in_a_row",
    "token_info_url",
    "addresses",
}
"""Fields of plans that are made of several inputs."""
CAPTURED = {"routes", "captured", "promoted"}
"""Fields of the final state's plan that hold the capture of the preflight, or what the flip wrote."""
CHANGED = {
    "stable_revision": "chat-1",
    "canary_revision": "chat-2",
    "canary_steps": (7, 9),
    "canary_soak_seconds": 11.0,
    "flip_confirm_seconds": 12.0,
    "canary_look_seconds": 12.5,
    "apply_route_flip": False,
    "cohort_key": "cohort",
    "max_rollback_seconds": 13.0,
    "max_canary_drill_failures": 14,
    "max_broken_streams": 15,
    "max_dual_run_failures": 16,
    "max_p95_latency_delta_ms": 17.0,
    "run_mutating_requests": True,
    "held_streams": 18,
    "max_error_budget_consumed_percent": 19.0,
    "run_dual_run": True,
    "canary_tag": "other-tag",
    "accept_blind_drill": True,
    "service": "chat",
}
"""Values unlike every default."""


def _tokens(config: CutoverConfig) -> Tokens:
    return tokens_of(config, clock=EventLoopClock(), secrets=Secrets())


def _plans(config: CutoverConfig) -> dict[ModuleType, attrs.AttrsInstance]:
    plan = train_plan(config, run_id="run", tokens=_tokens(config))
    assert plan.dual_run is not None
    return {
        preflight: plan.preflight,
        error_budget: plan.error_budget,
        rollback_drill: plan.drill,
        canary_plan: plan.drill.share,
        route_flip: plan.flip,
        dual_run: plan.dual_run,
    }


@pytest.mark.parametrize("step", [preflight, error_budget, rollback_drill, canary_plan, route_flip, dual_run])
def test_each_field_of_a_plan_has_the_value_of_the_input_of_its_name(
    step: ModuleType, tmp_path: Path
) -> None:
    config = live_config(tmp_path, **CHANGED)
    plan = _plans(config)[step]
    names = {field.name for field in attrs.fields(type(plan))} - DERIVED
    assert names
    assert {name: getattr(plan, name) for name in names} == {name: getattr(config, name) for name in names}


@pytest.mark.parametrize(
    "step", [preflight, error_budget, rollback_drill, canary_plan, route_flip, dual_run, final_state]
)
def test_each_field_of_a_plan_is_an_input_or_derived(step: ModuleType, tmp_path: Path) -> None:
    config = live_config(tmp_path)
    names = {field.name for field in attrs.fields(step.Plan)}
    assert {name for name in names if not hasattr(config, name)} <= DERIVED | CAPTURED


def test_the_train_itself_has_its_inputs(tmp_path: Path) -> None:
    config = live_config(tmp_path, **CHANGED, project="p", region="r")
    plan = train_plan(config, run_id="run", tokens=_tokens(config))
    assert isinstance(plan, TrainPlan)
    assert (plan.held_streams, plan.ceilings.broken_streams) == (18, 15)
    assert plan.gcloud_service == GcloudService("chat", "p", "r")
    assert plan.flip.thread_id == "thread_prod_stream_smoke_run"
    assert plan.dual_run is not None
    assert plan.dual_run.manifest == shipped_manifest()
    assert plan.dual_run.thread_prefix == "thread_prod_stream_smoke_run_dual_"


def test_a_plan_without_a_dual_run_has_none(tmp_path: Path) -> None:
    config = live_config(tmp_path)
    assert train_plan(config, run_id="run", tokens=_tokens(config)).dual_run is None
