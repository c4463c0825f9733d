"""The journal: what is recorded is on disk, can be read again as it was, and a fault of the disk is said and not raised."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.contract.findings import Finding
from cutover.errors import NotStartedError
from cutover.model.error_budget import BudgetReading
from cutover.model.results import Check, SentinelTally, StepResult
from cutover.model.route_state import RouteState
from cutover.model.seen_stream import QuotedFinding, SeenStream
from cutover.model.summary import fold
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    Answered,
    BudgetRead,
    CheckRecorded,
    CommandStarted,
    Decided,
    DecisionTaken,
    Interrupted,
    RouteIntended,
    RoutesRead,
    StepFinished,
    StepStarted,
    StreamsSeen,
    TakenOver,
    TrafficIntended,
    TrafficRead,
    TrafficSettled,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    UnknownEvent,
    Waiting,
)
from cutover.model.undo_plan import plan_undo
from cutover.record.journal import VERSION, Journal, read_journal
from tests.support.full_disk import disk_with_room_for

NAMES = st.none() | st.text()
COUNTS = st.integers(min_value=0, max_value=2**53)
JSON = st.recursive(
    st.none() | st.booleans() | COUNTS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FACTS = st.dictionaries(st.text(), JSON, max_size=4)


def tuples_of(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, max_size=3).map(tuple)


TARGETS = tuples_of(
    st.builds(TrafficTarget, revision=NAMES, percent=st.integers(0, 100), tag=NAMES, uri=NAMES)
)
TRAFFIC = st.builds(
    TrafficState,
    targets=TARGETS,
    statuses=TARGETS,
    generation=st.text(),
    etag=NAMES,
    settled=st.booleans(),
    succeeded=st.booleans(),
    message=st.text(),
    latest_ready=NAMES,
    latest_created=NAMES,
)
ROUTES = st.builds(RouteState, overrides=tuples_of(st.tuples(st.text(), NAMES)), mode=st.text())
FINDINGS = st.builds(
    Finding, event_index=st.none() | COUNTS, byte_offset=st.none() | COUNTS, expected=NAMES, actual=NAMES
)
CHECKS = st.builds(
    Check,
    detail=st.text(),
    kind=NAMES,
    endpoint=NAMES,
    http_status=st.none() | COUNTS,
    headers_path=NAMES,
    body_path=NAMES,
    findings=tuples_of(FINDINGS),
    tolerable=st.booleans(),
    recorded_at=st.text(),
)
TALLIES = st.builds(
    SentinelTally,
    streams=COUNTS,
    broken=COUNTS,
    revisions=tuples_of(st.tuples(st.text(), COUNTS)),
    details=tuples_of(st.text()),
)
FIGURES = st.none() | st.integers(0, 10**9).map(lambda tenths: tenths / 10)
READINGS = st.builds(
    BudgetReading,
    consumed_percent=FIGURES,
    unknown=st.text(),
    max_consumed_percent=FIGURES.filter(lambda figure: figure is not None),
    events=FIGURES,
    short_burn_rate=FIGURES,
    long_burn_rate=FIGURES,
    spent_percent=FIGURES,
)
RESULTS = st.builds(
    StepResult,
    detail=st.text(),
    checks=tuples_of(CHECKS),
    sentinels=tuples_of(TALLIES),
    facts=FACTS,
    by_configuration=st.booleans(),
    artifact=NAMES,
)
MILLISECONDS = st.integers(0, 10**9).map(lambda tenths: tenths / 10)
SEEN = st.builds(
    SeenStream,
    place=st.text(),
    revision=NAMES,
    status=st.none() | COUNTS,
    held=MILLISECONDS,
    ended=MILLISECONDS,
    count=COUNTS,
    times=tuples_of(MILLISECONDS),
    reason=st.text(),
    findings=tuples_of(
        st.builds(
            QuotedFinding, event_index=st.none() | COUNTS, byte_offset=st.none() | COUNTS, after=st.text()
        )
    ),
)
EVENTS: dict[type, st.SearchStrategy[TrainEvent]] = {
    TrainStarted: st.builds(TrainStarted, facts=FACTS),
    StepStarted: st.builds(StepStarted),
    CheckRecorded: st.builds(CheckRecorded, check=CHECKS),
    BudgetRead: st.builds(BudgetRead, reading=READINGS),
    TrafficIntended: st.builds(TrafficIntended, captured=TRAFFIC, wanted=TARGETS, etag=NAMES),
    CommandStarted: st.builds(CommandStarted, argv=tuples_of(st.text()), pid=COUNTS),
    RouteIntended: st.builds(RouteIntended, captured=ROUTES, wanted=NAMES, times=COUNTS),
    Answered: st.builds(Answered, detail=st.text()),
    TrafficRead: st.builds(TrafficRead, found=TRAFFIC),
    RoutesRead: st.builds(RoutesRead, shares=tuples_of(st.tuples(ROUTES, COUNTS))),
    TrafficSettled: st.builds(TrafficSettled),
    Waiting: st.builds(Waiting),
    DecisionTaken: st.builds(DecisionTaken),
    StreamsSeen: st.builds(
        StreamsSeen, streams=tuples_of(SEEN), left_out=tuples_of(st.tuples(st.text(), COUNTS))
    ),
    StepFinished: st.builds(StepFinished, result=RESULTS),
    Interrupted: st.builds(Interrupted),
    TakenOver: st.builds(TakenOver, by=st.text(), before=st.text()),
    UndoStarted: st.builds(UndoStarted),
    Decided: st.builds(Decided),
    UndoFinished: st.builds(UndoFinished, to_do=tuples_of(st.text())),
    TrainFinished: st.builds(TrainFinished, exit_code=COUNTS, reasons=tuples_of(st.text())),
}
CURRENT = f"{VERSION[0]}.{VERSION[1]}"
NEWER = f"{VERSION[0]}.{VERSION[1] + 1}"
ONE, TWO, THREE = (StepStarted(step_id=name) for name in ("one", "two", "three"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path)
    yield journal
    journal.close()


def bare(events: list[TrainEvent]) -> list[TrainEvent]:
    """Return the events without the time at which they were recorded."""
    return [attrs.evolve(event, at="") for event in events]


class TestRoundTrip:
    def test_every_kind_of_event_is_tried(self) -> None:
        assert set(EVENTS) == set(get_args(TrainEvent)) - {UnknownEvent}

    def test_no_event_has_a_field_that_a_line_keeps_for_itself(self) -> None:
        for kind in EVENTS:
            assert not {"event", "version"} & {field.name for field in attrs.fields(kind)}

    @given(events=st.lists(st.one_of(*EVENTS.values()), min_size=1, max_size=4))
    def test_recorded_events_are_read_back_the_same(
        self, tmp_path_factory: pytest.TempPathFactory, events: list[TrainEvent]
    ) -> None:
        path = tmp_path_factory.mktemp("run") / "journal.jsonl"
        journal = Journal.create(path)
        recorded = [journal.record(event) for event in events]
        journal.close()
        assert read_journal(path) == recorded == journal.events
        assert all(event.at.endswith("Z") for event in recorded)
        assert bare(recorded) == bare(events)

    def test_each_event_is_one_line_of_json(self, journal: Journal, path: Path) -> None:
        journal.record(TrainStarted(run_id="r", facts={"text": "a\nb\u2028"}))
        journal.record(TrafficSettled())
        lines = path.read_bytes().splitlines()
        assert [msgspec.json.decode(line)["event"] for line in lines] == ["TrainStarted", "TrafficSettled"]

    def test_an_event_is_on_disk_before_anybody_is_told(self, journal: Journal, path: Path) -> None:
        seen: list[list[TrainEvent]] = []
        journal.observers.append(lambda _: seen.append(read_journal(path)))
        recorded = journal.record(ONE)
        assert seen == [[recorded]]

    def test_without_a_file_events_are_in_memory_alone(self) -> None:
        journal = Journal()
        recorded = journal.record(ONE)
        journal.close()
        assert (journal.events, journal.broken) == ([recorded], None)


class TestCreate:
    def test_a_journal_that_is_there_is_never_written_over(self, journal: Journal, path: Path) -> None:
        journal.record(ONE)
        before = path.read_bytes()
        with pytest.raises(FileExistsError):
            Journal.create(path)
        assert path.read_bytes() == before

    def test_a_folder_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Journal.create(tmp_path / "none" / "journal.jsonl")

    def test_closing_twice_is_no_error_and_the_events_stay(self, journal: Journal, path: Path) -> None:
        journal.record(ONE)
        journal.close()
        journal.close()
        journal.record(TWO)
        assert bare(journal.events) == [ONE, TWO]
        assert bare(read_journal(path)) == [ONE]

    @pytest.mark.parametrize("fails", ["fsync", "open"])
    def test_a_disk_that_fails_leaves_no_file_and_no_descriptor(
        self, fails: str, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next try must not find a journal that nobody wrote."""
        opened: list[int] = []

        class FailingOs(WatchedOs):
            def open(self, path: Path, flags: int, *mode: int) -> int:
                if fails == "open" and not flags & os.O_CREAT:
                    raise OSError(errno.EIO, "a folder that cannot be opened")
                opened.append(super().open(path, flags, *mode))
                return opened[-1]

            def fsync(self, handle: int) -> None:
                if fails == "fsync":
                    raise OSError(errno.EIO, "a disk that fails")
                super().fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr("cutover.record.journal.os", FailingOs())
            with pytest.raises(OSError, match=r"fails|cannot be opened"):
                Journal.create(path)
        assert opened
        for handle in opened:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(handle)
        Journal.create(path).close()

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_only_its_owner_may_read_it(self, umask: int, path: Path) -> None:
        before = os.umask(umask)
        try:
            Journal.create(path).close()
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o600


