"""How many turns that fail on their way does chance explain, in a smoke and around a change?"""

import pytest

from cutover.model.losses import BEFORE, IN_A_ROW, MOST_LOOKS, ChangeLosses, SmokeLooks

GOOD, BAD = (False, False), (True, False)


def looks(most: float = 0.1) -> SmokeLooks:
    return SmokeLooks(aliases=2, most=most)


class TestSmoke:
    def test_a_good_first_look_passes_at_once(self) -> None:
        assert looks().take(GOOD) is True

    def test_after_a_failed_turn_five_good_looks_in_a_row_pass(self) -> None:
        smoke = looks()
        assert [smoke.take(look) for look in (BAD, *[GOOD] * IN_A_ROW)] == [*[None] * IN_A_ROW, True]

    def test_a_failed_turn_in_between_begins_the_row_again(self) -> None:
        smoke = looks()
        answers = [smoke.take(look) for look in (BAD, GOOD, GOOD, GOOD, GOOD, (False, True), *[GOOD] * 5)]
        assert answers == [*[None] * 10, True]

    def test_an_alias_that_fails_each_turn_fails_the_smoke_at_its_second_turn(self) -> None:
        smoke = looks()
        assert [smoke.take(BAD), smoke.take(BAD)] == [None, False]

    def test_two_aliases_that_lose_one_turn_each_do_not_add_up(self) -> None:
        smoke = looks()
        assert [smoke.take((True, False)), smoke.take((False, True))] == [None, None]

    def test_less_may_fail_if_chance_explains_less(self) -> None:
        assert looks(most=0.02).take(BAD) is False

    def test_a_smoke_without_a_row_of_good_looks_ends_and_fails(self) -> None:
        smoke = looks(most=0.9)
        answers = [smoke.take(BAD if number % 4 == 0 else GOOD) for number in range(MOST_LOOKS)]
        assert answers == [*[None] * (MOST_LOOKS - 1), False]


class TestChange:
    def test_one_lost_stream_does_not_count(self) -> None:
        losses = ChangeLosses(most=0.1, over_all={})
        assert [losses.add("held", failed=failed) for failed in (False, True, False)] == [0, 0, 0]
        assert losses.by_chance == 1

    def test_a_change_that_breaks_all_streams_of_a_kind_counts_each_of_them(self) -> None:
        losses = ChangeLosses(most=0.1, over_all={})
        assert [losses.add("response", failed=True) for _ in range(3)] == [0, 2, 1]
        assert losses.by_chance == 0

    def test_whole_streams_of_another_kind_do_not_hide_that(self) -> None:
        losses = ChangeLosses(most=0.1, over_all={})
        for _ in range(10):
            assert losses.add("paced", failed=False) == 0
        assert [losses.add("held", failed=True) for _ in range(2)] == [0, 2]

    def test_one_stream_lost_at_each_change_counts_in_the_end(self) -> None:
        """Each change loses one of two; no single change shows that this is no chance."""
        losses = ChangeLosses(most=0.1, over_all={})
        counted = []
        for _ in range(5):
            losses = ChangeLosses(most=0.1, over_all=losses.over_all)
            counted.append(losses.add("held", failed=True) + losses.add("held", failed=False))
        assert counted[0] == 0
        assert counted[-1] == 1

    def test_streams_that_ended_before_the_change_never_count(self) -> None:
        losses = ChangeLosses(most=0.1, over_all={})
        assert [losses.add(BEFORE, failed=True) for _ in range(9)] == [0] * 9
        assert losses.by_chance == 9

    def test_where_many_fail_before_the_change_two_of_a_kind_are_chance_and_many_are_not(self) -> None:
        losses = ChangeLosses(most=0.1, over_all={})
        for failed in (True, False, True, False):
            losses.add(BEFORE, failed=failed)
        counted = [losses.add("held", failed=True) for _ in range(6)]
        assert counted[:2] == [0, 0]
        assert sum(counted) == 6 + 2

    @pytest.mark.parametrize("most", [0.01, 0.02])
    def test_a_single_one_counts_if_chance_explains_very_few(self, most: float) -> None:
        assert ChangeLosses(most=most, over_all={}).add("held", failed=True) == 1
