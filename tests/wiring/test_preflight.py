"""`cutover preflight` asks all that a train asks before its first change, says it in lines, and changes nothing."""

import os
from pathlib import Path
from typing import Any

import attrs
import httpx
import msgspec
import pytest

from cutover.clock import EventLoopClock
from cutover.config.config import ALL_NEEDS
from cutover.model import step_ids
from cutover.model.results import StepStatus
from cutover.record.lock import ServiceLock
from cutover.report.preflight_report import PreflightReport, as_json, as_lines, status_of
from cutover.simulation import FAULTS, VARIANTS, Fault, Operation
from cutover.simulation.exchange import Reply, problem, text_reply
from cutover.simulation.faults import Outcome, Refuse, Scope, Strike
from cutover.wiring.embedded import simulated
from cutover.wiring.preflight import preflight_cutover, preflight_production
from cutover.wiring.production import live
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, TOKENS, EmbeddedTrain, live_config
from tests.support.state_bucket import STATE_URL, StateScene
from tests.support.unfinished_runs import scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
HEALTHY = {
    "output": "ok",
    "lock": "ok",
    "earlier-runs": "ok",
    "address-base-url": "ok",
    "address-cloud-run-api-url": "ok",
    "clock": "ok",
    "routes": "ok",
    "permission-routes": "ok",
    "traffic": "ok",
    "permission-traffic": "ok",
    "ingress": "ok",
    "revision-stable": "ok",
    "revision-canary": "ok",
    "canary-evidence": "ok",
    "token-control": "ok",
    "token-auth": "ok",
    "token-cloud-run": "ok",
    "error-budget": "ok",
}
"""Id of each line of a healthy production -> its status."""
_FIELDS = {"control": "control_access_token", "auth": "auth_token"}
STOPS_IN_PREFLIGHT = sorted(
    name for name, fault in FAULTS.items() if fault.outcome.failed_steps[:1] == (step_ids.PREFLIGHT,)
)


async def look(
    trial: EmbeddedTrain, *, needs: frozenset[str] = ALL_NEEDS - {"output_dir"}
) -> PreflightReport:
    config = attrs.evolve(trial.config, needs=needs)
    return await preflight_production(simulated(config, trial.production, clock=EventLoopClock()))


def statuses(report: PreflightReport) -> dict[str, str]:
    return {check.check_id: status_of(check) for check in report.lines}


def detail(report: PreflightReport, check_id: str) -> str:
    return next(check.detail for check in report.checks if check.check_id == check_id)


def untouched(trial: EmbeddedTrain, generation: int) -> bool:
    """Return True if no request asked for a change, and nothing has changed."""
    asked = any(entry.operation in CHANGES for entry in trial.production.requests)
    return not asked and trial.production.generation == generation


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_a_healthy_production_has_one_line_for_each_thing(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path))
    generation, routes = trial.production.generation, trial.production.routes
    report = await look(trial)
    assert statuses(report) == HEALTHY
    assert list(statuses(report)) == list(HEALTHY)
    assert report.exit_code == 0
    assert untouched(trial, generation)
    assert trial.production.routes == routes
    assert trial.production.turns == 0
    assert not files_below(tmp_path)


@pytest.mark.parametrize("name", STOPS_IN_PREFLIGHT)
# Some of them differ from instance to instance.
@pytest.mark.many_instances
async def test_what_stops_a_train_before_its_first_change_fails_here_with_a_remedy(
    name: str, tmp_path: Path
) -> None:
    trial = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=0.0), faults=(FAULTS[name],))
    generation = trial.production.generation
    report = await look(trial)
    assert report.exit_code == 3
    assert untouched(trial, generation)
    failed = [check for check in report.checks if check.status.failed]
    assert failed
    for check in failed:
        assert len(check.detail) > 40, check
    assert as_json(report)
    assert list(as_lines(report))[-1].endswith("mend the lines that fail")


@pytest.mark.parametrize("role", ["control", "auth"])
async def test_a_token_that_the_lane_refuses_fails_and_is_named(role: str, tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path))
    trial.config = live_config(tmp_path, **{_FIELDS[role]: "marked-and-revoked"})
    report = await look(trial)
    assert statuses(report)[f"token-{role}"] == "fail"
    variable = _FIELDS[role].upper()
    assert detail(report, f"token-{role}").startswith(f"{variable} was refused: renew it (")
    assert "401" in detail(report, f"token-{role}")
    assert "marked-and-revoked" not in "".join(check.detail for check in report.checks)
    assert report.exit_code == 3


