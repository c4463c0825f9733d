"""Pages of runs for tests: the events of a hostile run, and a page read as a person and a browser read it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import attrs

from cutover.contract.findings import Finding
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.seen_stream import QuotedFinding, SeenStream
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    Answered,
    Decided,
    RouteIntended,
    RoutesRead,
    StepFinished,
    StepStarted,
    StreamsSeen,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
)

HOSTILE = (
    "</style></title><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'`{{7*7}}&lt;"
    "\u202egnp.exe\u2066\u200f\x00\x1b[31m\ud800\r\n# head | cell"
)
"""A text that tries to leave every place of a page."""
_VOID = {"meta", "br", "path", "rect", "line"}


def hostile_events() -> list[TrainEvent]:
    """Return the events of an unresolved run in which every text that may come from outside is hostile."""
    split = TrafficState(
        targets=(TrafficTarget(revision=HOSTILE, percent=100),),
        statuses=(TrafficTarget(revision=HOSTILE, percent=100),),
    )
    routes = RouteState(overrides=((HOSTILE, HOSTILE), ("global", None)))
    quoted = QuotedFinding(
        rule=HOSTILE,
        severity="violation",
        message=HOSTILE,
        event_index=3,
        byte_offset=7,
        before=HOSTILE,
        after=HOSTILE + r"\n\n" + HOSTILE,
    )
    stream = SeenStream(
        change=HOSTILE,
        kind="held",
        alias=HOSTILE,
        place=HOSTILE,
        thread=HOSTILE,
        revision=HOSTILE,
        status=200,
        began="2026-11-28T12:00:02.000Z",
        held=500.0,
        ended=400.0,
        count=3,
        times=(1.0, 2.5, 400.0),
        ok=False,
        reason=HOSTILE,
        findings=(quoted,),
    )
    finding = Finding(rule=HOSTILE, message=HOSTILE, event_index=1, byte_offset=2)
    check = Check(
        check_id=HOSTILE,
        status=StepStatus.FAIL,
        detail=HOSTILE,
        endpoint=f"https://x/{HOSTILE}",
        body_path=HOSTILE,
        findings=(finding,),
    )
    sides = {"place": HOSTILE, "text": HOSTILE, "new": HOSTILE, "old": HOSTILE}
    in_words = {"place": HOSTILE, "text": HOSTILE}
    compared = {
        "id": HOSTILE,
        "rust_status": HOSTILE,
        "differences": [sides, in_words],
        "left_out": [{"place": HOSTILE, "reason": HOSTILE}],
    }
    result = StepResult(
        step_id="dual-run-diff",
        status=StepStatus.FAIL,
        detail=HOSTILE,
        checks=(check,),
        facts={"requests": [compared], HOSTILE: HOSTILE},
        sentinels=(SentinelTally(change=HOSTILE, streams=1, broken=1),),
    )
    names = ("base_url", "stable_revision", "canary_revision", "project", "region", "service")
    facts = dict.fromkeys(names, HOSTILE)
    started = TrainStarted(
        run_id=HOSTILE,
        facts={
            **facts,
            "dry_run": False,
            "inputs": {HOSTILE: HOSTILE},
            "what_if": [HOSTILE],
            HOSTILE: HOSTILE,
        },
    )
    events: list[TrainEvent] = [
        started,
        StepStarted(step_id="dual-run-diff"),
        TrafficIntended(step_id=HOSTILE, captured=split, wanted=split.targets, etag=HOSTILE),
        Answered(key="traffic", outcome=HOSTILE, detail=HOSTILE),
        TrafficRead(found=split, proven=False),
        RouteIntended(step_id=HOSTILE, key=HOSTILE, captured=routes, wanted=HOSTILE, times=1),
        Answered(key=HOSTILE, outcome=HOSTILE, detail=HOSTILE),
        RoutesRead(shares=((routes, 2), (RouteState(overrides=()), 1)), proven=False),
        StreamsSeen(streams=(stream,), left_out=((HOSTILE, 3),)),
        StepFinished(result=result),
        UndoStarted(reason=HOSTILE),
        Decided(
            part="traffic", action=HOSTILE, why=HOSTILE, captured=HOSTILE, intended=HOSTILE, found=HOSTILE
        ),
        UndoFinished(proven=False, detail=HOSTILE, to_do=(HOSTILE,)),
        TrainFinished(passed=False, exit_code=4, reasons=(HOSTILE,)),
    ]
    return timed(events)


def timed(events: list[TrainEvent]) -> list[TrainEvent]:
    """Return the events, each half a second after the one before."""
    return [
        attrs.evolve(event, at=f"2026-11-28T12:00:{number // 2:02}.{5 * (number % 2)}00Z")
        for number, event in enumerate(events)
    ]


@attrs.define(eq=False)
class PageText(HTMLParser):
    """A page as a reader sees it: its elements and texts. It fails on an element that is not closed in its order."""

    tags: list[tuple[str, dict[str, str | None]]] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    ids: list[str] = attrs.field(factory=list)
    _open: list[str] = attrs.field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, page: bytes) -> "PageText":
        read = cls()
        read.feed(page.decode())
        read.close()
        assert read._open == [], f"not closed: {read._open}"
        return read

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"{tag} was never opened"
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """The text of the page with single spaces."""
        return " ".join(" ".join(self.texts).split())

    @property
    def headings(self) -> list[int]:
        """The levels of the headings, in order."""
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element with this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def style_hash_of(page: bytes) -> str:
    """Return the hash of the page's style sheet, as a policy names it."""
    (style,) = re.findall(rb"<style>(.*?)</style>", page, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(style).digest()).decode()
