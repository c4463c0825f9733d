"""Parts: events that share an id follow an order of their own, and may be interleaved with those of other parts."""

import tracemalloc
from typing import Any

import attrs
import pytest

from cutover.contract import ANYTHING, Each, Limits, Severity, StreamContract
from cutover.contract.order import OrderError
from tests.support.own_streams import DONE, chunk, event, found, report_on, rules_of

KINDS = dict.fromkeys(("open", "more", "close", "step", "stop"), ANYTHING)
EACH = "open more* close by id"


def contract(each: Any, **fields: Any) -> StreamContract:
    return StreamContract(name="parts", chunks=KINDS, each=each, **fields)


def stream(text: str, **fields: object) -> list[str]:
    """Return events in short: `open:1` is a chunk of kind `open` with the id "1"."""
    parts = [word.partition(":") for word in text.split()]
    return [chunk(kind, **({"id": own_id} if colon else {}), **fields) for kind, colon, own_id in parts]


@pytest.mark.parametrize(
    ("events", "findings"),
    [
        ("open:a open:b more:a more:b close:b more:a close:a", []),
        ("open:a close:a open:b close:b", []),
        ("step stop", []),
        ("more:a close:a", [("order.unopened-part", 0, "expected an open open part, got more for a")]),
        ("open:a more:b close:a", [("order.unopened-part", 1, "expected an open open part, got more for b")]),
        ("close:a", [("order.unopened-part", 0, "expected an open open part, got close for a")]),
        ("open:a open:a close:a", [("order.unexpected", 1, "expected more or close, got open for a")]),
        ("open:a close:a open:a close:a", [("order.unexpected", 2, "expected another id: the open part has ended, got open for a"), ("order.unopened-part", 3, "expected an open open part, got close for a")]),
        ("open:a close:a close:a", [("order.unopened-part", 2, "expected an open open part, got close for a")]),
        ("open:a open:b", [("order.part-left-open", None, "expected the end of each open part, got no end for a, b")]),
    ],
)  # fmt: skip
def test_parts_with_different_ids_are_interleaved(events: str, findings: list[Any]) -> None:
    assert found(contract(EACH), *stream(events)) == findings


def test_a_part_has_a_name_in_findings() -> None:
    named = contract(Each(EACH, name="answer"))
    assert "an open answer" in found(named, *stream("close:a"))[0][2]
    for opener, name in [("text-start", "text part"), ("item.added", "item part"), ("begin", "begin part"), ("call", "call part")]:  # fmt: skip
        assert Each(f"{opener} x by id").scope().name == name


def test_an_id_may_come_again_if_the_contract_says_so() -> None:
    again = contract(Each(EACH, reopens=True))
    assert rules_of(again, *stream("open:a close:a open:a more:a close:a")) == []
    assert rules_of(again, *stream("open:a close:a more:a close:a")) == ["order.unopened-part"]
    assert rules_of(again, *stream("open:a close:a close:a open:a")) == [
        "order.unopened-part",
        "order.part-left-open",
    ]
    optional = contract(Each("open more? by id", reopens=True))
    assert rules_of(optional, *stream("open:a open:a more:a open:a")) == []
    assert rules_of(contract(Each("(open close)* by id")), *stream("open:a close:a open:a close:a")) == []


def test_a_part_need_not_end_if_the_contract_says_so() -> None:
    assert rules_of(contract(Each(EACH, must_close=False)), *stream("open:a more:a")) == []


def test_parts_must_have_ended_before_a_kind() -> None:
    before = contract(Each(EACH, closed_before="step"))
    assert found(before, *stream("open:a step close:a")) == [
        ("order.part-left-open", 1, "expected the end of each open part, got no end for a"),
        ("order.unopened-part", 2, "expected an open open part, got close for a"),
    ]
    assert rules_of(before, *stream("open:a step")) == ["order.part-left-open"]
    assert rules_of(before, *stream("open:a close:a step")) == []


def test_a_kind_ends_all_parts_at_once() -> None:
    by = contract(Each(EACH, closed_by=("step", "stop")))
    assert rules_of(by, *stream("open:a open:b step open:a close:a open:b stop")) == []
    assert rules_of(by, *stream("open:a step more:a")) == ["order.unopened-part"]


