"""A transport that runs an ASGI app in this process and delivers each chunk when the app sends it.

``transport.py`` is the side of httpx, ``exchange.py`` is one request on the side of the app, and ``lifespan.py`` is the
app's startup and shutdown.
"""
