"""A token that expires in mid-train: one with a file or a command is renewed, a fixed one is refused before anything moves."""

import base64
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.model.results import StepStatus
from cutover.model.summary import CutoverSummary
from cutover.report.preview import train_seconds
from cutover.simulation import FAULTS, Operation
from cutover.train.undo_executor import UNDO_DEADLINE
from cutover.wiring.embedded import simulated
from cutover.wiring.recover import recover_production
from cutover.wiring.run import run_production
from tests.support.embedded_trains import STABLE, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

INPUTS = {
    "control": "control_access_token",
    "auth": "auth_token",
    "cloud_run": "cloud_run_access_token",
    "legacy": "legacy_auth_token",
}
SOAK = 30.0
NEW = "marked-renewed-token"


@attrs.define(eq=False)
class RenewedTrain:
    """A train one of whose tokens is in a file, and expires. Somebody writes the new token into the file in time."""

    folder: Path
    name: str
    expires_after: float
    faults: tuple[str, ...] = ()
    train: EmbeddedTrain = attrs.field(init=False)
    config: CutoverConfig = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = live_config(
            self.folder,
            run_dual_run=True,
            held_streams=1,
            canary_soak_seconds=SOAK,
            flip_confirm_seconds=SOAK,
        )
        self.train = EmbeddedTrain(
            config,
            faults=tuple(FAULTS[name] for name in self.faults),
            layout_changes={"token_lifetimes": {self.name: self.expires_after}, "tells_sessions": False},
        )
        field = INPUTS[self.name]
        self.path.write_text(getattr(config, field))
        changes: dict[str, Any] = {field: "", f"{field}_file": str(self.path)}
        self.config = attrs.evolve(config, **changes)

    @property
    def path(self) -> Path:
        return self.folder / "token"

    async def run(self, *, renew: bool = True) -> CutoverSummary:
        async with anyio.create_task_group() as group:
            if renew:
                group.start_soon(self._renew)
            summary = await run_production(
                simulated(self.config, self.train.production, clock=EventLoopClock())
            )
            group.cancel_scope.cancel()
        return summary

    async def _renew(self) -> None:
        await anyio.sleep(self.expires_after - 1.0)
        self.renew()

    def renew(self) -> None:
        self.train.production.renew(self.name, NEW)
        self.path.write_text(NEW)


@pytest.mark.parametrize("after", [2.0, 20.0, 50.0, 110.0, 130.0, 149.0])
@pytest.mark.parametrize("name", INPUTS)
async def test_a_token_that_is_renewed_in_its_file_ends_no_train(
    name: str, after: float, tmp_path: Path
) -> None:
    trial = RenewedTrain(tmp_path, name, after)
    summary = await trial.run()
    assert summary.passed, summary.reasons
    assert summary.exit_code == 0
    assert not [tally.broken for step in summary.steps for tally in step.sentinels if tally.broken]
    artifacts = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert NEW.encode() not in artifacts


async def test_the_undo_uses_the_renewed_token(tmp_path: Path) -> None:
    """The token expires in the last soak, and the flip fails after it: both parts go back with the new tokens."""
    for name in ("control", "cloud_run"):
        folder = tmp_path / name
        folder.mkdir()
        trial = RenewedTrain(folder, name, 110.0, faults=("override-422",))
        before = trial.train.production.route_targets()
        summary = await trial.run()
        assert (summary.exit_code, summary.passed) == (1, False)
        assert trial.train.production.traffic == {STABLE: 100}
        assert trial.train.production.route_targets() == before


async def test_a_token_that_nobody_renews_is_named_by_its_input_and_recovery_reads_the_file_again(
    tmp_path: Path,
) -> None:
    trial = RenewedTrain(tmp_path, "cloud_run", 110.0)
    summary = await trial.run(renew=False)
    assert summary.exit_code == 4
    assert summary.undo is not None
    assert "renew CLOUD_RUN_ACCESS_TOKEN_FILE first: it was refused" in summary.undo.to_do
    assert trial.train.production.traffic != {STABLE: 100}
    trial.renew()
    production = simulated(trial.config, trial.train.production, clock=EventLoopClock())
    recovery = await recover_production(production, tmp_path / "run")
    assert recovery.closed, recovery.detail
    assert trial.train.production.traffic == {STABLE: 100}


