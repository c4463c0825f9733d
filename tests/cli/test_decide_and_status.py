"""`cutover decide` and `cutover status`: what they show, what they refuse, and their exit codes."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cutover.cli.commands import main
from cutover.model.results import Check, StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    CheckRecorded,
    Decided,
    DecisionTaken,
    StepStarted,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    Waiting,
)
from cutover.model.undo_policy import UNRESOLVED
from cutover.record.decisions import FILE
from cutover.record.journal import Journal
from cutover.wiring import decide as deciding
from cutover.wiring.production import live
from tests.support.commands import COMMAND, run_env, served, started, until
from tests.support.embedded_trains import CANARY, STABLE, live_config

DRILL = "canary-rollback-drill"
ROWS = (TrafficTarget(revision=STABLE, percent=75), TrafficTarget(revision=CANARY, percent=25))
BEFORE = TrafficState(
    targets=(TrafficTarget(revision=STABLE, percent=100),),
    statuses=(TrafficTarget(revision=STABLE, percent=100),),
)
AT_25 = TrafficState(targets=ROWS, statuses=ROWS)
MOVED = (
    StepStarted(step_id=DRILL),
    TrafficIntended(step_id=DRILL, captured=BEFORE, wanted=ROWS, etag="e"),
    TrafficRead(found=AT_25, proven=True),
)
WAITING = Waiting(
    step_id=DRILL,
    hold="25",
    wait="1-abcdef01",
    state="canary 25 %, 40 probes keep the contract",
    until="2026-11-29T03:04:05.000Z",
    decide="cutover decide /the/run go --shown 1-abcdef01 --by NAME --because TEXT",
)
WORDS = ("--by", "alice", "--because", "the dashboards are green")


def _run(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def _journal(folder: Path, *events: TrainEvent, dry_run: bool = False) -> Path:
    config = live_config(folder.parent, output_dir=folder)
    folder.mkdir(parents=True)
    journal = Journal.create(folder / "journal.jsonl")
    journal.record(TrainStarted(run_id="r1", facts={**config.facts(), "dry_run": dry_run}))
    for event in events:
        journal.record(event)
    journal.close()
    return folder


@contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Hold the lock of a run, as its train does."""
    with live(live_config(folder.parent, output_dir=folder.parent / "other")).lock().held() as lock:
        lock.sign(folder)
        yield


def _kill(folder: Path) -> None:
    with _alive(folder):
        pass