def test_later_chunks_of_a_part_repeat_fields_of_the_first() -> None:
    same = contract(Each(EACH, repeats=("role", "/data/n")))
    first, last = chunk("open", id="a", role="x", n=1), chunk("close", id="a")
    assert rules_of(same, first, chunk("more", id="a", role="x"), chunk("more", id="a", n=1.0), last) == []
    assert found(same, first, chunk("more", id="a", role=None, n=True), last) == [
        ("order.part-field", 1, "expected role x, got more with null"),
        ("order.part-field", 1, "expected /data/n 1, got more with true"),
    ]
    assert rules_of(same, chunk("open", id="a"), chunk("more", id="a", role="y"), last) == []
    assert (
        rules_of(same, first, last, chunk("open", id="b", role="y"), chunk("close", id="b", role="y")) == []
    )
    again = contract(Each(EACH, repeats="role", reopens=True))
    assert (
        rules_of(again, first, last, chunk("open", id="a", role="y"), chunk("close", id="a", role="y")) == []
    )


def test_ids_count_up_without_a_gap() -> None:
    counted = contract(Each(EACH, counts_from=0, must_close=False))
    assert rules_of(counted, *[chunk("open", id=number) for number in range(3)], chunk("more", id=0)) == []
    assert found(counted, chunk("open", id=0), chunk("open", id=2), chunk("open", id=3)) == [
        ("order.index-gap", 1, "expected the number 1, got open for 2")
    ]
    assert found(counted, chunk("open", id=1), chunk("open", id="2")) == [
        ("order.index-gap", 0, "expected the number 0, got open for 1"),
        ("order.index-gap", 1, "expected the number 1, got open for 2, which is no integer"),
    ]
    assert rules_of(counted, chunk("open", id=0.0), chunk("open", id=True)) == ["order.index-gap"]


def test_of_several_paths_the_last_counts_within_the_others() -> None:
    nested = contract(Each("open close by out, in", counts_from=0, must_close=False))
    pairs = [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1)]
    assert rules_of(nested, *[chunk("open", **{"out": out, "in": inner}) for out, inner in pairs]) == []
    assert found(nested, chunk("open", **{"out": 0, "in": 0}), chunk("open", **{"out": 1, "in": 1})) == [
        ("order.index-gap", 1, "expected the number 0, got open for 1, 1")
    ]


@pytest.mark.parametrize("paths", ["/data/o/i c", "/data/o/i, c", "/data/o/i,c"])
def test_several_paths_make_one_id(paths: str) -> None:
    several = contract(f"open close by {paths}")
    one, other = {"o": {"i": 1}, "c": 1}, {"o": {"i": 1}, "c": 2}
    assert rules_of(several, chunk("open", **one), chunk("open", **other), chunk("close", **other), chunk("close", **one)) == []  # fmt: skip
    assert found(several, chunk("open", **one), chunk("close", **other)) == [
        ("order.unopened-part", 1, "expected an open open part, got close for 1, 2"),
        ("order.part-left-open", None, "expected the end of each open part, got no end for 1, 1"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (1, "1", "1"), (1, True, "true"), (None, 0, "0"), ({"a": 1, "b": [2]}, {"a": 1, "b": [3]}, '{"a": 1, "b": [3]}'),
        (2**70, 2**70 + 1, str(2**70 + 1)), (1.5, 1, "1"), ("\ud83d", "\ud83e", "\\ud83e"), ([], {}, "{}"), (False, None, "null"),
    ],
)  # fmt: skip
def test_ids_of_any_type_stay_apart(one: object, other: object, words: str) -> None:
    mixed = attrs.evolve(contract(EACH), severities={"json.unsafe-integer": "ignored"})
    closing = chunk("open", id=one), chunk("open", id=other), chunk("close", id=other), chunk("close", id=one)
    assert rules_of(mixed, *closing) == []
    findings = found(mixed, chunk("open", id=one), chunk("close", id=other))
    assert findings[0] == ("order.unopened-part", 1, f"expected an open open part, got close for {words}")


def test_an_integer_and_a_float_with_its_value_are_one_id() -> None:
    mixed = contract(EACH)
    assert (
        rules_of(mixed, chunk("open", id=1), chunk("more", id=1.0), event('{"type":"close","id":1e0}')) == []
    )
    key_order = event('{"type":"open","id":{"a":1,"b":2}}'), event('{"type":"close","id":{"b":2,"a":1}}')
    assert rules_of(mixed, *key_order) == []


def test_events_without_the_id_are_one_part() -> None:
    assert found(contract(EACH), *stream("open more close close")) == [
        ("order.unopened-part", 3, "expected an open open part, got close for no id")
    ]


def test_the_id_of_a_part_may_be_the_events_own() -> None:
    own = contract("open more* close by /id")
    events = [event({"type": kind}, own_id=own_id) for kind, own_id in [("open", 1), ("open", 2), ("close", 2), ("close", 1)]]  # fmt: skip
    assert rules_of(own, *events) == []
    assert rules_of(own, *events[:3]) == ["order.part-left-open"]


STRICT = dict.fromkeys(KINDS, dict[str, str])


