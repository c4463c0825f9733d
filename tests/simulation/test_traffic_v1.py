"""The simulated Cloud Run API v1, which gcloud uses: it shows and changes the same service as the API v2."""

from typing import Any

import pytest
from attrs import evolve

from cutover.simulation import FAULTS, Operation, SimulatedProduction, Site
from cutover.simulation.wire import request_head
from tests.support.asgi_caller import (
    CREDENTIALS,
    LAYOUT,
    Answer,
    HandClock,
    ask,
    cloud_run,
    production,
    scope_of,
    share,
    update,
)

pytestmark = pytest.mark.anyio

API = "https://run.googleapis.com"
NAMESPACE = f"{API}/apis/serving.knative.dev/v1/namespaces/p"
TOKEN = CREDENTIALS.cloud_run_token
TAGS = {"canary": "https://canary---svc.example", "blue": "https://blue---svc.example"}


async def read(peer: SimulatedProduction) -> Any:
    return (await ask(peer, "GET", f"{NAMESPACE}/services/svc", token=TOKEN)).json()


async def replace(peer: SimulatedProduction, service: Any, *rows: Any) -> Answer:
    """Replace the service by itself with different traffic, as gcloud does."""
    body = {**service, "spec": {**service["spec"], "traffic": list(rows)}}
    return await ask(peer, "PUT", f"{NAMESPACE}/services/svc", token=TOKEN, json=body)


async def test_both_versions_show_the_same_service() -> None:
    peer = production(layout=evolve(LAYOUT, tag_urls=TAGS))
    service = await read(peer)
    assert (service["kind"], service["metadata"]["generation"]) == ("Service", 7)
    assert service["status"]["observedGeneration"] == 7
    assert service["spec"]["traffic"] == [
        {"revisionName": "svc-1", "percent": 100},
        {"revisionName": "svc-2", "tag": "canary"},
        {"revisionName": "svc-1", "tag": "blue"},
    ]
    assert [row.get("url") for row in service["status"]["traffic"]] == [None, *TAGS.values()]
    await update(peer, share("svc-1", 50), share("svc-2", 50))
    assert (await read(peer))["status"]["traffic"] == [
        {"revisionName": "svc-1", "percent": 50},
        {"revisionName": "svc-2", "percent": 50},
    ]


async def test_both_versions_show_a_replaced_service() -> None:
    peer = production()
    service = await read(peer)
    tagged = {"revisionName": "svc-2", "tag": "canary"}
    answer = await replace(peer, service, {"latestRevision": True, "percent": 100}, tagged)
    assert answer.json()["metadata"]["generation"] == 8
    assert answer.json()["status"]["traffic"][0] == {
        "latestRevision": True, "revisionName": "svc-2", "percent": 100,
    }  # fmt: skip
    assert (peer.traffic, peer.tags) == ({"svc-2": 100}, {"canary": "svc-2"})
    assert (await cloud_run(peer)).json()["traffic"][0]["type"].endswith("LATEST")


