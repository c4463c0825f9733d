"""``report.html``: what it says for each end of a run, that it is sound HTML with a strict policy, and that hostile text stays text."""

import re
from pathlib import Path

import anyio
import attrs
import pytest
from click.testing import CliRunner

from cutover.cli.commands import main
from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.seen_stream import SeenStream
from cutover.model.summary import fold
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    Answered,
    Decided,
    Interrupted,
    StepFinished,
    StepStarted,
    StreamsSeen,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
)
from cutover.model.undo_policy import MOVED_ON, Action
from cutover.record.journal import read_journal
from cutover.report.page.courses import MOST_ROWS
from cutover.report.page.document import render_page
from cutover.report.page.scale import Scale, seconds_of, since
from cutover.report.page.spans import writes_of_change
from cutover.simulation import FAULTS, VARIANTS
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.report_pages import PageText, hostile_events, style_hash_of, timed
from tests.support.virtual_time import virtual_backend

USUAL_PAGE = 300_000
"""Largest number of bytes of the page of a usual run."""
FACTS = {
    "base_url": "https://chat.example",
    "dry_run": False,
    "apply_route_flip": True,
    "stable_revision": STABLE,
    "canary_revision": CANARY,
}


def run_of(directory: Path, *faults: str, **changes: object) -> Path:
    """Run a train on virtual time; return its folder."""
    known = {**FAULTS, **VARIANTS}
    config = live_config(directory, **changes)
    train = EmbeddedTrain(config, faults=tuple(known[name] for name in faults))
    backend, options = virtual_backend("asyncio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(directory / "state"))
        anyio.run(train.run, backend=backend, backend_options=dict(options))
    return directory / "run"


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that passed, with every optional part and the soaks of a usual run."""
    folder = tmp_path_factory.mktemp("passed")
    return run_of(
        folder, run_dual_run=True, held_streams=2, canary_soak_seconds=30.0, flip_confirm_seconds=5.0
    )


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose flip broke streams, and which was undone."""
    return run_of(tmp_path_factory.mktemp("failed"), "finish-doubled-after-flip", held_streams=2)


def events_of(run: Path) -> list[TrainEvent]:
    return read_journal(run / "journal.jsonl")


def page_of(events: list[TrainEvent]) -> PageText:
    return PageText.of(render_page(events))


def split_of(**percents: int) -> TrafficState:
    rows = tuple(
        TrafficTarget(revision=STABLE if name == "stable" else CANARY, percent=percent)
        for name, percent in percents.items()
        if percent
    )
    return TrafficState(targets=rows, statuses=rows)


def moved(*, read: bool) -> list[TrainEvent]:
    """Return the events of a run that gave the canary 25 % and then ends."""
    wanted = split_of(stable=75, canary=25)
    intended = TrafficIntended(
        step_id="canary-rollback-drill", captured=split_of(stable=100), wanted=wanted.targets, etag="1"
    )
    events: list[TrainEvent] = [
        TrainStarted(run_id="r", facts=FACTS),
        StepStarted(step_id="canary-rollback-drill"),
        intended,
        Answered(key="traffic", outcome="accepted"),
    ]
    return timed([*events, *([TrafficRead(found=wanted, proven=True)] if read else [])])


class TestEveryRunHasItsPage:
    @pytest.mark.parametrize("name", ["passed", "failed"])
    def test_the_page_stands_beside_the_summary_and_is_made_of_the_journal_alone(
        self, name: str, request: pytest.FixtureRequest
    ) -> None:
        run: Path = request.getfixturevalue(name)
        written = (run / "report.html").read_bytes()
        assert written == render_page(events_of(run), folder=run)
        assert "report.html" in (run / "SUMMARY.md").read_text()
        assert (run / "report.html").stat().st_mode & 0o777 == 0o600

    def test_the_command_makes_the_same_page_again_and_prints_its_path(self, failed: Path) -> None:
        before = (failed / "report.html").read_bytes()
        (failed / "report.html").unlink()
        done = CliRunner().invoke(main, ["report", str(failed)])
        assert (done.exit_code, done.output) == (0, f"{failed / 'report.html'}\n")
        assert (failed / "report.html").read_bytes() == before

    def test_the_command_makes_the_page_of_a_run_that_was_killed_anywhere(
        self, failed: Path, tmp_path: Path
    ) -> None:
        lines = (failed / "journal.jsonl").read_bytes().splitlines(keepends=True)
        for count in {1, 2, len(lines) // 4, len(lines) // 2, 3 * len(lines) // 4, len(lines) - 1}:
            # The last line is torn, as a kill leaves it.
            (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:count]) + lines[count][:20])
            done = CliRunner().invoke(main, ["report", str(tmp_path)])
            assert done.exit_code == 0, done.output
            read = PageText.of((tmp_path / "report.html").read_bytes())
            assert read.text.startswith("CUT OFF:"), count

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "holds no journal that can be read"),
            (b"nonsense", "is not a journal"),
            (b'{"event":', "holds no event"),
            (b'{"event":"Nonsense"}\n', "line 1 is not a train event"),
        ],
    )
    def test_a_folder_without_a_usable_journal_is_one_sentence_that_names_it(
        self, content: bytes | None, words: str, tmp_path: Path
    ) -> None:
        if content is not None:
            (tmp_path / "journal.jsonl").write_bytes(content)
        done = CliRunner().invoke(main, ["report", str(tmp_path)])
        assert done.exit_code == 3
        assert words in done.output
        assert str(tmp_path) in done.output
        assert not (tmp_path / "report.html").exists()

    def test_a_page_that_cannot_be_made_costs_no_verdict(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> bytes:
            raise ZeroDivisionError

        monkeypatch.setattr("cutover.report.reporter.render_page", fail)
        with pytest.warns(RuntimeWarning, match=r"report\.html cannot be written"):
            run = run_of(tmp_path)
        assert '"exit_code": 0' in (run / "summary.json").read_text()


class TestTheFirstLines:
    """Somebody who is given only the page can say which change broke which stream, and what state production is in."""

    def test_a_passed_run(self, passed: Path) -> None:
        text = page_of(events_of(passed)).text
        assert "GO Every gate holds." in text
        assert f"{STABLE} 100 %, as before the run" in text
        assert "all 5 overrides rust_shell; before the run: all 5 overrides clear" in text
        assert "No stream broke, and no check failed." in text
        assert "Do this now" not in text
        assert "recover --revert" in text

    def test_a_flip_that_broke_streams_and_was_undone(self, failed: Path) -> None:
        text = page_of(events_of(failed)).text
        assert "NO GO The route flip broke" in text
        assert "Every change was taken back, and that is proven." in text
        assert "a held request at the front door, answered by" in text
        assert "order.duplicate: expected this kind only once, got finish" in text
        broken = [
            stream
            for event in events_of(failed)
            if isinstance(event, StreamsSeen)
            for stream in event.streams
            if not stream.ok
        ]
        assert f"answered by {STABLE}, thread {broken[0].thread}. order.duplicate" in text
        # The reason, and the thread to look for in the logs of the service.
        assert all(f"got finish thread {stream.thread}" in text for stream in broken)
        assert len({stream.thread for stream in broken} - {""}) == len(broken)
        assert "all 5 overrides clear, as before the run" in text
        assert "The undo is proven in its own words routes are as captured" in text

    def test_the_counts_of_streams_and_of_checks_are_told_apart(self, failed: Path) -> None:
        events = events_of(failed)
        streams = [stream for event in events if isinstance(event, StreamsSeen) for stream in event.streams]
        checks = [
            check for event in events if isinstance(event, StepFinished) for check in event.result.checks
        ]
        broken, bad = (sum(not stream.ok for stream in streams), sum(check.status.failed for check in checks))
        assert broken != bad
        text = page_of(events).text
        assert (
            f"whose course the journal keeps: {len(streams)}; {broken} of them broke. "
            f"A check is one named result of a step: {len(checks)}; {bad} of them failed."
        ) in text
        assert "One check may look at many streams, or at none, so the two numbers differ." in text

    def test_streams_of_which_only_the_number_is_kept_are_counted_too(self) -> None:
        seen = StreamsSeen(streams=(), left_out=(("traffic-5", 3), ("rollback", 4)))
        text = page_of(timed([TrainStarted(run_id="r", facts=FACTS), seen])).text
        assert "0, and 7 more of which it keeps only the number; 0 of them broke." in text

    def test_the_page_says_which_service_is_the_new_one_and_what_moves_from_where_to_where(
        self, passed: Path, failed: Path
    ) -> None:
        text = page_of(events_of(failed)).text
        facts = fold(events_of(failed)).facts
        where = f"{facts['service']} ({facts['project']}, {facts['region']})"
        assert (
            f"The plan of this run: The traffic of the Cloud Run service {where} moves from the revision {STABLE} (stable) "
            f"to {CANARY} (canary), share by share, and then all of it back. The routes of {facts['base_url']} "
            "move from the legacy service to the new service, which the routes call rust_shell."
        ) in text
        compared = f"The comparison asks {facts['base_url']} as the new service, where {STABLE} has all of the traffic then, and "
        assert compared not in text
        assert compared in page_of(events_of(passed)).text

    @pytest.mark.parametrize(
        ("facts", "words"),
        [
            ({"promote": True}, "with PROMOTE=1 it keeps all of it at the end."),
            ({}, "to the new service."),
            ({"route_target": "green"}, "to the new service, which the routes call green."),
            (
                {"apply_route_flip": False, "route_target": "green"},
                "do not move: the run only looks if they lead to the new service, which the routes call green.",
            ),
        ],
    )
    def test_what_moves_follows_the_inputs(self, facts: dict[str, object], words: str) -> None:
        text = page_of(timed([TrainStarted(run_id="r", facts={**FACTS, **facts})])).text
        assert words in text

    @pytest.mark.parametrize("read", [True, False])
    def test_a_killed_run_says_what_is_open_what_was_seen_and_how_to_recover_it(self, read: bool) -> None:
        text = page_of(moved(read=read)).text
        assert "CUT OFF" in text
        assert "in canary-rollback-drill, without a verdict" in text
        assert "Traffic not proven NOT KNOWN to be restored." in text
        seen = f"{STABLE} 75 %, {CANARY} 25 %" if read else "not read by this run"
        when = ", at 12:00:02," if read else ""
        assert f"It was last seen{when} as: {seen}." in text
        assert (f"At 12:00:02 UTC the users were on: {seen}." in text) == read
        assert "gcloud run services update-traffic" in text
        assert f"--to-revisions {STABLE}=100" in text
        assert "See what is served then: gcloud run services describe" in text
        assert "cutover status RUN_DIR" in text
        assert "If it still runs, it goes on with the shares and steps that are left." in text
        assert "it has no result in the journal" in text
        assert "it was interrupted" not in text
        # No other train may start while this one is open.
        assert f"cutover run {STABLE}" not in text
        assert f"The last write, at 12:00:01, asked for {STABLE} 75 %, {CANARY} 25 %." in text
        assert f"It should be {STABLE} 100 %." in text
        assert "cutover recover RUN_DIR" in text
        assert "No stream broke, and no check failed, as far as the journal goes." in text
        assert "Routes untouched The run never wrote an override" in text

    def test_an_undo_that_is_not_proven(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, "override-sticks")
        text = page_of(events_of(run)).text
        assert "NO GO, AND NOT UNDONE" in text
        assert "An operator must act." in text
        assert "Do this now" in text
        assert "Routes not proven NOT KNOWN to be restored." in text
        assert f"{STABLE} 100 %, as before the run" in text

    def test_the_obstacle_comes_first_and_the_steps_follow_one_another(self) -> None:
        refused = Answered(
            key="traffic", outcome="refused", detail="PATCH https://x: HTTP 403 (denied); ask the owner"
        )
        lines = (
            "check that it is served: gcloud describe",
            "gcloud update",
            "or, once production answers: cutover recover r",
        )
        undone = UndoFinished(proven=False, detail="it is refused", to_do=lines)
        back = TrafficIntended(
            step_id="drill", captured=split_of(stable=100), wanted=split_of(stable=100).targets, etag=None
        )
        ended: list[TrainEvent] = [
            # The rollback of the drill wanted the same.
            back,
            refused,
            UndoStarted(reason="NO GO"),
            attrs.evolve(back, step_id="undo"),
            refused,
            attrs.evolve(back, step_id="undo"),
            refused,
            undone,
            TrainFinished(passed=False, exit_code=4),
        ]
        read = page_of(timed([*moved(read=True), *ended]))
        words = (
            "Do this now Production refused the way back of the traffic 3 times: HTTP 403 (denied). Ask the owner. "
            "Check that it is served: gcloud describe If it is not, set it: gcloud update "
            "Then let cutover prove it, and close the run: cutover recover r"
        )
        assert words in read.text

    def test_a_killed_run_names_its_process(self) -> None:
        started, *others = moved(read=True)
        assert isinstance(started, TrainStarted)
        facts = {**FACTS, "process": {"host": "builder", "pid": 4711}}
        text = page_of([attrs.evolve(started, facts=facts), *others]).text
        assert (
            "It ran as pid 4711 on builder. The last event of its journal is of 2026-11-28 12:00:02 UTC."
            in text
        )

    def test_traffic_that_somebody_else_moved_back_is_not_told_as_a_way_back(self) -> None:
        found = TrafficRead(found=split_of(stable=100), proven=False)
        probe = SeenStream(
            change="rollback",
            kind="probe",
            alias="chat",
            began="2026-11-28T12:00:03.000Z",
            ended=1.0,
            count=1,
            ok=True,
        )
        undone = UndoFinished(proven=True, detail="it is as captured")
        ended: list[TrainEvent] = [
            found,
            StreamsSeen(streams=(probe,)),
            UndoStarted(reason="NO GO"),
            undone,
            TrainFinished(passed=False, exit_code=1),
        ]
        text = page_of(timed([*moved(read=True), *ended])).text
        assert (
            "This run wrote no way back: somebody else moved the traffic, between 12:00:01 and 12:00:02 UTC"
            in text
        )
        assert "Every change was taken back" not in text
        assert "After somebody else had moved the traffic 1 of 1 whole" in text
        assert "The rollback to stable" not in text
        assert "the audit log names the account: gcloud logging read" in text
        assert "No stream broke" in text

    @pytest.mark.parametrize(
        ("facts", "words"),
        [
            ({"dry_run": True}, "In a live run: find out who moved the traffic, and agree with them; the audit log"),
            (
                {"cloud_run_api_url": "http://127.0.0.1:8080"},
                "agree with them. Ask those who run the Cloud Run API at http://127.0.0.1:8080. Then run",
            ),
        ],
        ids=["a rehearsal", "another API"],
    )  # fmt: skip
    def test_the_audit_log_of_google_is_not_asked_about_another_production(
        self, facts: dict[str, object], words: str
    ) -> None:
        started, *others = moved(read=True)
        assert isinstance(started, TrainStarted)
        ended: list[TrainEvent] = [
            TrafficRead(found=split_of(stable=100), proven=False),
            UndoStarted(reason="NO GO"),
            UndoFinished(proven=True, detail="it is as captured"),
            TrainFinished(passed=False, exit_code=1),
        ]
        text = page_of(timed([attrs.evolve(started, facts={**FACTS, **facts}), *others, *ended])).text
        assert words in text
        assert "gcloud logging read" not in text

    def test_a_break_says_which_kinds_of_streams_a_change_broke(self) -> None:
        streams = [
            SeenStream(
                change="traffic-25",
                kind=kind,
                alias="chat",
                began="2026-11-28T12:00:03.000Z",
                ended=1.0,
                count=1,
                ok=ok,
            )
            for kind, ok in (
                ("held", False),
                ("held", False),
                ("response", True),
                ("paced", True),
                ("probe", True),
            )
        ]
        text = page_of(timed([*moved(read=True), StreamsSeen(streams=tuple(streams))])).text
        assert f"Giving {CANARY} 25 % of the traffic broke 2 of 5 recorded streams." in text
        assert (
            "Broken by kind: held request, 2 of 2; held response, 0 of 1; sentinel after the change, 0 of 1; probe, 0 of 1."
            in text
        )

    def test_a_production_on_loopback_is_not_set_by_hand_from_another_host(self) -> None:
        started, *others = moved(read=True)
        assert isinstance(started, TrainStarted)
        facts = {**FACTS, "cloud_run_api_url": "http://127.0.0.1:8080"}
        text = page_of(timed([attrs.evolve(started, facts=facts), *others])).text
        assert "cutover recover RUN_DIR" in text
        assert "gcloud" not in text

    def test_the_command_of_a_rehearsal_says_that_it_is_one(self) -> None:
        started = TrainStarted(run_id="r", facts={**FACTS, "dry_run": True})
        assert f"cutover run {STABLE} {CANARY} \\ --dry-run 1" in page_of(timed([started])).text

    def test_a_run_that_was_cut_off_in_its_undo_is_let_end(self) -> None:
        text = page_of(timed([*moved(read=True), UndoStarted(reason="NO GO")])).text
        assert "If it still runs, let it end: it undoes its changes." in text
        assert "SIGINT" not in text

    def test_the_command_of_a_line_is_a_block_of_its_own(self) -> None:
        curl = "curl -X POST https://x/o -H 'content-type: application/json' -d '{}'"
        undone = UndoFinished(proven=False, detail="403", to_do=(f"to set it: {curl}",))
        ended: list[TrainEvent] = [undone, TrainFinished(passed=False, exit_code=4)]
        assert b"To set it:<pre>curl -X POST " in render_page(timed([*moved(read=True), *ended]))

    def test_the_band_of_a_change_that_was_not_proven_ends_before_its_way_back(self) -> None:
        streams = [
            SeenStream(
                change="traffic-25",
                kind="held",
                alias="chat",
                began="2026-11-28T12:00:00.000Z",
                ended=9000.0,
                count=1,
                ok=True,
            )
        ]
        whole = split_of(stable=100)
        back = TrafficIntended(step_id="drill", captured=whole, wanted=whole.targets, etag=None)
        events = timed(
            [
                *moved(read=False),
                TrafficRead(found=whole, proven=False),
                back,
                TrafficRead(found=whole, proven=True),
                StreamsSeen(streams=tuple(streams)),
            ]
        )
        times = [seconds_of(event.at) for event in events]
        assert writes_of_change("traffic-25", events) == [times[2], times[4]]

    def test_a_rehearsal_that_is_not_undone_does_not_say_that_nothing_is_left(self) -> None:
        started, *others = moved(read=True)
        assert isinstance(started, TrainStarted)
        undone = UndoFinished(proven=False, detail="403", to_do=("Nothing: it was a rehearsal",))
        ended: list[TrainEvent] = [undone, TrainFinished(passed=False, exit_code=4)]
        text = page_of(timed([attrs.evolve(started, facts={**FACTS, "dry_run": True}), *others, *ended])).text
        assert "Next Nothing: it was a rehearsal Mend what broke before you try again. Then run" in text

    def test_the_times_that_users_had_the_canary_add_up(self) -> None:
        events = moved(read=True)
        half = split_of(stable=50, canary=50)
        later: list[TrainEvent] = [
            TrafficIntended(step_id="d", captured=split_of(stable=100), wanted=half.targets, etag="1"),
            TrafficRead(found=half, proven=True),
            TrafficRead(found=split_of(stable=100), proven=True),
        ]
        spaced = [*events, *later]
        times = (0.0, 0.0, 0.0, 0.0, 0.0, 1.04, 1.04, 2.08)
        spaced = [
            attrs.evolve(event, at=f"2026-11-28T12:00:{second:06.3f}Z")
            for event, second in zip(spaced, times, strict=True)
        ]
        assert (
            "had 25 % for 1.0 s, 50 % for 1.0 s of the traffic of all users: 2.0 s in all"
            in page_of(spaced).text
        )

    def test_a_break_after_the_flip_blames_the_flip_and_not_the_revision_that_answers_all_the_time(
        self, tmp_path: Path
    ) -> None:
        text = page_of(events_of(run_of(tmp_path, "done-dropped-after-flip", held_streams=0))).text
        assert "NO GO After the route flip, 2 of 2 recorded streams of the smoke broke." in text
        assert "Whole streams: before any change 2 of 2, after it 0 of 2, after the undo 2 of 2." in text
        assert "The flip sent the routes to rust_shell." in text
        assert "Broken by who answered" not in text
        assert (
            "Next Mend what broke before you try again. Nothing of this run is left to be undone. Then run the same train again"
            in text
        )

    def test_a_preflight_that_refused(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, "cloud-run-401")
        text = page_of(events_of(run)).text
        assert "NOT JUDGED This run proves nothing" in text
        assert "The run never moved traffic" in text
        assert "CLOUD_RUN_ACCESS_TOKEN" in text

    def test_a_comparison_with_differences(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, "legacy-differs", run_dual_run=True)
        text = page_of(events_of(run)).text
        assert "Comparison with the legacy service" in text
        assert "/manifest.json" in text
        assert "differs" in text
        assert "The comparison with the legacy service found differences in 1 of " in text
        assert "No recorded stream broke." in text
        assert 'Place New service Legacy service .icons [] nothing .name "OpenAgents" "Legacy" ' in text
        assert 'all those of manifest, in its entry: "ignore": [".icons", ".name"' in text
        same = re.search(
            r"What does not count (\d+) requests with the same answer, or not sent, and 1 other check ", text
        )
        compared = re.search(r"found differences in 1 of (\d+) requests", text)
        assert same is not None
        assert compared is not None
        assert int(same[1]) + 1 == int(compared[1])

    def test_a_difference_that_counts_stands_before_those_that_do_not(self, tmp_path: Path) -> None:
        """The header that is new in each answer comes after the parts of the body, and what is left out comes last."""
        events = events_of(run_of(tmp_path, "legacy-differs", "generated-answers", run_dual_run=True))
        text = page_of(events).text
        text = text[text.index("Comparison with the legacy service") :]
        places = [
            text.index(words)
            for words in (
                "manifest differs",
                '.name "OpenAgents" "Legacy"',
                "headers.x-answer-id",
                "not compared, and not counted: .generated_at: it is new in each answer",
                "What does not count",
                "openapi /openapi.json same",
            )
        ]
        assert places == sorted(places)
        assert "manifest: the answers differ in meaning: .icons is []" in page_of(events).text

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ({"place": ".a", "text": ".a is 1 here"}, "Place New service Legacy service .a .a is 1 here"),
            (
                {"place": ".a", "text": "long", "new": "1\n2", "old": "nothing"},
                "Legacy service .a 1 2 nothing",
            ),
        ],
    )
    def test_a_difference_stands_side_by_side_or_in_the_words_of_an_older_journal(
        self, row: dict[str, str], words: str
    ) -> None:
        def check(name: str, status: StepStatus) -> Check:
            return Check(check_id=name, status=status, endpoint=f"/{name}", detail=f"about {name}")

        rows = [
            {"id": "minor", "critical": False, "rust_status": 200, "legacy_status": 404},
            {"id": "major", "critical": True, "differences": [row]},
        ]
        checks = (
            check("fine", StepStatus.PASS),
            check("silent", StepStatus.ERROR),
            check("minor", StepStatus.FAIL),
            check("major", StepStatus.FAIL),
        )
        result = StepResult(
            step_id="dual-run-diff", status=StepStatus.FAIL, checks=checks, facts={"requests": rows}
        )
        text = page_of(timed([TrainStarted(run_id="r", facts=FACTS), StepFinished(result=result)])).text
        text = text[text.index("major differs") :]
        assert words in text
        assert "status HTTP 200 HTTP 404" in text
        order = [
            text.index(each)
            for each in ("major differs", "minor differs", "/silent: about", "fine /fine same")
        ]
        assert order == sorted(order)

    @pytest.mark.parametrize("why", [f"{MOVED_ON}, and the undo left that as it is", "it cannot be read"])
    def test_a_part_that_somebody_else_has_changed_is_told_from_one_that_nobody_knows(self, why: str) -> None:
        decided = Decided(
            part="traffic",
            action=Action.REFUSE.value,
            why=why,
            captured=f"{STABLE} 100 %",
            intended=f"{CANARY} 25 %",
            found="a-hotfix 100 %",
        )
        undone = UndoFinished(proven=False, detail=why, to_do=("or, to leave it: a", "or, to write: b"))
        finished = TrainFinished(passed=False, exit_code=4)
        text = page_of(timed([*moved(read=True), decided, undone, finished])).text
        by_somebody = f"Traffic changed by somebody else Somebody else has changed it, and the run left that as it is. At 12:00:02 it was: a-hotfix 100 %. Before the run: {STABLE} 100 %."
        assert "Do this now To leave it: a Or, to write: b" in text
        assert (by_somebody in text) == why.startswith(MOVED_ON)
        assert ("NOT KNOWN to be restored. It was last seen, at 12:00:02, as: a-hotfix 100 %." in text) != (
            by_somebody in text
        )

    @pytest.mark.parametrize(
        ("code", "cause", "words"),
        [
            (130, "CancelledError", "by Ctrl-C (SIGINT)"),
            (143, "Cancelled", "by SIGTERM or SIGHUP"),
            (1, "KeyError", "by a fault in cutover itself (KeyError)"),
        ],
    )
    def test_an_interrupted_run(self, code: int, cause: str, words: str) -> None:
        started = TrainStarted(run_id="r", facts=FACTS)
        finished = TrainFinished(passed=False, exit_code=code, reasons=("the run was cancelled",))
        text = page_of(timed([started, Interrupted(cause=cause), finished])).text
        assert f"INTERRUPTED The run was stopped {words}, and it left nothing open." in text

    def test_a_rehearsal_says_so_first(self) -> None:
        started = TrainStarted(run_id="r", facts={**FACTS, "dry_run": True, "what_if": ["stream-500"]})
        read = page_of(timed([started, TrainFinished(passed=True, exit_code=0)]))
        assert read.text.index("Rehearsal") < read.text.index("GO Every")
        assert "Nothing outside the machine was read or changed" in read.text
        assert "--what-if stream-500" in read.text
        assert "cutover recover" not in read.text

    def test_the_journal_of_an_older_cutover_has_a_page_too(self, failed: Path) -> None:
        older: list[TrainEvent] = [event for event in events_of(failed) if not isinstance(event, StreamsSeen)]
        text = page_of(older).text
        assert "In route-flip, the check route-flip-sentinels failed" in text
        assert "Streams, change by change" not in text

    def test_a_journal_without_its_beginning_has_a_page(self, failed: Path) -> None:
        assert "Stream cutover of unknown" in page_of(events_of(failed)[1:]).text
        assert "CUT OFF" in page_of([]).text


