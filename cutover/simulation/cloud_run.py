"""The Cloud Run Admin API v2: the four methods that a traffic change needs, and the update that is only validated.

JSON follows the proto3 mapping, which leaves out default values. Errors have the form of Google's APIs.
"""

import re
from collections.abc import Mapping, Sequence

import attrs

from cutover.simulation.deployment import NOT_STARTED, Deployment, Target
from cutover.simulation.deployment import Operation as LongRunning
from cutover.simulation.exchange import Fate, Operation, Reply, Request, json_reply
from cutover.simulation.layout import Credentials

_REVISION_TYPE = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
_LATEST_TYPE = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
_WHOLE = 100
_PATH = re.compile(
    r"/v2/(?P<parent>projects/[^/]+/locations/[^/]+)/"
    r"(?:services/(?P<service>[^/]+)(?:/revisions/(?P<revision>[^/]+))?|operations/(?P<operation>[^/]+))"
)


class BadTargetError(ValueError):
    """The API refuses this traffic list."""


@attrs.define(eq=False, kw_only=True)
class CloudRunApi:
    """The Admin API v2 of one Cloud Run service."""

    deployment: Deployment
    credentials: Credentials

    def operation(self, method: str, path: str) -> Operation:
        """Return the operation that a request asks for."""
        match = _PATH.fullmatch(path)
        if match is None:
            return Operation.OTHER
        kind = "operation" if match["operation"] else "revision" if match["revision"] else "service"
        return {
            ("GET", "service"): Operation.SERVICE_READ,
            ("PATCH", "service"): Operation.TRAFFIC_UPDATE,
            ("GET", "revision"): Operation.REVISION_READ,
            ("GET", "operation"): Operation.OPERATION_READ,
        }.get((method, kind), Operation.OTHER)

    def answer(self, request: Request, operation: Operation) -> Reply:
        """Return the reply to one request."""
        if "cloud_run" not in self.credentials.names(request.token):
            return google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        match = _PATH.fullmatch(request.path)
        if match is None or operation is Operation.OTHER:
            return google_error(404, "NOT_FOUND", "Not found.")
        if match["operation"]:
            return self._operation(f"{match['parent']}/operations/{match['operation']}")
        layout = self.deployment.layout
        resource = f"{match['parent']}/services/{match['service']}"
        if resource != layout.service_path:
            return google_error(404, "NOT_FOUND", f"Resource '{match['service']}' was not found.")
        if match["revision"]:
            return self._revision(match["revision"])
        return self._answer_at_service(request, operation)

    def _answer_at_service(self, request: Request, operation: Operation) -> Reply:
        overtake(self.deployment, request.fate)
        if operation is Operation.SERVICE_READ:
            return json_reply(self._service())
        return self._update(request, validate_only=operation is Operation.TRAFFIC_VALIDATE)

    def _service(self) -> dict[str, object]:
        """Return the service. While a revision does not start, ``observedGeneration`` stays at the last generation without failure."""
        deployment = self.deployment
        name = deployment.layout.service_path
        under_way = deployment.reconciling or deployment.deploying
        failure = deployment.failure or deployment.revision_failure
        broken = bool(deployment.revision_failure)
        observed = deployment.served_generation if broken else deployment.observed_generation
        return _without_defaults(
            {
                "name": name,
                "generation": str(deployment.generation),
                "observedGeneration": str(observed),
                "etag": deployment.etag,
                "reconciling": under_way,
                "traffic": [_target(target) for target in deployment.spec],
                "trafficStatuses": [self._status(target) for target in deployment.statuses],
                "latestReadyRevision": f"{name}/revisions/{deployment.latest_ready}",
                "latestCreatedRevision": f"{name}/revisions/{deployment.latest_created}",
                "uri": deployment.layout.front_url,
                "ingress": deployment.layout.ingress,
                "defaultUriDisabled": deployment.layout.default_uri_disabled,
                "terminalCondition": _condition("Ready", failure, under_way=under_way),
                "conditions": [
                    _condition("RoutesReady", deployment.failure, under_way=deployment.reconciling),
                    _condition(
                        "ConfigurationsReady", deployment.revision_failure, under_way=deployment.deploying
                    ),
                ],
            }
        )

    def _status(self, target: Target) -> dict[str, object]:
        return _target(target) | (
            {"uri": self.deployment.tag_url(target.tag)} if target.tag is not None else {}
        )

    def _revision(self, revision: str) -> Reply:
        ready = self.deployment.ready.get(revision)
        if ready is None:
            return google_error(404, "NOT_FOUND", f"Revision '{revision}' was not found.")
        condition = _condition("Ready", "" if ready else NOT_STARTED)
        service = self.deployment.layout.service_path
        name = f"{service}/revisions/{revision}"
        return json_reply({"name": name, "generation": "1", "service": service, "conditions": [condition]})

    def _operation(self, name: str) -> Reply:
        operation = self.deployment.operations.get(name)
        if operation is None:
            return google_error(404, "NOT_FOUND", "Operation not found.")
        return json_reply(self._operation_json(operation))

    def _operation_json(self, operation: LongRunning) -> dict[str, object]:
        fields = _without_defaults({"name": operation.name, "done": operation.done})
        if operation.error:
            fields["error"] = {"code": 13, "message": operation.error}
        elif operation.done:
            fields["response"] = {
                "@type": "type.googleapis.com/google.cloud.run.v2.Service"
            } | self._service()
        return fields

    def _update(self, request: Request, *, validate_only: bool) -> Reply:
        deployment = self.deployment
        if request.query.get("updateMask") != "traffic":
            return google_error(400, "INVALID_ARGUMENT", "update_mask must be 'traffic'.")
        try:
            body = request.json_object()
            etag = body.get("etag")
            targets = read_targets(body.get("traffic"), deployment.ready)
        except ValueError as error:
            return google_error(400, "INVALID_ARGUMENT", str(error))
        if etag is not None and etag != deployment.etag:
            return google_error(409, "ABORTED", "Conflict for resource: the etag is not the current one.")
        if validate_only:
            name = f"{deployment.layout.service_path.partition('/services/')[0]}/operations/validated"
            return json_reply(self._operation_json(LongRunning(name=name, done=True)))
        return json_reply(self._operation_json(deployment.update(targets, request.fate)))


