"""The judgement of a canary: the verdicts, the words of their claims, and the revision that a failed turn counts for."""

from collections.abc import Iterable

import pytest

from cutover.model.judgement import LEAST_PAIRS, Judgement, Turn, Verdict, Who

CLEAN, FAILED = Turn(failed=False, first_event=0.2, whole=3.0), Turn(failed=True)
SLOW = Turn(failed=False, first_event=0.9, whole=9.0)
LATE_START = Turn(failed=False, first_event=0.9, whole=3.0)


def judged(
    percent: int,
    turns: Iterable[tuple[Turn, Who, bool]],
    *,
    stable_answers: bool = True,
    slower: float = 0.5,
    worse: float = 0.1,
) -> Judgement:
    """Return the judgement of one share after these turns: (turn, who answered, at the front door)."""
    judgement = Judgement(max_worse=worse, max_slower=slower)
    judgement.begin_share(percent, stable_answers=stable_answers)
    for turn, who, at_front in turns:
        judgement.add(turn, who, at_front=at_front)
    return judgement


def side_by_side(count: int, canary: Turn = CLEAN, stable: Turn = CLEAN) -> list[tuple[Turn, Who, bool]]:
    """Return this many turns of the canary at its own URL, and as many of stable at the front door."""
    return [(canary, Who.CANARY, False), (stable, Who.STABLE, True)] * count


def added(judgement: Judgement, turn: Turn, who: Who, *, at_front: bool = False) -> Verdict:
    """Return the verdict after one more turn."""
    judgement.add(turn, who, at_front=at_front)
    return judgement.verdict


class TestClaims:
    def test_a_clean_canary_is_no_worse_after_thirty_two_turns(self) -> None:
        assert judged(5, side_by_side(31)).verdict is Verdict.UNDECIDED
        judgement = judged(5, side_by_side(32))
        assert judgement.verdict is Verdict.NO_WORSE
        assert judgement.describe() == (
            "no worse by 9.9 %, at 95 % (canary: 0 of 32 turns failed; stable: 0 of 32); "
            "no slower than stable by 50 % (at least 0.25 s), in 32 pairs"
        )
        assert judgement.missing_turns == 0

    def test_one_failed_turn_asks_for_more_and_says_how_many(self) -> None:
        judgement = judged(5, [*side_by_side(32), (FAILED, Who.CANARY, False)])
        assert judgement.verdict is Verdict.UNDECIDED
        assert judgement.missing_turns == 24
        assert "24 more turns of the canary must succeed" in judgement.describe()
        later = [added(judgement, CLEAN, Who.CANARY) for _ in range(24)]
        assert later == [Verdict.UNDECIDED] * 23 + [Verdict.NO_WORSE]

    def test_a_canary_that_fails_while_stable_answers_is_worse(self) -> None:
        judgement = judged(5, side_by_side(4, canary=FAILED))
        assert judgement.verdict is Verdict.WORSE
        assert judgement.describe() == (
            "the canary fails more turns than stable, at 95 % (canary: 4 of 4 turns failed; stable: 0 of 4)"
        )

    def test_the_turns_of_earlier_shares_count(self) -> None:
        judgement = judged(5, side_by_side(32))
        judgement.begin_share(100, stable_answers=False)
        assert judgement.verdict is Verdict.NO_WORSE

    def test_the_facts_hold_the_claim_and_its_counts(self) -> None:
        facts = judged(5, side_by_side(40)).facts()
        assert facts["verdict"] == "no worse"
        assert (facts["no_worse_by_percent"], facts["confidence_percent"]) == (8.0, 95)
        assert (facts["canary_turns"], facts["canary_failed"], facts["time_pairs"]) == (40, 0, 40)


class TestBaseline:
    def test_a_stable_revision_that_fails_by_itself_is_no_fault_of_the_canary(self) -> None:
        judgement = judged(5, side_by_side(4, stable=FAILED))
        assert judgement.verdict is Verdict.BASELINE_UNHEALTHY
        assert judgement.describe().startswith(
            "baseline unhealthy: stable fails more than 10 % of its turns, at 95 %"
        )

    def test_two_revisions_that_both_fail_say_nothing_about_the_canary(self) -> None:
        assert judged(5, side_by_side(4, FAILED, FAILED)).verdict is Verdict.BASELINE_UNHEALTHY

    def test_a_front_door_that_fails_beyond_the_share_of_the_canary_is_the_baseline(self) -> None:
        """Nothing names the revision, but a canary with 5 % cannot be the cause of every failure."""
        judgement = judged(5, [(FAILED, Who.UNKNOWN, True)] * 4)
        assert judgement.verdict is Verdict.BASELINE_UNHEALTHY


