"""The tokens of a run come from variables, files and commands; a source that gives none is named before anything begins."""

import json
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.errors import ConfigurationError, NoAnswerError, RefusedError
from cutover.http.secrets import Secrets
from cutover.http.tokens import Grant
from cutover.production.traffic.google_credentials import DefaultCredentials
from cutover.report.preview import describe
from cutover.wiring import token_sources
from cutover.wiring.embedded import rehearsal, simulated
from cutover.wiring.production import live
from cutover.wiring.run import run_cutover, run_production
from cutover.wiring.token_sources import CommandSource, FileSource, Tokens, tokens_of
from tests.support.embedded_trains import EmbeddedTrain, live_config

pytestmark = pytest.mark.anyio


def command(program: str) -> str:
    """Return a command line that runs a Python program."""
    return shlex.join([sys.executable, "-c", program])


def source(program: str, secrets: Secrets | None = None) -> CommandSource:
    return CommandSource(name="AUTH_TOKEN_COMMAND", command=command(program), secrets=secrets or Secrets())


class TestCommand:
    async def test_it_prints_a_bare_token(self) -> None:
        assert await source("print('marked-token')")() == Grant(token="marked-token")

    async def test_it_prints_json(self) -> None:
        document = json.dumps({"token": "marked", "expiration": "2026-11-28T12:00:00Z"})
        assert await source(f"print({document!r})")() == Grant(token="marked", expires_at=1795867200.0)

    async def test_no_shell_reads_it(self, tmp_path: Path) -> None:
        line = f"echo marked;touch {tmp_path / 'made'}"
        with pytest.raises(RefusedError, match="a token must be printable ASCII"):
            await CommandSource(name="X", command=line, secrets=Secrets())()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("program", "problem"),
        [
            ("", "gives nothing"),
            ("print('two words')", "gives no token: a token must be printable ASCII without spaces"),
            ("import sys; sys.exit('log in first')", "exit code 1, log in first"),
            ("import sys; print('marked'); sys.exit(3)", "exit code 3, no message"),
            ("print('m' * 70_000)", "gives more than 65536 bytes"),
            ("print('m' * (17 << 20))", "its output is larger than"),
        ],
    )
    async def test_a_command_without_a_token_is_refused_and_named(self, program: str, problem: str) -> None:
        with pytest.raises(RefusedError, match=problem) as caught:
            await source(program)()
        assert str(caught.value).startswith("AUTH_TOKEN_COMMAND: ")
        assert caught.value.status == 401
        assert "mmm" not in str(caught.value)

    async def test_a_command_that_hangs_is_ended_and_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(token_sources, "TOKEN_DEADLINE", 0.5)
        with pytest.raises(NoAnswerError, match=r"^AUTH_TOKEN_COMMAND: .* did not end within 0\.5 s"):
            await source("import time; time.sleep(60)")()

    async def test_its_environment_holds_no_token_of_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONTROL_ACCESS_TOKEN", "marked-control")
        monkeypatch.setenv("OF_THE_COMMAND", "kept")
        program = (
            "import os; print(os.environ.get('CONTROL_ACCESS_TOKEN', 'none') + os.environ['OF_THE_COMMAND'])"
        )
        assert await source(program, Secrets(("marked-control",)))() == Grant(token="nonekept")

    async def test_an_earlier_token_in_its_errors_is_masked(self) -> None:
        with pytest.raises(RefusedError, match=r"exit code 1, \*{12} is no more"):
            await source("import sys; sys.exit('marked-token is no more')", Secrets(("marked-token",)))()


async def test_a_file_gives_what_it_holds_now(tmp_path: Path) -> None:
    path = tmp_path / "token"
    found = FileSource(name="AUTH_TOKEN_FILE", path=path)
    for text in ("one", "two"):
        path.write_text(f"{text}\n")
        assert await found() == Grant(token=text)
    path.unlink()
    with pytest.raises(RefusedError, match=f"AUTH_TOKEN_FILE: {path} cannot be read: No such file") as caught:
        await found()
    assert caught.value.status == 401


def made(config: CutoverConfig) -> Tokens:
    return tokens_of(config, clock=EventLoopClock(), secrets=Secrets())


async def test_each_token_has_its_source(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-a-file")
    config = live_config(
        tmp_path,
        control_access_token="",
        control_access_token_file=str(tmp_path / "token"),
        auth_token="",
        auth_token_command=command("print('of-a-command')"),
        legacy_auth_token="",
        legacy_base_url="https://chat.example/old",
        run_dual_run=True,
    )
    found = made(config)
    assert await found.control.value() == "of-a-file"
    assert await found.auth.value() == "of-a-command"
    assert await found.cloud_run.value() == "marked-cloud-run-token"
    assert found.legacy is found.auth
    assert (found.control.name, found.auth.name) == ("CONTROL_ACCESS_TOKEN_FILE", "AUTH_TOKEN_COMMAND")
    assert list(found.in_use(config)) == ["control", "auth", "cloud-run"]


@pytest.fixture
async def failing_run(tmp_path: Path) -> AsyncIterator[CutoverConfig]:
    """Give a live configuration whose two commands fail at their first read."""
    program = command("import sys; sys.exit('no session')")
    yield live_config(
        tmp_path,
        control_access_token="",
        control_access_token_command=program,
        auth_token="",
        auth_token_command=program,
    )
    assert not (tmp_path / "run").exists()


async def test_a_run_whose_command_fails_at_the_first_read_does_not_begin(failing_run: CutoverConfig) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await run_cutover(failing_run)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "CONTROL_ACCESS_TOKEN_COMMAND",
        "AUTH_TOKEN_COMMAND",
    ]
    assert all(problem.endswith("exit code 1, no session") for problem in caught.value.problems)