class TestDecide:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["no-such-folder", "go", *WORDS], "no-such-folder is no run directory: it has no journal.jsonl"),
            (
                ["gs://bucket/trains", "go", *WORDS],
                "RUN_DIRECTORY must name one run, such as gs://bucket/trains/RUN",
            ),
            (["gs://B", "go", *WORDS], "RUN_DIRECTORY must be gs://BUCKET/PREFIX"),
            ([".", "maybe", *WORDS], "'maybe' is not one of 'go', 'stop'"),
            ([".", "go", "--because", "x"], "Missing option '--by'"),
            ([".", "go", "--by", "x"], "Missing option '--because'"),
            ([".", "go", *WORDS], "is no run directory: it has no journal.jsonl"),
        ],
    )
    def test_wrong_usage_exits_2(
        self, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = _run("decide", *arguments)
        assert done.exit_code == 2
        assert message in done.output
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("by", "because", "message"),
        [
            ("", "x", "--by is empty"),
            ("alice", "  ", "--because is empty"),
            ("a" * 101, "x", "--by has 101 characters, and 100 are allowed"),
            ("alice", "line\nline", "--because has characters that cannot be printed: line\\nline"),
        ],
    )
    def test_a_name_or_a_reason_that_says_nothing_exits_2(
        self, by: str, because: str, message: str, tmp_path: Path
    ) -> None:
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        with _alive(folder):
            done = _run("decide", str(folder), "go", "--by", by, "--because", because)
        assert (done.exit_code, message in done.output) == (2, True)
        assert not (folder / FILE).exists()

    @pytest.mark.parametrize(
        ("events", "message"),
        [
            (
                MOVED,
                "the train waits for no decision; nothing was written; to see where it stands: cutover status",
            ),
            (
                (
                    *MOVED,
                    WAITING,
                    DecisionTaken(
                        step_id=DRILL, hold="25", wait=WAITING.wait, answer="stop", by="bob", because="b"
                    ),
                ),
                "the train waits for no decision now; the last one was stop, by bob",
            ),
            (
                (
                    *MOVED,
                    WAITING,
                    CheckRecorded(
                        step_id=DRILL, check=Check(check_id="hold-25", status=StepStatus.FAIL, detail="bad")
                    ),
                ),
                "the train waits for no decision",
            ),
            ((*MOVED, WAITING, UndoStarted(reason="interrupted")), "the train waits for no decision"),
            ((TrainFinished(passed=False, exit_code=1),), "the train has ended: NO GO"),
        ],
    )
    def test_a_train_that_does_not_wait_takes_no_decision(
        self, events: tuple[TrainEvent, ...], message: str, tmp_path: Path
    ) -> None:
        folder = _journal(tmp_path / "run", *events)
        with _alive(folder):
            done = _run("decide", str(folder), "go", *WORDS)
        assert (done.exit_code, message in done.output) == (3, True)
        assert not (folder / FILE).exists()

    def test_a_decision_about_another_state_is_refused(self, tmp_path: Path) -> None:
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        with _alive(folder):
            done = _run("decide", str(folder), "go", *WORDS, "--shown", "2-12345678")
        assert done.exit_code == 3
        assert "--shown 2-12345678 is not the state that the train waits with now" in done.output
        assert WAITING.state in done.output
        assert not (folder / FILE).exists()

    def test_a_killed_train_takes_no_decision_and_the_message_says_how_to_close_it(
        self, tmp_path: Path
    ) -> None:
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        _kill(folder)
        done = _run("decide", str(folder), "go", *WORDS)
        assert done.exit_code == 3
        assert f"close it: cutover recover {folder}" in done.output
        assert not (folder / FILE).exists()

    def test_a_train_of_another_user_takes_no_decision(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        with _alive(folder):
            monkeypatch.setattr(os, "geteuid", lambda: 54321)
            done = _run("decide", str(folder), "go", *WORDS)
        assert done.exit_code == 3
        assert "takes decisions of that user alone; nothing was written; decide as user " in done.output
        assert not (folder / FILE).exists()

    def test_a_decision_that_the_train_does_not_take_exits_1(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deciding, "CONFIRM_SECONDS", 0.3)
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        with _alive(folder):
            done = _run("decide", str(folder), "go", *WORDS)
            assert done.exit_code == 1
            assert "go was written, but the train has not taken it" in done.output
            again = _run("decide", str(folder), "stop", *WORDS)
        assert again.exit_code == 3
        assert "has a decision for this wait already: go, by alice: the dashboards are green" in again.output
        (line,) = (folder / FILE).read_text().splitlines()
        row = json.loads(line)
        assert (row["run_id"], row["step_id"], row["wait"]) == ("r1", DRILL, WAITING.wait)
        assert (row["answer"], row["by"], row["because"]) == ("go", "alice", "the dashboards are green")
        assert (folder / FILE).stat().st_mode & 0o777 == 0o600

    def test_a_secret_that_somebody_types_is_written_and_shown_nowhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deciding, "CONFIRM_SECONDS", 0.3)
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        token = tmp_path / "token"
        token.write_text('{"token": "marked-of-file"}')
        env: dict[str, str | None] = {
            "CONTROL_ACCESS_TOKEN": "marked-control",
            "NOTIFY_SLACK_URL": "https://hooks.example/T0/marked-path-of-slack-1",
            "AUTH_TOKEN_FILE": str(token),
        }
        because = (
            "curl -H 'authorization: Bearer marked-0123456789' https://u:marked-login@h/?access_token=marked-query X_TOKEN=marked-assigned "
            "marked-control marked-of-file /T0/marked-path-of-slack-1 is basic understanding"
        )
        with _alive(folder):
            unprintable = _run(
                "decide", str(folder), "go", "--by", "x\ty marked-control", *WORDS[2:], env=env
            )
            assert (unprintable.exit_code, "marked" in unprintable.output) == (2, False)
            done = _run("decide", str(folder), "go", "--by", "marked-control", "--because", because, env=env)
            again = _run("decide", str(folder), "stop", *WORDS, env=env)
        assert (done.exit_code, again.exit_code) == (1, 3)
        assert "marked" not in done.output + again.output + (folder / FILE).read_text()
        row = json.loads((folder / FILE).read_text())
        assert row["by"] == "*" * len("marked-control")
        assert row["because"].startswith(
            "curl -H 'authorization: Bearer ***' https://***@h/?access_token=*** X_TOKEN=*** ****"
        )
        assert row["because"].endswith(" is basic understanding")


