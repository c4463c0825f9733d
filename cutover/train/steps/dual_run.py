"""The dual run: it sends the same requests to the new service and to the legacy one, and compares the answers by meaning.

Two answers of one service differ in ids, times and generated text. So each request goes to each service twice: what differs between two
answers of the same service is noise. `cutover.model.comparison` says what a difference is.

The module is a little longer than most, because the requests, the comparison and its checks are one step.
"""

from collections.abc import Mapping, Sequence

import anyio
import attrs
import msgspec

from cutover.checking.probe import MAX_CAPTURE_BYTES, probe_stream
from cutover.contract import StreamContract
from cutover.errors import PeerError, UnusableReplyError
from cutover.http.connection import StreamRequest
from cutover.http.outbound import Outbound, Reply
from cutover.http.tokens import Token, fixed
from cutover.model import step_ids
from cutover.model.asking import ASKED_AGAIN, MAX_COMPARED, SIDE_BY_SIDE, first_asks
from cutover.model.comparison import Answer, Verdict, check_depth, judge
from cutover.model.dual_run_facts import Compared, Latency, facts_of, latency_of
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.results import StepResult, StepStatus
from cutover.model.stream_features import stream_features
from cutover.model.text_difference import MAX_TEXT
from cutover.production.services import Services
from cutover.train.legacy_identity import NewService, who_answers
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.DUAL_RUN
MAX_JSON_BYTES = 2 << 20
"""Bytes of the largest JSON that is compared. Up to 12 answers of each service are held at once."""
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
    instance_header: str
    """Header that names the instance that answered; empty if there is none."""
    run_mutating_requests: bool
    max_dual_run_failures: int
    """Number of tolerated mismatches. The step only records this number; the gate applies it to all failed checks."""
    max_p95_latency_delta_ms: float
    """Largest number of milliseconds by which the new p95 latency may exceed the legacy p95 latency; 0 means no check."""

    @property
    def first_asks(self) -> int:
        """Number of asks of each entry that changes nothing, before any is asked again."""
        reading = sum(not entry.mutates for entry in self.manifest)
        return first_asks(reading, timed=self.max_p95_latency_delta_ms > 0)


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> StepResult:
    """Send each entry to both sides at once, twice to each, one entry after another, and compare the answers.

    Entries that change something are skipped unless ``run_mutating_requests`` is set; then they are sent once to each side. If the new
    service answers at the legacy URL, the step ends with ``error``, and no entry is sent.
    """
    compared: list[Compared] = []
    skipped = 0
    new_service = NewService(
        base_url=plan.new.base_url,
        revision_header=plan.revision_header,
        revisions=(plan.stable_revision, plan.canary_revision),
        status_path=services.control.lane.status_path,
    )
    if not await _two_services(plan, new_service, services, recorder):
        return recorder.finish(facts=_facts(plan, compared, latency_of(compared), skipped))
    for entry in plan.manifest:
        if entry.mutates and not plan.run_mutating_requests:
            recorder.check(
                entry.id,
                StepStatus.SKIP,
                "not sent, because it changes something: RUN_MUTATING_REQUESTS=1 sends it",
            )
            skipped += 1
            continue
        each = await _compare(entry, plan, services, new_service)
        _record(each, recorder)
        compared.append(each)
    if not compared:
        # The row of the identity alone must not make this step pass.
        detail = "nothing was compared: the manifest has no request that may be sent; set RUN_MUTATING_REQUESTS=1, or add one that only reads"
        recorder.check("requests", StepStatus.ERROR, detail, tolerable=False)
    latency = latency_of(compared)
    if plan.max_p95_latency_delta_ms > 0:
        status, detail = latency.judged(plan.max_p95_latency_delta_ms)
        recorder.check("p95-latency", status, detail, kind="latency")
    detail = f"{len(compared)} of {len(compared)} requests have the same answer from both services"
    return recorder.finish(detail, facts=_facts(plan, compared, latency, skipped))


async def _compare(entry: ManifestEntry, plan: Plan, services: Services, new_service: NewService) -> Compared:
    """Send one entry to both sides, and again while a difference may be noise; return the answers and the verdict."""
    new: list[Answer] = []
    old: list[Answer] = []
    first, further = (1, 0) if entry.mutates else (plan.first_asks, ASKED_AGAIN)
    asks = 0
    while True:
        asks += 1
        for kept, answers in zip((new, old), await _ask(entry, asks, plan, services), strict=True):
            # What is not compared is not kept: a manifest of one request has many answers while the latency is gated.
            compared = len(kept) < MAX_COMPARED
            kept.extend(
                answers if compared else [attrs.evolve(each, meaning=None, body=b"") for each in answers]
            )
        if asks < first:
            continue
        verdict = _judge(entry, new, old, plan, new_service)
        if verdict.final or asks >= max(first, 1 + further):
            break
    if not verdict.final and asks > first:
        why = f"{verdict.why}, after {min(len(new), MAX_COMPARED)} answers of each service"
        verdict = attrs.evolve(verdict, why=why)
    return Compared(entry=entry, new=tuple(new), old=tuple(old), asks=asks, verdict=verdict)


