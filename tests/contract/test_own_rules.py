"""An owner's rules say what tables cannot, and no error in them leaves the checker."""

import tracemalloc
from collections.abc import Iterable
from typing import Any

import attrs
import msgspec
import pytest

from cutover.checking.recording import check_recording
from cutover.contract import (
    ANYTHING,
    RULES,
    Contiguous,
    ContractReport,
    FailureKind,
    JoinedJson,
    Kind,
    NeverFalls,
    RuleEvent,
    Severity,
    StreamContext,
    StreamContract,
    StreamRule,
    Unchanged,
)
from cutover.contract.checker import ContractChecker
from cutover.protocols import AI_SDK_7
from tests.support.own_streams import DONE, chunk, event, found, piecewise, report_on, rules_of


def contract(*rules: StreamRule, **fields: Any) -> StreamContract:
    kinds = dict.fromkeys(("a", "b", "end"), ANYTHING)
    return StreamContract(**{"name": "own", "chunks": kinds, "rules": rules, **fields})


class NoShouting(StreamRule):
    id = "chat.no-shouting"
    why = "An answer in capitals looks like a fault of the model."

    def event(self, event: RuleEvent) -> Iterable[tuple[str, str]]:
        if event.kind == "a" and event.data["text"].isupper():
            yield "text in small letters", event.data["text"]


class AtLeast(StreamRule):
    id = "chat.at-least"
    severity = Severity.WARNING
    kinds = ("a",)

    def __init__(self, least: int) -> None:
        self.least, self.came = least, 0

    def event(self, event: RuleEvent) -> Iterable[tuple[str, str]]:
        self.came += 1
        return ()

    def end(self) -> Iterable[tuple[str, str]]:
        if self.came < self.least:
            yield f"{self.least} events or more", str(self.came)


def test_a_rule_of_the_owner_gives_findings_with_the_owners_id() -> None:
    own = contract(NoShouting(), AtLeast(2))
    report = report_on(own, chunk("a", text="HELP"), chunk("b", text="HELP"))
    assert [(each.rule, each.severity, each.event_index, each.message) for each in report.findings] == [
        ("chat.no-shouting", Severity.VIOLATION, 0, "expected text in small letters, got HELP"),
        ("chat.at-least", Severity.WARNING, None, "expected 2 events or more, got 1"),
    ]
    assert "chat.no-shouting" not in RULES


def test_each_stream_has_a_rule_of_its_own() -> None:
    rule = AtLeast(1)
    own = contract(rule)
    for _ in range(2):
        assert rules_of(own, chunk("a")) == []
        assert rules_of(own, chunk("b")) == ["chat.at-least"]
    assert rule.came == 0


def test_the_end_is_not_judged_for_a_stream_that_broke_off() -> None:
    checker = ContractChecker(contract(AtLeast(5)))
    checker.receive_data(chunk("a").encode(), elapsed=0.0)
    checker.receive_failure(FailureKind.RESET, elapsed=0.0)
    assert [each.rule for each in checker.report().findings] == ["transport.reset"]


def test_one_rule_alone_needs_no_tuple() -> None:
    assert rules_of(StreamContract(name="x", rules=NoShouting()), chunk("a", text="A")) == [
        "chat.no-shouting"
    ]


