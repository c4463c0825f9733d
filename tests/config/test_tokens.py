"""A token has one source: a variable, a file or a command. A wrong one is named before anything begins."""

from pathlib import Path

import attrs
import pytest

from cutover.config.config import TOKEN_INPUTS, CutoverConfig
from cutover.config.values import is_google
from cutover.errors import ConfigurationError
from cutover.report.configuration import describe_inputs

LIVE = {"DRY_RUN": "0", "AUTH_TOKEN": "marked-auth-token", "CONTROL_ACCESS_TOKEN": "marked-control-token"}


def config_of(
    env: dict[str, str], options: dict[str, str] | None = None, file: Path | None = None
) -> CutoverConfig:
    return CutoverConfig.from_env(
        stable_revision="chat-1", canary_revision="chat-2", env=env, options=options, file=file
    )


def problems_of(
    env: dict[str, str], options: dict[str, str] | None = None, file: Path | None = None
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config_of(env, options, file)
    assert "marked" not in str(caught.value)
    return list(caught.value.problems)


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in names}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("marked-of-file\n")
    return path


@pytest.mark.parametrize("token", TOKEN_INPUTS)
def test_two_sources_of_one_token_are_refused_and_both_are_named(token: str, token_file: Path) -> None:
    variable = token.upper()
    env = {**LIVE, variable: "marked-token"}
    assert problems_of({**env, f"{variable}_FILE": str(token_file)}) == [
        f"{variable} and {variable}_FILE both give {variable}: set only one of them"
    ]
    option = f"--{token.replace('_', '-')}-command"
    assert problems_of(env, {f"{token}_command": "echo marked"}) == [
        f"{variable} and {option} both give {variable}: set only one of them"
    ]
    both = {f"{variable}_FILE": str(token_file), f"{variable}_COMMAND": "echo x"}
    assert problems_of({**without(LIVE, variable), **both}) == [
        f"{variable}_FILE and {variable}_COMMAND both give {variable}: set only one of them"
    ]


def test_a_rehearsal_refuses_two_sources_too_and_reads_none(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    config = config_of({"AUTH_TOKEN_FILE": missing, "CONTROL_ACCESS_TOKEN_COMMAND": "no-such-program"})
    assert config.auth_token_file == missing
    assert problems_of({"AUTH_TOKEN": "marked", "AUTH_TOKEN_FILE": missing}) == [
        "AUTH_TOKEN and AUTH_TOKEN_FILE both give AUTH_TOKEN: set only one of them"
    ]


def test_a_file_of_an_address_for_notices_is_read_where_notices_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("http://hooks.example/marked")
    env = {"NOTIFY_SLACK_URL_FILE": str(path)}
    assert config_of(env).given("notify_slack_url") == ("notify_slack_url_file",)
    why = "it is plain http to hooks.example, which is not loopback; use https, or set ALLOW_INSECURE_HTTP=1"
    said = [f"NOTIFY_SLACK_URL_FILE: {path} gives a wrong NOTIFY_SLACK_URL: {why}"]
    assert problems_of({**env, "NOTIFY_REHEARSALS": "1"}) == said
    assert problems_of({**env, **LIVE}) == said
    config = config_of({**env, **LIVE, "ALLOW_INSECURE_HTTP": "1"})
    # Another machine takes the receivers of notices from its own environment.
    assert "notify" not in str(config.facts())


def test_a_file_and_a_command_stand_for_the_required_tokens(token_file: Path) -> None:
    config = config_of(
        {"DRY_RUN": "0", "CONTROL_ACCESS_TOKEN_FILE": str(token_file)}, {"auth_token_command": "echo marked"}
    )
    assert config.given("control_access_token") == ("control_access_token_file",)
    assert config.given("auth_token") == ("auth_token_command",)
    assert config.given("cloud_run_access_token") == ()
    assert config.secrets == ()


def test_a_file_of_inputs_names_them_and_the_table_shows_them(token_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "cutover.toml"
    file.write_text(
        f"dry_run = false\ncontrol_access_token_file = '{token_file}'\nauth_token_command = \"printf 'a b'\"\n"
    )
    config = config_of({}, file=file)
    rows = {row.split()[0]: " ".join(row.split()[1:]) for row in describe_inputs(config)}
    assert rows["control_access_token_file"] == f"{token_file} control_access_token_file in {file}"
    assert rows["auth_token_command"] == f"printf 'a b' auth_token_command in {file}"
    assert rows["auth_token"] == "not set default"
    token_file.unlink()
    assert problems_of({}, file=file) == [
        f"control_access_token_file in {file}: {token_file} cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "gives nothing"),
        (b"marked token", "gives no token: a token must be printable ASCII without spaces"),
        (b"{", "gives neither a bare token nor JSON"),
    ],
)
def test_a_file_without_a_token_is_named(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    assert problems_of({**without(LIVE, "AUTH_TOKEN"), "AUTH_TOKEN_FILE": str(path)}) == [
        f"AUTH_TOKEN_FILE: {path} {problem}"
    ]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("no-such-program --x", "AUTH_TOKEN_COMMAND needs the program no-such-program, and there is none"),
        ("/no/such/program", "AUTH_TOKEN_COMMAND needs the program /no/such/program, and there is none"),
        ("echo 'x", "AUTH_TOKEN_COMMAND is not a command line (No closing quotation)"),
        ("# none", "AUTH_TOKEN_COMMAND needs the program #, and there is none"),
        (" echo x", "AUTH_TOKEN_COMMAND must be printable ASCII without spaces around it"),
        ("''", "AUTH_TOKEN_COMMAND needs the program , and there is none"),
    ],
)
def test_a_command_that_cannot_run_is_named(command: str, problem: str) -> None:
    (found,) = problems_of({**without(LIVE, "AUTH_TOKEN"), "AUTH_TOKEN_COMMAND": command})
    assert found.startswith(problem)


