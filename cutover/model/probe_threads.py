"""The threads that probes leave in a user's lists. A dual run leaves them out, because each service has other ones.

Every probe starts a thread, and the services list it: in ``/api/me``, ``/api/runtime/threads`` and ``/api/chats``. Where the two
services have separate stores, these lists differ in the threads of the probes alone.

A thread is a probe's if its id begins with THREAD_ID_PREFIX, an underscore and a time such as ``20261128T105003Z``, as the ids of all trains
do. The prefix alone would not be enough: with a short prefix (``thread``) the user's own threads would be left out.

A list with 50 entries is probably cut, because the services list at most 50 threads. Then each probe pushes one of the user's threads out.
Such a list is compared as far as both services certainly show it: only the first threads that are not probes'.
"""

import re

import attrs

from cutover.text import printable

LISTED_AT_MOST = 50
"""Entries of a list that a service has cut."""
_TIME = "[0-9]{8}T[0-9]{6}Z"


@attrs.frozen(kw_only=True)
class LeftOut:
    """The items of one list, or the members of one object, that were left out because they are threads of probes."""

    where: str
    """Place in the answer, such as ``.data.chatThreads``; empty for the whole answer."""
    new: int
    """Number of items left out in the answer of the new service."""
    old: int
    """Number of items left out in the answer of the legacy service."""
    head: int | None = None
    """Number of other items that were compared at most; None if all were compared."""
    unseen: bool = False
    """True if one service shows threads of the user, and none could be compared: the other list is full of probes' threads."""

    def describe(self) -> str:
        """Return the numbers in words."""
        text = (
            f"{self.where or 'the answer'} without the threads of probes "
            f"({self.new} in the new service, {self.old} in the legacy service)"
        )
        if self.head is None:
            return text
        compared = f"only the first {self.head} others" if self.head else "none of the others"
        return (
            f"{text}; a list with {LISTED_AT_MOST} entries may be cut, so {compared} could be compared; "
            "use the AUTH_TOKEN of a user who has no threads but those of probes"
        )


def without_probe_threads(
    new: object, old: object, *, prefix: str
) -> tuple[object, object, tuple[LeftOut, ...]]:
    """Return two answers without the threads of probes, and a note for each place at which one was left out.

    Args:
        new: The decoded JSON of the new service.
        old: The decoded JSON of the legacy service.
        prefix: THREAD_ID_PREFIX.
    """
    walk = _Walk(re.compile(f"{re.escape(prefix)}_{_TIME}"))
    one, other = walk.pair(new, old, "")
    return one, other, tuple(walk.notes)


@attrs.define(eq=False)
class _Walk:
    """A walk through two answers side by side, because a list is compared only as far as both services show it."""

    probe_id: re.Pattern[str]
    notes: list[LeftOut] = attrs.field(factory=list)

    def pair(self, new: object, old: object, where: str) -> tuple[object, object]:
        """Return two values at the same place without the threads of probes."""
        if isinstance(new, dict) and isinstance(old, dict):
            return self._objects(new, old, where)
        if isinstance(new, list) and isinstance(old, list):
            return self._lists(new, old, where)
        return new, old

    def _objects(
        self, new: dict[str, object], old: dict[str, object], where: str
    ) -> tuple[dict[str, object], dict[str, object]]:
        one, other = (
            {key: item for key, item in value.items() if not self._names_probe(key)} for value in (new, old)
        )
        if len(one) < len(new) or len(other) < len(old):
            self.notes.append(LeftOut(where=where, new=len(new) - len(one), old=len(old) - len(other)))
        for key in one.keys() & other.keys():
            one[key], other[key] = self.pair(one[key], other[key], f"{where}.{printable(key, 60)}")
        return one, other

    def _lists(self, new: list[object], old: list[object], where: str) -> tuple[list[object], list[object]]:
        one, other = ([item for item in value if not self._is_probes(item)] for value in (new, old))
        cut = [
            len(kept)
            for value, kept in ((new, one), (old, other))
            if len(kept) < len(value) == LISTED_AT_MOST
        ]
        head = min(cut, default=None)
        if len(one) < len(new) or len(other) < len(old):
            self.notes.append(
                LeftOut(
                    where=where,
                    new=len(new) - len(one),
                    old=len(old) - len(other),
                    head=head,
                    unseen=head == 0 and bool(one or other),
                )
            )
        one, other = one[:head], other[:head]
        for index in range(min(len(one), len(other))):
            one[index], other[index] = self.pair(one[index], other[index], f"{where}[{index}]")
        return one, other

    def _is_probes(self, item: object) -> bool:
        """Return True for the id of a probe's thread, and for an object with a member such as ``id`` or ``thread_id`` that holds one."""
        if isinstance(item, dict):
            return any(
                self._names_probe(value)
                for key, value in item.items()
                if key == "id" or key.endswith(("_id", "Id", "ID"))
            )
        return self._names_probe(item)

    def _names_probe(self, value: object) -> bool:
        return isinstance(value, str) and self.probe_id.match(value) is not None
