"""An event says its kind in a field, by its name, by both, by the one member that it has, or not at all."""

import enum
from typing import Any

import attrs
import pytest

from cutover.contract import ANYTHING, TEXT, Kind, Severity, StreamContract
from cutover.contract.kinds import kind_of
from cutover.sse.events import MessageEvent
from tests.support.own_streams import chunk, event, found, report_on, rules_of

TWO = {"a": ANYTHING, "b": ANYTHING}


def contract(kind: Any, chunks: Any = None, **fields: Any) -> StreamContract:
    return StreamContract(name="x", kind=kind, chunks=TWO if chunks is None else chunks, **fields)


def counts(own: StreamContract, *events: str) -> Any:
    report = report_on(own, *events)
    assert report.findings == ()
    return report.chunk_counts


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("type", {"type": "a"}),
        ("/data/type", {"type": "a"}),
        ("/data/delta/type", {"delta": {"type": "a"}}),
        ("/data/0/k", [{"k": "a"}]),
        ("/data/a~1b", {"a/b": "a"}),
        (Kind.member("a", "b"), {"a": None, "x": 1}),
        (lambda data: data["kinds"][0], {"kinds": ["a"]}),
        (Kind.of(lambda data: "a"), 1),
    ],
)
def test_the_kind_stands_in_the_data(kind: Any, data: object) -> None:
    assert counts(contract(kind), event(data)) == {"a": 1}
    assert contract(kind).kind_of(MessageEvent(event(data)[6:-2])) == "a"


def test_the_kind_is_the_events_name() -> None:
    named = contract("/event", {**TWO, "message": ANYTHING})
    assert counts(named, event(1, "a"), event(2, "b"), event(3)) == {"a": 1, "b": 1, "message": 1}
    assert named.kind_of(MessageEvent("{}", name="b")) == "b"
    assert named.kind_of(MessageEvent("{}")) == "message"


def test_all_events_have_one_kind() -> None:
    assert counts(contract(Kind.single(), list[int]), event([1]), event([2, 3])) == {"event": 2}
    assert counts(contract(Kind.single(), {"event": list[int]}), event([1])) == {"event": 1}
    assert contract(Kind.single(), int).kind_of(MessageEvent("1")) == "event"
    assert contract(Kind.single(), TEXT).kind_of(MessageEvent("{")) == "event"


def test_text_is_not_decoded() -> None:
    assert counts(contract(Kind.single(), TEXT), event("{"), event("hello")) == {"event": 2}
    assert counts(contract("/event", TEXT), event("{", "x"), event("", "y")) == {"x": 1, "y": 1}
    assert counts(contract("/event", {"a": TEXT, "b": int}), event("{", "a"), event(1, "b")) == {
        "a": 1,
        "b": 1,
    }
    own = contract(Kind.field("type", overrides="raw"), {"a": ANYTHING, "raw": TEXT})
    assert counts(own, event("{", "raw"), chunk("a")) == {"raw": 1, "a": 1}


NO_FIELD, WRONG = "schema.missing-field", "schema.field-type"
MEMBERS = "expected exactly one of the fields a, b, got "


@pytest.mark.parametrize(
    ("kind", "data", "rule", "message"),
    [
        ("type", {"type": "c"}, "schema.unknown-kind", 'expected a known type: a, b, got type: "c"'),
        ("type", {"kind": "a"}, NO_FIELD, "expected a field type, got no type"),
        ("type", {"type": 1}, WRONG, "expected a text at /data/type, got type: 1"),
        ("type", [], NO_FIELD, "expected a field type, got no type"),
        ("type", {"type": ["a"]}, WRONG, 'expected a text at /data/type, got type: ["a"]'),
        ("/data/d/t", {"d": 1}, NO_FIELD, "expected a field d/t, got no d/t"),
        (Kind.member("a", "b"), {"c": 1}, NO_FIELD, MEMBERS + "none of them"),
        (Kind.member("a", "b"), {"a": 1, "b": 1}, "schema.value", MEMBERS + "a, b"),
        (Kind.member("a", "b"), 1, NO_FIELD, MEMBERS + "none of them"),
        (
            lambda data: data["x"],
            {},
            "schema.unknown-kind",
            "expected a kind, got <lambda> raised KeyError: 'x'",
        ),
        (lambda data: 5, {}, "schema.unknown-kind", "expected a kind, got <lambda> returned 5"),
        (lambda data: "c", {}, "schema.unknown-kind", "expected a known kind: a, b, got kind c"),
    ],
)
def test_an_event_without_a_known_kind_is_a_violation(
    kind: Any, data: object, rule: str, message: str
) -> None:
    assert found(contract(kind), event(data)) == [(rule, 0, message)]


