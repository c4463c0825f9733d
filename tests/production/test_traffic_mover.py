"""The traffic mover: a change of the split and its proof; and the Admin API v2, whose replies it reads."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.clock import EventLoopClock
from cutover.errors import RefusedError, UnusableReplyError
from cutover.http.outbound import LONGEST_PAUSE, MAX_RETRY_AFTER, Outbound
from cutover.http.tokens import Grant, Token
from cutover.model.traffic_state import TrafficState, TrafficTarget, describe_shares, mismatch_reason, split
from cutover.model.train_events import Answered, TrafficIntended, TrafficRead
from cutover.production.on_refusal import OnRefusal
from cutover.production.traffic.cloud_run_api import CloudRunApi
from cutover.production.traffic.mover import (
    FORWARD_WRITES,
    IDLE_GRACE,
    SETTLE_DEADLINE,
    Shift,
    TrafficMover,
)
from cutover.record.journal import Journal
from tests.support.full_disk import disk_with_room_for

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

RESOURCE = "/v2/projects/p/locations/r/services/svc"
URL = f"https://run.example{RESOURCE}"
REVISION = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
LATEST = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}
TAGGED: dict[str, object] = {"type": REVISION, "revision": "canary", "tag": "canary"}
Row = dict[str, object]
NOT_READY = {"type": "Ready", "state": "CONDITION_FAILED", "message": "no port"}
UNDER_WAY = {"type": "Ready", "state": "CONDITION_RECONCILING"}


def row(revision: str, percent: int) -> Row:
    """Return a row of a split. Like proto3, it omits a percent of 0."""
    return {"type": REVISION, "revision": revision} | ({"percent": percent} if percent else {})


def parts(routes: str = "SUCCEEDED", configurations: str = "SUCCEEDED") -> list[Row]:
    """Return the conditions that Ready sums up, in these states."""
    return [
        {"type": "RoutesReady", "state": f"CONDITION_{routes}"},
        {"type": "ConfigurationsReady", "state": f"CONDITION_{configurations}"},
    ]


def service(**changes: object) -> dict[str, object]:
    """Return a service document of the API with these changes; None removes a key."""
    document = {
        "generation": "7",
        "observedGeneration": "7",
        "etag": '"1707"',
        "traffic": [row("stable", 100), TAGGED],
        "trafficStatuses": [row("stable", 100), {**TAGGED, "uri": "https://canary---svc.example"}],
        "latestReadyRevision": "projects/p/locations/r/services/svc/revisions/canary",
        "latestCreatedRevision": "projects/p/locations/r/services/svc/revisions/newer",
        "terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def api(answer: Callable[[httpx.Request], httpx.Response], token: str | None = "marked-token") -> CloudRunApi:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return CloudRunApi(
        outbound=Outbound(client=client, clock=EventLoopClock()),
        base_url="https://run.example",
        project="p",
        region="r",
        service="svc",
        token=token or "",
    )


def api_that_replies(document: object, status: int = 200) -> CloudRunApi:
    """Return a backend that gets this reply to every request."""
    return api(lambda _: httpx.Response(status, json=document))


async def read(document: object) -> TrafficState:
    return await api_that_replies(document).read(label="read")


class TestReadingTheService:
    async def test_targets_statuses_and_revisions_have_short_names(self) -> None:
        state = await read(service())
        assert state == TrafficState(
            targets=(
                TrafficTarget(revision="stable", percent=100),
                TrafficTarget(revision="canary", tag="canary"),
            ),
            statuses=(
                TrafficTarget(revision="stable", percent=100),
                TrafficTarget(revision="canary", tag="canary", uri="https://canary---svc.example"),
            ),
            generation="7",
            etag='"1707"',
            settled=True,
            succeeded=True,
            message="",
            latest_ready="canary",
            latest_created="newer",
        )
        assert state.tag_url("canary") == "https://canary---svc.example"
        assert state.tag_url("stable") is None

    async def test_a_read_sends_the_url_the_token_and_the_label(self) -> None:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(200, json=service())

        await api(answer).read(label="drill.status-pre")
        await api(answer, token=None).read(label="drill.status-pre")
        assert [str(request.url) for request in requests] == [URL, URL]
        assert [request.headers.get("authorization") for request in requests] == ["Bearer marked-token", None]
        assert requests[0].extensions["label"] == "drill.status-pre"

    async def test_latest_is_shown_as_the_revision_that_it_stands_for(self) -> None:
        state = await read(service(traffic=[LATEST], trafficStatuses=[LATEST, row("canary", 0)]))
        assert state.targets == (TrafficTarget(revision=None, percent=100),)
        assert state.served() == {"canary": 100}
        state = await read(
            service(trafficStatuses=[{**LATEST, "revision": "canary"}], latestReadyRevision=None)
        )
        assert state.served() == {"LATEST": 100}

    async def test_a_tag_on_latest_is_a_tag_of_the_latest_revision(self) -> None:
        tagged = {**LATEST, "percent": 0, "tag": "next", "uri": "https://next---svc.example"}
        state = await read(service(trafficStatuses=[row("stable", 100), tagged]))
        assert state.tag_url("canary") == "https://next---svc.example"

    async def test_rows_of_one_revision_add_up(self) -> None:
        rows = [row("stable", 60), {**row("stable", 35), "tag": "blue"}, row("canary", 5)]
        assert (await read(service(trafficStatuses=rows))).served() == {"canary": 5, "stable": 95}

    @pytest.mark.parametrize("percent", ["95", 95])
    async def test_a_number_may_come_as_a_string(self, percent: object) -> None:
        rows = [{**row("stable", 0), "percent": percent}, row("canary", 5)]
        assert (await read(service(trafficStatuses=rows))).served() == {"canary": 5, "stable": 95}

    @pytest.mark.parametrize("percent", [101, -1, "x\x1b", "1000", 5.5, {"a": 1}])
    async def test_a_malformed_percentage_raises_an_error(self, percent: object) -> None:
        rows = [{**row("stable", 100), "percent": percent}]
        with pytest.raises(UnusableReplyError, match="a traffic target has the percentage") as caught:
            await read(service(traffic=rows))
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        ("changes", "settled", "succeeded"),
        [
            ({}, True, True),
            ({"reconciling": True}, False, True),
            ({"generation": "8"}, False, True),
            ({"observedGeneration": None}, False, True),
            ({"terminalCondition": {"type": "Ready", "state": "CONDITION_FAILED"}}, True, False),
            ({"terminalCondition": {"type": "Ready", "state": "CONDITION_PENDING"}}, True, False),
            ({"terminalCondition": {"type": "Ready"}}, True, False),
            ({"terminalCondition": {}}, True, False),
            ({"terminalCondition": "CONDITION_SUCCEEDED"}, True, False),
            ({"terminalCondition": None}, True, False),
        ],
    )
    async def test_settled_and_succeeded_are_read_separately(
        self, changes: dict[str, object], settled: bool, succeeded: bool
    ) -> None:
        state = await read(service(**changes))
        assert (state.settled, state.succeeded) == (settled, succeeded)

    @pytest.mark.parametrize(
        ("changes", "settled", "succeeded", "deploying", "unready"),
        [
            # the newest revision does not start; observedGeneration may stay behind then
            ({"terminalCondition": NOT_READY, "conditions": parts(configurations="FAILED")}, True, True, False, "no port"),
            (
                {"terminalCondition": NOT_READY, "conditions": parts(configurations="FAILED"), "generation": "8"},
                True, True, False, "no port",
            ),
            # the routes failed
            ({"terminalCondition": NOT_READY, "conditions": parts(routes="FAILED")}, True, False, False, "no port"),
            # a traffic update is under way
            (
                {"terminalCondition": UNDER_WAY, "conditions": parts(routes="RECONCILING"), "reconciling": True},
                False, False, False, "CONDITION_RECONCILING",
            ),
            # only a revision is being deployed, and the split is served
            (
                {"terminalCondition": UNDER_WAY, "conditions": parts(configurations="RECONCILING"), "reconciling": True,
                 "generation": "8"},
                True, True, True, "CONDITION_RECONCILING",
            ),
            # the same, but the split asked for last is not served yet
            (
                {"terminalCondition": UNDER_WAY, "conditions": parts(configurations="RECONCILING"), "reconciling": True,
                 "trafficStatuses": [row("stable", 95), row("canary", 5)]},
                False, True, True, "CONDITION_RECONCILING",
            ),
            # the same, but the revision will move a share of LATEST
            (
                {"terminalCondition": UNDER_WAY, "conditions": parts(configurations="RECONCILING"), "reconciling": True,
                 "traffic": [LATEST], "trafficStatuses": [LATEST]},
                False, True, True, "CONDITION_RECONCILING",
            ),
        ],
    )  # fmt: skip
    async def test_the_routes_decide_about_the_split_and_ready_only_warns(
        self, changes: dict[str, object], settled: bool, succeeded: bool, deploying: bool, unready: str
    ) -> None:
        state = await read(service(**changes))
        assert (state.settled, state.succeeded, state.deploying) == (settled, succeeded, deploying)
        assert state.unready == unready
        assert state.message == ("" if succeeded or deploying or not settled else "no port")

    async def test_a_newest_revision_that_does_not_start_is_a_warning_that_names_it(self) -> None:
        state = await read(service(terminalCondition=NOT_READY, conditions=parts(configurations="FAILED")))
        warning = "the newest revision newer does not start (no port); the split is served all the same"
        assert (state.unready_reason(), state.warning()) == ("", warning)
        assert state.describe_served() == f"stable 100 %; WARNING: {warning}"
        same = attrs.evolve(state, latest_created="canary")
        assert same.warning() == "the service is not ready (no port), although its split is served"
        assert mismatch_reason(state, state.targets) == ""

    async def test_routes_that_are_not_ready_are_a_failure_and_no_warning(self) -> None:
        state = await read(service(terminalCondition=NOT_READY, conditions=parts(routes="FAILED")))
        assert state.warning() == ""
        assert state.unready_reason() == "the service's last change failed (no port): repair that first"

    async def test_no_train_starts_while_somebody_deploys(self) -> None:
        state = await read(
            service(
                terminalCondition=UNDER_WAY,
                conditions=parts(configurations="PENDING"),
                reconciling=True,
            )
        )
        assert state.settled
        assert state.unready_reason() == "the service is reconciling: somebody else is deploying"
        assert state.warning().startswith("the newest revision newer is being deployed (")

    async def test_missing_or_malformed_fields_are_ignored(self) -> None:
        state = await read(
            service(
                etag=7,
                generation=None,
                observedGeneration=None,
                latestReadyRevision=7,
                latestCreatedRevision="",
                traffic=None,
                trafficStatuses=["odd", {**row("stable", 100), "tag": "", "uri": 7}],
            )
        )
        assert (state.etag, state.generation, state.latest_ready, state.latest_created) == (
            None,
            "",
            None,
            None,
        )
        assert (state.targets, state.statuses) == ((), (TrafficTarget(revision="stable", percent=100),))

    async def test_control_characters_in_the_message_are_escaped(self) -> None:
        condition = {"state": "CONDITION_FAILED", "message": "no\x1b[2J \u202esuch"}
        assert (await read(service(terminalCondition=condition))).message == "no\\x1b[2J \\u202esuch"

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ({}, "neither `traffic` nor `trafficStatuses`"),
            ([], "a JSON object was expected"),
            ("<html>", "a JSON object was expected"),
        ],
    )
    async def test_a_malformed_reply_raises_one_clear_error(self, document: object, message: str) -> None:
        with pytest.raises(UnusableReplyError, match=message) as caught:
            await read(document)
        assert str(caught.value).startswith(f"GET {URL}: ")

    async def test_the_error_of_a_refusal_quotes_the_reply(self) -> None:
        error = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "run.services.get"}}
        with pytest.raises(RefusedError, match=r"HTTP 403 \(403: PERMISSION_DENIED: run\.services\.get\)"):
            await api_that_replies(error, 403).read(label="read")


class TestReadingARevision:
    @pytest.mark.parametrize(
        ("document", "ready", "message"),
        [
            (
                {"conditions": [{"type": "Ready", "state": "CONDITION_SUCCEEDED"}]},
                True,
                "CONDITION_SUCCEEDED",
            ),
            (
                {
                    "conditions": [
                        {"type": "Active"},
                        {"type": "Ready", "state": "CONDITION_FAILED", "message": "no\n"},
                    ]
                },
                False,
                "no\\n",
            ),
            (
                {"conditions": [{"type": "Active", "state": "CONDITION_SUCCEEDED"}]},
                False,
                "no Ready condition",
            ),
            ({"conditions": {}}, False, "no Ready condition"),
            ({}, False, "no Ready condition"),
        ],
    )
    async def test_the_ready_condition_decides_if_a_revision_is_ready(
        self, document: object, ready: bool, message: str
    ) -> None:
        revision = await api_that_replies(document).revision("canary", label="preflight")
        assert (revision.name, revision.exists, revision.ready) == ("canary", True, ready)
        assert revision.message == message

    async def test_404_means_that_the_revision_does_not_exist(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == f"{RESOURCE}/revisions/canary"
            return httpx.Response(404, json={"error": {"code": 404, "message": "not found"}})

        revision = await api(answer).revision("canary", label="preflight")
        assert (revision.exists, revision.ready) == (False, False)
        assert revision.message == "HTTP 404 (404: not found)"

    async def test_any_other_refusal_raises_an_error(self) -> None:
        with pytest.raises(RefusedError, match="HTTP 403"):
            await api_that_replies({}, 403).revision("canary", label="preflight")


class TestWriting:
    async def test_the_whole_split_is_sent_with_mask_and_etag(self) -> None:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(200, json={"name": "operations/1", "done": False})

        targets = (
            TrafficTarget(revision="stable", percent=95),
            TrafficTarget(revision=None, percent=5, uri="https://ignored.example"),
            TrafficTarget(revision="canary", tag="canary"),
        )
        await api(answer).write(targets, etag='"1707"', label="drill.5.write")
        await api(answer).write(targets, etag=None, label="drill.5.write")
        assert [(request.method, str(request.url)) for request in requests] == [
            ("PATCH", f"{URL}?updateMask=traffic")
        ] * 2
        first, second = (msgspec.json.decode(request.content) for request in requests)
        assert first == {"etag": '"1707"', "traffic": [row("stable", 95), {**LATEST, "percent": 5}, TAGGED]}
        assert "etag" not in second

    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            ({"code": 13, "message": "boom\x1b"}, 500, r"code 13: boom\\x1b"),
            ({"code": 10, "message": "ABORTED"}, 409, "code 10: ABORTED"),
            ({"code": 7}, 403, "code 7: no message"),
            ({"code": "odd"}, 500, "code odd: no message"),
        ],
    )
    async def test_a_failed_operation_raises_a_refusal(self, error: Row, status: int, message: str) -> None:
        with pytest.raises(RefusedError, match=message) as caught:
            await api_that_replies({"name": "operations/1", "done": True, "error": error}).write(
                (), etag=None, label="w"
            )
        assert caught.value.status == status

    async def test_a_login_page_is_not_taken_for_an_acceptance(self) -> None:
        with pytest.raises(UnusableReplyError):
            await api(lambda _: httpx.Response(200, text="<html>")).write((), etag=None, label="w")


class TestTryingThePermission:
    async def test_the_captured_split_is_validated_and_not_written(self) -> None:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(503) if len(requests) == 1 else httpx.Response(200, json={"done": True})

        state = await read(service())
        assert await api(answer).may_write(state, label="preflight.permission-traffic") == ""
        # It changes nothing, so it is sent again like a read.
        assert [str(request.url) for request in requests] == [
            f"{URL}?updateMask=traffic&validateOnly=true"
        ] * 2
        assert msgspec.json.decode(requests[0].content) == {
            "etag": '"1707"',
            "traffic": [row("stable", 100), TAGGED],
        }
        assert requests[0].extensions["label"] == "preflight.permission-traffic"

    async def test_an_api_without_validate_only_leaves_it_untried(self) -> None:
        error = {"error": {"code": 400, "message": 'Unknown name "validateOnly"'}}
        untried = await api_that_replies(error, 400).may_write(await read(service()), label="permission")
        assert untried == 'the API does not take validateOnly (HTTP 400 (400: Unknown name "validateOnly"))'

    @pytest.mark.parametrize("status", [401, 403, 404, 409, 412, 429, 500])
    async def test_any_other_refusal_raises_an_error(self, status: int) -> None:
        state = await read(service())
        with pytest.raises(RefusedError) as caught:
            await api_that_replies({}, status).may_write(state, label="permission")
        assert caught.value.status == status

    async def test_a_failed_operation_and_a_login_page_raise_an_error(self) -> None:
        state = await read(service())
        failed = {"done": True, "error": {"code": 7, "message": "denied"}}
        with pytest.raises(RefusedError, match="code 7: denied"):
            await api_that_replies(failed).may_write(state, label="permission")
        with pytest.raises(UnusableReplyError):
            await api(lambda _: httpx.Response(200, text="<html>")).may_write(state, label="permission")


@attrs.define(eq=False)
class Service:
    """A fake Cloud Run service. An accepted write changes the specification at once; it is served once it has settled."""

    settle_seconds: float = 0.0
    on_write: Callable[[int], httpx.Response | None] | None = None
    """Called with the number of the write. Returns the reply, and nothing is changed; None: the usual reply and change."""
    on_read: Callable[[int], httpx.Response | None] | None = None
    """Called with the number of the read; 0 is the capture. Returns the reply; None: the usual reply."""
    lose_replies: bool = False
    fails: str = ""
    """The reason with which an update fails once it has settled; empty: it succeeds."""
    drops_tags: bool = False
    others_deploy: bool = False
    """True: somebody else deploys just before the first write, which changes nothing but the etag."""
    others_move: list[Row] | None = None
    """The split that somebody else sets just before the first write; None: nobody does."""
    generation: int = 7
    observed: int = 7
    spec: list[Row] = attrs.field(factory=lambda: [row("stable", 100), TAGGED])
    statuses: list[Row] = attrs.field(factory=lambda: [row("stable", 100), TAGGED])
    settles_at: float = 0.0
    failure: str = ""
    writes: int = 0
    reads: int = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Return the reply to one read or write."""
        if request.method == "GET":
            reply = self.on_read(self.reads) if self.on_read else None
            self.reads += 1
            return reply or httpx.Response(200, json=self._shown())
        self.writes += 1
        if self.others_deploy:
            self.others_deploy, self.generation, self.observed = False, self.generation + 1, self.observed + 1
        if self.others_move is not None:
            self.spec = self.statuses = self.others_move
            self.others_move, self.generation, self.observed = None, self.generation + 1, self.observed + 1
        reply = self.on_write(self.writes) if self.on_write else None
        if reply is not None:
            return reply
        body = msgspec.json.decode(request.content)
        if body.get("etag") != self._etag():
            return httpx.Response(409, json={"error": {"code": 409, "status": "ABORTED", "message": "stale"}})
        self.spec = [row for row in body["traffic"] if not (self.drops_tags and "tag" in row)]
        self.generation += 1
        self.settles_at = anyio.current_time() + self.settle_seconds
        if self.lose_replies:
            raise httpx.ReadError("reset")
        return httpx.Response(200, json={"name": "operations/1"})

    def _etag(self) -> str:
        return f'"{self.generation}"'

    def _shown(self) -> dict[str, object]:
        if self.generation != self.observed and anyio.current_time() >= self.settles_at:
            self.observed = self.generation
            self.failure = self.fails
            if not self.fails:
                self.statuses = self.spec
        state = "CONDITION_FAILED" if self.failure else "CONDITION_SUCCEEDED"
        return service(
            generation=str(self.generation),
            observedGeneration=str(self.observed),
            reconciling=True if self.generation != self.observed else None,
            etag=self._etag(),
            traffic=self.spec,
            trafficStatuses=self.statuses,
            terminalCondition={"type": "Ready", "state": state, "message": self.failure},
        )


