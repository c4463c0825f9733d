"""The command, live over HTTP: `cutover simulate` in one process, `cutover run` with its environment in another."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import COMMAND, recover, run, run_env, served, until
from tests.support.served_production import fake_gcloud


def test_one_command_reverts_a_cutover(tmp_path: Path) -> None:
    with served() as simulation:
        assert run(simulation, tmp_path, CANARY_STEPS="100").returncode == 0
        done = recover(simulation, tmp_path, "--revert")
        assert done.returncode == 0, done.stderr
        assert re.search(r"routes   restore: .*\(found: 59 of 59 reads: .*global=rust_shell", done.stderr)
        assert "closed: routes are as captured (" in done.stderr
        assert re.search(r"routes .*'global': None", simulation.stop())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["overall_status"], summary["reasons"]) == ("failed", ["reverted"])


def test_a_live_cutover_passes_and_the_log_shows_its_order(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with served("--request-log", str(log)) as simulation:
        done = run(simulation, tmp_path, RUN_DUAL_RUN="1")
        assert done.returncode == 0, done.stderr + done.stdout
        last_output = simulation.stop()
    stable, canary = simulation.revisions
    assert f"traffic   {{'{stable}': 100}}" in last_output
    assert re.search(r"routes .*'global': 'rust_shell'", last_output)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    updates = [row for row in rows if row["operation"] == "Cloud Run traffic update"]
    overrides = [row for row in rows if row["operation"] == "route-split override"]
    first_mover = updates[0]["sequence"]
    probed = {
        row["path"].split("/")[2] for row in rows if row["started_turn"] and row["sequence"] < first_mover
    }
    assert probed == {"chat", "chats"}
    shares = [
        sum(
            target.get("percent", 0)
            for target in json.loads(row["body"])["traffic"]
            if target.get("revision") == canary
        )
        for row in updates
    ]
    assert shares[:5] == [5, 25, 50, 100, 0]
    assert overrides[0]["sequence"] > updates[-1]["sequence"]
    assert json.loads(overrides[0]["body"]) == {"target": "clear"}
    after = [row for row in rows if row["sequence"] > overrides[-1]["sequence"]]
    assert any(row["started_turn"] for row in after)
    assert {"Cloud Run service", "route-split status"} <= {row["operation"] for row in after}
    wanted = {"control": "/api/v1/control/", "cloud_run": "/v2/projects/"}
    for row in rows:
        if row["token"] in wanted:
            # The service of the lane is also asked how long its token lives.
            assert row["path"].startswith((wanted[row["token"]], "/api/auth/session")), row
        assert row["token"] != "unknown", row
    legacy_authority = simulation.env["LEGACY_BASE_URL"].removeprefix("http://")
    assert {row["token"] for row in rows if row["authority"] == legacy_authority} <= {"legacy", None}


def test_gcloud_moves_the_traffic_with_the_printed_settings(tmp_path: Path) -> None:
    with served() as simulation, fake_gcloud(tmp_path) as calls:
        done = run(simulation, tmp_path, CANARY_STEPS="100", **simulation.by_gcloud)
        assert done.returncode == 0, done.stderr + done.stdout
        last_output = simulation.stop()
    assert f"traffic   {{'{simulation.revisions[0]}': 100}}" in last_output
    commands = [json.loads(line)["command"] for line in calls.read_text().splitlines()]
    assert commands.count("update-traffic") == 2
    assert re.search(r"traffic .*, by gcloud$", done.stderr, re.MULTILINE)


def test_a_fault_over_http_is_caught_and_undone(tmp_path: Path) -> None:
    with served("--fault", "finish-doubled-after-flip") as simulation:
        done = run(simulation, tmp_path)
        last_output = simulation.stop()
    assert done.returncode == 1, done.stderr
    assert "'global': None" in last_output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["overall_status"] == "failed"
    assert summary["undo"]["proven"] is True


def test_a_front_door_that_cuts_responses_in_flight_fails_the_drill(tmp_path: Path) -> None:
    with served("--fault", "streams-cut-at-shift") as simulation:
        stable, _ = simulation.revisions
        done = run(simulation, tmp_path, HELD_STREAMS="2", CANARY_SOAK_SECONDS="30")
        last_output = simulation.stop()
    assert done.returncode == 1, done.stderr
    assert f"traffic   {{'{stable}': 100}}" in last_output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (first, *_) = summary["sentinels"]
    assert (first["change"], first["responses"], first["responses_in_flight"]) == ("traffic-5", 2, 2)
    assert first["broken"] == 2
    assert all("transport.reset" in detail for detail in first["details"])
    drill = json.loads((tmp_path / "run" / "canary-rollback-drill" / "summary.json").read_text())
    assert "2 of 2 responses were in flight" in json.dumps(drill)


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Reset ignored signals to their default. Under nohup or in a script's background, children would ignore them too."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    inherited = {number: signal.getsignal(number) for number in numbers}
    for number, handler in inherited.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in inherited.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_in_the_drill_is_undone(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with served() as simulation:
        stable, _ = simulation.revisions
        process = subprocess.Popen(
            [*COMMAND, "run", *simulation.revisions],
            env=run_env(simulation, tmp_path, CANARY_SOAK_SECONDS="60"),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        until(process, "traffic   ", "canary 5 %")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        last_output = simulation.stop()
    assert process.returncode == code, err
    assert "that was proven" in err
    assert f"traffic   {{'{stable}': 100}}" in last_output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["interrupted"]
    assert "evidence" in out


def test_a_killed_run_is_refused_by_the_next_and_closed_by_recover(tmp_path: Path) -> None:
    with served() as simulation:
        stable, _ = simulation.revisions
        env = run_env(simulation, tmp_path, CANARY_SOAK_SECONDS="60")
        process = subprocess.Popen(
            [*COMMAND, "run", *simulation.revisions], env=env, stderr=subprocess.PIPE, text=True
        )
        until(process, "traffic   ", "canary 5 %")
        second = run(simulation, tmp_path, OUTPUT_DIR=str(tmp_path / "second"))
        assert second.returncode == 3
        assert f"another train is live: pid {process.pid}" in second.stderr
        process.kill()
        process.communicate()
        third = run(simulation, tmp_path, OUTPUT_DIR=str(tmp_path / "third"))
        assert third.returncode == 3
        assert "cutover recover" in third.stderr
        recovered = recover(simulation, tmp_path)
        assert recovered.returncode == 0, recovered.stderr
        again = recover(simulation, tmp_path)
        assert again.returncode == 0
        assert "nothing was open" in again.stderr
        fourth = run(simulation, tmp_path, OUTPUT_DIR=str(tmp_path / "fourth"))
        assert fourth.returncode == 0, fourth.stderr
        assert f"traffic   {{'{stable}': 100}}" in simulation.stop()


def test_no_token_is_in_any_artifact_output_or_argument(tmp_path: Path) -> None:
    for fault in ("stream-401", "status-html-after-flip", "promotion-403"):
        with served("--fault", fault) as simulation:
            done = run(simulation, tmp_path / fault)
        text = done.stdout + done.stderr
        text += "".join(
            path.read_text(errors="replace") for path in (tmp_path / fault).rglob("*") if path.is_file()
        )
        for name in ("AUTH_TOKEN", "CONTROL_ACCESS_TOKEN", "CLOUD_RUN_ACCESS_TOKEN", "LEGACY_AUTH_TOKEN"):
            assert simulation.env[name] not in text


def test_a_dead_network_is_no_evidence(tmp_path: Path) -> None:
    with served() as simulation:
        simulation.stop()
        started = time.monotonic()
        done = run(simulation, tmp_path)
    assert done.returncode == 3
    assert "could not connect" in done.stderr
    # proves that no wait is without a deadline; it is no measurement
    assert time.monotonic() - started < 110