@pytest.mark.parametrize(
    "events",
    [
        [chunk("open", id=1), *stream("more:a close:a")],
        [*stream("open:a"), chunk("more", id=1), *stream("close:a")],
        [*stream("open:a more:a"), chunk("close", id=1)],
        [event('{"type":"open","id":"a","x":1}'), *stream("more:a close:a")],
        [*stream("open:a more:a"), event('{"type":"close","id":"a","x":1}')],
    ],
)
def test_a_refused_chunk_causes_no_second_finding(events: list[str]) -> None:
    refusing = attrs.evolve(contract(EACH), chunks=STRICT)
    assert rules_of(refusing, *events) == ["schema.field-type"]


def test_a_chunk_that_is_not_json_causes_no_second_finding() -> None:
    for at in range(3):
        events = stream("open:a more:a close:a")
        events[at] = event("{")
        assert rules_of(contract(EACH), *events) == ["json.syntax"]


def test_parts_left_open_are_no_second_finding_after_an_error() -> None:
    failing = contract(EACH, error="error", terminator="[DONE]")
    assert rules_of(failing, *stream("open:a"), chunk("error")) == ["stream.service-error"]
    assert rules_of(failing, *stream("open:a close:a"), DONE) == []


def test_the_owner_of_an_order_of_parts_means_its_end() -> None:
    left = report_on(contract(EACH), *stream("open:a"))
    assert [each.severity for each in left.findings] == [Severity.VIOLATION]
    lenient = contract(EACH, severities={"order.part-left-open": Severity.WARNING})
    assert report_on(lenient, *stream("open:a")).ok


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Each("open close"), "the order 'open close' of `each` does not say which events belong together; end it with `by` and a path, such as `by id`"),
        (lambda: Each("open close by "), "the order 'open close by ' of `each` does not say which events belong together; end it with `by` and a path, such as `by id`"),
        (lambda: Each("open close by /idd"), "the path /idd does not begin with /data, /event, /id or /retry"),
        (lambda: Each("open close by /id/x"), "the path /id/x goes into /id, which is text or a number"),
        (lambda: Each("open close by id", repeats="/x"), "the path /x does not begin with /data, /event, /id or /retry"),
        (lambda: Each("open .* close by id"), "the order 'open .* close' of `each` has a dot; name the kinds, because the others belong to no part"),
        (lambda: Each("open | by id"), "the order 'open |' has a place where a kind is missing, beside a | or inside ()"),
        (lambda: Each(EACH, reopens=True, counts_from=0), "each 'open more* close by id' has both reopens and counts_from; an id that comes again is not the next number"),
    ],
)  # fmt: skip
def test_a_slip_is_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(OrderError if "path" not in sentence[:8] else ValueError) as caught:
        make()
    assert str(caught.value) == sentence


def test_a_million_ids_stay_within_the_bound() -> None:
    bounded = contract(
        Each("open more* close by id name", repeats="role", counts_from=0, must_close=False),
        limits=Limits(max_open_bytes=100_000),
        severities={"order.index-gap": Severity.IGNORED},
    )
    long = "x" * 2000
    bodies = {
        "ids": [chunk("open", id=number, name=number) for number in range(20_000)],
        "long ids": [chunk("open", id={"n": [number, long]}, name=long) for number in range(2000)],
        "fields": [chunk("open", id=number, name=0, role=f"{long}{number}") for number in range(2000)],
        "groups": [chunk("open", id=f"{number}{long}", name=0) for number in range(2000)],
    }
    for name, events in bodies.items():
        body = "".join(events)
        tracemalloc.start()
        report = report_on(bounded, body)
        peak = tracemalloc.get_traced_memory()[1] - 3 * len(body)
        tracemalloc.stop()
        assert [each.rule for each in report.findings] == ["order.too-many-open"], name
        assert peak < 5_000_000, name


def test_many_parts_take_time_in_proportion() -> None:
    every = contract(Each(EACH, closed_before="step"))
    opened = [chunk("open", id=number) for number in range(10_000)]
    report = report_on(every, *opened, *[chunk("step")] * 1000, *opened)
    assert len(report.findings[0].message) < 300


def test_kinds_that_end_all_parts_take_no_time_when_none_is_open() -> None:
    """A dict that was large and is empty takes as long to iterate over as a full one."""
    for options in ({"closed_by": "step"}, {"closed_before": "step", "reopens": True}):
        own = contract(Each("open close by id", **options))
        opened = "".join(chunk("open", id=number) for number in range(20_000))
        closed = (
            "".join(chunk("close", id=number) for number in range(20_000)) if "reopens" in options else ""
        )
        assert rules_of(own, opened, closed, chunk("step") * 30_000) == []