@attrs.define(eq=False)
class Move:
    """One change that moves 5 % of a service's traffic to the canary, and its journal."""

    service: Service
    journal: Journal = attrs.field(factory=Journal)
    shift: Shift = attrs.field(init=False)

    async def run(
        self,
        on_refusal: OnRefusal = OnRefusal.STOP,
        deadline: float = SETTLE_DEADLINE,
        answer: Callable[[httpx.Request], httpx.Response] | None = None,
    ) -> Shift:
        backend = api(answer or self.service.answer)
        captured = await backend.read(label="pre")
        mover = TrafficMover(
            backend=backend, journal=self.journal, clock=EventLoopClock(), captured=captured, step_id="drill"
        )
        self.shift = await mover.shift(
            split(captured, {"stable": 95, "canary": 5}),
            current=captured,
            label="drill.5",
            on_refusal=on_refusal,
            deadline=deadline,
        )
        return self.shift

    @property
    def journaled(self) -> list[object]:
        """The journal as rows: the etag of an intent, the outcome of an answer, True or False for the proof of a read-back."""
        rows: list[object] = []
        for event in self.journal.events:
            match event:
                case TrafficIntended():
                    rows.append(event.etag)
                case Answered():
                    rows.append(event.outcome)
                case TrafficRead():
                    rows.append(event.proven)
        return rows