async def test_an_old_resource_version_is_a_conflict() -> None:
    peer = production()
    service = await read(peer)
    await update(peer, share("svc-2", 100))
    answer = await replace(peer, service, {"revisionName": "svc-1", "percent": 100})
    assert (answer.status, answer.json()["error"]["status"]) == (409, "ABORTED")
    del service["metadata"]["resourceVersion"]
    assert (await replace(peer, service, {"revisionName": "svc-1", "percent": 100})).status == 200
    assert peer.traffic == {"svc-1": 100}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ["svc-1=100"],
        [{"revisionName": "svc-1", "percent": 99}],
        [{"revisionName": "svc-9", "percent": 100}],
        [{"revisionName": "svc-1", "latestRevision": True, "percent": 100}],
        [{"percent": 100}],
        [{"revisionName": 7, "percent": 100}],
        [{"revisionName": "svc-1", "percent": 100, "tag": "Not A Tag"}],
    ],
)
async def test_invalid_traffic_is_an_invalid_argument(rows: list[Any]) -> None:
    peer = production()
    answer = await replace(peer, await read(peer), *rows)
    assert (answer.status, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert peer.generation == 7


async def test_a_body_that_is_not_a_service_is_an_invalid_argument() -> None:
    bodies: list[Any] = [[], {"spec": []}, {"spec": {"traffic": {}}}]
    for body in bodies:
        answer = await ask(production(), "PUT", f"{NAMESPACE}/services/svc", token=TOKEN, json=body)
        assert answer.status == 400


async def test_an_update_takes_time_to_settle_and_its_operation_can_be_waited_for() -> None:
    clock = HandClock()
    peer = production(layout=evolve(LAYOUT, settle_seconds=10.0), clock=clock)
    service = (await replace(peer, await read(peer), {"revisionName": "svc-2", "percent": 100})).json()
    assert {row["type"]: row["status"] for row in service["status"]["conditions"]}["Ready"] == "Unknown"
    assert (service["metadata"]["generation"], service["status"]["observedGeneration"]) == (8, 7)
    name = service["metadata"]["annotations"]["run.googleapis.com/operation-id"]
    url = f"{API}/v1/projects/p/locations/r/operations/{name}:wait"
    assert (await ask(peer, "POST", url, token=TOKEN)).json()["done"] is False
    clock.seconds += 10
    operation = (await ask(peer, "POST", url, token=TOKEN)).json()
    assert operation["done"] is True
    assert operation["response"]["status"]["conditions"][0]["status"] == "True"
    assert peer.traffic == {"svc-2": 100}


async def test_a_failure_is_in_the_conditions_and_in_the_operation() -> None:
    peer = production(layout=evolve(LAYOUT, canary_ready=False))
    service = (await replace(peer, await read(peer), {"revisionName": "svc-2", "percent": 100})).json()
    ready = service["status"]["conditions"][0]
    assert (ready["status"], ready["message"]) == ("False", "A revision in the traffic is not ready.")
    name = service["metadata"]["annotations"]["run.googleapis.com/operation-id"]
    url = f"{API}/v1/projects/p/locations/r/operations/{name}:wait"
    assert (await ask(peer, "POST", url, token=TOKEN)).json()["error"]["code"] == 13
    assert peer.traffic == {"svc-1": 100}


@pytest.mark.parametrize(("seconds", "status"), [(0.0, "False"), (60.0, "Unknown")])
async def test_a_revision_that_does_not_start_leaves_the_routes_ready(seconds: float, status: str) -> None:
    peer = production()
    peer.deploy(ready=False, seconds=seconds)
    service = await read(peer)
    conditions = {row["type"]: row["status"] for row in service["status"]["conditions"]}
    assert conditions == {"Ready": status, "ConfigurationsReady": status, "RoutesReady": "True"}
    assert service["status"]["observedGeneration"] == service["metadata"]["generation"] == 8
    assert service["status"]["latestCreatedRevisionName"] == "svc-00008-other"
    assert service["status"]["latestReadyRevisionName"] == "svc-2"
    row = {"revisionName": "svc-2", "percent": 100}
    assert (await replace(peer, service, row)).status == 200
    assert peer.traffic == {"svc-2": 100}


async def test_revisions_are_listed_and_described() -> None:
    peer = production(layout=evolve(LAYOUT, canary_ready=False))
    rows = (await ask(peer, "GET", f"{NAMESPACE}/revisions", token=TOKEN)).json()["items"]
    ready = {row["metadata"]["name"]: row["status"]["conditions"][0]["status"] for row in rows}
    assert ready == {"svc-1": "True", "svc-2": "False"}
    one = await ask(peer, "GET", f"{NAMESPACE}/revisions/svc-2", token=TOKEN)
    assert one.json()["metadata"]["name"] == "svc-2"
    assert (await ask(peer, "GET", f"{NAMESPACE}/revisions/svc-3", token=TOKEN)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/apis/serving.knative.dev/v1/namespaces/p/services/other", 404),
        ("GET", "/apis/serving.knative.dev/v1/namespaces/other/services/svc", 404),
        ("DELETE", "/apis/serving.knative.dev/v1/namespaces/p/services/svc", 404),
        ("GET", "/apis/serving.knative.dev/v1/namespaces/p/configurations", 404),
        ("POST", "/v1/projects/p/locations/r/operations/none:wait", 404),
    ],
)
async def test_an_unknown_resource_is_not_found(method: str, path: str, status: int) -> None:
    assert (await ask(production(), method, f"{API}{path}", token=TOKEN)).status == status


async def test_the_api_requires_an_access_token() -> None:
    answer = await ask(production(), "GET", f"{NAMESPACE}/services/svc", token=CREDENTIALS.auth_token)
    assert (answer.status, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


async def test_faults_of_traffic_updates_also_affect_this_version() -> None:
    """This includes the faults of updates that give the canary a share, although the body has a different form."""
    row = {"revisionName": "svc-2", "percent": 100}
    ignored = production(FAULTS["update-ignored"])
    assert (await replace(ignored, await read(ignored), row)).status == 200
    assert ignored.traffic == {"svc-1": 100}
    failing = production(FAULTS["operation-fails"])
    assert (await replace(failing, await read(failing), row)).status == 500
    overtaken = production(FAULTS["deployed-meanwhile"])
    await replace(overtaken, await read(overtaken), row)
    assert (await replace(overtaken, await read(overtaken), row)).status == 409
    unaffected = production(FAULTS["rollback-403"])
    assert (await replace(unaffected, await read(unaffected), row)).status == 200


async def test_the_api_answers_at_the_regional_host_and_through_a_proxy() -> None:
    """gcloud puts the region before the host name, and a proxy may pass the whole URL as the path."""
    peer = production()
    url = NAMESPACE.replace("https://", "https://r-") + "/services/svc"
    assert (await ask(peer, "GET", url, token=TOKEN)).status == 200
    assert (peer.requests[-1].site, peer.requests[-1].operation) == (Site.CLOUD_RUN, Operation.SERVICE_READ)
    for sent in ("http://r-run.fake/apis/x", "/apis/x"):
        scope = {**scope_of("GET", f"http://r-run.fake{sent}", {}), "path": sent}
        assert request_head(scope).path == "/apis/x"
