"""Simulate trains, 1,500 a row, and print how often the judgement is right: false alarms, canaries found, trains that stay undecided.

Every turn is drawn by chance and given to the rules of the train itself, in the number and the order of a train with the default inputs: the
smokes, the looks at the canary and at stable, the sentinels around each change, the looks after the rollback. The canary has a tag, and no
header names the revision. The old rule stopped at the first failed turn of the same train.
"""

import random
from collections import Counter
from collections.abc import Iterable

import attrs

from cutover.config.config import CutoverConfig
from cutover.model.e_values import Bet
from cutover.model.judgement import Judgement, Turn, Verdict
from cutover.model.losses import MOST_FAILED, ChangeLosses, SmokeLooks
from cutover.production.lane import COMPAT
from cutover.train.canary_turns import CanaryTurns
from cutover.train.canary_watch import PRESSING_SECONDS
from cutover.train.sentinels import response_count
from cutover.train.soak import confirm_count, look_count, paced_count
from cutover.train.steps.rollback_drill import ROLLBACK_LOOKS
from cutover.train.stream_proof import LAG_PAUSE

TRAINS = 1500
AGAINST = {Verdict.WORSE, Verdict.BASELINE_UNHEALTHY}
STABLE, CANARY = "stable", "canary"
CONFIG = CutoverConfig(stable_revision="chat-1", canary_revision="chat-2")
ALIASES = len(COMPAT.aliases)
PASSED, OTHER = "passed", "another check"
HELD = CONFIG.held_streams
RESPONSES = response_count(HELD, ALIASES)
EQUAL = (0.0, 0.001, 0.005, 0.01, 0.03)
FAILING = (0.02, 0.05, 0.2, 0.5)
BASELINE = 0.001
"""The part of the turns that stable fails beside a canary that fails more."""


class OtherCheckError(Exception):
    """A smoke, the sentinels or the looks after the rollback stop the train."""


@attrs.define(eq=False, kw_only=True)
class Train:
    """One simulated train."""

    rates: dict[str, float]
    """Revision -> the part of its turns that fail."""
    chance: random.Random
    judgement: Judgement = attrs.field(
        factory=lambda: Judgement(
            max_worse=CONFIG.max_canary_worse_percent / 100,
            max_slower=CONFIG.max_canary_slower_percent / 100,
        )
    )
    turns: CanaryTurns = attrs.field(init=False)
    failures: int = 0
    """Number of turns that have failed."""
    bets: dict[str, Bet] = attrs.field(factory=dict)

    def run(self) -> str:
        """Return the end of the train: a verdict, ``PASSED`` or ``OTHER``."""
        try:
            self.smoke()
            self.begin(0)
            verdict = self.direct()
            for percent in CONFIG.canary_steps:
                if verdict is not Verdict.NO_WORSE:
                    return str(verdict.value)
                self.change(percent)
                self.begin(percent)
                verdict = self.hold()
            if verdict is not Verdict.NO_WORSE:
                return str(verdict.value)
            self.change(0)
            self.rollback()
            self.change(0, paced=confirm_count(CONFIG.flip_confirm_seconds, CONFIG.canary_look_seconds))
            self.smoke()
        except OtherCheckError:
            return OTHER
        return PASSED

    def smoke(self) -> None:
        """Take the looks of a smoke, at stable."""
        looks = SmokeLooks(aliases=ALIASES, most=MOST_FAILED)
        while (passed := looks.take([self.fails(STABLE) for _ in range(ALIASES)])) is None:
            pass
        if not passed:
            raise OtherCheckError

    def change(self, percent: int, *, paced: int = 0) -> None:
        """Take the sentinels around a change after which the canary has this share."""
        losses = ChangeLosses(most=MOST_FAILED, over_all=self.bets)
        for kind, number in (("held", HELD), ("response", RESPONSES), ("paced", paced)):
            for _ in range(number):
                if losses.add(kind, failed=self.fails(self.at_front(percent))):
                    raise OtherCheckError

    def rollback(self) -> None:
        """Take looks at stable until enough of them in a row are good; a look whose turns all fail is no good."""
        clean, clock = 0, 0.0
        while clean < ROLLBACK_LOOKS:
            failed = [self.fails(STABLE) for _ in range(ALIASES)]
            clock += LAG_PAUSE * any(failed)
            if all(failed) or clock >= CONFIG.max_rollback_seconds:
                raise OtherCheckError
            clean += not any(failed)

    def begin(self, percent: int) -> None:
        self.turns = CanaryTurns(
            judgement=self.judgement,
            stable=STABLE,
            canary=CANARY,
            percent=percent,
            canary_has_url=True,
            stable_has_url=False,
            header=False,
            aliases=ALIASES,
        )

    def direct(self) -> Verdict:
        """Take the canary's first turns, at its own URL; a failed one is looked into before the first share."""
        before = self.failures
        for _ in range(ALIASES):
            self.take(CANARY, CANARY)
        return self.press_on(0.0) if self.failures > before else Verdict.NO_WORSE

    def hold(self) -> Verdict:
        """Take the looks and the paced sentinels of one soak, more looks after a failed turn, and go on while the share is undecided."""
        soak, clock = CONFIG.canary_soak_seconds, 0.0
        looks, paced = look_count(soak, CONFIG.canary_look_seconds), paced_count(soak)
        moments = [(soak * number / paced, self.paced) for number in range(1, paced + 1)]
        moments += [(soak * number / (looks - 1), self.look) for number in range(looks)]
        for at, take in sorted(moments, key=lambda moment: moment[0]):
            clock = max(clock, at)
            before = self.failures
            take()
            verdict = self.judgement.verdict
            if self.failures > before and verdict is Verdict.UNDECIDED:
                verdict = self.press_on(clock)
            if verdict in AGAINST:
                return verdict
        return self.press_on(soak)

    def press_on(self, clock: float) -> Verdict:
        pause = min(PRESSING_SECONDS, CONFIG.canary_look_seconds)
        while (
            verdict := self.judgement.verdict
        ) is Verdict.UNDECIDED and clock < CONFIG.canary_max_soak_seconds:
            clock += pause
            self.look()
        return verdict

    def paced(self) -> None:
        self.take(self.at_front(self.turns.percent), None)

    def look(self) -> None:
        for _ in range(ALIASES):
            self.take(CANARY, CANARY)
            self.take(self.at_front(self.turns.percent), None)
            if self.judgement.verdict in AGAINST:
                break

    def at_front(self, percent: int) -> str:
        """Return the revision that answers at the front door."""
        return CANARY if self.chance.random() * 100 < percent else STABLE

    def take(self, revision: str, place: str | None) -> None:
        failed = self.fails(revision)
        seconds = self.chance.lognormvariate(0.0, 0.3)
        turn = Turn(failed=True) if failed else Turn(failed=False, first_event=seconds / 5, whole=seconds)
        self.turns.count(turn, name=None, place=place)

    def fails(self, revision: str) -> bool:
        failed = self.chance.random() < self.rates[revision]
        self.failures += failed
        return failed


