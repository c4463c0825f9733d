"""The reading of a measured error budget: its figures, and every reason for which it is unknown."""

from collections.abc import Callable

import attrs
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.http.outbound import Outbound
from cutover.model.error_budget import BudgetReading, Objective
from cutover.production.metrics.budget_meter import BudgetMeter, BudgetQueries, duration
from cutover.production.metrics.promql import PromqlApi
from tests.support.fake_prometheus import ALL, GOOD, SERIES, URL, FakePrometheus, answered

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

DAY = 86_400.0
QUERIES = BudgetQueries(all_events=ALL, good_events=GOOD, series=SERIES)
READY = BudgetQueries(all_events=ALL, consumed_percent="slo:consumed:percent", series=SERIES)


@attrs.define
class Wall:
    """A wall clock that a test sets."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def _meter(server: FakePrometheus, wall: Wall | None = None, **changes: object) -> BudgetMeter:
    outbound = Outbound(client=httpx.AsyncClient(transport=server), clock=EventLoopClock())
    values: dict[str, object] = {
        "api": PromqlApi(outbound=outbound, url=URL),
        "objective": Objective(percent=99.9, window=30 * DAY, max_consumed_percent=5.0),
        "queries": QUERIES,
        "scrape_seconds": 15.0,
        "short_window": 300.0,
        "long_window": 3600.0,
        "wall": wall or Wall(),
    }
    return BudgetMeter(**{**values, **changes})  # type: ignore[arg-type]


async def _reading(server: FakePrometheus, **changes: object) -> BudgetReading:
    return await _meter(server, **changes).read()  # type: ignore[arg-type]


async def test_a_reading_has_the_consumed_share_and_both_burn_rates() -> None:
    reading = await _reading(FakePrometheus(events=1_000_000, bad=30))
    assert reading.consumed_percent == pytest.approx(3.0)
    assert reading.short_burn_rate == pytest.approx(0.03)
    assert reading.long_burn_rate == pytest.approx(0.03)
    assert (reading.events, reading.unknown, reading.holds) == (1_000_000, "", True)


@pytest.mark.parametrize(("bad", "holds"), [(49, True), (51, False), (1370, False)])
async def test_a_share_above_the_ceiling_does_not_hold_and_may_be_above_100(bad: float, holds: bool) -> None:
    reading = await _reading(FakePrometheus(bad=bad))
    assert reading.consumed_percent == pytest.approx(bad / 10)
    assert (reading.holds, reading.unknown) == (holds, "")


async def test_all_queries_of_a_reading_are_for_one_moment() -> None:
    server = FakePrometheus()
    await _reading(server)
    assert len(server.asked) == 8
    assert {time for _, time in server.asked} == {"1700000000.000"}


async def test_the_window_takes_the_place_of_its_name_in_each_query() -> None:
    server = FakePrometheus()
    await _reading(server)
    asked = {query for query, _ in server.asked}
    assert {ALL.replace("$window", text) for text in ("2592000s", "300s", "3600s")} <= asked
    assert {GOOD.replace("$window", text) for text in ("2592000s", "300s", "3600s")} <= asked
    assert not [query for query in asked if "$" in query]


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (FakePrometheus(age=45.0), "the newest sample is 45 s old, and less than 45 s is allowed"),
        (
            FakePrometheus(coverage=0.8999),
            "samples cover only 89.9 % of the window of 30 d, and 90 % is needed",
        ),
        (FakePrometheus(events=19_999), "there were 19999 events in 30 d, and 20000 are needed"),
        (FakePrometheus(events=0), "0 events"),
        (FakePrometheus(events=50_000, bad=-500), "no counts of one window"),
        (FakePrometheus(events=50_000, bad=50_001), "no counts of one window"),
    ],
    ids=["stale", "hole", "too-few", "none", "more-good-than-all", "negative"],
)
async def test_a_reading_without_evidence_is_unknown_and_does_not_hold(
    server: FakePrometheus, words: str
) -> None:
    reading = await _reading(server)
    assert words in reading.unknown
    assert (reading.consumed_percent, reading.holds) == (None, False)


async def test_the_least_evidence_is_enough() -> None:
    reading = await _reading(FakePrometheus(age=44.9, coverage=0.9, events=20_000))
    assert (reading.unknown, reading.holds) == ("", True)


Answer = Callable[[str], httpx.Response | Exception | None]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("time()", "the age of the newest sample"),
        ("count_over_time", "the coverage of the window"),
        (ALL.replace("$window", "2592000s"), "events"),
        (GOOD.replace("$window", "2592000s"), "the share over 30 d"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [answered("NaN"), answered(), answered("1", "2"), httpx.Response(503), httpx.ConnectError("refused")],
    ids=["nan", "empty", "two", "503", "dead"],
)
async def test_each_part_of_a_reading_must_have_an_answer(
    part: str, name: str, answer: httpx.Response | Exception
) -> None:
    reading = await _reading(
        FakePrometheus(override=lambda query: answer if query.startswith(part) else None)
    )
    assert reading.unknown.startswith(f"{name}: ")
    assert not reading.holds


async def test_an_unknown_burn_rate_decides_nothing() -> None:
    reading = await _reading(FakePrometheus(override=lambda query: answered() if "[300s]" in query else None))
    assert (reading.short_burn_rate, reading.long_burn_rate, reading.holds) == (None, 0.0, True)
    assert "burn rate unknown over the short window" in reading.describe()


async def test_later_readings_say_what_was_spent_since_the_first() -> None:
    wall, server = Wall(), FakePrometheus(bad=0)
    meter = _meter(server, wall)
    first = await meter.read()
    wall.now += 36 * 60
    server.bad = 1000
    second = await meter.read()
    assert first.spent_percent is None
    # One in a thousand failed for 36 minutes: a burn rate of 1 for a 1,200th of the window.
    assert second.spent_percent == pytest.approx(100 / 1200)
    assert "0.08333 % was spent since the train began" in second.describe() or not second.holds


async def test_a_ready_query_gives_the_share_and_the_events_are_counted_all_the_same() -> None:
    server = FakePrometheus(override=lambda query: answered("4.5") if "slo:" in query else None)
    reading = await _reading(server, queries=READY)
    assert (reading.consumed_percent, reading.holds, reading.short_burn_rate) == (4.5, True, None)
    few = FakePrometheus(events=10, override=server.override)
    assert "10 events" in (await _reading(few, queries=READY)).unknown


async def test_a_ready_query_for_any_window_gives_the_burn_rates_too() -> None:
    queries = attrs.evolve(READY, consumed_percent="percent_over($window)")
    server = FakePrometheus(override=lambda query: answered("450") if "percent_over" in query else None)
    reading = await _reading(server, queries=queries)
    assert (reading.consumed_percent, reading.short_burn_rate, reading.holds) == (450.0, 4.5, False)


async def test_a_negative_share_is_unknown() -> None:
    server = FakePrometheus(override=lambda query: answered("-1") if "slo:" in query else None)
    assert "-1 % is no consumed share" in (await _reading(server, queries=READY)).unknown


@pytest.mark.parametrize(("seconds", "text"), [(3600.0, "3600s"), (0.5, "500ms"), (21.6, "21600ms")])
def test_a_window_is_written_as_promql_writes_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
