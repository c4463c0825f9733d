"""The commands as an operator uses them: usage errors, checks of recordings and URLs, help, exit codes."""

import json
import warnings
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner, Result

from cutover.cli.commands import main
from cutover.config.config import INPUTS, CutoverConfig

GOOD = (
    b'data: {"threadId":"t1","type":"start"}\n\n'
    b'data: {"model":"gpt-5.2-codex","threadId":"t1","turnId":"turn_1","type":"start-step"}\n\n'
    b'data: {"status":"accepted","turnId":"turn_1","type":"finish-step"}\n\n'
    b'data: {"status":"accepted","type":"finish"}\n\ndata: [DONE]\n\n'
)


def _run(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, arguments, env=env, input=stdin)


def test_help_shows_every_input_and_exit_code() -> None:
    shown = _run("run", "--help").output
    for declared in INPUTS:
        assert (declared.variable if declared.secret else declared.option) in shown
    assert "--auth-token " not in shown
    assert "130, 143 interrupted" in shown
    for command in ("check", "simulate", "recover"):
        assert command in _run("--help").output
        assert _run(command, "--help").exit_code == 0


def test_a_mistyped_flag_never_goes_live(tmp_path: Path) -> None:
    done = _run("run", "chat-1", "chat-2", env={"DRY_RUN": "O", "OUTPUT_DIR": str(tmp_path / "run")})
    assert done.exit_code == 2
    assert "DRY_RUN must be 0 or 1, not 'O'" in done.output
    assert not (tmp_path / "run").exists()


def test_a_warning_is_one_line_without_a_line_of_source_code(tmp_path: Path) -> None:
    env = {
        "NOTIFY_REHEARSALS": "1",
        "NOTIFY_COMMAND": "false",
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    done = _run("run", "chat-1", "chat-2", env=env)
    assert done.exit_code == 0
    (line,) = (line for line in done.stderr.splitlines() if "NOTIFY_COMMAND: " in line)
    assert line.startswith("warning: NOTIFY_COMMAND: 2 of the notices of this run were not delivered")
    assert "Warning" not in done.output
    assert "await " not in done.output


def test_every_warning_of_cutover_is_shown_and_those_of_others_stay_python_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def warn() -> None:
        for _ in range(2):
            warnings.warn("the lock cannot be\nreleased", RuntimeWarning, stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)

    monkeypatch.setitem(main.commands, "status", click.Command("status", callback=warn))
    with pytest.warns(DeprecationWarning, match="old"):
        done = _run("status")
    assert done.stderr == "warning: the lock cannot be\\nreleased\n" * 2


def test_an_option_wins_over_its_variable(tmp_path: Path) -> None:
    done = _run(
        "run",
        "chat-1",
        "chat-2",
        "--canary-steps",
        "7",
        "--output-dir",
        str(tmp_path / "a"),
        env={"CANARY_STEPS": "x"},
    )
    assert done.exit_code == 0
    assert "traffic-7" in (tmp_path / "a" / "canary-rollback-drill" / "summary.json").read_text()


def test_what_if_lists_the_faults_and_refuses_unknown_ones(tmp_path: Path) -> None:
    for revisions in ((), ("a-1", "a-2")):
        listed = _run("run", *revisions, "--what-if", "list")
        assert listed.exit_code == 0
        assert "stream-500-on-canary" in listed.output
    done = _run("run", "a-1", "a-2", "--what-if", "nonsense", env={"OUTPUT_DIR": str(tmp_path / "run")})
    assert done.exit_code == 2
    assert "no fault is named 'nonsense'" in done.output
    assert "stream-500-on-canary" in _run("simulate", "--fault", "list").output
    assert _run("simulate", "--fault", "nonsense").exit_code == 2


def test_a_rehearsed_fault_exits_1_and_says_why(tmp_path: Path) -> None:
    done = _run("run", "a-1", "a-2", "--what-if", "service-error", env={"OUTPUT_DIR": str(tmp_path / "run")})
    assert done.exit_code == 1
    assert "stream.service-error" in done.output
    assert "codex_error" in done.output
    assert "stream_smoke    DOES NOT HOLD (2 failed, 0 allowed" in done.output


def test_check_passes_a_good_recording(tmp_path: Path) -> None:
    path = tmp_path / "good.sse"
    path.write_bytes(GOOD)
    done = _run("check", str(path))
    assert done.exit_code == 0, done.output
    assert ": ok  5 events, 0 violations" in done.output
    assert _run("check", "-", stdin=GOOD).exit_code == 0


def test_check_names_the_broken_rule_and_checks_the_other_targets(tmp_path: Path) -> None:
    path = tmp_path / "bad.sse"
    path.write_bytes(GOOD.replace(b"data: [DONE]\n\n", b""))
    (tmp_path / "good.sse").write_bytes(GOOD)
    done = _run("check", str(path), str(tmp_path / "good.sse"))
    assert done.exit_code == 1
    assert "violation terminator." in done.output
    assert ": ok  5 events" in done.output


def test_check_prints_json(tmp_path: Path) -> None:
    path = tmp_path / "bad.sse"
    path.write_bytes(b'data: {"type":"\x1b]0;pwned\x07"}\n\n' + GOOD)
    done = _run("check", "--json", str(path))
    document = json.loads(done.output)
    assert document["ok"] is False
    assert document["findings"][0]["rule"]
    shown = _run("check", str(path)).output
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "no-such-file"], "neither an http(s) URL nor a file"),
        (["check", "-", "--data", "{"], "not JSON"),
        (["check", "-", "--header", "nonsense"], "write 'name: value'"),
        (
            ["check", "-", "--header", "authorization: Bearer $NO_SUCH_VARIABLE"],
            "$NO_SUCH_VARIABLE is not set",
        ),
        (["check", "-", "--header", "x: $BAD"], "not printable ASCII"),
        (["check"], "Missing argument"),
        (["run", "a-1"], "Missing argument"),
        (["recover", "no-such-folder"], "does not exist"),
        (["recover", ".", "--revert", "--accept-found"], "--revert and --accept-found exclude each other"),
        (
            ["recover", ".", "--restore-captured", "--accept-found", "--revert"],
            "--revert and --accept-found and --restore-captured exclude each other: give one of them",
        ),
    ],
)
def test_wrong_usage_exits_2_and_says_what_to_do(arguments: list[str], message: str) -> None:
    done = _run(*arguments, env={"BAD": "a\nb"})
    assert done.exit_code == 2
    assert message in done.output