class Seen(StreamRule):
    id = "x.seen"

    def event(self, event: RuleEvent) -> Iterable[tuple[str, str]]:
        yield (
            "",
            repr(
                (
                    event.index,
                    event.kind,
                    event.name,
                    event.id,
                    event.retry,
                    event.refused,
                    event.data,
                    event.text,
                )
            ),
        )


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_a_rule_sees_all_of_an_event(cut: int) -> None:
    body = (
        b'event: n\nid: 7\nretry: 5\ndata: {"type":"a","n":90071992547409931}\n\n'
        b": comment\n\n"
        b'data: {"type":"nope"}\n\ndata: {\n\n'
        b'data: {"type":"b"}\n\ndata: [DONE]\n\n'
    )
    own = contract(
        Seen(),
        terminator="[DONE]",
        kind=Kind.field("type", overrides="n"),
        chunks={"a": int, "b": ANYTHING, "n": ANYTHING},
    )
    report = piecewise(own, [body[at : at + cut] for at in range(0, len(body), cut)])
    assert [each.actual for each in report.findings if each.rule == "x.seen"] == [
        """(0, 'n', 'n', '7', 5, False, {'type': 'a', 'n': 90071992547409931}, '{"type":"a","n":90071992547409931}')""",
        """(1, None, None, None, None, True, {'type': 'nope'}, '{"type":"nope"}')""",
        "(2, None, None, None, None, True, None, '{')",
        """(3, 'b', None, None, None, False, {'type': 'b'}, '{"type":"b"}')""",
    ]


def test_a_rule_reads_any_path() -> None:
    seen = RuleEvent('{"a":[{"b":1}]}', name="n", retry=3)
    assert seen.at("/data/a/0/b") == 1
    assert seen.at("a") == [{"b": 1}]
    assert (seen.at("/event"), seen.at("/retry")) == ("n", 3)
    for nowhere in ("/id", "b", "/data/a/1", "/data/a/x", "/data/a/0/b/c", "/data/a/²"):
        assert seen.at(nowhere) is msgspec.UNSET


class Raises(StreamRule):
    id = "x.raises"

    def __init__(self, error: BaseException, where: str) -> None:
        self.error, self.where = error, where

    def event(self, event: RuleEvent) -> Iterable[tuple[str, str]]:
        if self.where == "event" or (self.where == "refused" and event.refused):
            raise self.error
        if self.where == "second":
            yield "one", "two"
            raise self.error

    def end(self) -> Iterable[tuple[str, str]]:
        if self.where == "end":
            raise self.error
        return ()


@pytest.mark.parametrize(
    "error",
    [KeyError("k"), ZeroDivisionError(), RecursionError("deep"), MemoryError(), AssertionError("\x1b")],
)
def test_an_error_in_a_rule_is_one_finding(error: Exception) -> None:
    name = type(error).__name__
    events = [chunk("a"), chunk("b"), chunk("a")]
    (first,) = report_on(contract(Raises(error, "event")), *events).findings
    assert (first.rule, first.event_index) == ("x.raises", 0)
    assert first.message.startswith(f"expected a rule that raises no error, got {name}")
    assert first.message.endswith("; the rule is not checked from here on")
    assert first.message.isprintable()
    (last,) = report_on(contract(Raises(error, "end")), *events).findings
    assert (last.rule, last.event_index) == ("x.raises", None)
    assert rules_of(contract(Raises(error, "second")), *events) == ["x.raises", "x.raises"]


def test_an_error_in_a_rule_about_a_refused_event_is_no_second_finding() -> None:
    own = contract(Raises(KeyError("x"), "refused"), NoShouting(), chunks={"a": dict[str, str]})
    assert rules_of(own, chunk("a", text=1), chunk("a", text="A")) == [
        "schema.field-type",
        "chat.no-shouting",
    ]


def test_an_interruption_leaves_the_checker() -> None:
    with pytest.raises(KeyboardInterrupt):
        report_on(contract(Raises(KeyboardInterrupt(), "event")), chunk("a"))


class Wrong(StreamRule):
    id = "x.wrong"

    def __init__(self, result: Any) -> None:
        self.result = result

    def event(self, event: RuleEvent) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "count"),
    [(None, 0), ((), 0), ([("a", 1)], 1), ([(None, {})], 1), (5, 1), (["abc"], 1), ([()], 1)],
)
def test_a_rule_that_returns_something_else_raises_nothing(result: Any, count: int) -> None:
    assert rules_of(contract(Wrong(result)), chunk("a")) == ["x.wrong"] * count