class TestPermissions:
    """Where the preflight and a write say different things about a permission, the page says how both can be true."""

    @staticmethod
    def text_of(trial: Check, *answers: tuple[str, str, str]) -> str:
        preflight = StepResult(step_id="preflight", status=StepStatus.PASS, checks=(trial,))
        events: list[TrainEvent] = [
            TrainStarted(run_id="r", facts=FACTS),
            StepFinished(result=preflight),
            *(Answered(key=key, outcome=outcome, detail=detail) for key, outcome, detail in answers),
            TrainFinished(passed=False, exit_code=1),
        ]
        return page_of(timed(events)).text

    TRIED = Check(
        check_id="permission-traffic",
        status=StepStatus.PASS,
        detail="the traffic may be updated",
        recorded_at="2026-11-28T11:59:00.000Z",
    )
    DENIED = ("traffic", "refused", "PATCH https://x: HTTP 403 (denied); ask the owner")
    ACCEPTED = ("traffic", "accepted", "")

    def test_a_refusal_after_a_trial_and_a_write_that_were_allowed(self) -> None:
        assert (
            "Before the refusal at 12:00:01.500 UTC the run had the permission to change the traffic: the preflight tried it at "
            "11:59:00.000 UTC, by a request that changes nothing, and it was allowed, and production accepted a write at 12:00:01.000 UTC. So the "
            "permission or the token was taken away after that, or a rule refuses just this write, which no trial can show. Streams"
        ) in self.text_of(self.TRIED, self.ACCEPTED, self.DENIED)

    def test_a_write_that_was_accepted_after_refusals(self) -> None:
        text = self.text_of(self.TRIED, self.DENIED, self.ACCEPTED)
        assert "Production accepted a write again at 12:00:01.500 UTC." in text
        assert "and production accepted a write at" not in text

    def test_a_permission_that_could_not_be_tried_is_proven_by_a_write(self) -> None:
        untried = attrs.evolve(self.TRIED, detail="gcloud has no dry run", warns=True)
        words = "The preflight could not try the permission to change the traffic. The write that production accepted at 12:00:01.000 UTC proves"
        assert words in self.text_of(untried, self.ACCEPTED)
        assert words not in self.text_of(self.TRIED, self.ACCEPTED)
        missing = attrs.evolve(self.TRIED, status=StepStatus.ERROR, detail="HTTP 403")
        assert words.replace("could not try", "found no proof of") in self.text_of(missing, self.ACCEPTED)

    @pytest.mark.parametrize("detail", ["PATCH https://x: HTTP 409 (conflict)", "HTTP 4030"])
    def test_another_refusal_is_not_about_a_permission(self, detail: str) -> None:
        text = self.text_of(self.TRIED, ("traffic", "refused", detail))
        assert "the run had the permission" not in text

    @pytest.mark.parametrize(
        ("fault", "part"), [("rollback-403", "traffic"), ("override-403-at-flip", "overrides")]
    )
    def test_a_run_whose_preflight_was_allowed_and_whose_write_was_refused(
        self, fault: str, part: str, tmp_path: Path
    ) -> None:
        text = page_of(events_of(run_of(tmp_path, fault, held_streams=1))).text
        words = f"the run had the permission to change the {part}: the preflight tried it"
        assert text.count(words) == 1
        assert ("While the rollback to stable was tried" in text) is (part == "traffic")
        # It stands beside the advice, where there is something to do.
        assert text.index(words) < text.index("What broke") or "Do this now" not in text


