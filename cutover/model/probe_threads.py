"""The threads that probes leave in a user's lists. A dual run leaves them out, because each service has other ones.

Every probe starts a thread, and the services list it: in ``/api/me``, ``/api/runtime/threads`` and ``/api/chats``. Where the two
services have separate stores, these lists differ in the threads of the probes alone.

A thread is a probe's if its id begins with THREAD_ID_PREFIX, an underscore and a time such as ``20261128T105003Z``, as the ids of all trains
do. The prefix alone would not be enough: with a short prefix (``thread``) the user's own threads would be left out.

A list with 50 entries is probably cut, because the services list at most 50 threads. Then each probe pushes one of the user's threads out.
Such a list is compared as far as both services certainly show it: only the first threads that are not probes'.
"""

import re
from collections.abc import Sequence, Sized

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
    new: Sequence[object], old: Sequence[object], *, prefix: str
) -> tuple[list[object], list[object], tuple[LeftOut, ...]]:
    """Return answers without the threads of probes, and a note for each place at which one was left out.

    Args:
        new: The decoded JSON of each answer of the new service.
        old: The same for the legacy service.
        prefix: THREAD_ID_PREFIX.
    """
    walk = _Walk(re.compile(f"{re.escape(prefix)}_{_TIME}"), len(new))
    kept = walk.all([*new, *old], "")
    return kept[: len(new)], kept[len(new) :], tuple(walk.notes)


@attrs.define(eq=False)
class _Walk:
    """A walk through all answers side by side, because a list is compared only as far as each of them shows it."""

    probe_id: re.Pattern[str]
    new_count: int
    """Number of the answers of the new service, which come first."""
    notes: list[LeftOut] = attrs.field(factory=list)

    def all(self, values: list[object], where: str) -> list[object]:
        """Return the values at the same place of all answers, without the threads of probes."""
        objects = [value for value in values if isinstance(value, dict)]
        if len(objects) == len(values):
            return list(self._objects(objects, where))
        lists = [value for value in values if isinstance(value, list)]
        if len(lists) == len(values):
            return list(self._lists(lists, where))
        return values

    def _objects(self, values: list[dict[str, object]], where: str) -> list[dict[str, object]]:
        kept = [{key: item for key, item in value.items() if not self._names_probe(key)} for value in values]
        new, old = self._numbers_left_out(values, kept)
        if new or old:
            self.notes.append(LeftOut(where=where, new=new, old=old))
        for key in set(kept[0]).intersection(*kept[1:]):
            items = self.all([value[key] for value in kept], f"{where}.{printable(key, 60)}")
            for value, item in zip(kept, items, strict=True):
                value[key] = item
        return kept

    def _lists(self, values: list[list[object]], where: str) -> list[list[object]]:
        kept = [[item for item in value if not self._is_probes(item)] for value in values]
        cut = [
            len(some)
            for value, some in zip(values, kept, strict=True)
            if len(some) < len(value) == LISTED_AT_MOST
        ]
        head = min(cut, default=None)
        new, old = self._numbers_left_out(values, kept)
        if new or old:
            unseen = head == 0 and any(kept)
            self.notes.append(LeftOut(where=where, new=new, old=old, head=head, unseen=unseen))
        kept = [value[:head] for value in kept]
        for index in range(min(map(len, kept))):
            items = self.all([value[index] for value in kept], f"{where}[{index}]")
            for value, item in zip(kept, items, strict=True):
                value[index] = item
        return kept

    def _numbers_left_out(self, values: Sequence[Sized], kept: Sequence[Sized]) -> tuple[int, int]:
        """Return the largest number of items that an answer of the new service lost, and the same for the legacy service."""
        lost = [len(value) - len(some) for value, some in zip(values, kept, strict=True)]
        return max(lost[: self.new_count]), max(lost[self.new_count :])

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