def test_a_contract_sets_the_severity_of_an_own_rule() -> None:
    for severity in ("warning", "loss", "ignored"):
        report = report_on(
            contract(NoShouting(), severities={"chat.no-shouting": severity}), chunk("a", text="A")
        )
        assert report.ok
        assert len(report.findings) == (severity != "ignored")
    with pytest.raises(ValueError, match=r"severities: no such rule: chat\.typo"):
        contract(NoShouting(), severities={"chat.typo": "warning"})


def test_a_rule_may_know_the_request() -> None:
    class Asked(StreamRule):
        id = "x.asked"
        thread: str | None = None

        def start(self, context: StreamContext) -> "Asked":
            started = Asked()
            started.thread = context.thread_id
            return started

        def event(self, event: RuleEvent) -> Iterable[tuple[str, str]]:
            if event.at("thread") != self.thread:
                yield str(self.thread), event.at("thread")

    report = check_recording(
        chunk("a", thread="u").encode(), contract=contract(Asked()), context=StreamContext(thread_id="t")
    )
    assert [each.message for each in report.findings] == ["expected t, got u"]


def test_a_rule_without_a_check_finds_nothing() -> None:
    assert rules_of(contract(StreamRule()), chunk("a"), chunk("b")) == []


CONTIGUOUS = [
    ([1, 2, 3], []),
    ([7, 8], []),
    ([1, 3, 4], [("sequence.gap", 1, "expected n 2, got 3")]),
    ([1, 1, 2], [("sequence.gap", 1, "expected n 2, got 1")]),
    (["1", "2", 3], []),
    ([1, "x", 2], [("sequence.gap", 1, 'expected an integer at n, got "x"')]),
    ([1, 2.0], [("sequence.gap", 1, "expected an integer at n, got 2.0")]),
    ([True], [("sequence.gap", 0, "expected an integer at n, got true")]),
    ([None], [("sequence.gap", 0, "expected an integer at n, got null")]),
    (
        [2**70, 2**70 + 1],
        [
            (
                "json.unsafe-integer",
                0,
                (
                    "expected integers up to 9007199254740991, which JavaScript keeps exactly, got 1180591620717411303424, "
                    "which JavaScript reads as 1.1805916207174113e+21, in events 0 and 1"
                ),
            )
        ],
    ),
    (["²"], [("sequence.gap", 0, 'expected an integer at n, got "²"')]),
]


@pytest.mark.parametrize(("numbers", "findings"), CONTIGUOUS, ids=range(len(CONTIGUOUS)))
def test_a_counter_has_no_gap(numbers: list[Any], findings: list[Any]) -> None:
    assert found(contract(Contiguous("n")), *[chunk("a", n=number) for number in numbers]) == findings


def test_a_counter_may_begin_at_a_number_and_count_in_groups() -> None:
    grouped = contract(Contiguous("n", by=("/data/g",), start_at=0))
    pairs = [("x", 0), ("y", 0), ("x", 1), (None, 0), (1, 0), ("1", 0), (True, 0)]
    assert rules_of(grouped, *[chunk("a", g=group, n=number) for group, number in pairs]) == []
    assert found(grouped, chunk("a", g="x", n=1)) == [("sequence.gap", 0, "expected n 0, got 1")]
    by_id = contract(Contiguous("/id"))
    assert rules_of(by_id, event({"type": "a"}, own_id=1), chunk("a"), event({"type": "a"}, own_id=2)) == []
    assert rules_of(by_id, event({"type": "a"}, own_id="9" * 5000)) == ["sequence.gap"]


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([1, 1, 2.5, 3], 0),
        ([2, 1], 1),
        ([1, "0", None, 2], 0),
        ([5, 4, 4], 1),
        ([5, 4, 3], 2),
        ([True, 0], 0),
    ],
)
def test_a_figure_never_falls(values: list[Any], count: int) -> None:
    own = contract(NeverFalls("/data/u/n", id="chat.usage", severity=Severity.LOSS))
    report = report_on(own, *[chunk("a", u={"n": value}) for value in values])
    assert [(each.rule, each.severity) for each in report.findings] == [("chat.usage", Severity.LOSS)] * count
    assert rules_of(
        contract(NeverFalls("n")), event('{"type":"a","n":1e999}'), event('{"type":"a","n":1}')
    ) == ["sequence.fell"]


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        (["x", "x"], []),
        (["x", "y", "y"], ["expected m x, got y"]),
        ([1, 1.0], []),
        ([1, True], ["expected m 1, got true"]),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], []),
        ([[1], [2]], ["expected m [1], got [2]"]),
        (["a" * 300, "a" * 300], []),
        ([["a" * 300], ["a" * 299 + "b"]], [f'expected m ["{"a" * 198}…, got ["{"a" * 198}…']),
        (["\ud83d", "\ud83d"], []),
    ],
)
def test_a_field_never_changes(values: list[Any], messages: list[str]) -> None:
    report = report_on(contract(Unchanged("m")), *[chunk("a", m=value) for value in values], chunk("b"))
    assert [each.message for each in report.findings] == messages