class TestWhatUsersHad:
    """How long users had a share of the canary, or the flipped routes: by the times of the journal, and never too short."""

    @staticmethod
    def users_of(events: list[TrainEvent]) -> str:
        """Return the paragraph about users; each event comes half a second after the one before."""
        text = page_of(timed(events)).text
        return text[text.index("What users had ") :].removeprefix("What users had ")

    @staticmethod
    def drill(*steps: tuple[TrafficState, str, TrafficState | None]) -> list[TrainEvent]:
        """Return the events of these writes: the wanted split, the answer, the split that was read back."""
        events: list[TrainEvent] = [TrainStarted(run_id="r", facts=FACTS)]
        for wanted, outcome, found in steps:
            events.append(
                TrafficIntended(step_id="d", captured=split_of(stable=100), wanted=wanted.targets, etag="1")
            )
            events.append(Answered(key="traffic", outcome=outcome))
            if found is not None:
                events.append(TrafficRead(found=found, proven=found.served() == wanted.served()))
        return events

    WHOLE, FIVE, HALF = split_of(stable=100), split_of(stable=95, canary=5), split_of(stable=50, canary=50)
    UNDONE: tuple[TrainEvent, ...] = (
        UndoStarted(reason="NO GO"),
        UndoFinished(proven=True, detail="it is as captured"),
        TrainFinished(passed=False, exit_code=1),
    )

    def test_each_share_has_its_seconds_and_a_write_under_way_counts_with_the_larger_share(self) -> None:
        steps = self.drill(
            (self.FIVE, "accepted", self.FIVE),
            (self.HALF, "accepted", self.HALF),
            (self.WHOLE, "accepted", self.WHOLE),
        )
        # 5 % from its own write to that of 50 %, and 50 % from its write to the read that proves the rollback.
        assert self.users_of([*steps, *self.UNDONE]).startswith(
            "At most, the canary had 5 % for 1.5 s, 50 % for 2.5 s of the traffic of all users: 4.0 s in all, from 12:00:00.5 UTC, when the first "
            "write was sent, until 12:00:04.5 UTC, when the split was read back without it. The undo is proven"
        )

    def test_a_share_that_was_refused_reached_nobody(self) -> None:
        steps = self.drill((self.FIVE, "refused", None))
        assert self.users_of([*steps, *self.UNDONE]).startswith("No user was sent to the canary.")
        assert self.users_of(steps[:1]).startswith("No user was sent to the canary.")

    @pytest.mark.parametrize("outcome", ["unknown", "failed", "accepted"])
    def test_a_share_that_nobody_read_counts_until_the_journal_ends_and_is_not_proven(
        self, outcome: str
    ) -> None:
        steps = self.drill((self.FIVE, "accepted", self.FIVE), (self.HALF, outcome, None))
        assert self.users_of(steps).startswith(
            "At most, the canary had 5 % for 1.5 s, 50 % for 0.5 s of the traffic of all users: 2.0 s in all, from 12:00:00.5 UTC, when the first "
            "write was sent, until the journal ends at 12:00:02.5 UTC. It may have gone on after that: nothing proves that it was taken back."
        )

    def test_a_way_back_that_was_refused_ends_nothing(self) -> None:
        steps = self.drill((self.HALF, "accepted", self.HALF), (self.WHOLE, "refused", self.HALF))
        assert "50 % for 2.5 s" in self.users_of(steps)
        assert "It may have gone on after that: nothing proves that it was taken back." in self.users_of(
            steps
        )

    def test_a_recovery_ends_the_time_that_a_killed_run_left_open(self) -> None:
        killed = self.drill((self.HALF, "accepted", self.HALF))
        recovered = self.drill((self.WHOLE, "accepted", self.WHOLE))[1:]
        text = self.users_of([*killed, UndoStarted(reason="recover"), *recovered, *self.UNDONE[1:]])
        assert "50 % for 3.0 s" in text
        assert "when the split was read back without it" in text

    def test_a_stream_that_the_canary_answered_after_the_proof_is_told(self) -> None:
        stray = SeenStream(
            change="rollback", kind="probe", alias="chat", revision=CANARY, began="2026-11-28T12:00:09.000Z", ended=250.0,
            count=1, ok=True,
        )  # fmt: skip
        steps = self.drill((self.HALF, "accepted", self.HALF), (self.WHOLE, "accepted", self.WHOLE))
        words = "still sent a stream of this run to the canary after that, at 12:00:09.0 UTC."
        assert words in self.users_of([*steps, StreamsSeen(streams=(stray,)), *self.UNDONE])
        at_its_own_url = attrs.evolve(stray, place="https://canary---x")
        assert words not in self.users_of([*steps, StreamsSeen(streams=(at_its_own_url,)), *self.UNDONE])

    def test_a_flip_that_was_undone_says_for_how_long_users_had_the_new_service(self, failed: Path) -> None:
        text = page_of(events_of(failed)).text
        keys = "account_settings_admin, auth_entry, billing_l402, chat_pilot"
        assert re.search(
            rf"Users of the flipped routes \({keys}(, global)?\) had rust_shell for \d+\.\d s at most, from [\d:.]+ UTC, when the first write "
            r"was sent, until [\d:.]+ UTC, when all of them were proven to be as before the run\.",
            text,
        )

    def test_a_passed_run_keeps_its_flipped_routes(self, passed: Path) -> None:
        text = page_of(events_of(passed)).text
        assert "At most, the canary had 5 % for " in text
        assert "when the split was read back without it." in text
        assert re.search(r"Users of the flipped routes \(.*\) have rust_shell from .* that stays\.", text)

    def test_an_undo_of_the_routes_that_is_not_proven_has_no_end(self, failed: Path) -> None:
        events = events_of(failed)
        started = next(number for number, event in enumerate(events) if isinstance(event, UndoStarted))
        text = page_of(events[: started + 1]).text
        assert re.search(r"had rust_shell for \d+\.\d s at most, .* until the journal ends at", text)


