"""Servers for tests: on loopback, on a free port, stopped when the test ends."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tests.interop import requirements

HOST = "127.0.0.1"
_STOP_SECONDS = 10
_START_SECONDS = 10


@contextmanager
def served(make_app: Callable[[str], Any]) -> Iterator[str]:
    """Serve an ASGI app with uvicorn in its own thread. ``make_app`` gets the URL of the server."""
    # requests wait in the backlog until uvicorn is up
    listener = socket.create_server((HOST, 0))
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        make_app(url),
        interface="asgi3",
        lifespan="off",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS)
        listener.close()
        assert not thread.is_alive(), "uvicorn did not stop"


_NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen {host}:{port};
    location / {{
      proxy_pass {upstream};
      {directives}
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: str, *directives: str) -> Iterator[str]:
    """Run a private nginx in front of a server, with these directives and without the machine's configuration."""
    program = requirements.program("nginx", of="nginx")
    port = free_port()
    lines = "\n      ".join(f"{each};" for each in directives)
    (folder / "nginx.conf").write_text(
        _NGINX.format(host=HOST, port=port, upstream=upstream, directives=lines)
    )
    command = [str(program), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    with subprocess.Popen(command) as process:
        try:
            await_port(port, process)
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            finally:
                process.kill()


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens."""
    for _ in range(_START_SECONDS * 50):
        assert process.poll() is None, "the server ended; its error.log gives the reason"
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the server does not listen on port {port}")
