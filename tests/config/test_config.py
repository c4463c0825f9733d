"""Bad input: every problem at once, each naming its variable or argument, before anything is touched."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cutover.config.config import INPUTS, CutoverConfig
from cutover.config.inputs import FLAG, written
from cutover.config.manifest import parse_manifest, shipped_manifest
from cutover.config.values import is_loopback, same_site
from cutover.errors import ConfigurationError
from cutover.model.error_budget import BudgetSource
from cutover.model.manifest import ManifestEntry, ResponseKind

LIVE = {"DRY_RUN": "0", "AUTH_TOKEN": "marked-auth-token", "CONTROL_ACCESS_TOKEN": "marked-control-token"}


def _config(stable: str = "chat-1", canary: str = "chat-2", **env: str) -> CutoverConfig:
    return CutoverConfig.from_env(stable_revision=stable, canary_revision=canary, env=env)


def _problems(stable: str = "chat-1", canary: str = "chat-2", **env: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _config(stable, canary, **env)
    return "\n".join(caught.value.problems)


def test_defaults_are_a_rehearsal() -> None:
    config = _config()
    assert config.dry_run
    assert not config.apply_route_flip
    assert config.canary_steps == (5, 25, 50, 100)
    assert config.budget.source is BudgetSource.DEFAULT
    assert config.output_dir is not None
    assert config.output_dir.parent == Path("storage/app/production-stream-cutover")


def test_a_default_written_in_a_variable_is_the_default() -> None:
    explicit = _config(**{each.variable: written(each.default) for each in INPUTS if written(each.default)})
    plain = _config()
    for declared in INPUTS:
        if declared.field != "output_dir":
            assert getattr(explicit, declared.field) == getattr(plain, declared.field), declared.variable


@pytest.mark.parametrize("name", [declared.variable for declared in INPUTS if declared.kind is FLAG])
@pytest.mark.parametrize("value", ["maybe", "true", "", "2", " 1", "01"])
def test_a_flag_is_0_or_1(name: str, value: str) -> None:
    assert f"{name} must be 0 or 1" in _problems(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        "CANARY_SOAK_SECONDS",
        "MAX_ROLLBACK_SECONDS",
        "PROBE_TIMEOUT_SECONDS",
        "SLO_ERROR_BUDGET_CONSUMED_PERCENT",
    ],
)
@pytest.mark.parametrize("value", ["abc", "NaN", "nan", "inf", "-1", "", "1e3", "٣", "0x10", "1_0"])
def test_a_number_is_a_number(name: str, value: str) -> None:
    assert f"{name} must be a number" in _problems(**{name: value})


@pytest.mark.parametrize("name", ["HELD_STREAMS", "MAX_STREAM_SMOKE_FAILURES", "MAX_BROKEN_STREAMS"])
@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "", "٣"])
def test_a_count_is_a_whole_number(name: str, value: str) -> None:
    assert f"{name} must be a whole number" in _problems(**{name: value})


def test_the_ceiling_of_the_budget_is_at_most_100() -> None:
    name = "MAX_ERROR_BUDGET_CONSUMED_PERCENT"
    assert name in _problems(**{name: "100.5"})
    assert _config(**{name: "100"}).dry_run


def test_a_budget_that_is_spent_more_than_once_is_a_figure_and_no_usage_error() -> None:
    budget = _config(SLO_ERROR_BUDGET_CONSUMED_PERCENT="137").budget
    assert (budget.consumed_percent, budget.holds) == (137.0, False)
    assert budget.describe() == (
        "137 % of the error budget is consumed, 5 % is allowed (a figure typed by hand)"
    )


@pytest.mark.parametrize(
    "value", ["", " ", "5,5", "25,5", "010", "5,010", "101", "0", "5,,25", "5,25,abc", "5.5", "-5", "٥"]
)
def test_canary_steps_are_rising_whole_percents(value: str) -> None:
    assert "CANARY_STEPS" in _problems(CANARY_STEPS=value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("openagents.com", "must start with https://"),
        ("ftp://openagents.com", "must start with https://"),
        ("https://", "must start with https://"),
        ("https://user:secret-word@openagents.com", "must not hold credentials"),
        ("http://openagents.com", "plain http"),
        ("https://openagents.com/?a=1", "neither query nor fragment"),
        ("https://openagents.com:port", "not a URL"),
    ],
)
def test_a_base_url_is_an_address_and_no_more(value: str, said: str) -> None:
    problems = _problems(BASE_URL=value)
    assert "BASE_URL" in problems
    assert said in problems
    assert "secret-word" not in problems


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:1", "https://a.example/"]
)
def test_loopback_may_be_plain_http_and_a_trailing_slash_is_dropped(url: str) -> None:
    assert _config(BASE_URL=url).base_url == url.rstrip("/")


def test_insecure_http_can_be_asked_for() -> None:
    assert _config(BASE_URL="http://chat.internal", ALLOW_INSECURE_HTTP="1").allow_insecure_http


@pytest.mark.parametrize("name", ["UPPER", "a b", "", "-a", "a-", "a" * 64, "a'b", "1a", "projects/p/x"])
def test_a_revision_is_a_revision_name(name: str) -> None:
    assert "STABLE must be a Cloud Run revision name" in _problems(stable=name)
    assert "CANARY must be a Cloud Run revision name" in _problems(canary=name)


def test_stable_is_not_the_canary() -> None:
    assert "STABLE and CANARY must differ" in _problems(stable="chat-2")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DRYRUN", "DRY_RUN"),
        ("BASE_URl", "BASE_URL"),
        ("HELD_STREAM", "HELD_STREAMS"),
        ("CANARY_SOAK_SECOND", "CANARY_SOAK_SECONDS"),
        ("CONTROL_ACESS_TOKEN", "CONTROL_ACCESS_TOKEN"),
        ("APPLY_ROUTE_FLIPP", "APPLY_ROUTE_FLIP"),
        ("NOTIFY_SLACK", "NOTIFY_SLACK_URL"),
        ("notify_google_chat", "NOTIFY_GOOGLE_CHAT_URL"),
        ("MAX_ROLLBACK", "MAX_ROLLBACK_SECONDS"),
        ("RUN_DUAL", "RUN_DUAL_RUN"),
    ],
)
def test_a_mistyped_variable_is_not_left_out_in_silence(name: str, meant: str) -> None:
    said = _problems(**{name: "marked-value"})
    assert said == f"{name} is no variable of cutover; {meant} is: set that one, or unset {name}"


@pytest.mark.parametrize(("name", "meant"), [("BASE_ULR", "BASE_URL"), ("DRY_RNU", "DRY_RUN")])
def test_a_variable_with_swapped_letters_is_refused(name: str, meant: str) -> None:
    said = f"{name} is no variable of cutover; {meant} is: set that one, or unset {name}"
    assert _problems(**{name: "x"}) == said


@pytest.mark.parametrize(
    ("name", "meant", "value"),
    [
        ("HELD_STREAM", "HELD_STREAMS", "3"),
        ("DRYRUN", "DRY_RUN", "1"),
        ("dry_run", "DRY_RUN", "1"),
        ("APPLY_ROUTE_FLIPP", "APPLY_ROUTE_FLIP", "0"),
        ("NOTIFY_SLACK", "NOTIFY_SLACK_URL", "https://hooks.example/x"),
    ],
)
def test_a_mistyped_variable_beside_the_right_one_is_refused(name: str, meant: str, value: str) -> None:
    said = f"{name} is no variable of cutover; {meant} is, and it is set too: unset {name}"
    assert _problems(**{name: "marked-value", meant: value}) == said


def test_a_mistyped_variable_that_may_mean_two_inputs_is_one_problem() -> None:
    assert _problems(NOTIFY_PAGERDUTY="x") == (
        "NOTIFY_PAGERDUTY is no variable of cutover; NOTIFY_PAGERDUTY_KEY and NOTIFY_PAGERDUTY_URL are: set the one that you mean, "
        "and unset NOTIFY_PAGERDUTY"
    )


def test_other_peoples_variables_are_no_business_of_ours() -> None:
    others = (
        "AWS_REGION",
        "PROJECT_ID",
        "BASE_URI",
        "SERVICE_NAME",
        "OUTPUT",
        "CUTOVER_REQUIRE",
        "PATH",
        "HOME",
        "SERVICES",
        "project",
        "OAUTH_TOKEN",
        "ALLOW_INSECURE",
        "BASE",
        "CANARY",
        "CI",
        "CLOUD_RUN",
        "CLOUD_RUN_JOB",
        "GITHUB_REF_NAME",
        "INPUT_DRY_RUN",
        "MAX",
        "NOTIFY_SOCKET",
        "SLACK_URL",
        "STATE",
        "THREAD_ID",
        "npm_config_registry",
    )
    assert _config(**dict.fromkeys(others, "x")).facts() == _config().facts()


def test_all_problems_are_told_at_once() -> None:
    problems = _problems(
        stable="UP",
        DRY_RUN="0",
        BASE_URL="x",
        CANARY_STEPS="5,5",
        MAX_ROLLBACK_SECONDS="abc",
        REGION="a'b",
        HELD_STREAMS="51",
    )
    for name in (
        "STABLE",
        "BASE_URL",
        "CANARY_STEPS",
        "MAX_ROLLBACK_SECONDS",
        "REGION",
        "HELD_STREAMS",
        "AUTH_TOKEN",
    ):
        assert name in problems


def test_a_live_run_needs_its_tokens_and_a_rehearsal_reads_none() -> None:
    problems = _problems(DRY_RUN="0")
    assert "CONTROL_ACCESS_TOKEN is missing" in problems
    assert "AUTH_TOKEN is missing" in problems
    rehearsed = _config(AUTH_TOKEN="marked-auth-token", CONTROL_ACCESS_TOKEN="bad\ntoken")
    assert rehearsed.secrets == ()


def test_a_token_that_is_no_header_value_is_refused_unseen() -> None:
    problems = _problems(**{**LIVE, "AUTH_TOKEN": "marked-auth\r\nx: y"})
    assert "AUTH_TOKEN must be printable ASCII" in problems
    assert "marked" not in problems


def test_no_token_is_in_a_repr() -> None:
    config = _config(**LIVE, CLOUD_RUN_ACCESS_TOKEN="marked-cloud", LEGACY_AUTH_TOKEN="marked-legacy")
    assert "marked" not in repr(config)
    assert "marked" not in repr(config.facts())


def test_the_library_refuses_a_live_run_without_a_directory() -> None:
    with pytest.raises(ConfigurationError, match="OUTPUT_DIR is missing"):
        CutoverConfig(
            stable_revision="a-1",
            canary_revision="a-2",
            dry_run=False,
            auth_token="t" * 8,
            control_access_token="c" * 8,
        )


def test_a_dual_run_needs_the_legacy_service() -> None:
    assert "LEGACY_BASE_URL is missing" in _problems(RUN_DUAL_RUN="1")


def test_the_users_token_does_not_go_to_another_site() -> None:
    dual = {
        **LIVE,
        "RUN_DUAL_RUN": "1",
        "BASE_URL": "https://chat.example",
        "LEGACY_BASE_URL": "https://old.other",
    }
    assert "LEGACY_AUTH_TOKEN is missing" in _problems(**dual)
    assert _config(**dual, LEGACY_AUTH_TOKEN="marked-legacy").legacy_token == "marked-legacy"
    same = {**dual, "LEGACY_BASE_URL": "https://legacy.chat.example"}
    assert _config(**same).legacy_token == LIVE["AUTH_TOKEN"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example", "https://a.example:8443", True),
        ("https://a.example", "https://old.a.example", True),
        ("https://old.a.example", "https://new.a.example", False),
        ("https://a.example", "https://ba.example", False),
    ],
)
def test_urls_of_one_site(one: str, other: str, same: bool) -> None:
    assert same_site(one, other) is same


def test_hosts_that_are_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost", "a.localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.com", "localhost.example.com")))  # noqa: S104  no bind


def test_an_output_dir_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("{}")
    assert "OUTPUT_DIR already holds a run" in _problems(OUTPUT_DIR=str(tmp_path))
    assert (tmp_path / "journal.jsonl").read_text() == "{}"


def test_an_output_dir_that_is_a_file_or_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "OUTPUT_DIR is not a folder" in _problems(OUTPUT_DIR=str(tmp_path / "file"))
    assert "OUTPUT_DIR cannot be written" in _problems(OUTPUT_DIR=str(tmp_path / "file" / "below"))


def test_an_empty_text_counts_as_not_set() -> None:
    assert _config(BASE_URL="", PROJECT="", OUTPUT_DIR="").project == "openagentsgemini"


def test_windows_checks_and_rehearses_but_does_not_run_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert "refused on Windows" in _problems(**LIVE)
    assert _config().dry_run


def test_gcloud_must_be_there_for_a_live_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = _problems(**LIVE, TRAFFIC_BACKEND="gcloud")
    assert "TRAFFIC_BACKEND=gcloud needs the program gcloud" in said
    assert "install the Google Cloud CLI, or use TRAFFIC_BACKEND=cloud-run-api" in said
    # A rehearsal runs no command.
    assert _config(TRAFFIC_BACKEND="gcloud").dry_run
    (tmp_path / "gcloud").touch(mode=0o755)
    live = {**LIVE, "OUTPUT_DIR": str(tmp_path / "run"), "TRAFFIC_BACKEND": "gcloud"}
    assert _config(**live).traffic_backend == "gcloud"


def test_a_backend_is_one_of_two() -> None:
    assert "TRAFFIC_BACKEND must be cloud-run-api or gcloud, not 'kubectl'" in _problems(
        TRAFFIC_BACKEND="kubectl"
    )


@pytest.mark.parametrize("name", ["PROJECT", "REGION", "SERVICE"])
@pytest.mark.parametrize(
    "value", ["-x", "--async", "-x:project", ".x:project", "a b", "a,b=1", "a\n", "^:^a"]
)
def test_a_name_that_gcloud_could_read_as_an_option_is_refused(name: str, value: str) -> None:
    form = "a project id" if name == "PROJECT" else "lower-case letters, digits and hyphens"
    assert f"{name} must be {form}" in _problems(**{name: value})


def test_a_project_may_belong_to_a_domain() -> None:
    assert _config(PROJECT="example.com:chat").project == "example.com:chat"


def test_a_live_run_refuses_what_if() -> None:
    with pytest.raises(ConfigurationError, match="what_if is for rehearsals"):
        CutoverConfig.from_env(
            stable_revision="a-1", canary_revision="a-2", env=LIVE, what_if=("stream-500",)
        )


def test_the_shipped_manifest_is_one() -> None:
    entries = shipped_manifest()
    assert [entry.path for entry in entries if entry.critical and entry.response_kind.value == "sse"] == [
        "/api/chat/stream",
        "/api/chats/{thread_id}/stream",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "is not JSON"),
        ("[]", 'a key "requests"'),
        ('{"requests": []}', 'a key "requests"'),
        ('{"requests": [1]}', "requests[0] must be an object"),
        ('{"requests": [{"id": "a"}]}', "requests[0] ('a') lacks the key 'path'"),
        ('{"requests": [{"path": "/"}]}', "requests[0] lacks the key 'id'"),
        ('{"requests": [{"id": "a", "path": "/", "method": null}]}', "'method' must be a string"),
        (
            '{"requests": [{"id": "a", "method": "GET", "path": "/", "response_kind": "json", "critical": "yes", "requires_auth": true}]}',
            "'critical' must be true or false",
        ),
        (
            (
                '{"requests": [{"id": "a", "method": "FETCH", "path": "x", "response_kind": "xml", "critical": true, "requires_auth": true,'
                ' "headers": {"Authorization": "Bearer x", "y": "a\\nb"}}]}'
            ),
            "'method' must be one of",
        ),
        (
            '{"requests": [{"id": "a", "method": "GET", "path": "/", "response_kind": "json", "critical": true, "requires_auth": true, "retries": 3}]}',
            "'retries' is not a key of an entry",
        ),
    ],
)
def test_a_manifest_that_is_none_names_the_entry_and_the_key(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    path.write_text(text)
    problems = _problems(RUN_DUAL_RUN="1", LEGACY_BASE_URL="https://old.example", REQUESTS_FILE=str(path))
    assert "REQUESTS_FILE" in problems
    assert said in problems


def test_a_manifest_of_the_scripts_may_leave_out_the_keys_that_have_a_default_there() -> None:
    (entry,) = parse_manifest(b'{"requests": [{"id": "e", "path": "/api/me"}]}', name="m")
    assert entry == ManifestEntry(
        id="e",
        method="GET",
        path="/api/me",
        response_kind=ResponseKind.JSON,
        critical=False,
        requires_auth=False,
    )


def test_a_manifest_tells_every_wrong_value() -> None:
    row = b'{"id": "a", "method": "FETCH", "path": "//x", "response_kind": "xml", "critical": true, "requires_auth": true, "headers": {"Cookie": "a", "y": "a\\nb"}}'
    with pytest.raises(ConfigurationError) as caught:
        parse_manifest(b'{"requests": [' + row + b"]}", name="m")
    told = "\n".join(caught.value.problems)
    for name in ("'method'", "'path'", "'response_kind'", "printable ASCII", "credentials"):
        assert name in told


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"path": "/\x01"}, "'path' must start with one slash and be printable ASCII"),
        ({"path": "/a b"}, "'path' must start with one slash and be printable ASCII"),
        ({"path": "/é"}, "'path' must start with one slash and be printable ASCII"),
        ({"headers": {"x-é": "a"}}, "'headers' holds 'x-é', which is not the name of a header"),
        ({"headers": {"a\nb": "c"}}, "'headers' holds 'a\\nb', which is not the name of a header"),
        ({"headers": {"": "c"}}, "'headers' holds '', which is not the name of a header"),
        ({"headers": {"a": "b\r\nc: d"}}, "'headers' must hold printable ASCII strings"),
        ({"headers": {"a": 1}}, "'headers' must hold printable ASCII strings"),
    ],
)
def test_a_manifest_holds_nothing_that_cannot_be_sent(wrong: dict[str, object], said: str) -> None:
    row = {"id": "e", "method": "GET", "path": "/x", "response_kind": "json", "critical": True, "requires_auth": False}  # fmt: skip
    assert parse_manifest(json.dumps({"requests": [row]}).encode(), name="m")[0].path == "/x"
    with pytest.raises(ConfigurationError) as caught:
        parse_manifest(json.dumps({"requests": [row | wrong]}).encode(), name="m")
    assert said in "\n".join(caught.value.problems)


def test_a_manifest_names_an_id_that_is_used_twice() -> None:
    row = b'{"id": "a", "method": "GET", "path": "/", "response_kind": "json", "critical": true, "requires_auth": true}'
    with pytest.raises(ConfigurationError, match="'a' is used more than once"):
        parse_manifest(b'{"requests": [' + row + b"," + row + b"]}", name="m")


def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.json")
    assert "REQUESTS_FILE cannot be read" in _problems(
        RUN_DUAL_RUN="1", LEGACY_BASE_URL="https://old.example", REQUESTS_FILE=missing
    )


def test_a_manifest_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(b" " * ((1 << 20) + 1))
    assert "REQUESTS_FILE is larger than 1048576 bytes" in _problems(
        RUN_DUAL_RUN="1", LEGACY_BASE_URL="https://old.example", REQUESTS_FILE=str(large)
    )


def test_a_wrong_address_does_not_hide_a_missing_one() -> None:
    said = _problems(RUN_DUAL_RUN="1", BASE_URL="nowhere")
    assert "BASE_URL must start with" in said
    assert "LEGACY_BASE_URL is missing" in said


def test_a_manifest_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "REQUESTS_FILE cannot be read: it is not a regular file" in _problems(
        RUN_DUAL_RUN="1", LEGACY_BASE_URL="https://old.example", REQUESTS_FILE=str(tmp_path / "pipe")
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("apply_route_flip", "0", "APPLY_ROUTE_FLIP must be True or False, not '0'"),
        ("dry_run", None, "DRY_RUN must be True or False, not None"),
        ("held_streams", 1.5, "HELD_STREAMS must be a whole number, not 1.5"),
        ("max_broken_streams", None, "MAX_BROKEN_STREAMS must be a number, at least 0"),
        ("canary_soak_seconds", None, "CANARY_SOAK_SECONDS must be a number"),
        ("canary_soak_seconds", 10**400, "CANARY_SOAK_SECONDS must be a number"),
        ("canary_soak_seconds", float("nan"), "CANARY_SOAK_SECONDS must be a number"),
        ("canary_steps", (True, 100), "CANARY_STEPS must be whole percents"),
        ("canary_soak_seconds", True, "CANARY_SOAK_SECONDS must be a number"),
        ("base_url", None, "BASE_URL must start with https://"),
        ("legacy_base_url", None, "LEGACY_BASE_URL must start with https://"),
        ("legacy_base_url", 5, "LEGACY_BASE_URL must start with https://"),
        ("canary_steps", 5, "CANARY_STEPS must be whole percents from 1 to 100, strictly rising, not 5"),
        ("requests_file", 5, "REQUESTS_FILE must be a path, not 5"),
        ("output_dir", 5, "OUTPUT_DIR must be a path, not 5"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(field: str, value: object, said: str) -> None:
    inputs: dict[str, Any] = {"run_dual_run": True, "legacy_base_url": "https://old.example", field: value}
    with pytest.raises(ConfigurationError) as caught:
        CutoverConfig(stable_revision="chat-1", canary_revision="chat-2", **inputs)
    assert "\n".join(caught.value.problems).startswith(said)


def test_a_share_of_the_error_budget_may_be_none() -> None:
    config = CutoverConfig(
        stable_revision="chat-1", canary_revision="chat-2", slo_error_budget_consumed_percent=None
    )
    assert config.budget.source is BudgetSource.DEFAULT


@pytest.mark.parametrize(
    "legacy", ["https://chat.example", "HTTPS://Chat.Example.:443/", "https://ch%61t.example/./"]
)
@pytest.mark.parametrize("live", [{}, LIVE])
def test_a_dual_run_of_one_place_with_itself_is_refused(legacy: str, live: dict[str, str]) -> None:
    problems = _problems(**live, RUN_DUAL_RUN="1", BASE_URL="https://chat.example", LEGACY_BASE_URL=legacy)
    assert (
        "LEGACY_BASE_URL names the same place as BASE_URL, so the dual run would compare the new service with itself"
    ) in problems
    assert "or set RUN_DUAL_RUN=0" in problems


def test_two_urls_of_one_place_are_no_problem_without_a_dual_run() -> None:
    _config(RUN_DUAL_RUN="0", BASE_URL="https://chat.example", LEGACY_BASE_URL="https://chat.example/")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            {"HOLD_AT": "25,flop"},
            "HOLD_AT must be shares of CANARY_STEPS and flip or promote, each once, like 25,100,flip, not '25,flop'",
        ),
        ({"HOLD_AT": "25,25"}, "each once"),
        ({"HOLD_AT": "25,"}, "HOLD_AT must be shares"),
        ({"HOLD_AT": "101"}, "HOLD_AT must be shares"),
        ({"HOLD_AT": "30"}, "HOLD_AT has 30, and CANARY_STEPS has no step of 30 %: 5,25,50,100"),
        (
            {"HOLD_AT": "flip"},
            "HOLD_AT has flip, but this train sets no override: set APPLY_ROUTE_FLIP=1, or leave flip out",
        ),
        (
            {"HOLD_AT": "promote"},
            "HOLD_AT has promote, but this train promotes nothing: set PROMOTE=1, or leave promote out",
        ),
        ({"HOLD_TIMEOUT": "0"}, "HOLD_TIMEOUT must be a number, more than 0 and at most 86400"),
    ],
)
def test_a_hold_that_the_train_never_comes_by_is_refused(env: dict[str, str], said: str) -> None:
    assert said in _problems(**env)


def test_holds_are_read_from_a_variable_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cutover.toml"
    file.write_text('hold_at = [25, "100", "flip"]\napply_route_flip = true\n')
    more = {"HOLD_AT": " 100 , flip", "APPLY_ROUTE_FLIP": "1"}

    def read(env: dict[str, str]) -> tuple[str, ...]:
        return CutoverConfig.from_env(
            stable_revision="chat-1", canary_revision="chat-2", env=env, file=file
        ).hold_at

    assert read({}) == ("25", "100", "flip")
    assert read(more) == ("100", "flip")
    file.write_text("hold_at = 25\n")
    with pytest.raises(ConfigurationError, match=r"hold_at in .* must be whole percents and names like"):
        read({})


def test_a_longest_soak_that_is_shorter_than_the_soak_is_refused() -> None:
    assert _problems(CANARY_SOAK_SECONDS="60", CANARY_MAX_SOAK_SECONDS="30") == (
        "CANARY_MAX_SOAK_SECONDS is 30, less than CANARY_SOAK_SECONDS, which is 60: raise it, or shorten the soak"
    )
    # A soak that is longer than the default needs nothing else.
    assert _config(CANARY_SOAK_SECONDS="900").canary_max_soak_seconds == 600


@pytest.mark.parametrize(("value", "wrong"), [("0", True), ("91", True), ("90", False), ("0.5", False)])
def test_the_margin_of_the_canary_lies_between_0_and_90_percent(value: str, wrong: bool) -> None:
    if wrong:
        assert "MAX_CANARY_WORSE_PERCENT must be" in _problems(MAX_CANARY_WORSE_PERCENT=value)
    else:
        assert _config(MAX_CANARY_WORSE_PERCENT=value).max_canary_worse_percent == float(value)
