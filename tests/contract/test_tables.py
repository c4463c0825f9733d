"""Order and end of a whole stream: what may come where, what ends it, and which contracts contradict themselves."""

from typing import Any

import attrs
import pytest

from cutover.contract import ANYTHING, Each, Kind, ServiceError, Severity, StreamContract
from cutover.contract.grammar import ABSENT, END, TERMINATOR, Grammar, Transition
from cutover.contract.order import OrderError
from cutover.protocols import AI_SDK_7
from cutover.sse.events import MessageEvent
from tests.support.own_streams import DONE, chunk, event, found, report_on, rules_of

KINDS = dict.fromkeys(("start", "delta", "usage", "ping", "finish", "stop"), ANYTHING)
BASE = StreamContract(name="base", chunks=KINDS)
START, DELTA, FINISH, PING, USAGE, STOP = map(chunk, ("start", "delta", "finish", "ping", "usage", "stop"))
ORDERED = attrs.evolve(BASE, order="start delta* finish")


def test_events_in_order_give_no_finding() -> None:
    report = report_on(ORDERED, START, DELTA, DELTA, FINISH)
    assert report.findings == ()
    assert report.state == "next: nothing more"
    assert report.chunk_counts == {"start": 1, "delta": 2, "finish": 1}


@pytest.mark.parametrize(
    ("events", "findings"),
    [
        ([DELTA, FINISH], [("order.unexpected", 0, "expected start, got delta")]),
        ([START, START, FINISH], [("order.unexpected", 1, "expected delta or finish, got start")]),
        ([START, PING, FINISH], [("order.unexpected", 1, "expected delta or finish, got ping")]),
        ([START, DELTA], [("order.finish-missing", None, "expected delta or finish, got end of the body")]),
        ([START, FINISH, DELTA], [("order.after-finish", 2, "expected nothing more, got delta")]),
        ([FINISH], [("order.unexpected", 0, "expected start, got finish")]),
        ([], [("stream.empty", None, "expected events, got an empty body")]),
    ],
)
def test_one_mistake_in_the_order_is_one_finding(
    events: list[str], findings: list[tuple[str, int | None, str]]
) -> None:
    assert found(ORDERED, *events) == findings


def test_a_dot_is_any_kind_that_the_order_does_not_name() -> None:
    dotted = attrs.evolve(BASE, order="start .* finish")
    assert rules_of(dotted, START, DELTA, PING, USAGE, FINISH) == []
    assert found(dotted, START, START, FINISH) == [
        ("order.unexpected", 1, "expected any other kind or finish, got start")
    ]


def test_kinds_that_may_come_anywhere_are_not_counted_by_the_order() -> None:
    pinged = attrs.evolve(ORDERED, anywhere="ping", terminator="[DONE]")
    assert rules_of(pinged, PING, START, PING, FINISH, PING, DONE, PING) == []


@pytest.mark.parametrize(
    ("events", "findings"),
    [
        ([START, FINISH, DONE], []),
        ([START, FINISH], [("terminator.missing", None, "expected [DONE], got end of the body")]),
        ([START, DONE], [("order.finish-missing", 1, "expected delta or finish, got [DONE]")]),
        ([START, FINISH, DONE, DONE], [("terminator.count", 3, "expected one [DONE], got [DONE]")]),
        ([START, FINISH, DONE, DELTA], [("terminator.trailing", 3, "expected nothing more, got delta")]),
        ([START, FINISH, DELTA, DONE], [("order.after-finish", 2, "expected [DONE], got delta")]),
    ],
)
def test_a_terminator_ends_the_stream(events: list[str], findings: list[tuple[str, int | None, str]]) -> None:
    assert found(attrs.evolve(ORDERED, terminator="[DONE]"), *events) == findings


def test_a_terminator_has_any_name_and_need_not_be_json() -> None:
    ended = attrs.evolve(BASE, terminator="bye")
    assert rules_of(ended, START, event("bye", "end")) == ["stream.event-type"]
    assert report_on(ended, START, event("bye")).chunk_counts == {"start": 1, "bye": 1}
    assert rules_of(attrs.evolve(BASE, terminator='{"type": "stop"}'), START, STOP) == []


