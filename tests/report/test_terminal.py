"""The terminal output: one line for each event, control characters escaped, no error for a closed terminal."""

import io
from collections.abc import Sequence

import attrs
import pytest
from rich.console import Console

from cutover.errors import UndoUnprovenError
from cutover.model.results import USERS, Check, SentinelTally, StepResult, StepStatus
from cutover.model.route_state import GLOBAL, RouteState
from cutover.model.summary import fold
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    Answered,
    CheckRecorded,
    Decided,
    Interrupted,
    RouteIntended,
    RoutesRead,
    StepFinished,
    StepStarted,
    TrafficIntended,
    TrafficRead,
    TrafficSettled,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
)
from cutover.model.undo_plan import plan_undo
from cutover.model.undo_policy import UNRESOLVED
from cutover.report.live_view import LiveView
from cutover.report.terminal import Terminal, conclusion, describe_undo, line_of

STABLE, CANARY = TrafficTarget(revision="stable", percent=95), TrafficTarget(revision="canary", percent=5)
CAPTURED = TrafficState(
    targets=(attrs.evolve(STABLE, percent=100),), statuses=(attrs.evolve(STABLE, percent=100),)
)
MOVED = TrafficState(targets=(STABLE, CANARY), statuses=(STABLE, CANARY))
ROUTES = RouteState(overrides=((GLOBAL, None),))
HOSTILE = "[bold red]x[/bold red] [link=https://evil.example]y[/link] :boom:"


def checked(status: StepStatus, detail: str = "", *, warns: bool = False) -> CheckRecorded:
    check = Check(check_id="traffic-5", status=status, detail=detail, warns=warns)
    return CheckRecorded(step_id="drill", check=check)


def finished(status: StepStatus, detail: str = "", step_id: str = "drill") -> StepFinished:
    return StepFinished(result=StepResult(step_id=step_id, status=status, detail=detail))


def routed(times: int, wanted: str | None = "rust_shell") -> RouteIntended:
    return RouteIntended(step_id="route-flip", key=GLOBAL, captured=ROUTES, wanted=wanted, times=times)