def test_an_unknown_name_is_a_violation() -> None:
    assert found(contract("/event"), event(1, "c"), event(1)) == [
        ("schema.unknown-kind", 0, "expected a known event name: a, b, got event name c"),
        ("schema.unknown-kind", 1, "expected a known event name: a, b, got no event name"),
    ]


@pytest.mark.parametrize("severity", ["warning", "ignored", Severity.LOSS])
def test_an_unknown_kind_may_weigh_less(severity: Any) -> None:
    own = contract(
        "type", severities={"schema.unknown-kind": severity}, order="a c? b", chunks={**TWO, "c": ANYTHING}
    )
    report = report_on(own, chunk("a"), chunk("zzz"), chunk("b"))
    assert report.ok
    assert [each.severity.value for each in report.findings] == {"ignored": []}.get(
        severity, [getattr(severity, "value", severity)]
    )
    assert rules_of(own, chunk("a"), chunk("zzz"))[-1] == "order.finish-missing", "it hides nothing"


def test_both_must_agree_and_the_field_counts() -> None:
    both = contract(Kind.both("type", overrides=("error", "b")))
    report = report_on(both, event({"type": "a"}, "a"), event("{}", "error"), event({"type": "a"}, "b"))
    assert report.findings == ()
    assert report.chunk_counts == {"a": 1, "error": 1, "b": 1}
    report = report_on(both, event({"type": "a"}, "other"), event({"type": "b"}))
    assert [(each.rule, each.message) for each in report.findings] == [
        ("schema.event-name", "expected the name a, as in type, got the name other"),
        ("schema.event-name", "expected an event line with b, got no event line"),
    ]
    assert report.chunk_counts == {"a": 1, "b": 1}
    optional = contract(Kind.both("type", names="optional"))
    assert rules_of(optional, event({"type": "b"}), event({"type": "b"}, "b")) == []


def test_the_name_may_be_required_or_forbidden() -> None:
    required, forbidden = (contract(Kind.field("type", names=names)) for names in ("required", "forbidden"))
    assert rules_of(required, event({"type": "a"}, "x")) == []
    assert found(required, chunk("a")) == [
        ("schema.event-name", 0, "expected an event line with a, got no event line")
    ]
    assert rules_of(forbidden, chunk("a")) == []
    assert found(forbidden, event({"type": "a"}, "x")) == [
        ("schema.event-name", 0, "expected no event line, got the name x")
    ]
    by_name = contract(Kind.event_name(names="required"))
    assert found(by_name, event(1, "a"), event(2)) == [
        ("schema.event-name", 1, "expected an event line, got no event line")
    ]
    assert rules_of(contract(Kind.single(names="required"), int), event(1)) == ["schema.event-name"]


def test_names_that_override_the_data_are_kinds() -> None:
    own = contract(
        Kind.field("type", overrides=("ping", "error")), anywhere="ping", error="error", order="a b"
    )
    assert rules_of(own, chunk("a"), event({}, "ping"), chunk("b")) == []
    assert rules_of(own, chunk("a"), event({"type": "b"}, "error")) == ["stream.service-error"]
    assert own.kind_of(MessageEvent("{", name="ping")) == "ping"


