"""gcloud as a traffic backend: its reads and writes, and the outcomes that a command's exit code does not prove."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from cutover.errors import NoAnswerError, PeerError, RefusedError, UnusableReplyError
from cutover.http.secrets import Secrets
from cutover.http.tokens import Grant, Token
from cutover.model.traffic_state import TrafficState, TrafficTarget, split
from cutover.model.train_events import CommandStarted
from cutover.production.on_refusal import OnRefusal
from cutover.production.traffic.gcloud import Gcloud, Patience
from cutover.production.traffic.mover import Shift, TrafficMover
from cutover.production.traffic.processes import identity, members
from cutover.record.journal import Journal
from tests.support.embedded_trains import CANARY, STABLE
from tests.support.served_production import ServedProduction, fake_gcloud, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATIENT = Patience(request=5, grace=0.3)
HASTY = attrs.evolve(PATIENT, read=2.0, write=2.0)
"""Short limits for commands that hang. A quick command must end within them on a busy machine too."""
TOKENS = ("marked-auth-token", "marked-control-token", "marked-cloud-run-token", "marked-legacy-token")


@attrs.frozen
class FaultyGcloud:
    """A served production, a fake gcloud with the chosen fault, and the file of its calls."""

    served: ServedProduction
    calls_file: Path

    def gcloud(self, patience: Patience = PATIENT) -> Gcloud:
        return self.served.gcloud(patience)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The rows that the fake gcloud wrote."""
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def commands(self) -> list[str]:
        """The names of the commands that ran, in order."""
        return [row["command"] for row in self.calls if "command" in row]

    async def until(self, key: str) -> int:
        """Wait until a call has this key; return its first value."""
        while not (found := [row[key] for row in self.calls if key in row]):  # noqa: ASYNC110  it is another process
            await anyio.sleep(0.02)
        return int(found[0])


@contextmanager
def faulty_gcloud(directory: Path, mode: str = "", **layout: object) -> Iterator[FaultyGcloud]:
    with fake_gcloud(directory, mode) as calls, served(directory, layout=layout) as found:
        yield FaultyGcloud(found, calls)


