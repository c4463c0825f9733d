"""Contract tests of an event stream: a session that reads the stream event by event and checks its contract.

A first use, with the ASGI app of your service::

    import pytest
    from cutover.testing import stream_contract
    from my_service import app

    @pytest.mark.anyio
    async def test_the_stream_keeps_its_contract():
        async with stream_contract(app, "/api/chat/stream", json={"id": "t1", "messages": []}) as stream:
            await stream.expect("start", within=1.0)
            await stream.drain()

In a test that is not async, call ``assert_stream`` with the same arguments. Names load on first use, because pytest
loads the plugin of this package in every suite.
"""

from typing import TYPE_CHECKING

from cutover.lazy_names import load_on_first_use

if TYPE_CHECKING:
    from cutover.testing.opening import StreamOptions, assert_stream, stream_contract
    from cutover.testing.peers import Peer
    from cutover.testing.seen_event import SeenEvent
    from cutover.testing.session import StreamSession

__all__ = ["Peer", "SeenEvent", "StreamOptions", "StreamSession", "assert_stream", "stream_contract"]

__getattr__, __dir__ = load_on_first_use(
    __name__,
    {
        "Peer": "cutover.testing.peers",
        "SeenEvent": "cutover.testing.seen_event",
        "StreamOptions": "cutover.testing.opening",
        "StreamSession": "cutover.testing.session",
        "assert_stream": "cutover.testing.opening",
        "stream_contract": "cutover.testing.opening",
    },
)
