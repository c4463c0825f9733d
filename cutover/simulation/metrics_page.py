"""The metrics of the simulation for a Prometheus server: the requests of each revision, under Cloud Run's names.

Like Cloud Run, it counts a request at its end, and only a request that reached an instance.
"""

from collections import Counter
from collections.abc import Iterable

from cutover.simulation.exchange import Reply
from cutover.simulation.layout import Layout
from cutover.simulation.request_log import LoggedRequest
from cutover.simulation.wire import Ending

_METRIC = "run_googleapis_com:request_count"


def metrics_page(requests: Iterable[LoggedRequest], layout: Layout) -> Reply:
    """Return the page for these requests: no line for what never occurred."""
    counts = Counter(
        (entry.revision, entry.status)
        for entry in requests
        if entry.revision is not None and entry.status is not None and entry.ending is Ending.COMPLETE
    )
    lines = [f"# TYPE {_METRIC} counter"]
    for (revision, status), count in sorted(counts.items(), key=str):
        labels = {
            "monitored_resource": "cloud_run_revision",
            "project_id": layout.project,
            "location": layout.region,
            "service_name": layout.service,
            "revision_name": revision,
            "response_code": status,
            "response_code_class": f"{(status or 0) // 100}xx",
        }
        shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
        lines.append(f"{_METRIC}{{{shown}}} {count}")
    return Reply(
        status=200,
        headers=(("content-type", "text/plain; version=0.0.4"),),
        body=(("\n".join(lines) + "\n").encode(),),
    )