def _record(each: Compared, recorder: StepRecorder) -> None:
    """Record the check of one entry; keep what was found, and for an entry with a difference the first answer of each side."""
    paths: tuple[str | None, str | None] = (None, None)
    name = f"{STEP_ID}/{each.entry.id}"
    if each.verdict.why:
        paths, _ = [
            _keep(name_of_side, each.entry, answers[0], recorder)
            for name_of_side, answers in (("new", each.new), ("legacy", each.old))
        ]
    if each.verdict.differences or each.verdict.left_out:
        evidence = msgspec.json.format(msgspec.json.encode(each.evidence()), indent=2)
        recorder.evidence.write(f"{name}.comparison.json", evidence)
    recorder.check(
        each.entry.id,
        each.verdict.status,
        each.verdict.describe(otherwise=each.new[0].said),
        kind=each.entry.response_kind.value,
        endpoint=each.entry.path,
        http_status=each.new[0].status,
        headers_path=paths[0],
        body_path=paths[1],
        tolerable=each.verdict.tolerable,
    )


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


def _judge(
    entry: ManifestEntry,
    new: Sequence[Answer],
    old: Sequence[Answer],
    plan: Plan,
    new_service: NewService,
) -> Verdict:
    """Compare the answers; the status is ``error`` for an answer of the new service at the legacy URL."""
    for answer in old:
        if sign := new_service.sign_in(answer.headers):
            why = f"the new service answers at LEGACY_BASE_URL ({sign}), so the answers prove nothing. {_WHAT_TO_DO}"
            return Verdict(status=StepStatus.ERROR, why=why, tolerable=False)
    # Only the new service names its revision and its instance.
    named = filter(None, (plan.revision_header, plan.instance_header))
    ignore = tuple(f"headers.{name.lower()}" for name in named)
    return judge(entry, new, old, thread_id_prefix=plan.thread_id_prefix, ignore=ignore)


def _keep(
    side: str, entry: ManifestEntry, answer: Answer, recorder: StepRecorder
) -> tuple[str | None, str | None]:
    """Keep the answer of one side as evidence; return the paths of its head and body."""
    if answer.status is None:
        return None, None
    return recorder.evidence.keep_reply(
        STEP_ID,
        f"{entry.id}.{side}",
        status_line=f"HTTP {answer.status}",
        headers=answer.headers,
        body=answer.body,
    )


async def _ask(
    entry: ManifestEntry, number: int, plan: Plan, services: Services
) -> tuple[list[Answer], list[Answer]]:
    """Send one entry to both sides at once, twice to each unless it changes something; return the answers of each side."""
    times = 1 if entry.mutates else SIDE_BY_SIDE
    answers: dict[tuple[str, int], Answer] = {}

    async def ask(side: Side, outbound: Outbound, copy: int) -> None:
        send = _stream if entry.response_kind is ResponseKind.SSE else _plain
        thread_id = f"{plan.thread_prefix}{side.name}_{entry.id}_{number}_{copy}"
        answers[side.name, copy] = await send(entry, side, plan, outbound, thread_id)

    async with anyio.create_task_group() as group:
        for copy in range(1, times + 1):
            group.start_soon(ask, plan.new, services.service, copy)
            group.start_soon(ask, plan.old, services.legacy, copy)
    new, old = ([answers[side.name, copy] for copy in range(1, times + 1)] for side in (plan.new, plan.old))
    return new, old


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


async def _plain(entry: ManifestEntry, side: Side, _: Plan, outbound: Outbound, thread_id: str) -> Answer:
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
        meaning = _meaning(entry, reply)
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
        base_url=side.base_url,
    )


def _meaning(entry: ManifestEntry, reply: Reply) -> object:
    """Return the value of a reply that is compared.

    Raises:
        UnusableReplyError: The body is not JSON where it should be, or it cannot be compared.
    """
    if entry.response_kind is ResponseKind.TEXT:
        # One character more than is compared, so that the comparison says that it is too long.
        return reply.body[: 4 * MAX_TEXT + 4].decode("utf-8", "replace")[: MAX_TEXT + 1]
    if len(reply.body) > MAX_JSON_BYTES:
        raise UnusableReplyError(
            f"{reply.request_line}: its JSON has more than {MAX_JSON_BYTES} bytes, and is not compared"
        )
    value = reply.json()
    try:
        check_depth(value)
    except ValueError as error:
        raise UnusableReplyError(f"{reply.request_line}: {error}") from error
    return value


async def _stream(entry: ManifestEntry, side: Side, plan: Plan, outbound: Outbound, thread_id: str) -> Answer:
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
    too_long = len(probe.body) >= MAX_CAPTURE_BYTES
    if too_long or probe.status is None or probe.report.interrupted:
        why = f"the stream has {MAX_CAPTURE_BYTES} bytes or more, and is not compared"
        return Answer(status=None, meaning=None, said=why if too_long else probe.describe(), seconds=None)
    return Answer(
        status=probe.status,
        meaning=stream_features(probe.body, with_text=entry.deterministic),
        said=f"HTTP {probe.status}",
        seconds=probe.elapsed,
        headers=probe.headers,
        body=probe.body,
        token=side.token.name,
        base_url=side.base_url,
    )


def _facts(plan: Plan, compared: Sequence[Compared], latency: Latency, skipped: int) -> dict[str, object]:
    return facts_of(
        compared,
        latency,
        skipped=skipped,
        max_failures=plan.max_dual_run_failures,
        max_p95_delta_ms=plan.max_p95_latency_delta_ms,
    )
