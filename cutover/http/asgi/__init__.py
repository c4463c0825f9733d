"""Run an ASGI app in this process, so that its chunks arrive as the app sends them.

``transport.py`` is the httpx side, ``exchange.py`` one request as the app lives it, ``lifespan.py`` startup and shutdown.
"""
