"""Notices of whole trains and recoveries, to receivers at the transport and to commands."""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import anyio
import attrs
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import TrafficRead, TrainEvent, TrainFinished, TrainStarted
from cutover.report.notices.delivery import NOTICE_SECONDS
from cutover.simulation import FAULTS
from cutover.wiring.embedded import rehearsal, simulated
from cutover.wiring.notices import job_link, notices_of, usable_variables
from cutover.wiring.production import Production
from cutover.wiring.recover import recover_production
from cutover.wiring.run import run_production
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.notice_receiver import Answer, NoticeReceiver

pytestmark = [pytest.mark.anyio]

URLS = {
    "notify_webhook_url": "https://hooks.example/in?token=marked-webhook-token-1",
    "notify_slack_url": "https://hooks.slack.example/services/T0/B0/marked-slack-secret-1",
    "notify_google_chat_url": "https://chat.example.com/v1/spaces/A/messages?key=k&token=marked-chat-token-12",
    "notify_pagerduty_key": "marked-pagerduty-key-1",
}
SECRETS = (
    "marked-webhook-token-1",
    "marked-slack-secret-1",
    "marked-chat-token-12",
    "marked-pagerduty-key-1",
)


@attrs.define(eq=False)
class _Trial:
    """A train with receivers of notices."""

    train: EmbeddedTrain
    receiver: NoticeReceiver
    said: list[str] = attrs.field(factory=list)

    @property
    def production(self) -> Production:
        embedded = simulated(self.train.config, self.train.production, clock=EventLoopClock())
        return attrs.evolve(embedded, notice_client=self.receiver.client)

    async def run(self) -> CutoverSummary:
        with _warnings_in(self.said):
            return await run_production(self.production)

    def kinds(self, host: str = "hooks.example") -> list[str]:
        """Return the kinds of the CloudEvents, in order."""
        return [
            json.loads(request.content)["data"]["kind"]
            for request in self.receiver.requests
            if request.url.host == host
        ]


class _warnings_in:  # noqa: N801  a context manager
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def __enter__(self) -> None:
        self._catching = warnings.catch_warnings(record=True)
        self._caught = self._catching.__enter__()
        warnings.simplefilter("always")

    def __exit__(self, *raised: object) -> None:
        self._catching.__exit__(None, None, None)
        self.said += [str(warning.message) for warning in self._caught or ()]


def _trial(
    directory: Path,
    *faults: str,
    answer: Answer | None = None,
    urls: Mapping[str, str] = URLS,
    **changes: object,
) -> _Trial:
    config = live_config(directory, **{**urls, **changes})
    receiver = NoticeReceiver() if answer is None else NoticeReceiver(answer=answer)
    return _Trial(EmbeddedTrain(config, tuple(FAULTS[name] for name in faults), {"instances": 1}), receiver)