class TestShift:
    async def test_a_change_that_settles_at_once_is_proven(self) -> None:
        move = Move(Service())
        shift = await move.run()
        assert (shift.proven, shift.detail, shift.seconds) == (True, "", 0.0)
        assert shift.state is not None
        assert shift.state.served() == {"canary": 5, "stable": 95}
        assert move.journaled == ['"7"', "accepted", True]
        intent = move.journal.events[0]
        assert isinstance(intent, TrafficIntended)
        assert intent.captured.served() == {"stable": 100}
        assert intent.wanted == (
            TrafficTarget(revision="stable", percent=95),
            TrafficTarget(revision="canary", percent=5),
            TrafficTarget(revision="canary", tag="canary"),
        )

    async def test_a_change_that_settles_slowly_is_waited_for(self) -> None:
        move = Move(Service(settle_seconds=30.0))
        shift = await move.run()
        assert shift.proven
        assert 30.0 <= shift.seconds < 35.0
        assert move.journaled == ['"7"', "accepted", True]

    async def test_a_change_that_never_settles_is_not_proven_at_the_deadline(self) -> None:
        move = Move(Service(settle_seconds=1e9))
        shift = await move.run()
        assert not shift.proven
        assert shift.detail == "the service is still reconciling towards canary 5 %, stable 95 %"
        assert SETTLE_DEADLINE - 5.0 < shift.seconds <= SETTLE_DEADLINE
        assert move.journaled == ['"7"', "accepted", False]

    async def test_the_caller_sets_the_deadline(self) -> None:
        shift = await Move(Service(settle_seconds=1e9)).run(deadline=7.0)
        assert shift.seconds <= 7.0

    async def test_a_change_that_fails_ends_before_the_deadline(self) -> None:
        move = Move(Service(settle_seconds=3.0, fails="Revision 'canary' is not ready"))
        shift = await move.run()
        assert not shift.proven
        assert shift.detail == "the service says that the change failed: Revision 'canary' is not ready"
        assert shift.seconds < 8.0
        assert move.journaled == ['"7"', "accepted", False]

    async def test_a_change_without_effect_ends_before_the_deadline(self) -> None:
        move = Move(Service(on_write=lambda _: httpx.Response(200, json={"name": "operations/1"})))
        shift = await move.run()
        assert not shift.proven
        assert shift.detail == "canary 5 %, stable 95 % was asked for, and stable 100 % is served"
        assert IDLE_GRACE <= shift.seconds < 2 * IDLE_GRACE
        assert move.journaled == ['"7"', "accepted", False]

    async def test_an_earlier_failure_does_not_fail_the_change(self) -> None:
        move = Move(
            Service(
                failure="the last one", on_write=lambda _: httpx.Response(200, json={"name": "operations/1"})
            )
        )
        shift = await move.run()
        assert not shift.proven
        assert shift.seconds >= IDLE_GRACE

    async def test_a_change_that_loses_a_tag_is_not_proven(self) -> None:
        shift = await Move(Service(drops_tags=True)).run()
        assert not shift.proven
        assert shift.detail.startswith("canary 5 %, stable 95 % is served, but the specification differs")

    async def test_a_read_back_resolves_a_lost_reply(self) -> None:
        move = Move(Service(lose_replies=True))
        assert (await move.run()).proven
        assert move.journaled == ['"7"', "unknown", True]

    async def test_a_failed_read_back_is_repeated(self) -> None:
        move = Move(Service(on_read=lambda number: httpx.Response(403) if number in {1, 2} else None))
        assert (await move.run()).proven

    async def test_a_change_that_cannot_be_read_back_is_not_proven(self) -> None:
        move = Move(Service(on_read=lambda number: httpx.Response(403) if number else None))
        shift = await move.run()
        assert not shift.proven
        assert shift.detail.startswith("the traffic could not be read back: GET ")
        assert move.journaled == ['"7"', "accepted"]