async def test_a_known_token_that_may_not_use_the_lane_fails_and_is_named(tmp_path: Path) -> None:
    report = await look(_session_says(tmp_path, problem(403, "forbidden", "This token may not do that.")))
    for role, field in _FIELDS.items():
        assert statuses(report)[f"token-{role}"] == "fail"
        said = f"{field.upper()} was refused: renew it or give the token of another user ("
        assert detail(report, f"token-{role}").startswith(said)
    assert report.exit_code == 3


@pytest.mark.parametrize(
    "reply", [problem(404, "not_found", "Not found."), text_reply("Not from here.", status=403)]
)
async def test_a_service_that_does_not_say_how_long_a_token_lives_is_a_warning_alone(
    reply: Reply, tmp_path: Path
) -> None:
    """A page with a 403 comes from something in front of the service, and says nothing about the token."""
    report = await look(_session_says(tmp_path, reply))
    assert {statuses(report)[f"token-{role}"] for role in _FIELDS} == {"warn"}
    assert report.exit_code == 0


def _session_says(directory: Path, reply: Reply) -> EmbeddedTrain:
    strike = Strike(Scope(operations=frozenset({Operation.SESSION})), Refuse(reply))
    fault = Fault(name="session", sentence="Session.", strikes=(strike,), outcome=Outcome(exit_code=0))
    return EmbeddedTrain(live_config(directory), faults=(fault,))


async def test_the_json_document_keeps_its_keys(tmp_path: Path) -> None:
    report = await look(EmbeddedTrain(live_config(tmp_path)))
    document: dict[str, Any] = msgspec.json.decode(as_json(report))
    assert document.keys() == {
        "schema", "generated_at", "live", "ok", "exit_code", "stable_revision", "canary_revision", "counts", "inputs", "checks",
        "addresses", "evidence", "state",
    }  # fmt: skip
    assert document["schema"] == "cutover.preflight.v1"
    assert (document["live"], document["ok"], document["exit_code"]) == (True, True, 0)
    assert document["counts"] == {"ok": len(HEALTHY), "warn": 0, "fail": 0, "skip": 0}
    assert all(row.keys() == {"input", "value", "source"} for row in document["inputs"])
    assert all(row.keys() == {"check_id", "status", "detail", "endpoint"} for row in document["checks"])
    assert document["addresses"][0].keys() == {
        "input", "url", "reached", "remote", "proxy", "tls_version", "certificate_names", "certificate_ends", "clock_ahead_seconds",
    }  # fmt: skip
    assert document["evidence"] == {"header": True, "tag": True, "gives_tag": False, "closed": []}
    state = document["state"]
    assert state["traffic"] == {
        "current": {STABLE: 100},
        "planned": [
            {STABLE: 95, CANARY: 5},
            {STABLE: 75, CANARY: 25},
            {STABLE: 50, CANARY: 50},
            {CANARY: 100},
            {STABLE: 100},
        ],
        "restored": {STABLE: 100},
    }
    assert state["tags"] == {"current": {"canary": CANARY}, "planned": [], "restored": {"canary": CANARY}}
    assert state["overrides"]["global"] == {"current": None, "planned": ["rust_shell"], "restored": None}
    assert len(state["overrides"]) == 5


async def test_no_token_is_shown(tmp_path: Path) -> None:
    for faults in ((), (FAULTS["control-401"], FAULTS["cloud-run-401"])):
        report = await look(EmbeddedTrain(live_config(tmp_path), faults=faults))
        shown = "\n".join(as_lines(report)) + as_json(report).decode()
        assert not any(token in shown for token in TOKENS.values())


async def test_the_states_show_a_tag_that_the_drill_gives_and_latest_that_comes_back(tmp_path: Path) -> None:
    trial = EmbeddedTrain(
        live_config(tmp_path, canary_steps=(100,)), layout_changes={"latest": True, "tag_urls": {}}
    )
    lines = "\n".join(as_lines(await look(trial)))
    assert f"  traffic now       LATEST 100 %\n  traffic planned   {CANARY} 100 %\n" in lines
    assert f"  traffic planned   {STABLE} 100 %\n  traffic restored  LATEST 100 %\n" in lines
    assert f"  tags: now none; planned cutover-canary={CANARY} -> none; restored none" in lines