def test_a_request_fixes_the_value_of_a_field() -> None:
    own = contract(Unchanged("thread", request="thread_id"), chunks={"a": dict[str, str]})
    body = chunk("a", thread="t").encode()
    messages = [
        [each.message for each in check_recording(body, contract=own, context=context).findings]
        for context in (None, StreamContext(), StreamContext(thread_id="t"), StreamContext(thread_id="u"))
    ]
    assert messages == [[], [], [], ["expected thread u, got t"]]
    assert rules_of(own, chunk("a", thread="t"), chunk("a", thread=5)) == ["schema.field-type"]


def joined(*pieces: Any, until: bool = True, **options: Any) -> ContractReport:
    rule = JoinedJson("d", until="end" if until else (), **options)
    return report_on(
        contract(rule), chunk("b"), *[chunk("a", d=piece) for piece in pieces], *[chunk("end")] * until
    )


@pytest.mark.parametrize("until", [True, False])
@pytest.mark.parametrize(
    ("pieces", "count"),
    [
        (['{"a":', "1}"], 0),
        (['{"a":', "1"], 1),
        (["{}", "{}"], 1),
        ([], 0),
        (["", ""], 0),
        (["  "], 0),
        ([1, None], 0),
        (["1e999"], 0),
        (["[" * 5000, "]" * 5000], 0),
        (['"\\ud83d', '"'], 0),
        (["NaN"], 1),
    ],
)
def test_the_joined_text_of_a_part_is_json(pieces: list[Any], count: int, until: bool) -> None:
    report = joined(*pieces, until=until)
    assert [each.rule for each in report.findings] == ["sequence.json"] * count
    assert [each.event_index is None for each in report.findings] == [not until] * count


