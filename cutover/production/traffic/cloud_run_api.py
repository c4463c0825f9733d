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
_SUCCEEDED, _FAILED = "CONDITION_SUCCEEDED", "CONDITION_FAILED"
_BAD_REQUEST, _NOT_FOUND = 400, 404
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

    async def may_write(self, current: TrafficState, *, label: str) -> str:
        """Try the permission to update the traffic; see ``TrafficBackend``.

        With ``validateOnly`` the API checks the request and changes nothing (Cloud Run Admin API v2, services.patch), so it may
        be sent again like a read. It has the etag, so even an API that ignores ``validateOnly`` writes over nobody.
        """
        reply = await self.outbound.read(
            "PATCH",
            f"{self.service_url}?updateMask=traffic&validateOnly=true",
            label=label,
            headers=_ACCEPT,
            authorize=self.token,
            json=_body(current.targets, current.etag),
        )
        if reply.status == _BAD_REQUEST:
            return f"the API does not take validateOnly ({reply.describe()})"
        _expect_accepted(reply)
        return ""

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
        reply = await self.outbound.change(
            "PATCH",
            f"{self.service_url}?updateMask=traffic",
            label=label,
            headers=_ACCEPT,
            authorize=self.token,
            json=_body(targets, etag),
        )
        _expect_accepted(reply)

    async def _read(self, url: str, label: str) -> Reply:
        return await self.outbound.read("GET", url, label=label, headers=_ACCEPT, authorize=self.token)


def _body(targets: Sequence[TrafficTarget], etag: str | None) -> dict[str, object]:
    body: dict[str, object] = {"traffic": [_wire(target) for target in targets]}
    return body if etag is None else {**body, "etag": etag}


def _expect_accepted(reply: Reply) -> None:
    """Check the operation in the reply to an update.

    Raises:
        RefusedError: The update was refused, or its operation failed at once.
        UnusableReplyError: The reply is no operation.
    """
    failure = _object(reply.expect_success()).get("error")
    if isinstance(failure, dict):
        code = failure.get("code")
        detail = printable(f"code {code}: {failure.get('message') or 'no message'}")
        status = _HTTP_BY_RPC_CODE.get(code, 500) if isinstance(code, int) else 500
        raise RefusedError(f"{reply.request_line}: the operation failed ({detail})", status=status)


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
    terminal = service.get("terminalCondition")
    ready: Mapping[str, object] = terminal if isinstance(terminal, dict) else {}
    parts = {row.get("type"): row for row in rows(service.get("conditions"))}
    routes, configurations = parts.get("RoutesReady", ready), parts.get("ConfigurationsReady", {})
    etag = service.get("etag")
    succeeded = routes.get("state") == _SUCCEEDED
    state = TrafficState(
        targets=tuple(_target(row) for row in rows(service.get("traffic"))),
        statuses=tuple(_target(row) for row in rows(service.get("trafficStatuses"))),
        generation=str(service.get("generation") or ""),
        etag=etag if isinstance(etag, str) else None,
        settled=_is_over(service, ready),
        succeeded=succeeded,
        message=_message(routes) or ("" if succeeded else _message(ready)),
        unready="" if ready.get("state") == _SUCCEEDED else _message(ready) or _shown_state(ready),
        deploying=bool(service.get("reconciling"))
        and configurations.get("state") in {"CONDITION_PENDING", "CONDITION_RECONCILING"},
        latest_ready=_short_name(service.get("latestReadyRevision")),
        latest_created=_short_name(service.get("latestCreatedRevision")),
        ingress=printable(text(service.get("ingress")) or ""),
        default_uri_disabled=service.get("defaultUriDisabled") is True,
    )
    return attrs.evolve(state, settled=True) if _only_deploys(state) else state


def _is_over(service: Mapping[str, object], ready: Mapping[str, object]) -> bool:
    """Return True if the reconciliation is over, with or without success.

    After a failure ``observedGeneration`` stays at the last generation that was served (Cloud Run Admin API v2, Service,
    ``reconciling``), so a generation that is behind means a change in progress only while Ready is not failed.
    """
    observed = service.get("observedGeneration") == service.get("generation")
    return not service.get("reconciling") and (observed or ready.get("state") == _FAILED)


def _only_deploys(state: TrafficState) -> bool:
    """Return True if the service reconciles for a new revision alone, which will not move the split.

    The routes are ready and serve exactly the specification, and no share of it follows LATEST.
    """
    return state.deploying and state.succeeded and not state.asks_for_latest and state.serves(state.targets)


def _message(condition: Mapping[str, object]) -> str:
    return printable(str(condition.get("message") or ""))


def _shown_state(condition: Mapping[str, object]) -> str:
    return printable(str(condition.get("state") or "no condition Ready"))


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
