"""The summary is a fold over the journal. The artifacts hold it under the keys that their consumers read."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from cutover.contract.findings import Finding
from cutover.http.secrets import Secrets
from cutover.model.results import USERS, Check, SentinelTally, StepResult, StepStatus
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import (
    CheckRecorded,
    Interrupted,
    StepFinished,
    StepStarted,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
)
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal, read_journal
from cutover.report.artifacts import SCHEMA, markdown
from cutover.report.reporter import Reporter
from cutover.simulation import FAULTS
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.virtual_time import virtual_backend

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HOSTILE = "a|b `code` <script>alert(1)</script>\n# head\n| x | [link](http://evil) *b* _i_ ~s~ !{}"


async def run_train(directory: Path, *faults: str, **changes: object) -> CutoverSummary:
    """Run a live train against the embedded production; its artifacts are in ``directory/run``."""
    config = live_config(directory, **changes)
    return await EmbeddedTrain(config, faults=tuple(FAULTS[name] for name in faults)).run()


@attrs.frozen
class Run:
    """A finished run and the folder of its artifacts."""

    folder: Path
    summary: CutoverSummary

    def document(self, name: str = "summary.json") -> Any:
        return json.loads((self.folder / name).read_text())


def _finished_run(factory: pytest.TempPathFactory, *faults: str, **changes: object) -> Run:
    directory = factory.mktemp("train")

    async def run() -> CutoverSummary:
        return await run_train(directory, *faults, **changes)

    backend, options = virtual_backend("asyncio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(directory / "state"))
        return Run(directory / "run", anyio.run(run, backend=backend, backend_options=dict(options)))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A train that passed, with every optional part configured."""
    return _finished_run(
        tmp_path_factory,
        run_dual_run=True,
        promote=True,
        held_streams=2,
        slo_error_budget_consumed_percent=1.5,
    )


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A train that passed, with every optional part left out."""
    return _finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A train whose drill failed."""
    return _finished_run(tmp_path_factory, "stream-500-on-canary", held_streams=1)


