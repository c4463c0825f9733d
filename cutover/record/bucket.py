"""A bucket of Cloud Storage, by its JSON API: four requests for objects, and the question about the permissions of the token.

An object gets a new generation with each write. A write with ``ifGenerationMatch=G`` is refused with 412 if the object has another
generation than G by then; G = 0 means that there must be no such object (Cloud Storage, request preconditions). So of two writers one wins.

A write whose answer was lost is sent again: if the first one took effect, the second gets 412, and the object then holds this writer's own
content. Each content names its writer, once for each name of an object, so an object that names this writer is one's own write.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

import attrs
import msgspec

from cutover.errors import RefusedError, UnusableReplyError
from cutover.http.outbound import Outbound, Reply
from cutover.http.tokens import Token, fixed
from cutover.text import printable

MOST_OBJECTS = 50_000
"""Largest number of objects that one listing reads."""
MOST_BYTES = 8 << 20
"""Bytes of the largest object that is read."""
PERMISSIONS = tuple(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list"))
"""The permissions that a train and its recovery need on the bucket (roles/storage.objectUser has them)."""
_PAGE = 1_000
_GENERATION = re.compile(r"[1-9][0-9]{0,18}")
_LONGEST_NAME = 1024
_ADVICE = {
    401: "; renew CLOUD_RUN_ACCESS_TOKEN (or the application default credentials, if that is not set)",
    403: "; grant roles/storage.objectUser on the bucket of STATE_URL to the account of the token",
    404: "; check that the bucket of STATE_URL exists",
}


@attrs.frozen(kw_only=True)
class StoredObject:
    """An object as it was read."""

    content: bytes
    generation: int


@attrs.define(eq=False, kw_only=True)
class Bucket:
    """One bucket."""

    outbound: Outbound
    api_url: str
    """URL such as ``https://storage.googleapis.com``, without a trailing slash."""
    name: str
    token: Token = attrs.field(converter=fixed)
    """The access token; each try asks for it."""

    async def put(
        self, name: str, content: Mapping[str, object], *, generation: int, label: str
    ) -> int | None:
        """Write an object, if it has this generation; 0 means that there must be none.

        The request may be sent again, because its condition lets it take effect only once.

        Args:
            name: Name of the object.
            content: A JSON object whose ``writer`` is a text that no other writer has; see the top of this module.
            generation: The generation that the write replaces.
            label: Name of the request.

        Returns:
            The new generation; None if somebody else has written the object.

        Raises:
            PeerError: There was no usable answer; the write may have taken effect.
        """
        reply = await self.outbound.read(
            "POST",
            f"{self.api_url}/upload/storage/v1/b/{self.name}/o"
            f"?uploadType=media&name={quote(name, safe='')}&ifGenerationMatch={generation}",
            label=label,
            authorize=self.token,
            json=content,
        )
        if reply.status == HTTPStatus.PRECONDITION_FAILED:
            found = await self.read(name, label=f"{label}.look")
            return (
                found.generation
                if found is not None and _writer(found.content) == content["writer"]
                else None
            )
        return _generation(_object(_expect_success(reply)).get("generation"), reply)

    async def read(self, name: str, *, label: str) -> StoredObject | None:
        """Return an object; None if there is none.

        Raises:
            PeerError: There was no usable answer.
        """
        reply = await self.outbound.read(
            "GET", f"{self._url(name)}?alt=media", label=label, authorize=self.token
        )
        if reply.status == HTTPStatus.NOT_FOUND:
            return None
        _expect_success(reply)
        if len(reply.body) > MOST_BYTES:
            raise UnusableReplyError(f"{reply.request_line}: the object is larger than {MOST_BYTES} bytes")
        return StoredObject(
            content=reply.body, generation=_generation(reply.header("x-goog-generation"), reply)
        )

    async def names(self, prefix: str, *, label: str) -> list[str]:
        """Return the names of all objects that begin with a prefix, in order.

        Raises:
            PeerError: There was no usable answer, or there are more than ``MOST_OBJECTS``.
        """
        rows = await self._list(prefix, "items", "items(name)", label=label)
        return sorted(_names([row.get("name") if isinstance(row, dict) else None for row in rows], prefix))

    async def folders(self, prefix: str, *, label: str) -> list[str]:
        """Return the folders below a prefix that ends with a slash: the beginnings of names, up to and with the next slash.

        Raises:
            PeerError: There was no usable answer, or there are more than ``MOST_OBJECTS``.
        """
        return sorted(
            _names(await self._list(prefix, "prefixes", "prefixes&delimiter=/", label=label), prefix)
        )

    async def _list(self, prefix: str, key: str, fields: str, *, label: str) -> list[object]:
        """Return the rows of a list, from all its pages."""
        rows: list[object] = []
        page = ""
        while True:
            reply = await self.outbound.read(
                "GET",
                f"{self.api_url}/storage/v1/b/{self.name}/o?prefix={quote(prefix, safe='')}&maxResults={_PAGE}"
                f"&fields=nextPageToken,{fields}" + (f"&pageToken={quote(page, safe='')}" if page else ""),
                label=label,
                authorize=self.token,
            )
            found = _object(_expect_success(reply))
            more, following = found.get(key, []), found.get("nextPageToken", "")
            if (
                not isinstance(more, list)
                or not isinstance(following, str)
                or (following and following == page)
            ):
                raise UnusableReplyError(f"{reply.request_line}: the reply is not a list of objects")
            rows += more
            if len(rows) > MOST_OBJECTS:
                raise UnusableReplyError(
                    f"{reply.request_line}: there are more than {MOST_OBJECTS} objects below {prefix}"
                )
            if not following:
                return rows
            page = following

    async def delete(self, name: str, *, generation: int, label: str) -> bool:
        """Delete an object, if it has this generation; return False if it has another one by now.

        Raises:
            PeerError: There was no usable answer; the object may be deleted.
        """
        reply = await self.outbound.read(
            "DELETE", f"{self._url(name)}?ifGenerationMatch={generation}", label=label, authorize=self.token
        )
        if reply.status == HTTPStatus.PRECONDITION_FAILED:
            return False
        # After a lost answer the second try finds no object.
        if reply.status != HTTPStatus.NOT_FOUND:
            _expect_success(reply)
        return True

    async def missing_permission(self, *, label: str) -> str:
        """Return the first of ``PERMISSIONS`` that the token does not have; an empty text if it has all. Nothing is changed.

        Raises:
            PeerError: There was no usable answer.
        """
        for permission in PERMISSIONS:
            reply = await self.outbound.read(
                "GET",
                f"{self.api_url}/storage/v1/b/{self.name}/iam/testPermissions?permissions={permission}",
                label=label,
                authorize=self.token,
            )
            # A list without a member is left out.
            if permission not in str(_object(_expect_success(reply)).get("permissions", "")):
                return permission
        return ""

    def _url(self, name: str) -> str:
        return f"{self.api_url}/storage/v1/b/{self.name}/o/{quote(name, safe='')}"