async def test_a_rehearsal_reads_no_file_and_runs_no_command(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    config = live_config(
        tmp_path,
        dry_run=True,
        control_access_token="",
        control_access_token_command=f"touch {ran}",
        auth_token="",
        auth_token_file=str(tmp_path / "none"),
        output_dir=None,
    )
    assert not any(token.renewable for token in rehearsal(config).tokens.in_use(config).values())
    assert (await run_cutover(config)).passed
    assert not ran.exists()


async def test_a_train_whose_tokens_come_from_commands_passes(tmp_path: Path) -> None:
    config = live_config(tmp_path)
    train = EmbeddedTrain(config)
    changed = attrs.evolve(
        config,
        control_access_token="",
        control_access_token_command="echo marked-control-token",
        cloud_run_access_token="",
        cloud_run_access_token_command=command('print(\'{"token": "marked-cloud-run-token"}\')'),
    )
    summary = await run_production(simulated(changed, train.production, clock=EventLoopClock()))
    assert summary.passed, summary.reasons
    assert "marked" not in "".join(
        path.read_text("utf-8", "replace")
        .replace("echo marked-control-token", "")
        .replace('marked-cloud-run-token\\\\\\"', "")
        for path in (tmp_path / "run").rglob("*.md")
    )


class TestDefaultCredentials:
    @pytest.mark.parametrize(
        "host", ["run.googleapis.com", "us-central1-run.googleapis.com", "run-x.p.googleapis.com."]
    )
    def test_an_endpoint_of_google_gets_them(self, host: str, tmp_path: Path) -> None:
        config = live_config(tmp_path, cloud_run_access_token="", cloud_run_api_url=f"https://{host}")
        token = live(config).tokens.cloud_run
        assert isinstance(token.source, DefaultCredentials)
        assert token.name == "application default credentials"
        assert not any(line.startswith("token") for line in describe(config))

    def test_a_token_of_its_own_goes_first(self, tmp_path: Path) -> None:
        assert live(live_config(tmp_path)).tokens.cloud_run.source is None
        (tmp_path / "token").write_text("x")
        config = live_config(
            tmp_path, cloud_run_access_token="", cloud_run_access_token_file=str(tmp_path / "token")
        )
        assert isinstance(live(config).tokens.cloud_run.source, FileSource)

    async def test_another_host_never_gets_them_and_the_preview_and_the_preflight_say_so(
        self, tmp_path: Path
    ) -> None:
        config = live_config(tmp_path, cloud_run_access_token="", cloud_run_api_url="https://run.example")
        said = (
            "CLOUD_RUN_ACCESS_TOKEN is not set, and CLOUD_RUN_API_URL (https://run.example) is no https address of "
            "googleapis.com, so application default credentials are not sent there: requests carry no token"
        )
        token = live(config).tokens.cloud_run
        assert (await token.value(), token.reason) == ("", said)
        assert f"token     {said}" in list(describe(config))
        train = EmbeddedTrain(attrs.evolve(config, cloud_run_access_token="x"))
        summary = await run_production(simulated(config, train.production, clock=EventLoopClock()))
        checks = {check.check_id: check.detail for step in summary.steps for check in step.checks}
        assert checks["token-cloud-run"] == said
        assert summary.exit_code == 3

    def test_gcloud_has_an_account_of_its_own(self, tmp_path: Path) -> None:
        config = live_config(tmp_path, cloud_run_access_token="")
        config = attrs.evolve(config, dry_run=True, traffic_backend="gcloud")
        token = made(config).cloud_run
        assert (token.source, token.reason) == (
            None,
            "CLOUD_RUN_ACCESS_TOKEN is not set: gcloud uses its own account",
        )


async def test_a_read_source_is_read_once_by_a_run(tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = f"open({str(count)!r}, 'a').write('x'); print('marked-control-token')"
    train = EmbeddedTrain(live_config(tmp_path))
    config = attrs.evolve(
        train.config, control_access_token="", control_access_token_command=command(program)
    )
    assert (await run_production(simulated(config, train.production, clock=EventLoopClock()))).passed
    assert count.read_text() == "x"


async def test_the_tokens_of_a_train_and_of_its_undo_are_the_same(tmp_path: Path) -> None:
    config = live_config(tmp_path)
    production = simulated(config, EmbeddedTrain(config).production, clock=EventLoopClock())
    async with production.services() as first, production.services("u") as second:
        assert first.control.token is second.control.token
        assert first.prober.token is second.prober.token
