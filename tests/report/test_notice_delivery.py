"""Notices are sent beside a piece of work, each within its bound, and never change how the work ends."""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from cutover.errors import RefusedError, UndoUnprovenError
from cutover.model.train_events import StepStarted, TrainEvent
from cutover.report.notices.delivery import MOST_WAITING, NOTICE_SECONDS, Notices, Receiver
from cutover.report.notices.notice import Notice, NoticeKind

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.virtual_time,
    pytest.mark.filterwarnings("ignore:NOTIFY_SLACK_URL:RuntimeWarning"),
]

EVENT = StepStarted(step_id="s")


def _notice(events: Sequence[TrainEvent]) -> Notice:
    return Notice(
        kind=NoticeKind.STARTED, number=len(events), at="", train="t", rehearsal=False, project="", region="",
        service="", base_url="", stable_revision="", canary_revision="",
    )  # fmt: skip


class _Room:
    """Notices to one receiver that takes some seconds for each."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.got: list[int] = []
        self.begun: list[int] = []
        self.seconds, self.error = seconds, error
        self.events: list[TrainEvent] = []
        self.receiver = Receiver(name="NOTIFY_SLACK_URL", send=self._send)
        self.notices = Notices(receivers=(self.receiver,), notice_of=_notice)
        self.notices.events = self.events

    async def _send(self, notice: Notice) -> None:
        self.begun.append(notice.number)
        await anyio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.got.append(notice.number)

    def tell(self, count: int = 1) -> None:
        for _ in range(count):
            self.events.append(EVENT)
            self.notices.observe(EVENT)

    def work(
        self, count: int, then: Callable[[], Awaitable[object]] | None = None
    ) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            self.tell(count)
            if then is not None:
                await then()
            return "result"

        return work


async def test_every_notice_is_sent_in_order_and_the_result_comes_back() -> None:
    room = _Room(seconds=1.0)
    assert await room.notices.beside(room.work(4)) == "result"
    assert room.got == [1, 2, 3, 4]
    assert room.notices.problems == ()


async def test_a_notice_is_sent_while_the_work_goes_on() -> None:
    room = _Room(seconds=1.0)

    async def later() -> None:
        await anyio.sleep(2.0)
        assert room.got == [1]
        room.tell()
        await anyio.sleep(2.0)
        assert room.got == [1, 2]

    await room.notices.beside(room.work(1, later))


async def test_a_receiver_that_hangs_holds_the_end_up_by_twice_the_bound_and_the_last_notice_is_tried() -> (
    None
):
    room = _Room(seconds=3600.0)
    started = anyio.current_time()
    with pytest.warns(RuntimeWarning, match="NOTIFY_SLACK_URL: 10 of the notices"):
        assert await room.notices.beside(room.work(10)) == "result"
    assert anyio.current_time() - started <= 2 * NOTICE_SECONDS + 0.1
    assert room.begun[-1] == 10
    (problem,) = room.notices.problems
    assert "NOTIFY_SLACK_URL: 10 of the notices of this run were not delivered" in problem
    assert "not delivered within 5 s" in problem
    assert "notices change no verdict" in problem


async def test_a_receiver_that_hangs_does_not_hold_the_work_up() -> None:
    room = _Room(seconds=3600.0)
    ended: list[float] = []

    async def then() -> None:
        await anyio.sleep(0.5)
        ended.append(anyio.current_time())

    started = anyio.current_time()
    await room.notices.beside(room.work(3, then))
    assert ended[0] - started == pytest.approx(0.5, abs=0.1)


async def test_a_long_queue_drops_its_oldest_notices() -> None:
    room = _Room(seconds=4.9)
    await room.notices.beside(room.work(MOST_WAITING + 5))
    assert room.receiver.lost >= 5
    assert room.begun[-1] == MOST_WAITING + 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RefusedError("HTTP 404 (no_service)", status=404), "HTTP 404 (no_service)"),
        (KeyError("a secret"), "a fault in cutover itself: KeyError"),
    ],
)
async def test_an_error_of_the_receiver_is_a_problem_in_words_alone(error: Exception, reason: str) -> None:
    room = _Room(error=error)
    assert await room.notices.beside(room.work(2)) == "result"
    (problem,) = room.notices.problems
    assert f"last reason: {reason};" in problem
    assert "secret" not in problem


@pytest.mark.parametrize("seconds", [1.0, 3600.0])
async def test_an_error_of_the_work_is_raised_as_it_is_after_the_last_notice(seconds: float) -> None:
    room = _Room(seconds=seconds)

    async def fails() -> None:
        room.tell()
        raise UndoUnprovenError("look at the split")

    with pytest.raises(UndoUnprovenError, match="look at the split"):
        await room.notices.beside(room.work(1, fails))
    assert room.begun == [1, 2]


@pytest.mark.parametrize("seconds", [1.0, 3600.0])
async def test_a_cancelled_work_sends_its_last_notice_within_the_bound(seconds: float) -> None:
    room = _Room(seconds=seconds)

    async def undo() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10.0)
            room.tell()

    started = anyio.current_time()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await room.notices.beside(room.work(1, undo))
    assert scope.cancelled_caught
    assert room.begun == [1, 2]
    assert anyio.current_time() - started <= 10.0 + NOTICE_SECONDS + 0.1


async def test_an_unproven_undo_of_a_cancelled_work_is_raised_and_not_the_cancellation() -> None:
    room = _Room(seconds=1.0)

    async def undo() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            room.tell()
            raise UndoUnprovenError("look at the split")

    with anyio.CancelScope() as scope, pytest.raises(UndoUnprovenError):
        scope.cancel()
        await room.notices.beside(room.work(1, undo))
    assert room.got == [1, 2]


async def test_without_receivers_the_work_runs_alone() -> None:
    notices = Notices(receivers=(), notice_of=_notice)
    notices.observe(EVENT)

    async def work() -> int:
        return 7

    assert await notices.beside(work) == 7
    assert notices.problems == ()
