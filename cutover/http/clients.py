"""The clients of a caller that can be asked for a stream, and the adapter for each."""

import sys
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

import httpx

from cutover.http.connection import StreamClient
from cutover.http.httpx_client import HttpxClient

if TYPE_CHECKING:
    import aiohttp

AnyClient: TypeAlias = Union[httpx.AsyncClient, "aiohttp.ClientSession"]
"""The client of a caller: its base URL, headers and connections are used. It is not closed."""

_SYNCHRONOUS = frozenset(
    {("httpx", "Client"), ("httpx2", "Client"), ("requests", "Session"), ("niquests", "Session")}
)
"""Library and name of synchronous clients. The test client of Starlette is one of the first two."""
_NOT_A_CLIENT = "a stream needs an asynchronous client, such as httpx.AsyncClient or aiohttp.ClientSession, and not {given}"


def is_client(value: object) -> TypeGuard[AnyClient]:
    """Return True for a client that `stream_client` takes.

    Raises:
        TypeError: The value is a synchronous client. It would fail only later, and with an error about something else.
    """
    if isinstance(value, httpx.AsyncClient) or _is_aiohttp(value):
        return True
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if (library, base.__name__) in _SYNCHRONOUS:
            raise TypeError(_NOT_A_CLIENT.format(given=f"a synchronous {library}.{base.__name__}"))
    return False


def stream_client(client: AnyClient) -> StreamClient:
    """Return the adapter for a caller's client.

    Raises:
        TypeError: The client is synchronous, or of no library that is known here.
    """
    if not is_client(client):
        raise TypeError(_NOT_A_CLIENT.format(given=f"{client!r:.100}"))
    if isinstance(client, httpx.AsyncClient):
        return HttpxClient(client)
    from cutover.http.aiohttp_client import AiohttpClient  # noqa: PLC0415  aiohttp is optional

    return AiohttpClient(client)


def _is_aiohttp(value: object) -> bool:
    """Return True for a session of aiohttp. aiohttp is optional, and who has a session has imported it."""
    aiohttp = sys.modules.get("aiohttp")
    return aiohttp is not None and isinstance(value, aiohttp.ClientSession)
