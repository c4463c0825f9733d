"""Contract tests of an event stream: a session that reads a stream under its contract, event by event.

A first use::

    from cutover.testing import stream_contract

    async def test_the_stream_keeps_its_contract():
        async with stream_contract(app, "/api/chat/stream", json={"id": "t1", "messages": []}) as stream:
            await stream.expect("start", within=1.0)
            await stream.drain()

The pytest plugin loads with pytest, so the names here load on first use.
"""

from typing import TYPE_CHECKING

from cutover.lazy_names import load_on_first_use

if TYPE_CHECKING:
    from cutover.testing.events import SeenEvent
    from cutover.testing.opening import StreamOptions, assert_stream, stream_contract
    from cutover.testing.peers import Peer
    from cutover.testing.session import StreamSession

__all__ = ["Peer", "SeenEvent", "StreamOptions", "StreamSession", "assert_stream", "stream_contract"]

__getattr__, __dir__ = load_on_first_use(
    __name__,
    {
        "Peer": "cutover.testing.peers",
        "SeenEvent": "cutover.testing.events",
        "StreamOptions": "cutover.testing.opening",
        "StreamSession": "cutover.testing.session",
        "assert_stream": "cutover.testing.opening",
        "stream_contract": "cutover.testing.opening",
    },
)