MIRROR = b'{"event":"MirrorIntended","at":"2026-01-02T03:04:05.000Z","share":[5],"step_id":"mirror"}\n'


class TestVersions:
    def started(self, path: Path, version: object) -> None:
        line: dict[str, object] = {"event": "TrainStarted", "at": "", "run_id": "r", "facts": {}}
        if version is not None:
            line["version"] = version
        path.write_bytes(msgspec.json.encode(line) + b"\n")

    def test_the_first_line_of_each_journal_names_the_version(self, journal: Journal, path: Path) -> None:
        journal.record(ONE)
        journal.record(TWO)
        first, second = map(msgspec.json.decode, path.read_bytes().splitlines())
        assert first["version"] == CURRENT
        assert "version" not in second

    def test_a_journal_without_a_version_is_read_and_the_first_line_appended_names_one(
        self, path: Path
    ) -> None:
        """An older cutover can still read it, for a field that it does not know is no damage."""
        self.started(path, None)
        for event in (ONE, TWO):
            journal = Journal.reopen(path)
            journal.record(event)
            journal.close()
        lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        assert [line.get("version") for line in lines] == [None, CURRENT, None]
        assert bare(read_journal(path))[1:] == [ONE, TWO]

    def test_an_event_that_only_a_newer_minor_version_knows_is_kept_and_passed_over(self, path: Path) -> None:
        self.started(path, NEWER)
        path.write_bytes(path.read_bytes() + MIRROR + b'{"event":"StepStarted","step_id":"one","who":{}}\n')
        before = path.read_bytes()
        journal = Journal.reopen(path)
        unknown = UnknownEvent(
            name="MirrorIntended",
            at="2026-01-02T03:04:05.000Z",
            fields={"at": "2026-01-02T03:04:05.000Z", "share": [5], "step_id": "mirror"},
        )
        assert journal.events[1:] == [unknown, ONE]
        assert journal.complaints == [
            (
                "a newer cutover wrote this journal; this version ignored the events that it does not know:"
                " MirrorIntended; to see them, use the newer version"
            )
        ]
        assert not plan_undo(journal.events, stable="stable")
        assert [step.step_id for step in fold(journal.events).steps] == ["one"]
        journal.record(TWO)
        journal.close()
        # Nothing that the newer version wrote is lost, and what is appended claims no older version.
        assert path.read_bytes().startswith(before)
        assert bare(read_journal(path))[2:] == [ONE, TWO]

    def test_a_newer_version_that_went_on_with_a_journal_is_seen_in_its_own_first_line(
        self, path: Path
    ) -> None:
        self.started(path, CURRENT)
        later = b'{"event":"StepStarted","step_id":"one","version":"1.9"}\n'
        path.write_bytes(path.read_bytes() + later + MIRROR)
        assert isinstance(read_journal(path)[-1], UnknownEvent)

    @pytest.mark.parametrize("version", [None, "1.0", "1.1", CURRENT])
    @pytest.mark.parametrize("name", ["MirrorIntended", "UnknownEvent"])
    def test_an_unknown_event_of_the_same_or_an_older_version_is_damage(
        self, version: str | None, name: str, path: Path
    ) -> None:
        self.started(path, version)
        path.write_bytes(path.read_bytes() + MIRROR.replace(b"MirrorIntended", name.encode()))
        with pytest.raises(NotStartedError, match="line 2 is not a train event"):
            read_journal(path)

    def test_a_known_event_of_a_newer_minor_version_is_still_checked(self, path: Path) -> None:
        self.started(path, NEWER)
        path.write_bytes(path.read_bytes() + b'{"event":"StepStarted"}\n')
        with pytest.raises(NotStartedError, match="line 2 is not a train event"):
            read_journal(path)

    @pytest.mark.parametrize("read", [read_journal, Journal.reopen])
    @pytest.mark.parametrize("version", ["2.0", "10.3"])
    def test_another_major_version_is_refused_with_what_is_needed(
        self, version: str, read: object, path: Path
    ) -> None:
        self.started(path, version)
        path.write_bytes(path.read_bytes() + MIRROR + b"[]\n{")
        before = path.read_bytes()
        with pytest.raises(NotStartedError) as caught:
            read(path)  # type: ignore[operator]
        said = str(caught.value)
        assert f"{path} is a journal of version {version}, and this cutover reads only versions 1.x;" in said
        assert (
            f"use a cutover that reads versions {version.split(chr(46), maxsplit=1)[0]}.x, such as the one that wrote the journal"
            in said
        )
        assert "the file and production were not changed" in said
        assert path.read_bytes() == before

    @pytest.mark.parametrize("version", ["1", "1.x", "", "1.0.0", "-1.0", 1, 1.0, ["1.0"], "1." + "9" * 5000])
    def test_a_version_that_is_none_is_damage(self, version: object, path: Path) -> None:
        self.started(path, version)
        with pytest.raises(NotStartedError, match="line 1 is not a train event") as caught:
            read_journal(path)
        assert len(str(caught.value)) < 400


