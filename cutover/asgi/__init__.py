"""An in-process app whose chunks arrive as it sends them.

``transport.py`` is the httpx side, ``exchange.py`` one request as the app lives it, ``lifespan.py`` startup and shutdown.
"""

from cutover.asgi.exchange import Exchange
from cutover.asgi.transport import StreamingASGITransport

__all__ = ["Exchange", "StreamingASGITransport"]
