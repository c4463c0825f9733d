"""The notation for order is a regular expression over kinds, and each slip in it is a sentence."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.contract.order import ANY, Automaton, OrderError, parse_order

KINDS = "abcxy"
"""Kinds of the words. No expression names x or y, so a dot always stands for them."""


def accepts(automaton: Automaton, word: Sequence[str]) -> bool:
    state: int | None = 0
    for kind in word:
        symbol = kind if kind in automaton.symbols else ANY
        state = automaton.moves[state or 0].get(symbol)
        if state is None:
            return False
    return automaton.accepts[state or 0]


Tree = tuple[str, tuple["Tree", ...]]
LEAVES = st.sampled_from([(name, ()) for name in "abc."])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["beside", "|"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.tuples(st.sampled_from("?*+"), st.tuples(inner)),
    ),
    max_leaves=9,
)


def notation(tree: Tree) -> str:
    sort, parts = tree
    if not parts:
        return sort
    if sort == "beside":
        return " ".join(f"({notation(part)})" for part in parts)
    if sort == "|":
        return "|".join(f"({notation(part)})" for part in parts)
    return f"({notation(parts[0])}){sort}"


def names_in(tree: Tree) -> set[str]:
    sort, parts = tree
    return set().union(*map(names_in, parts)) if parts else {sort} - {ANY}


def as_python(tree: Tree, named: set[str]) -> str:
    sort, parts = tree
    if not parts:
        return f"[^{''.join(sorted(named))}\n]" if sort == ANY else sort
    inner = [f"(?:{as_python(part, named)})" for part in parts]
    return "".join(inner) if sort == "beside" else "|".join(inner) if sort == "|" else inner[0] + sort


@given(tree=TREES, words=st.lists(st.text(alphabet=KINDS, max_size=7), max_size=12))
def test_an_order_accepts_the_words_of_the_same_regular_expression(tree: Tree, words: list[str]) -> None:
    automaton = parse_order(notation(tree))
    pattern = re.compile(as_python(tree, names_in(tree)))
    for word in words:
        assert accepts(automaton, word) is (pattern.fullmatch(word) is not None), (notation(tree), word)


@given(tree=TREES, choices=st.lists(st.integers(min_value=0, max_value=9), max_size=12))
def test_a_word_that_follows_the_moves_is_a_word_of_the_expression(tree: Tree, choices: list[int]) -> None:
    automaton = parse_order(notation(tree))
    pattern = re.compile(as_python(tree, names_in(tree)))
    state, word = 0, ""
    for choice in choices:
        moves = sorted(automaton.moves[state].items())
        if not moves:
            break
        symbol, state = moves[choice % len(moves)]
        word += "x" if symbol == ANY else symbol
        assert (pattern.fullmatch(word) is not None) is automaton.accepts[state]


@given(tree=TREES, words=st.lists(st.text(alphabet="abc", max_size=5), min_size=1, max_size=12))
def test_no_two_states_can_be_told_apart_by_no_word(tree: Tree, words: list[str]) -> None:
    """The automaton is the smallest one: for each pair of states, some word leads to an end from one of them alone."""
    automaton = parse_order(notation(tree))
    classes = list(map(int, automaton.accepts))
    for _ in automaton.moves:
        looks = [
            (classes[state], *sorted((symbol, classes[to]) for symbol, to in here.items()))
            for state, here in enumerate(automaton.moves)
        ]
        classes = [looks.index(look) for look in looks]
    assert len(set(classes)) == len(automaton.moves)


def test_state_0_is_the_first_one() -> None:
    automaton = parse_order("a b* c")
    assert [dict(moves) for moves in automaton.moves] == [{"a": 1}, {"b": 1, "c": 2}, {}]
    assert automaton.accepts == (False, False, True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("start .* finish", {"start", "finish", "."}),
        ("text-start|data.x", {"text-start", "data.x"}),
        ('"text start" \'a|b\' "("', {"text start", "a|b", "("}),
        ("a\tb\n  c ", {"a", "b", "c"}),
        ('"it\'s"', {"it's"}),
        ("größe 名前", {"größe", "名前"}),
        ("a?(b)c", {"a", "b", "c"}),
    ],
)
def test_names_stand_between_signs_and_spaces_or_in_quotation_marks(text: str, names: set[str]) -> None:
    assert parse_order(text).symbols == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the order is empty; leave it out if any order is right"),
        (" \n ", "the order is empty; leave it out if any order is right"),
        ("a )", "the order 'a )' has a ) without its ("),
        ("(a", "the order '(a' has a ( without its )"),
        ("a (b | c", "the order 'a (b | c' has a ( without its )"),
        ("()", "the order '()' has a place where a kind is missing, beside a | or inside ()"),
        ("a |", "the order 'a |' has a place where a kind is missing, beside a | or inside ()"),
        ("| a", "the order '| a' has a place where a kind is missing, beside a | or inside ()"),
        ("*", "the order '*' has a * that follows nothing"),
        ("a (+ b)", "the order 'a (+ b)' has a + that follows nothing"),
        ("a*?", "the order 'a*?' has *?; one of the two signs is enough"),
        ("a + +", "the order 'a + +' has ++; one of the two signs is enough"),
        ('"a b', "the order '\"a b' has a quotation mark without its second one"),
        ("a '", 'the order "a \'" has a quotation mark without its second one'),
        ('""', "the order '\"\"' has a quotation mark without its second one"),
        ('"."', "the order '\".\"' has a dot in quotation marks; no kind can be named so"),
        ("a " * 1001, "the order has more than 1000 words; split it into `each` orders, or give a table"),
    ],
)
def test_a_slip_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(OrderError) as caught:
        parse_order(text)
    assert str(caught.value) == sentence
    assert isinstance(caught.value, ValueError)


def test_an_order_is_bounded() -> None:
    with pytest.raises(OrderError, match="more than 100 parentheses inside each other"):
        parse_order("(" * 200 + "a" + ")" * 200)
    with pytest.raises(OrderError, match="needs more than 4000 states; give a table instead"):
        parse_order("(a|b)* a " + "(a|b) " * 13)
    assert accepts(parse_order("(" * 100 + "a" + ")" * 100), "a")
    assert len(parse_order("a " * 1000).moves) == 1001


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("a b?", 0, "a"),
        ("a b?", 1, "b or the end"),
        ("a b?", 2, "nothing more"),
        ("a .* (b | c)", 1, "any other kind or b or c"),
        (" | ".join(f"k{number}" for number in range(15)), 0, " or ".join([*(f"k{n}" for n in range(12)), "3 other kinds"])),
    ],
)  # fmt: skip
def test_the_events_that_may_come_next_are_told_in_words(text: str, state: int, words: str) -> None:
    assert parse_order(text).next_in(state) == words


def test_an_order_resumes_behind_the_fewest_missing_events() -> None:
    automaton = parse_order("a b c (d | e f)")
    assert dict(automaton.resumed(0)) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 4}
    assert dict(automaton.resumed(4)) == {}
    assert dict(parse_order("(a b)*").resumed(1)) == {"b": 0, "a": 1}


def test_an_order_without_a_symbol_has_no_dead_end() -> None:
    automaton = parse_order("a . b | c").without(ANY)
    assert list(automaton.moves[0]) == ["c"]
    assert automaton.can_end()
    assert not parse_order("a . b").without(ANY).can_end()
    assert parse_order("(a . b)*").without(ANY).can_end()
