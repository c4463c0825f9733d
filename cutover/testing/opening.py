"""stream_contract: opens a session, and holds the stream to its contract when the test leaves it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict, Unpack

import anyio
import attrs
import msgspec

from cutover.checking.checked_stream import CheckedStream, StreamRequest
from cutover.contract import ContractChecker, ContractReport, StreamContext, StreamContract
from cutover.errors import ContractViolation
from cutover.protocols import COMPAT_LANE
from cutover.testing.peers import Peer, open_peer
from cutover.testing.session import StreamSession


@asynccontextmanager
async def stream_contract(
    peer: Peer,
    path: str,
    *,
    contract: StreamContract = COMPAT_LANE,
    method: str = "POST",
    json: object = None,
    headers: Mapping[str, str] | None = None,
    context: StreamContext | None = None,
    deadline: float = 30.0,
    grace: float = 5.0,
    lifespan: bool = False,
    recordings: Path | None = None,
) -> AsyncGenerator[StreamSession]:
    """Ask for one stream and hold it to a contract, on asyncio or trio; use it inside a test, not across a fixture's yield.

    Leaving the block reads the stream to its end, unless `StreamSession.disconnect` was called, and raises if the contract
    does not hold. In process a chunk is one ASGI message: what a proxy holds back is seen over a real URL alone.

    Args:
        peer: An ASGI app (run in this process, streaming for real), a base URL, or an ``httpx`` or ``httpx2`` async client.
        path: Where to ask; relative to the peer's base URL, query included.
        contract: What the stream must be; its strict form is used, so that what a user would see as broken fails.
        method: The request's method.
        json: The request's body, encoded as JSON; none where it is None.
        headers: More request headers.
        context: What the contract cannot know of itself; by default the thread is the ``id`` in ``json``.
        deadline: Seconds for the whole stream; an endless one is a failure then.
        grace: Seconds that an app in process has to clean up after a disconnect, before it is cancelled. A thread that it
            waits for (a ``def`` endpoint of FastAPI) cannot be cancelled: the test ends when that does.
        lifespan: Run the lifespan of an app in process.
        recordings: Folder to leave the body of a failed stream in.

    Raises:
        ContractViolation: The contract does not hold.
    """
    strict = contract.strict()
    body = b"" if json is None else msgspec.json.encode(json)
    typed = {} if json is None else {"content-type": "application/json"}
    request = StreamRequest(method=method, url=path, headers={**typed, **(headers or {})}, body=body)
    if context is None and isinstance(json, dict) and isinstance(thread_id := json.get("id"), str):
        context = StreamContext(thread_id=thread_id)
    failure: BaseException | None = None
    async with open_peer(peer, grace=grace, lifespan=lifespan) as opened, anyio.create_task_group() as tasks:
        checker = ContractChecker(
            attrs.evolve(strict, limits=attrs.evolve(strict.limits, whole=deadline)), context=context
        )
        stream = CheckedStream(client=opened.client, request=request, checker=checker)
        session = StreamSession(stream, app=opened.app, recordings=recordings)
        tasks.start_soon(session.run)
        try:
            yield session
            await session.finish()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001  raised below: out of a task group it would come as a group
            failure = error
        finally:
            session.stop()
    if failure is not None:
        raise failure


class StreamOptions(TypedDict, total=False):
    """The options of `stream_contract`, for what hands them on."""

    contract: StreamContract
    method: str
    json: object
    headers: Mapping[str, str] | None
    context: StreamContext | None
    deadline: float
    grace: float
    lifespan: bool
    recordings: Path | None


def assert_stream(peer: Peer, path: str, **options: Unpack[StreamOptions]) -> ContractReport:
    """Do for a test that is not async what `stream_contract` does: read one stream to its end, in an event loop of its own.

    Raises:
        ContractViolation: The contract does not hold.
        RuntimeError: An event loop is running in this thread; use `stream_contract` there.
    """

    async def drain() -> ContractReport:
        async with stream_contract(peer, path, **options) as session:
            return await session.drain()

    __tracebackhide__ = True  # a failing test's report shows the test, not the event loop
    try:
        return anyio.run(drain)
    except ContractViolation as violation:
        raise violation.with_traceback(None) from violation.__cause__