def test_check_and_a_rehearsal_work_if_the_event_loop_takes_no_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutover.cli.signals.sys.platform", "win32")
    assert _run("check", "http://127.0.0.1:9/api/chat/stream").exit_code == 3
    assert _run("run", "a-1", "a-2", env={"OUTPUT_DIR": str(tmp_path / "run")}).exit_code == 0


def test_check_explains_a_rule() -> None:
    done = _run("check", "--explain", "terminator.count")
    assert done.exit_code == 0
    assert done.output.startswith("terminator.count: ")
    assert "severity in compat-lane: violation" in done.output
    refused = _run("check", "--explain", "nonsense")
    assert refused.exit_code == 2
    assert "terminator.count" in refused.output


def test_check_has_its_own_exit_code_for_an_unreachable_url() -> None:
    done = _run("check", "http://127.0.0.1:9/api/chat/stream")
    assert done.exit_code == 3
    assert "UNREACHABLE" in done.output


def test_recover_needs_a_journal(tmp_path: Path) -> None:
    done = _run("recover", str(tmp_path))
    assert done.exit_code == 3
    assert "holds no journal" in done.output


def test_a_fault_while_the_inputs_are_read_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> NoReturn:
        raise KeyError("a bug")

    monkeypatch.setattr(CutoverConfig, "from_env", fail)
    done = _run("run", "a-1", "b-1")
    assert done.exit_code == 3
    assert "UNRESOLVED" not in done.output
    assert done.output.splitlines()[-1] == "a fault in cutover itself: KeyError('a bug')"


@pytest.mark.parametrize("log", ["no-such-folder/log.jsonl", "."])
def test_a_request_log_that_cannot_be_written_is_refused_before_anything_is_served(
    log: str, tmp_path: Path
) -> None:
    done = _run("simulate", "--request-log", str(tmp_path / log))
    assert done.exit_code == 2
    assert "--request-log" in done.output
    assert "export" not in done.output
