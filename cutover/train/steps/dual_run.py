"""The dual run: it sends the same requests to the new service and to the legacy one, and compares the answers by meaning.

Two answers of one service differ in ids, times and generated text. So each request goes to each service twice: what differs between two
answers of the same service is noise. `cutover.model.comparison` says what a difference is.
"""

from collections.abc import Sequence

import attrs
import msgspec

from cutover.contract import StreamContract
from cutover.model import step_ids
from cutover.model.asking import ASKED_AGAIN, LOOKS, MAX_COMPARED, TIMED_ANSWERS, first_asks
from cutover.model.comparison import Answer, Verdict, judge
from cutover.model.dual_run_facts import Compared, Latency, facts_of, latency_of
from cutover.model.manifest import ManifestEntry
from cutover.model.results import StepResult, StepStatus
from cutover.production.services import Services
from cutover.train.legacy_identity import NewService, who_answers
from cutover.train.step_recorder import StepRecorder
from cutover.train.two_services import Side, TwoServices

STEP_ID = step_ids.DUAL_RUN
_WHAT_TO_DO = "Set LEGACY_BASE_URL to the URL of the legacy service, or set RUN_DUAL_RUN=0"


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
    both = TwoServices(
        new=plan.new,
        old=plan.old,
        contract=plan.contract,
        thread_prefix=plan.thread_prefix,
        services=services,
    )
    for entry in plan.manifest:
        if entry.mutates and not plan.run_mutating_requests:
            recorder.check(
                entry.id,
                StepStatus.SKIP,
                "not sent, because it changes something: RUN_MUTATING_REQUESTS=1 sends it",
            )
            skipped += 1
            continue
        each = await _compare(entry, plan, both, new_service)
        _record(each, recorder)
        compared.append(each)
    if not compared:
        # The row of the identity alone must not make this step pass.
        detail = "nothing was compared: the manifest has no request that may be sent; set RUN_MUTATING_REQUESTS=1, or add one that only reads"
        recorder.check("requests", StepStatus.ERROR, detail, tolerable=False)
    latency = latency_of(compared)
    if plan.max_p95_latency_delta_ms > 0:
        latency = await _judge_latency(compared, plan, both, recorder)
    detail = f"{len(compared)} of {len(compared)} requests have the same answer from both services"
    return recorder.finish(detail, facts=_facts(plan, compared, latency, skipped))


async def _judge_latency(
    compared: list[Compared], plan: Plan, both: TwoServices, recorder: StepRecorder
) -> Latency:
    """Record the check of the p95 latency; send the requests again while their latencies are not certain enough, and return them all."""
    looks, odd = 1, ""
    while True:
        latency = latency_of(compared)
        status, detail = latency.judged(plan.max_p95_latency_delta_ms)
        undecided = status is StepStatus.ERROR and latency.answers >= TIMED_ANSWERS
        if odd or not undecided or looks >= LOOKS:
            break
        looks += 1
        for index, each in enumerate(compared):
            if each.entry.mutates:
                continue
            for _ in range(plan.first_asks):
                compared[index] = await _ask_for_latency(compared[index], both)
            odd = odd or _odd_answer(compared[index])
    if odd:
        status, detail = StepStatus.ERROR, f"the latency cannot be judged: {odd}"
    recorder.check("p95-latency", status, detail, kind="latency")
    return latency


async def _ask_for_latency(each: Compared, both: TwoServices) -> Compared:
    new, old = await both.ask(each.entry, each.asks + 1)
    return attrs.evolve(
        each,
        asks=each.asks + 1,
        new=(*each.new, *map(_without_body, new)),
        old=(*each.old, *map(_without_body, old)),
    )


def _odd_answer(each: Compared) -> str:
    """Return the first answer whose status is another one than that of the first answer of its service; empty if there is none."""
    for name, answers in (("new", each.new), ("legacy", each.old)):
        for answer in answers:
            if answer.status != answers[0].status:
                return f"{each.entry.id}: one answer of the {name} service is another one: {answer.said}"
    return ""


def _without_body(answer: Answer) -> Answer:
    return attrs.evolve(answer, meaning=None, body=b"")


async def _compare(entry: ManifestEntry, plan: Plan, both: TwoServices, new_service: NewService) -> Compared:
    """Send one entry to both sides, and again while a difference may be noise; return the answers and the verdict."""
    new: list[Answer] = []
    old: list[Answer] = []
    first, further = (1, 0) if entry.mutates else (plan.first_asks, ASKED_AGAIN)
    asks = 0
    while True:
        asks += 1
        for kept, answers in zip((new, old), await both.ask(entry, asks), strict=True):
            # What is not compared is not kept: a manifest of one request has many answers while the latency is gated.
            compared = len(kept) < MAX_COMPARED
            kept.extend(answers if compared else map(_without_body, answers))
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


def _facts(plan: Plan, compared: Sequence[Compared], latency: Latency, skipped: int) -> dict[str, object]:
    return facts_of(
        compared,
        latency,
        skipped=skipped,
        max_failures=plan.max_dual_run_failures,
        max_p95_delta_ms=plan.max_p95_latency_delta_ms,
    )