class TestStatus:
    def test_a_train_that_waits_shows_the_state_and_the_exact_command(self, tmp_path: Path) -> None:
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with _alive(folder):
            done = _run("status", str(folder))
            document = json.loads(_run("status", str(folder), "--json").output)
        assert done.exit_code == 0
        for words in (
            f"train     r1: live run of {CANARY} beside {STABLE}",
            "state     waiting for a decision",
            f"process   alive: pid {os.getpid()}",
            f"step      {DRILL}, since ",
            f"split     {STABLE} 75 %, {CANARY} 25 %, since ",
            "waiting   at 25 %, since ",
            "without a decision it undoes at 2026-11-29T03:04:05.000Z",
            f"shown     {WAITING.state}",
            f"  DO      cutover decide {folder} go --shown {WAITING.wait} --by NAME --because TEXT",
        ):
            assert words in done.output
        assert document["state"] == "waiting"
        assert document["waiting"]["decide"].startswith(f"cutover decide {folder} go --shown {WAITING.wait} ")
        assert document["process"]["alive"] is True
        assert document["recover"] is None
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    def test_a_killed_train_shows_the_command_that_closes_it(self, tmp_path: Path) -> None:
        folder = _journal(tmp_path / "run", *MOVED, WAITING)
        _kill(folder)
        done = _run("status", str(folder))
        assert done.exit_code == 0
        assert "state     KILLED: its process has ended without a verdict" in done.output
        assert (
            f"production may still hold its changes; close the run: cutover recover {folder}" in done.output
        )
        assert "decide" not in done.output
        document = json.loads(_run("status", str(folder), "--json").output)
        assert (document["state"], document["waiting"]) == ("killed", None)
        assert document["recover"] == f"cutover recover {folder}"

    def test_a_verdict_is_shown_with_its_reasons_and_the_evidence(self, tmp_path: Path) -> None:
        verdict = TrainFinished(passed=False, exit_code=1, reasons=("hold at 25 %: stop, decided by bob",))
        folder = _journal(tmp_path / "run", verdict)
        done = _run("status", str(folder))
        assert "verdict   NO GO, exit 1, at " in done.output
        assert "reason    hold at 25 %: stop, decided by bob" in done.output
        assert f"evidence  {folder / 'SUMMARY.md'}" in done.output
        assert json.loads(_run("status", str(folder), "--json").output)["state"] == "failed"

    def test_a_run_that_an_operator_took_back_is_no_failure(self, tmp_path: Path) -> None:
        reverted = (
            TrainFinished(passed=True, exit_code=0),
            UndoStarted(reason="reverted"),
            UndoFinished(proven=True, detail="traffic: stable 100 %"),
            TrainFinished(passed=False, exit_code=1, reasons=("reverted",)),
        )
        folder = _journal(tmp_path / "run", *MOVED, *reverted)
        lines = _run("status", str(folder)).output.splitlines()
        assert "state     reverted, by `cutover recover`" in lines
        assert [line for line in lines if line.startswith("closed    at ")]
        assert not [line for line in lines if "failed" in line or "NO GO" in line]
        assert json.loads(_run("status", str(folder), "--json").output)["state"] == "failed"

    def test_a_revert_that_could_not_finish_judges_no_service_and_names_no_command_that_is_refused_again(
        self, tmp_path: Path
    ) -> None:
        to_do = ("to leave production as it is now: cutover recover --accept-found RUN",)
        unresolved = (
            TrainFinished(passed=True, exit_code=0),
            UndoStarted(reason="reverted"),
            UndoFinished(proven=False, detail="traffic: production has moved on", to_do=to_do),
            TrainFinished(passed=False, exit_code=4, reasons=(UNRESOLVED,)),
        )
        folder = _journal(tmp_path / "run", *MOVED, *unresolved)
        lines = _run("status", str(folder)).output.splitlines()
        assert f"state     UNRESOLVED: {UNRESOLVED}" in lines
        assert [line for line in lines if line.startswith("verdict   not closed, exit 4, at ")]
        assert not [line for line in lines if "failed" in line or "NO GO" in line or "reverted" in line]
        assert [line for line in lines if line.startswith("  DO")] == [f"  DO      {line}" for line in to_do]

    def test_the_split_is_the_one_that_the_last_look_of_a_recovery_saw(self, tmp_path: Path) -> None:
        looks = [
            Decided(
                part="traffic", action="touch nothing", why="moved on", captured="", intended="", found=found
            )
            for found in (f"{STABLE} 70 %, {CANARY} 30 %", "not known (no answer)")
        ]
        folder = _journal(tmp_path / "run", *MOVED, *looks)
        assert f"split     {STABLE} 70 %, {CANARY} 30 %, since " in _run("status", str(folder)).output

    def test_an_undo_that_runs_is_shown(self, tmp_path: Path) -> None:
        folder = _journal(tmp_path / "run", *MOVED, UndoStarted(reason="a gate does not hold"))
        with _alive(folder):
            done = _run("status", str(folder))
        assert "state     undoing its changes" in done.output
        assert f"step      {DRILL}" not in done.output
        assert "undo      runs since " in done.output

    def test_a_line_that_is_being_written_and_strange_text_do_no_harm(self, tmp_path: Path) -> None:
        folder = _journal(tmp_path / "run", StepStarted(step_id="a\x1b]0;pwned\x07b"))
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(b'{"event":"StepFini')
        with _alive(folder):
            done = _run("status", str(folder))
        assert done.exit_code == 0
        assert "\x1b" not in done.output
        assert "step      a\\x1b]0;pwned\\x07b, since " in done.output

    def test_without_a_folder_the_run_of_output_dir_or_else_the_newest_one_is_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        none: dict[str, str | None] = {"OUTPUT_DIR": None}
        done = _run("status", env=none)
        assert done.exit_code == 2
        assert "there is no run in storage/app/production-stream-cutover" in done.output
        runs = tmp_path / "storage/app/production-stream-cutover"
        for number, name in enumerate(("b", "c", "a")):
            folder = _journal(runs / name, TrainFinished(passed=True, exit_code=0))
            os.utime(folder / "journal.jsonl", (number, number))
        assert f"run       {runs / 'a'}" in _run("status", env=none).output
        given = _journal(tmp_path / "given", TrainFinished(passed=True, exit_code=0), dry_run=True)
        assert f"run       {given}" in _run("status", env={"OUTPUT_DIR": str(given)}).output

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "it has no journal.jsonl"),
            (b"garbage\n", "is not a train event"),
            (b"PK\x03\x04", "is not a journal"),
        ],
    )
    def test_a_folder_that_is_no_run_exits_2(
        self, content: bytes | None, message: str, tmp_path: Path
    ) -> None:
        if content is not None:
            (tmp_path / "journal.jsonl").write_bytes(content)
        done = _run("status", str(tmp_path))
        assert (done.exit_code, message in done.output) == (2, True)


@pytest.mark.slow
def test_two_terminals_decide_about_a_train_in_a_third(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, env=env
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with served() as simulation:
        env = run_env(simulation, tmp_path, HOLD_AT="25,100", HOLD_TIMEOUT="60", CANARY_STEPS="25,100")
        with started("run", *simulation.revisions, env=env) as train:
            until(train, "WAITING at 25 %")
            found = json.loads(run("status", "--json"))
            assert found["state"] == "waiting"
            command = found["waiting"]["decide"].removeprefix("cutover ").split()
            words = [{"NAME": "alice", "TEXT": "green"}.get(word, word) for word in command]
            assert "taken     go, at 25 %" in run(*words)
            until(train, "WAITING at 100 %")
            assert "taken     stop, at 100 %" in run(
                "decide", str(tmp_path / "run"), "stop", "--by", "bob", "--because", "no"
            )
            assert train.wait(60) == 1
        assert "'openagents-control-service-00041-stable': 100" in simulation.stop()
    assert "verdict   NO GO, exit 1" in run("status")