def _texts_in(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_text("utf-8", "replace")


@pytest.mark.virtual_time
async def test_a_train_that_passes_tells_every_receiver_its_start_and_its_verdict(tmp_path: Path) -> None:
    trial = _trial(tmp_path)
    summary = await trial.run()
    assert summary.passed, (summary.reasons, summary.causes)
    assert trial.kinds() == ["started", "passed"]
    hosts = [request.url.host for request in trial.receiver.requests]
    assert {host: hosts.count(host) for host in hosts} == {
        "hooks.example": 2,
        "hooks.slack.example": 2,
        "chat.example.com": 2,
    }
    first = trial.receiver.requests[hosts.index("hooks.example")]
    assert first.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert "authorization" not in first.headers
    assert trial.said == []


@pytest.mark.virtual_time
async def test_a_train_that_fails_tells_its_undo_and_why(tmp_path: Path) -> None:
    trial = _trial(tmp_path, "stream-500-after-flip", urls={"notify_webhook_url": URLS["notify_webhook_url"]})
    assert (await trial.run()).exit_code == 1
    assert trial.kinds() == ["started", "undone", "failed"]
    lines = trial.receiver.bodies[-1]["data"]["lines"]
    assert lines[0] == "exit code 1"
    assert any(line.startswith("cause: stream-smoke-post") for line in lines)


async def _tell_start_and_end(trial: _Trial, *, exit_code: int = 0) -> None:
    """Send the two notices of a train that ends with this code, without the train."""
    notices = notices_of(trial.production, run_directory=None)
    events: list[TrainEvent] = []
    notices.events = events

    async def work() -> None:
        for event in (
            TrainStarted(run_id="t1", facts=trial.train.config.facts()),
            TrainFinished(passed=exit_code == 0, exit_code=exit_code),
        ):
            events.append(event)
            notices.observe(event)

    with _warnings_in(trial.said):
        await notices.beside(work)


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("answer", "reason", "tries"),
    [
        (lambda _: httpx.Response(404, text="no_service"), "HTTP 404 (no_service)", 1),
        (lambda _: httpx.Response(503), "HTTP 503", 2),
        (lambda _: httpx.Response(429, headers={"retry-after": "1"}), "HTTP 429", 2),
        (lambda _: httpx.Response(429, headers={"retry-after": "60"}), "HTTP 429", 1),
        (lambda _: httpx.Response(302, headers={"location": "https://evil.example/"}), "a redirect to", 1),
        (lambda _: httpx.ConnectError("refused"), "could not connect (refused)", 2),
        (lambda _: httpx.ReadError("reset"), "the connection was reset (reset)", 2),
        (lambda _: 3600.0, "within 5 s", 1),
    ],
    ids=["404", "503", "429", "429 for long", "redirect", "dead", "reset", "slow"],
)
async def test_a_notice_has_two_tries_within_its_bound_and_no_redirect(
    answer: Answer, reason: str, tries: int, tmp_path: Path
) -> None:
    trial = _trial(tmp_path, answer=answer, urls={"notify_slack_url": URLS["notify_slack_url"]})
    started = anyio.current_time()
    await _tell_start_and_end(trial)
    assert anyio.current_time() - started <= 2 * NOTICE_SECONDS + 0.1
    (line,) = trial.said
    assert line.startswith("NOTIFY_SLACK_URL: 2 of the notices of this run were not delivered")
    assert reason in line
    assert "POST" not in line
    # Two notices, each with so many tries.
    assert len(trial.receiver.requests) == 2 * tries
    assert {request.url.host for request in trial.receiver.requests} == {"hooks.slack.example"}


@pytest.mark.virtual_time
@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_is_busy_once_gets_the_notice_with_the_second_try(
    status: int, tmp_path: Path
) -> None:
    def answer(number: int) -> httpx.Response:
        return httpx.Response(status if number % 2 else 200)

    trial = _trial(tmp_path, answer=answer, urls={"notify_webhook_url": URLS["notify_webhook_url"]})
    await _tell_start_and_end(trial)
    assert trial.kinds() == ["started", "started", "passed", "passed"]
    assert trial.said == []


@pytest.mark.virtual_time
async def test_receivers_that_hang_or_refuse_do_not_change_the_verdict_of_a_train(tmp_path: Path) -> None:
    trial = _trial(tmp_path, answer=lambda number: 3600.0 if number % 2 else httpx.Response(500))
    summary = await trial.run()
    assert (summary.passed, summary.exit_code) == (True, 0)
    assert len(trial.said) == 3
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.virtual_time
async def test_no_artifact_no_line_and_no_repr_shows_a_key_or_an_address(tmp_path: Path) -> None:
    echo = " ".join((*URLS.values(), *SECRETS))
    trial = _trial(tmp_path, answer=lambda _: httpx.Response(400, text=echo))
    await trial.run()
    assert len(trial.said) == 3
    shown = [*trial.said, repr(trial.train.config), repr(trial.production), *_texts_in(tmp_path)]
    assert [secret for secret in SECRETS if any(secret in text for text in shown)] == []
    trial = _trial(tmp_path / "2", answer=lambda _: httpx.ConnectError(f"no route to {echo}"))
    await _tell_start_and_end(trial)
    assert len(trial.said) == 3
    assert [secret for secret in SECRETS if secret in " ".join(trial.said)] == []


@pytest.mark.virtual_time
async def test_only_an_open_run_pages_and_its_recovery_resolves_the_same_incident(tmp_path: Path) -> None:
    trial = _trial(tmp_path, "rollback-403")
    summary = await trial.run()
    assert summary.exit_code == 4
    assert trial.kinds()[-1] == "unresolved"
    (page,) = [body for body in trial.receiver.bodies if "event_action" in body]
    assert (page["event_action"], page["routing_key"]) == ("trigger", URLS["notify_pagerduty_key"])
    assert page["payload"]["severity"] == "critical"
    assert "https://events.pagerduty.com/v2/enqueue" in {
        str(request.url) for request in trial.receiver.requests
    }
    assert "cutover recover" in json.dumps(page["payload"]["custom_details"])
    folder = trial.train.config.output_dir
    assert folder is not None
    healed = _Trial(trial.train, NoticeReceiver())
    recovery = await recover_production(healed.production, folder, mode="accept-found")
    assert recovery.closed
    (resolved,) = [body for body in healed.receiver.bodies if "event_action" in body]
    assert resolved == {
        "routing_key": URLS["notify_pagerduty_key"],
        "dedup_key": page["dedup_key"],
        "event_action": "resolve",
    }
    assert healed.kinds() == ["recovered"]