def _expect_success(reply: Reply) -> Reply:
    """Return a reply whose status is 2xx.

    Raises:
        RefusedError: The status is another one. The message says what to do.
    """
    try:
        return reply.expect_success()
    except RefusedError as error:
        raise RefusedError(
            f"{error}{_ADVICE.get(error.status, '')}", status=error.status, retry_after=error.retry_after
        ) from error


def _object(reply: Reply) -> dict[str, object]:
    decoded = reply.json()
    if not isinstance(decoded, dict):
        raise UnusableReplyError(f"{reply.request_line}: a JSON object was expected")
    return decoded


def _generation(text: object, reply: Reply) -> int:
    if not isinstance(text, str) or _GENERATION.fullmatch(text) is None:
        shown = printable(repr(text), 40)
        raise UnusableReplyError(f"{reply.request_line}: the reply has no usable generation, but {shown}")
    return int(text)


def _names(rows: list[object], prefix: str) -> list[str]:
    """Return the rows of a list if each is a name that begins with the prefix.

    Raises:
        UnusableReplyError: One is not.
    """
    right = [
        name
        for name in rows
        if isinstance(name, str) and name.startswith(prefix) and len(name.encode()) <= _LONGEST_NAME
    ]
    if len(right) != len(rows):
        raise UnusableReplyError(f"the bucket's answer is not a list of objects below {prefix}")
    return right


def _writer(stored: bytes) -> object:
    """Return the writer that an object names; None if it names none."""
    try:
        return msgspec.json.decode(stored, type=dict[str, object]).get("writer")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
