"""A hold before a step that changes something, while stable serves everything: the train waits, and looks at the front door."""

import anyio

from cutover.checking.probe import Probe
from cutover.model.gates import SENTINELS
from cutover.model.holds import check_id, place
from cutover.model.results import SentinelTally, StepStatus
from cutover.production.services import Services
from cutover.train.hold import Ending, Holds
from cutover.train.sentinels import Sentinels
from cutover.train.soak import Seen, look, look_count, paced_count, soak
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
) -> SentinelTally:
    """Wait for a decision, and look at every alias at the front door meanwhile; record one check, and return the tally of the sentinels.

    A bad stream ends the wait: if the front door is broken before the change, nobody can tell what the change breaks.

    Args:
        hold: The place of the wait.
        state: The state that the operator decides about, in words.
        services: The services of the train.
        sentinels: The sentinels of the train.
        recorder: The recorder of the step.
        holds: The holds of the train.
        every: Longest time in seconds between two looks.
    """
    name, seen = check_id(hold), Seen()
    label = f"{recorder.step_id}.{name}"
    watch = sentinels.around(name)

    async def take_look() -> bool:
        def take(_: str, probe: Probe) -> bool:
            seen.log.add(probe)
            return probe.ok

        return await look({"front": services.prober}, label=label, take=take)

    async def keep_watch(seconds: float, ends: anyio.Event) -> bool:
        return await soak(
            seconds,
            clock=services.clock,
            watch=watch,
            paced=paced_count(seconds),
            looks=look_count(seconds, every),
            take_look=take_look,
            ends=ends,
        )

    async with watch.open():
        held = await holds.wait(hold, state=state, recorder=recorder, keep_watch=keep_watch)
    tally = watch.tally()
    if held.ending is not Ending.FAULT:
        held.record(recorder)
    elif seen.log.bad:
        blame = f"a stream through the front door broke the contract {place(hold)}"
        recorder.stream_check(name, seen.log, blame=blame, kind="stream", tolerable=False)
    else:
        detail = f"{tally.broken} of {tally.streams} streams broke {place(hold)}: {'; '.join(tally.details)}"
        recorder.check(name, StepStatus.FAIL, detail, kind=SENTINELS, tolerable=False)
    return tally