class TestReading:
    @pytest.mark.parametrize("torn", [b"{", b'{"event":"StepStarted","step_id":"three"}', b"\xff\x00"])
    def test_a_torn_last_line_is_left_out(self, journal: Journal, path: Path, torn: bytes) -> None:
        journal.record(ONE)
        with path.open("ab") as file:
            file.write(torn)
        assert bare(read_journal(path)) == [ONE]

    def test_an_empty_file_is_a_journal_without_events(self, path: Path) -> None:
        path.touch()
        assert read_journal(path) == []

    @pytest.mark.parametrize(
        "damaged",
        [
            b"",
            b"{",
            b"[]",
            b'"StepStarted"',
            b"{}",
            b'{"event":"Nonsense"}',
            b'{"event":["StepStarted"]}',
            b'{"event":"StepStarted"}',
            b'{"event":"StepStarted","step_id":7}',
            b'{"event":"StepStarted","step_id":"\xff"}',
            b'{"event":"TrafficRead","proven":true,"found":{"targets":[{}],"statuses":[]}}',
            b'{"event":"StepStarted","step_id":' + b"[" * 100_000,
        ],
    )
    @pytest.mark.parametrize("read", [read_journal, Journal.reopen])
    def test_a_damaged_line_is_refused_by_its_number_and_not_touched(
        self, read: object, damaged: bytes, journal: Journal, path: Path
    ) -> None:
        journal.record(ONE)
        with path.open("ab") as file:
            file.write(damaged + b"\n")
        journal.record(TWO)
        before = path.read_bytes()
        with pytest.raises(NotStartedError, match=rf"{path}: line 2 is not a train event"):
            read(path)  # type: ignore[operator]
        assert path.read_bytes() == before

    @pytest.mark.parametrize("foreign", [b"my diary", b"{}", b'{"id":1}', b"\0" * 20])
    @pytest.mark.parametrize("read", [read_journal, Journal.reopen])
    def test_a_file_that_is_no_journal_is_an_error_and_no_torn_line(
        self, read: object, foreign: bytes, path: Path
    ) -> None:
        path.write_bytes(foreign)
        with pytest.raises(NotStartedError, match="is not a journal; it was not changed"):
            read(path)  # type: ignore[operator]
        assert path.read_bytes() == foreign

    @pytest.mark.parametrize("torn", [b"{", b'{"event"', b'{"event":"TrainStar'])
    def test_a_first_line_that_is_torn_is_a_journal_without_events(self, torn: bytes, path: Path) -> None:
        path.write_bytes(torn)
        assert read_journal(path) == []
        Journal.reopen(path).close()
        assert path.read_bytes() == b""

    def test_a_key_that_a_later_version_added_is_no_damage(self, path: Path) -> None:
        path.write_bytes(b'{"event":"StepStarted","at":"","step_id":"one","more":[1]}\n')
        assert read_journal(path) == [ONE]


