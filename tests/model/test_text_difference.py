"""The texts of two services: what is masked, what is shown, and what is too long."""

import pytest

from cutover.model.text_difference import (
    MASK,
    MAX_DIFF_LINES,
    MAX_LINES,
    MAX_TEXT,
    diff,
    first_difference,
    masks_in,
    template,
)


@pytest.mark.parametrize(
    "volatile",
    [
        "2026-11-29T02:05:57Z",
        "2026-11-29T02:05:57.123456+01:00",
        "2026-11-29 02:05",
        "2026-11-29",
        "Sun, 29 Nov 2026 02:05:57 GMT",
        "0F8fad5b-d9cb-469f-a165-70867728950e",
    ],
)
def test_times_and_uuids_are_masked(volatile: str) -> None:
    assert template([f"at {volatile}, ok"]) == (f"at {MASK}, ok",)


def test_words_that_differ_between_two_answers_are_masked() -> None:
    lines = template(["<i>a1</i>\nsame\nn=5 m=6", "<i>b2</i>\nsame\nn=7 m=6"])
    assert lines == (f"<i>{MASK}</i>", "same", f"n={MASK} m=6")
    assert masks_in(lines) == 2
    # One more answer changes nothing that is masked already.
    assert template(["<i>a1</i>", "<i>b2</i>", "<i>c3</i>"]) == (f"<i>{MASK}</i>",)


def test_lines_of_any_number_are_one_mask() -> None:
    assert template(["a\n1\n2\nb", "a\n3\nb"]) == ("a", MASK, "b")
    assert template(["a\nb", "a\n3\nb"]) == ("a", MASK, "b")


def test_a_page_on_one_line_is_cut_between_its_tags() -> None:
    one, other = (f"<p>{word}</p><ul>{items}</ul>" for word, items in (("x", "<li>1</li>"), ("x", "")))
    assert template([one, other])[0] == "<p>x</p>"


def test_a_diff_is_safe_to_print_and_bounded() -> None:
    text = diff(["a", "\x1b[31m"], ["a", "b"])
    assert text.splitlines()[:2] == ["--- legacy", "+++ new"]
    assert "\x1b" not in text
    long = diff(["old"] * 500, ["new"] * 500)
    assert len(long.splitlines()) == MAX_DIFF_LINES + 1
    assert long.endswith("more lines)")
    assert (
        first_difference(["a"], ["a", "b"])
        == "line 2 is missing in the new service and 'b' in the legacy service"
    )


def test_a_text_that_is_too_long_is_not_compared() -> None:
    with pytest.raises(ValueError, match="has more than 262144 characters, and is not compared"):
        template(["a" * (MAX_TEXT + 1)])
    texts = ["\n".join(f"{side}{line}" for line in range(MAX_LINES + 1)) for side in "ab"]
    with pytest.raises(ValueError, match="differ in more than 2000 lines"):
        template(texts)