async def test_a_promotion_is_planned_after_the_rollback(tmp_path: Path) -> None:
    report = await look(EmbeddedTrain(live_config(tmp_path, canary_steps=(5,), promote=True)))
    traffic = msgspec.json.decode(as_json(report))["state"]["traffic"]
    assert traffic["planned"] == [{STABLE: 95, CANARY: 5}, {STABLE: 100}, {CANARY: 100}]
    assert traffic["restored"] == {STABLE: 100}


async def test_a_flip_that_only_verifies_plans_no_override_and_tries_no_permission(tmp_path: Path) -> None:
    report = await look(EmbeddedTrain(live_config(tmp_path, apply_route_flip=False)))
    assert statuses(report) == {**HEALTHY, "permission-routes": "skip"}
    lines = list(as_lines(report))
    assert "  override global: rust_shell, not changed by the train" in lines


async def test_a_clock_that_is_wrong_is_a_warning_and_stops_no_train(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path), faults=(VARIANTS["clock-ahead"],))
    report = await look(trial)
    assert statuses(report) == {**HEALTHY, "clock": "warn"}
    assert "s behind that of BASE_URL, " in detail(report, "clock")
    assert "set it, for instance with timedatectl set-ntp true" in detail(report, "clock")
    assert report.exit_code == 0


async def test_a_train_makes_the_same_checks_and_a_warning_stops_no_train(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path, canary_steps=(100,)), faults=(VARIANTS["clock-ahead"],))
    summary = await trial.run()
    assert summary.passed
    steps = [summary.step(step_id) for step_id in (step_ids.PREFLIGHT, step_ids.ERROR_BUDGET)]
    checks = {check.check_id: check for step in steps if step is not None for check in step.checks}
    of_machine = {"output", "lock", "earlier-runs"}
    assert checks.keys() == HEALTHY.keys() - of_machine
    assert (checks["clock"].status, checks["clock"].warns) == (StepStatus.PASS, True)
    document = msgspec.json.decode((tmp_path / "run" / "preflight" / "summary.json").read_bytes())
    (row,) = (row for row in document["checks"] if row["check_id"] == "clock")
    assert (row["status"], row["warns"]) == ("pass", True)


@pytest.mark.parametrize(
    ("variant", "check_id", "words"),
    [
        ("validate-unknown", "permission-traffic", "could not be tried: the API does not take validateOnly"),
        ("broken-revision", "traffic", "; a train may start; to see it: gcloud run services describe "),
        ("session-unknown", "token-auth", "how long AUTH_TOKEN lives is not known"),
    ],
)
async def test_what_could_not_be_tried_is_a_warning_with_a_remedy(
    variant: str, check_id: str, words: str, tmp_path: Path
) -> None:
    changes = {"layout_changes": {"tells_sessions": False}} if variant == "session-unknown" else {}
    faults = (VARIANTS[variant],) if variant in VARIANTS else ()
    report = await look(EmbeddedTrain(live_config(tmp_path), faults=faults, **changes))
    assert statuses(report)[check_id] == "warn"
    assert words in detail(report, check_id)
    assert report.exit_code == 0


async def test_an_accepted_blind_drill_is_a_warning(tmp_path: Path) -> None:
    trial = EmbeddedTrain(
        live_config(tmp_path, accept_blind_drill=True), faults=(FAULTS["no-header-no-tag"],)
    )
    report = await look(trial)
    assert statuses(report) == {**HEALTHY, "canary-evidence": "warn"}
    assert "the service's ingress is INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" in detail(report, "ingress")


async def test_a_folder_that_cannot_be_made_fails_and_the_rest_is_asked_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = live_config(tmp_path, needs=ALL_NEEDS - {"output_dir"}, output_dir=tmp_path / "file" / "run")
    report = await look(EmbeddedTrain(config))
    assert statuses(report) == {**HEALTHY, "output": "fail"}
    assert detail(report, "output").startswith(f"OUTPUT_DIR cannot be written: {tmp_path / 'file' / 'run'} (")
    assert detail(report, "output").endswith("; set OUTPUT_DIR to a folder that can be made and written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_without_permission_fails(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    config = live_config(tmp_path, needs=ALL_NEEDS - {"output_dir"}, output_dir=tmp_path / "closed" / "run")
    assert statuses(await look(EmbeddedTrain(config)))["output"] == "fail"


async def test_a_live_train_is_named_and_not_disturbed(tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path))
    with live(trial.config).lock().held() as lock:
        lock.sign(tmp_path / "other-run")
        report = await look(trial)
        assert statuses(report) == {**HEALTHY, "lock": "fail"}
        said = detail(report, "lock")
        assert said.startswith(f"another train is live: pid {os.getpid()} on ")
        assert said.endswith("; wait for its end")
        lock.close()
    assert statuses(await look(trial)) == HEALTHY