@pytest.mark.parametrize(
    ("events", "findings"),
    [
        ([START, FINISH], []),
        ([START, STOP], []),
        ([START], [("terminator.missing", None, "expected finish or stop, got end of the body")]),
        ([START, FINISH, STOP], [("terminator.count", 2, "expected one finish or stop, got stop")]),
        ([START, FINISH, DELTA], [("terminator.trailing", 2, "expected nothing more, got delta")]),
        ([START, FINISH, USAGE], []),
    ],
)
def test_a_kind_ends_the_stream(events: list[str], findings: list[tuple[str, int | None, str]]) -> None:
    ended = attrs.evolve(BASE, end=("finish", "stop"), after_end="usage")
    assert found(ended, *events) == findings


def test_a_kind_that_ends_the_stream_may_stand_before_a_terminator() -> None:
    both = attrs.evolve(BASE, end="finish", terminator="[DONE]", after_end="usage")
    assert rules_of(both, START, FINISH, USAGE, DONE) == []
    assert found(both, START, DONE) == [("order.finish-missing", 1, "expected finish, got [DONE]")]
    assert found(both, START, FINISH) == [
        ("terminator.missing", None, "expected [DONE], got end of the body")
    ]
    assert found(both, START, FINISH, DELTA, DONE) == [
        ("terminator.trailing", 2, "expected [DONE], got delta")
    ]


def test_an_end_in_the_middle_of_the_order_is_one_finding() -> None:
    ended = attrs.evolve(BASE, order="start delta+ (finish | stop)?", end=("finish", "stop"))
    assert rules_of(ended, START, DELTA, FINISH) == []
    assert rules_of(ended, START, FINISH) == ["order.unexpected"]
    assert rules_of(ended, FINISH) == ["order.unexpected"]
    with pytest.raises(OrderError, match=r"end names the kind delta, with which the order .* cannot end"):
        attrs.evolve(BASE, order="start delta .* stop", end="delta")
    with pytest.raises(OrderError, match=r"delta may come anywhere, so the order .* cannot count it"):
        attrs.evolve(BASE, order="start delta stop", anywhere="delta")


@pytest.mark.parametrize(
    ("end", "last", "not_last"),
    [
        ({"/data/done": True}, {"type": "delta", "done": True}, {"type": "delta", "done": 1}),
        ({"done": 1}, {"type": "delta", "done": 1}, {"type": "delta", "done": True}),
        ({"done": None}, {"type": "delta", "done": None}, {"type": "delta"}),
        (
            {"/data/status": ["ok", "bad"]},
            {"type": "delta", "status": "bad"},
            {"type": "delta", "status": "b"},
        ),
        ({"/data/c/0/end": "stop"}, {"type": "delta", "c": [{"end": "stop"}]}, {"type": "delta", "c": [{}]}),
    ],
)
def test_a_value_ends_the_stream(end: Any, last: object, not_last: object) -> None:
    ended = attrs.evolve(BASE, end=end)
    assert rules_of(ended, event(not_last), event(last)) == []
    assert found(ended, event(not_last)) == [
        (
            "terminator.missing",
            None,
            "expected the event that says that it is the last one, got end of the body",
        )
    ]
    assert rules_of(ended, event(last), event(not_last)) == ["terminator.trailing"]


def test_contracts_that_differ_in_the_type_of_the_last_value_alone_stay_apart() -> None:
    as_true, as_one = (attrs.evolve(BASE, end={"done": value}) for value in (True, 1))
    assert rules_of(as_true, chunk("delta", done=True)) == []
    assert rules_of(as_one, chunk("delta", done=1)) == []
    assert rules_of(as_one, chunk("delta", done=True)) == ["terminator.missing"]


def test_an_own_field_of_the_event_ends_the_stream() -> None:
    ended = attrs.evolve(BASE, end={"/event": "last", "/id": "z"})
    assert rules_of(ended, DELTA, event({"type": "delta"}, "last")) == ["stream.event-type"]
    assert rules_of(ended, event({"type": "delta"}, own_id="z")) == []


def test_a_value_ends_the_stream_only_where_the_order_may_end() -> None:
    ended = attrs.evolve(ORDERED, end={"done": True})
    assert rules_of(ended, START, chunk("finish", done=True)) == []
    assert found(ended, START, chunk("delta", done=True)) == [
        ("order.finish-missing", 1, "expected delta or finish, got delta")
    ]
    assert rules_of(ended, chunk("finish", done=True)) == ["order.unexpected"]


def test_a_refused_last_event_is_still_the_last_one() -> None:
    ended = StreamContract(name="x", chunks={"delta": dict[str, str | bool]}, end={"done": True})
    assert rules_of(ended, chunk("delta", done=True, n=1)) == ["schema.field-type"]