def with_query(operation: Operation, query: Mapping[str, str]) -> Operation:
    """Return the operation that a request asks for with its query: an update with ``validateOnly`` changes nothing."""
    only = operation is Operation.TRAFFIC_UPDATE and query.get("validateOnly") == "true"
    return Operation.TRAFFIC_VALIDATE if only else operation


def overtake(deployment: Deployment, fate: Fate) -> None:
    """Deploy a revision, as somebody else would, if the fate of a request says so."""
    if fate.overtaken:
        deployment.deploy(ready=not fate.overtaken_by_broken, seconds=fate.overtaken_for)


def read_targets(traffic: object, revisions: Mapping[str, object]) -> tuple[Target, ...]:
    """Return the traffic targets of an update's JSON.

    Args:
        traffic: the ``traffic`` member of the request body.
        revisions: every revision that exists, by name.

    Raises:
        BadTargetError: an entry is not a traffic target, or ``check_targets`` refuses the list.
    """
    targets = tuple(_read_target(entry) for entry in (traffic if isinstance(traffic, list) else ()))
    check_targets(targets, revisions)
    return targets


def check_targets(targets: Sequence[Target], revisions: Mapping[str, object]) -> None:
    """Check a traffic list by the rules that both versions of the API share.

    Args:
        targets: the traffic list.
        revisions: every revision that exists, by name.

    Raises:
        BadTargetError: the list is empty, a revision does not exist, the percentages do not sum to 100, or a tag
            occurs twice.
    """
    if not targets:
        raise BadTargetError("traffic must be a non-empty list.")
    for target in targets:
        if target.revision is not None and target.revision not in revisions:
            raise BadTargetError(f"Revision {target.revision} does not exist.")
    total = sum(target.percent for target in targets)
    if total != _WHOLE:
        raise BadTargetError(f"The traffic percentages must sum to 100, but sum to {total}.")
    tags = [target.tag for target in targets if target.tag is not None]
    if len(set(tags)) != len(tags):
        raise BadTargetError("Each tag must be used at most once.")


def _read_target(entry: object) -> Target:
    if not isinstance(entry, dict):
        raise BadTargetError("A traffic target must be an object.")
    kind, revision = entry.get("type"), entry.get("revision")
    if kind == _LATEST_TYPE and revision is None:
        return read_share(entry, revision=None)
    if kind != _REVISION_TYPE or not isinstance(revision, str):
        raise BadTargetError(
            "A traffic target must be LATEST without a revision, or REVISION with a revision."
        )
    return read_share(entry, revision=revision)


def read_share(entry: Mapping[str, object], *, revision: str | None) -> Target:
    """Return the target of an entry. Both versions of the API write the percentage and the tag in the same form.

    Args:
        entry: the entry's JSON.
        revision: the entry's revision; None for LATEST.

    Raises:
        BadTargetError: the percentage or the tag is not valid.
    """
    percent, tag = entry.get("percent", 0), entry.get("tag")
    if type(percent) is not int or not 0 <= percent <= _WHOLE:
        raise BadTargetError("percent must be a whole number from 0 to 100.")
    if tag is not None and (not isinstance(tag, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,45}", tag)):
        raise BadTargetError(
            "tag must be 1 to 46 lower-case letters, digits or hyphens, and begin with a letter."
        )
    return Target(revision=revision, percent=percent, tag=tag)


def _target(target: Target) -> dict[str, object]:
    return _without_defaults(
        {
            "type": _LATEST_TYPE if target.revision is None else _REVISION_TYPE,
            "revision": target.revision or "",
            "percent": target.percent,
            "tag": target.tag or "",
        }
    )


def _condition(kind: str, failure: str, *, under_way: bool = False) -> dict[str, object]:
    """Return a condition: under way, failed with a message, or succeeded."""
    if under_way:
        return {"type": kind, "state": "CONDITION_RECONCILING"}
    if failure:
        return {"type": kind, "state": "CONDITION_FAILED", "message": failure}
    return {"type": kind, "state": "CONDITION_SUCCEEDED"}


def _without_defaults(message: Mapping[str, object]) -> dict[str, object]:
    """Return a message without its default values: the JSON mapping of proto3 leaves them out."""
    return {key: value for key, value in message.items() if value not in (0, "", None)}


def google_error(code: int, status: str, message: str) -> Reply:
    """Return an error reply in the form of Google's APIs."""
    return json_reply({"error": {"code": code, "message": message, "status": status}}, status=code)
