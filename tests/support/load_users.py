"""A locustfile: users who read the streams of `load_server.py`, good ones and broken ones."""

from itertools import cycle

import attrs
from locust import constant, task

from cutover.contract import Limits
from cutover.protocols import COMPAT_LANE
from cutover.testing.locust import StreamUser
from tests.support.load_server import BROKEN

PATIENT = attrs.evolve(COMPAT_LANE, limits=Limits(first_event=60, event_gap=60, held_back_after=60))
"""No time that a busy machine takes is a fault of a stream."""
HASTY = attrs.evolve(PATIENT, limits=attrs.evolve(PATIENT.limits, event_gap=0.3))
PATHS = cycle(BROKEN)
"""The next one is for whichever user comes next, so that a short run reads all of them."""


class Reader(StreamUser):
    """A user who reads a good stream, and then one that may be broken."""

    contract = PATIENT
    wait_time = constant(0)

    @task
    def read(self) -> None:
        self.check_stream("/good", json={"id": "any", "messages": []})
        path = next(PATHS)
        self.contract = HASTY if path == "/stall" else PATIENT
        try:
            self.check_stream(path, json={"id": "any", "messages": []})
        finally:
            self.contract = PATIENT
