"""The preview of a live run: its service, its changes, and the number of chat turns that it starts. Pure."""

import math
from collections.abc import Iterator, Sequence

import attrs

from cutover.config.config import CutoverConfig
from cutover.config.default_credentials import why_no_default_credentials
from cutover.model.asking import LOOKS, MAX_COMPARED, SIDE_BY_SIDE, TIMED_ANSWERS, first_asks
from cutover.model.e_values import clean_turns_needed
from cutover.model.holds import place
from cutover.model.judgement import LEAST_PAIRS
from cutover.model.manifest import ResponseKind
from cutover.model.share_test import streams_until_certain
from cutover.production.lane import COMPAT
from cutover.train.canary_watch import PRESSING_SECONDS
from cutover.train.sentinels import response_count
from cutover.train.soak import confirm_count, look_count, paced_count
from cutover.train.steps.rollback_drill import ROLLBACK_LOOKS

_MINUTE = 60.0
_READS_SECONDS = 60.0
"""Seconds for the preflight, both smokes and the final state."""
_SHIFT_SECONDS = 15.0
"""Seconds for one change of the traffic: written, settled, proven, probed."""
_OTHER_SHIFTS = 2
"""Changes of the traffic besides the steps of the drill: the rollback, and the restore of the captured split."""
_FLIP_SECONDS = 30.0
"""Seconds to set and prove the routes of every instance, or only to verify them."""
_ALL = 100
_COMPARE_SECONDS = 2.0
"""Seconds for one ask of the dual run: one request, twice to each service at once."""


@attrs.frozen(kw_only=True)
class Turns:
    """The number of chat turns that a train starts if it runs to its end, by the place where they start."""

    front: int
    """Chat turns at the front door, BASE_URL."""
    canary_tag: int
    """Chat turns at the canary's own URL, if a tag gives it one."""
    stable_tag: int
    """Chat turns at stable's own URL, if a tag gives it one."""
    legacy: int
    """Chat turns at the legacy service."""

    @property
    def total(self) -> int:
        """The sum of all four. It is too high if a revision has no URL of its own."""
        return self.front + self.canary_tag + self.stable_tag + self.legacy


def turns(config: CutoverConfig) -> Turns:
    """Return the number of chat turns of a train that passes.

    The count assumes that a tag URL shows the canary, no turn fails, and the dual run finds no difference and no doubt about the latency.

    If REVISION_HEADER is set, the count assumes that the service sends this header; it is then an upper bound, because turns of the canary
    at the front door may decide a share earlier. Extra probes for a front door or a tag that lags, for a turn that failed, and for a canary
    that no tag URL shows, are not counted; ``describe`` gives the bound of the latter.
    """
    aliases = len(COMPAT.aliases)
    soak, every, held = config.canary_soak_seconds, config.canary_look_seconds, config.held_streams
    steps, looked = len(config.canary_steps), look_count(soak, every) * aliases
    # The sentinels that are in flight across one change.
    around = held + response_count(held, aliases)
    paced = paced_count(soak) if held else 0
    confirm = confirm_count(config.flip_confirm_seconds, every) if held else 0
    streams = _compared_turns(config)
    # The smoke before the change and the smoke after it.
    front = 2 * aliases
    pressed = pressed_looks(config) * aliases
    front += steps * (looked + around + paced) + pressed
    looks = ROLLBACK_LOOKS if config.revision_header else 1
    # The rollback.
    front += looks * aliases + around
    front += around + confirm if config.apply_route_flip else 0
    promotions = 1 if config.promote else 0
    front += promotions * (looked + around + paced)
    return Turns(
        front=front + streams,
        canary_tag=aliases + (steps + promotions) * looked + pressed,
        stable_tag=(steps + promotions) * looked + pressed,
        legacy=streams,
    )


def _asks(config: CutoverConfig) -> int:
    """Return the number of times that the dual run asks both services for each entry, before any is asked again."""
    reading = sum(not entry.mutates for entry in config.manifest)
    return first_asks(reading, timed=config.max_p95_latency_delta_ms > 0)