class TestTheParts:
    def test_every_gate_shows_what_was_observed_and_what_is_allowed(self, failed: Path) -> None:
        text = page_of(events_of(failed)).text
        assert "route_flip does not hold 1 check 0" in text
        assert "canary_drill holds 0 checks 0" in text
        assert "final_state not reached – –" in text

    def test_the_split_is_a_stepped_area_with_its_words(self, passed: Path) -> None:
        read = page_of(events_of(passed))
        heights = [each["height"] for each in read.all("rect") if each.get("class") == "canary"]
        assert heights == ["5", "25", "50", "100"]
        text = read.text
        assert f"{STABLE} 75 %, {CANARY} 25 %. " in text

    def test_movers_and_ways_back_are_marked_on_the_timeline(self, failed: Path) -> None:
        read = page_of(events_of(failed))
        marks = [each.get("class") for each in read.all("path")]
        assert marks.count("mark") >= 4
        assert "mark back" in marks
        assert "way back: global = clear" in read.text

    def test_a_write_that_is_refused_again_and_again_is_one_row_with_a_mark_for_each(self) -> None:
        back = TrafficIntended(
            step_id="undo", captured=split_of(stable=100), wanted=split_of(stable=100).targets, etag=None
        )
        refused = Answered(key="traffic", outcome="refused", detail="HTTP 403")
        again: list[TrainEvent] = [back, refused]
        read = page_of(timed([*moved(read=True), *again * 30]))
        assert read.text.count("HTTP 403") == 1
        assert f"way back: {STABLE} 100 % × 30 the last at 12:00:31" in read.text
        assert [each.get("class") for each in read.all("path")].count("mark back") == 31

    @pytest.mark.many_instances
    def test_a_write_that_did_not_hold_says_when_it_was_sent_again(self, tmp_path: Path) -> None:
        text = page_of(events_of(run_of(tmp_path, "finish-doubled-after-flip"))).text
        assert "not yet as asked when it was read back; sent again at" in text
        assert "NOT as asked" not in text

    def test_the_time_in_which_somebody_else_moved_the_traffic_is_not_drawn_as_known(self) -> None:
        found = TrafficRead(found=split_of(stable=100), proven=False)
        read = page_of(timed([*moved(read=True), StepStarted(step_id="x"), found]))
        assert [each["height"] for each in read.all("rect") if each.get("class") == "unsure"] == ["25"]
        assert "Dashed: somebody else moved the traffic" in read.text
        assert "Dashed" not in page_of(moved(read=True)).text

    def test_each_stream_that_broke_has_a_row_with_its_break_and_its_reason(self, failed: Path) -> None:
        events = events_of(failed)
        streams = [stream for event in events if isinstance(event, StreamsSeen) for stream in event.streams]
        broken = [stream for stream in streams if not stream.ok]
        assert broken
        read = page_of(events)
        rows = [each for each in read.all("tr") if each.get("class") == "broke"]
        assert len(rows) == len(broken)
        assert sum(each.get("class") == "b" for each in read.all("path")) == len(broken)
        assert read.text.count("broke: order.duplicate") == len(broken)

    def test_each_event_of_a_stream_is_a_tick_on_one_axis(self) -> None:
        def stream(ended: float, *times: float) -> SeenStream:
            return SeenStream(
                change="traffic-5",
                kind="probe",
                alias="chat",
                began="2026-11-28T12:00:00.000Z",
                ended=ended,
                count=len(times),
                times=times,
                ok=True,
            )

        seen = StreamsSeen(streams=(stream(1000, 0, 500, 1000), stream(500, 250)))
        read = page_of(timed([TrainStarted(run_id="r", facts=FACTS), seen]))
        ticks = [each["d"] for each in read.all("path") if each.get("class") == "e"]
        lines = [each["d"] for each in read.all("path") if each.get("class") == "l"]
        assert ticks == ["M0 3v10M500 3v10M1000 3v10", "M250 3v10"]
        assert lines == ["M0 8H1000", "M0 8H500"]

    def test_a_finding_shows_the_bytes_before_and_behind_its_place(self, failed: Path) -> None:
        read = page_of(events_of(failed))
        marked = [each for each in read.all("span") if each.get("class") == "here"]
        assert len(marked) == 1
        assert r'data: {"status":"accepted","type":"finish"}\n\n' in read.text

    def test_many_streams_have_few_rows_and_the_broken_ones_are_among_them(self) -> None:
        streams = tuple(
            SeenStream(
                change="traffic-5",
                kind="probe",
                alias=f"alias-{number}",
                began=f"2026-11-28T12:{number // 60:02}:{number % 60:02}.000Z",
                ended=100.0,
                count=1,
                times=(1.0,),
                ok=number < 490,
                reason="" if number < 490 else f"late {number}",
            )
            for number in range(500)
        )
        read = page_of(timed([TrainStarted(run_id="r", facts=FACTS), StreamsSeen(streams=streams)]))
        assert len([each for each in read.all("path") if each.get("class") == "l"]) == MOST_ROWS
        assert all(f"late {number}" in read.text for number in range(490, 500))
        assert f"{500 - MOST_ROWS} more without a break are not shown" in read.text

    def test_the_commands_start_the_same_run_and_name_no_token(self, failed: Path) -> None:
        text = page_of(events_of(failed)).text
        assert f"cutover run {STABLE} {CANARY}" in text
        assert "--apply-route-flip 1" in text
        assert "--held-streams" not in text
        assert "marked-" not in text