def answer_of(status: int | None, **headers: str) -> httpx.Response:
    """Return a refusal with this status; None breaks the connection."""
    if status is None:
        raise httpx.ReadError("reset")
    return httpx.Response(status, json={"message": "no"}, headers=headers)


class TestForward:
    """A forward change survives hiccups, and writes over nobody."""

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    async def test_a_refusal_that_is_no_hiccup_ends_the_change(self, status: int) -> None:
        move = Move(Service(on_write=lambda _: answer_of(status)))
        shift = await move.run()
        assert not shift.proven
        assert f"HTTP {status} (no)" in shift.detail
        to_do = {
            401: "; renew CLOUD_RUN_ACCESS_TOKEN",
            403: "; ask the owner of the project p to grant run.services.update on svc in ",
        }
        assert to_do.get(status, "") in shift.detail
        assert (move.service.writes, move.service.reads) == (1, 1)
        assert move.journaled == ['"7"', "refused"]
        answer = move.journal.events[1]
        assert isinstance(answer, Answered)
        assert (answer.key, answer.detail) == ("traffic", shift.detail)

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [(409, "refused"), (412, "refused"), (429, "refused"), (500, "failed"), (503, "failed"), (None, "unknown")],
    )  # fmt: skip
    @pytest.mark.parametrize("times", [1, FORWARD_WRITES - 1])
    async def test_a_few_hiccups_are_survived(self, status: int | None, outcome: str, times: int) -> None:
        move = Move(Service(on_write=lambda number: answer_of(status) if number <= times else None))
        assert (await move.run()).proven
        # Each write has its own intent and answer; the read in between shows that nothing has changed.
        assert move.journaled == [*(['"7"', outcome, False] * times), '"7"', "accepted", True]

    @pytest.mark.parametrize("status", [409, 412, 429])
    async def test_a_refusal_that_does_not_end_stops_the_change_after_a_few_writes(self, status: int) -> None:
        move = Move(Service(on_write=lambda _: answer_of(status)))
        shift = await move.run()
        assert not shift.proven
        assert shift.detail.endswith(f"HTTP {status} (no) (the last of {FORWARD_WRITES} writes)")
        assert move.service.writes == FORWARD_WRITES
        assert shift.seconds < 5.0

    @pytest.mark.parametrize("status", [500, 503, None])
    async def test_the_last_write_without_a_clear_answer_is_read_back_for_longer(
        self, status: int | None
    ) -> None:
        """It may take effect late."""
        move = Move(Service(on_write=lambda _: answer_of(status)))
        shift = await move.run()
        assert not shift.proven
        assert shift.detail.startswith(
            "canary 5 %, stable 95 % was asked for, and stable 100 % is served (the write: "
        )
        assert move.service.writes == FORWARD_WRITES
        assert IDLE_GRACE <= shift.seconds < 2 * IDLE_GRACE

    async def test_a_deploy_of_somebody_else_is_no_change_of_the_split(self) -> None:
        move = Move(Service(others_deploy=True))
        assert (await move.run()).proven
        assert move.journaled == ['"7"', "refused", False, '"8"', "accepted", True]

    @pytest.mark.parametrize(
        "theirs",
        [
            [row("stable", 90), row("canary", 10), TAGGED],
            [row("stable", 100)],
            [{**LATEST, "percent": 100}, TAGGED],
        ],
        ids=["shares", "tags", "latest"],
    )
    @pytest.mark.parametrize("status", [409, 503, None])
    async def test_a_split_of_somebody_else_is_not_written_over(
        self, theirs: list[Row], status: int | None
    ) -> None:
        move = Move(
            Service(others_move=theirs, on_write=lambda number: answer_of(status) if number == 1 else None)
        )
        shift = await move.run()
        assert not shift.proven
        assert shift.detail.startswith("somebody else changed the service in the meantime: ")
        assert (move.service.writes, move.service.spec) == (1, theirs)

    @pytest.mark.parametrize("asks_for_latest", [True, False])
    async def test_a_new_revision_behind_latest_is_a_change_of_the_split(self, asks_for_latest: bool) -> None:
        spec = [LATEST if asks_for_latest else row("stable", 100)]
        fake = Service(spec=spec, statuses=spec, others_deploy=True)
        answer = fake.answer

        def deployed(request: httpx.Request) -> httpx.Response:
            reply = answer(request)
            document = msgspec.json.decode(reply.content)
            if fake.writes and request.method == "GET":
                document["latestReadyRevision"] = "services/svc/revisions/newer"
            return httpx.Response(reply.status_code, json=document)

        move = Move(fake)
        shift = await move.run(answer=deployed)
        assert shift.proven is not asks_for_latest
        assert (fake.writes == 1) is asks_for_latest

    @pytest.mark.parametrize("status", [409, 503, None])
    async def test_a_write_that_took_effect_all_the_same_is_not_sent_again(self, status: int | None) -> None:
        """The reply to the first write was lost, and a retry on the way was refused."""
        fake = Service(settle_seconds=20.0)

        def applied(_: int) -> httpx.Response:
            fake.spec = [row("stable", 95), row("canary", 5), TAGGED]
            fake.generation += 1
            fake.settles_at = anyio.current_time() + fake.settle_seconds
            return answer_of(status)

        fake.on_write = applied
        move = Move(fake)
        assert (await move.run()).proven
        assert fake.writes == 1

    async def test_a_late_effect_is_not_written_over(self) -> None:
        """Each write gets a 503, and the first one takes effect 1.5 seconds later."""
        fake = Service()
        started = anyio.current_time()

        def landed(_: int) -> None:
            if anyio.current_time() - started >= 1.5 and fake.generation == 7:
                fake.spec = fake.statuses = [row("stable", 95), row("canary", 5), TAGGED]
                fake.generation = fake.observed = 8

        fake.on_read = landed
        fake.on_write = lambda _: answer_of(503)
        move = Move(fake)
        assert (await move.run()).proven

    async def test_a_retry_after_is_waited_for(self) -> None:
        move = Move(
            Service(on_write=lambda number: answer_of(429, **{"retry-after": "7"}) if number == 1 else None)
        )
        shift = await move.run()
        assert shift.proven
        assert shift.seconds == pytest.approx(7.0)

    async def test_a_deadline_ends_the_hiccups(self) -> None:
        move = Move(Service(on_write=lambda _: answer_of(429, **{"retry-after": "7"})))
        shift = await move.run(deadline=10.0)
        assert not shift.proven
        assert (shift.seconds, move.service.writes) == (10.0, 3)

    async def test_without_a_read_nothing_is_written_again(self) -> None:
        move = Move(
            Service(
                on_write=lambda _: answer_of(409),
                on_read=lambda number: httpx.Response(403) if number else None,
            )
        )
        shift = await move.run()
        assert not shift.proven
        assert shift.detail.startswith("the traffic could not be read back: ")
        assert shift.detail.endswith("HTTP 409 (no))")
        assert move.service.writes == 1

    async def test_a_read_that_fails_for_a_while_is_waited_for(self) -> None:
        move = Move(
            Service(
                on_write=lambda number: answer_of(409) if number == 1 else None,
                on_read=lambda number: httpx.Response(403) if 1 <= number <= 3 else None,
            )
        )
        assert (await move.run()).proven
        assert move.service.writes == 2


