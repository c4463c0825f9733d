"""The JSON API of Cloud Storage: one bucket, whose writes and deletes keep to the conditions on an object's generation.

The conditions are the subject: the public emulators ignore them on reading and deleting. Only ``ifGenerationMatch`` is known; a request with
another condition, or an upload in several parts, is refused.
"""

import hashlib
import re

import attrs

from cutover.simulation.cloud_run import google_error
from cutover.simulation.exchange import Operation, Reply, Request, json_reply
from cutover.simulation.layout import Credentials

_PATH = re.compile(r"(?P<upload>/upload)?/storage/v1/b/(?P<bucket>[^/]+)/o(?:/(?P<name>.+))?", re.DOTALL)
_PERMISSIONS_PATH = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/iam/testPermissions")
_LONGEST_NAME = 1024
_MOST_ROWS = 1_000


@attrs.frozen
class StoredObject:
    """One object of the bucket."""

    content: bytes
    generation: int


@attrs.define(eq=False, kw_only=True)
class ObjectStore:
    """One bucket of Cloud Storage."""

    bucket: str
    credentials: Credentials
    objects: dict[str, StoredObject] = attrs.field(factory=dict)
    """Object by name."""
    denied: frozenset[str] = frozenset()
    """The permissions that no account has."""
    _generation: int = 1_700_000_000_000_000
    """The generation of the last write."""

    def operation(self, method: str, path: str) -> Operation:
        """Return the operation that a request asks for."""
        found = _PATH.fullmatch(path)
        if found is None:
            asks = method == "GET" and _PERMISSIONS_PATH.fullmatch(path) is not None
            return Operation.OBJECT_PERMISSION if asks else Operation.OTHER
        match method, found["upload"], found["name"]:
            case "POST", "/upload", None:
                return Operation.OBJECT_WRITE
            case "GET", None, None:
                return Operation.OBJECT_LIST
            case "GET", None, _:
                return Operation.OBJECT_READ
            case "DELETE", None, str():
                return Operation.OBJECT_DELETE
            case _:
                return Operation.OTHER

    def answer(self, request: Request, operation: Operation) -> Reply:
        """Return the reply to a request."""
        found = _PATH.fullmatch(request.path)
        name = (found["name"] if found is not None else None) or request.query.get("name", "")
        stored = self.objects.get(name)
        asks = operation is Operation.OBJECT_PERMISSION
        early = self._permission(request) if asks else self._refusal(request, operation, name)
        if early is not None:
            return early
        match operation:
            case Operation.OBJECT_LIST:
                return self._list(request)
            case Operation.OBJECT_WRITE:
                return self._write(name, request)
            case Operation.OBJECT_DELETE:
                del self.objects[name]
                return Reply(status=204)
            case _ if stored is not None and request.query.get("alt") == "media":
                headers = (
                    ("content-type", "application/json"),
                    ("x-goog-generation", str(stored.generation)),
                )
                return Reply(headers=headers, body=(stored.content,))
            case _:
                return json_reply(_resource(name, self.objects[name]))

    def _permission(self, request: Request) -> Reply:
        """Return the permission that a request asks about, if the token has it. The simulated account has all of them but ``denied``."""
        found = _PERMISSIONS_PATH.fullmatch(request.path)
        if "cloud_run" not in self.credentials.names(request.token):
            return google_error(401, "authError", "Invalid Credentials")
        if found is None or found["bucket"] != self.bucket:
            return google_error(404, "notFound", "The specified bucket does not exist.")
        asked = request.query.get("permissions", "")
        granted = {} if asked in self.denied else {"permissions": [asked]}
        return json_reply({"kind": "storage#testIamPermissionsResponse", **granted})

    def _refusal(self, request: Request, operation: Operation, name: str) -> Reply | None:
        """Return the refusal of a request; None if the bucket carries it out."""
        found, stored = _PATH.fullmatch(request.path), self.objects.get(name)
        if "cloud_run" not in self.credentials.names(request.token):
            return google_error(401, "authError", "Invalid Credentials")
        if found is None or operation is Operation.OTHER or found["bucket"] != self.bucket:
            return google_error(404, "notFound", "There is no such bucket, or no such method.")
        if operation is Operation.OBJECT_LIST:
            return None
        if not 0 < len(name.encode()) <= _LONGEST_NAME or "\n" in name or "\r" in name:
            return google_error(400, "invalid", "Invalid object name")
        if operation is not Operation.OBJECT_WRITE and stored is None:
            return google_error(404, "notFound", f"No such object: {self.bucket}/{name}")
        return _condition(request, stored)

    def _write(self, name: str, request: Request) -> Reply:
        if request.query.get("uploadType") != "media":
            return google_error(400, "invalid", "The simulation takes only uploadType=media")
        self._generation += 1
        self.objects[name] = StoredObject(request.body, self._generation)
        return json_reply(_resource(name, self.objects[name]))

    def _list(self, request: Request) -> Reply:
        prefix, token = request.query.get("prefix", ""), request.query.get("pageToken", "")
        limit = request.query.get("maxResults", str(_MOST_ROWS))
        if re.fullmatch(r"[1-9][0-9]{0,8}", limit) is None:
            return google_error(400, "invalid", "Invalid maxResults")
        delimiter = request.query.get("delimiter", "")
        rows = {_shown(name, prefix, delimiter) for name in self.objects if name.startswith(prefix)}
        names = sorted(name for name in rows if name > token)
        shown = names[: min(int(limit), _MOST_ROWS)]
        reply: dict[str, object] = {"kind": "storage#objects"}
        if items := [_resource(name, self.objects[name]) for name in shown if name in self.objects]:
            reply["items"] = items
        if folders := [name for name in shown if name not in self.objects]:
            reply["prefixes"] = folders
        if len(names) > len(shown):
            # The next page begins after the last name of this one.
            reply["nextPageToken"] = shown[-1]
        return json_reply(reply)


def _condition(request: Request, stored: StoredObject | None) -> Reply | None:
    """Return the refusal of a request whose condition does not hold; None if it holds, or there is none."""
    unknown = [name for name in request.query if name.startswith("if") and name != "ifGenerationMatch"]
    wanted = request.query.get("ifGenerationMatch")
    if unknown or (wanted is not None and re.fullmatch(r"[0-9]{1,19}", wanted) is None):
        return google_error(400, "invalid", f"Invalid condition: {', '.join(unknown) or 'ifGenerationMatch'}")
    if wanted is None or int(wanted) == (stored.generation if stored is not None else 0):
        return None
    return google_error(
        412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
    )


def _shown(name: str, prefix: str, delimiter: str) -> str:
    """Return an object's name as a list shows it: with a delimiter behind the prefix, only up to that."""
    below, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
    return f"{prefix}{below}{found}" if found else name


def _resource(name: str, stored: StoredObject) -> dict[str, object]:
    """Return the resource of an object, with 64-bit numbers as texts (JSON mapping of proto3)."""
    return {
        "kind": "storage#object",
        "name": name,
        "generation": str(stored.generation),
        "size": str(len(stored.content)),
        "etag": hashlib.sha256(stored.content).hexdigest()[:16],
    }