async def test_a_file_that_vanishes_in_mid_train_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Everything is written back, but no stream can show any more who answers: that is no proof, and the undo says why."""
    trial = RenewedTrain(tmp_path, "auth", 110.0)

    async def vanish() -> None:
        await anyio.sleep(60.0)
        trial.path.unlink()

    async with anyio.create_task_group() as group:
        group.start_soon(vanish)
        summary = await trial.run(renew=False)
    assert (summary.exit_code, trial.train.production.traffic) == (4, {STABLE: 100})
    assert summary.undo is not None
    assert "AUTH_TOKEN_FILE" in summary.undo.detail
    # The refusal that the detail quotes is that of the streams.
    assert not [line for line in summary.undo.to_do if line.startswith("renew ")]
    checks = [check for step in summary.steps for check in step.checks if check.status.failed]
    assert checks
    named = [check for check in checks if "AUTH_TOKEN_FILE" in check.detail]
    # A sentinel stream that could not be sent is a broken stream.
    assert {check.status for check in named if check.kind != "sentinels"} == {StepStatus.ERROR}


@pytest.mark.parametrize(("name", "step_id"), [("auth", "stream-smoke-pre"), ("legacy", "dual-run-diff")])
async def test_a_token_that_is_refused_from_the_start_is_named_where_it_is_refused(
    name: str, step_id: str, tmp_path: Path
) -> None:
    """The refusal names the input that gave the token, also where a file gives it."""
    trial = RenewedTrain(tmp_path, name, math.inf)
    trial.path.write_text("wrong-token")
    summary = await trial.run(renew=False)
    details = [check.detail for step in summary.steps if step.step_id == step_id for check in step.checks]
    assert [detail for detail in details if f"{INPUTS[name].upper()}_FILE" in detail], details


def preflight_of(summary: CutoverSummary) -> Mapping[str, tuple[StepStatus, str]]:
    return {
        check.check_id: (check.status, check.detail)
        for step in summary.steps
        if step.step_id == "preflight"
        for check in step.checks
    }


def jwt(seconds: float) -> str:
    parts = ({"alg": "none"}, {"exp": time.time() + seconds})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join((*encoded, "c2ln"))


ROLES = {
    "control_access_token": "control",
    "auth_token": "auth",
    "cloud_run_access_token": "cloud-run",
    "legacy_auth_token": "legacy",
}


@pytest.mark.parametrize(("seconds", "lives"), [(240.5, "lives 240 s more"), (-60.0, "expired 60 s ago")])
@pytest.mark.parametrize("field", ROLES)
async def test_a_fixed_token_that_expires_too_early_starts_no_train(
    field: str, seconds: float, lives: str, tmp_path: Path
) -> None:
    train = EmbeddedTrain(live_config(tmp_path, run_dual_run=True, **{field: jwt(seconds)}))
    summary = await train.run()
    assert summary.exit_code == 3
    page = (tmp_path / "run" / "SUMMARY.md").read_text()
    head = page.partition("| | |")[0]
    assert "Exit code 3: this run proves nothing, and production is as it was found." in head
    assert "- preflight, token" in head
    assert "renew it, or set" in head
    status, detail = preflight_of(summary)[f"token-{ROLES[field]}"]
    needed = train_seconds(train.config) + UNDO_DEADLINE
    assert status is StepStatus.ERROR
    assert detail.startswith(f"{field.upper()} {lives}")
    assert (
        f"the train with its undo needs up to {needed:.0f} s: renew it, or set {field.upper()}_FILE" in detail
    )
    assert not [
        entry
        for entry in train.production.requests
        if entry.operation in {Operation.TRAFFIC_UPDATE, Operation.ROUTE_OVERRIDE, Operation.CHAT_STREAM}
    ]


async def test_a_token_that_lives_long_enough_passes_with_the_figure(tmp_path: Path) -> None:
    train = EmbeddedTrain(
        live_config(tmp_path, control_access_token=jwt(7200.5)), layout_changes={"tells_sessions": False}
    )
    summary = await train.run()
    assert summary.passed
    found = preflight_of(summary)
    assert found["token-control"][1].startswith("CONTROL_ACCESS_TOKEN lives 7200 s more, and up to ")
    assert found["token-cloud-run"][1].startswith(
        "how long CLOUD_RUN_ACCESS_TOKEN lives is not known; the train and its undo need up to"
    )
    assert "token-legacy" not in found


@pytest.mark.parametrize(("name", "role"), [("auth", "auth"), ("control", "control")])
async def test_the_service_itself_tells_how_long_a_session_lives(
    name: str, role: str, tmp_path: Path
) -> None:
    train = EmbeddedTrain(live_config(tmp_path), layout_changes={"token_lifetimes": {name: 400.0}})
    summary = await train.run()
    assert summary.exit_code == 3
    status, detail = preflight_of(summary)[f"token-{role}"]
    assert status is StepStatus.ERROR
    assert "lives 400 s more" in detail or "lives 399 s more" in detail
    long = EmbeddedTrain(live_config(tmp_path / "long"), layout_changes={"token_lifetimes": {name: 4000.0}})
    assert (await long.run()).passed


async def test_a_long_soak_needs_a_token_that_lives_as_long(tmp_path: Path) -> None:
    for soak, code in ((30.0, 0), (900.0, 3)):
        config = live_config(tmp_path / str(soak), canary_soak_seconds=soak, auth_token=jwt(3600))
        assert (await EmbeddedTrain(config).run()).exit_code == code


async def test_a_token_of_a_file_may_be_short_lived(tmp_path: Path) -> None:
    trial = RenewedTrain(tmp_path, "control", 20.0)
    summary = await trial.run()
    assert preflight_of(summary)["token-control"] == (
        StepStatus.PASS,
        "CONTROL_ACCESS_TOKEN_FILE: read again when it expires or is refused",
    )


@pytest.mark.parametrize("seconds", [2.0, 3.0, 4.0])
async def test_the_length_of_a_turn_counts_towards_the_time_that_a_token_must_live(
    seconds: float, tmp_path: Path
) -> None:
    """The preflight takes turns for short, and the smoke measures one: a token that dies after the flip would be exit 4."""
    train = EmbeddedTrain(
        live_config(tmp_path, held_streams=2),
        layout_changes={"chunk_seconds": seconds, "token_lifetimes": {"control": 515.0}},
    )
    summary = await train.run()
    assert (summary.exit_code, train.production.traffic) == (3, {STABLE: 100})
    (detail,) = [
        check.detail
        for step in summary.steps
        for check in step.checks
        if check.check_id == "lifetime-CONTROL_ACCESS_TOKEN"
    ]
    assert detail.startswith("a chat turn takes ")


@pytest.mark.parametrize(("url", "asked"), [("https://run.googleapis.com", 1), ("https://run.example", 0)])
async def test_google_is_asked_how_long_its_token_lives_and_nobody_else(
    url: str, asked: int, tmp_path: Path
) -> None:
    config = live_config(tmp_path, cloud_run_api_url=url, allow_insecure_http=True)
    train = EmbeddedTrain(config, layout_changes={"token_lifetimes": {"cloud_run": 100.0}})
    summary = await train.run()
    questions = [row for row in train.production.requests if row.operation is Operation.LIFETIME]
    assert [(row.token, row.query) for row in questions] == [("cloud_run", {})] * asked
    status, detail = preflight_of(summary)["token-cloud-run"]
    if asked:
        assert (summary.exit_code, status) == (3, StepStatus.ERROR)
        assert detail.startswith("CLOUD_RUN_ACCESS_TOKEN lives 100 s more, and the train")
    else:
        assert status is StepStatus.PASS
        assert "is not known" in detail