class TestRefusal:
    async def test_an_undo_reads_the_state_again_after_a_stale_etag(self) -> None:
        move = Move(Service(others_deploy=True))
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven
        assert move.journaled == ['"7"', "refused", False, '"8"', "accepted", True]

    @pytest.mark.parametrize("deadline", [7.0, SETTLE_DEADLINE, 600.0])
    async def test_a_refused_undo_is_written_again_until_the_deadline(self, deadline: float) -> None:
        times: list[float] = []

        def refuse(_: int) -> httpx.Response:
            times.append(anyio.current_time())
            return httpx.Response(503)

        move = Move(Service(on_write=refuse))
        shift = await move.run(OnRefusal.TRY_AGAIN, deadline)
        assert not shift.proven
        assert shift.detail.endswith("HTTP 503 (an empty body)")
        assert shift.seconds == times[-1] - times[0] == pytest.approx(deadline)
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses[0] <= 0.2
        assert max(pauses) <= LONGEST_PAUSE
        assert move.service.writes <= 8 + deadline / (LONGEST_PAUSE / 2)
        assert move.journaled == ['"7"', "failed", False] * move.service.writes

    @pytest.mark.parametrize("seconds", [15.0, 40.0, 55.0])
    @pytest.mark.parametrize("status", [403, 409, 429, 503])
    async def test_an_undo_outlasts_a_temporary_refusal(self, status: int, seconds: float) -> None:
        started = anyio.current_time()
        move = Move(
            Service(
                on_write=lambda _: (
                    httpx.Response(status) if anyio.current_time() - started < seconds else None
                )
            )
        )
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven

    async def test_the_pauses_of_an_undo_are_random(self) -> None:
        seconds = set()
        for seed in (1, 2):
            random.seed(seed)
            started = anyio.current_time()
            move = Move(Service(on_write=lambda number: httpx.Response(503) if number < 4 else None))
            seconds.add((await move.run(OnRefusal.TRY_AGAIN)).seconds)
            assert 0.7 <= anyio.current_time() - started <= 1.4
        assert len(seconds) == 2

    @pytest.mark.parametrize(("retry_after", "seconds"), [("7", 7.0), ("86400", MAX_RETRY_AFTER)])
    @pytest.mark.parametrize("status", [429, 503])
    async def test_an_undo_waits_for_the_retry_after(
        self, status: int, retry_after: str, seconds: float
    ) -> None:
        def refuse(number: int) -> httpx.Response | None:
            return httpx.Response(status, headers={"retry-after": retry_after}) if number < 4 else None

        move = Move(Service(on_write=refuse))
        shift = await move.run(OnRefusal.TRY_AGAIN)
        assert shift.proven
        assert shift.seconds == pytest.approx(3 * seconds)

    async def test_an_undo_outlasts_failing_updates(self) -> None:
        move = Move(Service(fails="not ready"))
        move.service.on_write = lambda number: setattr(
            move.service, "fails", "" if number > 9 else "not ready"
        )
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven
        assert move.service.writes == 10

    async def test_an_undo_without_effect_is_written_again_until_the_deadline(
        self,
    ) -> None:
        move = Move(Service(on_write=lambda _: httpx.Response(200, json={})))
        shift = await move.run(OnRefusal.TRY_AGAIN)
        assert not shift.proven
        assert SETTLE_DEADLINE - LONGEST_PAUSE <= shift.seconds <= SETTLE_DEADLINE
        assert 5 <= move.service.writes <= 10

    async def test_a_refused_undo_is_proven_if_its_split_is_served_already(self) -> None:
        move = Move(Service(lose_replies=True))
        await move.run()
        again = Move(move.service)
        move.service.on_write = lambda _: httpx.Response(409)
        assert (await again.run(OnRefusal.TRY_AGAIN)).proven
        assert again.journaled == ['"8"', "refused", True]

    async def test_an_undo_without_effect_is_written_again(self) -> None:
        move = Move(Service(on_write=lambda number: httpx.Response(200, json={}) if number == 1 else None))
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven
        assert move.journaled == ['"7"', "accepted", False, '"7"', "accepted", True]

    async def test_an_undo_writes_even_if_the_service_cannot_be_read(self) -> None:
        move = Move(
            Service(
                on_read=lambda number: httpx.Response(403) if number else None,
                on_write=lambda _: httpx.Response(403),
            )
        )
        shift = await move.run(OnRefusal.TRY_AGAIN)
        assert not shift.proven
        assert move.journaled == ['"7"', "refused"] * move.service.writes

    async def test_a_stale_etag_is_not_sent_again_until_a_read_succeeds(self) -> None:
        move = Move(
            Service(
                others_deploy=True,
                on_read=lambda number: httpx.Response(403) if 1 <= number <= 5 else None,
            )
        )
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven
        assert move.journaled == ['"7"', "refused", False, '"8"', "accepted", True]

    async def test_after_a_failed_read_the_last_known_state_guards_the_write(self) -> None:
        """Not an older one: the state at the start was read before somebody deployed."""
        move = Move(
            Service(
                others_deploy=True,
                on_read=lambda number: httpx.Response(403) if number == 2 else None,
                on_write=lambda number: answer_of(403) if number == 2 else None,
            )
        )
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven
        assert move.journaled == ['"7"', "refused", False, '"8"', "refused", '"8"', "accepted", True]

    async def test_an_undo_that_never_settles_ends_at_the_deadline(self) -> None:
        move = Move(Service(settle_seconds=1e9))
        shift = await move.run(OnRefusal.TRY_AGAIN)
        assert not shift.proven
        assert shift.seconds <= SETTLE_DEADLINE + 1.0


