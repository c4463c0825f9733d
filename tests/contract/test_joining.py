"""The judgement of a join: the checker goes on over several bodies as over one stream, and the ids show losses and doubles."""

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.contract import ContractChecker, FailureKind, StreamContract
from cutover.contract import joining as module
from cutover.contract.findings import Finding
from cutover.contract.joining import MAX_DELAY, JoinJudge
from cutover.protocols import COMPAT_LANE
from cutover.sse.events import Comment, MessageEvent, Retry

HEAD = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-vercel-ai-ui-message-stream", b"v1")]
CHUNKS = (
    '{"type":"start"}',
    '{"type":"start-step"}',
    '{"type":"text-start","id":"x","turnId":"t"}',
    '{"type":"text-delta","id":"x","delta":"\u00fc ","channel":"assistant"}',
    '{"type":"finish-step"}',
    '{"type":"finish"}',
    "[DONE]",
)
EVENTS = tuple(f"data: {chunk}\n\n".encode() for chunk in CHUNKS)


def judged(
    before: Sequence[str | None],
    behind: Sequence[str | None],
    *,
    withheld: Sequence[str] = (),
    contract: StreamContract = COMPAT_LANE,
) -> list[Finding]:
    judge = JoinJudge(contract)
    last, index = "", 0
    for ids in (before, behind):
        for own in ids:
            last = last if own is None else own
            judge.take(MessageEvent("x", last_event_id=last, id=own, byte_offset=10 * index), index=index)
            index += 1
        if ids is before:
            judge.reconnect(withheld=withheld)
    judge.end()
    return judge.findings


