"""What the real service of the lane does: its compatibility gate, its rights, its refusals, and its later version."""

import json
from datetime import date
from pathlib import Path
from unittest.mock import patch

import anyio
import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.contract.findings import Finding, Severity
from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.simulation import FAULTS, VARIANTS, Operation, SimulatedProduction
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from cutover.wiring.recover import recover_cutover
from tests.support.embedded_trains import CHANGES, TOKENS, EmbeddedTrain, live_config
from tests.support.unfinished_runs import scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

ENFORCED = VARIANTS["compatibility-enforced"]


def row(summary: CutoverSummary, step_id: str, check_id: str) -> Check:
    step = summary.step(step_id)
    assert step is not None
    return next(check for check in step.checks if check.check_id == check_id)


def findings(summary: CutoverSummary) -> list[Finding]:
    return [finding for step in summary.steps for check in step.checks for finding in check.findings]


class TestCompatibility:
    @pytest.mark.parametrize("apply", [True, False], ids=["apply", "verify"])
    async def test_a_service_that_enforces_it_lets_the_whole_train_pass(
        self, apply: bool, tmp_path: Path
    ) -> None:
        train = EmbeddedTrain(live_config(tmp_path, apply_route_flip=apply), faults=(ENFORCED,))
        summary = await train.run()
        assert summary.exit_code == 0, summary.reasons

    async def test_the_undo_of_a_flip_passes_it_too(self, tmp_path: Path) -> None:
        faults = (ENFORCED, FAULTS["stream-500-after-flip"])
        summary = await EmbeddedTrain(live_config(tmp_path), faults=faults).run()
        assert summary.exit_code == 1
        assert summary.undo is not None
        assert summary.undo.proven

    async def test_a_client_that_is_too_old_is_told_so_before_anything_moves(self, tmp_path: Path) -> None:
        config = live_config(tmp_path, compat_client_build_id="20200101T000000Z")
        train = EmbeddedTrain(config, faults=(ENFORCED,))
        summary = await train.run()
        assert summary.exit_code == 3
        assert "HTTP 426 (upgrade_required" in row(summary, "preflight", "routes").detail
        assert not any(entry.operation in CHANGES for entry in train.production.requests)

    @pytest.mark.parametrize(
        ("build", "closed"),
        [("20260221T130000Z", True), ("20200101T000000Z", False), (None, True)],
        ids=["of today", "too old", "a journal from before this input was recorded"],
    )
    async def test_a_recovery_sends_what_the_journal_says(
        self, build: str | None, closed: bool, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            journal = found.folder / "journal.jsonl"
            started, *rest = journal.read_text().splitlines(keepends=True)
            event = json.loads(started)
            for name in ("compat_client_build_id", "compat_protocol_version", "compat_schema_version"):
                assert event["facts"].pop(name)
            event["facts"] |= {} if build is None else {"compat_client_build_id": build}
            journal.write_text("".join((json.dumps(event) + "\n", *rest)))
            enforcing = SimulatedProduction(
                layout=attrs.evolve(found.simulation.layout, enforces_compatibility=True),
                credentials=found.simulation.credentials,
                now=anyio.current_time,
            )

            def live(config: CutoverConfig) -> Production:
                return simulated(config, enforcing, clock=EventLoopClock())

            with patch("cutover.wiring.recover.live", live):
                recovery = await recover_cutover(found.folder, env=TOKENS)
            assert recovery.closed is closed, recovery.detail
            assert closed or "HTTP 426 (upgrade_required" in recovery.detail


class TestPermission:
    async def test_a_token_that_may_set_overrides_is_proven_before_anything_moves(
        self, tmp_path: Path
    ) -> None:
        train = EmbeddedTrain(live_config(tmp_path))
        summary = await train.run()
        assert summary.exit_code == 0
        found = row(summary, "preflight", "permission-routes")
        assert (found.status, found.tolerable) == (StepStatus.PASS, False)
        operations = [entry.operation for entry in train.production.requests]
        assert operations.count(Operation.ROUTE_PERMISSION) == 1
        first_change = next(at for at, operation in enumerate(operations) if operation in CHANGES)
        assert operations.index(Operation.ROUTE_PERMISSION) < first_change

    async def test_a_flip_that_only_verifies_asks_for_no_permission(self, tmp_path: Path) -> None:
        train = EmbeddedTrain(live_config(tmp_path, apply_route_flip=False), faults=(FAULTS["override-403"],))
        summary = await train.run()
        assert summary.exit_code == 0
        assert not any(entry.operation is Operation.ROUTE_PERMISSION for entry in train.production.requests)

    async def test_the_token_of_a_user_who_is_no_administrator_moves_nothing(self, tmp_path: Path) -> None:
        """The user may sign in and read the routes. Without this check the drill moves traffic first, and the flip fails."""
        config = live_config(tmp_path)
        train = EmbeddedTrain(attrs.evolve(config, control_access_token=config.auth_token))
        credentials = attrs.evolve(train.production.credentials, control_token="of-an-administrator")
        train.production = SimulatedProduction(
            layout=train.production.layout, credentials=credentials, now=anyio.current_time
        )
        summary = await train.run()
        assert summary.exit_code == 3
        assert row(summary, "preflight", "routes").status is StepStatus.PASS
        found = row(summary, "preflight", "permission-routes")
        assert found.status is StepStatus.ERROR
        assert "HTTP 403" in found.detail
        assert "give the token of a user who is an administrator" in found.detail
        assert not any(entry.operation in CHANGES for entry in train.production.requests)

    async def test_a_service_that_accepts_every_target_is_not_trusted(self, tmp_path: Path) -> None:
        train = EmbeddedTrain(live_config(tmp_path), faults=(FAULTS["unknown-target-accepted"],))
        summary = await train.run()
        assert summary.exit_code == 3
        assert "may have changed the global override" in row(summary, "preflight", "permission-routes").detail


class TestRefusals:
    @pytest.mark.parametrize(
        ("fault", "said", "not_said"),
        [
            ("thread-of-others", "choose another THREAD_ID_PREFIX", "no permission"),
            ("stream-403", "the user of AUTH_TOKEN has no permission for this stream", "THREAD_ID_PREFIX"),
            ("stream-403-page", "<title>Access denied</title>", "no permission"),
            ("stream-415-text", "415 Expected request with `Content-Type: application/json`", "permission"),
        ],
    )
    async def test_a_refused_stream_says_what_the_refusal_means(
        self, fault: str, said: str, not_said: str, tmp_path: Path
    ) -> None:
        summary = await EmbeddedTrain(live_config(tmp_path), faults=(FAULTS[fault],)).run()
        detail = row(summary, "stream-smoke-pre", "pre-cutover-chat-stream").detail
        assert said in detail
        assert not_said not in detail

    async def test_a_refused_override_says_that_it_needs_an_administrator(self, tmp_path: Path) -> None:
        train = EmbeddedTrain(live_config(tmp_path), faults=(FAULTS["override-403-at-flip"],))
        summary = await train.run()
        assert summary.exit_code == 1
        found = row(summary, "route-flip", "apply-overrides")
        assert "HTTP 403 (forbidden: Read only.)" in found.detail
        assert "overrides need an administrator" in found.detail


class TestLaterVersion:
    async def test_an_end_of_the_lane_that_has_passed_is_a_warning_of_each_stream(
        self, tmp_path: Path
    ) -> None:
        train = EmbeddedTrain(
            live_config(tmp_path),
            faults=(VARIANTS["later-version"],),
            layout_changes={"sunset": date(2020, 6, 30)},
        )
        summary = await train.run()
        assert summary.exit_code == 0
        found = findings(summary)
        assert {(each.rule, each.severity) for each in found} == {("head.sunset", Severity.WARNING)}
        assert "sunset: Tue, 30 Jun 2020 00:00:00 GMT" in found[0].message

    @pytest.mark.parametrize("later", [True, False])
    async def test_without_an_end_or_with_one_to_come_there_is_no_finding(
        self, later: bool, tmp_path: Path
    ) -> None:
        layout: dict[str, object] = {"sunset": date(9999, 6, 30), "later_version": later}
        summary = await EmbeddedTrain(live_config(tmp_path), layout_changes=layout).run()
        assert summary.exit_code == 0
        assert findings(summary) == []
