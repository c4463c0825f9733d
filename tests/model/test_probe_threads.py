"""The threads of probes in the JSON of a user: what is left out of a comparison, and what stays."""

import json
from typing import Any

import pytest

from cutover.model.probe_threads import LISTED_AT_MOST, LeftOut, without_probe_threads

PREFIX = "thread_prod_stream_smoke"


def probe(number: int = 1) -> str:
    """Return the id of a probe's thread."""
    return f"{PREFIX}_20261128T105003Z_0a1b2c_{number:04d}"


def without(new: object, old: object, prefix: str = PREFIX) -> tuple[object, object, list[LeftOut]]:
    (one,), (other,), notes = without_probe_threads([new], [old], prefix=prefix)
    return one, other, list(notes)


def threads(*names: str) -> list[dict[str, str]]:
    return [{"id": name} for name in names]


def real(count: int) -> list[dict[str, str]]:
    return threads(*(f"thread_{number}" for number in range(count)))


def probes(count: int) -> list[dict[str, str]]:
    return threads(*(probe(number) for number in range(count)))


@pytest.mark.parametrize(
    "item",
    [
        probe(),
        {"id": probe()},
        {"title": "Hello", "thread_id": probe()},
        {"threadId": probe()},
        {"id": 7, "chatID": probe()},
        # The ids of the shell scripts' probes, and of the dual run's own threads.
        {"id": f"{PREFIX}_20261128T105003Z"},
        {"id": f"{PREFIX}_20261128T105003Z_0a1b2c_dual_new_chat-stream"},
    ],
)
def test_an_item_of_a_probe_is_left_out_at_any_depth(item: object) -> None:
    new = {"data": {"chats": [{"id": "c", "threads": [item, "thread_1"]}]}}
    old = {"data": {"chats": [{"id": "c", "threads": ["thread_1"]}]}}
    one, other, notes = without(new, old)
    assert one == other == old
    assert notes == [LeftOut(where=".data.chats[0].threads", new=1, old=0)]


@pytest.mark.parametrize(
    "item",
    [
        "thread_1",
        {"id": "thread_1"},
        {"id": None},
        {"title": probe()},
        {"paid": probe()},
        f"about {probe()}",
        PREFIX,
        f"{PREFIX}_notes",
        f"{PREFIX}s_20261128T105003Z",
        7,
        None,
    ],
)
def test_any_other_item_stays(item: object) -> None:
    assert without([item], [item]) == ([item], [item], [])


def test_a_short_prefix_does_not_take_the_users_own_threads_away() -> None:
    kept = threads("thread_1", "thread_20261128")
    one, other, notes = without([*kept, {"id": "thread_20261128T105003Z_0a1b2c_0001"}], kept, "thread")
    assert one == other == kept
    assert notes == [LeftOut(where="", new=1, old=0)]


def test_a_prefix_is_no_pattern() -> None:
    other = {"id": "thread_prodXstream_20261128T105003Z"}
    assert without([other], [], "thread_prod.stream") == ([other], [], [])


def test_a_member_that_a_probes_thread_names_is_left_out() -> None:
    one, other, notes = without(
        {"threads": {probe(): {"n": 1}, "thread_1": {}}}, {"threads": {"thread_1": {}}}
    )
    assert one == other == {"threads": {"thread_1": {}}}
    assert notes == [LeftOut(where=".threads", new=1, old=0)]


class TestACutList:
    def test_only_what_both_services_show_is_compared(self) -> None:
        new, old = [*probes(7), *real(43)], real(50)
        one, other, notes = without({"data": new}, {"data": old})
        assert one == other == {"data": real(43)}
        assert notes == [LeftOut(where=".data", new=7, old=0, head=43)]

    def test_two_cut_lists_are_compared_as_far_as_the_shorter_one_shows(self) -> None:
        one, other, notes = without([*probes(7), *real(43)], [*real(20), *probes(20), *real(30)[20:]])
        assert one == other == real(30)
        assert notes == [LeftOut(where="", new=7, old=20, head=30)]

    def test_a_thread_that_the_other_service_lacks_still_differs(self) -> None:
        one, other, _ = without([*probes(7), *real(43)], real(42))
        assert (one, other) == (real(43), real(42))

    @pytest.mark.parametrize("count", [LISTED_AT_MOST - 1, LISTED_AT_MOST + 1])
    def test_a_list_of_another_length_is_compared_as_a_whole(self, count: int) -> None:
        one, other, notes = without([*probes(7), *real(count - 7)], real(count))
        assert (one, other) == (real(count - 7), real(count))
        assert notes[0].head is None

    def test_a_list_without_probes_is_compared_as_a_whole(self) -> None:
        assert without(real(50), real(51)) == (real(50), real(51), [])

    def test_a_list_full_of_probes_hides_what_the_other_service_shows(self) -> None:
        one, other, notes = without(probes(50), real(3))
        assert one == other == []
        assert notes == [LeftOut(where="", new=50, old=0, head=0, unseen=True)]

    def test_two_lists_of_probes_alone_hide_nothing_that_was_seen(self) -> None:
        """A user of its own for the smoke has no other threads."""
        _, _, notes = without(probes(50), probes(50))
        assert not notes[0].unseen


def test_the_numbers_are_described() -> None:
    assert LeftOut(where=".data", new=7, old=0).describe() == (
        ".data without the threads of probes (7 in the new service, 0 in the legacy service)"
    )
    cut = LeftOut(where="", new=7, old=0, head=43).describe()
    assert cut.startswith("the answer without the threads of probes")
    assert "a list with 50 entries may be cut, so only the first 43 others could be compared" in cut
    assert "none of the others could be compared" in LeftOut(where="", new=50, old=0, head=0).describe()


def test_a_name_from_the_answer_is_escaped() -> None:
    new: Any = json.loads(json.dumps({"k\x1b": [probe()]}))
    assert without(new, {"k\x1b": []})[2][0].where == ".k\\x1b"