def rules(findings: Sequence[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


# ---------------------------------------------------------------- ids


@given(
    numbers=st.lists(st.integers(0, 10**12), min_size=1, max_size=30, unique=True),
    cut=st.integers(1, 30),
    text=st.text(max_size=5),
)
def test_a_perfect_join_has_no_finding(numbers: list[int], cut: int, text: str) -> None:
    # Ids with a number at the end may show an order that they do not have: see below.
    ids = [f"{text}{n}q" for n in numbers]
    assert judged(ids[:cut], ids[cut:], withheld=ids[cut : cut + 3]) == []


@given(first=st.integers(0, 10**6), cut=st.integers(3, 20), gap=st.integers(0, 5), size=st.integers(1, 4))
def test_a_gap_in_consecutive_numbers_is_a_loss(first: int, cut: int, gap: int, size: int) -> None:
    ids = [f"evt-{first + n}" for n in range(40)]
    behind = ids[cut:]
    del behind[gap : gap + size]
    [finding] = judged(ids[:cut], behind)
    assert finding.rule == "resume.lost"
    assert finding.expected == f"the id {ids[cut + gap]} behind {ids[cut + gap - 1]}"
    assert finding.event_index == cut + gap


@given(at=st.integers(0, 9), again=st.integers(0, 9))
def test_an_event_that_comes_again_is_found_whatever_its_id(at: int, again: int) -> None:
    ids = [f"{n * 7919 % 101}q" for n in range(10)]
    before, behind = ids[:5], ids[5:]
    behind.insert(at, ids[again])
    assert set(rules(judged(before, behind))) == {"resume.replayed"}


@pytest.mark.parametrize(
    ("came", "missing", "actual"),
    [
        (["e", "f"], "d", "the id e"),
        (["f"], "d", "the id f"),
        (["d", "f"], "e", "the id f"),
        (["d"], "e", "the end of the body"),
        ([], "d", "the end of the body"),
    ],
)
def test_a_withheld_event_must_come_again(came: list[str], missing: str, actual: str) -> None:
    [finding] = judged(["a", "b", "c"], came, withheld=["d", "e"])
    assert finding.rule == "resume.lost"
    assert finding.expected == f"the id {missing}, which the service had sent before the cut"
    assert finding.actual == actual


def test_withheld_events_may_share_an_id() -> None:
    assert judged(["a", "b"], ["c", "c", "d"], withheld=["c", "c"]) == []
    assert judged(["a", "b"], ["c", "d"], withheld=["b", "c"]) == []


def test_a_withheld_event_that_is_lost_is_reported_once() -> None:
    assert rules(judged(["1", "2", "3"], ["5", "6"], withheld=["4", "5"])) == ["resume.lost"]
    assert rules(judged(["1", "2", "3"], ["6", "7"], withheld=["4", "5"])) == ["resume.lost"]


@pytest.mark.parametrize(
    ("before", "behind", "found"),
    [
        (["1", "2"], ["9"], []),
        (["1", "3", "4"], ["9"], []),
        (["a1", "b2", "c3"], ["d9"], []),
        (["1", "2", "3"], ["x9"], []),
        (["1", "2", "3"], ["x"], []),
        (["3", "2", "1"], ["9", "8"], []),
        (["10", "20", "30"], ["50", "40"], ["resume.reordered"]),
        (["007", "008", "009"], ["010"], []),
        (["1" * 30, "2" * 30, "3" * 30], ["4" * 30], []),
        (["1", "1", "2", "2"], ["2", "3"], []),
        (["1", "2", "3"], ["3", "3", "4", "2", "5"], ["resume.replayed", "resume.replayed"]),
        (["", ""], ["1"], ["resume.no-id"]),
        ([None], ["1"], ["resume.no-id"]),
    ],
)
def test_numbers_count_only_if_they_followed_a_rule(
    before: list[str | None], behind: list[str | None], found: list[str]
) -> None:
    assert rules(judged(before, behind)) == found


def test_without_a_reconnection_nothing_is_judged() -> None:
    judge = JoinJudge(attrs.evolve(COMPAT_LANE, resume="id"))
    for index, own in enumerate(("1", "1", "0", None)):
        judge.take(MessageEvent("x", last_event_id="1", id=own), index=index)
    judge.end()
    report = ContractChecker(COMPAT_LANE).report()
    assert judge.findings == []
    assert judge.merged_into(report) is report


def test_many_findings_are_counted_and_a_few_kept() -> None:
    judge = JoinJudge(COMPAT_LANE)
    index = 0
    for number in range(100):
        for own in ("1", f"n{number}") if number else ("1",):
            judge.take(MessageEvent("x", last_event_id=own, id=own, byte_offset=index), index=index)
            index += 1
        if not number:
            judge.reconnect()
    report = judge.merged_into(ContractChecker(COMPAT_LANE).report())
    assert len(report.findings) == 16
    assert report.suppressed == {"resume.replayed": 99 - 16}


def test_the_memory_for_ids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_IDS", 10)
    judge = JoinJudge(COMPAT_LANE)
    for n in range(50):
        own = str(n) * 1000
        judge.take(MessageEvent("x", last_event_id=own, id=own), index=n)
    assert len(judge._seen) == 10
    assert all(len(key) < 100 for key in judge._seen)
    judge.reconnect()
    judge.take(MessageEvent("x", last_event_id="49", id="49" * 1000), index=50)
    assert rules(judge.findings) == ["resume.replayed"]


def test_the_servers_retry_sets_the_delay_within_a_bound() -> None:
    judge = JoinJudge(COMPAT_LANE)
    assert judge.delay == 0
    judge.take(Comment("x"), index=0)
    judge.take(Retry(1500), index=0)
    assert judge.delay == 1.5
    judge.take(Retry(10**18), index=0)
    assert judge.delay == MAX_DELAY


# ---------------------------------------------------------------- the checker over a join


@pytest.mark.parametrize("end", ["left", "eof", "reset"])
@pytest.mark.parametrize("inside", [0, 9])
@pytest.mark.parametrize("cut", range(1, len(EVENTS)))
def test_the_checker_goes_on_as_over_one_stream(cut: int, inside: int, end: str) -> None:
    """The cut may be inside an event: the client drops the rest, and gets the whole event again."""
    checker = ContractChecker(COMPAT_LANE.strict())
    checker.receive_head(200, HEAD, elapsed=0.1)
    checker.receive_data(b"".join(EVENTS[:cut]) + EVENTS[cut][:inside], elapsed=0.2)
    if end == "eof":
        checker.receive_eof(elapsed=0.3)
    elif end != "left":
        checker.receive_failure(FailureKind(end), elapsed=0.3)
    assert end == "left" or not checker.report().ok
    checker.receive_reconnect(elapsed=40.0)
    assert not checker.report().complete
    assert checker.next_deadline == 40.0 + COMPAT_LANE.limits.event_gap
    checker.receive_head(200, HEAD, elapsed=40.1)
    for event in EVENTS[cut:]:
        checker.receive_data(event, elapsed=40.2)
    checker.receive_eof(elapsed=40.3)
    report = checker.report()
    assert report.findings == ()
    assert report.ok
    assert report.event_count == len(EVENTS)
    assert report.byte_count == len(b"".join(EVENTS)) + inside
    assert report.timings.max_gap is not None
    assert report.timings.max_gap < 1


@pytest.mark.parametrize(
    ("kind", "rule"),
    [(FailureKind.STALL, "timing.event-gap"), (FailureKind.DEADLINE, "timing.deadline")],
)
def test_a_missed_deadline_stays_a_fault(kind: FailureKind, rule: str) -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_data(b"".join(EVENTS[:4]), elapsed=0.2)
    checker.receive_failure(kind, elapsed=20.0)
    checker.receive_reconnect(elapsed=21.0)
    checker.receive_data(b"".join(EVENTS[4:]), elapsed=21.1)
    checker.receive_eof(elapsed=21.2)
    assert [each.rule for each in checker.report().findings] == [rule]
    assert checker.report().complete


def test_findings_from_before_the_end_stay_and_offsets_go_on() -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_data(EVENTS[0] + b"data: no json\n\n", elapsed=0.1)
    checker.receive_failure(FailureKind.RESET, elapsed=0.2)
    assert [each.rule for each in checker.report().findings] == ["json.syntax", "transport.reset"]
    checker.receive_reconnect(elapsed=0.3)
    checker.receive_data(EVENTS[1] + b"data: no json\n\n", elapsed=0.4)
    syntax = [each for each in checker.report().findings if each.rule == "json.syntax"]
    assert [each.event_index for each in syntax] == [1, 3]
    assert [each.byte_offset for each in syntax] == [
        len(EVENTS[0]),
        len(EVENTS[0] + b"data: no json\n\n" + EVENTS[1]),
    ]


@pytest.mark.parametrize(
    ("cut", "status", "found"),
    [
        (4, 204, ["resume.refused"]),
        (4, 500, ["resume.refused"]),
        (4, 302, ["head.redirect"]),
        (len(EVENTS), 204, []),
        (len(EVENTS), 500, ["resume.refused"]),
    ],
)
def test_a_status_that_refuses_is_a_finding(cut: int, status: int, found: list[str]) -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_head(200, HEAD, elapsed=0.1)
    checker.receive_data(b"".join(EVENTS[:cut]), elapsed=0.2)
    checker.receive_eof(elapsed=0.3)
    checker.receive_reconnect(elapsed=0.4)
    checker.receive_head(status, [], elapsed=0.5)
    checker.receive_eof(elapsed=0.6)
    assert [each.rule for each in checker.report().findings] == found
    assert checker.report().ok is (not found)


def test_an_endless_stream_has_no_end_after_which_a_client_may_be_told_to_stop() -> None:
    checker = ContractChecker(StreamContract(name="endless", endless=True))
    checker.receive_data(b'data: {"type": "x"}\n\n', elapsed=0.2)
    checker.receive_reconnect(elapsed=0.4)
    checker.receive_head(204, [], elapsed=0.5)
    checker.receive_eof(elapsed=0.6)
    assert [each.rule for each in checker.report().findings] == ["resume.refused"]


def test_a_stream_that_is_left_is_judged_as_far_as_it_went() -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_data(b"".join(EVENTS[:3]), elapsed=0.2)
    assert checker.receive_leave(elapsed=0.3) == []
    assert checker.report().ok
    assert checker.next_deadline is None
    with pytest.raises(RuntimeError, match="the stream is over"):
        checker.receive_data(EVENTS[3], elapsed=0.4)
