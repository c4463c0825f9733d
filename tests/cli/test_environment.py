"""Variables for certificates and proxies, and paths, that cannot work: exit 2 before anything begins, with the name of the input."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.commands import COMMAND, run_env, served
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
WRONG = {
    "SSL_CERT_FILE": "/no/such/file.pem",
    "SSL_CERT_DIR": "/no/such/folder",
    "SSLKEYLOGFILE": "/no/such/folder/keys.log",
    "HTTP_PROXY": "ftp://proxy.example",
    "https_proxy": "http://[::1",
    "ALL_PROXY": "socks://me:secret-word@127.0.0.1:1080/",
    "all_proxy": "http://proxy.example:port",
    "NO_PROXY": "[::1",
}
SHOWN = {**WRONG, "ALL_PROXY": "socks://***@127.0.0.1:1080/", "all_proxy": "http://proxy.example:***"}
OTHER_BYTES = b"run-\xff"
needs_such_names = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems refuse such names themselves"
)


def called(
    *arguments: str | bytes, env: Mapping[str, str], cwd: Path | bytes | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**env, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], name: str, value: str = "") -> None:
    """Assert that a command refused an input by its name, without a traceback."""
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.lower().startswith("error: ")]
    assert name in line
    assert value in line
    assert "secret-word" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "a fault in cutover" not in done.stderr


def bare(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name not in WRONG and not name.lower().endswith("_proxy")
    }


def test_a_variable_that_cannot_work_is_refused_by_run_check_and_recover(tmp_path: Path) -> None:
    """All three commands read the variables in one place, so `check` and `recover` take half of them each."""
    names = list(WRONG)
    with served() as simulation:
        env = bare(run_env(simulation, tmp_path, CANARY_STEPS="100", XDG_STATE_HOME=str(tmp_path / "state")))
        url = simulation.env["BASE_URL"]
        for name in names:
            refused(called("run", *simulation.revisions, env={**env, name: WRONG[name]}), name, SHOWN[name])
        for name in names[::2]:
            refused(
                called("check", f"{url}/api/chat/stream", env={**env, name: WRONG[name]}), name, SHOWN[name]
            )
        assert list(tmp_path.iterdir()) == []
        assert called("run", *simulation.revisions, env=env).returncode == 0
        before = (tmp_path / "run" / "journal.jsonl").read_bytes()
        for name in names[1::2]:
            again = {**env, name: WRONG[name]}
            refused(called("recover", "--revert", str(tmp_path / "run"), env=again), name, SHOWN[name])
        assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before
        assert not (tmp_path / "run" / "recovery").exists()


def test_a_refused_variable_leaves_the_report_of_an_earlier_check(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text("of the run before")
    wrong = {**bare(os.environ), "SSL_CERT_FILE": "/none"}
    refused(called("check", "https://127.0.0.1:9/", "--junit-xml", str(report), env=wrong), "SSL_CERT_FILE")
    assert report.read_text() == "of the run before"


def test_commands_that_open_no_connection_do_not_look_at_the_variables(tmp_path: Path) -> None:
    wrong = {**bare(os.environ), **WRONG}
    assert called("run", "a-1", "a-2", "--output-dir", str(tmp_path / "run"), env=wrong).returncode == 0
    assert called("check", os.devnull, env=wrong).returncode == 1
    assert called("recover", str(tmp_path / "run"), env=wrong).returncode == 0


def test_a_live_train_reaches_production_that_no_proxy_names_in_brackets(tmp_path: Path) -> None:
    with served() as simulation:
        env = bare(run_env(simulation, tmp_path, CANARY_STEPS="100"))
        proxies = {"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,[::1],fd00::/8,127.0.0.0/8"}
        done = called("run", *simulation.revisions, env={**env, **proxies})
        assert done.returncode == 0, done.stderr


@needs_such_names
def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    env = {**bare(os.environ), "XDG_STATE_HOME": str(tmp_path / "state")}
    folder = os.fsencode(tmp_path) + b"/" + OTHER_BYTES
    Path(os.fsdecode(folder)).mkdir()
    link = tmp_path / "link"
    link.symlink_to(os.fsdecode(folder))
    live = {
        "DRY_RUN": "0",
        "AUTH_TOKEN": "aaaa",
        "CONTROL_ACCESS_TOKEN": "bbbb",
        "CLOUD_RUN_ACCESS_TOKEN": "cccc",
    }
    for more in ({}, live):
        wanted: Mapping[str, str] = {**env, **more}
        for path in (os.fsdecode(folder), os.fsdecode(folder + b"/new"), str(link / "new")):
            refused(called("run", "a-1", "a-2", env={**wanted, "OUTPUT_DIR": path}), "OUTPUT_DIR")
        refused(called("run", "a-1", "a-2", "--output-dir", folder, env=wanted), "--output-dir")
        # the default run directory is in the current folder
        refused(called("run", "a-1", "a-2", env=wanted, cwd=folder), "OUTPUT_DIR")
    refused(called("recover", folder, env=env), "RUN_DIRECTORY")
    refused(called("recover", ".", env=env, cwd=folder), "RUN_DIRECTORY")
    refused(called("recover", str(link), env=env), "RUN_DIRECTORY")
    refused(called("check", folder + b"/x.sse", env=env), "TARGET")
    refused(called("check", b"http://127.0.0.1:9/\xff", env=env), "TARGET")
    assert list(Path(os.fsdecode(folder)).iterdir()) == []
    assert not (tmp_path / "state").exists()


@needs_such_names
def test_a_run_directory_elsewhere_works_in_a_current_folder_that_is_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/" + OTHER_BYTES
    Path(os.fsdecode(folder)).mkdir()
    env = bare(os.environ)
    done = called("run", "a-1", "a-2", "--output-dir", str(tmp_path / "run"), env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert called("recover", str(tmp_path / "run"), env=env, cwd=folder).returncode == 0
