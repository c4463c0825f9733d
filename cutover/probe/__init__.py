"""HTTP requests under a contract.

``stream.py`` is one stream as it comes, ``single.py`` one probe to its end, ``lane.py`` the probes of a lane's aliases.
"""

from cutover.probe.lane import LaneProber
from cutover.probe.single import MAX_CAPTURE_BYTES, Probe, check_stream, probe_stream
from cutover.probe.stream import CLOSE_SECONDS, CheckedStream, Hold, StreamRequest

__all__ = [
    "CLOSE_SECONDS",
    "MAX_CAPTURE_BYTES",
    "CheckedStream",
    "Hold",
    "LaneProber",
    "Probe",
    "StreamRequest",
    "check_stream",
    "probe_stream",
]
