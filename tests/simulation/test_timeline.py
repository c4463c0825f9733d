"""The timeline: the times at which later changes are made."""

import attrs

from cutover.simulation.timeline import Timeline


@attrs.define
class Clock:
    seconds: float = 100.0

    def now(self) -> float:
        return self.seconds


def test_a_change_is_not_due_before_its_time_even_if_nobody_read_the_time_before() -> None:
    clock, made = Clock(), list[str]()
    timeline = Timeline(clock.now)
    timeline.after(5.0, lambda: made.append("late"))
    timeline.catch_up()
    assert made == []
    clock.seconds += 5.0
    timeline.catch_up()
    assert made == ["late"]


def test_the_seconds_count_from_now_and_not_from_the_last_look() -> None:
    clock, made = Clock(), list[str]()
    timeline = Timeline(clock.now)
    timeline.catch_up()
    clock.seconds += 10.0
    timeline.after(5.0, lambda: made.append("late"))
    timeline.catch_up()
    assert made == []


def test_a_change_of_a_change_counts_from_the_due_time_of_the_first() -> None:
    clock, made = Clock(), list[float]()
    timeline = Timeline(clock.now)
    timeline.after(5.0, lambda: timeline.after(1.0, lambda: made.append(clock.seconds)))
    clock.seconds += 6.0
    timeline.catch_up()
    assert made == [106.0]


def test_outside_an_event_loop_time_stands_still() -> None:
    def no_loop() -> float:
        raise RuntimeError("no event loop runs")

    timeline, made = Timeline(no_loop), list[str]()
    timeline.after(0.0, lambda: made.append("now"))
    timeline.after(1.0, lambda: made.append("never"))
    assert timeline.catch_up() == 0.0
    assert made == ["now"]
