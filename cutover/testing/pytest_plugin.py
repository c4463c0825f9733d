"""The pytest plugin: a ``stream_contract`` fixture. What it needs is imported when a test asks for it, not before."""

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
    """`cutover.stream_contract` for one test; a failed stream's body is left among pytest's temporary files."""

    def __init__(self, recordings: Path) -> None:
        self._recordings = recordings

    def __call__(
        self, peer: "Peer", path: str, **options: "Unpack[StreamOptions]"
    ) -> AbstractAsyncContextManager["StreamSession"]:
        """Give the context manager; see `cutover.stream_contract` for the options."""
        from cutover.testing.opening import stream_contract as open_session  # noqa: PLC0415  a suite without it pays nothing

        options.setdefault("recordings", self._recordings)
        return open_session(peer, path, **options)

    def check(self, peer: "Peer", path: str, **options: "Unpack[StreamOptions]") -> "ContractReport":
        """Read one stream to its end, from a test that is not async; see `cutover.testing.assert_stream`."""
        from cutover.testing.opening import assert_stream  # noqa: PLC0415  as above

        __tracebackhide__ = True
        options.setdefault("recordings", self._recordings)
        return assert_stream(peer, path, **options)


@pytest.fixture
def stream_contract(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> StreamContractFixture:
    """Hold a chat stream to its contract, inside the test.

    ``async with stream_contract(app, "/api/chat/stream", json=...) as stream:`` takes an ASGI app, a base URL, or an httpx or
    httpx2 async client; then ``await stream.drain()``, ``await stream.expect("start", within=1.0)`` or
    ``await stream.disconnect()``. Without async: ``stream_contract.check(app, ...)``.
    """
    name = re.sub(r"\W+", "-", request.node.name)[:60]
    return StreamContractFixture(tmp_path_factory.getbasetemp() / "streams" / name)
