"""stream_contract: opens a session on one stream, and checks the contract when the test leaves the block."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import anyio

from cutover.checking.arguments import bounded, context_for, judged_by, request_for
from cutover.checking.checked_stream import CheckedStream
from cutover.contract import ContractChecker, ContractReport, StreamContext, StreamContract
from cutover.errors import ContractViolation
from cutover.protocols import COMPAT_LANE
from cutover.testing.peers import Peer, contract_of_app, open_peer
from cutover.testing.session import StreamSession


@asynccontextmanager
async def stream_contract(
    peer: Peer,
    path: str,
    *,
    contract: StreamContract | Literal["openapi"] = COMPAT_LANE,
    strict: bool = True,
    method: str | None = None,
    json: object = None,
    headers: Mapping[str, str] | None = None,
    context: StreamContext | None = None,
    deadline: float | None = None,
    grace: float = 5.0,
    lifespan: bool = False,
    recordings: Path | None = None,
) -> AsyncGenerator[StreamSession]:
    """Send one request and give a `StreamSession` that checks its stream against the strict form of a contract.

    It is an async context manager for asyncio and trio. Use it inside a test, not across a fixture's ``yield``. On leaving
    the block, the session reads the rest of the stream, unless `StreamSession.disconnect` was called, and raises if the
    contract does not hold. A stream without an end of its own (`StreamContract.endless`) is left instead, and judged as far
    as it went. An error of the block itself is raised instead, without this check. Only a test over a real URL
    can show that a proxy holds chunks back.

    Args:
        peer: An ASGI app (it runs in this process), a base URL, or an async client of ``httpx``, ``aiohttp`` or ``httpx2``. A client
            is used with its base URL, headers and transport. Redirects are not followed.
        path: Path and query of the request, relative to the base URL.
        contract: The contract that the stream must keep. Default: ``COMPAT_LANE``. With ``"openapi"``, a FastAPI app is asked for
            its own document, and the contract of this path and method is derived from it (extra ``openapi``).
        strict: True for the strict form of the contract (`StreamContract.strict`): each loss that a user can see is a violation.
            False for the client's own verdict. Default: True.
        method: The request's method. Default: the contract's, which is POST unless it says another.
        json: The request's body, sent as JSON. Default: no body.
        headers: Headers to send besides the client's own. Default: none.
        context: The thread id of the request and the ids of earlier tool calls. By default, a text ``id`` in ``json`` is the
            thread id.
        deadline: Seconds from sending the request to the end of the stream; a longer stream fails. It replaces the contract's own
            limit ``whole``. Default: that limit (120 unless the contract says another). For a contract of an endless stream: seconds
            after which every wait ends, and the stream is left; that alone breaks no rule.
        grace: Seconds that an app in this process has to clean up after a disconnect, and to end its background tasks after its
            response, before it is cancelled. An error that it raises then fails the test. Default: 5.
            FastAPI runs a ``def`` endpoint in a thread, which cannot be cancelled: the test waits until the thread ends.
        lifespan: True to run the lifespan of an app in this process. Default: False.
        recordings: Folder in which to save the body of a failed stream. Default: the body is not saved.

    Raises:
        ContractViolation: The contract does not hold. The message shows the rule, the events and a curl command.
        OpenApiError: The app's document has no contract for this path and method.
        TypeError: The peer is a synchronous client; or the contract is to come from a document, and the peer has none of its own.
        Exception: The lifespan of the app failed; its error is raised unchanged.
    """
    if not isinstance(contract, StreamContract):
        contract = contract_of_app(peer, path, method)
    request = request_for(contract, path, method=method, json=json, headers=headers)
    limited, leave_after = bounded(judged_by(contract, strict=strict, deadline=deadline))
    checker = ContractChecker(limited, context=context_for(context, json))
    failure: BaseException | None = None
    async with open_peer(peer, grace=grace, lifespan=lifespan) as opened, anyio.create_task_group() as tasks:
        stream = CheckedStream(
            client=opened.client, request=request, checker=checker, leave_after=leave_after
        )
        session = StreamSession(
            stream, in_process=opened.is_app, grace=grace, recordings=recordings, tasks=tasks
        )
        session.start()
        try:
            yield session
            await session.finish()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001  raised below, because a task group would wrap it in a group
            failure = error
        finally:
            session.stop()
    if failure is not None:
        raise failure


class StreamOptions(TypedDict, total=False):
    """The options of `stream_contract`, as keyword arguments of a function that passes them on."""

    contract: StreamContract | Literal["openapi"]
    strict: bool
    method: str | None
    json: object
    headers: Mapping[str, str] | None
    context: StreamContext | None
    deadline: float | None
    grace: float
    lifespan: bool
    recordings: Path | None


def assert_stream(peer: Peer, path: str, **options: Unpack[StreamOptions]) -> ContractReport:
    """Read one stream to its end in a new event loop, and return the report. For a test that is not async.

    Args:
        peer: As in `stream_contract`: an ASGI app, a base URL, or an async client.
        path: Path and query of the request, relative to the base URL.
        options: The other options of `stream_contract`.

    Raises:
        ContractViolation: The contract does not hold.
        RuntimeError: An event loop already runs in this thread. Use `stream_contract` there.
    """

    async def drain() -> ContractReport:
        async with stream_contract(peer, path, **options) as session:
            return await session.drain()

    # Because of this variable, pytest shows the line of the test and not the event loop.
    __tracebackhide__ = True
    try:
        return anyio.run(drain)
    except ContractViolation as violation:
        raise violation.with_traceback(None) from violation.__cause__
