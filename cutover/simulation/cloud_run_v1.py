"""The Cloud Run API v1, which gcloud uses.

A client reads and replaces a whole Knative service, lists revisions, and waits for operations.
"""

import re
from collections.abc import Iterator

import attrs

from cutover.simulation.cloud_run import BadTargetError, check_targets, google_error, overtake, read_share
from cutover.simulation.deployment import NOT_STARTED, Deployment, Target
from cutover.simulation.deployment import Operation as LongRunning
from cutover.simulation.exchange import Operation, Reply, Request, json_reply
from cutover.simulation.layout import Credentials

_PATH = re.compile(
    r"/apis/serving\.knative\.dev/v1/namespaces/(?P<namespace>[^/]+)/"
    r"(?:services/(?P<service>[^/]+)|(?P<revisions>revisions)(?:/(?P<revision>[^/]+))?)"
    r"|/v1/(?P<operation>projects/[^/]+/locations/[^/]+/operations/[^/:]+):wait"
)
_API_VERSION = "serving.knative.dev/v1"
_LOCATION, _SERVICE = "cloud.googleapis.com/location", "serving.knative.dev/service"
_OPERATION_ID = "run.googleapis.com/operation-id"
_INGRESS, _NO_DEFAULT_URL = "run.googleapis.com/ingress", "run.googleapis.com/default-url-disabled"
_INGRESS_WORDS = {
    "INGRESS_TRAFFIC_ALL": "all",
    "INGRESS_TRAFFIC_INTERNAL_ONLY": "internal",
    "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER": "internal-and-cloud-load-balancing",
}
_CREATED = "2026-01-01T00:00:00.000000Z"