def cells(line: str) -> list[str]:
    """Split a row of a Markdown table into cells, as a renderer does."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def written(directory: Path, *events: TrainEvent, secrets: Sequence[str] = ()) -> Path:
    """Write the artifacts of these events and return the folder."""
    journal = Journal()
    evidence = EvidenceFolder(directory, Secrets(tuple(secrets)))
    journal.observers.append(Reporter(evidence=evidence, journal=journal).observe)
    for event in events:
        journal.record(event)
    assert (evidence.failed, journal.complaints) == (None, [])
    return directory


FACTS = {
    "base_url": "https://chat.example",
    "dry_run": False,
    "apply_route_flip": True,
    "stable_revision": STABLE,
    "canary_revision": CANARY,
    "project": "p",
    "region": "r",
    "service": "s",
    "run_dual_run": False,
}
STARTED = TrainStarted(run_id="r1", facts=FACTS)


def test_everything_that_a_run_leaves_is_for_its_owner_alone(full: Run) -> None:
    """Replies, routes and revisions of a production, on a machine that others use too."""
    found = {path: path.stat().st_mode & 0o777 for path in [full.folder, *full.folder.rglob("*")]}
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}


class TestFold:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("faults", "changes"),
        [
            ((), {}),
            ((), {"run_dual_run": True, "held_streams": 2, "canary_soak_seconds": 3.0}),
            ((), {"apply_route_flip": False}),
            (("stream-401",), {}),
            (("finish-doubled-after-flip",), {"held_streams": 1}),
            (("rollback-403",), {"max_canary_drill_failures": 5}),
        ],
    )
    async def test_the_fold_of_the_journal_equals_the_summary_that_the_run_returned(
        self, faults: tuple[str, ...], changes: dict[str, object], tmp_path: Path
    ) -> None:
        summary = await run_train(tmp_path, *faults, **changes)
        assert fold(read_journal(tmp_path / "run" / "journal.jsonl")) == summary
        assert summary.passed == (not faults)

    def test_a_journal_that_was_cut_off_anywhere_is_not_a_pass(self, lean: Run) -> None:
        events = read_journal(lean.folder / "journal.jsonl")
        for count in range(len(events)):
            summary = fold(events[:count])
            assert (summary.passed, summary.exit_code, summary.overall_status) == (False, 4, "failed")
            assert summary.reasons == ("the run was cut off; recover it",)
            assert summary.finished_at == ""
        assert fold(events).passed

    def test_a_step_that_was_cut_off_is_an_error_even_if_its_checks_passed(self) -> None:
        check = Check(check_id="status-pre", status=StepStatus.PASS)
        summary = fold([STARTED, StepStarted(step_id="drill"), CheckRecorded(step_id="drill", check=check)])
        cut = summary.step("drill")
        assert cut == StepResult(
            step_id="drill",
            status=StepStatus.ERROR,
            detail="it has no result in the journal",
            checks=(check,),
        )
        assert summary.cut_off == ("drill",)

    @pytest.mark.parametrize("undo", [(), (UndoFinished(proven=True, detail="it is as captured"),)])
    def test_a_run_that_a_recovery_has_closed_is_called_by_what_it_did(
        self, undo: tuple[UndoFinished, ...]
    ) -> None:
        """Also one that had changed nothing, and so has no undo."""
        closed = TrainFinished(passed=False, exit_code=1, reasons=("recovered",))
        assert fold([STARTED, *undo, closed]).closed_by_recovery == "recovered"
        unproven = UndoFinished(proven=False, detail="403")
        assert fold([STARTED, *undo, unproven, closed]).closed_by_recovery == ""

    def test_a_check_without_the_start_event_of_its_step_is_kept(self) -> None:
        check = Check(check_id="c", status=StepStatus.FAIL)
        assert fold([CheckRecorded(step_id="s", check=check)]).steps[0].checks == (check,)

    def test_an_empty_journal_is_not_a_pass(self) -> None:
        summary = fold([])
        assert (summary.passed, summary.steps, summary.started_at) == (False, (), "")

    def test_steps_and_gates_are_found_by_name(self, lean: Run) -> None:
        summary = lean.summary
        assert summary.step("route-flip") in summary.steps
        assert summary.step("nonsense") is None
        assert summary.gate("route_flip").holds
        with pytest.raises(KeyError):
            summary.gate("nonsense")

    def test_an_interruption_is_kept(self) -> None:
        assert fold([STARTED, Interrupted(cause="Cancelled")]).interrupted == "Cancelled"


class TestSummaryJson:
    def test_every_key_that_consumers_read_is_there(self, full: Run) -> None:
        found = full.document()
        assert found["schema"] == SCHEMA == "openagents.webparity.production_stream_cutover.v1"
        assert str(found["generated_at"]).endswith("Z")
        assert {key: found[key] for key in FACTS} == {
            **FACTS, "run_dual_run": True, "project": "openagentsgemini", "region": "us-central1",
            "service": "openagents-control-service",
        }  # fmt: skip
        gates = found["gates"]
        for name in ("route_flip", "stream_smoke", "canary_drill", "dual_run"):
            assert (gates[name]["observed_failed"], gates[name]["max_failed"]) == (0, 0)
        assert isinstance(gates["dual_run"]["observed_p95_delta_ms"], float)
        budget = gates["error_budget"]
        assert (budget["observed_consumed_percent"], budget["max_consumed_percent"]) == (1.5, 5.0)
        assert budget["source"] == "operator"
        count = len(found["steps"])
        assert found["totals"] == {"step_count": count, "passed": count, "failed": 0, "skipped": 0}
        assert (found["overall_status"], found["exit_code"]) == ("passed", 0)
        steps = found["steps"]
        for row in steps:
            assert row.keys() >= {"step_id", "status", "detail", "artifact", "failure_count", "recorded_at"}
            assert (full.folder / row["artifact"]).exists()
        assert {row["step_id"] for row in steps} >= {
            "route-flip", "stream-smoke-pre", "stream-smoke-post", "canary-rollback-drill", "dual-run-diff",
            "slo-error-budget-gate",
        }  # fmt: skip

    def test_a_budget_figure_that_nobody_gave_is_marked_as_the_default(self, lean: Run) -> None:
        gates = lean.document()["gates"]
        assert gates["error_budget"]["source"] == "default"
        assert gates["dual_run"]["configured"] is False
        assert gates["dual_run"]["observed_p95_delta_ms"] is None

    def test_failed_gates_and_gates_that_were_not_evaluated_can_be_distinguished(self, failed: Run) -> None:
        found = failed.document()
        gates, totals = found["gates"], found["totals"]
        assert (found["overall_status"], found["exit_code"]) == ("failed", 1)
        assert gates["canary_drill"]["observed_failed"] >= 1
        assert (gates["route_flip"]["evaluated"], gates["route_flip"]["holds"]) == (False, False)
        assert totals["failed"] >= 1
        assert totals["skipped"] >= 1
        assert any("canary_drill" in reason for reason in found["reasons"])
        tallies = found["sentinels"]
        assert all(row.keys() >= {"change", "streams", "broken", "break_rate_bound"} for row in tallies)

    def test_an_undo_that_was_not_proven_says_what_to_do(self, tmp_path: Path) -> None:
        undo = UndoFinished(proven=False, detail="403", to_do=("gcloud run services update-traffic s",))
        finished = TrainFinished(passed=False, exit_code=4, reasons=("route_flip: 1 failed, 0 allowed",))
        folder = written(tmp_path, STARTED, undo, finished)
        found = json.loads((folder / "summary.json").read_text())
        assert found["undo"] == {"proven": False, "detail": "403", "to_do": list(undo.to_do)}
        shown = (folder / "SUMMARY.md").read_text()
        assert "NOT PROVEN, an operator must act" in shown
        assert "1. gcloud run services update-traffic s" in shown
        assert "- route\\_flip: 1 failed, 0 allowed" in shown


class TestStepArtifacts:
    def test_a_finished_step_is_one_line(self, failed: Run) -> None:
        lines = (failed.folder / "steps.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert [row["step_id"] for row in rows] == [step.step_id for step in failed.summary.steps]
        assert rows == failed.document()["steps"]

    def test_each_step_has_its_own_summary_and_log(self, lean: Run) -> None:
        for step in lean.summary.steps:
            if step.by_configuration:
                continue
            found = lean.document(f"{step.step_id}/summary.json")
            assert (found["step_id"], found["status"]) == (step.step_id, "pass")
            checks = len(step.checks)
            assert found["totals"] == {"check_count": checks, "passed": checks, "failed": 0}
            log = (lean.folder / step.step_id / "step.log").read_text()
            assert len(log.splitlines()) == 1 + len(step.checks)

    def test_the_rows_of_a_smoke_name_the_files_with_the_received_replies(self, lean: Run) -> None:
        for phase, step_id in (("pre-cutover", "stream-smoke-pre"), ("post-cutover", "stream-smoke-post")):
            found = lean.document(f"{step_id}/summary.json")
            assert found["schema"] == "openagents.webparity.production_stream_smoke.v1"
            assert found["phase"] == phase
            checks = found["checks"]
            assert [row["check_id"] for row in checks] == [f"{phase}-chat-stream", f"{phase}-chats-stream"]
            for row in checks:
                assert row["endpoint"].startswith("https://chat.example/api/chat")
                assert (row["status"], row["http_status"], row["findings"]) == ("pass", 200, [])
                assert (lean.folder / row["headers_path"]).read_bytes().startswith(b"HTTP 200\r\n")
                assert (lean.folder / row["body_path"]).read_bytes().endswith(b"data: [DONE]\n\n")

    def test_flip_drill_and_dual_run_have_their_schemas_and_rows(self, full: Run) -> None:
        flip = full.document("route-flip/summary.json")
        assert flip["schema"] == "openagents.webparity.route_flip.v1"
        kinds = {row["kind"] for row in flip["checks"]}
        assert kinds == {"control_status", "apply", "route_evaluate", "write_probe"}
        drill = full.document("canary-rollback-drill/summary.json")
        assert drill["schema"] == "openagents.webparity.canary_drill.v1"
        ids = [row["check_id"] for row in drill["steps"]]
        assert [name for name in ids if name != "canary-direct"] == [
            "status-pre", "traffic-5", "traffic-25", "traffic-50", "traffic-100", "rollback", "status-post",
        ]  # fmt: skip
        dual = full.document("dual-run-diff/summary.json")
        assert dual["schema"] == "openagents.webparity.staging_dual_run_diff.v1"
        assert dual.keys() >= {"thresholds", "totals", "latency_ms", "requests"}
        assert dual["latency_ms"].keys() >= {"rust_p95", "legacy_p95", "p95_delta"}

    def test_findings_are_in_the_summary_and_in_the_log(self, tmp_path: Path) -> None:
        finding = Finding(rule="terminator.count", message="no [DONE]", event_index=3, byte_offset=99)
        check = Check(check_id="c", status=StepStatus.FAIL, detail="bad", findings=(finding,))
        result = StepResult(step_id="stream-smoke-pre", status=StepStatus.FAIL, checks=(check,))
        folder = written(tmp_path, STARTED, StepFinished(result=result)) / "stream-smoke-pre"
        row = json.loads((folder / "summary.json").read_text())["checks"][0]
        assert row["findings"] == [
            {
                "rule": "terminator.count", "severity": "violation", "message": "no [DONE]", "event_index": 3,
                "byte_offset": 99, "expected": None, "actual": None,
            }
        ]  # fmt: skip
        assert (
            "    violation terminator.count event 3 byte 99: no [DONE]\n" in (folder / "step.log").read_text()
        )

    async def test_no_token_is_in_any_artifact(self, tmp_path: Path) -> None:
        await run_train(tmp_path, "stream-401", run_dual_run=True)
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert len(files) > 5
        assert not [path for path in files if b"marked-" in path.read_bytes()]

    def test_a_token_in_a_reply_is_masked(self, tmp_path: Path) -> None:
        result = StepResult(step_id="s", status=StepStatus.FAIL, detail="the reply said marked-token")
        folder = written(tmp_path, STARTED, StepFinished(result=result), secrets=["marked-token"])
        for path in (folder / "s" / "summary.json", folder / "s" / "step.log", folder / "steps.jsonl"):
            assert b"the reply said ************" in path.read_bytes()


class TestMarkdown:
    def test_a_passed_train(self, full: Run, lean: Run) -> None:
        assert "| dual\\_run | not part of this run | 0 | 0 |" in (lean.folder / "SUMMARY.md").read_text()
        shown = (full.folder / "SUMMARY.md").read_text()
        assert shown.startswith("# Stream cutover: passed\n\nLive run.\n")
        assert "The routes are flipped." in shown
        assert "| canary\\_drill | yes | 0 | 0 |" in shown
        assert "| dual\\_run | yes | 0 | 0 |" in shown
        assert "## Sentinel streams across each change" in shown
        assert re.search(r"\| route-flip \| \d+ \| 0 \| .* \| at most \d+ % \|", shown)

    @pytest.mark.parametrize("facts", [{}, {"judgement": {"traffic-5": {"claim": "no worse"}}}])
    def test_the_claims_of_real_users_stand_in_the_judgement_of_the_canary(
        self, facts: dict[str, object], tmp_path: Path
    ) -> None:
        users = Check(check_id="traffic-5-users", status=StepStatus.SKIP, detail="a | claim", kind=USERS)
        other = Check(check_id="traffic-5", status=StepStatus.PASS, detail="another check")
        result = StepResult(
            step_id="canary-rollback-drill", status=StepStatus.PASS, checks=(users, other), facts=facts
        )
        finished = TrainFinished(passed=False, exit_code=1)
        folder = written(tmp_path, STARTED, StepFinished(result=result), finished)
        shown = (folder / "SUMMARY.md").read_text()
        judged = shown[shown.index("## Judgement of the canary") :]
        assert "| traffic-5-users | a \\| claim |" in judged
        assert ("| traffic-5 | no worse |" in judged) == bool(facts)
        assert "another check" not in judged

    def test_text_from_the_network_adds_no_markup_and_no_table_cells(self, tmp_path: Path) -> None:
        result = StepResult(
            step_id="route-flip",
            status=StepStatus.FAIL,
            detail=HOSTILE,
            sentinels=(SentinelTally(change="route-flip", streams=3, broken=1, revisions=((HOSTILE, 3),)),),
        )
        undo = UndoFinished(proven=False, detail=HOSTILE, to_do=(HOSTILE,))
        finished = TrainFinished(passed=False, exit_code=4, reasons=(HOSTILE,))
        folder = written(tmp_path, STARTED, StepFinished(result=result), undo, finished)
        shown = (folder / "SUMMARY.md").read_text()
        assert "<script" not in shown
        assert "\n# head" not in shown
        assert not re.search(r"(?<!\\)[`*_~{}\[\]]", shown)
        rows = [line for line in shown.splitlines() if line.startswith("| route-flip |")]
        assert [len(cells(row)) for row in rows] == [4, 6]
        assert cells(rows[0])[:3] == ["route-flip", "fail", "1"]

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain text, 5 %: a/b-c", "plain text, 5 %: a/b-c"),
            ("a|b", "a\\|b"),
            (
                "`x` *y* _z_ [l](u) #h !i ~s~ {t} +",
                "\\`x\\` \\*y\\* \\_z\\_ \\[l\\]\\(u\\) \\#h \\!i \\~s\\~ \\{t\\} \\+",
            ),
            ("back\\slash", "back\\\\slash"),
            ("<b>", "&lt;b&gt;"),
            ("\x1b[2J \u202e\x9b", "\\\\x1b\\[2J \\\\u202e\\\\x9b"),
            ("R&D", "R&amp;D"),
            ("  two\r\n\n lines\t", "two lines"),
            (None, "None"),
            (3, "3"),
        ],
    )
    def test_a_text_is_escaped_so_that_a_reader_sees_it_unchanged(self, text: object, shown: str) -> None:
        assert markdown(text) == shown