def clean_chance(stable: float, canary: float) -> float:
    """Return the chance that no turn fails in a train whose shares are not held longer."""
    soak, steps = CONFIG.canary_soak_seconds, CONFIG.canary_steps
    looks = look_count(soak, CONFIG.canary_look_seconds)
    around = HELD + RESPONSES
    confirm = confirm_count(CONFIG.flip_confirm_seconds, CONFIG.canary_look_seconds)
    at_stable = 2 * ALIASES + 2 * around + ROLLBACK_LOOKS * ALIASES + confirm
    clean = (1 - canary) ** (ALIASES + len(steps) * looks * ALIASES) * (1 - stable) ** at_stable
    for percent in steps:
        mixed = (canary * percent + stable * (100 - percent)) / 100
        clean *= (1 - mixed) ** (around + looks * ALIASES + paced_count(soak))
    return clean


def row(stable: float, canary: float) -> str:
    """Return one row of a table, from ``TRAINS`` trains."""
    chance = random.Random(f"{stable} {canary}")  # noqa: S311  the same table in every run
    ends: Counter[str] = Counter()
    for _ in range(TRAINS):
        ends[Train(rates={STABLE: stable, CANARY: canary}, chance=chance).run()] += 1
    shown = (
        ends[PASSED],
        ends[Verdict.WORSE.value],
        ends[Verdict.BASELINE_UNHEALTHY.value],
        ends[Verdict.UNDECIDED.value],
        ends[OTHER],
    )
    shares = (f"{count / TRAINS:.1%}".replace("%", " %") for count in shown)
    old = 100 * (1 - clean_chance(stable, canary))
    return f"| {stable * 100:g} % | {canary * 100:g} % | {' | '.join(shares)} | {old:.0f} % |"


def table(rates: Iterable[tuple[float, float]]) -> str:
    """Return a table with one row for each pair of rates."""
    head = "| stable fails | canary fails | passed | worse | baseline unhealthy | undecided | another check | stopped by the old rule |"
    return "\n".join((head, "|" + "---|" * 8, *(row(stable, canary) for stable, canary in rates)))


def main() -> None:
    """Print both tables."""
    worse = f"{CONFIG.max_canary_worse_percent:g}"
    print(f"Two equal revisions; {TRAINS} trains a row, MAX_CANARY_WORSE_PERCENT={worse}\n")
    print(table((rate, rate) for rate in EQUAL))
    print(f"\nA canary that fails beside a healthy stable revision; {TRAINS} trains a row\n")
    print(table((BASELINE, rate) for rate in FAILING))


if __name__ == "__main__":
    main()