class TestReopen:
    def test_a_torn_last_line_is_cut_off_before_the_next_one(self, journal: Journal, path: Path) -> None:
        journal.record(ONE)
        journal.close()
        with path.open("ab") as file:
            file.write(b'{"event":"Step')
        again = Journal.reopen(path)
        again.record(TWO)
        again.close()
        assert bare(again.events) == bare(read_journal(path)) == [ONE, TWO]

    def test_a_journal_that_is_not_there_is_an_error(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Journal.reopen(path)
        assert not path.exists()


@attrs.define(eq=False)
class WatchedOs:
    """The module ``os``, and what was done to which path by it."""

    done: list[tuple[str, Path]] = attrs.field(factory=list)
    paths: dict[int, Path] = attrs.field(factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, *mode: int) -> int:
        handle = os.open(path, flags, *mode)
        self.paths[handle] = path
        if flags & os.O_CREAT:
            self.done.append(("create", path))
        return handle

    def fsync(self, handle: int) -> None:
        os.fsync(handle)
        self.done.append(("fsync", self.paths[handle]))

    def ftruncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)
        self.done.append(("truncate", self.paths[handle]))

    def write(self, handle: int, data: bytes) -> int:
        self.done.append(("write", self.paths[handle]))
        return os.write(handle, data)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> WatchedOs:
    found = WatchedOs()
    monkeypatch.setattr("cutover.record.journal.os", found)
    return found