class TestReading:
    @pytest.mark.parametrize(
        "layout",
        [
            {},
            {"latest": True},
            {"canary_ready": False},
            {"broken_revision": True},
            {"broken_revision": True, "latest": True},
            {"ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY"},
            {"ingress": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER", "default_uri_disabled": True},
        ],
    )
    async def test_gcloud_and_the_admin_api_read_the_same_state(
        self, layout: dict[str, Any], tmp_path: Path
    ) -> None:
        with faulty_gcloud(tmp_path, **layout) as found:
            config = attrs.evolve(
                found.served.config, traffic_backend="cloud-run-api", output_dir=tmp_path / "o"
            )
            async with attrs.evolve(found.served, config=config).live().services() as services:
                by_api = await services.traffic.read(label="read")
                by_gcloud = await found.gcloud().read(label="read")
                assert attrs.evolve(by_gcloud, etag=None) == attrs.evolve(by_api, etag=None)
                broken = layout.get("broken_revision", False)
                assert by_api.ingress == layout.get("ingress", "INGRESS_TRAFFIC_ALL")
                assert by_api.default_uri_disabled is layout.get("default_uri_disabled", False)
                assert by_gcloud.etag == by_gcloud.generation == ("8" if broken else "7")
                assert (by_gcloud.settled, by_gcloud.succeeded, by_gcloud.unready_reason()) == (
                    True,
                    True,
                    "",
                )
                assert ("00008-other does not start" in by_gcloud.warning()) is broken
                for name in (STABLE, CANARY, "chat-00099-none"):
                    one = await found.gcloud().revision(name, label="revision")
                    other = await services.traffic.revision(name, label="revision")
                    assert (one.name, one.exists, one.ready) == (other.name, other.exists, other.ready)

    @pytest.mark.parametrize("latest", [False, True])
    async def test_a_deployment_that_is_under_way_unsettles_a_share_of_latest_alone(
        self, latest: bool, tmp_path: Path
    ) -> None:
        with faulty_gcloud(tmp_path, latest=latest) as found:
            found.served.production.deploy(ready=False, seconds=240.0)
            state = await found.gcloud().read(label="read")
            assert (state.settled, state.succeeded, state.deploying) == (not latest, True, True)
            assert "somebody else is deploying" in state.unready_reason()
            await _read_as_admin_api(found, state, tmp_path)

    async def test_routes_decide_and_a_document_without_them_goes_by_ready(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            program = tmp_path / "bin" / "gcloud"
            for conditions, settled, succeeded, unready in (
                ({"Ready": "False", "RoutesReady": "True"}, True, True, "no Ready"),
                ({"Ready": "False", "RoutesReady": "False"}, True, False, "no Ready"),
                ({"Ready": "Unknown", "RoutesReady": "Unknown"}, False, False, "no Ready"),
                ({"Ready": "True"}, True, True, ""),
                ({"Ready": "False"}, True, False, "no Ready"),
                ({"Ready": "Unknown"}, False, False, "no Ready"),
                ({}, False, False, "no condition Ready"),
            ):
                rows = [
                    {"type": kind, "status": status, "message": f"no {kind}" if status != "True" else ""}
                    for kind, status in conditions.items()
                ]
                traffic = [{"revisionName": STABLE, "percent": 100}]
                document = {
                    "kind": "Service",
                    "metadata": {"generation": 7},
                    "spec": {"traffic": traffic},
                    "status": {"observedGeneration": 7, "traffic": traffic, "conditions": rows},
                }
                program.write_text(f"#!/bin/sh\necho '{json.dumps(document)}'\n")
                state = await found.gcloud().read(label="read")
                assert (state.settled, state.succeeded, state.unready) == (settled, succeeded, unready)

    @pytest.mark.parametrize(
        ("mode", "error", "message"),
        [
            ("garbage", UnusableReplyError, "JSON was expected, not"),
            ("html", UnusableReplyError, "Sign in"),
            ("huge", UnusableReplyError, "its output is larger than 16777216 bytes"),
            ("null", UnusableReplyError, "is not a service"),
            ("fails", NoAnswerError, r"exit code 1, ERROR: .* no\\x1b\[2J such \\u202ething"),
            ("hang", NoAnswerError, "did not end within 2 s, and was ended"),
            ("killed", NoAnswerError, "exit code -9, no output"),
        ],
    )
    async def test_an_unusable_output_raises_an_error_that_names_the_command(
        self, mode: str, error: type[PeerError], message: str, tmp_path: Path
    ) -> None:
        with faulty_gcloud(tmp_path, f"describe:{mode}") as found:
            with pytest.raises(error, match=message) as caught:
                await found.gcloud(HASTY if mode == "hang" else PATIENT).read(label="drill.status-pre")
            assert str(caught.value).startswith("gcloud run services describe ")
            assert str(caught.value).isprintable()
            assert not any(list(members(row["pid"])) for row in found.calls if "pid" in row)

    @pytest.mark.parametrize("mode", ["fails", "garbage", "hang"])
    async def test_a_read_that_fails_once_is_repeated(self, mode: str, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path, f"describe:{mode}:1") as found:
            gcloud = found.gcloud(HASTY if mode == "hang" else PATIENT)
            assert (await gcloud.read(label="read")).served() == {STABLE: 100}
            assert found.commands == ["describe"] * 2

    async def test_a_service_without_generation_or_traffic_raises_an_error(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            gcloud = found.gcloud()
            for output in ('{"kind":"Service"}', '{"kind":"Service","metadata":{"generation":7}}', "[]"):
                program = tmp_path / "bin" / "gcloud"
                program.write_text(f"#!/bin/sh\necho '{output}'\n")
                with pytest.raises(UnusableReplyError):
                    await gcloud.read(label="read")

    async def test_the_error_without_a_gcloud_names_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with fake_gcloud(tmp_path / "there"), served(tmp_path) as found:
            # The program was there when the configuration was read, and is gone now.
            monkeypatch.setenv("PATH", str(tmp_path))
            with pytest.raises(
                NoAnswerError, match=rf"there is no program gcloud on the PATH \({tmp_path}\)"
            ):
                await found.gcloud().read(label="read")

    @pytest.mark.parametrize("mode", [None, 0o644])
    async def test_a_write_without_a_gcloud_certainly_sent_nothing(
        self, mode: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with fake_gcloud(tmp_path / "there"), served(tmp_path) as found:
            monkeypatch.setenv("PATH", str(tmp_path))
            if mode is not None:
                (tmp_path / "gcloud").write_text("#!/bin/sh\n")
                (tmp_path / "gcloud").chmod(mode)
            targets = (TrafficTarget(revision=STABLE, percent=100),)
            with pytest.raises(RefusedError, match=r"nothing was sent, .* add its folder to PATH") as caught:
                await found.gcloud().write(targets, etag=None, label="write")
            assert (caught.value.status, caught.value.for_certain) == (0, True)

    async def test_a_gcloud_that_fails_like_a_missing_one_may_have_written(self, tmp_path: Path) -> None:
        """gcloud is a shell script, which ends with 127 if its own interpreter is missing."""
        with faulty_gcloud(tmp_path) as found:
            (tmp_path / "bin" / "gcloud").write_text("#!/bin/sh\nexit 127\n")
            targets = (TrafficTarget(revision=STABLE, percent=100),)
            with pytest.raises(NoAnswerError, match="exit code 127"):
                await found.gcloud().write(targets, etag=None, label="write")


class TestWriting:
    @pytest.mark.parametrize(
        "targets",
        [
            (TrafficTarget(revision=STABLE, percent=100),),
            (TrafficTarget(revision=None, percent=100), TrafficTarget(revision=None, tag="next")),
            (
                TrafficTarget(revision=STABLE, percent=60, tag="blue"),
                TrafficTarget(revision=STABLE, percent=20),
                TrafficTarget(revision=None, percent=15),
                TrafficTarget(revision=CANARY, percent=5, tag="canary"),
                TrafficTarget(revision=CANARY, tag="preview"),
            ),
        ],
    )
    async def test_shares_tags_and_latest_are_exactly_as_asked_for(
        self, targets: tuple[TrafficTarget, ...], tmp_path: Path
    ) -> None:
        """Each write starts from a split with other shares, LATEST and other tags, like the restoration of a captured split."""
        with faulty_gcloud(tmp_path, latest=True) as found:
            gcloud = found.gcloud()
            captured = await gcloud.read(label="pre")
            for rows in (targets, captured.targets, targets):
                state = await gcloud.read(label="pre")
                await gcloud.write(rows, etag=state.etag, label="write")
                after = await gcloud.read(label="post")
                assert after.asks_for(rows)
                assert after.serves(rows)

    async def test_another_generation_stops_the_write(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            with pytest.raises(RefusedError, match="had generation 6, and now has 7") as caught:
                await found.gcloud().write(
                    (TrafficTarget(revision=CANARY, percent=100),), etag="6", label="w"
                )
            assert caught.value.status == 409
            assert found.commands == ["describe"]

    async def test_the_permission_is_not_tried_and_no_command_runs(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            gcloud = found.gcloud()
            state = await gcloud.read(label="read")
            assert await gcloud.may_write(state, label="p") == "gcloud has no dry run of an update"
            assert found.commands == ["describe"]

    async def test_a_generation_that_cannot_be_read_stops_the_write(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path, "describe:fails") as found:
            with pytest.raises(RefusedError, match="nothing was written: "):
                await found.gcloud().write(
                    (TrafficTarget(revision=CANARY, percent=100),), etag="7", label="w"
                )
            assert set(found.commands) == {"describe"}

    async def test_a_write_without_an_etag_compares_no_generation(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path, "describe:fails") as found:
            await found.gcloud().write((TrafficTarget(revision=CANARY, percent=100),), etag=None, label="w")
            assert found.commands == ["update-traffic"]
            assert found.served.production.traffic == {CANARY: 100}

    @pytest.mark.parametrize(
        "target",
        [
            TrafficTarget(revision="a=1,b", percent=100),
            TrafficTarget(revision="--async", percent=100),
            TrafficTarget(revision=STABLE, percent=100, tag="^;^x"),
        ],
    )
    async def test_a_malformed_name_is_not_passed_to_gcloud(
        self, target: TrafficTarget, tmp_path: Path
    ) -> None:
        with faulty_gcloud(tmp_path) as found:
            with pytest.raises(RefusedError, match="not a name that gcloud accepts"):
                await found.gcloud().write((target,), etag="7", label="w")
            assert found.commands == []

    @pytest.mark.parametrize("mode", ["fails", "fails-after", "hang", "hang-after", "killed"])
    async def test_a_failed_command_may_have_taken_effect(self, mode: str, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path, f"update-traffic:{mode}") as found:
            with pytest.raises(NoAnswerError, match="gcloud run services update-traffic"):
                await found.gcloud(HASTY if "hang" in mode else PATIENT).write(
                    (TrafficTarget(revision=CANARY, percent=100),), etag="7", label="w"
                )
            after = CANARY if mode.endswith("-after") else STABLE
            assert found.served.production.traffic == {after: 100}
            assert not any(list(members(row["pid"])) for row in found.calls if "pid" in row)

    async def test_a_cancellation_does_not_interrupt_an_update(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            gcloud = found.gcloud()
            seen: list[object] = []
            with anyio.CancelScope() as scope:

                def on_start(command: CommandStarted) -> None:
                    seen.append(command)
                    scope.cancel()

                targets = (TrafficTarget(revision=CANARY, percent=100),)
                await gcloud.write(targets, etag="7", label="w", on_start=on_start)
                seen.append("answered")
                await anyio.sleep(1)
            assert len(seen) == 2
            assert found.served.production.traffic == {CANARY: 100}

    async def test_an_observer_that_raises_stops_the_update_before_it_runs(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:

            def on_start(command: CommandStarted) -> None:
                assert identity(command.pid) == command.identity
                raise RefusedError("the disk is full", status=0)

            with pytest.raises(RefusedError, match="the disk is full"):
                await found.gcloud().write(
                    (TrafficTarget(revision=CANARY, percent=100),), etag="7", label="w", on_start=on_start
                )
            assert found.commands == ["describe"]


class TestMoving:
    """Changes of the split by the mover and gcloud, from the intent to the proof."""

    async def shift(self, found: FaultyGcloud, patience: Patience = PATIENT) -> Shift:
        gcloud, journal = found.gcloud(patience), Journal()
        captured = await gcloud.read(label="pre")
        mover = TrafficMover(
            backend=gcloud, journal=journal, clock=found.served.clock, captured=captured, step_id="drill"
        )
        targets = split(captured, {STABLE: 95, CANARY: 5})
        return await mover.shift(targets, current=captured, label="drill", on_refusal=OnRefusal.STOP)

    @pytest.mark.parametrize("mode", ["fails-after", "hang-after", "grandchild"])
    async def test_an_update_that_took_effect_is_proven_even_if_the_command_failed(
        self, mode: str, tmp_path: Path
    ) -> None:
        with faulty_gcloud(tmp_path, f"update-traffic:{mode}") as found:
            shift = await self.shift(found, HASTY if mode == "hang-after" else PATIENT)
            assert shift.proven, shift.detail

    @pytest.mark.parametrize("mode", ["fails", "killed"])
    async def test_an_update_that_fails_once_is_written_again(self, mode: str, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path, f"update-traffic:{mode}:1") as found:
            shift = await self.shift(found)
            assert shift.proven, shift.detail
            assert found.commands.count("update-traffic") == 2

    @pytest.mark.parametrize("mode", ["fails", "ignored"])
    async def test_an_update_without_effect_is_not_proven_and_the_detail_has_the_reason(
        self, mode: str, tmp_path: Path
    ) -> None:
        with faulty_gcloud(tmp_path, f"update-traffic:{mode}") as found:
            shift = await self.shift(found)
            assert not shift.proven
            assert f"was asked for, and {STABLE} 100 % is served" in shift.detail
            assert ("exit code 1, ERROR" in shift.detail) is (mode == "fails")

    async def test_a_full_disk_stops_the_update_before_it_runs(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            journal = Journal()

            def break_it(event: object) -> None:
                if isinstance(event, CommandStarted):
                    journal.broken = "the disk is full"

            journal.observers.append(break_it)
            gcloud = found.gcloud()
            captured = await gcloud.read(label="pre")
            mover = TrafficMover(
                backend=gcloud, journal=journal, clock=found.served.clock, captured=captured, step_id="drill"
            )
            shift = await mover.shift(
                split(captured, {CANARY: 100}), current=captured, label="drill", on_refusal=OnRefusal.STOP
            )
            assert (shift.proven, shift.detail) == (False, "the disk is full")
            assert "update-traffic" not in found.commands


class TestSecrets:
    async def test_no_argument_has_a_token_and_the_environment_has_only_gclouds_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for token in TOKENS:
            monkeypatch.setenv(token.upper().replace("-", "_"), f"Bearer {token}")
        with faulty_gcloud(tmp_path) as found:
            gcloud = found.gcloud()
            state = await gcloud.read(label="read")
            await gcloud.revision(STABLE, label="revision")
            await gcloud.write((TrafficTarget(revision=CANARY, percent=100),), etag=state.etag, label="write")
            for call in found.calls:
                assert not any(token in " ".join(call["argv"]) for token in TOKENS)
                with_tokens = [row for row in call["environment"] if any(token in row for token in TOKENS)]
                assert with_tokens == ["CLOUDSDK_AUTH_ACCESS_TOKEN=marked-cloud-run-token"]
            assert not any(token in repr(gcloud) for token in TOKENS)

    async def test_a_short_secret_takes_no_variable_away_that_only_contains_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = {"HOME": "/home/operator", "XDG_CONFIG_HOME": "/etc/abcd"}
        dropped = {"MINE": "abcd", "CURL_OPTIONS": "-H 'Bearer operator'"}
        for name, value in (kept | dropped).items():
            monkeypatch.setenv(name, value)
        with faulty_gcloud(tmp_path) as found:
            gcloud = attrs.evolve(found.gcloud(), secrets=Secrets(("abcd", "bin", "operator", "")))
            await gcloud.read(label="read")
            environment = dict(row.split("=", 1) for row in found.calls[0]["environment"])
        assert environment.items() >= kept.items()
        assert not environment.keys() & dropped.keys()
        assert "/bin" in environment["PATH"]

    async def test_tokens_in_the_output_are_masked(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            program = tmp_path / "bin" / "gcloud"
            program.write_text('#!/bin/sh\necho "ERROR: $CLOUDSDK_AUTH_ACCESS_TOKEN" >&2\nexit 1\n')
            with pytest.raises(NoAnswerError, match=r"ERROR: \*{22}") as caught:
                await found.gcloud().read(label="read")
            assert not any(token in str(caught.value) for token in TOKENS)
            program.write_text('#!/bin/sh\necho "$CLOUDSDK_AUTH_ACCESS_TOKEN"\n')
            with pytest.raises(UnusableReplyError, match=r"not '\*{22}"):
                await found.gcloud().read(label="read")

    async def test_a_refused_token_is_read_again_and_the_command_runs_once_more(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            grants = [Grant(token="marked-old"), Grant(token="marked-cloud-run-token")]
            refusals: list[str] = []

            async def source(*, refused: str = "") -> Grant:
                refusals.append(refused)
                return grants[len(refusals) - 1]

            gcloud = attrs.evolve(found.gcloud(), token=Token(source=source, secrets=found.gcloud().secrets))
            before = len(found.calls)
            assert (await gcloud.read(label="read")).served() == {STABLE: 100}
            assert (len(found.calls) - before, refusals) == (2, ["", "marked-old"])

    async def test_gcloud_without_a_token_uses_its_own_account(self, tmp_path: Path) -> None:
        with faulty_gcloud(tmp_path) as found:
            gcloud = attrs.evolve(found.gcloud(), token="")
            with pytest.raises(NoAnswerError, match="401"):
                await gcloud.read(label="read")
            assert not any("CLOUDSDK_AUTH" in row for call in found.calls for row in call["environment"])


async def _read_as_admin_api(found: FaultyGcloud, state: TrafficState, directory: Path) -> None:
    """Check that the Admin API shows the same state as gcloud."""
    config = attrs.evolve(
        found.served.config, traffic_backend="cloud-run-api", output_dir=directory / "other"
    )
    async with attrs.evolve(found.served, config=config).live().services() as services:
        by_api = await services.traffic.read(label="read")
    # The two versions name a condition that is under way differently.
    assert attrs.evolve(by_api, etag=None, unready="") == attrs.evolve(state, etag=None, unready="")


async def test_a_cancelled_read_leaves_no_process(tmp_path: Path) -> None:
    with faulty_gcloud(tmp_path, "describe:hang") as found:
        async with anyio.create_task_group() as group:
            group.start_soon(_read, found.gcloud())
            pid = await found.until("hangs")
            assert list(members(os.getpgid(pid))) == [pid]
            group.cancel_scope.cancel()
        assert not list(members(pid))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _read(gcloud: Gcloud) -> None:
    await gcloud.read(label="read")
