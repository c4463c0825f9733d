"""What is left behind: no secret in it, nothing that a terminal obeys, and never a part of a file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.http.secrets import Secrets
from cutover.record.evidence import EvidenceFolder, write_atomically
from cutover.text import printable
from tests.support.full_disk import disk_with_room_for


class TestSecrets:
    def test_they_are_masked_at_equal_length(self) -> None:
        secrets = Secrets(("tökén-1", "abc"))
        assert secrets.mask("a tökén-1 b".encode()) == b"a ********* b"
        assert secrets.mask_text("a tökén-1 b") == "a ******* b"

    def test_one_within_another_leaves_nothing_of_either(self) -> None:
        secrets = Secrets(("token", "token-and-more"))
        assert secrets.mask(b"token-and-more token") == b"************** *****"
        assert secrets.mask_text("token-and-more token") == "************** *****"

    def test_one_too_short_to_hide_anything_is_left(self) -> None:
        assert Secrets(("", "abc")).mask(b"abcabc") == b"abcabc"

    def test_they_are_in_no_repr(self) -> None:
        assert "marked" not in repr(Secrets(("marked-token",)))
        assert "marked" not in repr(EvidenceFolder(secrets=Secrets(("marked-token",))))

    @given(before=st.binary(), after=st.binary(), secret=st.text(min_size=4))
    def test_offsets_hold_and_the_secret_does_not(self, before: bytes, after: bytes, secret: str) -> None:
        data = before + secret.encode("utf-8", "surrogatepass") + after
        try:
            masked = Secrets((secret,)).mask(data)
        # A header cannot carry a lone surrogate, so it is no token.
        except UnicodeEncodeError:
            return
        assert len(masked) == len(data)
        assert set(secret) == {"*"} or secret.encode() not in masked


class TestPrintable:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain, ünïcode, 日本", "plain, ünïcode, 日本"),
            ("bell\x07 escape\x1b[2J nul\x00", "bell\\x07 escape\\x1b[2J nul\\x00"),
            ("line\r\nfeed\ttab", "line\\r\\nfeed\\ttab"),
            ("bidi \u202e\u2066 zero\u200bwidth", "bidi \\u202e\\u2066 zero\\u200bwidth"),
            ("c1 \x9b2J separators \u2028\u2029", "c1 \\x9b2J separators \\u2028\\u2029"),
            ("tag \U000e0041", "tag \\U000e0041"),
            ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ],
    )
    def test_control_sequences_of_a_terminal_are_shown_as_text(self, text: str, shown: str) -> None:
        assert printable(text) == shown

    def test_a_long_text_is_cut_and_says_so(self) -> None:
        assert printable("x" * 200) == "x" * 200
        assert printable("x" * 201) == "x" * 200 + "…"
        assert printable("abcdef", 3) == "abc…"

    @given(st.text(), st.integers(min_value=1, max_value=300))
    def test_any_text_becomes_printable_and_bounded(self, text: str, limit: int) -> None:
        shown = printable(text, limit)
        assert shown.isprintable()
        assert len(shown) <= limit * len("\\U00000000") + 1


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test under each umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


class TestModes:
    """Evidence is for its owner alone: replies of a production may hold what is nobody else's business."""

    @pytest.mark.usefixtures("umask")
    def test_files_get_0600_and_folders_that_are_made_0700(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path / "new" / "run")
        assert folder.write("step/check.body", b"x")
        made = [tmp_path / "new", tmp_path / "new" / "run", tmp_path / "new" / "run" / "step"]
        assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3
        assert (made[-1] / "check.body").stat().st_mode & 0o777 == 0o600

    def test_a_folder_that_was_there_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run").chmod(0o755)
        assert EvidenceFolder(tmp_path / "run").write("step/check.body", b"x")
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755

    def test_a_file_that_is_replaced_becomes_private(self, tmp_path: Path) -> None:
        (tmp_path / "summary.json").write_bytes(b"old")
        (tmp_path / "summary.json").chmod(0o644)
        write_atomically(tmp_path / "summary.json", b"new")
        assert (tmp_path / "summary.json").stat().st_mode & 0o777 == 0o600


