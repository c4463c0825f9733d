"""The reports of a train to CI servers: JUnit, annotations and a step's summary, each within its limits."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from cutover.cli.ci_reports import CiReports
from cutover.config.config import CutoverConfig
from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.summary import fold
from cutover.model.train_events import StepFinished, TrainEvent, TrainFinished, TrainStarted, UndoFinished
from cutover.report.github import annotation, annotations, step_summary
from cutover.report.junit import train_junit
from cutover.report.terminal import Terminal

STARTED = TrainStarted(run_id="t", facts=CutoverConfig(stable_revision="a-1", canary_revision="a-2").facts())
MEBIBYTE = 1024 * 1024


def _train(*statuses: StepStatus, exit_code: int, detail: str = "why") -> list[TrainEvent]:
    checks = tuple(
        Check(check_id=f"c{number}", status=status, detail=detail) for number, status in enumerate(statuses)
    )
    return [
        STARTED,
        StepFinished(result=StepResult(step_id="smoke", status=StepStatus.FAIL, checks=checks)),
        StepFinished(result=StepResult(step_id="flip", status=StepStatus.SKIP, detail="not run")),
        TrainFinished(passed=exit_code == 0, exit_code=exit_code, reasons=("smoke: 1 failed",)),
    ]


def _cases(report: bytes) -> Mapping[str, list[str]]:
    """Return the kinds of the results of each test case, by its class and its name."""
    return {
        f"{case.get('classname')}.{case.get('name')}": [each.tag for each in case if each.tag != "system-out"]
        for case in ET.fromstring(report).iter("testcase")  # noqa: S314  our own report
    }


@pytest.mark.parametrize(
    ("exit_code", "verdict"),
    [
        (0, []),
        (1, ["failure"]),
        (2, ["error"]),
        (3, ["error"]),
        (4, ["error"]),
        (130, ["error"]),
        (143, ["error"]),
    ],
)
def test_the_verdict_is_a_failure_for_1_and_an_error_for_every_other_code(
    exit_code: int, verdict: list[str]
) -> None:
    events = _train(StepStatus.PASS, exit_code=exit_code)
    assert _cases(train_junit(fold(events), exit_code=exit_code))["cutover.verdict"] == verdict


def test_each_check_is_a_case_and_a_step_that_did_not_run_is_skipped() -> None:
    statuses = (StepStatus.PASS, StepStatus.FAIL, StepStatus.ERROR, StepStatus.SKIP)
    report = train_junit(fold(_train(*statuses, exit_code=1)), exit_code=1)
    assert _cases(report) == {
        "smoke.c0": [],
        "smoke.c1": ["failure"],
        "smoke.c2": ["error"],
        "smoke.c3": ["skipped"],
        "flip.flip": ["skipped"],
        "cutover.verdict": ["failure"],
    }
    assert b"smoke: 1 failed" in report


def test_a_failure_that_was_tolerated_fails_no_case() -> None:
    report = train_junit(fold(_train(StepStatus.FAIL, exit_code=0)), exit_code=0)
    assert _cases(report)["smoke.c0"] == []
    assert b"tolerated: why" in report


def test_a_train_that_did_not_start_is_one_error() -> None:
    assert _cases(train_junit(None, exit_code=3)) == {"cutover.verdict": ["error"]}


@pytest.mark.parametrize("text", ["\x00\x1b[31m\ud800 ]]> <x>&", "a" * 100_000])
def test_hostile_text_leaves_a_report_that_can_be_parsed(text: str) -> None:
    report = train_junit(fold(_train(StepStatus.FAIL, exit_code=1, detail=text)), exit_code=1)
    assert _cases(report)["smoke.c0"] == ["failure"]
    assert len(report) < 20_000


def test_an_annotation_cannot_end_its_line_and_its_title_cannot_end_its_property() -> None:
    line = annotation("error", "a:b,c::%\n::warning::", ["100 %", "two\r\n::add-mask::x"])
    assert line == (
        "::error title=a%3Ab%2Cc%3A%3A%25\\n%3A%3Awarning%3A%3A::100 %25%0Atwo\\r\\n::add-mask::x"
    )
    assert "\n" not in line


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 500])
@pytest.mark.parametrize(("exit_code", "level"), [(0, "::warning "), (1, "::error ")])
def test_there_are_at_most_ten_annotations_of_a_level(count: int, exit_code: int, level: str) -> None:
    lines = annotations(fold(_train(*[StepStatus.FAIL] * count, exit_code=exit_code)))
    assert all(line.startswith(level) for line in lines)
    assert len(lines) == min(count + (exit_code != 0), 10)
    more = [line for line in lines if "more are in SUMMARY.md" in line]
    assert len(more) == (count + (exit_code != 0) > 10)


def test_an_open_run_says_first_what_to_do() -> None:
    events = _train(StepStatus.FAIL, exit_code=4)
    events[-1:-1] = [UndoFinished(proven=False, detail="not as captured", to_do=("look at the split",))]
    first = annotations(fold(events))[0]
    assert "exit code 4" in first
    assert "undo NOT PROVEN%3A" in first.replace(": not", "%3A not")
    assert "DO: look at the split" in first


@pytest.mark.parametrize("room", [MEBIBYTE, 5000, 200, 10, 0, -1])
def test_a_summary_is_cut_at_a_line_end_to_the_room_that_is_left(room: int) -> None:
    text = "".join(f"line {number} \N{SNOWMAN}\n" for number in range(200_000))
    written = step_summary(text, room=room)
    assert len(written) <= max(room, 0)
    shown = written.decode()
    if room >= 5000:
        assert "was cut here" in shown
        assert shown.split("\n\n")[0].endswith("\N{SNOWMAN}")
    assert step_summary("all\n", room=MEBIBYTE) == b"all\n"


def _reports(folder: Path, events: list[TrainEvent], **variables: str) -> CiReports:
    reports = CiReports(junit_xml=folder / "junit.xml", variables=variables)
    for event in events:
        reports.observe(event)
    return reports


def test_on_github_a_step_gets_annotations_and_a_summary_and_elsewhere_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "summary"
    path.write_text("of an earlier command\n")
    events = _train(StepStatus.FAIL, exit_code=1)
    _reports(tmp_path, events, GITHUB_STEP_SUMMARY=str(path)).write(Terminal(), exit_code=1)
    assert capsys.readouterr().err == ""
    on_github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(path)}
    _reports(tmp_path, events, **on_github).write(Terminal(), exit_code=1)
    assert capsys.readouterr().err.splitlines() == [
        "::error title=cutover%3A NO GO%2C exit code 1::smoke: 1 failed",
        "::error title=smoke%2C c0::why",
    ]
    assert path.read_text().startswith("of an earlier command\n# ")
    _reports(tmp_path, [], **on_github).write(Terminal(), exit_code=3)
    assert capsys.readouterr().err.startswith("::error title=cutover%3A not started%2C exit code 3::")


def test_a_report_that_cannot_be_written_is_a_line_and_the_others_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "summary")}
    reports = _reports(tmp_path, _train(StepStatus.PASS, exit_code=0), **nowhere)
    reports.write(Terminal(), exit_code=0)
    said = capsys.readouterr().err
    assert "a report for CI could not be written" in said
    assert "the exit code is correct" in said
    assert _cases((tmp_path / "junit.xml").read_bytes())["cutover.verdict"] == []
