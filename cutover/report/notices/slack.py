"""A notice as a message to an incoming webhook of Slack."""

from cutover.report.notices.notice import Notice

MOST_CHARACTERS = 4000
"""Characters of the longest text, before it is escaped. Slack cuts a text of more than 40,000."""
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""The three characters with which Slack marks links and mentions."""


def payload(notice: Notice) -> dict[str, object]:
    """Return the message of a notice: plain text without formatting, and no preview of a URL in it."""
    text = notice.text[:MOST_CHARACTERS].translate(_ESCAPES)
    return {"text": text, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