def test_texts_of_several_parts_are_joined_apart() -> None:
    own = contract(JoinedJson("d", by="i", kinds=("a",), until="end"))
    texts = [("x", "["), ("y", "{"), ("x", "]"), ("y", "}")]
    events = [chunk("a", i=part, d=text) for part, text in texts]
    assert rules_of(own, *events, chunk("end", i="x"), chunk("end", i="y")) == []
    assert found(own, *events[:3], chunk("end", i="x"), chunk("end", i="y")) == [
        (
            "sequence.json",
            4,
            "expected pieces of d that make JSON together, got { (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        )
    ]
    assert rules_of(own, chunk("b", d="{"), chunk("end")) == [], "the kind b has no pieces"


def test_a_text_that_is_too_long_is_not_judged() -> None:
    long = "x" * (1 << 19)
    assert joined(*[long] * 40, "y").findings == ()
    many = joined(*[long] * 31, '"')
    assert [each.rule for each in many.findings] == ["sequence.json"]
    rule = JoinedJson("d", until="end")
    events = [*[chunk("a", d=long)] * 40, chunk("end"), chunk("a", d="{"), chunk("end")]
    assert rules_of(contract(rule), *events) == ["sequence.json"], "the memory is free again"


@pytest.mark.parametrize(
    "rule",
    [Contiguous("n", by="g"), NeverFalls("n", by="g"), Unchanged("m", by="g"), JoinedJson("m", by="g"), JoinedJson("e")],
    ids=lambda rule: type(rule).__name__,
)  # fmt: skip
def test_the_memory_of_a_shipped_rule_is_bounded(rule: StreamRule) -> None:
    own = contract(rule)
    checker = ContractChecker(own)
    tracemalloc.start()
    for at in range(0, 12_000, 500):
        body = "".join(
            chunk("a", n=1, e="", g=f"{number}{'g' * 400}", m="1" * 400) for number in range(at, at + 500)
        )
        checker.receive_data(body.encode(), elapsed=0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    assert checker.report().findings == ()


@pytest.mark.parametrize(
    "make", [lambda: Contiguous("/x"), lambda: NeverFalls(""), lambda: Unchanged("a", by="/id/x"), lambda: JoinedJson("/event/x")]
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_an_error_when_the_rule_is_made(make: Any) -> None:
    with pytest.raises(ValueError, match="path"):
        make()


def test_the_terminator_is_no_event_of_a_rule() -> None:
    assert rules_of(contract(Seen(), terminator="[DONE]"), DONE) == []


@pytest.mark.parametrize(
    "rule", [Contiguous("n"), NeverFalls("n"), Unchanged("n"), JoinedJson("n")], ids=lambda rule: rule.id
)
def test_a_shipped_rule_explains_itself_as_the_table_of_rules_does(rule: StreamRule) -> None:
    assert rule.why == RULES[rule.id].why


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_rule_beside_a_table_of_fields_sees_the_other_lines_too(cut: int) -> None:
    body = (
        event({"type": "start"}, "n", 4) + event({"type": "start"}) + event({"type": "start"}, "m")
    ).encode()
    report = piecewise(
        attrs.evolve(AI_SDK_7, rules=Seen()), [body[at : at + cut] for at in range(0, len(body), cut)]
    )
    seen = [each.actual or "" for each in report.findings if each.rule == "x.seen"]
    assert [text[:30] for text in seen] == [
        "(0, 'start', 'n', '4', None, F",
        "(1, 'start', None, None, None,",
        "(2, 'start', 'm', None, None, ",
    ]


def test_one_kind_of_a_shipped_rule_may_be_a_text() -> None:
    assert JoinedJson("d", by="i", kinds="a", until="end").kinds == ("a", "end")
    assert NeverFalls("n", kinds="a").kinds == ("a",)


class OneTextAsKinds(StreamRule):
    id = "chat.one-text"
    kinds = "a"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (NeverFalls("n", kinds=("aa",)), "the rule sequence.fell names the kind aa, which no chunk declares"),
        (
            JoinedJson("d", until="ende"),
            "the rule sequence.json names the kind ende, which no chunk declares; did you mean end",
        ),
        (NoShouting, r"is no instance of StreamRule; write NoShouting\(\)"),
        (3, "rules: 3 is no instance of StreamRule"),
        (OneTextAsKinds(), r"the kinds of chat.one-text are one text; write kinds = \('a',\)"),
    ],
)
def test_a_rule_that_can_never_look_at_an_event_is_refused(rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract(rule)


def test_a_rule_names_a_family_of_kinds_as_it_is_declared() -> None:
    own = contract(NeverFalls("n", kinds="data-*"), chunks={"data-*": ANYTHING})
    assert rules_of(own, chunk("data-x", n=2), chunk("data-y", n=1)) == ["sequence.fell"]
    with pytest.raises(ValueError, match="which no chunk declares; did you mean data-"):
        contract(NeverFalls("n", kinds="data-x"), chunks={"data-*": ANYTHING})
