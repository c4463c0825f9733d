"""A notice as an event of PagerDuty's Events API v2: it opens an incident where an operator must act, and resolves it after a recovery."""

import attrs

from cutover.report.notices.notice import Notice, NoticeKind

MOST_SUMMARY_CHARACTERS = 1024
MOST_KEY_CHARACTERS = 255


def payload(notice: Notice, *, routing_key: str) -> dict[str, object] | None:
    """Return the event of a notice; None if the notice must wake nobody.

    Only a run that leaves something open triggers an incident. Its deduplication key is the id of the train.
    """
    event: dict[str, object] = {
        "routing_key": routing_key,
        "dedup_key": notice.train[:MOST_KEY_CHARACTERS],
    }
    match notice.kind:
        case NoticeKind.UNRESOLVED:
            return {**event, "event_action": "trigger", "client": "cutover", **_incident(notice)}
        case NoticeKind.RECOVERED:
            return {**event, "event_action": "resolve"}
        case _:
            return None


def _incident(notice: Notice) -> dict[str, object]:
    details = attrs.asdict(notice, filter=attrs.filters.exclude("kind", "number", "at"))
    return {
        "payload": {
            "summary": notice.title[:MOST_SUMMARY_CHARACTERS],
            "source": notice.base_url or notice.service,
            "severity": "critical",
            "timestamp": notice.at,
            "component": notice.service,
            "group": notice.project,
            "custom_details": details,
        },
        "links": [{"href": notice.link, "text": "the job that ran the train"}] if notice.link else [],
    }
