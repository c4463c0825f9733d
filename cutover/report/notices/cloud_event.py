"""A notice as a CloudEvent 1.0 in structured JSON, for webhooks and commands."""

import attrs

from cutover.report.notices.notice import Notice

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
"""The media type of a CloudEvent in structured mode (CloudEvents, HTTP protocol binding 3.2)."""
_TYPE_PREFIX = "com.openagents.cutover.train."
"""The beginning of every ``type``; the kind of the notice follows."""


def payload(notice: Notice) -> dict[str, object]:
    """Return the CloudEvent of a notice. ``source`` and ``id`` together are unique (CloudEvents 1.0, Required Attributes)."""
    data = attrs.asdict(notice, filter=attrs.filters.exclude("kind", "number", "at"))
    return {
        "specversion": "1.0",
        "id": f"{notice.train}/{notice.number}",
        "source": f"/projects/{notice.project}/locations/{notice.region}/services/{notice.service}",
        "type": f"{_TYPE_PREFIX}{notice.kind.value}",
        "subject": notice.train,
        "time": notice.at,
        "datacontenttype": "application/json",
        "data": {"kind": notice.kind.value, "title": notice.title, **data},
    }
