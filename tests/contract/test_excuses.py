"""An event that could not be read explains what is missing only if it may be the missing event, and only if it fails the contract."""

import attrs
import pytest

from cutover.contract import ANYTHING, Limits, StreamContract
from cutover.protocols import AI_SDK_7, COMPAT_LANE
from tests.support.own_streams import DONE, chunk, event, piecewise, report_on, rules_of

TURN = [
    chunk("start"), chunk("start-step"), chunk("text-start", id="1"), chunk("text-delta", id="1", delta="a"),
    chunk("text-end", id="1"), chunk("finish-step"), chunk("finish"), DONE,
]  # fmt: skip
LANE = [chunk("start"), chunk("start-step"), chunk("finish-step"), chunk("finish"), DONE]


@pytest.mark.parametrize("severity", ["loss", "warning", "ignored", "violation"])
@pytest.mark.parametrize(
    "odd", [chunk("new"), event("{"), event("[]")], ids=["unknown", "no JSON", "no object"]
)
@pytest.mark.parametrize(("contract", "turn"), [(AI_SDK_7, TURN), (COMPAT_LANE, LANE)], ids=["sdk", "lane"])
def test_an_event_in_the_middle_does_not_hide_that_the_terminator_is_missing(
    contract: StreamContract, turn: list[str], odd: str, severity: str
) -> None:
    own = attrs.evolve(
        contract,
        severities={
            **contract.severities,
            **dict.fromkeys(("schema.unknown-kind", "json.syntax", "schema.not-object"), severity),
        },
    ).strict()
    for at in range(1, len(turn) - 1):
        assert "terminator.missing" in rules_of(own, *turn[:at], odd, *turn[at:-1])
        assert "terminator.missing" not in rules_of(own, *turn[:at], odd, *turn[at:])


@pytest.mark.parametrize("odd", [event("{"), event("[]"), chunk("new"), event("x" * 3000)])
def test_an_event_in_the_terminators_place_that_fails_the_contract_is_one_finding(odd: str) -> None:
    for contract, turn in ((AI_SDK_7, TURN), (COMPAT_LANE, LANE)):
        small = attrs.evolve(contract.strict(), limits=Limits(max_event_bytes=2000))
        assert len(rules_of(small, *turn[:-1], odd)) == 1
        body = "".join((*turn[:-1], odd)).encode()
        for size in (1, 7, len(body)):
            cut = piecewise(small, [body[at : at + size] for at in range(0, len(body), size)])
            assert len(cut.findings) == 1


@pytest.mark.parametrize("rule", ["json.syntax", "schema.not-object"])
@pytest.mark.parametrize("severity", ["warning", "ignored"])
def test_a_tolerated_event_hides_no_missing_finish(rule: str, severity: str) -> None:
    odd = event("{") if rule == "json.syntax" else event("[]")
    for contract, turn in ((AI_SDK_7, TURN), (COMPAT_LANE, LANE)):
        own = attrs.evolve(contract, severities={**contract.severities, rule: severity}).strict()
        report = report_on(own, *turn[:-2], odd, turn[-1])
        assert [each.rule for each in report.violations] == ["order.finish-missing"]
        assert rules_of(contract.strict(), *turn[:-2], odd, turn[-1]) == [rule]


TWO = StreamContract(name="x", chunks={"a": dict[str, str], "b": ANYTHING, "c": ANYTHING}, order="a b c")
PARTS = attrs.evolve(TWO, order=None, each="a b c by id")


@pytest.mark.parametrize("severity", ["warning", "ignored"])
def test_a_chunk_with_a_tolerated_fault_is_still_held_to_the_order(severity: str) -> None:
    """Without this, a rule that an owner switches off would switch off the order with it."""
    calm = {"schema.field-type": severity}
    late = chunk("b"), chunk("a", n=1), chunk("c")
    of_order = [each for each in rules_of(attrs.evolve(TWO, severities=calm), *late) if "order" in each]
    assert of_order == rules_of(TWO, late[0], chunk("a", n="1"), late[2]) == ["order.unexpected"] * 2
    assert rules_of(TWO, *late) == ["order.unexpected", "schema.field-type"]
    second = chunk("a", id="1"), chunk("a", id="1", n=1), chunk("b", id="1"), chunk("c", id="1")
    of_order = [each for each in rules_of(attrs.evolve(PARTS, severities=calm), *second) if "order" in each]
    assert of_order == ["order.unexpected"]
    assert rules_of(PARTS, *second) == ["schema.field-type"]


def test_an_unreadable_event_explains_no_event_that_is_one_too_many() -> None:
    assert rules_of(TWO, chunk("a"), event("{"), chunk("a"), chunk("b"), chunk("c")) == [
        "json.syntax",
        "order.unexpected",
    ]
    assert rules_of(TWO, chunk("a"), event("{"), chunk("c")) == ["json.syntax"]
    ended = [chunk(kind, id="1") for kind in ("a", "b", "c", "c")]
    assert rules_of(PARTS, event("{"), *ended) == ["json.syntax", "order.unopened-part"]
    again = chunk("a", id="1"), event("{"), chunk("a", id="1"), chunk("b", id="1"), chunk("c", id="1")
    assert rules_of(PARTS, *again) == ["json.syntax", "order.unexpected"]


def test_an_event_that_is_one_too_many_explains_no_part_that_is_left_open() -> None:
    kinds = {"s": ANYTHING, "e": ANYTHING, "z": ANYTHING}
    own = StreamContract(name="x", chunks=kinds, order="s e* z", each="s e by id")
    assert rules_of(own, chunk("s", id="1"), chunk("s", id="1"), chunk("e", id="1"), chunk("z")) == [
        "order.unexpected"
    ]
    twice = [chunk("s", id="1"), chunk("s", id="1"), chunk("z")]
    assert rules_of(own, *twice) == ["order.unexpected", "order.part-left-open"]
