"""A finding is a violation, a loss or a warning, or is ignored; the contract's own word wins over `strict()`."""

from typing import Any

import attrs
import pytest

from cutover.contract import ANYTHING, RULES, Kind, NeverFalls, Severity, StreamContract
from cutover.contract.findings import Deviation
from cutover.protocols import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE, SHIPPED
from tests.support.own_streams import chunk, event, report_on

BASE = StreamContract(name="x", chunks=ANYTHING, order="a b")


@pytest.mark.parametrize("severity", list(Severity))
def test_a_contract_gives_a_rule_its_severity(severity: Severity) -> None:
    for given in (severity, severity.value):
        own = attrs.evolve(BASE, severities={"order.unexpected": given})
        report = report_on(own, chunk("b"))
        assert [each.severity for each in report.findings] == [severity] * (severity is not Severity.IGNORED)
        assert report.ok is (severity is not Severity.VIOLATION)
        assert own.severity("order.unexpected") is severity


def test_a_loss_is_no_violation_until_the_contract_is_strict() -> None:
    lossy = attrs.evolve(BASE, severities={"order.unexpected": Severity.LOSS, "sequence.fell": Severity.LOSS})
    report = report_on(lossy, chunk("b"))
    assert report.ok
    assert report.violations == ()
    assert report.losses == report.warnings == report.findings
    report.raise_for_violations()
    strict = report_on(lossy.strict(), chunk("b"))
    assert [each.severity for each in strict.findings] == [Severity.VIOLATION]
    assert strict.losses == strict.warnings == ()


def test_strict_raises_losses_alone() -> None:
    for contract in (*SHIPPED.values(), BASE):
        strict = contract.strict()
        for rule in RULES:
            before = contract.severity(rule)
            expected = Severity.VIOLATION if before is Severity.LOSS else before
            assert strict.severity(rule) is expected


def test_the_contracts_own_word_wins_over_strict() -> None:
    """A variant of a strict contract may still say less."""
    quiet = attrs.evolve(AI_SDK_7.strict(), severities={"stream.empty": Severity.WARNING})
    assert quiet.severity("stream.empty") is Severity.WARNING
    warned = attrs.evolve(AI_SDK_7, severities={**AI_SDK_7.severities, "stream.empty": Severity.WARNING})
    assert warned.strict().severity("stream.empty") is Severity.WARNING
    assert COMPAT_LANE.severity("stream.empty") is Severity.VIOLATION


def test_an_own_rule_is_raised_too() -> None:
    own = StreamContract(name="x", rules=NeverFalls("n", id="my.figure", severity=Severity.LOSS))
    events = chunk("a", n=2), chunk("a", n=1)
    assert [each.severity for each in report_on(own, *events).findings] == [Severity.LOSS]
    assert [each.severity for each in report_on(own.strict(), *events).findings] == [Severity.VIOLATION]
    calm = attrs.evolve(own, severities={"my.figure": "warning"})
    assert [each.severity for each in report_on(calm.strict(), *events).findings] == [Severity.WARNING]


def test_a_shipped_rule_that_an_owner_uses_has_the_owners_severity() -> None:
    own = StreamContract(name="x", rules=NeverFalls("n", severity=Severity.WARNING))
    assert own.severity("sequence.fell") is Severity.WARNING
    assert BASE.severity("sequence.fell") is Severity.VIOLATION