class TestStaging:
    def test_a_staged_file_has_its_name_only_when_it_is_published(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path, Secrets(("marked-token",)))
        staged = folder.stage("summary.json", b"marked-token")
        assert staged is not None
        assert not (tmp_path / "summary.json").exists()
        assert folder.publish(staged)
        assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
        assert (tmp_path / "summary.json").read_bytes() == b"************"

    def test_a_discarded_file_leaves_nothing(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path)
        staged = folder.stage("summary.json", b"x")
        assert staged is not None
        folder.discard(staged)
        folder.discard(staged)
        assert list(tmp_path.iterdir()) == []

    def test_the_first_missing_file_is_the_one_that_is_told(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path)
        with disk_with_room_for(10):
            folder.write("first", b"x" * 100)
            folder.write("second", b"x" * 100)
        assert folder.failed is not None
        assert folder.failed.startswith("first cannot be written: ")


class TestWriteAtomically:
    def test_folders_are_made_and_the_old_file_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "summary.json"
        write_atomically(path, b"old")
        write_atomically(path, b"new")
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"]

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.json"
        write_atomically(path, b"old")
        with disk_with_room_for(100), pytest.raises(OSError, match="too large"):
            write_atomically(path, b"x" * 1000)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]

    def test_a_place_that_is_taken_leaves_nothing_behind(self, tmp_path: Path) -> None:
        (tmp_path / "taken" / "inner").mkdir(parents=True)
        with pytest.raises(OSError, match="taken"):
            write_atomically(tmp_path / "taken", b"x")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["taken"]


class TestEvidenceFolder:
    def test_without_a_root_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        folder = EvidenceFolder()
        assert folder.write("a.json", b"x") is None
        assert folder.keep_reply("s", "n", status_line="HTTP 200", headers=(), body=b"") == (None, None)
        assert (list(tmp_path.iterdir()), folder.failed) == ([], None)

    def test_every_written_file_is_masked(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path, Secrets(("marked-token",)))
        assert folder.write("step/check.body", b"a marked-token") == "step/check.body"
        assert (tmp_path / "step" / "check.body").read_bytes() == b"a ************"

    def test_a_reply_is_kept_as_received_but_for_credentials(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path, Secrets(("marked-token",)))
        paths = folder.keep_reply(
            "stream-smoke-pre",
            "pre-cutover-chat-stream",
            status_line="HTTP 200",
            headers=(
                (b"Content-Type", b"text/event-stream"),
                (b"Set-Cookie", b"session=1"),
                (b"AUTHORIZATION", b"Bearer x"),
                (b"cookie", b"c"),
                (b"X-Echo", b"marked-token \xe9"),
            ),
            body=b"data: marked-token\r\n\xff\r\n",
        )
        assert paths == (
            "stream-smoke-pre/pre-cutover-chat-stream.headers",
            "stream-smoke-pre/pre-cutover-chat-stream.body",
        )
        assert (tmp_path / paths[0]).read_bytes() == (
            b"HTTP 200\r\nContent-Type: text/event-stream\r\nX-Echo: ************ \xe9\r\n\r\n"
        )
        assert (tmp_path / paths[1]).read_bytes() == b"data: ************\r\n\xff\r\n"

    def test_a_full_disk_is_said_and_not_raised(self, tmp_path: Path) -> None:
        folder = EvidenceFolder(tmp_path)
        with disk_with_room_for(10):
            assert folder.write("step/check.body", b"x" * 100) is None
        assert folder.failed is not None
        assert folder.failed.startswith("step/check.body cannot be written: ")
        assert list((tmp_path / "step").iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_said_and_not_raised(self, tmp_path: Path) -> None:
        (tmp_path / "step").write_text("in the way")
        folder = EvidenceFolder(tmp_path)
        assert folder.write("step/check.body", b"x") is None
        assert folder.failed is not None
