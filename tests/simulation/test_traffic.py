"""The simulated Cloud Run Admin API v2, and the front door that serves its split."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cutover.simulation import SimulatedProduction
from cutover.simulation.exchange import Operation
from cutover.simulation.front_door import FrontDoor
from tests.support.asgi_caller import (
    CREDENTIALS,
    FRONT,
    LAYOUT,
    SERVICE,
    HandClock,
    ask,
    chat,
    cloud_run,
    production,
    share,
    update,
)

LATEST = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}
TAGS = {"canary": "https://canary---svc.example", "blue": "https://blue---svc.example"}


async def pages(peer: SimulatedProduction, count: int) -> list[str | None]:
    """Return the revision that answered each of ``count`` requests."""
    return [(await ask(peer, "GET", f"{FRONT}/feed")).headers.get("x-cutover-revision") for _ in range(count)]


@pytest.mark.anyio
class TestAdminApi:
    async def test_the_json_of_the_service_leaves_out_default_values(self) -> None:
        body = (await cloud_run(production())).json()
        assert (body["generation"], body["observedGeneration"]) == ("7", "7")
        assert "reconciling" not in body
        assert body["traffic"] == body["trafficStatuses"] == [share("svc-1", 100)]
        assert body["latestReadyRevision"] == "projects/p/locations/r/services/svc/revisions/svc-2"
        assert body["terminalCondition"] == {"type": "Ready", "state": "CONDITION_SUCCEEDED"}

    @pytest.mark.parametrize("token", [None, CREDENTIALS.auth_token])
    async def test_the_api_requires_an_access_token(self, token: str | None) -> None:
        answer = await ask(production(), "GET", SERVICE, token=token)
        assert (answer.status, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")

    async def test_revisions_exist_and_are_ready_or_not(self) -> None:
        peer = production(layout=evolve(LAYOUT, canary_ready=False))
        assert (await cloud_run(peer, "/revisions/svc-1")).json()["conditions"][0][
            "state"
        ] == "CONDITION_SUCCEEDED"
        assert (await cloud_run(peer, "/revisions/svc-2")).json()["conditions"][0][
            "state"
        ] == "CONDITION_FAILED"
        missing = await cloud_run(peer, "/revisions/svc-3")
        assert (missing.status, missing.json()["error"]["status"]) == (404, "NOT_FOUND")

    async def test_an_update_replaces_all_targets_and_is_done_at_once_without_settle_time(self) -> None:
        peer = production(layout=evolve(LAYOUT, tag_urls=TAGS))
        etag = (await cloud_run(peer)).json()["etag"]
        operation = (await update(peer, share("svc-1", 95), share("svc-2", 5), etag=etag)).json()
        assert operation["done"] is True
        assert operation["response"]["generation"] == "8"
        assert peer.traffic == {"svc-1": 95, "svc-2": 5}
        assert peer.tags == {}
        assert (await cloud_run(peer)).json()["etag"] != etag

    async def test_tags_that_are_sent_again_are_kept_with_their_urls(self) -> None:
        peer = production(layout=evolve(LAYOUT, tag_urls=TAGS))
        tag = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": "svc-2", "tag": "canary"}
        await update(peer, share("svc-1", 100), tag)
        assert (await cloud_run(peer)).json()["trafficStatuses"] == [
            share("svc-1", 100),
            {**tag, "uri": TAGS["canary"]},
        ]
        assert (await chat(peer, base=TAGS["canary"])).headers["x-cutover-revision"] == "svc-2"
        assert (await ask(peer, "GET", f"{TAGS['blue']}/feed")).status == 404

    async def test_a_stale_etag_is_aborted_and_changes_nothing(self) -> None:
        peer = production()
        etag = (await cloud_run(peer)).json()["etag"]
        await update(peer, share("svc-2", 100), etag=etag)
        stale = await update(peer, share("svc-1", 100), etag=etag)
        assert (stale.status, stale.json()["error"]["status"]) == (409, "ABORTED")
        assert peer.traffic == {"svc-2": 100}

    @pytest.mark.parametrize(
        "targets",
        [
            [],
            [share("svc-1", 99)],
            [share("svc-1", 60), share("svc-2", 60)],
            [share("svc-9", 100)],
            [share("svc-1", 101), share("svc-2", -1)],
            [share("svc-1", 100, tag="Not A Tag")],
            [share("svc-1", 50, tag="a"), share("svc-2", 50, tag="a")],
            [{"revision": "svc-1", "percent": 100}],
            [{"type": LATEST["type"], "revision": "svc-1", "percent": 100}],
            ["svc-1=100"],
        ],
    )
    async def test_an_invalid_traffic_list_is_an_invalid_argument(
        self, targets: list[dict[str, object]]
    ) -> None:
        peer = production()
        answer = await update(peer, *targets)
        assert (answer.status, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert peer.generation == 7

    async def test_an_update_without_its_mask_is_refused(self) -> None:
        body = {"traffic": [share("svc-1", 100)]}
        answer = await ask(production(), "PATCH", SERVICE, token=CREDENTIALS.cloud_run_token, json=body)
        assert answer.status == 400

    async def test_an_update_that_is_only_validated_is_checked_and_changes_nothing(self) -> None:
        peer = production()
        url, token = f"{SERVICE}?updateMask=traffic&validateOnly=true", CREDENTIALS.cloud_run_token
        etag = (await cloud_run(peer)).json()["etag"]
        good = {"traffic": [share("svc-2", 100)], "etag": etag}
        assert (await ask(peer, "PATCH", url, token=token, json=good)).json()["done"] is True
        for body, used, status in (
            (good, None, 401),
            ({**good, "etag": "stale"}, token, 409),
            ({**good, "traffic": [share("svc-9", 100)]}, token, 400),
        ):
            assert (await ask(peer, "PATCH", url, token=used, json=body)).status == status
        assert (peer.generation, peer.traffic) == (7, {"svc-1": 100})
        assert [entry.operation for entry in peer.requests[1:]] == [Operation.TRAFFIC_VALIDATE] * 4
        await update(peer, share("svc-2", 100), etag=etag)
        assert peer.requests[-1].operation is Operation.TRAFFIC_UPDATE

    async def test_a_revision_that_does_not_start_leaves_the_routes_ready(self) -> None:
        peer = production(layout=evolve(LAYOUT, broken_revision=True))
        body = (await cloud_run(peer)).json()
        assert (body["generation"], body["observedGeneration"]) == ("8", "7")
        assert "reconciling" not in body
        assert body["latestCreatedRevision"].endswith("/svc-00008-other")
        assert body["latestReadyRevision"].endswith("/svc-2")
        assert body["terminalCondition"]["state"] == "CONDITION_FAILED"
        assert "svc-00008-other" in body["terminalCondition"]["message"]
        states = {row["type"]: row["state"] for row in body["conditions"]}
        assert states == {"RoutesReady": "CONDITION_SUCCEEDED", "ConfigurationsReady": "CONDITION_FAILED"}
        await update(peer, share("svc-2", 100), etag=body["etag"])
        body = (await cloud_run(peer)).json()
        assert body["trafficStatuses"] == [share("svc-2", 100)]
        assert body["terminalCondition"]["state"] == "CONDITION_FAILED"

    @pytest.mark.parametrize("ready", [True, False])
    async def test_a_deployment_takes_time_and_moves_latest_only_if_its_revision_starts(
        self, ready: bool
    ) -> None:
        clock = HandClock()
        peer = production(layout=evolve(LAYOUT, latest=True), clock=clock)
        peer.deploy(ready=ready, seconds=60.0)
        body = (await cloud_run(peer)).json()
        assert body["reconciling"] is True
        states = {row["type"]: row["state"] for row in body["conditions"]}
        assert states == {
            "RoutesReady": "CONDITION_SUCCEEDED",
            "ConfigurationsReady": "CONDITION_RECONCILING",
        }
        assert (await cloud_run(peer, "/revisions/svc-00008-other")).status == 200
        assert peer.traffic == {"svc-1": 100}
        clock.seconds += 60
        body = (await cloud_run(peer)).json()
        assert "reconciling" not in body
        assert (body["terminalCondition"]["state"] == "CONDITION_SUCCEEDED") is ready
        assert (body["observedGeneration"] == "8") is ready
        assert peer.traffic == {"svc-00008-other" if ready else "svc-1": 100}

    async def test_an_update_serves_the_old_split_until_it_settles(self) -> None:
        clock = HandClock()
        peer = production(layout=evolve(LAYOUT, settle_seconds=10.0), clock=clock)
        operation = (await update(peer, share("svc-2", 100))).json()
        assert "done" not in operation
        body = (await cloud_run(peer)).json()
        assert body["reconciling"] is True
        assert (body["generation"], body["observedGeneration"]) == ("8", "7")
        assert body["traffic"] == [share("svc-2", 100)]
        assert body["trafficStatuses"] == [share("svc-1", 100)]
        assert body["terminalCondition"]["state"] == "CONDITION_RECONCILING"
        assert await pages(peer, 2) == ["svc-1", "svc-1"]
        clock.seconds += 10
        assert (await cloud_run(peer)).json()["trafficStatuses"] == [share("svc-2", 100)]
        name = operation["name"].removeprefix("projects/p/locations/r/")
        url = f"https://run.googleapis.com/v2/projects/p/locations/r/{name}"
        assert (await ask(peer, "GET", url, token=CREDENTIALS.cloud_run_token)).json()["done"] is True
        assert await pages(peer, 2) == ["svc-2", "svc-2"]

    async def test_of_two_overlapping_updates_only_the_later_one_settles(self) -> None:
        clock = HandClock()
        peer = production(layout=evolve(LAYOUT, settle_seconds=10.0), clock=clock)
        await update(peer, share("svc-2", 100))
        clock.seconds += 5
        await update(peer, share("svc-1", 50), share("svc-2", 50))
        clock.seconds += 5
        assert (peer.reconciling, peer.traffic) == (True, {"svc-1": 100})
        clock.seconds += 5
        assert (peer.reconciling, peer.traffic) == (False, {"svc-1": 50, "svc-2": 50})

    async def test_latest_stands_for_the_latest_ready_revision(self) -> None:
        peer = production(layout=evolve(LAYOUT, latest=True))
        assert (await cloud_run(peer)).json()["traffic"] == [LATEST]
        assert peer.traffic == {"svc-1": 100}
        assert await pages(peer, 1) == ["svc-1"]
        await update(peer, share("svc-2", 100))
        await update(peer, LATEST)
        assert peer.traffic == {"svc-1": 100}

    async def test_traffic_to_a_revision_that_is_not_ready_settles_as_failed(self) -> None:
        peer = production(layout=evolve(LAYOUT, canary_ready=False))
        assert (await update(peer, share("svc-2", 100))).json()["error"]["code"] == 13
        body = (await cloud_run(peer)).json()
        assert body["terminalCondition"]["state"] == "CONDITION_FAILED"
        assert body["traffic"] == [share("svc-2", 100)]
        assert body["trafficStatuses"] == [share("svc-1", 100)]


@pytest.mark.anyio
class TestFrontDoor:
    @pytest.mark.parametrize("percent", [5, 25, 50, 100])
    async def test_a_share_is_exact_and_evenly_spread(self, percent: int) -> None:
        peer = production()
        targets = [share("svc-1", 100 - percent), share("svc-2", percent)]
        await update(peer, *targets)
        answered = await pages(peer, 200)
        assert Counter(answered)["svc-2"] == 2 * percent
        places = [number for number, revision in enumerate(answered) if revision == "svc-2"]
        assert {after - before for before, after in pairwise(places)} == {100 // percent}

    async def test_services_on_one_host_are_distinguished_by_their_paths(self) -> None:
        base = "http://127.0.0.1:8080"
        layout = evolve(
            LAYOUT,
            front_url=base,
            cloud_run_url=base,
            legacy_url=f"{base}/legacy",
            tag_urls={"canary": f"{base}/tags/canary"},
        )
        peer = production(layout=layout)
        path = "/v2/projects/p/locations/r/services/svc"
        assert (await ask(peer, "GET", base + path, token=CREDENTIALS.cloud_run_token)).status == 200
        assert (await chat(peer, base=base)).headers["x-cutover-revision"] == "svc-1"
        assert (await chat(peer, base=f"{base}/tags/canary")).headers["x-cutover-revision"] == "svc-2"
        assert (await chat(peer, base=f"{base}/legacy", token=CREDENTIALS.legacy_token)).status == 200
        assert [request.site.value for request in peer.requests if request.site] == [
            "Cloud Run API", "front door", "a tagged revision's own URL", "legacy service",
        ]  # fmt: skip

    async def test_the_same_seed_chooses_the_same_instances(self) -> None:
        layout = evolve(LAYOUT, instances=4)
        chosen = []
        for seed in (1, 1, 2):
            peer = production(layout=layout, seed=seed)
            await pages(peer, 30)
            chosen.append([request.instance for request in peer.requests])
        assert chosen[0] == chosen[1] != chosen[2]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_any_split_is_served_exactly_over_one_round(weights: list[int]) -> None:
    door = FrontDoor(size=1, chance=random.Random(0))  # noqa: S311  the choice needs no secrecy
    split = {f"r{number}": weight for number, weight in enumerate(weights)}
    served = Counter(door.choose(split).revision for _ in range(sum(weights)))
    assert served == split


@pytest.mark.anyio
class TestDeployBeforeAnUpdateSettles:
    async def test_the_update_is_served_when_it_settles(self) -> None:
        clock = HandClock()
        peer = production(clock=clock, layout=evolve(LAYOUT, settle_seconds=10.0))
        await update(peer, share("svc-2", 100))
        clock.seconds += 5.0
        peer._deployment.deploy()
        assert (peer.traffic, peer.reconciling) == ({"svc-1": 100}, True)
        clock.seconds += 5.0
        assert (peer.traffic, peer.reconciling) == ({"svc-2": 100}, False)
        assert peer.generation == 9

    async def test_a_later_update_still_replaces_it(self) -> None:
        clock = HandClock()
        peer = production(clock=clock, layout=evolve(LAYOUT, settle_seconds=10.0))
        await update(peer, share("svc-2", 100))
        peer._deployment.deploy()
        clock.seconds += 5.0
        await update(peer, share("svc-1", 50), share("svc-2", 50))
        clock.seconds += 5.0
        assert (peer.traffic, peer.reconciling) == ({"svc-1": 100}, True)
        clock.seconds += 5.0
        assert (peer.traffic, peer.reconciling) == ({"svc-1": 50, "svc-2": 50}, False)

    async def test_without_a_pending_update_a_deployment_settles_at_once(self) -> None:
        peer = production()
        peer._deployment.deploy()
        assert (peer.traffic, peer.reconciling) == ({"svc-1": 100}, False)
