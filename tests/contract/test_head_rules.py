"""Names and values of headers compare by their meaning, in whatever case their owner writes them."""

from typing import Any

import pytest

from cutover.contract import ContractChecker, HeadRules, Kind, StreamContract
from cutover.contract.head_rules import means_the_same, media_type

BODY = b"data: 1\n\n"
PLAIN = {"Content-Type": "text/event-stream"}


def rules_of(
    head: HeadRules, headers: dict[str, str] | list[tuple[str, str]], status: int = 200
) -> list[str]:
    contract = StreamContract(name="head", kind=Kind.single(), head=head)
    checker = ContractChecker(contract)
    pairs = headers.items() if isinstance(headers, dict) else headers
    checker.receive_head(status, [(name.encode(), value.encode()) for name, value in pairs], elapsed=0.0)
    checker.receive_data(BODY, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    return [each.rule for each in checker.report().findings]


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("cache-control", "no-cache, No-Transform", "NO-TRANSFORM,no-cache", True),
        ("cache-control", "no-cache", "no-store", False),
        ("vary", "Accept, Origin,", "origin , accept", True),
        ("x-accel-buffering", "no", "No", True),
        ("content-type", "Text/Event-Stream; charset=UTF-8", 'text/event-stream;CHARSET="utf-8"', True),
        ("content-type", "text/event-stream; v=A", "text/event-stream; v=a", False),
        ("content-type", "text/event-stream", "text/event-stream; charset=utf-8", False),
        ("x-version", " v1\t", "v1", True),
        ("x-version", "v1", "V1", False),
    ],
)
def test_two_values_mean_the_same(name: str, one: str, other: str, same: bool) -> None:
    assert means_the_same(name, one, other) is same
    assert means_the_same(name, other, one) is same


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ("", {})),
        ("a/b", ("a/b", {})),
        (' A/B ; X="q;\\"r" ; y = 2;', ("a/b", {"x": 'q;"r', "y": "2", "": ""})),
        ('a/b; x="unfinished; y=1', ("a/b", {"x": '"unfinished; y=1'})),
        ("a/b; x=1; X=2", ("a/b", {"x": "1"})),
        ('a/b; x="a\\\\"; y=1', ("a/b", {"x": "a\\", "y": "1"})),
    ],
)
def test_a_media_type_has_parameters(value: str, expected: object) -> None:
    assert media_type(value) == expected


@pytest.mark.parametrize(
    ("head", "headers", "expected"),
    [
        ({}, PLAIN, []),
        ({"content_type": " TEXT/Event-Stream "}, {"CONTENT-TYPE": "text/EVENT-stream;charset=x"}, []),
        ({"content_type": None}, {}, []),
        ({}, {"content-type": "application/json"}, ["head.content-type"]),
        ({}, {}, ["head.content-type"]),
        ({"charset": "UTF-8"}, {"content-type": "text/event-stream; charset=utf-8"}, []),
        ({"charset": "utf-8"}, PLAIN, ["head.charset"]),
        ({"required": {" X-Version ": "v1"}}, {**PLAIN, "x-VERSION": "v1"}, []),
        ({"required": {"X-Version": "v1"}}, {**PLAIN, "x-version": "v2"}, ["head.header-value"]),
        ({"required": {"X-Version": "v1"}}, PLAIN, ["head.header-missing"]),
        ({"required": {"Cache-Control": "no-cache"}}, {**PLAIN, "cache-control": "No-Cache"}, []),
        ({"refused": "X-Old"}, {**PLAIN, "x-old": ""}, ["head.header-refused"]),
        ({"refused": ["X-Old", "x-older"]}, {**PLAIN, "X-OLDER": "1"}, ["head.header-refused"]),
        ({"required": {"content-type": "text/event-stream"}}, [*PLAIN.items(), ("content-type", "text/event-stream; charset=utf-8")], ["head.header-conflict"]),
        ({}, [*PLAIN.items(), ("content-type", "Text/Event-Stream")], []),
        ({"required": {"x-v": "1"}}, [*PLAIN.items(), ("x-v", "1"), ("X-V", "2")], ["head.header-conflict"]),
    ],
)  # fmt: skip
def test_the_rules_for_a_head(head: dict[str, Any], headers: Any, expected: list[str]) -> None:
    assert rules_of(HeadRules(**head), headers) == expected


@pytest.mark.parametrize("statuses", [201, (200, 201), [201]])
def test_one_status_or_several_are_allowed(statuses: Any) -> None:
    head = HeadRules(statuses=statuses)
    assert rules_of(head, PLAIN, 201) == []
    assert rules_of(head, PLAIN, 500) == ["head.status"]


@pytest.mark.parametrize(
    "value", ["none", "None", "identity", "IDENTITY", "", " none ", "identity, none", "UTF-8"]
)
def test_a_coding_that_compresses_nothing_is_no_compression(value: str) -> None:
    assert rules_of(HeadRules(), {**PLAIN, "content-encoding": value}) == []


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([("Content-Encoding", "br")], "br"),
        ([("content-encoding", "identity, GZip")], "gzip"),
        ([("content-encoding", "none"), ("content-encoding", "gzip")], "gzip"),
    ],
)
def test_a_compressed_stream_is_told_with_what_compresses_it(
    headers: list[tuple[str, str]], shown: str
) -> None:
    checker = ContractChecker(StreamContract(name="head", kind=Kind.single()))
    pairs = [*PLAIN.items(), *headers]
    (finding,) = checker.receive_head(
        200, [(name.encode(), value.encode()) for name, value in pairs], elapsed=0.0
    )
    assert (finding.rule, finding.actual) == ("head.compressed", f"a stream compressed with {shown}")


@pytest.mark.parametrize(
    ("more", "rules"),
    [
        ({"content-length": "9", "transfer-encoding": "chunked"}, ["head.length-and-chunked"]),
        ({"Content-Length": "9", "Transfer-Encoding": "gzip, Chunked"}, ["head.length-and-chunked"]),
        ({"content-length": "9", "transfer-encoding": "identity"}, []),
        ({"content-length": "9"}, []),
        ({"transfer-encoding": "chunked"}, []),
    ],
)
def test_a_length_beside_chunks_is_a_warning(more: dict[str, str], rules: list[str]) -> None:
    assert rules_of(HeadRules(), {**PLAIN, **more}) == rules
