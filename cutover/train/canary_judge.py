"""The judge of the canary: it weighs the turns of each share, and records the check of the share.

A turn that breaks the contract ends a share at once. Turns that failed on their way are weighed: the share passes when the canary is no worse
than stable by MAX_CANARY_WORSE_PERCENT, ends when it is worse, and is held longer while that is undecided.
"""

import attrs

from cutover.model.gates import BASELINE
from cutover.model.judgement import Judgement, Verdict
from cutover.model.results import Check, StepStatus
from cutover.train.canary_answers import StepAnswers
from cutover.train.canary_plan import Plan
from cutover.train.canary_turns import CanaryTurns
from cutover.train.soak import Seen
from cutover.train.step_recorder import StepRecorder


@attrs.define(eq=False, kw_only=True)
class CanaryJudge:
    """The judge of the canary over all shares of one step."""

    plan: Plan
    recorder: StepRecorder
    header: bool
    """True if a header names the revision that answers at the front door."""
    aliases: int
    """The number of probes of one look at one place."""
    judged: dict[str, dict[str, object]] = attrs.field(factory=dict)
    """Check -> the judgement on which it rests, ready for JSON."""
    passed_blind: bool = False
    """True if a share passed although no stream is known to have been answered by the canary."""
    baseline_unhealthy: bool = False
    """True if stable failed by itself, so that the canary could not be judged."""
    judgement: Judgement = attrs.field(init=False)
    """The judgement of the canary over all shares. It begins anew after a share that failed, if that failure is tolerated."""
    turns: CanaryTurns = attrs.field(init=False)
    """The turns of the present share."""

    def __attrs_post_init__(self) -> None:
        """Begin the judgement."""
        self.judgement = self._new_judgement()

    def begin_share(self, percent: int, *, canary_has_url: bool, stable_has_url: bool) -> None:
        """Begin the turns of a share; 0 before the first one.

        Args:
            percent: The share.
            canary_has_url: True if the canary is probed at a URL of its own.
            stable_has_url: The same of stable.
        """
        self.turns = CanaryTurns(
            judgement=self.judgement,
            stable=self.plan.stable_revision,
            canary=self.plan.canary_revision,
            percent=percent,
            canary_has_url=canary_has_url,
            stable_has_url=stable_has_url,
            header=self.header,
            aliases=self.aliases,
        )

    @property
    def undecided(self) -> bool:
        """True if the turns are weighed, and do not yet say enough."""
        return not self.turns.blind and self.judgement.verdict is Verdict.UNDECIDED

    @property
    def decided_against(self) -> bool:
        """True if the turns say that the canary is worse, or that stable itself fails."""
        return self.judgement.verdict in {Verdict.WORSE, Verdict.BASELINE_UNHEALTHY}

    @property
    def allows(self) -> bool:
        """True if the turns allow the share: they say that the canary is no worse, or nobody can tell whose they are."""
        return self.turns.blind or self.judgement.verdict is Verdict.NO_WORSE

    def record_first_turns(self, name: str, seen: Seen) -> None:
        """Record the passed check of the canary's first turns, some of which failed on their way."""
        self._note(name)
        self.recorder.judged_check(name, seen.log, StepStatus.PASS, self.judgement.describe())

    def record_share(self, name: str, seen: Seen, answers: StepAnswers, *, served: str) -> Check:
        """Record the check of a share that was watched to its end; after a failure the judgement begins anew.

        Args:
            name: The check.
            seen: Everything that the looks saw.
            answers: The streams by the revision that answered.
            served: The split that is served, in words.
        """
        if seen.failing or self.decided_against:
            return self.record_failure(name, seen)
        check = self._record_whole_share(name, seen, answers, served=served)
        if check.status.failed:
            self._begin_anew()
        return check

    def _record_whole_share(self, name: str, seen: Seen, answers: StepAnswers, *, served: str) -> Check:
        """Record the check of a share that nothing has ended early. It passes only with a number of streams that the canary answered."""
        log = seen.log
        if problem := answers.share_problem():
            return self.recorder.check(name, StepStatus.FAIL, problem, kind="traffic", tolerable=False)
        who = answers.describe()
        if not answers.by_canary:
            if not self.plan.accept_blind_drill:
                detail = f"the canary has {answers.percent} % of the traffic, but {who}"
                return self.recorder.check(name, StepStatus.ERROR, detail, kind="traffic")
            self.passed_blind = True
            who += "; ACCEPT_BLIND_DRILL=1 accepts that"
        shown = f"{served}; {log.count - log.bad} probes keep the contract; {who}"
        if self.turns.blind:
            return self.recorder.stream_check(name, log, detail=shown, kind="traffic")
        self._note(name)
        claim = self.judgement.describe()
        if self.judgement.verdict is not Verdict.NO_WORSE:
            detail = f"the share was held for {self.plan.longest_soak:g} s at most, and it is {claim}"
            return self.recorder.judged_check(name, log, StepStatus.ERROR, detail, kind="traffic")
        return self.recorder.judged_check(name, log, StepStatus.PASS, f"{claim}; {shown}", kind="traffic")

    def record_failure(self, name: str, seen: Seen, *, tolerable: bool = True) -> Check:
        """Record the check of a share that did not pass, and begin the judgement anew.

        A turn ended the share at once, or the judgement does not allow it. If stable itself fails, the check is an error: then nothing is
        known about the canary.
        """
        self._note(name)
        stable_broke = self.plan.stable_revision in seen.failing
        verdict, claim = self.judgement.verdict, self.judgement.describe()
        self._begin_anew()
        if seen.failing and not stable_broke:
            return self.recorder.stream_check(
                name, seen.log, blame=self._blame(seen), kind="traffic", tolerable=tolerable
            )
        if stable_broke:
            claim = "baseline unhealthy: stable itself breaks the contract, so nothing can be said about the canary"
        if stable_broke or verdict is Verdict.BASELINE_UNHEALTHY:
            self.baseline_unhealthy = True
            return self.recorder.judged_check(
                name, seen.log, StepStatus.ERROR, claim, kind=BASELINE, tolerable=False
            )
        status = StepStatus.FAIL if verdict is Verdict.WORSE else StepStatus.ERROR
        return self.recorder.judged_check(name, seen.log, status, claim, kind="traffic", tolerable=tolerable)

    def _blame(self, seen: Seen) -> str:
        """Return who breaks the contract, in words: the canary, or the front door."""
        canary = self.plan.canary_revision
        if canary in seen.failing:
            return f"{canary} breaks the contract at its own URL"
        return "a stream through the front door breaks the contract"

    def _note(self, name: str) -> None:
        """Keep the judgement on which a check rests."""
        if not self.turns.blind:
            self.judged[name] = self.judgement.facts()

    def _begin_anew(self) -> None:
        """Begin the judgement of the canary anew. The present share goes on if its failure is tolerated, so later turns count for the new one."""
        self.judgement = self._new_judgement()
        self.turns = attrs.evolve(self.turns, judgement=self.judgement)

    def _new_judgement(self) -> Judgement:
        return Judgement(
            max_worse=self.plan.max_canary_worse_percent / 100,
            max_slower=self.plan.max_canary_slower_percent / 100,
        )