@attrs.define(eq=False, kw_only=True)
class KnativeApi:
    """The API v1 of one Cloud Run service."""

    deployment: Deployment
    credentials: Credentials

    def operation(self, method: str, path: str) -> Operation:
        """Return the operation that a request asks for."""
        match = _PATH.fullmatch(path)
        if match is None:
            return Operation.OTHER
        kind = "operation" if match["operation"] else "revisions" if match["revisions"] else "service"
        return {
            ("GET", "service"): Operation.SERVICE_READ,
            ("PUT", "service"): Operation.TRAFFIC_UPDATE,
            ("GET", "revisions"): Operation.REVISION_READ,
            ("POST", "operation"): Operation.OPERATION_READ,
        }.get((method, kind), Operation.OTHER)

    def answer(self, request: Request, operation: Operation) -> Reply:
        """Return the reply to one request."""
        if "cloud_run" not in self.credentials.names(request.token):
            return google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        match, layout = _PATH.fullmatch(request.path), self.deployment.layout
        if match is None or operation is Operation.OTHER:
            return google_error(404, "NOT_FOUND", "Not found.")
        if match["operation"]:
            return self._wait(match["operation"])
        if match["namespace"] != layout.project or match["service"] not in (None, layout.service):
            return google_error(404, "NOT_FOUND", f"Resource '{match['service']}' was not found.")
        if match["revisions"]:
            return self._revisions(match["revision"])
        overtake(self.deployment, request.fate)
        return json_reply(self._service()) if operation is Operation.SERVICE_READ else self._replace(request)

    def _metadata(self, name: str, generation: int, **more: object) -> dict[str, object]:
        layout = self.deployment.layout
        return {
            "name": name,
            "namespace": layout.project,
            "uid": "3e4b6f5e-0000-4000-8000-000000000000",
            "creationTimestamp": _CREATED,
            "generation": generation,
            "labels": {_LOCATION: layout.region, _SERVICE: layout.service},
            **more,
        }

    def _service(self) -> dict[str, object]:
        deployment, layout = self.deployment, self.deployment.layout
        last = next(reversed(deployment.operations), "").rpartition("/")[2]
        return {
            "apiVersion": _API_VERSION,
            "kind": "Service",
            "metadata": self._metadata(
                layout.service,
                deployment.generation,
                selfLink=f"/apis/{_API_VERSION}/namespaces/{layout.project}/services/{layout.service}",
                resourceVersion=deployment.etag.strip('"'),
                annotations=self._annotations(last),
            ),
            "spec": {
                "template": {
                    "metadata": {"name": deployment.latest_created},
                    "spec": {"containers": [{"image": "gcr.example/chat"}]},
                },
                "traffic": [_row(target) for target in deployment.spec],
            },
            "status": {
                "observedGeneration": deployment.observed_generation,
                "conditions": [
                    _condition(
                        "Ready",
                        deployment.failure or deployment.revision_failure,
                        under_way=deployment.reconciling or deployment.deploying,
                    ),
                    _condition(
                        "ConfigurationsReady", deployment.revision_failure, under_way=deployment.deploying
                    ),
                    _condition("RoutesReady", deployment.failure, under_way=deployment.reconciling),
                ],
                "latestReadyRevisionName": deployment.latest_ready,
                "latestCreatedRevisionName": deployment.latest_created,
                "traffic": [self._status(target) for target in deployment.statuses],
                "url": layout.front_url,
                "address": {"url": layout.front_url},
            },
        }

    def _annotations(self, last_operation: str) -> dict[str, str]:
        layout = self.deployment.layout
        return (
            {_INGRESS: _INGRESS_WORDS.get(layout.ingress, layout.ingress)}
            | ({_NO_DEFAULT_URL: "true"} if layout.default_uri_disabled else {})
            | ({_OPERATION_ID: last_operation} if last_operation else {})
        )

    def _status(self, target: Target) -> dict[str, object]:
        deployment = self.deployment
        url = {} if target.tag is None else {"url": deployment.tag_url(target.tag)}
        return {**_row(target), "revisionName": target.revision or deployment.latest_ready, **url}

    def _revisions(self, only: str | None) -> Reply:
        ready = self.deployment.ready
        rows = [self._revision(name, ready[name]) for name in ready if only in (None, name)]
        if only is None:
            return json_reply(
                {"apiVersion": _API_VERSION, "kind": "RevisionList", "metadata": {}, "items": rows}
            )
        missing = google_error(404, "NOT_FOUND", f"Resource '{only}' was not found.")
        return json_reply(rows[0]) if rows else missing

    def _revision(self, name: str, ready: bool) -> dict[str, object]:  # noqa: FBT001  a value of `Deployment.ready`
        return {
            "apiVersion": _API_VERSION,
            "kind": "Revision",
            "metadata": self._metadata(name, 1),
            "spec": {"containers": [{"image": "gcr.example/chat"}]},
            "status": {
                "observedGeneration": 1,
                "conditions": [_condition("Ready", "" if ready else NOT_STARTED)],
            },
        }

    def _wait(self, name: str) -> Reply:
        """Answer ``operations.wait`` with the present state, without a wait; 404 for no such operation. Clients ask again."""
        operation = self.deployment.operations.get(name)
        return (
            google_error(404, "NOT_FOUND", "Not found.")
            if operation is None
            else json_reply(self._operation_json(operation))
        )

    def _operation_json(self, operation: LongRunning) -> dict[str, object]:
        fields: dict[str, object] = {"name": operation.name, "done": operation.done}
        if operation.error:
            return fields | {"error": {"code": 13, "message": operation.error}}
        return fields | {"response": self._service()}

    def _replace(self, request: Request) -> Reply:
        deployment = self.deployment
        try:
            body = request.json_object()
            targets = tuple(_read_rows(body))
            check_targets(targets, deployment.ready)
        except ValueError as error:
            return google_error(400, "INVALID_ARGUMENT", str(error))
        metadata = body.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if version not in (None, deployment.etag.strip('"')):
            return google_error(409, "ABORTED", "Conflict for resource: its version is not the current one.")
        operation = deployment.update(targets, request.fate)
        if request.fate.error:
            return google_error(500, "INTERNAL", operation.error)
        return json_reply(self._service())


def _read_rows(service: dict[str, object]) -> Iterator[Target]:
    spec = service.get("spec")
    rows = spec.get("traffic") if isinstance(spec, dict) else None
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            raise BadTargetError("A traffic target must be an object.")
        latest, name = row.get("latestRevision", False), row.get("revisionName")
        if latest is not (name is None) or not isinstance(name, str | None):
            raise BadTargetError("A traffic target must set either latestRevision or revisionName.")
        yield read_share(row, revision=name)


def _row(target: Target) -> dict[str, object]:
    row: dict[str, object] = (
        {"latestRevision": True} if target.revision is None else {"revisionName": target.revision}
    )
    return (
        row
        | ({"percent": target.percent} if target.percent else {})
        | ({"tag": target.tag} if target.tag else {})
    )


def _condition(kind: str, failure: str, *, under_way: bool = False) -> dict[str, object]:
    """Return a condition: under way, failed with a message, or done."""
    status = "Unknown" if under_way else "False" if failure else "True"
    detail = {"reason": "Failed", "message": failure} if failure and not under_way else {}
    return {"type": kind, "status": status, "lastTransitionTime": _CREATED, **detail}