class Gone(io.StringIO):
    """A terminal whose other side is closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


class TestLines:
    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (TrainStarted(run_id="r1", facts={"dry_run": True}), "train r1: rehearsal"),
            (TrainStarted(run_id="r1", facts={"dry_run": False}), "train r1: LIVE"),
            (StepStarted(step_id="drill"), "drill ..."),
            (checked(StepStatus.FAIL, "broken"), "drill   traffic-5: FAIL  broken"),
            (checked(StepStatus.ERROR, "silence"), "drill   traffic-5: ERROR  silence"),
            (checked(StepStatus.PASS), ""),
            (checked(StepStatus.PASS, "renew it", warns=True), "drill   traffic-5: warn  renew it"),
            (
                TrafficIntended(step_id="drill", captured=CAPTURED, wanted=(STABLE, CANARY), etag=None),
                "drill   asking for canary 5 %, stable 95 %",
            ),
            (TrafficRead(found=MOVED, proven=True), "traffic   canary 5 %, stable 95 %"),
            (TrafficRead(found=MOVED, proven=False), "traffic   canary 5 %, stable 95 %  (NOT as asked)"),
            (routed(1), "route-flip   setting global to rust_shell"),
            (routed(1, None), "route-flip   setting global to clear"),
            (routed(20), ""),
            (finished(StepStatus.PASS, "well"), "drill ok  well"),
            (finished(StepStatus.SKIP, "not run"), "drill skip  not run"),
            (Interrupted(cause="Cancelled"), "interrupted: the run was cancelled"),
            (Interrupted(cause="KeyError"), "interrupted by an error in cutover itself (KeyError)"),
            (UndoStarted(reason="a gate does not hold"), "undo ...  a gate does not hold"),
            (UndoFinished(proven=True, detail="as captured"), "undo ok  as captured"),
            (UndoFinished(proven=False, detail="403"), "undo NOT PROVEN  403"),
            (TrainFinished(passed=True, exit_code=0), "verdict: GO"),
            (TrainFinished(passed=False, exit_code=1), "verdict: NO GO"),
            (TrainFinished(passed=False, exit_code=1, reasons=("reverted",)), "closed: reverted"),
            (TrainFinished(passed=False, exit_code=4, reasons=(UNRESOLVED,)), f"not closed: {UNRESOLVED}"),
            (Answered(key="traffic", outcome="accepted"), ""),
            (RoutesRead(shares=((ROUTES, 59),), proven=True), ""),
            (TrafficSettled(), ""),
        ],
    )
    def test_each_event_has_its_line(self, event: TrainEvent, line: str) -> None:
        assert line_of(event) == line
        stream = io.StringIO()
        Terminal(stream).observe(attrs.evolve(event, at="2026-03-01T10:11:12.345Z"))
        assert stream.getvalue() == (f"10:11:12 {line}\n" if line else "")

    def test_latest_is_asked_for_by_its_own_name(self) -> None:
        """The restored split follows LATEST; the line of a pinned revision would say something else."""
        wanted = (TrafficTarget(revision=None, percent=100),)
        event = TrafficIntended(step_id="drill", captured=MOVED, wanted=wanted, etag=None)
        assert line_of(event) == "drill   asking for LATEST 100 %"

    def test_a_write_that_is_refused_again_and_again_is_said_once(self) -> None:
        stream = io.StringIO()
        terminal = Terminal(stream)
        again: list[TrainEvent] = [
            TrafficIntended(step_id="drill", captured=CAPTURED, wanted=(STABLE, CANARY), etag=None, at="T"),
            Answered(key="traffic", outcome="refused", at="T"),
            TrafficRead(found=CAPTURED, proven=False, at="T"),
        ]
        for event in (*again, *again, *again, checked(StepStatus.FAIL, "refused"), *again):
            terminal.observe(event)
        asked, read = " drill   asking for canary 5 %, stable 95 %", " traffic   stable 100 %  (NOT as asked)"
        assert stream.getvalue().splitlines() == [
            asked,
            read,
            " drill   traffic-5: FAIL  refused",
            asked,
            read,
        ]

    def test_control_characters_are_shown_escaped(self) -> None:
        stream = io.StringIO()
        Terminal(stream).line("a\x1b[2J\r\nforged \u202eline\x07")
        assert stream.getvalue() == "a\\x1b[2J\\r\\nforged \\u202eline\\x07\n"

    def test_a_long_line_is_cut(self) -> None:
        stream = io.StringIO()
        Terminal(stream).line("x" * 100_000)
        assert len(stream.getvalue()) < 2100

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
    def test_characters_that_the_terminal_cannot_encode_are_shown_escaped(self, encoding: str) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        Terminal(stream).line("日本 UNDO NOT PROVEN")
        assert raw.getvalue() == b"\\u65e5\\u672c UNDO NOT PROVEN\n"

    def test_a_closed_stream_is_no_error(self) -> None:
        closed = io.StringIO()
        closed.close()
        for stream in (closed, Gone()):
            Terminal(stream).line("nobody reads this")
            Terminal(stream).observe(StepStarted(step_id="drill"))

    def test_the_default_stream_is_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        Terminal().line()
        assert capsys.readouterr() == ("", "\n")


class TestConclusion:
    def test_a_passed_rehearsal(self) -> None:
        facts = {"dry_run": True}
        summary = fold([TrainStarted(run_id="r", facts=facts), TrainFinished(passed=True, exit_code=0)])
        lines = conclusion(summary, evidence="run/SUMMARY.md")
        assert lines[:2] == ["verdict   passed (rehearsal), exit 0", "gates"]
        assert lines[-2:] == ["evidence  run/SUMMARY.md", "report    run/report.html"]

    def test_each_gate_says_whether_it_holds(self) -> None:
        skipped = StepResult(step_id="dual-run-diff", status=StepStatus.SKIP, by_configuration=True)
        tally = SentinelTally(change="route-flip", streams=3, broken=2)
        flip = StepResult(step_id="route-flip", status=StepStatus.PASS, sentinels=(tally,))
        summary = fold([finished(StepStatus.PASS, step_id="preflight"), *map(_finished, (skipped, flip))])
        lines = conclusion(summary, evidence=None)
        assert "  preflight       holds (0 failed, 0 allowed)" in lines
        assert "  stream_smoke    DOES NOT HOLD (not evaluated, because not all of its steps ran)" in lines
        assert "  dual_run        not part of this run (0 failed, 0 allowed)" in lines
        assert "  broken_streams  DOES NOT HOLD (2 failed, 0 allowed)" in lines
        assert lines[-1] == "reason    the run was cut off; recover it"

    def test_the_claim_of_real_users_stands_behind_the_canarys_own(self) -> None:
        checks = tuple(
            Check(
                check_id=f"traffic-{share}-users", status=StepStatus.PASS, detail=f"users {share}", kind=USERS
            )
            for share in (5, 25)
        )
        facts = {"judgement": {"traffic-25": {"claim": "no worse"}}}
        drill = StepResult(
            step_id="canary-rollback-drill", status=StepStatus.PASS, checks=checks, facts=facts
        )
        lines = conclusion(fold([_finished(drill)]), evidence=None)
        assert lines[1:4] == [
            "canary    traffic-25: no worse",
            "users     traffic-25-users: users 25",
            "gates",
        ]
        alone = conclusion(fold([_finished(attrs.evolve(drill, facts={}))]), evidence=None)
        assert alone[1] == "users     traffic-25-users: users 25"

    def test_a_failure_that_no_limit_tolerates_is_named(self) -> None:
        check = Check(check_id="traffic", status=StepStatus.FAIL, tolerable=False)
        flip = StepResult(step_id="route-flip", status=StepStatus.FAIL, checks=(check,))
        facts = {"ceilings": {"route_flip": 3}}
        lines = conclusion(fold([TrainStarted(run_id="r", facts=facts), _finished(flip)]), evidence=None)
        assert (
            "  route_flip      DOES NOT HOLD (1 failed, 3 allowed, but one of them is never tolerated)"
            in lines
        )

    def test_a_run_that_judged_nothing_says_so_and_names_the_causes_with_what_to_do(self) -> None:
        checks = tuple(
            Check(check_id=f"token-{number}", status=StepStatus.ERROR, detail="renew it")
            for number in range(7)
        )
        early = StepResult(step_id="preflight", status=StepStatus.ERROR, checks=checks)
        events: list[TrainEvent] = [
            _finished(early),
            TrainFinished(passed=False, exit_code=3, reasons=("preflight: 7 failed",)),
        ]
        summary = fold(events)
        lines = conclusion(summary, evidence=None)
        assert lines[1] == "state     this run proves nothing, and production is as it was found"
        told = [f"preflight, token-{number}: renew it" for number in range(5)]
        assert lines[-6:] == [f"cause     {cause}" for cause in (*told, "2 more, in the steps")]

    def test_an_undo_that_was_not_proven_ends_with_what_to_do(self) -> None:
        undo = UndoFinished(proven=False, detail="403", to_do=("check this", "run that"))
        summary = fold([undo, TrainFinished(passed=False, exit_code=4, reasons=("why",))])
        assert conclusion(summary, evidence=None)[-4:] == [
            "reason    why",
            "undo      NOT PROVEN: 403",
            "  DO      check this",
            "  DO      run that",
        ]
        proven = fold([UndoFinished(proven=True, detail="as captured")])
        assert conclusion(proven, evidence=None)[-1] == "undo      proven: as captured"


def _finished(result: StepResult) -> StepFinished:
    return StepFinished(result=result)


def drawn(events: Sequence[TrainEvent]) -> str:
    """Return the text of a live view after these events."""
    console = Console(file=io.StringIO(), force_terminal=True, width=160, record=True)
    view = LiveView(console=console)
    for event in events:
        view.observe(event)
    console.print(view.render())
    return console.export_text()


class TestLiveView:
    def test_steps_split_and_the_last_event_are_shown(self) -> None:
        picture = drawn(
            [
                StepStarted(step_id="preflight"),
                finished(StepStatus.PASS, "production is one", step_id="preflight"),
                StepStarted(step_id="drill"),
                TrafficIntended(step_id="drill", captured=CAPTURED, wanted=(STABLE, CANARY), etag=None),
            ]
        )
        assert "preflight  pass     production is one" in picture
        assert "drill      running" in picture
        assert "traffic: stable 100 %" in picture
        assert picture.rstrip().endswith("drill   asking for canary 5 %, stable 95 %")

    def test_the_view_shows_the_split_that_was_read_last(self) -> None:
        intended = TrafficIntended(step_id="drill", captured=CAPTURED, wanted=(), etag=None)
        picture = drawn([intended, TrafficRead(found=MOVED, proven=True), intended, TrafficSettled()])
        assert "traffic: canary 5 %, stable 95 %" in picture
        assert "not read yet" in drawn([])

    @pytest.mark.parametrize("status", StepStatus)
    def test_text_from_the_network_is_never_markup(self, status: StepStatus) -> None:
        picture = drawn([finished(status, HOSTILE)])
        assert f"{status.value}" in picture
        # once in its row, once as the last event
        assert picture.count(HOSTILE) == 2

    def test_control_characters_are_shown_escaped(self) -> None:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=160, color_system=None)
        view = LiveView(console=console)
        view.observe(finished(StepStatus.PASS, "\x1b[2J\u202e\x9b"))
        console.print(view.render())
        # once in its row, once as the last event
        assert file.getvalue().count("\\x1b[2J\\u202e\\x9b") == 2
        assert "\x1b" not in file.getvalue()

    def test_a_closed_terminal_stops_nothing(self) -> None:
        with LiveView(console=Console(file=Gone(), force_terminal=True)) as view:
            view.observe(StepStarted(step_id="drill"))
        assert view.progress.steps == {"drill": ("running", "")}

    def test_the_view_draws_itself_while_it_is_open(self) -> None:
        file = io.StringIO()
        with LiveView(console=Console(file=file, force_terminal=True, width=80)) as view:
            view.observe(StepStarted(step_id="preflight"))
        assert "preflight" in file.getvalue()

    def test_the_view_does_not_swallow_errors(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True)
        with pytest.raises(UndoUnprovenError), LiveView(console=console):
            raise UndoUnprovenError("act")

    def test_the_undo_has_a_row_of_its_own_with_its_decisions(self) -> None:
        decided = Decided(
            part="traffic",
            action="write",
            why="it is as the train left it",
            captured="",
            intended="",
            found="canary 5 %",
        )
        events: list[TrainEvent] = [
            StepStarted(step_id="drill"),
            Interrupted(cause="Cancelled"),
            UndoStarted(reason="interrupted"),
            decided,
        ]
        picture = drawn(events)
        assert "drill  stopped" in picture
        assert "undo   running  interrupted; traffic: write, it is as the train left it" in picture
        picture = drawn([*events, UndoFinished(proven=True, detail="as captured")])
        assert (
            "undo   pass     interrupted; traffic: write, it is as the train left it; as captured" in picture
        )
        assert "undo  fail    interrupted; 403" in drawn(
            [UndoStarted(reason="interrupted"), UndoFinished(proven=False, detail="403")]
        )

    def test_a_step_that_never_ends_is_stopped_by_the_verdict(self) -> None:
        picture = drawn([StepStarted(step_id="drill"), TrainFinished(passed=False, exit_code=1)])
        assert "drill  stopped" in picture

    def test_lines_for_the_terminal_are_in_the_view_while_it_is_open(self) -> None:
        file, beside = io.StringIO(), io.StringIO()
        terminal = Terminal(beside)
        with LiveView(console=Console(file=file, force_terminal=True, width=80)) as view:
            terminal.view = view
            terminal.line("SIGINT: \x1b[2Jstopping [bold]x[/bold]")
            terminal.close_view()
            terminal.line("the end")
        assert "SIGINT: \\x1b[2Jstopping [bold]x[/bold]" in file.getvalue()
        assert beside.getvalue() == "the end\n"
        terminal.close_view()

    def test_a_low_terminal_shows_the_last_lines_of_the_view(self) -> None:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=60, height=4, color_system=None)
        view = LiveView(console=console)
        for number in range(20):
            view.observe(finished(StepStatus.PASS, "x" * 100, step_id=f"step-{number}"))
        view.say("the answer")
        console.print(view._live.get_renderable())
        lines = file.getvalue().splitlines()
        assert len(lines) == 4
        assert lines[-1] == "the answer"
        view.close()
        # closed, the view is whole
        file.truncate(0)
        console.print(view._live.get_renderable())
        assert "step-0 " in file.getvalue()


class TestUndo:
    @pytest.mark.parametrize(
        ("events", "words"),
        [
            ([], ""),
            (
                [TrafficIntended(step_id="drill", captured=CAPTURED, wanted=(STABLE, CANARY), etag=None)],
                "traffic back to stable 100 %",
            ),
            ([routed(1)], "overrides back to clear: global"),
            (
                [
                    TrafficIntended(step_id="drill", captured=CAPTURED, wanted=(STABLE, CANARY), etag=None),
                    TrafficSettled(),
                    routed(1),
                ],
                "overrides back to clear: global",
            ),
        ],
    )
    def test_the_changes_that_an_undo_restores_are_named(self, events: list[TrainEvent], words: str) -> None:
        assert describe_undo(plan_undo(events, stable="stable")) == words
