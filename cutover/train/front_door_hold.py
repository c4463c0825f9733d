"""A hold before a step that changes something, while stable serves everything: the train waits, and looks at the front door.

No sentinel is sent, because nothing changes while the train waits. A turn that breaks the contract ends the wait at once. A turn that failed on its
way is weighed, as in the drill: a long wait sees one now and then at a healthy service.
"""

import anyio

from cutover.checking.probe import Probe
from cutover.model.e_values import Bet
from cutover.model.gates import BASELINE
from cutover.model.holds import check_id, place
from cutover.model.results import StepStatus
from cutover.production.services import Services
from cutover.train.canary_turns import weighed_turn
from cutover.train.hold import Ending, Holds
from cutover.train.sentinels import Sentinels
from cutover.train.soak import FRONT_DOOR, Seen, look, look_count, soak
from cutover.train.step_recorder import StepRecorder


async def hold_at_front_door(
    hold: str,
    *,
    state: str,
    services: Services,
    sentinels: Sentinels,
    recorder: StepRecorder,
    holds: Holds,
    every: float,
    most_failed_percent: float,
    flipped: bool,
) -> None:
    """Wait for a decision, and look at every alias at the front door meanwhile; record one check.

    A front door that fails ends the wait: if it is broken before the change, nobody can tell what the change breaks.

    Args:
        hold: The place of the wait.
        state: The state that the operator decides about, in words.
        services: The services of the train.
        sentinels: The sentinels of the train; none is sent.
        recorder: The recorder of the step.
        holds: The holds of the train.
        every: Longest time in seconds between two looks.
        most_failed_percent: The percentage of the turns that may fail on their way. It ends the wait that more of them fail, at 95 %.
        flipped: True if this train has set the overrides; then a failure may be its own, and not that of the service as it was found.
    """
    name, seen, failures = check_id(hold), Seen(), Bet()
    label = f"{recorder.step_id}.{name}"

    def take(_: str, probe: Probe) -> bool:
        seen.log.add(probe)
        turn = weighed_turn(probe)
        if turn is None:
            seen.failing.add(FRONT_DOOR)
            return False
        failures.add(happened=turn.failed, most=most_failed_percent / 100)
        return not failures.holds

    async def keep_watch(seconds: float, ends: anyio.Event) -> bool:
        return await soak(
            seconds,
            clock=services.clock,
            watch=sentinels.around(name),
            paced=0,
            looks=look_count(seconds, every),
            take_look=lambda: look({FRONT_DOOR: services.prober}, label=label, take=take),
            ends=ends,
        )

    held = await holds.wait(hold, state=state, recorder=recorder, keep_watch=keep_watch)
    if held.ending is not Ending.FAULT:
        held.record(recorder)
        return
    if seen.log.bad and seen.log.bad == seen.log.without_evidence:
        # The token was refused, or no connection was made: nothing is known about the service.
        recorder.stream_check(name, seen.log, kind="stream", tolerable=False)
        return
    what = (
        "a turn broke the contract"
        if seen.failing
        else f"more than {most_failed_percent:g} % of the turns fail, at 95 %: {failures.yes} of {failures.yes + failures.no}"
    )
    detail = f"{what}, at {FRONT_DOOR} {place(hold)}"
    if flipped:
        recorder.judged_check(name, seen.log, StepStatus.FAIL, detail, kind="stream", tolerable=False)
    else:
        unhealthy = f"baseline unhealthy: {detail}"
        recorder.judged_check(name, seen.log, StepStatus.ERROR, unhealthy, kind=BASELINE, tolerable=False)
