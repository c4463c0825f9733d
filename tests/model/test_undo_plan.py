"""The overrides that a promotion has left, from the events of its journal."""

import pytest

from cutover.model import step_ids
from cutover.model.route_state import RouteState
from cutover.model.train_events import Answered, RouteIntended, TrainEvent
from cutover.model.undo_plan import plan_undo

INTENT = RouteIntended(
    step_id=step_ids.PROMOTION,
    key="chat_pilot",
    captured=RouteState(overrides=(("chat_pilot", None),), mode="legacy"),
    wanted="rust_shell",
    times=1,
)
REFUSED, ACCEPTED, UNKNOWN = (
    Answered(key="chat_pilot", outcome=outcome) for outcome in ("refused", "accepted", "unknown")
)
MAY_BE_THERE = (("chat_pilot", "rust_shell"),)


@pytest.mark.parametrize(
    ("answers", "on_canary"),
    [
        ([], MAY_BE_THERE),
        ([REFUSED], ()),
        ([ACCEPTED], MAY_BE_THERE),
        ([UNKNOWN], MAY_BE_THERE),
        ([ACCEPTED, INTENT, REFUSED], MAY_BE_THERE),
        ([REFUSED, INTENT], MAY_BE_THERE),
    ],
    ids=["no answer", "refused", "accepted", "unknown", "refused the second time", "sent again"],
)
def test_a_promotion_leaves_what_it_has_set_or_may_have_set(
    answers: list[TrainEvent], on_canary: tuple[tuple[str, str], ...]
) -> None:
    routes = plan_undo([INTENT, *answers], stable="stable").routes
    assert routes is not None
    assert routes.on_canary == on_canary
