"""The reader of an owner's chunks: integers, kinds and texts as they came, in bounded memory, and nothing that raises."""

import itertools
import tracemalloc
from typing import Any, Literal

import attrs
import msgspec
import pytest

from cutover.contract import ANYTHING, TEXT, Kind, StreamContract
from cutover.contract.paths import is_deep, json_text, value_at
from tests.support.own_streams import DONE, chunk, event, found, piecewise, report_on, rules_of

ANY = StreamContract(name="any")


def test_without_declared_kinds_any_kind_is_right() -> None:
    report = report_on(ANY, chunk("a"), chunk("b", x=[1]), chunk("a"))
    assert report.findings == ()
    assert report.chunk_counts == {"a": 2, "b": 1}
    assert found(ANY, event("[]"), event({"type": 5})) == [
        ("schema.missing-field", 0, "expected a field type, got no type"),
        ("schema.field-type", 1, "expected a text at /data/type, got type: 5"),
    ]


def test_a_thousand_kinds_and_more_are_counted_together() -> None:
    ordered = attrs.evolve(ANY, order="start .* finish", terminator="[DONE]")
    body = "".join(
        [
            chunk("start"),
            *[chunk(f"kind{number}") for number in range(1500)],
            chunk("x" * 5000),
            chunk("finish"),
            DONE,
        ]
    )
    report = report_on(ordered, body)
    assert report.findings == ()
    assert report.chunk_counts["finish"] == 1
    assert report.chunk_counts["(other kinds)"] > 1000
    assert sum(report.chunk_counts.values()) == 1504
    assert all(len(kind) <= 200 for kind in report.chunk_counts)


def test_the_kinds_of_many_streams_stay_within_bounds() -> None:
    named = attrs.evolve(ANY, kind="/event")
    for first in range(0, 2000, 150):
        report = report_on(named, *[event(1, f"kind{number}") for number in range(first, first + 150)])
        assert len(report.chunk_counts) == 150


def test_a_million_different_kinds_stay_within_bounds() -> None:
    events = [chunk(f"{number}{'k' * 1000}") for number in range(3000)]
    events += [event(str(number), f"n{number}") for number in range(20_000)]
    by_name = attrs.evolve(ANY, kind="/event")
    for contract, sent in ((ANY, events[:3000]), (by_name, events[3000:])):
        body = "".join(sent).encode()
        tracemalloc.start()
        report = piecewise(contract, [body])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.findings == ()
        assert peak < 20_000_000


@pytest.mark.parametrize(
    "kind",
    [
        "a (last)",
        "(anywhere)",
        "(error)",
        ".",
        "[DONE]",
        "end of the body",
        "(other kinds)",
        "",
        "*",
        "\ud83d",
        "\x00",
        "class",
        "1",
    ],
)
def test_no_kind_of_a_stream_means_something_to_the_checker(kind: str) -> None:
    """The words of the tables are words of the checker, and a stream may not say them."""
    contract = attrs.evolve(
        ANY, order="a .* b", terminator="[DONE]", error="e", anywhere="p", end={"done": True}
    )
    last = chunk("b", done=True)
    assert rules_of(contract, chunk("a"), chunk(kind), chunk("c"), last, DONE) == []
    assert rules_of(contract, chunk("a"), chunk(kind)) == ["order.finish-missing"]
    assert rules_of(contract, chunk(kind), last, DONE) == ["order.unexpected"]


class One(msgspec.Struct, tag="one"):
    n: int


class Two(msgspec.Struct, tag="two"):
    s: str


def test_one_shape_for_all_may_be_a_union_with_a_tag() -> None:
    tagged = StreamContract(name="x", chunks=One | Two, order="one* two")
    assert report_on(tagged, chunk("one", n=1), chunk("two", s="")).chunk_counts == {"one": 1, "two": 1}
    assert rules_of(tagged, chunk("one", n="1"), chunk("two", s="")) == ["schema.field-type"]
    assert rules_of(tagged, chunk("one", n=1), chunk("two", s=1)) == ["schema.field-type"], "its kind counts"
    assert rules_of(tagged, chunk("one", n="1")) == ["schema.field-type", "order.finish-missing"]
    assert rules_of(tagged, chunk("three"), chunk("two", s="")) == ["schema.unknown-value"]
    assert rules_of(tagged, chunk("one", n=1), chunk("three")) == ["schema.unknown-value"], (
        "it may be the last one"
    )
    members = StreamContract(name="x", kind=Kind.member("n", "s"), chunks=dict[str, int], order="n s")
    assert rules_of(members, event({"n": "1"}), event({"s": 1})) == ["schema.field-type"]
    by_function = StreamContract(name="x", kind=lambda data: "one", chunks=dict[str, int])
    assert rules_of(by_function, event({"n": "1"})) == ["schema.field-type"]


def test_a_refused_event_of_a_single_kind_has_its_kind() -> None:
    single = StreamContract(name="x", kind=Kind.single(), chunks=int, order="event event event")
    assert rules_of(single, event(1), event('"x"'), event(3)) == ["schema.field-type"]
    assert rules_of(single, event(1), event('"x"')) == ["schema.field-type", "order.finish-missing"]