async def test_a_change_that_is_cancelled_while_its_token_is_fetched_is_still_sent_and_journaled() -> None:
    """A cancellation never separates an intent from its answer in the journal."""
    move = Move(Service())
    backend = api(move.service.answer)
    captured = await backend.read(label="pre")
    with anyio.CancelScope() as scope:

        async def source(*, refused: str = "") -> Grant:
            scope.cancel()
            await anyio.sleep(1.0)
            return Grant(token="token")

        backend.token = Token(source=source)
        mover = TrafficMover(
            backend=backend, journal=move.journal, clock=EventLoopClock(), captured=captured, step_id="drill"
        )
        await mover.shift(captured.targets, current=captured, label="drill.5", on_refusal=OnRefusal.STOP)
    assert scope.cancelled_caught
    assert (move.service.writes, move.journaled) == (1, ['"7"', "accepted"])


async def test_a_change_in_progress_is_written_again_only_on_request() -> None:
    move = Move(Service(settle_seconds=1e9))
    await move.run(OnRefusal.TRY_AGAIN)
    writes = move.service.writes
    assert move.shift.state is not None
    move.service.settle_seconds = 0.0
    backend = api(move.service.answer)
    for write_again in (False, True):
        mover = TrafficMover(
            backend=backend,
            journal=Journal(),
            clock=EventLoopClock(),
            captured=move.shift.state,
            step_id="undo",
        )
        shift = await mover.shift(
            move.shift.state.targets,
            current=await backend.read(label="now"),
            label="undo",
            on_refusal=OnRefusal.TRY_AGAIN,
            write_again=write_again,
        )
        assert (shift.proven, move.service.writes > writes) == (write_again, write_again)


