"""What a run would do, to whom, and how many chat turns it would start; pure."""

from collections.abc import Iterator

import attrs

from cutover.config.config import CutoverConfig
from cutover.model.manifest import ResponseKind
from cutover.production.lane import COMPAT
from cutover.train.sentinels import ticks
from cutover.train.steps.rollback_drill import ROLLBACK_LOOKS


@attrs.frozen(kw_only=True)
class Turns:
    """How many chat turns a train starts that runs to its end."""

    front: int
    """At the front door."""
    canary_tag: int
    """At the canary's own URL, where a tag gives it one."""
    stable_tag: int
    legacy: int

    @property
    def total(self) -> int:
        """All of them, where both revisions have URLs of their own."""
        return self.front + self.canary_tag + self.stable_tag + self.legacy


def turns(config: CutoverConfig) -> Turns:
    """Count the turns of a train that passes, and whose service sends the header that tells who answers, where one is named."""
    aliases = len(COMPAT.aliases)
    soak = ticks(config.canary_soak_seconds)
    steps, probes = len(config.canary_steps), sum(tick.probe for tick in soak)
    around = 1 + config.held_streams if config.held_streams else 0
    paced = len(soak) - 1 if config.held_streams else 0
    confirm = len(ticks(config.flip_confirm_seconds)) - 1 if config.held_streams else 0
    streams = sum(entry.response_kind is ResponseKind.SSE for entry in config.manifest)
    front = 2 * aliases  # both smokes
    front += steps * (probes * aliases + around + paced)
    looks = ROLLBACK_LOOKS if config.revision_header else 1
    front += looks * aliases + around  # the rollback
    front += around + confirm if config.apply_route_flip else 0
    return Turns(
        front=front + streams,
        canary_tag=aliases + steps * probes * aliases,
        stable_tag=steps * probes * aliases,
        legacy=streams,
    )


def describe(config: CutoverConfig) -> Iterator[str]:
    """Say line by line what the live run does."""
    count = turns(config)
    shares = ", ".join(f"{percent} %" for percent in config.canary_steps)
    yield f"service   {config.base_url}"
    by_api = config.traffic_backend != "gcloud"
    yield (
        f"traffic   {config.service} in {config.project}, {config.region}, by {config.traffic_backend}"
        + (f" at {config.cloud_run_api_url}" if by_api else "")
    )
    yield f"drill     {config.canary_revision} gets {shares}, each held and watched for {config.canary_soak_seconds:g} s;"
    yield f"          then {config.stable_revision} gets everything, and then the traffic is as it was"
    yield (
        "routes    each domain and the global override are set to the new service, and proven"
        if config.apply_route_flip
        else "routes    are only verified (APPLY_ROUTE_FLIP=0)"
    )
    yield (
        f"compare   with {config.legacy_base_url}"
        if config.run_dual_run
        else "compare   with nothing (RUN_DUAL_RUN=0)"
    )
    yield (
        f"turns     {count.front} at the front door"
        + (f" and {count.legacy} at the legacy service" if count.legacy else "")
        + f"; where tags give them URLs, {count.canary_tag} at the canary's and {count.stable_tag} at stable's"
    )
