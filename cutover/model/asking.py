"""The number of times that a dual run sends one request. Each request goes to both services at once, twice to each."""

import math

SIDE_BY_SIDE = 2
"""Requests to each service in one ask. What differs between these two answers of one service is noise."""
ASKED_AGAIN = 5
"""Further asks, at most, for a request whose answers differ between the services: a difference may be noise that has not shown yet."""
MAX_COMPARED = SIDE_BY_SIDE * (1 + ASKED_AGAIN)
"""Answers of each service that are compared. Further ones, for the latency, count by their status alone."""
TIMED_ANSWERS = 60
"""Answers of each service, in all, while the p95 latency is gated.

Of 59 answers the slowest is above the true 95th percentile with a probability of 95 % (1 - 0.95 ** 59); with fewer, no bound holds.
"""
LOOKS = 3
"""Looks at the latency, at most. While it proves neither that the limit holds nor the contrary, each request is sent as often again."""


def first_asks(reading: int, *, timed: bool) -> int:
    """Return the number of asks for each request, before any is asked again.

    Args:
        reading: Number of requests in the dual run that change nothing.
        timed: True if the p95 latency is gated.
    """
    return math.ceil(TIMED_ANSWERS / (SIDE_BY_SIDE * max(reading, 1))) if timed else 1
