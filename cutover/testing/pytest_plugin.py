"""The pytest plugin: the fixture ``stream_contract``. Its modules are imported only when a test uses it."""

import re
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pytest

if TYPE_CHECKING:
    from cutover.contract import ContractReport
    from cutover.testing.opening import StreamOptions
    from cutover.testing.peers import Peer
    from cutover.testing.session import StreamSession


class StreamContractFixture:
    """`cutover.stream_contract` for one test. The fixture saves the body of a failed stream in pytest's temporary folder."""

    def __init__(self, recordings: Path) -> None:
        self._recordings = recordings

    def __call__(
        self, peer: "Peer", path: str, **options: "Unpack[StreamOptions]"
    ) -> AbstractAsyncContextManager["StreamSession"]:
        """Return an async context manager that sends one request and checks its stream.

        The options are those of `cutover.stream_contract`. ``recordings`` defaults to a folder named after this test.

        Raises:
            ContractViolation: The contract does not hold; raised on leaving the block.
        """
        from cutover.testing.opening import stream_contract as open_session  # noqa: PLC0415  loaded only if used

        options.setdefault("recordings", self._recordings)
        return open_session(peer, path, **options)

    def check(self, peer: "Peer", path: str, **options: "Unpack[StreamOptions]") -> "ContractReport":
        """Read one stream to its end, and return the report. For a test that is not async.

        The options are those of `cutover.stream_contract`. ``recordings`` defaults to a folder named after this test.

        Raises:
            ContractViolation: The contract does not hold.
            RuntimeError: An event loop already runs in this thread.
        """
        from cutover.testing.opening import assert_stream  # noqa: PLC0415  as above

        __tracebackhide__ = True
        options.setdefault("recordings", self._recordings)
        return assert_stream(peer, path, **options)


@pytest.fixture
def stream_contract(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> StreamContractFixture:
    """Check a chat stream against its contract, inside a test.

    Open it with ``async with stream_contract(app, "/api/chat/stream", json=...) as stream:``. ``app`` is an ASGI app, a
    base URL, or an async client of httpx or httpx2. In the block, call ``await stream.expect("start", within=1.0)``
    (seconds), ``await stream.drain()`` or ``await stream.disconnect()``; for an endless stream ``take``, ``until`` and
    ``collect``; to reconnect, ``resume``. The test fails with `cutover.ContractViolation`
    if the contract (default: ``COMPAT_LANE``) does not hold. In a test that is not async, call
    ``stream_contract.check(app, "/api/chat/stream", json=...)``. See `cutover.stream_contract` for all options.
    """
    name = re.sub(r"\W+", "-", request.node.name)[:60]
    return StreamContractFixture(tmp_path_factory.getbasetemp() / "streams" / name)