class TestSoundness:
    @pytest.fixture(params=["passed", "failed", "hostile", "cut", "empty"])
    def page(self, request: pytest.FixtureRequest) -> bytes:
        match request.param:
            case "hostile":
                events = hostile_events()
            case "cut":
                events = moved(read=True)
            case "empty":
                events = []
            case name:
                events = events_of(request.getfixturevalue(name))
        return render_page(events)

    def test_the_same_events_give_the_same_bytes(self, failed: Path) -> None:
        assert render_page(events_of(failed)) == render_page(events_of(failed))

    def test_the_policy_allows_one_style_sheet_by_its_hash_and_nothing_else(self, page: bytes) -> None:
        read = PageText.of(page)
        policy = next(each["content"] for each in read.all("meta") if "http-equiv" in each)
        assert policy == (
            f"default-src 'none'; style-src '{style_hash_of(page)}'; base-uri 'none'; form-action 'none'"
        )
        tags = {tag for tag, _ in read.tags}
        assert tags.isdisjoint(
            {"script", "img", "link", "iframe", "object", "form", "base", "foreignobject", "use"}
        )
        attributes = {name for _, each in read.tags for name in each}
        assert not {
            name for name in attributes if name.startswith("on") or name in {"style", "src", "xlink:href"}
        }
        assert all(str(each["href"]).startswith("#") for each in read.all("a"))
        assert b"url(" not in page
        assert b"@import" not in page

    def test_it_is_well_formed_and_can_be_read_by_ear(self, page: bytes) -> None:
        read = PageText.of(page)
        assert len(read.ids) == len(set(read.ids))
        assert read.headings[0] == 1
        assert read.headings.count(1) == 1
        assert all(
            later - earlier <= 1 for earlier, later in zip(read.headings, read.headings[1:], strict=False)
        )
        assert len(read.all("caption")) == len(read.all("table"))
        assert all("scope" in each for each in read.all("th"))
        assert read.all("html") == [{"lang": "en"}]
        assert read.all("a")[0]["href"] == "#main"
        assert {str(each["href"])[1:] for each in read.all("a")} <= set(read.ids)
        roles = [each for each in read.all("svg") if each.get("role") == "img"]
        assert all("aria-labelledby" in each for each in roles)

    def test_a_page_of_a_usual_run_is_small(self, passed: Path) -> None:
        streams = sum(len(event.streams) for event in events_of(passed) if isinstance(event, StreamsSeen))
        assert streams > 150
        assert len(render_page(events_of(passed))) < USUAL_PAGE
        # The journal keeps streams in few bytes: most of them in less than 300.
        assert (passed / "journal.jsonl").stat().st_size < 200_000

    def test_hostile_text_stays_text(self) -> None:
        page = render_page(hostile_events())
        read = PageText.of(page)
        assert b"<script" not in page
        assert b"<img" not in page
        shown = page.decode()
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert r"\u202egnp.exe\u2066\u200f\x00\x1b[31m\ud800\r\n# head" in read.text
        assert "{{7*7}}" in read.text
        assert read.text.count("window.hacked=1") > 20
        # One heading and one row more would mean that a text has left its place.
        assert len(read.all("h1")) == 1

    def test_a_page_of_the_worst_run_has_a_bound(self) -> None:
        worst = "x" * 10_000
        stream = SeenStream(
            change="traffic-5", kind="probe", alias="a", began="2026-11-28T12:00:00.000Z", ended=1.0,
            count=64, times=tuple(map(float, range(64))), ok=False, reason=worst, place=worst, revision=worst,
        )  # fmt: skip
        check = Check(check_id=worst, status=StepStatus.FAIL, detail=worst)
        events: list[TrainEvent] = [TrainStarted(run_id="r", facts=FACTS)]
        for number in range(60):
            events.append(StreamsSeen(streams=(attrs.evolve(stream, change=f"traffic-{number}"),) * 50))
            result = StepResult(step_id=f"step-{number}", status=StepStatus.FAIL, checks=(check,) * 200)
            events.append(StepFinished(result=result))
        assert len(render_page(timed(events))) < 20_000_000


class TestScale:
    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(0, "0"), (0.25, "250 ms"), (1.5, "1.5 s"), (59.9, "59.9 s"), (150, "2:30"), (3750, "1:02:30")],
    )
    def test_a_duration_in_words(self, seconds: float, words: str) -> None:
        assert since(seconds) == words

    @pytest.mark.parametrize("length", [0.0, 0.002, 0.7, 3, 61, 26.6, 900, 86_400 * 3, 86_400 * 365])
    def test_an_axis_has_a_few_marks_inside_its_length(self, length: float) -> None:
        marks = Scale.over([100.0, 100.0 + length]).marks()
        assert 1 <= len(marks) <= 8
        assert marks[0] == (0.0, "0")
        assert all(place <= 97 for place, _ in marks)
        assert len({text for _, text in marks}) == len(marks)

    def test_a_time_that_is_no_time_breaks_nothing(self) -> None:
        broken = [attrs.evolve(event, at="yesterday") for event in hostile_events()]
        assert PageText.of(render_page(broken)).headings[0] == 1
