"""The plans of all steps, made from a configuration. Pure."""

import attrs

from cutover.config.config import CutoverConfig
from cutover.contract import StreamContract
from cutover.production.lane import COMPAT
from cutover.protocols import COMPAT_LANE
from cutover.train.engine import TrainPlan
from cutover.train.steps import dual_run, error_budget, preflight, rollback_drill, route_flip


def lane_contract(config: CutoverConfig) -> StreamContract:
    """Return the lane's contract with the deadlines of the configuration."""
    limits = attrs.evolve(
        COMPAT_LANE.limits,
        first_event=config.max_first_event_seconds,
        event_gap=config.max_event_gap_seconds,
        whole=config.probe_timeout_seconds,
    )
    return attrs.evolve(COMPAT_LANE, limits=limits)


def train_plan(config: CutoverConfig, *, run_id: str) -> TrainPlan:
    """Return the plans of all steps.

    Args:
        config: The configuration of the run.
        run_id: The name of the run; thread ids contain it.
    """
    return TrainPlan(
        preflight=preflight.Plan(stable=config.stable_revision, canary=config.canary_revision),
        error_budget=error_budget.Plan(budget=config.budget),
        drill=rollback_drill.Plan(
            stable=config.stable_revision,
            canary=config.canary_revision,
            percents=config.canary_steps,
            soak_seconds=config.canary_soak_seconds,
            max_rollback_seconds=config.max_rollback_seconds,
            max_failures=config.max_canary_drill_failures,
            max_broken_streams=config.max_broken_streams,
        ),
        flip=route_flip.Plan(
            apply=config.apply_route_flip,
            cohort_key=config.cohort_key,
            confirm_seconds=config.flip_confirm_seconds,
            thread_id=f"{config.thread_id_prefix}_{run_id}",
        ),
        dual_run=_dual_run_plan(config, run_id) if config.run_dual_run else None,
        held_streams=config.held_streams,
        ceilings=config.ceilings,
        gcloud_service=f"{config.service} --project {config.project} --region {config.region}",
    )


def _dual_run_plan(config: CutoverConfig, run_id: str) -> dual_run.Plan:
    """Return the plan of the comparison between the new and the legacy service."""
    headers = lane_headers(config)
    return dual_run.Plan(
        entries=config.manifest,
        new=dual_run.Side(name="new", base_url=config.base_url, token=config.auth_token, headers=headers),
        old=dual_run.Side(
            name="legacy", base_url=config.legacy_base_url, token=config.legacy_token, headers=headers
        ),
        contract=lane_contract(config),
        thread_prefix=f"{config.thread_id_prefix}_{run_id}_dual_",
        run_mutating=config.run_mutating_requests,
        max_mismatches=config.max_dual_run_failures,
        max_p95_delta_ms=config.max_p95_latency_delta_ms,
    )


def lane_headers(config: CutoverConfig) -> dict[str, str]:
    """Return the headers that name the client's build, protocol and schema version."""
    values = (config.compat_client_build_id, config.compat_protocol_version, config.compat_schema_version)
    return dict(zip(COMPAT.header_names, values, strict=True))