@pytest.mark.parametrize("token", ["two words", "marked\ttoken", "é"])
def test_a_token_with_a_space_is_refused_unseen(token: str) -> None:
    assert problems_of({**LIVE, "AUTH_TOKEN": token}) == ["AUTH_TOKEN must be printable ASCII without spaces"]


def test_a_legacy_service_on_another_site_may_get_its_token_from_a_file(token_file: Path) -> None:
    env = {
        **LIVE,
        "RUN_DUAL_RUN": "1",
        "BASE_URL": "https://a.example",
        "LEGACY_BASE_URL": "https://b.example",
    }
    assert config_of({**env, "LEGACY_AUTH_TOKEN_FILE": str(token_file)}).run_dual_run


@pytest.mark.parametrize("name", ["OAUTH_TOKEN_FILE", "AUTH_TOKENS_FILE", "MY_AUTH_TOKEN_COMMAND"])
def test_a_variable_of_another_program_is_not_taken_for_a_mistyped_one(name: str) -> None:
    assert config_of({name: "x"}).auth_token_file == ""


def test_the_journal_holds_the_sources_for_a_recovery_in_any_folder(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(token_file.parent)
    config = config_of(
        {
            **without(LIVE, "AUTH_TOKEN", "CONTROL_ACCESS_TOKEN"),
            "AUTH_TOKEN_FILE": "token",
            "CONTROL_ACCESS_TOKEN_COMMAND": "echo x",
        }
    )
    assert config.facts()["token_sources"] == {
        "control_access_token_command": "echo x",
        "auth_token_file": str(token_file),
    }
    assert attrs.evolve(config, auth_token_file=str(token_file)).facts() == config.facts()


@pytest.mark.parametrize(
    "url",
    [
        "https://run.googleapis.com",
        "https://us-central1-run.googleapis.com",
        "https://run-xyz.p.googleapis.com",
        "https://googleapis.com",
        "https://RUN.GoogleAPIs.com",
        "https://run.googleapis.com.",
        "https://run.googleapis.com:443",
        "https://run.googleapis.com/prefix",
    ],
)
def test_every_endpoint_of_google_counts(url: str) -> None:
    assert is_google(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://run.googleapis.com",
        "https://run.googleapis.com:8443",
        "https://googleapis.com.evil.example",
        "https://evilgoogleapis.com",
        "https://run.googleapis.com@evil.example",
        "https://user@run.googleapis.com",
        "https://evil.example/run.googleapis.com",
        "https://evil.example?x=.googleapis.com",
        "https://evil.example#.googleapis.com",
        "https://evil.example\\.googleapis.com",
        "https://evil.example%2f.googleapis.com",
        "https://run.googleapis.com..",
        "https://.googleapis.com",
        "https://run\uff0egoogleapis.com",
        "https://run.example",
        "http://127.0.0.1:8080",
    ],
)
def test_no_other_host_counts(url: str) -> None:
    assert not is_google(url)
