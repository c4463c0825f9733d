"""Simulate drills, 1,500 a row, and print how often the judgement of the canary is right: false alarms, canaries found, drills that stay undecided.

Every turn is drawn by chance and given to the judgement of the train itself, in the number and the order of a drill with the default
inputs: the canary has a tag, and no header names the revision. The old rule stopped at the first failed turn of the same looks.

The smokes and the sentinels are not part of it: they are not weighed.
"""

import random
from collections import Counter
from collections.abc import Iterable

import attrs

from cutover.config.config import CutoverConfig
from cutover.model.judgement import Judgement, Turn, Verdict
from cutover.production.lane import COMPAT
from cutover.train.canary_turns import CanaryTurns
from cutover.train.canary_watch import PRESSING_SECONDS
from cutover.train.soak import look_count

TRAINS = 1500
STABLE, CANARY = "stable", "canary"
CONFIG = CutoverConfig(stable_revision="chat-1", canary_revision="chat-2")
ALIASES = len(COMPAT.aliases)
PASSED, OLD_RULE = "passed", "old rule"
EQUAL = (0.0, 0.001, 0.005, 0.01, 0.03)
FAILING = (0.02, 0.05, 0.2, 0.5)
BASELINE = 0.001
"""The part of the turns that stable fails beside a canary that fails more."""


@attrs.define(eq=False, kw_only=True)
class Drill:
    """One simulated drill."""

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
    failed: bool = False
    """True if a turn of a look has failed."""

    def run(self) -> str:
        """Return the end of the drill: a verdict, or ``PASSED``."""
        self.begin(0)
        verdict = self.direct()
        for percent in CONFIG.canary_steps:
            if verdict is not Verdict.NO_WORSE:
                break
            self.begin(percent)
            verdict = self.hold()
        return PASSED if verdict is Verdict.NO_WORSE else verdict.value

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
        for _ in range(ALIASES):
            self.take(CANARY, CANARY)
        return self.press_on(0.0) if self.failed else Verdict.NO_WORSE

    def hold(self) -> Verdict:
        """Take the looks of one soak, more of them after a failed turn, and go on while the share is undecided."""
        soak, clock = CONFIG.canary_soak_seconds, 0.0
        looks = look_count(soak, CONFIG.canary_look_seconds)
        for number in range(looks):
            clock = max(clock, number * soak / (looks - 1))
            before = self.failures
            verdict = self.look()
            if self.failures > before and verdict is Verdict.UNDECIDED:
                verdict = self.press_on(clock)
            if verdict in {Verdict.WORSE, Verdict.BASELINE_UNHEALTHY}:
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

    def look(self) -> Verdict:
        for _ in range(ALIASES):
            self.take(CANARY, CANARY)
            at_canary = self.chance.random() * 100 < self.turns.percent
            self.take(CANARY if at_canary else STABLE, None)
            if self.judgement.verdict in {Verdict.WORSE, Verdict.BASELINE_UNHEALTHY}:
                break
        return self.judgement.verdict

    def take(self, revision: str, place: str | None) -> None:
        failed = self.chance.random() < self.rates[revision]
        self.failed = self.failed or failed
        seconds = self.chance.lognormvariate(0.0, 0.3)
        turn = Turn(failed=True) if failed else Turn(failed=False, first_event=seconds / 5, whole=seconds)
        self.turns.count(turn, name=None, place=place)

    @property
    def failures(self) -> int:
        judgement = self.judgement
        return judgement.failed + judgement.stable_failed + judgement.unknown_failed


def planned_turns() -> int:
    """Return the number of turns of the looks of a drill whose shares are not held longer."""
    looks = look_count(CONFIG.canary_soak_seconds, CONFIG.canary_look_seconds)
    return ALIASES + len(CONFIG.canary_steps) * looks * 2 * ALIASES


def row(stable: float, canary: float) -> str:
    """Return one row of a table, from ``TRAINS`` drills."""
    chance = random.Random(f"{stable} {canary}")  # noqa: S311  the same table in every run
    ends: Counter[str] = Counter()
    for _ in range(TRAINS):
        ends[Drill(rates={STABLE: stable, CANARY: canary}, chance=chance).run()] += 1
    # Half of a drill's looks go to the canary's own URL; through the front door it answers its share.
    own = ALIASES + (planned_turns() - ALIASES) // 2
    front = (planned_turns() - ALIASES) // 2 // len(CONFIG.canary_steps)
    clean = (1 - canary) ** own
    for percent in CONFIG.canary_steps:
        clean *= (1 - (canary * percent + stable * (100 - percent)) / 100) ** front
    shown = (
        ends[PASSED],
        ends[Verdict.WORSE.value],
        ends[Verdict.BASELINE_UNHEALTHY.value],
        ends[Verdict.UNDECIDED.value],
    )
    shares = (f"{count / TRAINS:.1%}".replace("%", " %") for count in shown)
    return f"| {stable * 100:g} % | {canary * 100:g} % | {' | '.join(shares)} | {100 * (1 - clean):.0f} % |"


def table(rates: Iterable[tuple[float, float]]) -> str:
    """Return a table with one row for each pair of rates."""
    head = "| stable fails | canary fails | passed | worse | baseline unhealthy | undecided | stopped by the old rule |"
    return "\n".join((head, "|" + "---|" * 7, *(row(stable, canary) for stable, canary in rates)))


def main() -> None:
    """Print both tables."""
    worse = f"{CONFIG.max_canary_worse_percent:g}"
    print(f"Two equal revisions; {TRAINS} drills a row, MAX_CANARY_WORSE_PERCENT={worse}\n")
    print(table((rate, rate) for rate in EQUAL))
    print(f"\nA canary that fails beside a healthy stable revision; {TRAINS} drills a row\n")
    print(table((BASELINE, rate) for rate in FAILING))


if __name__ == "__main__":
    main()