def test_an_endless_stream_may_end_anywhere() -> None:
    endless = attrs.evolve(
        ORDERED, order="start (delta | usage)* finish", endless=True, each=Each("delta usage by id")
    )
    assert rules_of(endless, START, chunk("delta", id=1)) == []
    assert rules_of(endless) == []
    assert rules_of(endless, ": a comment\n\n") == []
    assert found(endless, "<html>\n") == [
        ("stream.empty", None, "expected events, got no event, only <html>\\n")
    ]


def test_a_stream_whose_order_allows_no_event_may_be_empty() -> None:
    assert rules_of(attrs.evolve(BASE, order="delta*")) == []
    assert rules_of(attrs.evolve(BASE, order="delta*", terminator="[DONE]")) == ["stream.empty"]
    assert rules_of(BASE) == ["stream.empty"]


@pytest.mark.parametrize(
    "order", [None, "start (delta | usage)* finish", "start (delta | usage)* (finish | error)"]
)
@pytest.mark.parametrize("terminator", [None, "[DONE]"])
def test_after_an_error_nothing_more_is_asked(order: str | None, terminator: str | None) -> None:
    contract = attrs.evolve(
        BASE, order=order, terminator=terminator, each=Each("delta usage by id"), error="error", chunks={**KINDS, "error": ANYTHING}
    )  # fmt: skip
    failed = event({"type": "error", "code": 7})
    expected = [
        ("stream.service-error", 2, 'expected a turn without an error, got {"type": "error", "code": 7}')
    ]
    assert found(contract, START, chunk("delta", id=1), failed) == expected
    assert rules_of(contract, failed) == ["stream.service-error"]
    assert report_on(contract, START, failed).service_error == '{"type": "error", "code": 7}'
    if terminator:
        assert rules_of(contract, START, failed, DONE) == ["stream.service-error"]


def test_an_order_that_names_the_error_says_what_may_follow_it() -> None:
    contract = attrs.evolve(
        BASE, order="start (delta | error)* finish", error="error", chunks={**KINDS, "error": ANYTHING}
    )
    failed = chunk("error")
    assert rules_of(contract, START, failed, DELTA, FINISH) == ["stream.service-error"]
    assert rules_of(contract, START, failed, DELTA) == ["stream.service-error", "order.finish-missing"]


def test_an_error_is_a_member_or_a_name_too() -> None:
    member = attrs.evolve(
        BASE, error=ServiceError(kind="error", code="/data/error/code", member="/data/error")
    )
    for harmless in (None, False, ""):
        assert rules_of(member, chunk("delta", error=harmless)) == []
    assert found(member, START, chunk("delta", error={"code": "x"})) == [
        ("stream.service-error", 1, "expected a turn without an error, got x")
    ]
    assert found(member, event({"error": 5})) == [
        ("stream.service-error", 0, "expected a turn without an error, got no code")
    ]
    named = attrs.evolve(BASE, kind=Kind.field("type", overrides="error"), error="error")
    any_integer = attrs.evolve(named, severities={"json.unsafe-integer": "ignored"})
    assert found(any_integer, START, event({"big": 2**70}, "error")) == [
        ("stream.service-error", 1, 'expected a turn without an error, got {"big": 1180591620717411303424}')
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"order": "start finsh"}, "order names the kind finsh, which no chunk declares; did you mean finish?"),
        ({"end": "zzz"}, "end names the kind zzz, which no chunk declares; declared: start, delta, usage, ping, finish, stop"),
        ({"anywhere": "pong"}, "anywhere names the kind pong, which no chunk declares; did you mean ping?"),
        ({"end": "stop", "after_end": "used"}, "after_end names the kind used, which no chunk declares; did you mean usage?"),
        ({"each": "detla finish by id"}, "each 'detla finish by id' names the kind detla, which no chunk declares; did you mean delta?"),
        ({"each": Each("delta finish by id", closed_by="stp")}, "each 'delta finish by id' names the kind stp, which no chunk declares; did you mean stop?"),
        ({"order": "start finish", "end": "stop"}, "end names the kind stop, which the order 'start finish' never allows"),
        ({"order": "start finish", "each": "delta stop by id"}, "each 'delta stop by id' names the kind delta, which the order 'start finish' never allows"),
        ({"order": "start delta usage ping finish stop ."}, "the order 'start delta usage ping finish stop .' can never end, because its dot stands for no kind: all kinds are named"),
        ({"after_end": "usage"}, "after_end says what may follow the last event, but no event is the last one; give a terminator or an end"),
        ({"end": {"/date/x": 1}}, "the path /date/x does not begin with /data, /event, /id or /retry"),
        ({"end": {"x": {"a": 1}}}, "end: give a text, a number, true, false or null for x, or a list of such"),
        ({"end": {"x": [[1]]}}, "end: give a text, a number, true, false or null for x, or a list of such"),
        ({"method": "PUT"}, None),
        ({"resume": "offset"}, None),
        ({"order": " ".join(f"k{n}" for n in range(600)), "chunks": ANYTHING}, "the order needs a table of more than 200000 entries; split it into `each` orders"),
    ],
)  # fmt: skip
def test_a_slip_is_an_error_when_the_contract_is_made(fields: dict[str, Any], sentence: str | None) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared
        attrs.evolve(BASE, **fields)
    assert sentence in {None, str(caught.value)}


