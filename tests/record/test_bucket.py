"""The bucket of STATE_URL: of many writers one wins, a lost answer is found out, and nothing off the wire is trusted."""

from collections.abc import Callable

import anyio
import httpx
import pytest

from cutover.errors import NoAnswerError, PeerError, RefusedError, UnusableReplyError
from cutover.record import bucket as module
from cutover.record.bucket import Bucket
from tests.support.state_bucket import Raw, StateScene, bucket_at

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
LOST = httpx.ReadError("injected")


@pytest.fixture
def scene(tmp_path: object) -> StateScene:
    return StateScene.of(tmp_path)  # type: ignore[arg-type]


def bucket_of(scene: StateScene) -> Bucket:
    return bucket_at(scene.transport())


def mine(writer: str) -> dict[str, object]:
    return {"writer": writer, "text": "ü/\n"}


async def test_of_sixteen_creators_one_wins(scene: StateScene) -> None:
    won: list[int] = []

    async def create(number: int) -> None:
        content = mine(str(number))
        if await bucket_of(scene).put("a b/ü?#%.json", content, generation=0, label="put") is not None:
            won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(16):
            group.start_soon(create, number)
    assert len(won) == 1
    found = await bucket_of(scene).read("a b/ü?#%.json", label="read")
    assert found is not None
    assert found.content == b'{"writer":"%d","text":"\xc3\xbc/\\n"}' % won[0]


async def test_a_create_whose_answer_is_lost_is_found_to_be_ones_own(scene: StateScene) -> None:
    scene.after = lambda label: LOST if scene.labels.count(label) == 1 else None
    bucket = bucket_of(scene)
    generation = await bucket.put("one", mine("me"), generation=0, label="put")
    found = await bucket.read("one", label="read")
    assert found is not None
    assert found.generation == generation
    assert scene.labels == ["put", "put", "put.look", "put.look", "read", "read"]


async def test_a_create_whose_answer_is_lost_may_have_come_second(scene: StateScene) -> None:
    await bucket_of(scene).put("one", mine("other"), generation=0, label="other")
    scene.after = lambda label: LOST if (label, scene.labels.count(label)) == ("put", 1) else None
    assert await bucket_of(scene).put("one", mine("me"), generation=0, label="put") is None


async def test_a_replacement_needs_the_generation_that_was_read(scene: StateScene) -> None:
    bucket = bucket_of(scene)
    first = await bucket.put("one", mine("a"), generation=0, label="put")
    assert first is not None
    second = await bucket.put("one", mine("b"), generation=first, label="put")
    assert second is not None
    assert await bucket.put("one", mine("c"), generation=first, label="put") is None
    assert not await bucket.delete("one", generation=first, label="delete")
    assert await bucket.delete("one", generation=second, label="delete")
    assert await bucket.read("one", label="read") is None


async def test_a_delete_whose_answer_is_lost_has_deleted(scene: StateScene) -> None:
    bucket = bucket_of(scene)
    generation = await bucket.put("one", mine("a"), generation=0, label="put")
    assert generation is not None
    scene.after = lambda label: LOST if scene.labels.count(label) == 1 else None
    assert await bucket.delete("one", generation=generation, label="delete")
    assert scene.stored == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_bucket_that_is_busy_is_asked_again(scene: StateScene, status: int) -> None:
    scene.before = lambda label: httpx.Response(status) if scene.labels.count(label) < 3 else None
    assert await bucket_of(scene).put("one", mine("a"), generation=0, label="put") is not None
    scene.before = lambda _: httpx.Response(status)
    with pytest.raises(RefusedError, match=f"HTTP {status}"):
        await bucket_of(scene).put("two", mine("a"), generation=0, label="put")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "renew CLOUD_RUN_ACCESS_TOKEN"),
        (403, "roles/storage.objectUser"),
        (404, "bucket of STATE_URL exists"),
    ],
)
async def test_a_refusal_says_what_to_do(scene: StateScene, status: int, advice: str) -> None:
    scene.before = lambda _: httpx.Response(status)
    with pytest.raises(RefusedError, match=advice):
        await bucket_of(scene).put("one", mine("a"), generation=0, label="put")


async def test_a_dead_network_is_no_answer(scene: StateScene) -> None:
    scene.before = lambda _: httpx.ConnectError("injected")
    with pytest.raises(NoAnswerError):
        await bucket_of(scene).read("one", label="read")


async def test_a_list_of_many_objects_comes_in_pages(
    scene: StateScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    bucket = bucket_of(scene)
    for name in ("b/1", "b/2", "b/3", "b/4", "b/5", "a", "c"):
        await bucket.put(name, mine(name), generation=0, label="put")
    assert await bucket.names("b/", label="list") == ["b/1", "b/2", "b/3", "b/4", "b/5"]
    assert scene.labels.count("list") == 3
    assert await bucket.names("d/", label="none") == []
    monkeypatch.setattr(module, "MOST_OBJECTS", 3)
    with pytest.raises(UnusableReplyError, match="more than 3 objects"):
        await bucket.names("b/", label="list")


def replying(**reply: object) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(200, **reply)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reply",
    [
        {"json": {"items": [{"name": "other/1"}]}},
        {"json": {"items": [{"name": 1}]}},
        {"json": {"items": {"name": "b/1"}}},
        {"json": {"items": ["b/1"]}},
        {"json": {"items": [{"name": "b/" + "x" * 1024}]}},
        {"json": {"nextPageToken": 1}},
        {"json": {"nextPageToken": "again"}},
        {"json": []},
        {"text": "<!doctype html>"},
    ],
)
async def test_a_list_that_is_none_is_refused(reply: dict[str, object]) -> None:
    with pytest.raises(UnusableReplyError):
        await bucket_at(Raw(replying(**reply))).names("b/", label="list")


@pytest.mark.parametrize("generation", [None, "", "0", "-1", "1e3", "١", "1" * 20, 7])
async def test_an_answer_without_a_usable_generation_is_refused(generation: object) -> None:
    bucket = bucket_at(Raw(replying(json={"generation": generation})))
    with pytest.raises(UnusableReplyError, match="no usable generation"):
        await bucket.put("one", mine("a"), generation=0, label="put")
    headers = {"x-goog-generation": str(generation).encode()}
    if generation != 7:
        with pytest.raises(UnusableReplyError, match="no usable generation"):
            await bucket_at(Raw(replying(content=b"{}", headers=headers))).read("one", label="read")


@pytest.mark.parametrize("stored", [b"", b"[]", b"\xff", b'{"writer":1}', b"[" * 100_000])
async def test_an_object_of_a_stranger_is_not_ones_own(stored: bytes) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(412)
        return httpx.Response(200, content=stored, headers={"x-goog-generation": "1"})

    assert await bucket_at(Raw(answer)).put("one", mine("a"), generation=0, label="put") is None


async def test_an_object_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    reply = replying(content=b"x" * 11, headers={"x-goog-generation": "1"})
    with pytest.raises(UnusableReplyError, match="larger than 10 bytes"):
        await bucket_at(Raw(reply)).read("one", label="read")


async def test_the_token_goes_into_the_header_alone(scene: StateScene) -> None:
    await bucket_of(scene).put("one", mine("a"), generation=0, label="put")
    entry = scene.simulation.requests[-1]
    assert entry.token == "cloud_run"
    bucket = bucket_at(Raw(lambda _: httpx.Response(403, text="marked-cloud-run-token")))
    bucket.outbound.secrets.add("marked-cloud-run-token")
    with pytest.raises(PeerError) as caught:
        await bucket.read("one", label="read")
    assert "marked" not in str(caught.value)