class TestBrokenJournal:
    """A journal that cannot be written stops forward changes, but not an undo."""

    async def test_a_forward_change_writes_nothing(self) -> None:
        move = Move(Service(), Journal(broken="the disk is full"))
        shift = await move.run()
        assert (shift.proven, shift.detail) == (False, "the disk is full")
        assert (move.service.writes, move.journaled) == (0, ['"7"', "not sent"])

    async def test_an_intent_that_cannot_be_journaled_is_not_sent(self, tmp_path: Path) -> None:
        journal = Journal.create(tmp_path / "journal.jsonl")
        move = Move(Service(), journal)
        with disk_with_room_for(0):
            shift = await move.run()
        journal.close()
        assert not shift.proven
        assert shift.detail.startswith("the journal cannot be written")
        assert move.service.writes == 0

    async def test_an_undo_goes_on(self) -> None:
        move = Move(Service(), Journal(broken="the disk is full"))
        assert (await move.run(OnRefusal.TRY_AGAIN)).proven


NAMES = st.sampled_from(["stable", "canary", "other"])
ROWS = st.lists(
    st.builds(
        TrafficTarget,
        revision=st.none() | NAMES,
        percent=st.integers(0, 100),
        tag=st.none() | st.sampled_from("abc"),
    ),
    max_size=5,
).map(tuple)


