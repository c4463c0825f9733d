"""The decision table of a recovery: every row, by what it decides, and by what it then leaves in a production."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.errors import RefusedError
from cutover.http.outbound import MUTATION_DEADLINE
from cutover.model.route_state import GLOBAL
from cutover.model.traffic_state import TrafficTarget
from cutover.model.train_events import TRAFFIC, Answered, Decided, RouteIntended, TrafficIntended, UndoStarted
from cutover.model.undo_plan import UndoPlan, plan_undo
from cutover.model.undo_policy import Action, RecoveryMode, decide_routes, decide_traffic
from tests.support.embedded_trains import CANARY, STABLE
from tests.support.unfinished_runs import Scene, scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time, pytest.mark.slow]

ALL = TrafficTarget(revision=STABLE, percent=100)
TAG = TrafficTarget(revision=CANARY, tag="canary")
OTHER_TAG = TrafficTarget(revision=STABLE, tag="blue")
STEP = (TrafficTarget(revision=STABLE, percent=95), TrafficTarget(revision=CANARY, percent=5))
FOREIGN = (TrafficTarget(revision=STABLE, percent=70), TrafficTarget(revision=CANARY, percent=30))
CLOSE, WAIT, WRITE, REFUSE, ACCEPT = Action
CLEAR, FLIPPED = None, "rust_shell"


async def intend_route(found: Scene, *outcomes: str, wanted: str | None = FLIPPED) -> None:
    """Write down that the global override was to be set, and what the answers were."""
    captured = await found.services.control.status(label="pre")
    found.journal.record(
        RouteIntended(step_id="route-flip", key=GLOBAL, captured=captured, wanted=wanted, times=1)
    )
    for outcome in outcomes:
        found.journal.record(Answered(key=GLOBAL, outcome=outcome))


def deploy(found: Scene) -> None:
    """Let somebody deploy a revision, to which LATEST leads from now on."""
    found.simulation._deployment.deploy()


async def refused(found: Scene) -> None:
    await found.intend("refused")


async def not_sent(found: Scene) -> None:
    await found.intend("refused")
    await found.intend("not sent")


async def unanswered(found: Scene) -> None:
    await found.intend()


async def unknown(found: Scene) -> None:
    await found.intend("unknown")


async def put_back_already(found: Scene) -> None:
    await found.move_traffic()
    await found.ask_for(ALL, TAG)


async def moved(found: Scene) -> None:
    await found.move_traffic()


async def moved_unanswered(found: Scene) -> None:
    await found.move_traffic(25)
    await found.intend()


async def moved_and_failed(found: Scene) -> None:
    await found.intend("accepted")
    with pytest.raises(RefusedError):
        await found.ask_for(*STEP, TAG)
    state = await found.services.traffic.read(label="pre")
    assert (state.asks_for((*STEP, TAG)), state.succeeded, state.served()) == (True, False, {STABLE: 100})


async def moved_and_tagged(found: Scene) -> None:
    await found.move_traffic()
    await found.ask_for(*STEP, TAG, OTHER_TAG)


async def captured_and_tagged(found: Scene) -> None:
    await found.intend("refused")
    await found.ask_for(ALL, OTHER_TAG)


async def somebody_elses(found: Scene) -> None:
    await found.move_traffic()
    await found.ask_for(*FOREIGN, TAG)


async def unreadable(found: Scene) -> None:
    await found.move_traffic()
    found.refusals = 1000


async def moved_from_latest(found: Scene) -> None:
    await found.move_traffic()
    deploy(found)


async def pinned_since(found: Scene) -> None:
    captured = await found.services.traffic.read(label="pre")
    await found.move_traffic()
    await found.ask_for(ALL, TAG)
    deploy(found)
    found.journal.record(TrafficIntended(step_id="undo", captured=captured, wanted=(ALL, TAG), etag=None))
    found.journal.record(Answered(key=TRAFFIC, outcome="refused"))


async def still_latest(found: Scene) -> None:
    await found.intend("refused")
    deploy(found)


@attrs.frozen(kw_only=True)
class Row:
    """One row: how the run was left, and what is to be decided, done and left."""

    left: Callable[[Scene], Awaitable[None]]
    decides: tuple[Action, ...]
    closed: bool = True
    changes: bool = False
    traffic: dict[str, int] = attrs.Factory(lambda: {STABLE: 100})
    tags: tuple[str, ...] = ("canary",)
    routes: frozenset[str | None] = frozenset({CLEAR})
    layout: Mapping[str, object] = attrs.field(factory=dict)
    way: RecoveryMode = "finish"


LATEST = {"latest": True}
STEP_SHARES, FOREIGN_SHARES = {STABLE: 95, CANARY: 5}, {STABLE: 70, CANARY: 30}

TRAFFIC_ROWS: dict[str, Row] = {
    "captured, refused": Row(left=refused, decides=(CLOSE,)),
    "captured, refused or never sent": Row(left=not_sent, decides=(CLOSE,)),
    "captured again, all proven": Row(left=put_back_already, decides=(CLOSE,)),
    "captured, unanswered": Row(left=unanswered, decides=(WAIT, WRITE), changes=True),
    "captured, answer unknown": Row(left=unknown, decides=(WAIT, WRITE), changes=True),
    "ours": Row(left=moved, decides=(WRITE,), changes=True),
    "ours, the next one unanswered": Row(left=moved_unanswered, decides=(WRITE,), changes=True),
    "ours, as a failed specification": Row(
        left=moved_and_failed, decides=(WRITE,), changes=True, layout={"canary_ready": False}
    ),
    "percentages ours, tags not": Row(
        left=moved_and_tagged, decides=(WRITE,), changes=True, tags=("blue", "canary")
    ),
    "percentages captured, tags not": Row(left=captured_and_tagged, decides=(CLOSE,), tags=("blue",)),
    "LATEST is something untested": Row(
        left=moved_from_latest, decides=(WRITE,), closed=False, changes=True, layout=LATEST
    ),
    "LATEST is something untested, pinned already": Row(
        left=pinned_since, decides=(REFUSE,), closed=False, layout=LATEST
    ),
    "LATEST was never left": Row(
        left=still_latest,
        decides=(CLOSE,),
        layout=LATEST,
        traffic={"openagents-control-service-00008-other": 100},
    ),
    "anything else": Row(left=somebody_elses, decides=(REFUSE,), closed=False, traffic=FOREIGN_SHARES),
    "anything else, accepted": Row(
        left=somebody_elses, decides=(ACCEPT,), traffic=FOREIGN_SHARES, way="accept-found"
    ),
    "anything else, what was captured is wanted": Row(
        left=somebody_elses, decides=(WRITE,), changes=True, way="restore-captured"
    ),
    "ours, accepted": Row(left=moved, decides=(ACCEPT,), traffic=STEP_SHARES, way="accept-found"),
    "ours, unanswered, accepted": Row(
        left=moved_unanswered,
        decides=(WAIT, ACCEPT),
        traffic={STABLE: 75, CANARY: 25},
        way="accept-found",
    ),
    "LATEST is something untested, and wanted": Row(
        left=moved_from_latest,
        decides=(WRITE,),
        changes=True,
        layout=LATEST,
        traffic={"openagents-control-service-00009-other": 100},
        way="restore-captured",
    ),
    "not to be read": Row(left=unreadable, decides=(REFUSE,), closed=False, traffic=STEP_SHARES),
    "not to be read, accepted unseen": Row(
        left=unreadable, decides=(ACCEPT,), traffic=STEP_SHARES, way="accept-found"
    ),
}


async def route_refused(found: Scene) -> None:
    await intend_route(found, "refused")


async def route_unanswered(found: Scene) -> None:
    await intend_route(found)


async def route_accepted(found: Scene) -> None:
    await intend_route(found, "accepted")


async def routes_moved(found: Scene) -> None:
    await found.move_routes()


async def routes_moved_somewhere(found: Scene) -> None:
    await intend_route(found)
    await found.services.control.override(GLOBAL, "rust", label="flip")


async def routes_absent(found: Scene) -> None:
    await intend_route(found, "accepted", wanted="legacy")
    await found.override(GLOBAL, "clear")


async def routes_somebody_elses(found: Scene) -> None:
    await found.move_routes()
    await found.override(GLOBAL, "legacy")


async def routes_all_somebody_elses(found: Scene) -> None:
    await found.move_routes()
    await found.override(GLOBAL, "legacy")
    await found.override("auth_entry", "legacy")


async def routes_unanswered_and_somebody_elses(found: Scene) -> None:
    await intend_route(found)
    await found.override(GLOBAL, "legacy")


async def routes_unreadable(found: Scene) -> None:
    await found.move_routes()
    found.refusals = 1000


ROUTES_ROWS: dict[str, Row] = {
    "captured, refused": Row(left=route_refused, decides=(CLOSE,)),
    "captured, unanswered": Row(left=route_unanswered, decides=(WAIT, WRITE), changes=True),
    "captured, accepted and not read": Row(left=route_accepted, decides=(WAIT, WRITE), changes=True),
    "ours": Row(left=routes_moved, decides=(WRITE,), changes=True),
    "ours on one instance": Row(left=routes_moved_somewhere, decides=(WRITE,), changes=True),
    "absent": Row(
        left=routes_absent,
        decides=(WRITE,),
        changes=True,
        layout={"flipped": True},
        routes=frozenset({FLIPPED}),
    ),
    "one key is somebody else's, the others are ours": Row(
        left=routes_somebody_elses,
        decides=(WRITE, REFUSE),
        closed=False,
        changes=True,
        routes=frozenset({"legacy"}),
    ),
    "anything else": Row(
        left=routes_all_somebody_elses,
        decides=(REFUSE,),
        closed=False,
        routes=frozenset({"legacy"}),
    ),
    "anything else, unanswered": Row(
        left=routes_unanswered_and_somebody_elses,
        decides=(WAIT, REFUSE),
        closed=False,
        routes=frozenset({"legacy"}),
    ),
    "anything else, accepted": Row(
        left=routes_somebody_elses,
        decides=(ACCEPT,),
        routes=frozenset({"legacy"}),
        way="accept-found",
    ),
    "anything else, unanswered, accepted": Row(
        left=routes_unanswered_and_somebody_elses,
        decides=(WAIT, ACCEPT),
        routes=frozenset({"legacy"}),
        way="accept-found",
    ),
    "anything else, what was captured is wanted": Row(
        left=routes_somebody_elses, decides=(WRITE,), changes=True, way="restore-captured"
    ),
    "not to be read": Row(
        left=routes_unreadable, decides=(REFUSE,), closed=False, routes=frozenset({FLIPPED})
    ),
    "not to be read, accepted unseen": Row(
        left=routes_unreadable, decides=(ACCEPT,), routes=frozenset({FLIPPED}), way="accept-found"
    ),
}
ROWS = {
    **{f"traffic: {name}": row for name, row in TRAFFIC_ROWS.items()},
    **{f"routes: {name}": row for name, row in ROUTES_ROWS.items()},
}
BY_RULE = {name: row for name, row in ROWS.items() if row.way == "finish" and "not to be read" not in name}


@pytest.mark.parametrize("name", BY_RULE)
async def test_the_decision_for_each_state(name: str, tmp_path: Path) -> None:
    """The rules alone, on what is found: nothing is carried out."""
    row = ROWS[name]
    async with scene(tmp_path, **row.layout) as found:
        await row.left(found)
        before = found.changes
        plan = plan_undo(found.journal.events, stable=STABLE)
        decided = [await decide(found, plan, wait=MUTATION_DEADLINE)]
        if decided == [WAIT]:
            decided.append(await decide(found, plan, wait=0.0))
        # Nothing is carried out here, so a decision after a write does not follow.
        assert tuple(decided) == row.decides[: len(decided)]
        assert decided[-1] in {WRITE, row.decides[-1]}
        assert found.changes == before


async def decide(found: Scene, plan: UndoPlan, *, wait: float) -> Action:
    if (traffic := plan.traffic) is not None:
        state = await found.services.traffic.read(label="look")
        return decide_traffic(
            state,
            targets=traffic.targets,
            captured=traffic.captured,
            own_states=traffic.own_states,
            write_outcome_unknown=traffic.write_outcome_unknown,
            wait=wait,
        ).action
    assert plan.routes is not None
    sample = await found.services.control.sample(label="look")
    return decide_routes(
        [state for state, _ in sample.shares],
        values=plan.routes.values,
        own_states=plan.routes.own_states,
        write_outcome_unknown=plan.routes.write_outcome_unknown,
        wait=wait,
    ).action


@pytest.mark.parametrize("name", ROWS)
async def test_the_writes_of_a_recovery(name: str, tmp_path: Path) -> None:
    """Each decision is a line of the journal, what follows from it is in production, and the outcome is told."""
    row, part = ROWS[name], name.partition(":")[0]
    async with scene(tmp_path, **row.layout) as found:
        await row.left(found)
        found.kill()
        before, events = found.changes, len(found.told())
        recovery = await found.recover(row.way)
        found.refusals = 0
        decided = [event for event in found.told()[events:] if isinstance(event, Decided)]
        assert [event.action for event in decided] == [action.value for action in row.decides]
        assert {event.part for event in decided} == {part}
        assert (recovery.closed, recovery.exit_code) == (row.closed, 0 if row.closed else 4)
        assert (found.changes > before) is row.changes
        # Longer than any change takes that is under way.
        await anyio.sleep(30.0)
        assert found.simulation.traffic == row.traffic
        assert tuple(sorted(found.simulation.tags)) == row.tags
        assert {instance["global"] for instance in serving(found)} == row.routes
        assert found.is_marked() is not row.closed
        commands = [line.partition(": ")[2] for line in recovery.to_do if "cutover recover" in line]
        offered = {command.split()[2] for command in commands if command.split()[2].startswith("--")}
        assert offered == (set() if row.closed else {"--accept-found", "--restore-captured"})


def serving(found: Scene) -> Sequence[dict[str, object]]:
    return [row for row in found.simulation.routes if row["revision"] == STABLE]


@pytest.mark.parametrize("way", ["finish", "accept-found"])
async def test_one_wait_is_enough_for_both_parts(way: RecoveryMode, tmp_path: Path) -> None:
    """The writes of a killed process expire side by side, whatever the wall clock says."""
    async with scene(tmp_path) as found:
        await found.intend()
        await intend_route(found)
        found.kill()
        assert (await found.recover(way)).closed
        waits = [
            event.part for event in found.told() if isinstance(event, Decided) and event.action == WAIT.value
        ]
    assert waits == ["traffic"]


@pytest.mark.parametrize("name", ROWS)
async def test_a_second_recovery_changes_nothing_more(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    async with scene(tmp_path, **row.layout) as found:
        await row.left(found)
        found.kill()
        first = await found.recover(row.way)
        changes, undone = found.changes, [e for e in found.told() if isinstance(e, UndoStarted)]
        again = await found.recover(row.way)
        assert again.closed is first.closed
        if row.closed:
            assert again.detail == "nothing was open"
            assert [e for e in found.told() if isinstance(e, UndoStarted)] == undone
        assert found.changes == changes


@pytest.mark.parametrize("left", [unreadable, routes_unreadable])
async def test_a_state_that_cannot_be_read_asks_for_the_same_recovery_later(
    left: Callable[[Scene], Awaitable[None]], tmp_path: Path
) -> None:
    """An operator need not decide about a state that nobody has seen: the next recovery may read it."""
    async with scene(tmp_path) as found:
        await left(found)
        found.kill()
        recovery = await found.recover()
        assert "production could not be read, and was not changed: " in recovery.detail
        assert recovery.to_do == (
            f"when the cause is gone: cutover recover {found.folder}",
            f"or, to leave production as it is now: cutover recover --accept-found {found.folder}",
            f"or, to write the captured state over it: cutover recover --restore-captured {found.folder}",
        )


@pytest.mark.parametrize(
    ("left", "token"),
    [(unreadable, "CLOUD_RUN_ACCESS_TOKEN"), (routes_unreadable, "CONTROL_ACCESS_TOKEN")],
)
async def test_a_read_whose_token_is_refused_asks_for_a_new_token(
    left: Callable[[Scene], Awaitable[None]], token: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as found:
        await left(found)
        found.kill()
        found.refusal_status = 401
        recovery = await found.recover()
        assert recovery.to_do[:2] == (
            f"renew {token} first: it was refused",
            f"when the cause is gone: cutover recover {found.folder}",
        )


@pytest.mark.parametrize("left", [unreadable, routes_unreadable])
async def test_an_acceptance_of_an_unread_state_says_so_loudly(
    left: Callable[[Scene], Awaitable[None]], tmp_path: Path
) -> None:
    """A production that is gone can be closed; that nobody looked at it stands in the journal, the detail and the summary."""
    async with scene(tmp_path) as found:
        await left(found)
        found.kill()
        recovery = await found.recover("accept-found")
        decided = [event for event in found.told() if isinstance(event, Decided)][-1]
        said = "accepts the state UNSEEN: it could not be read"
        assert said in decided.why
        assert said in recovery.detail
        assert "HTTP 403" in decided.found
        assert "HTTP 403" in recovery.detail
        assert said in (found.folder / "SUMMARY.md").read_text()


async def test_an_acceptance_of_a_state_that_was_read_is_not_called_unseen(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await somebody_elses(found)
        found.kill()
        recovery = await found.recover("accept-found")
        assert recovery.detail.startswith("traffic: an operator accepts the state that was found (")
        assert "UNSEEN" not in (found.folder / "SUMMARY.md").read_text()
