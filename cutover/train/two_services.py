"""The requests of a dual run: one request of the manifest, sent to the new service and to the legacy one at the same time."""

from collections.abc import Mapping

import anyio
import attrs
import msgspec

from cutover.checking.probe import MAX_CAPTURE_BYTES, probe_stream
from cutover.contract import StreamContract
from cutover.errors import PeerError, UnusableReplyError
from cutover.http.connection import StreamRequest
from cutover.http.outbound import Outbound, Reply
from cutover.http.tokens import Token, fixed
from cutover.model.asking import SIDE_BY_SIDE
from cutover.model.comparison import Answer, check_depth
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.stream_features import stream_features
from cutover.model.text_difference import MAX_TEXT
from cutover.production.services import Services

MAX_JSON_BYTES = 2 << 20
"""Bytes of the largest JSON that is compared. Up to 12 answers of each service are held at once."""


@attrs.frozen(kw_only=True)
class Side:
    """The new or the legacy service: its address, token and headers for the dual run."""

    name: str
    """``new`` or ``legacy``, as in the evidence."""
    base_url: str
    token: Token = attrs.field(converter=fixed)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True)
class TwoServices:
    """The two services of a dual run, and what their requests need."""

    new: Side
    old: Side
    contract: StreamContract
    """The contract whose limits bound both streams; the dual run ignores every other violation."""
    thread_prefix: str
    """Prefix of the thread ids of the dual run."""
    services: Services

    async def ask(self, entry: ManifestEntry, number: int) -> tuple[list[Answer], list[Answer]]:
        """Send one entry to both services at once, twice to each unless it changes something; return the answers of each.

        Args:
            entry: The entry.
            number: The number of this ask of the entry, for its thread ids.
        """
        times = 1 if entry.mutates else SIDE_BY_SIDE
        answers: dict[tuple[str, int], Answer] = {}

        async def ask(side: Side, outbound: Outbound, copy: int) -> None:
            thread_id = f"{self.thread_prefix}{side.name}_{entry.id}_{number}_{copy}"
            if entry.response_kind is ResponseKind.SSE:
                answer = await _stream(entry, side, self.contract, outbound, thread_id)
            else:
                answer = await _plain(entry, side, outbound, thread_id)
            answers[side.name, copy] = answer

        async with anyio.create_task_group() as group:
            for copy in range(1, times + 1):
                group.start_soon(ask, self.new, self.services.service, copy)
                group.start_soon(ask, self.old, self.services.legacy, copy)
        new, old = (
            [answers[side.name, copy] for copy in range(1, times + 1)] for side in (self.new, self.old)
        )
        return new, old


def _headers(entry: ManifestEntry, side: Side) -> dict[str, str]:
    return {**side.headers, **entry.headers}


def _filled(value: object, thread_id: str) -> object:
    """Return a path or a body with the thread id in place of ``{thread_id}``."""
    match value:
        case str():
            return value.replace("{thread_id}", thread_id)
        case dict():
            return {key: _filled(item, thread_id) for key, item in value.items()}
        case list():
            return [_filled(item, thread_id) for item in value]
        case _:
            return value


async def _plain(entry: ManifestEntry, side: Side, outbound: Outbound, thread_id: str) -> Answer:
    try:
        reply = await outbound.read(
            entry.method,
            side.base_url + str(_filled(entry.path, thread_id)),
            label=f"dual.{side.name}.{entry.id}",
            headers=_headers(entry, side),
            authorize=side.token if entry.requires_auth else None,
            json=_filled(entry.body, thread_id),
            attempts=1 if entry.mutates else 2,
        )
        meaning = _meaning(entry, reply)
    except PeerError as error:
        return Answer(status=None, meaning=None, said=str(error), seconds=None)
    return Answer(
        status=reply.status,
        meaning=meaning,
        said=reply.describe(),
        seconds=reply.elapsed,
        headers=reply.headers,
        body=reply.body,
        token=side.token.name,
        base_url=side.base_url,
    )


def _meaning(entry: ManifestEntry, reply: Reply) -> object:
    """Return the value of a reply that is compared.

    Raises:
        UnusableReplyError: The body is not JSON where it should be, or it cannot be compared.
    """
    if entry.response_kind is ResponseKind.TEXT:
        # One character more than is compared, so that the comparison says that it is too long.
        return reply.body[: 4 * MAX_TEXT + 4].decode("utf-8", "replace")[: MAX_TEXT + 1]
    if len(reply.body) > MAX_JSON_BYTES:
        raise UnusableReplyError(
            f"{reply.request_line}: its JSON has more than {MAX_JSON_BYTES} bytes, and is not compared"
        )
    value = reply.json()
    try:
        check_depth(value)
    except ValueError as error:
        raise UnusableReplyError(f"{reply.request_line}: {error}") from error
    return value


async def _stream(
    entry: ManifestEntry, side: Side, contract: StreamContract, outbound: Outbound, thread_id: str
) -> Answer:
    probe = await probe_stream(
        outbound.client,
        StreamRequest(
            method=entry.method,
            url=side.base_url + str(_filled(entry.path, thread_id)),
            headers={"content-type": "application/json", **_headers(entry, side)},
            body=b"" if entry.body is None else msgspec.json.encode(_filled(entry.body, thread_id)),
            label=f"dual.{side.name}.{entry.id}",
        ),
        capture=True,
        contract=contract,
        secrets=outbound.secrets,
        authorize=side.token if entry.requires_auth else None,
    )
    too_long = len(probe.body) >= MAX_CAPTURE_BYTES
    if too_long or probe.status is None or probe.report.interrupted:
        why = f"the stream has {MAX_CAPTURE_BYTES} bytes or more, and is not compared"
        return Answer(status=None, meaning=None, said=why if too_long else probe.describe(), seconds=None)
    return Answer(
        status=probe.status,
        meaning=stream_features(probe.body, with_text=entry.deterministic),
        said=f"HTTP {probe.status}",
        seconds=probe.elapsed,
        headers=probe.headers,
        body=probe.body,
        token=side.token.name,
        base_url=side.base_url,
    )
