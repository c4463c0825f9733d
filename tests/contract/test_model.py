"""Whole contracts of an owner: each mistake in a stream is one finding, and no cut of the bytes changes a finding."""

import itertools
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutover.contract import (
    ANYTHING,
    TEXT,
    Contiguous,
    ContractReport,
    Each,
    Framing,
    JoinedJson,
    Kind,
    Limits,
    NeverFalls,
    ServiceError,
    StreamContract,
    Unchanged,
)
from tests.support.own_contracts import CHAT, JOB, OWN, TICKER
from tests.support.own_streams import DONE, chunk, event, piecewise, report_on
from tests.support.paths import FIXTURES


def events_of(name: str) -> list[str]:
    text = Path(FIXTURES / "streams" / "ok" / f"{name}.sse").read_text("utf-8")
    return [f"{part}\n\n" for part in text.removesuffix("\n\n").split("\n\n")]


def told(contract: StreamContract, events: list[str]) -> str:
    """Return the findings in short: each rule with the index of its event."""
    findings = report_on(contract, *events).findings
    return " ".join(
        each.rule if each.event_index is None else f"{each.rule}@{each.event_index}" for each in findings
    )


JOB_TABLE = [
    # dropped, doubled, swapped with the next one, cut behind
    ("", "order.unexpected@1", "order.unexpected@1", "order.finish-missing"),
    ("", "", "sequence.fell@2", "order.finish-missing"),
    ("", "", "order.after-finish@3", "order.finish-missing"),
    ("order.finish-missing", "order.after-finish@4", None, ""),
]
TICKER_TABLE = [
    ("", "sequence.gap@1", "sequence.gap@1 sequence.gap@2", ""),
    ("sequence.gap@1", "sequence.gap@2", "sequence.gap@1 sequence.gap@2", ""),
    ("", "sequence.gap@3", None, ""),
]
CHAT_TABLE = [
    ("order.unexpected@0", "order.unexpected@1", "order.unexpected@0 order.unexpected@1", "order.finish-missing"),
    ("order.unopened-part@2", "order.unexpected@2", "", "order.finish-missing"),
    ("order.unopened-part@3", "order.unexpected@3", "", "order.finish-missing"),
    ("", "", "", "order.finish-missing"),
    ("sequence.json@8", "sequence.json@10", "", "order.finish-missing"),
    ("", "", "", "order.finish-missing"),
    ("", "", "", "order.finish-missing"),
    ("sequence.json@8", "sequence.json@10", "", "order.finish-missing"),
    ("order.part-left-open", "order.unopened-part@9", "", "order.finish-missing"),
    ("order.unexpected@9", "order.unexpected@10", "order.unexpected@9 order.unopened-part@10", "order.finish-missing"),
    ("", "order.unopened-part@11", "order.after-finish@11", "order.finish-missing"),
    ("order.finish-missing@11", "order.after-finish@12", "order.finish-missing@11 terminator.trailing@12", "terminator.missing"),
    ("terminator.missing", "terminator.count@13", None, ""),
]  # fmt: skip
TABLES = {"job": JOB_TABLE, "ticker": TICKER_TABLE, "chat": CHAT_TABLE}
PLACES = [(name, at) for name, table in TABLES.items() for at in range(len(table))]


@pytest.mark.parametrize(("name", "at"), PLACES)
def test_one_mistake_is_one_finding(name: str, at: int) -> None:
    """Two events that change places are two mistakes, if nothing between them can be missing."""
    events, contract = events_of(name), OWN[name]
    assert len(events) == len(TABLES[name])
    dropped, doubled, swapped, cut = TABLES[name][at]
    got = [
        told(contract, events[:at] + events[at + 1 :]),
        told(contract, [*events[: at + 1], *events[at:]]),
        None if swapped is None else told(contract, [*events[:at], events[at + 1], events[at], *events[at + 2 :]]),
        told(contract, events[: at + 1]),
    ]  # fmt: skip
    assert got == [dropped, doubled, swapped, cut]


