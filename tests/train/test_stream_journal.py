"""The streams of a run in its journal: what is kept of each, in which events, and up to which number."""

from itertools import pairwise
from pathlib import Path

import anyio
import attrs
import httpx
import pytest

from cutover.checking.event_times import MOST_TIMES, EventTimes
from cutover.checking.excerpt import AROUND, MOST_EXCERPTS
from cutover.checking.probe import MAX_CAPTURE_BYTES, QUOTED_BYTES, Probe, probe_stream
from cutover.http.connection import StreamRequest
from cutover.http.secrets import Secrets
from cutover.model.seen_stream import SeenStream
from cutover.model.train_events import CheckRecorded, StreamsSeen, TrainEvent, TrainFinished
from cutover.production.lane import COMPAT
from cutover.production.lane_prober import LaneProber
from cutover.protocols import COMPAT_LANE
from cutover.record.journal import Journal, read_journal
from cutover.simulation import FAULTS
from cutover.train.stream_journal import BATCH, MOST_IN_FULL, MOST_STREAMS, StreamJournal
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

FRONT = "https://chat.example"
GOOD = (
    b'data: {"type":"start","threadId":"t1"}\n\n'
    b'data: {"type":"start-step","threadId":"t1","turnId":"u","model":"m"}\n\n'
    b'data: {"type":"finish-step","status":"accepted","turnId":"u"}\n\n'
    b'data: {"type":"finish","status":"accepted"}\n\n'
    b"data: [DONE]\n\n"
)
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "x-vercel-ai-ui-message-stream": "v1",
    "cache-control": "no-cache",
}


async def probe_of(
    body: bytes, *, status: int = 200, capture: bool = False, secrets: tuple[str, ...] = ()
) -> Probe:
    reply = httpx.Response(status, headers=HEADERS, content=body)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: reply)) as client:
        request = StreamRequest(method="POST", url=f"{FRONT}/chat", headers={}, body=b"{}", label="t")
        return await probe_stream(
            client, request, contract=COMPAT_LANE, capture=capture, trace=True, secrets=Secrets(secrets)
        )


def seen_in(events: list[TrainEvent]) -> list[SeenStream]:
    return [stream for event in events if isinstance(event, StreamsSeen) for stream in event.streams]


@pytest.fixture
def prober() -> LaneProber:
    return LaneProber(
        client=httpx.AsyncClient(),
        base_url=FRONT,
        lane=COMPAT,
        headers={},
        contract=COMPAT_LANE,
        thread_prefix="t_",
    )


@pytest.fixture
def streams() -> StreamJournal:
    return StreamJournal(journal=Journal(), front_door=FRONT)


class TestEventTimes:
    @pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 12_345])
    def test_the_times_of_a_stream_of_any_length_are_bounded_and_spread_over_all_of_it(
        self, count: int
    ) -> None:
        times = EventTimes()
        for number in range(count):
            times.note(number / 10, count=number + 1)
        kept = times.times()
        assert len(kept) == min(count, MOST_TIMES)
        assert sorted(kept) == list(kept)
        if count:
            assert (kept[0], kept[-1]) == (0.0, (count - 1) / 10)
        # No part of the stream is left without a time: the largest gap is a few times the even one.
        gaps = [later - earlier for earlier, later in pairwise(kept)]
        assert all(gap <= 4 * count / 10 / MOST_TIMES + 0.1 for gap in gaps)

    def test_bytes_without_a_whole_event_have_no_time(self) -> None:
        times = EventTimes()
        times.note(1.0, count=0)
        times.note(2.0, count=3)
        times.note(3.0, count=3)
        assert times.times() == (2.0,)


class TestExcerpts:
    async def test_a_finding_has_the_bytes_on_both_sides_of_its_place(self) -> None:
        body = GOOD.replace(b'"type":"finish",', b'"type":"finish\xff\x00\x1b\\",')
        (first, *_) = (await probe_of(body)).excerpts
        place = first.finding.byte_offset
        assert place is not None
        assert first.before.endswith('"turnId":"u"}\\n\\n')
        assert first.after.startswith('data: {"type":"finish\\\\xff\\u0000\\u001b\\\\"'[:20])
        assert first.after.isprintable()
        assert max(len(first.before), len(first.after)) <= 4 * AROUND

    async def test_a_finding_at_the_end_of_the_body_has_no_bytes_after_it(self) -> None:
        found = (await probe_of(GOOD.removesuffix(b"data: [DONE]\n\n"))).excerpts
        assert found[0].before.endswith('"status":"accepted"}\\n\\n')
        assert found[0].after == ""

    async def test_a_refusal_has_the_first_bytes_of_its_body(self) -> None:
        probe = await probe_of(b"<html>overloaded</html>", status=503)
        assert probe.excerpts[0].finding.byte_offset is None or probe.excerpts[0].finding.byte_offset == 0
        assert probe.excerpts[0].after.startswith("<html>overloaded")

    async def test_only_the_first_findings_have_excerpts(self) -> None:
        probe = await probe_of(GOOD + b"data: x\n\n" * 50)
        assert len(probe.report.findings) > MOST_EXCERPTS
        assert len(probe.excerpts) == MOST_EXCERPTS

    @pytest.mark.parametrize("capture", [False, True])
    async def test_a_secret_is_masked_in_the_bytes_also_where_the_kept_part_ends_inside_it(
        self, capture: bool
    ) -> None:
        secret = "marked-secret-of-the-user"
        end = MAX_CAPTURE_BYTES if capture else QUOTED_BYTES
        filler = b": " + b"x" * (end - len(GOOD) - 12) + b"\n"
        body = f"data: {secret}\n\n".encode() + GOOD + filler[: end - len(GOOD) - 50] + secret.encode() * 4
        probe = await probe_of(body + b"\n\n", secrets=(secret,), capture=capture)
        assert probe.excerpts
        shown = "".join(each.before + each.after for each in probe.excerpts)
        assert "marked" not in shown

    async def test_without_a_trace_nothing_is_kept(self) -> None:
        reply = httpx.Response(200, headers=HEADERS, content=GOOD + GOOD)
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: reply)) as client:
            request = StreamRequest(method="POST", url=f"{FRONT}/chat", headers={}, body=b"{}", label="t")
            probe = await probe_stream(client, request, contract=COMPAT_LANE)
        assert (probe.ok, probe.event_times, probe.excerpts, probe.body) == (False, (), (), b"")