def test_the_kind_of_an_event_may_be_unknown() -> None:
    own = contract("type", terminator="[DONE]")
    assert own.kind_of(MessageEvent("[DONE]")) == "[DONE]"
    assert own.kind_of(MessageEvent("{")) is None
    assert own.kind_of(MessageEvent("{}")) is None


class Sort(str, enum.Enum):  # noqa: UP042  an enum of the old form has another `str`
    A = "a"


def test_kinds_may_be_members_of_an_enum() -> None:
    assert counts(contract("type", {Sort.A: ANYTHING}), chunk("a")) == {"a": 1}
    with pytest.raises(ValueError, match=r"^chunks: the kind 5 is no text$"):
        contract("type", {5: ANYTHING})


def test_a_family_of_kinds_begins_in_the_same_way() -> None:
    family = contract("type", {"data-*": dict[str, str], "data-x": dict[str, int | str], "a": ANYTHING}, order='a ("data-*" | data-x)*')  # fmt: skip
    assert rules_of(family, chunk("a"), chunk("data-y"), chunk("data-x", n=1), chunk("data-")) == []
    assert rules_of(family, chunk("a"), chunk("data-y", n=1)) == ["schema.field-type"]
    assert rules_of(family, chunk("a"), chunk("dat")) == ["schema.unknown-kind"]
    assert rules_of(contract("type", {"*": ANYTHING}), chunk("anything")) == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Kind.field("/event"), "the kind /event is no field of the data, such as type; for the event's name alone write kind='/event'"),
        (lambda: Kind.field("/data"), "the kind /data is no field of the data, such as type; for the event's name alone write kind='/event'"),
        (lambda: Kind.field(""), "a path is empty; write a field of the data, such as `id`, or a pointer, such as `/data/id`"),
        (lambda: Kind.field("type", names="never"), "names='never': give one of optional, required, forbidden"),
        (lambda: Kind.both("type", names="forbidden"), "the kind is the event's name, so the name cannot be forbidden"),
        (lambda: Kind.event_name(names="forbidden"), "the kind is the event's name, so the name cannot be forbidden"),
        (lambda: kind_of(5), "kind=5: give a path, such as 'type' or '/event', a function of the data, or a `Kind`"),  # type: ignore[arg-type]
        (lambda: contract(Kind.single()), "all events have one kind, so chunks must be one shape, and not a shape for each kind"),
        (lambda: contract(Kind.member("a", "c")), "kind names the fields c, which no chunk declares"),
        (lambda: contract("type", {"a": TEXT}), "the kind a is declared as TEXT, which has no type; only an event's name can say its kind"),
        (lambda: contract("type", TEXT), "chunks is TEXT, so no event can say its kind in type"),
    ],
)  # fmt: skip
def test_a_slip_is_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared
        make()
    assert str(caught.value) == sentence


def test_a_kind_from_the_outside_is_shown_short_and_escaped() -> None:
    (finding,) = report_on(contract("type"), chunk("\x1b[2J" + "x" * 100_000)).findings
    assert "\x1b" not in finding.message
    assert len(finding.message) < 400


def test_the_kind_of_a_function_is_asked_for_data_of_the_right_shape_alone() -> None:
    seen: list[object] = []

    def kind(data: object) -> str:
        seen.append(data)
        return "a"

    own = contract(kind, list[int])
    assert rules_of(own, event([1]), event("[null]")) == ["schema.field-type"]
    assert seen == [[1]]


def test_variants_of_a_contract_may_change_the_kind() -> None:
    by_name = attrs.evolve(contract("type"), kind="/event")
    assert counts(by_name, event(1, "a")) == {"a": 1}


def test_the_one_shape_of_all_events_holds_for_kinds_by_name_too() -> None:
    own = StreamContract(name="x", chunks=dict[str, int], kind="/event", order="a b")
    assert rules_of(own, event({"n": 1}, "a"), event({"n": 2}, "b")) == []
    assert rules_of(own, event({"n": "x"}, "a"), event([], "b")) == ["schema.field-type"] * 2
