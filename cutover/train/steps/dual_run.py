"""The dual run: it sends the same requests to the new service and to the legacy one, and compares the answers by meaning.

The module is a little longer than most, because the requests, the comparison and its checks are one step.
"""

from collections.abc import Mapping, Sequence

import anyio
import attrs
import msgspec

from cutover.checking.probe import probe_stream
from cutover.contract import StreamContract
from cutover.errors import PeerError, UnusableReplyError
from cutover.http.connection import StreamRequest
from cutover.http.outbound import Outbound, Reply
from cutover.http.tokens import Token, fixed
from cutover.model import step_ids
from cutover.model.comparison import Answer, Verdict, judge, meaning_of, order_of
from cutover.model.dual_run_facts import facts_of, row_of
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.results import StepResult, StepStatus
from cutover.production.services import Services
from cutover.train.legacy_identity import NewService, who_answers
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.DUAL_RUN
_WHAT_TO_DO = "Set LEGACY_BASE_URL to the URL of the legacy service, or set RUN_DUAL_RUN=0"


@attrs.frozen(kw_only=True)
class Side:
    """The new or the legacy service: its address, token and headers for the dual run."""

    name: str
    """``new`` or ``legacy``, as in the evidence."""
    base_url: str
    token: Token = attrs.field(converter=fixed)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the dual run: the requests, the two sides, and the tolerated differences."""

    manifest: tuple[ManifestEntry, ...]
    new: Side
    old: Side
    contract: StreamContract
    """The contract whose limits bound both streams; the dual run ignores every other violation."""
    thread_prefix: str
    """Prefix of the thread ids of the dual run."""
    thread_id_prefix: str
    """Prefix of the thread ids of all probes, also those of other trains. Such threads are left out of compared lists."""
    stable_revision: str
    canary_revision: str
    revision_header: str
    """Header that names the revision that answered; empty if there is none."""
    run_mutating_requests: bool
    max_dual_run_failures: int
    """Number of tolerated mismatches. The step only records this number; the gate applies it to all failed checks."""
    max_p95_latency_delta_ms: float
    """Largest number of milliseconds by which the new p95 latency may exceed the legacy p95 latency; 0 means no check."""


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> StepResult:
    """Send each entry to both sides at once, one entry after another, and compare the answers.

    Entries that change something are skipped unless ``run_mutating_requests`` is set. If the new service answers at the legacy URL,
    the step ends with ``error``, and no entry is sent.
    """
    latencies: dict[str, list[float]] = {plan.new.name: [], plan.old.name: []}
    mismatched: list[ManifestEntry] = []
    skipped = 0
    rows: list[dict[str, object]] = []
    new_service = NewService(
        base_url=plan.new.base_url,
        revision_header=plan.revision_header,
        revisions=(plan.stable_revision, plan.canary_revision),
        status_path=services.control.lane.status_path,
    )
    if not await _two_services(plan, new_service, services, recorder):
        return recorder.finish(facts=_facts(plan, mismatched, latencies, rows, skipped))
    for entry in plan.manifest:
        if entry.mutates and not plan.run_mutating_requests:
            recorder.check(
                entry.id,
                StepStatus.SKIP,
                "not sent, because it changes something: RUN_MUTATING_REQUESTS=1 sends it",
            )
            skipped += 1
            continue
        new, old = await _both(entry, plan, services)
        for side, answer in ((plan.new, new), (plan.old, old)):
            if answer.seconds is not None:
                latencies[side.name].append(answer.seconds)
        verdict = _judge(entry, new, old, plan, new_service)
        paths: tuple[str | None, str | None] = (None, None)
        if verdict.why:
            mismatched.append(entry)
            paths, _ = [
                _keep(entry, side, answer, recorder) for side, answer in ((plan.new, new), (plan.old, old))
            ]
        recorder.check(
            entry.id,
            verdict.status,
            verdict.describe(otherwise=new.said),
            kind=entry.response_kind.value,
            endpoint=entry.path,
            http_status=new.status,
            headers_path=paths[0],
            body_path=paths[1],
            tolerable=verdict.tolerable,
        )
        rows.append(row_of(entry, new, old, verdict))
    if not rows:
        # The row of the identity alone must not make this step pass.
        detail = "nothing was compared: the manifest has no request that may be sent; set RUN_MUTATING_REQUESTS=1, or add one that only reads"
        recorder.check("requests", StepStatus.ERROR, detail, tolerable=False)
    facts = _facts(plan, mismatched, latencies, rows, skipped)
    _hold_thresholds(plan, facts, recorder)
    detail = f"{len(rows)} of {len(rows)} requests have the same answer from both services"
    return recorder.finish(detail, facts=facts)


async def _two_services(
    plan: Plan, new_service: NewService, services: Services, recorder: StepRecorder
) -> bool:
    """Record the identity of the service at the legacy URL; return False if it is the new service."""
    identity = await who_answers(
        services.legacy,
        url=plan.old.base_url,
        token=plan.old.token,
        headers=plan.old.headers,
        new=new_service,
    )
    if identity.sign:
        detail = (
            f"the new service answers at LEGACY_BASE_URL ({identity.sign}), so nothing was compared: the new service "
            f"against itself proves nothing. {_WHAT_TO_DO}"
        )
        recorder.check("legacy-identity", StepStatus.ERROR, detail, kind="legacy_identity", tolerable=False)
        return False
    if identity.answered:
        status, detail = StepStatus.PASS, f"no sign of the new service: {identity.seen}"
    else:
        status, detail = (
            StepStatus.ERROR,
            f"no service answers at LEGACY_BASE_URL: {identity.seen}. Check that the legacy service runs, and that LEGACY_BASE_URL is its URL",
        )
    recorder.check("legacy-identity", status, detail, kind="legacy_identity")
    return True


def _judge(entry: ManifestEntry, new: Answer, old: Answer, plan: Plan, new_service: NewService) -> Verdict:
    """Compare two answers; the status is ``error`` for an answer of the new service at the legacy URL."""
    if sign := new_service.sign_in(old.headers):
        why = f"the new service answers at LEGACY_BASE_URL ({sign}), so the answers prove nothing. {_WHAT_TO_DO}"
        return Verdict(status=StepStatus.ERROR, why=why, tolerable=False)
    return judge(entry, new, old, thread_id_prefix=plan.thread_id_prefix)


def _keep(
    entry: ManifestEntry, side: Side, answer: Answer, recorder: StepRecorder
) -> tuple[str | None, str | None]:
    """Keep the answer of one side as evidence, for an entry with a difference; return the paths of its head and body."""
    if answer.status is None:
        return None, None
    return recorder.evidence.keep_reply(
        STEP_ID,
        f"{entry.id}.{side.name}",
        status_line=f"HTTP {answer.status}",
        headers=answer.headers,
        body=answer.body,
    )


async def _both(entry: ManifestEntry, plan: Plan, services: Services) -> tuple[Answer, Answer]:
    answers: dict[str, Answer] = {}

    async def ask(side: Side, outbound: Outbound) -> None:
        send = _stream if entry.response_kind is ResponseKind.SSE else _plain
        answers[side.name] = await send(entry, side, plan, outbound)

    async with anyio.create_task_group() as group:
        group.start_soon(ask, plan.new, services.service)
        group.start_soon(ask, plan.old, services.legacy)
    return answers[plan.new.name], answers[plan.old.name]


def _headers(entry: ManifestEntry, side: Side) -> dict[str, str]:
    return {**side.headers, **entry.headers}


def _filled(value: object, thread_id: str) -> object:
    """Return a path or a body with the thread id in place of ``{thread_id}``."""
    match value:
        case str():
            return value.replace("{thread_id}", thread_id)
        case dict():
            return {key: _filled(item, thread_id) for key, item in value.items()}
        case list():
            return [_filled(item, thread_id) for item in value]
        case _:
            return value


async def _plain(entry: ManifestEntry, side: Side, plan: Plan, outbound: Outbound) -> Answer:
    thread_id = f"{plan.thread_prefix}{side.name}_{entry.id}"
    try:
        reply = await outbound.read(
            entry.method,
            side.base_url + str(_filled(entry.path, thread_id)),
            label=f"dual.{side.name}.{entry.id}",
            headers=_headers(entry, side),
            authorize=side.token if entry.requires_auth else None,
            json=_filled(entry.body, thread_id),
            attempts=1 if entry.mutates else 2,
        )
        meaning = _json_meaning(reply) if entry.response_kind is ResponseKind.JSON else None
    except PeerError as error:
        return Answer(status=None, meaning=None, said=str(error), seconds=None)
    return Answer(
        status=reply.status,
        meaning=meaning,
        said=reply.describe(),
        seconds=reply.elapsed,
        headers=reply.headers,
        body=reply.body,
        token=side.token.name,
    )


def _json_meaning(reply: Reply) -> object:
    try:
        return meaning_of(reply.json())
    except ValueError as error:
        raise UnusableReplyError(f"{reply.request_line}: {error}") from error


async def _stream(entry: ManifestEntry, side: Side, plan: Plan, outbound: Outbound) -> Answer:
    thread_id = f"{plan.thread_prefix}{side.name}_{entry.id}"
    probe = await probe_stream(
        outbound.client,
        StreamRequest(
            method=entry.method,
            url=side.base_url + str(_filled(entry.path, thread_id)),
            headers={"content-type": "application/json", **_headers(entry, side)},
            body=b"" if entry.body is None else msgspec.json.encode(_filled(entry.body, thread_id)),
            label=f"dual.{side.name}.{entry.id}",
        ),
        capture=True,
        contract=plan.contract,
        secrets=outbound.secrets,
        authorize=side.token if entry.requires_auth else None,
    )
    if probe.status is None or probe.report.interrupted:
        return Answer(status=None, meaning=None, said=probe.describe(), seconds=None)
    return Answer(
        status=probe.status,
        meaning=order_of(probe.body),
        said=f"HTTP {probe.status}",
        seconds=probe.elapsed,
        headers=probe.headers,
        body=probe.body,
        token=side.token.name,
    )


def _facts(
    plan: Plan,
    mismatched: Sequence[ManifestEntry],
    latencies: Mapping[str, Sequence[float]],
    rows: Sequence[Mapping[str, object]],
    skipped: int,
) -> dict[str, object]:
    return facts_of(
        rows,
        mismatched=mismatched,
        skipped=skipped,
        new_seconds=latencies[plan.new.name],
        old_seconds=latencies[plan.old.name],
        max_failures=plan.max_dual_run_failures,
        max_p95_delta_ms=plan.max_p95_latency_delta_ms,
    )


def _hold_thresholds(plan: Plan, facts: Mapping[str, object], recorder: StepRecorder) -> None:
    """Record the check of the p95 latency; record nothing if the plan has no limit for it."""
    latency = facts["latency_ms"]
    delta = latency["p95_delta"] if isinstance(latency, dict) else None
    if plan.max_p95_latency_delta_ms <= 0:
        return
    if delta is None:
        recorder.check(
            "p95-latency", StepStatus.ERROR, "no latency was measured on both sides", kind="latency"
        )
        return
    detail = (
        f"the new service's p95 is {delta:+g} ms against the legacy service's, "
        f"{plan.max_p95_latency_delta_ms:g} ms is allowed"
    )
    recorder.check(
        "p95-latency",
        StepStatus.PASS if delta <= plan.max_p95_latency_delta_ms else StepStatus.FAIL,
        detail,
        kind="latency",
    )
