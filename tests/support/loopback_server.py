"""A real server for an ASGI app, on the loopback interface."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncGenerator[str]:
    """Serve an app on a free port in the same event loop, and give its URL."""
    config = uvicorn.Config(
        app, interface="asgi3", log_config=None, lifespan="off", timeout_graceful_shutdown=1, **options
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                while not server.started:  # noqa: ASYNC110  uvicorn sets a flag and offers no event
                    await anyio.sleep(0.005)
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