class TestPowerCut:
    """What is done to the disk, and in which order: nothing follows from what a power cut could still take away."""

    def test_file_and_both_folders_are_durable_before_the_first_line(
        self, tmp_path: Path, watched: WatchedOs
    ) -> None:
        """Both, for the run's folder is as new as its journal."""
        folder = tmp_path / "run"
        folder.mkdir()
        path = folder / "journal.jsonl"
        journal = Journal.create(path)
        journal.record(StepStarted(step_id="preflight"))
        journal.close()
        assert watched.done[:2] == [("create", path), ("fsync", path)]
        assert set(watched.done[2:4]) == {("fsync", folder), ("fsync", tmp_path)}
        assert watched.done[4:] == [("write", path), ("fsync", path)]

    def test_each_line_is_durable_before_anybody_is_told(self, path: Path, watched: WatchedOs) -> None:
        journal = Journal.create(path)
        del watched.done[:]
        journal.observers.append(lambda _: watched.done.append(("tell", path)))
        journal.record(StepStarted(step_id="preflight"))
        journal.record(StepStarted(step_id="stream-smoke-pre"))
        journal.close()
        assert watched.done == [("write", path), ("fsync", path), ("tell", path)] * 2

    def test_a_torn_line_is_gone_for_good_before_the_next_one(self, path: Path, watched: WatchedOs) -> None:
        """Or a power cut could leave the new line behind the torn one: damage in the middle."""
        path.write_bytes(b'{"event":"StepStarted","step_id":"preflight"}\n{"event":"Ste')
        journal = Journal.reopen(path)
        journal.record(StepStarted(step_id="undo"))
        journal.close()
        assert watched.done == [("truncate", path), ("fsync", path), ("write", path), ("fsync", path)]


class TestFullDisk:
    def test_a_short_write_breaks_the_journal_and_recording_goes_on(
        self, journal: Journal, path: Path
    ) -> None:
        told: list[TrainEvent] = []
        journal.observers.append(told.append)
        journal.record(ONE)
        with disk_with_room_for(path.stat().st_size + 10):
            journal.record(TWO)
        assert journal.broken == "the journal cannot be written: short write"
        journal.record(THREE)
        assert bare(journal.events) == bare(told) == [ONE, TWO, THREE]
        # Nothing is appended to a torn line.
        assert bare(read_journal(path)) == [ONE]

    def test_a_refused_write_breaks_it_too(self, journal: Journal, path: Path) -> None:
        journal.record(ONE)
        with disk_with_room_for(path.stat().st_size):
            journal.record(TWO)
        assert journal.broken is not None
        # The error is EFBIG: the file would be too large.
        assert os.strerror(27) in journal.broken
        assert bare(journal.events) == [ONE, TWO]


class TestObservers:
    def test_one_that_raises_is_not_called_again_and_the_others_are(self) -> None:
        calls: list[str] = []

        def bad(event: TrainEvent) -> None:
            calls.append("bad")
            raise ValueError("a broken progress bar")

        journal = Journal(observers=[bad, lambda _: calls.append("good")])
        journal.record(ONE)
        journal.record(TWO)
        assert calls == ["bad", "good", "good"]
        assert journal.complaints == [
            "an observer raised ValueError('a broken progress bar'), and was not called again"
        ]
        assert bare(journal.events) == [ONE, TWO]

    def test_each_is_told_in_order_with_the_stamped_event(self) -> None:
        told: list[TrainEvent] = []
        journal = Journal(observers=[told.append])
        assert [journal.record(ONE), journal.record(TWO)] == told