class TestState:
    @given(rows=ROWS, percents=st.dictionaries(NAMES, st.integers(0, 100), max_size=3))
    def test_a_split_gives_the_shares_and_keeps_every_tag(
        self, rows: tuple[TrafficTarget, ...], percents: dict[str, int]
    ) -> None:
        state = TrafficState(targets=rows, statuses=())
        targets = split(state, percents)
        asked = attrs.evolve(state, targets=targets, statuses=targets)
        assert asked.served() == {name: share for name, share in sorted(percents.items()) if share}
        assert {(row.revision, row.tag) for row in targets if row.tag} == {
            (row.revision, row.tag) for row in rows if row.tag
        }
        assert mismatch_reason(asked, targets) == ""

    def test_a_split_with_a_missing_tag_or_another_share_does_not_match(self) -> None:
        rows = (TrafficTarget(revision="stable", percent=100), TrafficTarget(revision="canary", tag="canary"))
        state = TrafficState(targets=rows, statuses=rows)
        assert state.asks_for(rows)
        assert not state.asks_for(rows[:1])
        assert not state.asks_for((TrafficTarget(revision=None, percent=100), rows[1]))
        assert attrs.evolve(state, latest_ready="stable").serves((TrafficTarget(revision=None, percent=100),))

    def test_the_text_of_a_failure_without_a_reason_says_that(self) -> None:
        state = TrafficState(targets=(), statuses=(), succeeded=False)
        assert mismatch_reason(state, ()) == "the service says that the change failed: no reason given"

    def test_shares_are_described_in_words(self) -> None:
        assert describe_shares({"stable": 95, "canary": 5}) == "stable 95 %, canary 5 %"
        assert describe_shares({}) == "nobody"

    def test_a_wanted_target_has_no_url(self) -> None:
        target = TrafficTarget(revision="canary", tag="canary", uri="https://canary---svc.example")
        assert target.wanted() == TrafficTarget(revision="canary", tag="canary")