@pytest.mark.virtual_time
async def test_an_interrupted_train_sends_its_last_notice(tmp_path: Path) -> None:
    trial = _trial(tmp_path, urls={"notify_webhook_url": URLS["notify_webhook_url"]})

    def observe(event: TrainEvent) -> None:
        if isinstance(event, TrafficRead):
            scope.cancel()

    with anyio.CancelScope() as scope:
        await run_production(trial.production, observer=observe)
    assert scope.cancelled_caught
    assert trial.kinds() == ["started", "undone", "failed"]
    assert trial.receiver.bodies[-1]["data"]["exit_code"] == 130


@pytest.mark.parametrize("asked", [False, True])
async def test_a_rehearsal_sends_notices_only_where_it_is_asked_to(asked: bool, tmp_path: Path) -> None:
    config = CutoverConfig(
        stable_revision=STABLE,
        canary_revision=CANARY,
        output_dir=tmp_path / "run",
        notify_rehearsals=asked,
        notify_webhook_url=URLS["notify_webhook_url"],
    )
    receiver = NoticeReceiver()
    summary = await run_production(attrs.evolve(rehearsal(config), notice_client=receiver.client))
    assert summary.passed
    kinds = [(body["data"]["kind"], body["data"]["rehearsal"]) for body in receiver.bodies]
    assert kinds == ([("started", True), ("passed", True)] if asked else [])


READS = "import pathlib, sys; pathlib.Path({!r}).open('ab').write(sys.stdin.buffer.read())"


def _command(code: str) -> str:
    return f"{sys.executable} -c {json.dumps(code)}"


async def test_a_command_gets_each_notice_on_its_standard_input_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", "marked-auth-token")
    monkeypatch.setenv("NOTIFY_SLACK_URL", URLS["notify_slack_url"])
    seen, got = tmp_path / "environment", tmp_path / "got"
    code = f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ))); " + READS.format(str(got))
    trial = _trial(
        tmp_path, urls={"notify_command": _command(code), "notify_slack_url": URLS["notify_slack_url"]}
    )
    assert (await trial.run()).passed
    assert [json.loads(line)["data"]["kind"] for line in got.read_text().splitlines()] == [
        "started",
        "passed",
    ]
    assert "marked" not in seen.read_text()
    assert trial.said == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit('marked-auth-token is wrong')", "exit code 1, ***************** is wrong"),
        ("import time; time.sleep(60)", "did not end within 0.5 s, and was ended"),
    ],
    ids=["fails", "hangs"],
)
async def test_a_command_that_fails_or_hangs_costs_a_line(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutover.wiring.notices.NOTICE_SECONDS", 0.5)
    trial = _trial(tmp_path, urls={"notify_command": _command(code)})
    assert (await trial.run()).passed
    (line,) = trial.said
    assert reason in line


@pytest.mark.parametrize("kind", ["file", "command"])
async def test_each_address_and_key_can_come_from_a_file_or_a_command(kind: str, tmp_path: Path) -> None:
    urls: dict[str, str] = {}
    for field, secret in URLS.items():
        path = tmp_path / field
        path.write_text(secret + "\n")
        urls[f"{field}_{kind}"] = str(path) if kind == "file" else f"cat {path}"
    trial = _trial(tmp_path / "a", urls=urls)
    assert trial.train.config.secrets == _trial(tmp_path / "b", urls={}).train.config.secrets
    await _tell_start_and_end(trial)
    assert trial.said == []
    assert {str(request.url) for request in trial.receiver.requests} == set(URLS.values()) - {SECRETS[3]}
    # Only an open run pages.
    paged = _trial(tmp_path / "c", urls=urls)
    await _tell_start_and_end(paged, exit_code=4)
    assert SECRETS[3] in {body.get("routing_key") for body in paged.receiver.bodies}

    # A receiver that echoes its own address is masked, although the configuration does not hold the secret.
    def echo(number: int) -> httpx.Response:
        return httpx.Response(400, text=str(refusing.receiver.requests[number - 1].url))

    refusing = _trial(tmp_path / "d", urls=urls, answer=echo)
    await _tell_start_and_end(refusing)
    shown = " ".join((*refusing.said, repr(refusing.production)))
    assert len(refusing.said) == 3
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("false", "NOTIFY_SLACK_URL_COMMAND: false: exit code 1, no message"),
        ("echo marked-no-url", "it gives a wrong value, which must start with https://"),
        (
            "echo http://hooks.example/marked",
            "it gives a wrong value, which is plain http to hooks.example, which is not loopback",
        ),
    ],
)
async def test_a_command_that_gives_no_address_costs_a_line(
    command: str, reason: str, tmp_path: Path
) -> None:
    trial = _trial(tmp_path, urls={"notify_slack_url_command": command})
    assert (await trial.run()).passed
    (line,) = trial.said
    assert line.startswith("NOTIFY_SLACK_URL_COMMAND: 2 of the notices of this run were not delivered")
    assert reason in line
    assert "marked" not in line
    assert trial.receiver.requests == []