class TestStreamJournal:
    async def test_good_streams_are_recorded_together_and_a_bad_one_at_once(
        self, streams: StreamJournal, prober: LaneProber
    ) -> None:
        good, bad = await probe_of(GOOD), await probe_of(GOOD + GOOD)
        for _ in range(BATCH - 1):
            streams.take(prober, "drill.traffic-5.the front door", "chat", good, 0.5)
        assert streams.journal.events == []
        streams.take(prober, "sentinel.traffic-5.held-0", "chat", bad, 2.0)
        (event,) = streams.journal.events
        assert isinstance(event, StreamsSeen)
        assert len(event.streams) == BATCH
        last = event.streams[-1]
        assert (last.change, last.kind, last.ok, last.place) == ("traffic-5", "held", False, "")
        assert last.reason.startswith(last.findings[0].rule)
        assert 1900 < last.held <= 2000
        assert last.count == len(GOOD.split(b"\n\n")[:-1]) * 2

    async def test_of_very_many_streams_the_journal_keeps_a_part_and_counts_the_rest(
        self, streams: StreamJournal, prober: LaneProber
    ) -> None:
        good, bad = await probe_of(GOOD), await probe_of(GOOD + GOOD)
        for _ in range(MOST_STREAMS + 40):
            streams.take(prober, "drill.traffic-5", "chat", good, 0.5)
            streams.take(prober.at("https://tag.example"), "drill.traffic-5", "chat", bad, 0.5)
        streams.take(prober, "drill.traffic-25", "chat", good, 0.5)
        streams.flush()
        streams.flush()
        seen = seen_in(streams.journal.events)
        assert len(seen) == 2 * MOST_STREAMS + 1
        assert sum(bool(stream.findings) for stream in seen) == MOST_IN_FULL
        assert {stream.place for stream in seen} == {"", "https://tag.example"}
        left_out = [
            event.left_out
            for event in streams.journal.events
            if isinstance(event, StreamsSeen) and event.left_out
        ]
        assert left_out == [(("traffic-5", 80),)]
        # The bound that docs/operating.md states.
        assert len(streams.journal.events) < MOST_STREAMS + 10


@pytest.mark.parametrize("fault", [None, "finish-doubled-after-flip"])
async def test_a_train_records_the_streams_of_every_step_before_the_step_ends(
    fault: str | None, tmp_path: Path
) -> None:
    config = live_config(tmp_path, held_streams=2, canary_soak_seconds=3.0, flip_confirm_seconds=2.0)
    train = EmbeddedTrain(config, faults=() if fault is None else (FAULTS[fault],))
    summary = await train.run()
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    seen = seen_in(events)
    assert isinstance(events[-1], TrainFinished)
    changes = {stream.change for stream in seen}
    assert changes >= {"stream-smoke-pre", "traffic-5", "traffic-100", "rollback", "route-flip"}
    assert {stream.kind for stream in seen} == {"probe", "held", "response", "paced"}
    assert {stream.revision for stream in seen} == {STABLE, CANARY}
    for tally in summary.sentinels:
        sentinels = [each for each in seen if each.change == tally.change and each.kind != "probe"]
        assert (len(sentinels), sum(not each.ok for each in sentinels)) == (tally.streams, tally.broken)
    assert all(stream.times and stream.count for stream in seen if stream.ok)
    if fault is None:
        assert all(stream.ok for stream in seen)
    else:
        assert "stream-smoke-undone" in changes or summary.undo is not None
        assert any(not stream.ok and stream.findings for stream in seen)


async def test_the_streams_of_a_share_are_in_the_journal_before_its_check(tmp_path: Path) -> None:
    """A run that is killed after the check still shows what the check rests on."""
    train = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=3.0, canary_steps=(5, 100)))
    await train.run()
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    recorded = [event.check.check_id if isinstance(event, CheckRecorded) else "" for event in events]
    for share in ("traffic-5", "traffic-100"):
        at = recorded.index(share)
        assert [stream for stream in seen_in(events[:at]) if stream.change == share]
        assert not [stream for stream in seen_in(events[at:]) if stream.change == share]


async def test_a_train_that_is_cancelled_records_the_streams_that_had_ended(tmp_path: Path) -> None:
    config = live_config(tmp_path, canary_soak_seconds=30.0)
    train = EmbeddedTrain(config)
    with anyio.move_on_after(7.0):
        await train.run()
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    seen = seen_in(events)
    assert {stream.change for stream in seen} >= {"stream-smoke-pre", "traffic-5"}
    assert all(attrs.evolve(stream, place="").ok for stream in seen)