async def test_a_killed_run_is_named_with_its_recovery(tmp_path: Path) -> None:
    async with scene(tmp_path) as killed:
        await killed.move_traffic()
        killed.kill()
        again = attrs.evolve(killed.config, output_dir=tmp_path / "next", needs=ALL_NEEDS - {"output_dir"})
        before = files_below(tmp_path)
        report = await preflight_production(attrs.evolve(killed.production, config=again))
        found = statuses(report)
        assert (found["lock"], found["earlier-runs"], found["traffic"]) == ("fail", "warn", "fail")
        for check_id in ("lock", "earlier-runs"):
            assert f"cutover recover {killed.folder}" in detail(report, check_id)
        assert files_below(tmp_path) == before
        assert (await killed.recover()).closed
        report = await preflight_production(attrs.evolve(killed.production, config=again))
        assert statuses(report) == HEALTHY


async def test_the_state_in_a_bucket_is_looked_at_and_not_written(tmp_path: Path) -> None:
    state = StateScene.of(tmp_path)
    config = state.config("next", needs=ALL_NEEDS - {"output_dir"})
    storage = state.simulation.storage

    async def found() -> PreflightReport:
        return await preflight_production(state.production(config))

    report = await found()
    assert statuses(report) == {**HEALTHY, "address-state-api-url": "ok", "state": "ok"}
    assert detail(report, "state") == f"no train holds the lock in {STATE_URL}, and the token may write there"
    assert not storage.objects

    storage.denied = frozenset({"storage.objects.create"})
    report = await found()
    assert statuses(report)["state"] == "fail"
    assert "storage.objects.create is missing; grant roles/storage.objectUser" in detail(report, "state")
    storage.denied = frozenset()

    async with state.production(config).state("other-run") as other:
        assert other is not None
        await other.begin()
        report = await found()
        assert statuses(report)["state"] == "fail"
        assert f"pid {os.getpid()} on " in detail(report, "state")
        assert f"cutover recover {STATE_URL}/other-run" in detail(report, "state")
        await other.lock.release()

    state.before = lambda label: httpx.ConnectError("injected") if "state-api" in label else None
    report = await found()
    assert (statuses(report)["address-state-api-url"], statuses(report)["state"]) == ("fail", "skip")
    assert report.exit_code == 3
    writes = {Operation.OBJECT_WRITE, Operation.OBJECT_DELETE}
    asked = [entry.operation for entry in state.simulation.requests if entry.operation in writes]
    # Those of the other run.
    assert asked == [Operation.OBJECT_WRITE, Operation.OBJECT_DELETE]


async def test_a_look_at_the_lock_makes_no_file(tmp_path: Path) -> None:
    lock = ServiceLock.of("project", "region", "service")
    assert lock.obstacle() == ""
    assert not lock.path.exists()
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    lock.path.write_bytes(b"{")
    assert "the lock is damaged" in lock.obstacle()
    lock.path.unlink()
    lock.path.symlink_to(tmp_path / "elsewhere")
    assert "cannot be read" in lock.obstacle()


async def test_a_rehearsal_asks_nobody_and_says_so(tmp_path: Path) -> None:
    config = live_config(tmp_path, dry_run=True)
    report = await preflight_cutover(config)
    assert statuses(report) == {**HEALTHY, "lock": "skip", "earlier-runs": "skip"}
    first, *_, last = as_lines(report)
    assert first.endswith(": a rehearsal on an embedded production; production was not asked")
    assert last.endswith("the rehearsal shows nothing about production: for that, do not set DRY_RUN=1")
    document: dict[str, object] = msgspec.json.decode(as_json(report))
    assert document["live"] is False


def test_every_preflight_fault_is_tried() -> None:
    assert len(STOPS_IN_PREFLIGHT) > 15
    assert all(isinstance(FAULTS[name], Fault) for name in STOPS_IN_PREFLIGHT)