@pytest.mark.parametrize(("name", "at"), PLACES)
def test_an_event_that_is_cut_in_the_middle_is_one_finding(name: str, at: int) -> None:
    events = events_of(name)
    half = events[at][: len(events[at]) // 2 + 1]
    report = report_on(OWN[name], *events[:at], half)
    assert [each.rule for each in report.findings] == ["stream.truncated" if at else "stream.empty"]


@pytest.mark.parametrize(("name", "at"), PLACES)
def test_an_event_that_is_garbled_is_one_finding(name: str, at: int) -> None:
    events = events_of(name)
    lines = events[at].split("\n")
    garbled = "\n".join("data: {" if line.startswith("data") else line for line in lines)
    findings = told(OWN[name], [*events[:at], garbled, *events[at + 1 :]])
    # A text is right whatever it is, and a number that is not known leaves a gap.
    # A garbled terminator is one more: it is known by its whole text.
    follow_up = {("chat", 12): "json.syntax@12 terminator.missing", ("job", 0): "", ("ticker", 1): f"json.syntax@{at} sequence.gap@2", ("chat", 4): "json.syntax@4 sequence.json@9", ("chat", 7): "json.syntax@7 sequence.json@9"}  # fmt: skip
    assert findings == follow_up.get((name, at), f"json.syntax@{at}")


@pytest.mark.parametrize("contract", [JOB, TICKER, CHAT], ids=lambda each: each.name)
def test_a_variant_of_a_contract_is_a_contract(contract: StreamContract) -> None:
    events = events_of(contract.name)
    for fields in (
        {"name": "y"},
        {"limits": Limits(whole=1)},
        {"method": "post"},
        {"severities": {"json.syntax": "loss"}},
    ):
        variant = attrs.evolve(contract, **fields)
        assert report_on(variant, *events).findings == ()
        assert attrs.evolve(variant).kind == contract.kind
    assert attrs.evolve(contract, method="get").method == "GET"


def test_the_findings_of_an_event_have_its_place() -> None:
    body = [*events_of("job")[:2], event({"percent": "x"}, "progress", 3), *events_of("job")[3:]]
    (finding,) = report_on(JOB, *body).findings
    assert (finding.event_index, finding.byte_offset) == (2, len("".join(body[:2]).encode()))
    assert (finding.rule, finding.path, finding.keyword) == ("schema.field-type", "/data/percent", "type")
    assert finding.message == 'expected int, got /data/percent "x"'


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: int | str = 0
    x: Any = None


def uneven(data: Any) -> str | None:
    return "even" if len(data) % 2 == 0 else None


KINDS = ("a", "b", "c", "d", "e")
SHAPES = st.sampled_from([ANYTHING, Strict, dict[str, int], uneven, {"type": "object", "maxProperties": 2}])
ORDERS = st.sampled_from(
    [None, "a .* d", "(a | b)* c?", "a? b* (c | d)", "a (b c)* d", "(a b? c d?)*", ".* d"]
)
EACHES = st.sampled_from(
    [
        (), "a b* c by id", Each("a b* c by id", reopens=True), Each("a c? by id x", counts_from=0), Each("b c by /id"),
        Each("a b* c by id", closed_by="d"), Each("a b* by id", closed_before="d", repeats="x"), ("a b by id", "c b by x"),
    ]
)  # fmt: skip
KIND_PLACES = st.sampled_from(
    [Kind.field("type"), Kind.both("type", overrides="e"), Kind.field("type", names="forbidden"), Kind.event_name(), Kind.event_name(names="required"), Kind.of(lambda data: data["type"])]
)  # fmt: skip
RULES = st.lists(
    st.sampled_from([Contiguous("n"), Contiguous("/id"), NeverFalls("n", by="id"), Unchanged("x"), JoinedJson("t", by="id", until="c"), JoinedJson("t")]),
    max_size=3,
)  # fmt: skip


@st.composite
def contracts(draw: st.DrawFn) -> StreamContract:
    order, each = draw(ORDERS), draw(EACHES)
    if order is not None and "." not in order and each != ():
        order = None
    end = draw(st.sampled_from([(), ("d",), {"last": True}, {"/event": "d"}]))
    if end == ("d",) and order is not None and "d" not in order:
        end = ()
    # The rules name fields that `Strict` does not have, so one kind at least has another shape.
    shapes = {kind: draw(SHAPES) for kind in KINDS[:-1]}
    return StreamContract(
        name="random",
        chunks={**shapes, KINDS[-1]: draw(SHAPES.filter(lambda shape: shape is not Strict))},
        kind=draw(KIND_PLACES),
        order=order,
        each=each,
        end=end,
        terminator=draw(st.sampled_from([None, "[DONE]"])),
        endless=draw(st.booleans()),
        error=draw(st.sampled_from([None, "e", ServiceError(kind="e", member="/data/error")])),
        rules=draw(RULES),
        resume=draw(st.sampled_from([None, "id"])),
        framing=draw(st.sampled_from([Framing(), Framing(only_lf=True, no_comments=True), Framing(event_line=True, blank_line_at_end=True)])),
        severities=draw(st.sampled_from([{}, {"schema.unknown-kind": "warning", "schema.unknown-field": "violation"}, {"json.syntax": "ignored"}])),
        limits=Limits(max_event_bytes=600, max_open_bytes=draw(st.sampled_from([300, 1 << 20]))),
    )  # fmt: skip


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([0, 1, "1", 1.0, True, None, [], {"a": 1}, "x" * 300]),
        "n": st.sampled_from([1, 2, 3, "4", None, 2**80]),
        "x": st.sampled_from([0, 1, "y", {}]),
        "t": st.sampled_from(["{", "}", "", 5]),
        "last": st.booleans(),
        "error": st.sampled_from([None, "", {"code": 1}]),
    },
)
OTHERS = st.sampled_from([DONE, "data: {\n\n", "data: []\n\n", ": hi\n\n", "event: d\n\n", "id: 9\n\n", "data: 1\ndata: 2\n\n", f"data: {'z' * 700}\n\n", "data: [[[[\n\n", "retry: 5\n", "\r\n", 'data: {"type":"\\ud83d"}\n\n'])  # fmt: skip
EVENTS = st.one_of(
    st.builds(
        lambda kind, fields, name, own_id: event({"type": kind, **fields}, kind if name == "same" else name, own_id),
        st.sampled_from([*KINDS, "zz"]), FIELDS, st.sampled_from([None, None, "same", "d"]), st.sampled_from([None, None, 1, 2, ""]),
    ),
    st.builds(lambda kind, count: chunk(kind) * count, st.sampled_from(KINDS), st.integers(min_value=2, max_value=4)),
    OTHERS,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    contract=contracts(),
    events=st.lists(EVENTS, max_size=14),
    places=st.lists(st.integers(min_value=0, max_value=5000), max_size=5),
    crlf=st.booleans(),
)
def test_findings_do_not_depend_on_how_the_bytes_are_cut(
    contract: StreamContract, events: list[str], places: list[int], crlf: bool
) -> None:
    sent = [each.replace("\n", "\r\n").encode() if crlf else each.encode() for each in events]
    body = b"".join(sent)
    whole = piecewise(contract, [body])
    assert piecewise(contract, sent) == whole
    assert piecewise(contract, [body[at : at + 1] for at in range(len(body))]) == whole
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    assert piecewise(contract, [body[start:end] for start, end in itertools.pairwise(bounds)]) == whole
    check_sense(contract, whole)


def check_sense(contract: StreamContract, report: ContractReport) -> None:
    """Check that all findings have a place and a sentence."""
    assert sum(report.chunk_counts.values()) <= report.event_count
    for finding in report.findings:
        assert finding.message == f"expected {finding.expected}, got {finding.actual}"
        assert finding.expected
        assert finding.actual
        assert len(finding.message) < 1500
        assert finding.severity is contract.severity(finding.rule) or finding.rule == "schema.unknown-field"


@pytest.mark.parametrize("shape", [TEXT, ANYTHING])
def test_a_contract_of_the_least_possible_words_is_of_use(shape: Any) -> None:
    contract = StreamContract(name="least", kind=Kind.single(), chunks=shape)
    assert report_on(contract, event("1")).findings == ()
    assert [each.rule for each in report_on(contract).findings] == ["stream.empty"]
