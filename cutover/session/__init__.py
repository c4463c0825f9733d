"""stream_contract: an app or a URL under contract, event by event, in other people's tests.

``opening.py`` opens a session (``session.py``) with what can be asked (``peers.py``); ``events.py`` is what came, and
``explanation.py`` how a failure reads.
"""

from cutover.session.events import SeenEvent
from cutover.session.opening import StreamOptions, assert_stream, stream_contract
from cutover.session.peers import Peer
from cutover.session.session import StreamSession

__all__ = ["Peer", "SeenEvent", "StreamOptions", "StreamSession", "assert_stream", "stream_contract"]