def test_an_error_cannot_be_a_member_outside_the_data() -> None:
    with pytest.raises(ValueError, match=r"the member /event of an error is no field of the data"):
        ServiceError(kind="error", member="/event")


TABLE = Grammar(
    initial="s",
    symbols={"start": "start"},
    other="any",
    transitions={
        **{("s", symbol): Transition("s") for symbol in ("start", "any", TERMINATOR)},
        ("s", END): Transition("s", "order.finish-missing", "more"),
    },
    states={"s": "somewhere"},
)


def test_what_the_notation_cannot_say_is_a_table() -> None:
    contract = attrs.evolve(BASE, order=TABLE)
    assert found(contract, START) == [("order.finish-missing", None, "expected more, got end of the body")]
    assert report_on(contract, START).state == "somewhere"
    scope = Each("delta finish by id").scope()
    assert scope.moves["finish"][ABSENT].rule == "order.unopened-part"
    assert rules_of(attrs.evolve(BASE, each=scope), chunk("finish", id=1)) == ["order.unopened-part"]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"each": "delta finish by id"}, "each"),
        ({"anywhere": "ping", "end": "stop"}, "anywhere, end"),
        ({"end": {"x": 1}, "endless": True}, "end, endless"),
        ({"after_end": "usage"}, "after_end"),
    ],
)
def test_a_table_stands_alone(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=f"^the order is a table, which says {names} too; write it there$"):
        attrs.evolve(BASE, order=TABLE, **fields)


def test_a_table_without_gaps_is_asked_for() -> None:
    gap = {pair: move for pair, move in TABLE.transitions.items() if pair != ("s", "any")}
    with pytest.raises(
        ValueError, match=r"^the table of the order has no transition for any in the state s$"
    ):
        attrs.evolve(BASE, order=attrs.evolve(TABLE, transitions=gap))
    astray = {**TABLE.transitions, ("s", "any"): Transition("t")}
    with pytest.raises(ValueError, match="leads to t, which is no state, by any in the state s"):
        attrs.evolve(BASE, order=attrs.evolve(TABLE, transitions=astray))


def test_variants_of_a_contract_share_their_tables() -> None:
    assert attrs.evolve(ORDERED, severities={"order.unexpected": Severity.WARNING}).grammar is ORDERED.grammar


def test_a_long_order_has_one_state_for_each_place() -> None:
    long = [f"long{number}" for number in range(200)]
    table = attrs.evolve(BASE, chunks=ANYTHING, order=" ".join(long)).grammar
    assert len(long) < len(table.states) < len(long) + 10


def test_a_table_of_fields_knows_fields_of_the_data_alone() -> None:
    def with_scope(path: str) -> StreamContract:
        scope = Each(f"start finish by {path}", must_close=False).scope()
        return attrs.evolve(AI_SDK_7, order=attrs.evolve(AI_SDK_7.grammar, scopes=(scope,)))

    nowhere = with_scope("nope")
    assert "order.unexpected" in rules_of(nowhere, START, START), "all have the same id: none"
    with pytest.raises(ValueError, match="the path /data/a/b is not one field of the data"):
        with_scope("/data/a/b")
    assert AI_SDK_7.kind_of(MessageEvent('{"type":"start"}')) == "start"
    assert AI_SDK_7.kind_of(MessageEvent("[DONE]")) == "[DONE]"
    assert AI_SDK_7.kind_of(MessageEvent("{", name="n")) == "n"
