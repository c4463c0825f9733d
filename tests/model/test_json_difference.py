"""JSON of two services: which values differ in meaning, and which are the noise of each service."""

import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.model.json_difference import IGNORED, KNOWN, MAX_DIFFERENCES, VARIES, Differences

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def compared(new: Sequence[object], old: Sequence[object], *ignore: str) -> Differences:
    found = Differences(ignore=dict.fromkeys(ignore, IGNORED))
    found.compare("", new, old, volatile={"generated_at"})
    return found


def places(new: Sequence[object], old: Sequence[object], *ignore: str) -> list[str]:
    return [each.place for each in compared(new, old, *ignore).found]


@given(JSON)
def test_a_value_is_like_itself(value: object) -> None:
    found = compared([value, value], [value, value])
    assert (found.count, found.left_out) == (0, [])


@given(JSON, JSON, JSON, JSON)
def test_both_directions_find_the_same_places(one: object, two: object, three: object, four: object) -> None:
    assert places([one, two], [three, four]) == places([three, four], [one, two])


def test_numbers_are_equal_by_value_and_keys_have_no_order() -> None:
    assert places([{"a": 1, "b": 2.0}], [{"b": 2, "a": 1.0}]) == []
    assert places([{"a": 1}], [{"a": True}]) == [".a"]


def test_what_varies_in_both_services_is_left_out_and_told() -> None:
    found = compared([{"id": "a", "n": 1}, {"id": "b", "n": 1}], [{"id": "c", "n": 1}, {"id": "d", "n": 1}])
    assert found.count == 0
    assert [(each.place, each.reason) for each in found.left_out] == [(".id", VARIES)]


def test_what_varies_in_one_service_alone_is_a_difference() -> None:
    found = compared([{"id": "a"}, {"id": "b"}], [{"id": "a"}, {"id": "a"}])
    assert found.found[0].text == (
        '.id varies in one service alone: it is "a" or "b" in the new service and "a" in the legacy service'
    )


@pytest.mark.parametrize(
    ("new", "old", "place"),
    [
        # The value is noise. Its type and its presence are not.
        ([{"id": 1}, {"id": 2}], [{"id": "c"}, {"id": "d"}], ".id"),
        ([{"id": None}, {"id": None}], [{"id": "c"}, {"id": "d"}], ".id"),
        ([{}, {}], [{"id": "c"}, {"id": "d"}], ".id"),
        ([{"id": "a", "x": 1}, {"id": "b"}], [{"id": "c"}, {"id": "d"}], ".x"),
        ([[1, 2], [3, 4]], [[1], [2]], "."),
        ([[1], [1, 2]], [[1], [1]], "."),
    ],
)
def test_noise_hides_no_other_type_and_no_loss(
    new: Sequence[object], old: Sequence[object], place: str
) -> None:
    assert places(new, old) == [place]


def test_lists_of_varying_length_are_compared_by_the_types_of_their_items() -> None:
    def items(*counts: int, **more: object) -> list[object]:
        return [{"items": [{"id": f"{count}{index}", **more} for index in range(count)]} for count in counts]

    found = compared(items(1, 3), items(2, 4))
    assert found.count == 0
    assert [each.place for each in found.left_out] == [".items[*]"]
    assert places(items(1, 3, text="x"), items(2, 4)) == [".items[*].text"]
    assert places(items(1, 3, n=1), items(2, 4, n="1")) == [".items[*].n"]


def test_keys_that_are_ids_are_compared_by_the_types_of_their_values() -> None:
    new, old = [{"a1": 1, "sum": 2}, {"b1": 1, "sum": 2}], [{"c1": 1, "sum": 2}, {"d1": 1, "sum": 2}]
    found = compared(new, old)
    assert found.count == 0
    assert [each.place for each in found.left_out] == [".*"]
    assert places(new, [{"c1": "1", "sum": 2}, {"d1": "1", "sum": 2}]) == [".*"]
    # A key that one service always has is no id.
    assert places([{"a1": 1, "sum": 2}, {"b1": 1, "sum": 2}], [{"c1": 1}, {"d1": 1}]) == [".sum"]


def test_below_a_difference_nothing_more_is_told() -> None:
    assert places([{"a": {"b": 1, "c": 2}}], [{}]) == [".a"]


def test_the_places_of_the_manifest_are_left_out_with_all_below_them() -> None:
    new, old = [{"a": {"b": [1]}, "ab": 1}], [{"a": {"b": [2]}, "ab": 2}]
    assert places(new, old, ".a") == [".ab"]
    assert places(new, old, ".a.b[0]", ".ab") == []
    assert places(new, old, ".") == []
    found = compared(new, old, ".a.b", ".ab")
    assert [(each.place, each.reason) for each in found.left_out] == [(".a.b", IGNORED), (".ab", IGNORED)]


def test_keys_that_are_new_in_each_answer_are_left_out_and_told() -> None:
    found = compared([{"a": [{"generated_at": 1}]}], [{"a": [{}]}])
    assert found.count == 0
    assert [(each.place, each.reason) for each in found.left_out] == [(".a[0].generated_at", KNOWN)]


def test_the_kept_differences_are_bounded_and_the_rest_is_counted() -> None:
    found = compared([list(range(500))], [list(range(1, 501))])
    assert (len(found.found), found.count) == (MAX_DIFFERENCES, 500)


def test_a_text_of_several_lines_is_shown_as_a_diff() -> None:
    found = compared(["a\nb\nc"], ["a\nx\nc"])
    assert found.found[0].text == (
        "the answer differs: line 2 is 'b' in the new service and 'x' in the legacy service"
    )
    assert "-x\n+b" in found.found[0].diff


@pytest.mark.parametrize(
    ("new", "old", "sides"),
    [
        (["a\nb\nc"], ["a\nx\nc"], ("1 a\n2 b\n3 c", "1 a\n2 x\n3 c")),
        (["1\n2\n3\n4\n5\n6\n7\n8"], ["1\n2\n3\n4\n"], ("3 3\n4 4\n5 5\n6 6\n7 7", "3 3\n4 4")),
        ([1], ["1"], ("1", '"1"')),
        ([{"a": 1}], [{}], ("1", "nothing")),
        ([[1, 2]], [[1]], ("2 items", "1 item")),
        ([1, 2], [1, 1], ("1 or 2", "1")),
        ([[1], [1, 2]], [[1], [1]], ("1 or 2 items", "1 items")),
    ],
)
def test_a_difference_has_the_values_of_both_sides(
    new: Sequence[object], old: Sequence[object], sides: tuple[str, str]
) -> None:
    (found,) = compared(new, old).found
    assert (found.new, found.old) == sides