class TestUnknown:
    def test_with_a_failed_turn_of_nobody_the_front_door_must_be_no_worse_too(self) -> None:
        judgement = judged(5, [*side_by_side(32), (FAILED, Who.UNKNOWN, True)])
        assert judgement.verdict is Verdict.UNDECIDED
        text = judgement.describe()
        assert "24 more turns through the front door must succeed" in text
        assert "front door: 1 of 33 turns failed, and nothing shows which revision answered" in text
        later = [added(judgement, CLEAN, Who.UNKNOWN, at_front=True) for _ in range(24)]
        assert later == [Verdict.UNDECIDED] * 23 + [Verdict.NO_WORSE]

    def test_a_clean_turn_of_nobody_does_not_count_for_it(self) -> None:
        assert judged(50, [(CLEAN, Who.UNKNOWN, True)] * 200).verdict is Verdict.UNDECIDED

    def test_a_front_door_that_fails_within_the_share_of_the_canary_does_not_pass(self) -> None:
        """The canary is clean at its own URL, and every other stream of users fails while it has half of them."""
        turns = [(CLEAN, Who.CANARY, False), (FAILED, Who.UNKNOWN, True), (CLEAN, Who.UNKNOWN, True)] * 12
        judgement = judged(50, turns)
        assert judgement.verdict is Verdict.WORSE
        assert (
            "more than 10 % of the turns through the front door fail, at 95 %, and the streams do not show which"
            in judgement.describe()
        )


class TestAlone:
    def test_a_canary_with_all_traffic_is_held_against_the_margin(self) -> None:
        judgement = judged(
            100, [(FAILED, Who.CANARY, True), (FAILED, Who.CANARY, False)], stable_answers=False
        )
        assert judgement.verdict is Verdict.WORSE
        assert "the canary fails more than 10 % of its turns, at 95 %" in judgement.describe()

    def test_its_times_are_compared_with_nothing_and_the_claim_says_so(self) -> None:
        judgement = judged(100, [(SLOW, Who.CANARY, True)] * 32, stable_answers=False)
        assert judgement.verdict is Verdict.NO_WORSE
        assert "times are not compared, because no stream of stable was seen" in judgement.describe()


class TestTimes:
    def test_a_canary_that_is_half_as_slow_again_is_worse(self) -> None:
        judgement = judged(5, side_by_side(LEAST_PAIRS, canary=SLOW))
        assert judgement.verdict is Verdict.WORSE
        assert (
            "is slower than stable: first event by more than 50 % (at least 0.25 s), in 6 of 6 pairs"
            in judgement.describe()
        )

    def test_a_late_first_event_alone_is_enough(self) -> None:
        assert judged(5, side_by_side(LEAST_PAIRS, canary=LATE_START)).verdict is Verdict.WORSE

    def test_a_faster_canary_never_fails(self) -> None:
        assert judged(5, side_by_side(40, stable=SLOW)).verdict is Verdict.NO_WORSE

    def test_a_tenth_of_a_second_is_no_matter_however_fast_stable_is(self) -> None:
        fast = Turn(failed=False, first_event=0.02, whole=0.05)
        slower = Turn(failed=False, first_event=0.12, whole=0.15)
        assert judged(5, side_by_side(40, canary=slower, stable=fast)).verdict is Verdict.NO_WORSE

    def test_too_few_pairs_are_undecided(self) -> None:
        turns = [*side_by_side(LEAST_PAIRS - 1), *[(CLEAN, Who.CANARY, False)] * 40]
        judgement = judged(5, turns)
        assert judgement.verdict is Verdict.UNDECIDED
        assert "too few pairs" in judgement.describe()
        assert judgement.missing_turns == 1

    @pytest.mark.parametrize("canary", [SLOW, CLEAN])
    def test_a_margin_of_zero_switches_the_times_off(self, canary: Turn) -> None:
        judgement = judged(5, side_by_side(32, canary=canary), slower=0.0)
        assert judgement.verdict is Verdict.NO_WORSE
        assert "times are not judged (MAX_CANARY_SLOWER_PERCENT is 0)" in judgement.describe()