def test_each_event_needs_an_id_of_its_own_if_the_stream_can_be_resumed() -> None:
    resumed = attrs.evolve(ANY, resume="id")
    assert rules_of(resumed, event({"type": "a"}, own_id=1), event({"type": "a"}, own_id="")) == []
    assert found(resumed, event({"type": "a"}, own_id=1), chunk("b")) == [
        ("resume.no-id", 1, "expected an id on each event, got an event without one")
    ]


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_bytes_that_are_not_utf8_are_read_as_a_client_does(cut: int) -> None:
    body = b'data: {"type":"a","t":"\xff"}\n\ndata: \xff\n\n'
    contract = StreamContract(name="x", chunks={"a": dict[str, str]})
    report = piecewise(contract, [body[at : at + cut] for at in range(0, len(body), cut)])
    assert sorted(each.rule for each in report.findings) == ["json.syntax", "stream.invalid-utf8"]


def test_a_syntax_error_shows_the_text_and_the_reason() -> None:
    (finding,) = report_on(ANY, event("{'type': 1}")).findings
    assert (finding.rule, finding.path, finding.keyword) == ("json.syntax", "/data", "contentMediaType")
    assert finding.message.startswith("expected JSON, got {'type': 1} (Expecting property name")
    by_name = StreamContract(name="x", kind="/event", chunks={"a": ANYTHING, "t": TEXT}, order="a t")
    assert rules_of(by_name, event("{", "a"), event("{", "t")) == ["json.syntax"]


class Typed(msgspec.Struct):
    id: str


COSTLY = StreamContract(
    name="costly", chunks={"a": Typed, "b": dict[str, Any]}, order="(a | b)*", each="a b* by id", severities={"schema.unknown-field": "violation"}
)  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        '{"type":"a","id":"x",' + ",".join(f'"f{number}":1' for number in range(40_000)) + "}",
        '{"type":"b","id":' + "[" * 150_000 + "]" * 150_000 + "}",
        '{"type":"b","id":[' + ",".join(["[]"] * 150_000) + "]}",
        '{"type":"b","id":"' + "x" * 900_000 + '"}',
        '{"type":"b","id":' + "9" * 900_000 + "}",
        "{" * 900_000,
        '"' + "\\ud83d" * 100_000 + '"',
        '{"type":"' + "t" * 900_000 + '"}',
    ],
    ids=["fields", "deep", "wide", "text", "digits", "braces", "surrogates", "kind"],
)
def test_no_single_event_costs_more_than_its_size(data: str) -> None:
    report = report_on(COSTLY, event(data), event(data))
    assert all(len(each.message) < 1500 for each in report.findings)


def test_a_value_from_json_is_shown_as_json() -> None:
    assert json_text(msgspec.UNSET) == "nothing"
    assert json_text({"b": [1.5, None], "a": "é"}) == '{"b": [1.5, null], "a": "é"}'
    assert json_text(float("inf")) == "Infinity"
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    assert json_text(deep) == "more than 200 objects and arrays inside each other"
    assert is_deep(deep)
    assert not is_deep(deep[0])
    assert not is_deep({"a": [{}] * 1000})


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(("a", "0"), 1), (("a", "1"), msgspec.UNSET), (("a", "-1"), msgspec.UNSET), (("a", "x"), msgspec.UNSET), ((), {"a": [1]}), (("a", "0", "b"), msgspec.UNSET), (("b",), msgspec.UNSET)],
)  # fmt: skip
def test_a_path_leads_to_a_value_or_to_nothing(steps: tuple[str, ...], expected: object) -> None:
    assert value_at({"a": [1]}, steps) == expected


def test_a_contract_can_be_used_for_many_streams() -> None:
    contract = StreamContract(
        name="x",
        chunks={"a": Literal["x"] | dict[str, str]},
        error="e",
        kind=Kind.field("type", overrides="ping"),
    )
    for _ in range(3):
        assert rules_of(contract, chunk("a"), event({}, "ping"), chunk("a", n=1)) == ["schema.field-type"]
        assert rules_of(contract, chunk("e")) == ["stream.service-error"]


class Readers:
    """Kinds of chunk that bring a reader of their own, as those of a document do."""

    kinds = ("a",)

    def new_reader(self, model: Any) -> Any:
        return attrs.evolve(
            model, chunks=StreamContract(name="x", chunks={"a": dict[str, str]}).chunks
        ).new_reader()


def test_the_kinds_may_bring_their_own_reader() -> None:
    contract = StreamContract(name="x", chunks=Readers(), order="a")
    assert rules_of(contract, chunk("a")) == []
    assert rules_of(contract, chunk("a", n=1)) == ["schema.field-type"]
    with pytest.raises(ValueError, match="order names the kind b"):
        attrs.evolve(contract, order="a b")


def test_the_plans_of_kinds_that_streams_decide_are_bounded() -> None:
    reader = ANY.new_reader()
    plans = [ANY.plan_kind(f"k{number}", reader) for number in range(2100)]
    assert ANY.plan_kind("k1", reader) is plans[1]
    assert ANY.plan_kind("k2099", reader) is not plans[2099]


def test_every_cut_of_hostile_text_gives_the_same_report() -> None:
    bodies = [
        chunk("a", id=[]) + chunk("b", id={}) + event('{"type":"a","id":1e999}') + event("[" * 3000),
        event('{"type":"a","type":"b"}') + "event: e\n\n" + chunk("a") + ":\r\rdata\n\n",
    ]
    contract = StreamContract(
        name="x", chunks={"a": Typed, "b": ANYTHING}, order="a b", each="a b by id", error="e"
    )
    for body in bodies:
        sent = body.encode()
        whole = piecewise(contract, [sent])
        for size in range(1, 40):
            bounds = [*range(0, len(sent), size), len(sent)]
            assert piecewise(contract, [sent[a:b] for a, b in itertools.pairwise(bounds)]) == whole
