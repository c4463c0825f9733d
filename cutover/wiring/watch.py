"""``watch_run``: after a GO, prove for some minutes that production stays as the train left it."""

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.model.train_events import TrainStarted
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import read_journal
from cutover.train.watching import Goal, Round, RoundStatus, goal_of, take_round, worst
from cutover.wiring.production import Production, live
from cutover.wiring.recover import configuration_of_run

_NEEDS = frozenset({"control_access_token", "auth_token", "cloud_run_access_token", "gcloud"})


@attrs.frozen(kw_only=True)
class Watched:
    """The result of a watch."""

    status: RoundStatus
    """The worst status of all rounds."""
    file: Path
    """The file in the run directory with one line for each round."""


async def watch_run(
    run_directory: Path,
    *,
    minutes: float,
    every: float,
    on_round: Callable[[Round], None],
    env: Mapping[str, str] | None = None,
) -> Watched:
    """Watch the production of a completed cutover. Nothing is changed in production.

    Args:
        run_directory: The folder with the journal of the train.
        minutes: How long to watch. The last round begins at the end of this time.
        every: Seconds between the beginnings of two rounds.
        on_round: Called with each round.
        env: The variables with the tokens; None for the environment of the process. The rest comes from the journal.

    Raises:
        NotStartedError: There is no usable journal, it is one of a rehearsal, or its last verdict is not GO.
        ConfigurationError: A token is missing, or an input is wrong.
    """
    try:
        events = read_journal(run_directory / "journal.jsonl")
    except OSError as error:
        raise NotStartedError(f"{run_directory} holds no journal: {error}") from error
    started = next((event for event in events if isinstance(event, TrainStarted)), None)
    goal = goal_of(events)
    if started is None or goal is None:
        raise NotStartedError(
            f"{run_directory}: the last verdict of this run is not GO, so there is nothing to watch"
        )
    if started.facts.get("dry_run"):
        raise NotStartedError(f"{run_directory}: this run was a rehearsal, and its production is gone")
    config = configuration_of_run(started.facts, run_directory, env, _NEEDS)
    return await watch_production(
        live(config), goal, run_directory, minutes=minutes, every=every, on_round=on_round
    )


async def watch_production(
    production: Production,
    goal: Goal,
    folder: Path,
    *,
    minutes: float,
    every: float,
    on_round: Callable[[Round], None],
) -> Watched:
    """Watch this production, and keep a line of each round in the folder; see ``watch_run``.

    Raises:
        NotStartedError: The file of the rounds cannot be written.
    """
    await production.tokens.read(production.config.needs)
    evidence = EvidenceFolder(root=folder, secrets=production.secrets)
    clock, lines, statuses = production.clock, bytearray(), set[RoundStatus]()
    begun, file = clock.now(), f"watch/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}.jsonl"
    rounds = int(minutes * 60 // every) + 1
    async with production.services(purpose="w") as services:
        for number in range(1, rounds + 1):
            if (left := begun + (number - 1) * every - clock.now()) > 0:
                await clock.sleep(left)
            seen = await take_round(number, goal, services)
            statuses.add(seen.status)
            lines += msgspec.json.encode(_row(seen)) + b"\n"
            if evidence.write(file, bytes(lines)) is None:
                raise NotStartedError(f"the watch cannot keep its evidence: {evidence.failed}")
            on_round(seen)
    return Watched(status=worst(statuses), file=folder / file)


def _row(seen: Round) -> dict[str, object]:
    looks = [attrs.asdict(look) | {"status": look.status.value} for look in seen.looks]
    return {"round": seen.number, "at": utc_now(), "status": seen.status.value, "checks": looks}
