"""The sign of life in a log: one line after each 30 s of silence, on virtual time."""

import io
import re
from collections.abc import Awaitable, Callable

import anyio
import pytest

from cutover.model.results import StepResult, StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    Answered,
    Interrupted,
    StepFinished,
    StepStarted,
    TrafficIntended,
    TrafficRead,
    TrainStarted,
    UndoStarted,
    Waiting,
)
from cutover.report.heartbeat import LONGEST_SILENCE, Heartbeat
from cutover.report.terminal import Terminal

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
TARGETS = (TrafficTarget(revision="stable", percent=95), TrafficTarget(revision="canary", percent=5))
SPLIT = TrafficState(targets=TARGETS, statuses=TARGETS)


async def lines_of(work: Callable[[Heartbeat], Awaitable[None]]) -> list[str]:
    """Return the lines of a log while this work runs beside the heartbeat."""
    stream = io.StringIO()
    heartbeat = Heartbeat(Terminal(stream))
    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat.beat)
        await work(heartbeat)
        group.cancel_scope.cancel()
    return [re.sub(r"^ +|^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]


async def test_a_long_soak_says_every_30_s_which_step_runs_and_who_serves() -> None:
    async def soak(heartbeat: Heartbeat) -> None:
        heartbeat.observe(TrainStarted(run_id="r", facts={}))
        heartbeat.observe(StepStarted(step_id="canary-rollback-drill"))
        heartbeat.observe(
            TrafficIntended(step_id="canary-rollback-drill", captured=SPLIT, wanted=TARGETS, etag=None)
        )
        heartbeat.observe(TrafficRead(found=SPLIT, proven=True))
        await anyio.sleep(95)

    lines = await lines_of(soak)
    assert LONGEST_SILENCE == 30
    assert lines[4:] == [
        "still running: canary-rollback-drill; waiting for the streams that watch the new split; traffic, as read last: canary 5 %, "
        f"stable 95 %; elapsed: {seconds} s"
        for seconds in (30, 60, 90)
    ]


async def test_only_silence_is_broken() -> None:
    async def talk(heartbeat: Heartbeat) -> None:
        heartbeat.observe(TrainStarted(run_id="r", facts={}))
        for number in range(20):
            await anyio.sleep(29)
            heartbeat.observe(StepStarted(step_id=f"step-{number}"))

    assert not [line for line in await lines_of(talk) if "still running" in line]


async def test_events_without_a_line_do_not_count_as_lines() -> None:
    async def write(heartbeat: Heartbeat) -> None:
        heartbeat.observe(StepStarted(step_id="route-flip"))
        for _ in range(40):
            await anyio.sleep(1)
            heartbeat.observe(Answered(key="global", outcome="accepted"))

    assert [line for line in await lines_of(write) if "still running: route-flip" in line]


async def test_side_by_side_steps_and_the_undo_are_named() -> None:
    async def interrupted(heartbeat: Heartbeat) -> None:
        heartbeat.observe(StepStarted(step_id="preflight"))
        heartbeat.observe(StepStarted(step_id="slo-error-budget-gate"))
        await anyio.sleep(31)
        heartbeat.observe(StepFinished(result=StepResult(step_id="preflight", status=StepStatus.PASS)))
        heartbeat.observe(Interrupted(cause="Cancelled"))
        heartbeat.observe(UndoStarted(reason="interrupted"))
        await anyio.sleep(31)

    said = [line for line in await lines_of(interrupted) if "still running" in line]
    assert [line.split(";")[0] for line in said] == [
        "still running: preflight, slo-error-budget-gate",
        "still running: undo",
    ]


async def test_before_the_first_event_nothing_is_said() -> None:
    assert await lines_of(lambda _: anyio.sleep(100)) == []


async def test_a_wait_for_a_decision_says_every_30_s_what_to_run() -> None:
    async def hold(heartbeat: Heartbeat) -> None:
        heartbeat.observe(StepStarted(step_id="canary-rollback-drill"))
        heartbeat.observe(
            Waiting(
                step_id="canary-rollback-drill",
                hold="25",
                wait="1-abc",
                state="canary 25 %",
                until="2026-11-29T03:04:05.000Z",
                decide="cutover decide /run go --shown 1-abc --by NAME --because TEXT",
            )
        )
        await anyio.sleep(65)

    lines = await lines_of(hold)
    assert lines[1:4] == [
        "canary-rollback-drill   WAITING at 25 % until 03:04:05 for a decision: canary 25 %",
        "DO      cutover decide /run go --shown 1-abc --by NAME --because TEXT",
        "(with stop in place of go, the train undoes its changes)",
    ]
    said = [line for line in lines if "still running" in line]
    assert len(said) == 2
    assert (
        "waiting for a decision at 25 % until 03:04:05: cutover decide /run go --shown 1-abc --by NAME --because TEXT;"
        in said[0]
    )
