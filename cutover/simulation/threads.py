"""The threads of the one chat user that each service has. Every stream leaves its thread in the user's lists."""

import attrs

FOREIGN_THREAD = "thread_of_others"
"""Id of a thread that belongs to another user."""
_LISTED = 50
"""Threads that the short lists hold at most; a newer thread pushes an older one out."""
_KEPT = 10_000
"""Threads that a service remembers at most."""


@attrs.define(eq=False)
class Threads:
    """The threads of a user, the oldest first."""

    _turns: dict[str, int] = attrs.field(factory=lambda: {"thread_1": 1})
    """Number of turns by thread id."""

    def add_turn(self, thread_id: str) -> None:
        """Count a turn of a thread, which becomes the newest thread."""
        self._turns[thread_id] = self._turns.pop(thread_id, 0) + 1
        if len(self._turns) > _KEPT:
            del self._turns[next(iter(self._turns))]

    def documents(self) -> dict[str, dict[str, object]]:
        """Return the documents that list the threads, the newest thread first: path -> document."""
        newest = list(reversed(self._turns.items()))
        titled = [{"id": thread_id, "title": "Hello"} for thread_id, _ in newest]
        user = {"id": "user_1", "email": "operator@openagents.com"}
        return {
            "/api/me": {"data": {"user": user, "chatThreads": titled[:_LISTED]}},
            "/api/runtime/threads": {"data": titled},
            "/api/chats": {
                "data": [{"id": thread_id, "messages": 2 * turns} for thread_id, turns in newest[:_LISTED]]
            },
        }