def _most_asks(config: CutoverConfig) -> int:
    """Return the number of asks for each entry if the latency is certain enough at the last look alone."""
    return _asks(config) * (LOOKS if config.max_p95_latency_delta_ms > 0 else 1)


def _compared_turns(config: CutoverConfig) -> int:
    """Return the number of chat turns that the dual run starts at each service, if no answers differ."""
    streams = [entry for entry in config.manifest if entry.response_kind is ResponseKind.SSE]
    reading = sum(not entry.mutates for entry in streams)
    changing = len(streams) - reading if config.run_mutating_requests else 0
    return reading * _asks(config) * SIDE_BY_SIDE + changing


def pressed_looks(config: CutoverConfig) -> int:
    """Return the number of looks by which the shares are held longer than CANARY_SOAK_SECONDS, until the canary is no worse.

    The count assumes that the canary has a tag URL, stable has none, and no turn fails.
    """
    pressed = _pressed(config, config.canary_steps, clean=len(COMPAT.aliases))
    # The promotion judges the canary anew.
    return pressed + (_pressed(config, (_ALL,), clean=0) if config.promote else 0)


def _pressed(config: CutoverConfig, shares: Sequence[int], *, clean: int) -> int:
    """Return the number of looks by which these shares are held longer. ``clean`` turns of the canary came before the first one."""
    aliases = len(COMPAT.aliases)
    needed = clean_turns_needed(config.max_canary_worse_percent / 100)
    looks = look_count(config.canary_soak_seconds, config.canary_look_seconds)
    pairs, pressed = 0, 0
    for percent in shares:
        compared = percent < _ALL
        a_look = aliases if compared or not config.revision_header else 2 * aliases
        clean, pairs = clean + looks * a_look, pairs + looks * aliases * compared
        too_few = LEAST_PAIRS - pairs if compared and config.max_canary_slower_percent else 0
        more = max(0, math.ceil((needed - clean) / a_look), math.ceil(too_few / aliases))
        clean, pairs = clean + more * a_look, pairs + more * aliases * compared
        pressed += more
    return pressed


def most_turns_to_see_canary(config: CutoverConfig) -> int:
    """Return the largest number of extra chat turns at the front door until the canary is judged at each step, where no tag URL answers.

    The first step, and the promotion, need as many turns of the canary as the claim "no worse" does; the others need one. The streams that are
    sent while the front door may still lag come on top.
    """
    first, *later = config.canary_steps
    needed = clean_turns_needed(config.max_canary_worse_percent / 100)
    return (
        streams_until_certain(first, needed)
        + sum(streams_until_certain(percent) for percent in later)
        + (needed if config.promote else 0)
    )


def train_seconds(config: CutoverConfig) -> float:
    """Return the seconds that a train without faults takes at most, in a usual production; the undo is not counted."""
    shares = len(config.canary_steps) + config.promote
    shifts = shares + _OTHER_SHIFTS
    # A promotion sets or verifies the routes once more, on the canary's instances.
    flips = (2 if config.apply_route_flip else 1) + config.promote
    return (
        _READS_SECONDS
        + shifts * _SHIFT_SECONDS
        + shares * config.canary_soak_seconds
        + _pressed_seconds(config)
        + flips * _FLIP_SECONDS
        + (config.flip_confirm_seconds if config.apply_route_flip else 0.0)
        + len(config.hold_at) * config.hold_timeout
        + len(config.manifest) * _most_asks(config) * _COMPARE_SECONDS
    )


def _turns_a_minute(config: CutoverConfig) -> int:
    """Return the number of chat turns that a minute of a wait starts at each of the front door and the tag URLs."""
    return look_count(_MINUTE, config.canary_look_seconds) * len(COMPAT.aliases)


def _repetition(config: CutoverConfig) -> str:
    """Return the line that says how often each request of the dual run is sent."""
    answers = _asks(config) * SIDE_BY_SIDE
    again = MAX_COMPARED - min(answers, MAX_COMPARED)
    words = [f"each request goes {answers} times to each service"]
    if config.max_p95_latency_delta_ms > 0:
        words.append(
            f"up to {_most_asks(config) * SIDE_BY_SIDE} times for MAX_P95_LATENCY_DELTA_MS, which needs {TIMED_ANSWERS} answers of each or more"
        )
    if again:
        words.append(f"where answers differ, up to {again} times more")
    return f"          {'; '.join(words)}"


