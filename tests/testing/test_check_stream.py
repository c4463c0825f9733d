"""check_stream: the report shows no credential of its own request, even if the service echoes it."""

import httpx
import pytest

from cutover import ContractViolation
from cutover.checking.probe import check_stream

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

SECRETS = ("marked-bearer", "marked-api-key", "marked-of-the-client")
HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-vercel-ai-ui-message-stream": "v1"}


def echo(request: httpx.Request) -> httpx.Response:
    return httpx.Response(
        200, headers=HEADERS, content=f"data: no JSON, but {' '.join(SECRETS)}\n\n".encode()
    )


async def test_an_echoed_credential_is_masked_in_the_findings() -> None:
    transport = httpx.MockTransport(echo)
    async with httpx.AsyncClient(transport=transport, headers={"x-session": SECRETS[2]}) as client:
        report = await check_stream(
            client,
            "https://chat.example/api/chat/stream",
            headers={"Authorization": f"Bearer {SECRETS[0]}", "x-api-key": SECRETS[1]},
        )
    assert "no JSON, but *" in repr(report)
    assert "marked" not in repr(report)
    with pytest.raises(ContractViolation) as caught:
        report.raise_for_violations()
    assert "marked" not in str(caught.value)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("path", "params"), [("/x?key=marked+key&n=1", {}), ("/x", {"sig": "marked key", "n": "1"})]
)
async def test_an_echoed_secret_of_the_url_is_masked_in_the_findings(
    path: str, params: dict[str, str], *, resume: bool
) -> None:
    def echo_url(request: httpx.Request) -> httpx.Response:
        said = (
            f"{request.url.params} {' '.join(request.url.params.values())} {request.headers['authorization']}"
        )
        return httpx.Response(200, headers=HEADERS, content=f"data: no JSON, but {said}\n\n".encode())

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(echo_url),
        base_url="https://me:marked-password@chat.example",
        params=params,
    ) as client:
        report = await check_stream(client, path, resume=resume)
    assert "no JSON, but " in repr(report)
    assert "n=1" in repr(report)
    assert not any(secret in repr(report) for secret in ("marked", "bWFya2VkLX"))
