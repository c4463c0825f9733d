"""The plans of all steps, made from a configuration. Pure.

A field of a plan takes the value of the configuration's attribute of the same name. So a new input needs its field in the configuration
and a field in the plan of its step, and nothing here. ``train_plan`` passes a value that derives from several inputs by name.
"""

from functools import partial
from typing import Any, TypeVar

import attrs

from cutover.config.config import GOOGLE_TOKEN_INFO, CutoverConfig
from cutover.config.gcloud_service import gcloud_service
from cutover.config.values import is_google
from cutover.contract import StreamContract
from cutover.production.lane import COMPAT
from cutover.protocols import COMPAT_LANE
from cutover.report.preview import train_seconds, turns_in_a_row
from cutover.train import canary_plan, hold
from cutover.train.engine import TrainPlan
from cutover.train.reachability import Address
from cutover.train.steps import dual_run, error_budget, preflight, promotion, rollback_drill, route_flip
from cutover.train.two_services import Side
from cutover.train.undo_executor import UNDO_DEADLINE
from cutover.wiring.earlier_runs import run_that_asked_for
from cutover.wiring.token_sources import Tokens

Plan = TypeVar("Plan", bound=attrs.AttrsInstance)


def lane_contract(config: CutoverConfig) -> StreamContract:
    """Return the lane's contract with the deadlines of the configuration."""
    limits = attrs.evolve(
        COMPAT_LANE.limits,
        first_event=config.max_first_event_seconds,
        event_gap=config.max_event_gap_seconds,
        whole=config.probe_timeout_seconds,
    )
    return attrs.evolve(COMPAT_LANE, limits=limits)


def train_plan(config: CutoverConfig, *, run_id: str, tokens: Tokens) -> TrainPlan:
    """Return the plans of all steps.

    Args:
        config: The configuration of the run.
        run_id: The name of the run; thread ids contain it.
        tokens: The tokens of the run.
    """
    thread_id = f"{config.thread_id_prefix}_{run_id}"
    share = _plan(canary_plan.Plan, config)
    service = gcloud_service(config.facts())
    return _plan(
        TrainPlan,
        config,
        preflight=_plan(
            preflight.Plan,
            config,
            addresses=addresses(config),
            gcloud_service=service,
            earlier_run=partial(run_that_asked_for, config),
            seconds_needed=train_seconds(config) + UNDO_DEADLINE,
            turns_in_a_row=turns_in_a_row(config),
            token_info_url=GOOGLE_TOKEN_INFO if is_google(config.cloud_run_api_url) else "",
        ),
        error_budget=_plan(error_budget.Plan, config),
        drill=_plan(rollback_drill.Plan, config, share=share, gcloud_service=service),
        flip=_plan(route_flip.Plan, config, thread_id=thread_id),
        promotion=promotion.Plan(share=share, gcloud_service=service) if config.promote else None,
        hold=_plan(hold.Plan, config, run_id=run_id),
        dual_run=_dual_run_plan(config, thread_id, tokens) if config.run_dual_run else None,
        gcloud_service=service,
        rehearsal=config.dry_run,
    )


def addresses(config: CutoverConfig) -> tuple[Address, ...]:
    """Return the addresses that the train of a configuration needs. gcloud finds its own."""
    fields = ["base_url"]
    fields += ["cloud_run_api_url"] if config.traffic_backend != "gcloud" else []
    fields += ["legacy_base_url"] if config.run_dual_run else []
    # A rehearsal keeps no state.
    fields += ["state_api_url"] if config.state_url and not config.dry_run else []
    return tuple(
        Address(field=field, name=config.name_of(field), url=getattr(config, field)) for field in fields
    )


def _dual_run_plan(config: CutoverConfig, thread_id: str, tokens: Tokens) -> dual_run.Plan:
    """Return the plan of the comparison between the new and the legacy service."""
    headers = lane_headers(config)
    return _plan(
        dual_run.Plan,
        config,
        new=Side(name="new", base_url=config.base_url, token=tokens.auth, headers=headers),
        old=Side(name="legacy", base_url=config.legacy_base_url, token=tokens.legacy, headers=headers),
        contract=lane_contract(config),
        thread_prefix=f"{thread_id}_dual_",
    )


def _plan(kind: type[Plan], config: CutoverConfig, **derived: Any) -> Plan:  # noqa: ANN401
    """Return a plan: each field has its derived value, or the value of the configuration's attribute of the same name."""
    names = {field.name for field in attrs.fields(kind)} - derived.keys()
    return kind(**derived, **{name: getattr(config, name) for name in names})


def lane_headers(config: CutoverConfig) -> dict[str, str]:
    """Return the headers that name the client's build, protocol and schema version."""
    values = (config.compat_client_build_id, config.compat_protocol_version, config.compat_schema_version)
    return dict(zip(COMPAT.header_names, values, strict=True))