async def test_a_pager_whose_key_cannot_be_read_is_known_after_a_train_that_passes(tmp_path: Path) -> None:
    trial = _trial(tmp_path, urls={"notify_pagerduty_key_command": "false"})
    await _tell_start_and_end(trial)
    (line,) = trial.said
    assert line.startswith("NOTIFY_PAGERDUTY_KEY_COMMAND: 2 of the notices of this run were not delivered")


def test_the_link_of_a_job_is_known_on_github_and_on_gitlab() -> None:
    github = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}
    assert job_link(github) == "https://github.com/a/b/actions/runs/7"
    assert job_link({"CI_JOB_URL": "https://gitlab.example/j/1"}) == "https://gitlab.example/j/1"
    assert job_link({"GITHUB_RUN_ID": "7"}) == ""


def test_a_wrong_variable_of_notices_costs_a_recovery_a_warning_and_no_more() -> None:
    given = {
        "NOTIFY_SLACK_URL": "ftp://hooks.example/marked-slack-secret-1",
        "NOTIFY_COMMAND": "no-such-program-anywhere",
        "NOTIFY_WEBHOOK_URL": "http://127.0.0.1:9/in",
        "AUTH_TOKEN": "marked-auth-token",
    }
    said: list[str] = []
    with _warnings_in(said):
        assert usable_variables(given) == {"NOTIFY_WEBHOOK_URL": given["NOTIFY_WEBHOOK_URL"]}
    assert said == [
        "NOTIFY_SLACK_URL must start with https:// (or http:// on loopback) and name a host; nothing is sent there",
        (
            "NOTIFY_COMMAND needs the program no-such-program-anywhere, and there is none: give its full path, or add its folder to PATH; "
            "nothing is sent there"
        ),
    ]


def test_a_file_of_notices_that_is_wrong_costs_a_recovery_a_warning_and_no_more(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(URLS["notify_webhook_url"])
    wrong.write_text("ftp://hooks.example/marked-slack-secret-1")
    given = {
        "NOTIFY_WEBHOOK_URL_FILE": str(right),
        "NOTIFY_SLACK_URL_FILE": str(wrong),
        "NOTIFY_GOOGLE_CHAT_URL_FILE": str(tmp_path / "none"),
        "NOTIFY_PAGERDUTY_KEY": "marked-pagerduty-key-1",
        "NOTIFY_PAGERDUTY_KEY_COMMAND": "echo marked",
    }
    said: list[str] = []
    with _warnings_in(said):
        assert usable_variables(given) == {"NOTIFY_WEBHOOK_URL_FILE": str(right)}
    assert said == [
        (
            f"NOTIFY_SLACK_URL_FILE: {wrong} gives a wrong NOTIFY_SLACK_URL: it must start with https:// (or http:// on loopback) and name a "
            "host; nothing is sent there"
        ),
        f"NOTIFY_GOOGLE_CHAT_URL_FILE: {tmp_path / 'none'} cannot be read: No such file or directory; nothing is sent there",
        (
            "NOTIFY_PAGERDUTY_KEY and NOTIFY_PAGERDUTY_KEY_COMMAND both give NOTIFY_PAGERDUTY_KEY: set only one of them; "
            "nothing is sent there"
        ),
    ]