def _pressed_seconds(config: CutoverConfig) -> float:
    """Return the seconds for which shares are held longer than CANARY_SOAK_SECONDS, if no turn fails."""
    looks = pressed_looks(config)
    if not config.canary_tag:
        # Perhaps the canary has no URL of its own.
        looks = max(looks, math.ceil(most_turns_to_see_canary(config) / len(COMPAT.aliases)))
    longest = max(0.0, config.canary_max_soak_seconds - config.canary_soak_seconds)
    return min(looks * min(PRESSING_SECONDS, config.canary_look_seconds), longest * len(config.canary_steps))


def turns_in_a_row(config: CutoverConfig) -> int:
    """Return the number of chat turns that a train must wait for one after another. ``train_seconds`` takes them for short."""
    streams = sum(entry.response_kind is ResponseKind.SSE for entry in config.manifest) * _most_asks(config)
    # Both smokes and the canary's own URL; for each step and for the flip the turns around the change and the last look or sentinel.
    return 3 + 2 * (len(config.canary_steps) + config.promote) + ROLLBACK_LOOKS + 2 + streams


def describe(config: CutoverConfig) -> Iterator[str]:
    """Yield the lines that describe the live run of a configuration."""
    count = turns(config)
    shares = ", ".join(f"{percent} %" for percent in config.canary_steps)
    yield f"service   {config.base_url}"
    by_api = config.traffic_backend != "gcloud"
    yield (
        f"traffic   {config.service} in {config.project}, {config.region}, by {config.traffic_backend}"
        + (f" at {config.cloud_run_api_url}" if by_api else "")
    )
    if reason := why_no_default_credentials(config):
        yield f"token     {reason}"
    yield f"drill     {config.canary_revision} gets {shares}; each share is held and watched for {config.canary_soak_seconds:g} s,"
    yield (
        f"          and on, up to {max(config.canary_soak_seconds, config.canary_max_soak_seconds):g} s, until the canary is no worse by "
        f"{config.max_canary_worse_percent:g} %, at 95 %;"
    )
    yield f"          then {config.stable_revision} gets 100 %, and then the captured split is restored"
    if config.canary_tag:
        yield f"          if the canary has no tag, it has the tag {config.canary_tag} at 0 % during the drill"
    if config.hold_at:
        yield f"hold      waits {', '.join(map(place, config.hold_at))}, up to {config.hold_timeout:g} s each, until `cutover decide` says go;"
        yield f"          each minute of a wait at a share starts about {_turns_a_minute(config)} chat turns at each place that is watched"
    yield (
        "routes    each domain and the global override are set to the new service, and that is proven"
        if config.apply_route_flip
        else "routes    are only verified (APPLY_ROUTE_FLIP=0)"
    )
    if config.promote:
        yield f"promote   after that {config.canary_revision} gets 100 % and keeps it; it is held and watched as in the drill"
    yield (
        f"compare   with {config.legacy_base_url}"
        if config.run_dual_run
        else "compare   with nothing (RUN_DUAL_RUN=0)"
    )
    if config.run_dual_run:
        yield _repetition(config)
    if config.state_url:
        yield f"state     the lock and the journal are kept in {config.state_url} too"
    if config.measures_budget:
        source = (
            f"Cloud Monitoring at {config.cloud_monitoring_url}"
            if config.slo_cloud_monitoring
            else config.slo_prometheus_url
        )
        yield (
            f"budget    measured by {source} before the first change, after each and at the end; "
            f"at most {config.max_error_budget_consumed_percent:g} % consumed, and unknown is no pass"
        )
    yield (
        f"turns     {count.front} chat turns are started at the front door"
        + (f" and {count.legacy} at the legacy service" if count.legacy else "")
        + f"; if tags give the revisions URLs, also {count.canary_tag} at the canary's and {count.stable_tag} at stable's"
    )
    if config.revision_header:
        yield (
            f"          if no tag URL of the canary answers: up to about {most_turns_to_see_canary(config)} more at the front door, "
            "until the canary is judged at each share"
        )
