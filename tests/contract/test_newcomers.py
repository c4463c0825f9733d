"""What people stumbled over who wrote a first contract: slips that passed, faults that gave several findings, faults that gave none."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

from cutover.contract import (
    ANYTHING,
    Each,
    JoinedJson,
    Kind,
    ServiceError,
    Severity,
    StreamContract,
    StreamRule,
    Unchanged,
)
from tests.support.own_streams import chunk, event, found, report_on, rules_of


class Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class Tool(msgspec.Struct, tag_field="type", tag="tool"):
    name: str


class Block(msgspec.Struct):
    index: int
    block: Text | Tool


class Piece(msgspec.Struct):
    index: int
    json: str = ""


class Lists(msgspec.Struct):
    many: dict[str, Text]
    each: list[Text | Tool]


def blocks(**fields: Any) -> StreamContract:
    """Return a contract of numbered blocks, one behind the other: both the order of all events and that of each block hold."""
    kinds = {"begin": ANYTHING, "start": Block, "piece": Piece, "stop": Piece, "end": ANYTHING}
    wanted: dict[str, Any] = {
        "order": "begin (start piece* stop)* end",
        "each": Each("start piece* stop by index", name="block", counts_from=0),
        "rules": JoinedJson("json", by="index", kinds=("piece",), until="stop"),
    }
    return StreamContract(name="blocks", chunks=kinds, **{**wanted, **fields})


def turn(*indexes: int) -> list[str]:
    parts = [chunk("begin")]
    for index in indexes:
        parts.append(chunk("start", index=index, block={"type": "tool", "name": "t"}))
        parts += [chunk("piece", index=index, json="{"), chunk("piece", index=index, json="}")]
        parts.append(chunk("stop", index=index))
    return [*parts, chunk("end")]


def test_a_dropped_or_doubled_event_is_one_finding_although_two_orders_hold() -> None:
    good = turn(0, 1)
    assert rules_of(blocks(), *good) == []
    dropped = {at: rules_of(blocks(), *good[:at], *good[at + 1 :]) for at in range(len(good))}
    assert dropped == {
        0: ["order.unexpected"],
        1: ["order.unexpected"],
        2: ["sequence.json"],
        3: ["sequence.json"],
        4: ["order.unexpected"],
        5: ["order.unexpected"],
        6: ["sequence.json"],
        7: ["sequence.json"],
        8: ["order.unexpected"],
        9: ["order.finish-missing"],
    }
    doubled = {at: rules_of(blocks(), *good[:at], good[at], *good[at:]) for at in range(len(good))}
    assert all(doubled.values())


def test_a_wrong_number_is_told_once_and_the_count_goes_on() -> None:
    assert rules_of(blocks(), *turn(0, 2, 3)) == ["order.index-gap"]
    assert rules_of(blocks(), *turn(1, 2)) == ["order.index-gap"]
    assert rules_of(blocks(), *turn(0, 5, 2)) == ["order.index-gap"]


def test_a_text_that_the_body_cuts_is_no_json_unless_the_stream_was_cut_itself() -> None:
    open_text = turn(0)[:3]
    assert rules_of(blocks(), *open_text) == ["order.finish-missing"]
    anyhow = blocks(order=None, each=())
    assert rules_of(anyhow, *open_text) == ["sequence.json"]
    failed = blocks(order=None, each=(), error="error")
    assert rules_of(failed, *open_text, chunk("error")) == ["stream.service-error"]


def test_an_unknown_field_is_found_inside_unions_lists_and_maps() -> None:
    body = [chunk("begin"), chunk("start", index=0, block={"type": "text", "text": "a", "odd": 1})]
    assert found(blocks(order=None, each=()), *body) == [
        ("schema.unknown-field", 1, "expected only known fields of start, got block/odd")
    ]
    nested = StreamContract(name="x", kind=Kind.single(), chunks=Lists)
    value = {
        "many": {"k": {"type": "text", "text": "", "odd": 1}},
        "each": [{"type": "tool", "name": "", "even": 1}],
    }
    assert [text for _, _, text in found(nested, event(value))] == [
        "expected only known fields of event, got many/*/odd",
        "expected only known fields of event, got each/*/even",
    ]


def test_a_tolerated_kind_is_still_refused_behind_the_end() -> None:
    tolerant = blocks(severities={"schema.unknown-kind": "warning"}, end="end")
    assert rules_of(tolerant, *turn(0)[:-1], chunk("new"), chunk("end")) == ["schema.unknown-kind"]
    assert rules_of(tolerant, *turn(0), chunk("new")) == ["schema.unknown-kind", "terminator.trailing"]
    assert rules_of(tolerant, *turn(0)[:-1], event({}), chunk("end")) == ["schema.missing-field"]
    without_end = blocks(severities={"schema.unknown-kind": "ignored"})
    assert rules_of(without_end, *turn(0), chunk("new")) == ["order.after-finish"]


def test_an_error_may_be_the_last_event() -> None:
    after = [chunk("error"), chunk("end")]
    assert rules_of(blocks(error="error"), chunk("begin"), *after) == ["stream.service-error"]
    last = blocks(error=ServiceError(kind="error", is_last=True))
    assert rules_of(last, chunk("begin"), *after) == ["stream.service-error", "terminator.trailing"]


class Odd(StreamRule):
    id = "mine.odd"


class Wordy(StreamRule):
    id = "mine.wordy"

    def event(self, event: Any) -> Iterator[Any]:
        yield "a text instead of a pair"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rules": (Odd,)}, r"is no instance of StreamRule; write Odd\(\)"),
        ({"rules": Odd}, r"is no instance of StreamRule; write Odd\(\)"),
        ({"rules": ("odd",)}, r"rules: 'odd' is no instance of StreamRule"),
        (
            {"rules": JoinedJson("json", until="stopp")},
            "names the kind stopp, which no chunk declares; did you mean stop",
        ),
        ({"rules": Unchanged("indx", kinds=("piece",))}, "the path indx is in no chunk of the kind piece"),
        ({"rules": Unchanged("/data/block/nam", kinds=("start",))}, "is in no chunk of the kind start"),
        ({"framing": {"only_lf": True}}, r"framing: give a Framing\(...\), not a dict"),
        ({"head": {}}, r"head: give a HeadRules\(...\), not a dict"),
        ({"limits": {}}, r"limits: give a Limits\(...\), not a dict"),
        ({"each": "start piece* stop by block/index"}, "a path into the data begins with /data"),
        ({"each": "start piece* stop by /data/*/index"}, "a path leads to one value"),
        ({"end": "begin"}, "end names the kind begin, with which the order .* cannot end"),
        ({"anywhere": "piece"}, "the kind piece may come anywhere, so the order .* cannot count it"),
    ],
)
def test_a_slip_is_a_sentence_when_the_contract_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blocks(**fields)


def test_a_path_of_one_shape_for_all_events_is_looked_for_too() -> None:
    with pytest.raises(ValueError, match="the path indx is in no chunk"):
        StreamContract(name="x", kind=Kind.single(), chunks=Piece, rules=Unchanged("indx"))
    assert StreamContract(name="x", chunks=Piece, rules=Unchanged("type")).rules[0].id == "sequence.changed"


def test_a_rule_that_yields_no_pair_is_told_so() -> None:
    (finding,) = report_on(StreamContract(name="x", rules=Wordy()), chunk("a")).findings
    assert "a rule yields pairs: what it expects, and what came" in str(finding.actual)
    assert finding.severity is Severity.VIOLATION


class Bounded(msgspec.Struct):
    n: Annotated[int, msgspec.Meta(ge=0)]


def test_a_bound_is_told_in_words_that_read_well() -> None:
    contract = StreamContract(name="x", kind=Kind.single(), chunks=Bounded)
    assert found(contract, event({"n": -1})) == [("schema.value", 0, "expected `int` >= 0, got /data/n -1")]


def test_many_kinds_are_not_all_listed() -> None:
    many = StreamContract(name="x", chunks=dict.fromkeys(map("k{}".format, range(20)), ANYTHING))
    assert "k7 and 12 more" in found(many, chunk("other"))[0][2]
