"""The Cloud Run Admin API v2 as a traffic backend: one GET, one PATCH with an update mask and an etag."""

from collections.abc import Mapping, Sequence

import attrs

from cutover.errors import RefusedError, UnusableReplyError
from cutover.http.outbound import Outbound, Reply
from cutover.http.tokens import Token, fixed
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.production.traffic.backend import CommandObserver, Revision
from cutover.production.traffic.documents import percent, rows, text
from cutover.text import printable

_LATEST = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
_REVISION = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
_SUCCEEDED = "CONDITION_SUCCEEDED"
_NOT_FOUND = 404
_HTTP_BY_RPC_CODE = {3: 400, 5: 404, 7: 403, 9: 400, 10: 409, 16: 401}
"""google.rpc.Code of a failed operation -> the HTTP status with the same meaning."""

_ACCEPT = {"accept": "application/json"}


@attrs.define(eq=False)
class CloudRunApi:
    """One service of the Admin API v2."""

    outbound: Outbound
    base_url: str
    """URL such as ``https://run.googleapis.com``, without a trailing slash."""
    project: str
    region: str
    service: str
    token: Token = attrs.field(converter=fixed)
    """The access token; each try asks for it."""

    @property
    def service_url(self) -> str:
        """URL of the service, which is read and patched."""
        return f"{self.base_url}/v2/projects/{self.project}/locations/{self.region}/services/{self.service}"

    async def read(self, *, label: str) -> TrafficState:
        """Return the split; see ``TrafficBackend``."""
        reply = await self._read(self.service_url, label)
        return _traffic_state(reply.expect_success())

    async def revision(self, name: str, *, label: str) -> Revision:
        """Return one revision; see ``TrafficBackend``."""
        url = f"{self.service_url}/revisions/{name}"
        reply = await self._read(url, label)
        if reply.status == _NOT_FOUND:
            return Revision(name=name, exists=False, ready=False, message=reply.describe())
        conditions = _object(reply.expect_success()).get("conditions")
        ready = next((row for row in rows(conditions) if row.get("type") == "Ready"), {})
        return Revision(
            name=name,
            exists=True,
            ready=ready.get("state") == _SUCCEEDED,
            message=printable(str(ready.get("message") or ready.get("state") or "no Ready condition")),
        )

    async def write(
        self,
        targets: Sequence[TrafficTarget],
        *,
        etag: str | None,
        label: str,
        on_start: CommandObserver | None = None,  # noqa: ARG002  the API runs no command
    ) -> None:
        """Send one write of the split; see ``TrafficBackend``.

        The list of targets replaces the whole split. The request always names ``traffic`` in the update mask, because a
        PATCH without a mask replaces the whole service (Cloud Run Admin API v2).
        """
        body: dict[str, object] = {"traffic": [_wire(target) for target in targets]}
        if etag is not None:
            body["etag"] = etag
        reply = await self.outbound.change(
            "PATCH",
            f"{self.service_url}?updateMask=traffic",
            label=label,
            headers=_ACCEPT,
            authorize=self.token,
            json=body,
        )
        operation = _object(reply.expect_success())
        failure = operation.get("error")
        if isinstance(failure, dict):
            code = failure.get("code")
            detail = printable(f"code {code}: {failure.get('message') or 'no message'}")
            status = _HTTP_BY_RPC_CODE.get(code, 500) if isinstance(code, int) else 500
            raise RefusedError(f"{reply.request_line}: the operation failed ({detail})", status=status)

    async def _read(self, url: str, label: str) -> Reply:
        return await self.outbound.read("GET", url, label=label, headers=_ACCEPT, authorize=self.token)


def _wire(target: TrafficTarget) -> dict[str, object]:
    row: dict[str, object] = (
        {"type": _LATEST} if target.revision is None else {"type": _REVISION, "revision": target.revision}
    )
    if target.percent:
        row["percent"] = target.percent
    if target.tag:
        row["tag"] = target.tag
    return row


def _traffic_state(reply: Reply) -> TrafficState:
    service = _object(reply)
    if "traffic" not in service and "trafficStatuses" not in service:
        raise UnusableReplyError(
            f"{reply.request_line}: the reply has neither `traffic` nor `trafficStatuses`"
        )
    condition = service.get("terminalCondition")
    condition = condition if isinstance(condition, dict) else {}
    latest_ready = _short_name(service.get("latestReadyRevision"))
    etag = service.get("etag")
    return TrafficState(
        targets=tuple(_target(row) for row in rows(service.get("traffic"))),
        statuses=tuple(_target(row) for row in rows(service.get("trafficStatuses"))),
        generation=str(service.get("generation") or ""),
        etag=etag if isinstance(etag, str) else None,
        settled=not service.get("reconciling")
        and service.get("observedGeneration") == service.get("generation"),
        succeeded=condition.get("state") == _SUCCEEDED,
        message=printable(str(condition.get("message") or "")),
        latest_ready=latest_ready,
        latest_created=_short_name(service.get("latestCreatedRevision")),
    )


def _target(row: Mapping[str, object]) -> TrafficTarget:
    revision = row.get("revision")
    latest = row.get("type") == _LATEST or not isinstance(revision, str)
    return TrafficTarget(
        revision=None if latest else _short_name(revision),
        percent=percent(row),
        tag=text(row.get("tag")),
        uri=text(row.get("uri")),
    )


def _object(reply: Reply) -> dict[str, object]:
    decoded = reply.json()
    if not isinstance(decoded, dict):
        raise UnusableReplyError(f"{reply.request_line}: a JSON object was expected")
    return decoded


def _short_name(value: object) -> str | None:
    return value.rsplit("/", 1)[-1] if isinstance(value, str) and value else None
