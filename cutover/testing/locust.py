"""A Locust user whose streams are held to a contract, on one machine or on many. It needs the extra `locust`.

A locustfile::

    from cutover.protocols import AI_SDK_7
    from cutover.testing.locust import StreamUser
    from locust import between, task

    class Chat(StreamUser):
        contract = AI_SDK_7
        wait_time = between(1, 5)

        @task
        def ask(self):
            self.check_stream("/api/chat", json={"messages": []})

Importing this module imports Locust, which replaces parts of the standard library by gevent's. So import it in
locustfiles, and not in other tests.
"""

# Locust comes before every import that loads `ssl`, because gevent cannot replace all of `ssl` afterwards.
try:
    from locust import FastHttpUser
except ModuleNotFoundError as error:
    raise ImportError("cutover.testing.locust needs Locust: pip install 'stream-cutover[locust]'") from error

import time
from collections.abc import Mapping
from typing import Final

from geventhttpclient.client import HTTPClientPool
from geventhttpclient.header import Headers
from geventhttpclient.url import URL

from cutover.checking.arguments import bounded, context_for, judged_by, request_for
from cutover.checking.masked_report import masked_report
from cutover.contract import ContractChecker, ContractReport, StreamContext, StreamContract
from cutover.errors import ContractViolation
from cutover.http.connection import SSE_HEADERS
from cutover.http.secrets import mask_urls, secrets_of
from cutover.protocols import COMPAT_LANE
from cutover.testing.gevent_stream import GeventConnection, GeventStream

REQUEST_TYPE: Final = "SSE"
"""The type of each entry in Locust's statistics."""
_CLIENTS: Final[dict[type, HTTPClientPool]] = {}
"""The HTTP client of each class of users: that of its first user. Each TLS context holds all root certificates, near 1 MB."""


class StreamUser(FastHttpUser):
    """A user of a load test. Its tasks call `check_stream`.

    The other attributes are those of `FastHttpUser`: `host`, `wait_time`, `default_headers`, `insecure` (Locust does not check
    certificates unless it is False), a proxy. `self.client` is there for other requests.
    """

    abstract = True
    contract: StreamContract = COMPAT_LANE
    """The contract that each stream must keep. Default: ``COMPAT_LANE``."""

    def check_stream(
        self,
        path: str,
        *,
        method: str | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
        strict: bool = True,
        deadline: float | None = None,
        context: StreamContext | None = None,
    ) -> ContractReport:
        """Send one request, check its stream against the strict form of the contract, count it in Locust's statistics, and return the report.

        Redirects are not followed, and no cookie is kept or sent. Each stream has a connection of its own. When Locust stops
        this user, its stream is closed and counts nowhere.

        The statistics get an entry with the name of the stream (its whole time, its bytes), and the entries "NAME: first event",
        "NAME: first content" (if the contract says which kinds have content) and "NAME: longest gap". A stream that breaks the contract is a failure of the first entry. The failure is named by its rule.

        Args:
            path: Path and query, relative to `host`; or an absolute URL.
            method: The request's method. Default: the contract's, which is POST unless it says another.
            json: The request's body, sent as JSON. Default: no body. If it is an object with a text ``id``, the stream
                must belong to that thread.
            headers: Headers to send besides `default_headers`. Default: none.
            name: Name of the entry in the statistics. Give one if the path or its query changes. Default: the path.
            strict: True for the strict form of the contract (`StreamContract.strict`): each loss that a user can see is a violation.
                False for the client's own verdict. Default: True.
            deadline: Seconds from connecting to the end of the stream. It replaces the contract's own limit ``whole``. Default: that
                limit. A stream without an end of its own (`StreamContract.endless`) is left then, and judged as far as it went.
            context: The thread id of the request and the ids of earlier tool calls. By default, a text ``id`` in ``json`` is the
                thread id.

        Returns:
            The report, with the credentials of the request masked. A violation or a failure of the network is a finding in
            it and does not raise.

        Raises:
            ValueError: The URL has no host, or a header cannot be sent.
        """
        limited, leave_after = bounded(judged_by(self.contract, strict=strict, deadline=deadline))
        url = self._url(path)
        request = request_for(self.contract, url, method=method, json=json, headers=headers)
        fields = self._fields(request.headers)
        split = URL(url)
        if not split.host:
            raise ValueError(f"no host in {url}: set `host`, for example http://127.0.0.1:8000")
        client = _CLIENTS.setdefault(type(self), self.client.client.clientpool).get_client(split)
        stream = GeventStream(
            GeventConnection(client, request.method, split.quoted_uri, fields, request.body),
            ContractChecker(limited, context=context_for(context, json)),
            leave_after,
        )
        began = time.time()
        stream.run()
        report = masked_report(stream.checker.report(), secrets_of(fields))
        self._count(
            report,
            name or mask_urls(path),
            url=mask_urls(url),
            began=began,
            violation=_violation(report, stream),
        )
        return report

    def _url(self, path: str) -> str:
        """Return the absolute URL of a path."""
        if path.startswith(("http://", "https://")):
            return path
        return f"{str(self.client.base_url).rstrip('/')}/{path.removeprefix('/')}"

    def _fields(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return all headers of a request: later ones replace earlier ones."""
        # Without other codings to choose from, a service does not answer with one that cannot be decoded here.
        fields = Headers({"accept-encoding": "gzip", **SSE_HEADERS})
        if self.client.auth_header is not None:
            fields["authorization"] = self.client.auth_header
        for more in (self.default_headers or {}, headers):
            fields.update(more)
        return fields.compatible_dict()

    def _count(
        self,
        report: ContractReport,
        name: str,
        *,
        url: str,
        began: float,
        violation: ContractViolation | None,
    ) -> None:
        """Count a stream in the statistics of Locust."""

        def fire(entry: str, seconds: float, length: int, exception: ContractViolation | None) -> None:
            self.environment.events.request.fire(
                request_type=REQUEST_TYPE,
                name=entry,
                response_time=seconds * 1000,
                response_length=length,
                response=None,
                exception=exception,
                context=self.context(),
                start_time=began,
                url=url,
            )

        times = report.timings
        fire(name, times.end or 0.0, report.byte_count, violation)
        parts = {"first event": times.first_event, "first content": times.first_content}
        if times.first_event is not None:
            # Of a stream that never began, the longest gap would be the time until it was given up.
            parts["longest gap"] = times.max_gap
        for part, seconds in parts.items():
            if seconds is not None:
                fire(f"{name}: {part}", seconds, 0, None)


def _violation(report: ContractReport, stream: GeventStream) -> ContractViolation | None:
    """Return the failure of a stream for the statistics; None if the contract holds.

    Locust counts equal messages together. So the message holds the rule, its reason in short, and nothing that differs from stream to
    stream.
    """
    if report.ok:
        return None
    rule = report.violations[0].rule if report.violations else "stream.unfinished"
    reason = (report.why(rule) or "The stream has not ended").partition(":")[0].rstrip(".")
    if rule in {"head.status", "head.redirect"}:
        reason += f" ({stream.status})"
    elif stream.failure is not None:
        reason += f" ({stream.failure})"
    return ContractViolation(f"{rule}: {reason}", findings=report.violations)
