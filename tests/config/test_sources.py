"""An option wins over a variable, a variable over the file, the file over the default; every problem is told at once."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from cutover.cli.run import run
from cutover.config.config import INPUTS, CutoverConfig
from cutover.errors import ConfigurationError
from cutover.report.configuration import describe_inputs


def _config(
    toml: str | bytes | None = None, options: dict[str, str] | None = None, **env: str
) -> CutoverConfig:
    file = None
    if toml is not None:
        file = Path("cutover.toml")
        file.write_bytes(toml.encode() if isinstance(toml, str) else toml)
    return CutoverConfig.from_env(
        stable_revision="chat-1", canary_revision="chat-2", env=env, options=options, file=file
    )


def _problems(
    toml: str | bytes | None = None, options: dict[str, str] | None = None, **env: str
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        _config(toml, options, **env)
    return list(caught.value.problems)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_option_goes_over_a_variable_over_the_file_over_the_default() -> None:
    toml = 'canary_soak_seconds = 10\nheld_streams = 10\nregion = "file"'
    config = _config(toml, {"canary_soak_seconds": "30"}, CANARY_SOAK_SECONDS="20", HELD_STREAMS="20")
    assert (config.canary_soak_seconds, config.held_streams, config.region) == (30.0, 20, "file")
    assert config.service == "openagents-control-service"
    said = {field: source.name for field, source in config.sources.items()}
    assert said == {
        "canary_soak_seconds": "--canary-soak-seconds",
        "held_streams": "HELD_STREAMS",
        "region": "region in cutover.toml",
    }


def test_an_empty_text_is_not_set_in_any_source() -> None:
    assert _config('region = "file"', {"region": ""}, REGION="").region == "file"


def test_a_file_holds_native_values_or_texts_as_a_variable_would() -> None:
    native = _config('dry_run = true\ncanary_steps = [5, 100]\ncanary_soak_seconds = 7\noutput_dir = "run"')
    texts = _config('dry_run = "1"\ncanary_steps = "5,100"\ncanary_soak_seconds = "7"\noutput_dir = "run"')
    assert native == texts
    assert native.canary_steps == (5, 100)
    assert native.output_dir == Path("run")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('dry_run = "yes"', "dry_run in cutover.toml must be true or false, not 'yes'"),
        ("dry_run = 1", "dry_run in cutover.toml must be true or false, not 1"),
        ("base_url = 5", "base_url in cutover.toml must be text in quotes, not 5"),
        ("output_dir = []", "output_dir in cutover.toml must be text in quotes, not []"),
        ("canary_soak_seconds = true", "canary_soak_seconds in cutover.toml must be a number, not True"),
        ("held_streams = 2.0", "held_streams in cutover.toml must be a whole number, 0 or more, not 2.0"),
        ('canary_steps = [5, "25"]', "canary_steps in cutover.toml must be whole percents like [5, 25, 50, 100], not [5, '25']"),
        ("canary_steps = [25, 5]", "canary_steps in cutover.toml must be whole percents from 1 to 100, strictly rising, not '25,5'"),
        ("max_rollback_seconds = nan", "max_rollback_seconds in cutover.toml must be a number, more than 0 and at most 86400, not nan"),
        ("held_streams = -1", "held_streams in cutover.toml must be a number, at least 0 and at most 50, not -1"),
        ("base_url = 2026-01-01", "base_url in cutover.toml must be text in quotes, not datetime.date(2026, 1, 1)"),
    ],
)  # fmt: skip
def test_a_wrong_value_in_a_file_is_told_by_its_key(toml: str, said: str) -> None:
    assert _problems(toml) == [said]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('base_ulr = "x"', "base_ulr in cutover.toml is not an input of cutover; did you mean base_url?"),
        ('base-url = "x"', "base-url in cutover.toml is not an input of cutover; did you mean base_url?"),
        ("DRY_RUN = false", "DRY_RUN in cutover.toml is not an input of cutover; did you mean dry_run?"),
        (
            "[xyzzy]\nq = 1",
            "xyzzy in cutover.toml is not an input of cutover; `cutover run --help` lists all",
        ),
        (
            "what_if = []",
            "what_if in cutover.toml is not an input of cutover; `cutover run --help` lists all",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(toml: str, said: str) -> None:
    assert _problems(toml) == [said]


@pytest.mark.parametrize("key", ["auth_token", "AUTH_TOKEN", "auth-token", "auth_tokn"])
def test_a_secret_in_a_file_is_refused_unseen(key: str) -> None:
    said = _problems(f'{key} = "marked"')
    assert said == [
        f"{key} in cutover.toml is a secret, and a file must not hold one: set AUTH_TOKEN in the environment"
    ]


def test_all_problems_of_all_sources_are_told_at_once_by_the_name_that_was_typed() -> None:
    said = _problems(
        'canary_steps = [5, 5]\nfoo = 1\ndry_run = false\nauth_token = "marked"',
        {"base_url": "x", "held_streams": "many"},
        REGION="a'b",
        MAX_ROLLBACK_SECONDS="abc",
        DRYRUN="0",
    )
    text = "\n".join(said)
    for name in (
        "canary_steps in cutover.toml must be",
        "foo in cutover.toml is not an input",
        "auth_token in cutover.toml is a secret",
        "--base-url must start with",
        "--held-streams must be a whole number",
        "REGION must be",
        "MAX_ROLLBACK_SECONDS must be a number",
        "AUTH_TOKEN is missing: dry_run = false in cutover.toml needs it",
    ):
        assert name in text, name
    assert "marked" not in text


def test_a_missing_input_is_told_as_its_need_was_set() -> None:
    assert _problems(None, {"run_dual_run": "1"}) == ["LEGACY_BASE_URL is missing: --run-dual-run 1 needs it"]


def test_one_place_twice_is_told_by_the_names_that_the_user_typed() -> None:
    options = {"run_dual_run": "1", "base_url": "https://a.example", "legacy_base_url": "https://A.example/"}
    (problem,) = _problems(None, options)
    assert problem.startswith("--legacy-base-url names the same place as --base-url, ")
    assert problem.endswith("or set --run-dual-run 0")


def test_an_unknown_option_of_a_caller_is_refused_and_so_is_a_secret() -> None:
    assert _problems(options={"regoin": "x", "auth_token": "marked"}) == [
        "regoin in the options is not an input of cutover; did you mean region?",
        "auth_token in the options is a secret, and an option must not hold one: set AUTH_TOKEN in the environment",
    ]


def test_a_byte_order_mark_before_the_first_key_is_no_fault() -> None:
    assert _config(b"\xef\xbb\xbfregion = 'file'").region == "file"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("a =", "cutover.toml is not TOML: Invalid value (at end of document)"),
        (b"a = '\xe9'", "cutover.toml is not TOML: 'utf-8' codec"),
        ("a = " + "[" * 20_000, "cutover.toml is not TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_told_with_the_rest(toml: str | bytes, said: str) -> None:
    told = _problems(toml, DRY_RUN="maybe")
    assert told[0].startswith(said)
    assert told[1] == "DRY_RUN must be 0 or 1, not 'maybe'"


def test_a_file_that_cannot_be_read_is_told() -> None:
    for name in (".", "none.toml"):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            CutoverConfig.from_env(stable_revision="a-1", canary_revision="a-2", env={}, file=Path(name))


def test_the_constructor_lists_every_problem_by_its_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CutoverConfig(stable_revision="a-1", canary_revision="a-2", base_url="x", canary_steps=(5, 5))
    assert [problem.split()[0] for problem in caught.value.problems] == ["BASE_URL", "CANARY_STEPS"]


def test_show_config_prints_each_value_and_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("cutover.toml").write_text("canary_steps = [5, 100]\ndry_run = false\n")
    for name in ("CONTROL_ACCESS_TOKEN", "AUTH_TOKEN"):
        monkeypatch.setenv(name, "marked-token")
    result = CliRunner().invoke(
        run, ["chat-1", "chat-2", "--show-config", "--base-url", "https://x.example/"]
    )
    assert result.exit_code == 0, result.output
    lines = [line.split("  ") for line in result.output.splitlines()]
    table = {row[0]: [cell.strip() for cell in row[1:] if cell] for row in lines}
    assert table["base_url"] == ["https://x.example", "--base-url"]
    assert table["canary_steps"] == ["5,100", "canary_steps in cutover.toml"]
    assert table["auth_token"] == ["set", "AUTH_TOKEN"]
    assert table["legacy_auth_token"] == ["not set", "default"]
    assert table["held_streams"] == ["2", "default"]
    assert len(table) == len(INPUTS)
    assert "marked" not in result.output


def test_a_rehearsal_takes_no_token_and_the_table_says_so() -> None:
    config = _config(AUTH_TOKEN="bad\ntoken")
    assert config.secrets == ()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in describe_inputs(config)}
    assert rows["auth_token"] == "set AUTH_TOKEN (not used: a rehearsal needs no token)"
    assert rows["control_access_token"] == "not set default"


def test_config_names_another_file_and_every_secret_lacks_an_option() -> None:
    Path("other.toml").write_text("base_url = 5")
    result = CliRunner().invoke(run, ["chat-1", "chat-2", "--config", "other.toml"])
    assert result.exit_code == 2
    assert "base_url in other.toml must be text in quotes, not 5" in result.output
    options = {option for parameter in run.params for option in parameter.opts}
    assert {one.option for one in INPUTS if one.secret}.isdisjoint(options)
    assert {one.option for one in INPUTS if not one.secret} <= options


def test_the_command_reads_cutover_toml_where_it_exists_and_says_so() -> None:
    Path("cutover.toml").write_text('region = "europe-west1"\noutput_dir = "run"\n')
    result = CliRunner().invoke(run, ["chat-1", "chat-2", "--canary-steps", "7"])
    assert result.exit_code == 0, result.output
    assert "inputs    region in cutover.toml, output_dir in cutover.toml" in result.output
    assert "openagents-control-service in openagentsgemini, europe-west1" in result.output
    assert Path("run/summary.json").exists()


def test_a_named_file_that_does_not_exist_is_an_error() -> None:
    result = CliRunner().invoke(run, ["chat-1", "chat-2", "--config", "none.toml"])
    assert result.exit_code == 2
    assert "error: none.toml cannot be read: No such file or directory" in result.output


def test_show_config_runs_nothing_and_tells_every_problem() -> None:
    result = CliRunner().invoke(
        run, ["chat-1", "chat-2", "--show-config", "--held-streams", "x", "--region", "R"]
    )
    assert result.exit_code == 2
    assert "--held-streams must be a whole number" in result.output
    assert "--region must be" in result.output
    assert not any(Path().iterdir())


@pytest.mark.parametrize("name", ["cutover.toml", "{x}.toml", "a b.toml"])
def test_a_name_of_a_file_is_shown_as_it_is(name: str) -> None:
    Path(name).write_text("dry_run = false")
    with pytest.raises(ConfigurationError, match="AUTH_TOKEN is missing") as caught:
        CutoverConfig.from_env(stable_revision="a-1", canary_revision="a-2", env={}, file=Path(name))
    assert f"AUTH_TOKEN is missing: dry_run = false in {name} needs it" in caught.value.problems


def test_each_problem_is_told_once() -> None:
    problems = _problems(
        None, None, DRY_RUN="0", HELD_STREAMS="many", AUTH_TOKEN="a\nb", CONTROL_ACCESS_TOKEN="marked"
    )
    assert len(problems) == len(set(problems)) == 2


@pytest.mark.parametrize(
    "toml",
    [
        "[service]\nauth_token = 'marked'",
        "[[canary_steps]]\nauth_token = 'marked'",
        "base_url = {a = 'marked'}",
    ],
)
def test_a_table_in_place_of_a_value_is_not_shown(toml: str) -> None:
    (problem,) = _problems(toml)
    assert problem.endswith(", not a table")


@pytest.mark.parametrize(
    "toml",
    [
        f"canary_soak_seconds = 1{'0' * 400}",
        f"held_streams = 0x{'f' * 300}",
        f"region = 0x{'f' * 6000}",
        f"canary_steps = [0x{'f' * 6000}]",
        f"region{'.a' * 5000} = 1",
        'output_dir = "a\\u0000b"',
        'requests_file = "a\\u0000b"',
        'requests_file = "a\\u0000b"\nrun_dual_run = true\nlegacy_base_url = "https://legacy.example.com"',
    ],
)
def test_a_value_that_only_a_file_can_hold_is_one_problem_of_its_key(toml: str) -> None:
    (problem,) = _problems(toml)
    assert toml.partition(" ")[0].partition(".")[0] in problem or "is not TOML" in problem


def test_a_pipe_is_not_opened() -> None:
    os.mkfifo("pipe")
    with pytest.raises(ConfigurationError, match="pipe cannot be read: it is not a regular file"):
        CutoverConfig.from_env(stable_revision="a-1", canary_revision="a-2", env={}, file=Path("pipe"))


def test_a_link_that_leads_nowhere_is_an_error_and_no_absent_file() -> None:
    Path("cutover.toml").symlink_to("nowhere")
    result = CliRunner().invoke(run, ["chat-1", "chat-2", "--show-config"])
    assert result.exit_code == 2
    assert "cutover.toml cannot be read" in result.output
    assert CliRunner().invoke(run, ["chat-1", "chat-2", "--config", ""]).exit_code == 2


@pytest.mark.parametrize("name", ["BASE_URL", "LEGACY_BASE_URL", "CLOUD_RUN_API_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "https://u:marked@h",
        "u:marked@h",
        "https:/u:marked@h",
        "https://h/?a=marked",
        "https://h/#marked",
        "https://u:ma/rked@h",
    ],
)
def test_a_url_that_may_hold_a_secret_is_refused_unseen(name: str, url: str) -> None:
    text = "\n".join(_problems(None, None, **{name: url}))
    assert name in text
    assert "marked" not in text
    assert "rked" not in text


def test_an_argument_wins_over_every_source() -> None:
    tokens = {"DRY_RUN": "0", "AUTH_TOKEN": "variable", "CONTROL_ACCESS_TOKEN": "variable"}
    config = CutoverConfig.from_env(
        stable_revision="a-1", canary_revision="a-2", env=tokens, auth_token="argument"
    )
    assert (config.auth_token, config.control_access_token) == ("argument", "variable")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("hooks.example/secret-word", "must start with https://"),
        ("https://user:secret-word@hooks.example/", "must hold neither a login nor a fragment"),
        ("https://hooks.example/secret-word#x", "must hold neither a login nor a fragment"),
        ("https://hooks.example/secret-word x", "must be printable ASCII without spaces"),
        ("https://[hooks/secret-word", "is not a URL"),
        ("http://hooks.example/secret-word", "is plain http to hooks.example"),
    ],
)
@pytest.mark.parametrize("name", ["NOTIFY_SLACK_URL", "NOTIFY_WEBHOOK_URL", "NOTIFY_GOOGLE_CHAT_URL"])
def test_a_wrong_address_for_notices_is_refused_unseen(name: str, url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CutoverConfig.from_env(stable_revision="a", canary_revision="b", env={name: url})
    (line,) = caught.value.problems
    assert line.startswith(f"{name} {problem}")
    assert "secret-word" not in line


def test_a_key_or_an_address_for_notices_is_no_option_no_key_and_is_not_shown() -> None:
    env = {"NOTIFY_SLACK_URL": "https://hooks.example/T0/marked-1", "NOTIFY_PAGERDUTY_KEY": "marked-2"}
    config = CutoverConfig.from_env(stable_revision="a", canary_revision="b", env=env)
    # A rehearsal takes no token, but it can send notices.
    assert config.notify_slack_url == env["NOTIFY_SLACK_URL"]
    shown = " ".join((*describe_inputs(config), repr(config), str(config.facts())))
    assert "marked" not in shown
    with pytest.raises(ConfigurationError, match="notify_slack_url in the options is a secret"):
        CutoverConfig.from_env(
            stable_revision="a", canary_revision="b", env={}, options={"notify_slack_url": "x"}
        )
