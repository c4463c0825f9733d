"""`cutover preflight` as an operator uses it: live unless DRY_RUN=1 is set, and read-only always."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cutover.cli.commands import main
from tests.support.embedded_trains import TOKENS

CLOSED = "http://127.0.0.1:9"
"""Nothing listens at this port of loopback, and nothing that the system starts may."""
NOWHERE = {**TOKENS, "BASE_URL": CLOSED, "CLOUD_RUN_API_URL": CLOSED}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without proxies."""
    monkeypatch.chdir(tmp_path)
    for name in tuple(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def preflight(*options: str, **env: str) -> Result:
    return CliRunner().invoke(main, ["preflight", "chat-1", "chat-2", *options], env=env)


def test_without_dry_run_it_asks_production() -> None:
    done = preflight(**NOWHERE)
    assert done.exit_code == 3
    assert "asking http://127.0.0.1:9 and Cloud Run; nothing is changed ..." in done.stderr
    assert done.stdout.startswith("preflight chat-1 -> chat-2: live, read-only\n")
    assert (
        "  fail  address-base-url           BASE_URL is not reached: 127.0.0.1: could not connect ("
        in done.stdout
    )
    assert "; start what answers there, or correct BASE_URL\n" in done.stdout
    assert "  skip  routes                     not asked, because BASE_URL is not reached\n" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(
        "exit 3: a train would stop before its first change: mend the lines that fail"
    )
    assert not list(Path().iterdir())


def test_it_shows_each_input_and_its_source() -> None:
    Path("cutover.toml").write_text('project = "chat-production"\n')
    shown = preflight("--canary-steps", "10,100", **NOWHERE).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["project", "chat-production", "project", "in", "cutover.toml"] in lines
    assert ["canary_steps", "10,100", "--canary-steps"] in lines
    assert ["base_url", CLOSED, "BASE_URL"] in lines
    assert ["auth_token", "set", "AUTH_TOKEN"] in lines
    assert ["dry_run", "0", "cutover", "preflight"] in lines
    assert ["region", "us-central1", "default"] in lines
    assert not any(token in shown for token in TOKENS.values())


@pytest.mark.parametrize("how", ["variable", "option", "file"])
def test_a_dry_run_that_is_set_rehearses_and_says_so(how: str) -> None:
    options, env = [], {"BASE_URL": CLOSED}
    match how:
        case "variable":
            env["DRY_RUN"] = "1"
        case "option":
            options = ["--dry-run", "1"]
        case _:
            Path("cutover.toml").write_text("dry_run = true\n")
    done = preflight(*options, **env)
    assert done.exit_code == 0, done.output
    assert "a rehearsal on an embedded production; production was not asked" in done.stdout
    assert "the rehearsal shows nothing about production" in done.stdout.splitlines()[-1]


def test_a_rehearsal_can_have_a_fault() -> None:
    done = preflight("--what-if", "canary-missing", DRY_RUN="1")
    assert done.exit_code == 3
    assert "  fail  revision-canary            there is no revision chat-2: " in done.stdout
    assert "; correct CANARY, or SERVICE, REGION or PROJECT\n" in done.stdout
    done = preflight("--what-if", "canary-missing", **NOWHERE)
    assert done.exit_code == 2
    assert "what_if is for rehearsals" in done.stderr


def test_json_is_one_document_and_nothing_else_is_on_stdout() -> None:
    done = preflight("--json", **NOWHERE)
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (document["ok"], document["exit_code"], document["counts"]["fail"]) == (False, 3, 2)
    assert [address["reached"] for address in document["addresses"]] == [False, False]
    assert document["state"] == {"traffic": None, "tags": None, "overrides": None}


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"BASE_URL": CLOSED}, "CONTROL_ACCESS_TOKEN is missing: cutover preflight needs it"),
        ({**NOWHERE, "BASE_URLL": "x"}, "BASE_URLL is no variable of cutover; BASE_URL is"),
        ({**NOWHERE, "DRY_RUN": "maybe"}, "DRY_RUN must be 0 or 1, not 'maybe'"),
        ({**NOWHERE, "HTTPS_PROXY": "ftp://proxy"}, "HTTPS_PROXY starts with ftp://"),
    ],
)
def test_a_wrong_input_is_named_and_nothing_is_asked(env: dict[str, str], problem: str) -> None:
    env = {name: value for name, value in env.items() if name != "BASE_URL"} if "BASE_URLL" in env else env
    done = preflight(**env)
    assert done.exit_code == 2
    assert problem in done.stderr
    assert not done.stdout


def test_help_names_the_exit_codes_and_the_requests() -> None:
    shown = CliRunner().invoke(main, ["preflight", "--help"]).output
    for words in ("Exit codes: 0 no line failed", "validateOnly", "DRY_RUN=1", "--json"):
        assert words in shown