@pytest.mark.parametrize(
    ("severities", "sentence"),
    [
        ({"order.typo": "warning"}, "severities: no such rule: order.typo"),
        ({"b.b": "warning", "a.a": "warning"}, "severities: no such rule: a.a, b.b"),
        ({"order.unexpected": "error"}, "severities: 'error' for order.unexpected is none of violation, loss, warning, ignored"),
        ({"order.unexpected": None}, "severities: None for order.unexpected is none of violation, loss, warning, ignored"),
    ],
)  # fmt: skip
def test_a_slip_is_a_sentence(severities: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared
        attrs.evolve(BASE, severities=severities)
    assert str(caught.value) == sentence


def test_an_unknown_rule_has_no_severity() -> None:
    with pytest.raises(KeyError):
        BASE.severity("no.such-rule")


def test_what_the_client_no_longer_reads_is_a_warning() -> None:
    unseen = Deviation("order.unexpected", "a", "b", is_unseen=True)
    assert BASE.severity_of(unseen) is Severity.WARNING


def test_warnings_about_unknown_fields_come_once_and_violations_each_time() -> None:
    own = StreamContract(name="x", chunks={"a": dict[str, str]}, kind=Kind.both("type"))
    events = [chunk("a")] * 3
    assert len(report_on(own, *events).findings) == 3
    warned = attrs.evolve(own, severities={"schema.event-name": "warning"})
    assert len(report_on(warned, *events).findings) == 1


ERROR_TURN = [
    chunk("start"), chunk("start-step"), chunk("text-start", id="1"), chunk("text-delta", id="1", delta="a"),
    chunk("error", errorText="overloaded"), chunk("finish-step"), chunk("finish"), event("[DONE]"),
]  # fmt: skip
LANE_ERROR = [
    chunk("start"), chunk("start-step"), chunk("error", code="turn_failed", message="m", retryable=False),
    chunk("finish", status="error"), event("[DONE]"),
]  # fmt: skip


@pytest.mark.parametrize("severity", ["warning", "ignored"])
@pytest.mark.parametrize("is_strict_first", [True, False])
@pytest.mark.parametrize("is_whole", [True, False], ids=["with the others", "alone"])
def test_an_intended_error_turn_is_accepted_and_all_else_is_judged(
    severity: str, is_strict_first: bool, is_whole: bool
) -> None:
    for contract, turn in (
        (AI_SDK_5, ERROR_TURN),
        (AI_SDK_6, ERROR_TURN),
        (AI_SDK_7, ERROR_TURN),
        (COMPAT_LANE, LANE_ERROR),
    ):
        given: dict[str, Severity | str] = {"stream.service-error": severity}
        given |= contract.severities if is_whole else {}
        base = contract.strict() if is_strict_first else contract
        own = attrs.evolve(base, severities=given)
        own = own if is_strict_first else own.strict()
        report = report_on(own, *turn)
        assert report.ok
        assert report.service_error in {"overloaded", "turn_failed"}
        assert [each.severity.value for each in report.findings] == [severity] * (severity != "ignored")
        assert not report_on(own, *turn[:-1]).ok, "the terminator is still asked for"
        assert not report_on(own, *turn[:2]).ok
        assert not report_on(contract.strict(), *turn).ok
        # Without an error, the rest is as strict as before.
        good = [
            turn[0],
            turn[1],
            *(
                [chunk("text-start", id="1"), chunk("text-end", id="1")]
                if contract is not COMPAT_LANE
                else []
            ),
            chunk("finish-step"),
            event("[DONE]"),
        ]
        assert [each.rule for each in report_on(own, *good).violations] == ["order.finish-missing"]


def test_a_variant_of_a_shipped_contract_keeps_the_weights_of_its_protocol() -> None:
    own = attrs.evolve(AI_SDK_6, severities={"stream.service-error": "warning"})
    others = RULES.keys() - {"stream.service-error"}
    assert {rule: own.severity(rule) for rule in others} == {rule: AI_SDK_6.severity(rule) for rule in others}
    strict = attrs.evolve(AI_SDK_6.strict(), severities={"stream.service-error": "warning"})
    assert {rule: strict.severity(rule) for rule in RULES} == {
        rule: own.strict().severity(rule) for rule in RULES
    }
    told = attrs.evolve(AI_SDK_6, severities={"stream.service-error": "loss"})
    assert told.strict().severity("stream.service-error") is Severity.VIOLATION, "that is what a loss means"


def test_the_weight_of_a_protocol_wins_over_the_one_of_a_deviation() -> None:
    unsaid = Deviation("schema.value", "a", "b", severity=Severity.LOSS)
    assert BASE.severity_of(unsaid) is Severity.LOSS
    assert (
        attrs.evolve(BASE, protocol_severities={"schema.value": "warning"}).severity_of(unsaid)
        is Severity.WARNING
    )
    with pytest.raises(ValueError, match=r"no such rule: a\.b"):
        attrs.evolve(BASE, protocol_severities={"a.b": "warning"})
