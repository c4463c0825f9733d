"""The route-split API: read what the routes are, on one instance or on all of them; set an override on one.

Overrides live in the memory of one instance, so one reply proves nothing. A proof is a sample: 59 status reads in a row
that agree say, with 95 % confidence, that at least 95 % of the requests see that state (0.95 ** 59 < 0.05).
"""

import re
from collections import Counter
from collections.abc import Sequence

import anyio
import attrs

from cutover.errors import PeerError, UnusableReplyError
from cutover.http.outbound import Outbound, Reply
from cutover.model.route_state import GLOBAL, RouteState
from cutover.production.lane import Lane
from cutover.text import printable

SAMPLE_READS = 59
"""Status reads that must agree."""
SAMPLE_CONCURRENCY = 8
"""Reads at once."""


@attrs.frozen(kw_only=True)
class Evaluation:
    """Where the route split would send a path, and why."""

    path: str
    target: str
    reason: str
    domain: str | None


@attrs.frozen(kw_only=True)
class RouteSample:
    """The states that a number of status reads saw."""

    shares: tuple[tuple[RouteState, int], ...]
    """(state, in how many reads), the most frequent first."""

    @property
    def agreed(self) -> RouteState | None:
        """The one state that every read saw; None where they differ."""
        return self.shares[0][0] if len(self.shares) == 1 else None

    def holds(self, wanted: Sequence[tuple[str, str | None]]) -> bool:
        """Return whether every read saw these overrides."""
        return all(state.holds(wanted) for state, _ in self.shares)

    def describe(self) -> str:
        """Say which share of the reads saw which state."""
        total = sum(count for _, count in self.shares)
        return "; ".join(f"{count} of {total} reads: {state.describe()}" for state, count in self.shares)


@attrs.define(eq=False)
class ControlPlane:
    """The route-split API of one deployment."""

    outbound: Outbound
    """Its client must open a fresh connection for each request: a kept one may stick to one instance."""
    base_url: str
    lane: Lane
    token: str = attrs.field(repr=False)

    async def status(self, *, label: str) -> RouteState:
        """Read the overrides from whichever instance answers.

        Raises:
            PeerError: No usable answer.
        """
        reply = await self.outbound.read(
            "GET", self.base_url + self.lane.status_path, label=label, headers=self._headers()
        )
        return _route_state(reply.expect_success())

    async def sample(self, *, label: str) -> RouteSample:
        """Read the status as often as a proof takes, eight reads at once.

        Raises:
            PeerError: A read had no usable answer, after retries.
        """
        seen: Counter[RouteState] = Counter()
        failures: list[PeerError] = []
        remaining = iter(range(SAMPLE_READS))

        async def reader() -> None:
            for _ in remaining:
                if failures:
                    return
                try:
                    seen[await self.status(label=label)] += 1
                except PeerError as error:
                    failures.append(error)

        async with anyio.create_task_group() as readers:
            for _ in range(SAMPLE_CONCURRENCY):
                readers.start_soon(reader)
        if failures:
            raise failures[0]
        return RouteSample(shares=tuple(seen.most_common()))

    async def evaluate(self, path: str, *, cohort_key: str, label: str) -> Evaluation:
        """Ask where a path would go.

        Raises:
            PeerError: No usable answer.
        """
        reply = await self.outbound.read(
            "POST",
            self.base_url + self.lane.evaluate_path,
            label=label,
            headers=self._headers(),
            json={"path": path, "cohort_key": cohort_key},
        )
        data = _data(reply.expect_success())
        target = data.get("target")
        if not isinstance(target, str):
            raise UnusableReplyError(f"{reply.request_line}: the reply names no target")
        domain = data.get("route_domain")
        return Evaluation(
            path=path,
            target=printable(target),
            reason=printable(str(data.get("reason") or "")),
            domain=printable(domain) if isinstance(domain, str) else None,
        )

    async def override(self, key: str, word: str, *, label: str) -> RouteState:
        """Set one override, once, on whichever instance answers; return the state that it answers with.

        Raises:
            NoAnswerError: No reply came; it may have taken effect.
            RefusedError: It was refused.
            UnusableReplyError: It was accepted with a reply that does not say so.
        """
        body = {"target": word} if key == GLOBAL else {"target": word, "domain": key}
        reply = await self.outbound.change(
            "POST", self.base_url + self.lane.override_path, label=label, headers=self._headers(), json=body
        )
        return _route_state(reply.expect_success())

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}", "accept": "application/json"}


def _data(reply: Reply) -> dict[str, object]:
    decoded = reply.json()
    data = decoded.get("data") if isinstance(decoded, dict) else None
    if not isinstance(data, dict):
        raise UnusableReplyError(f"{reply.request_line}: the reply has no object in `data`")
    return data


def _route_state(reply: Reply) -> RouteState:
    data = _data(reply)
    groups, overrides = data.get("route_groups"), data.get("domain_overrides")
    if not isinstance(groups, list) or "override_target" not in data:
        raise UnusableReplyError(
            f"{reply.request_line}: the reply has no `route_groups` or no `override_target`"
        )
    found: dict[str, str | None] = {}
    for group in groups:
        if not isinstance(group, dict):
            raise UnusableReplyError(f"{reply.request_line}: a route group is no object")
        found[_domain(group.get("domain"), reply)] = _target(group.get("override_target"))
    if isinstance(overrides, dict):
        found |= {_domain(domain, reply): _target(value) for domain, value in overrides.items()}
    mode = ", ".join(
        f"{name}={printable(str(data[name]))}"
        for name in ("enabled", "mode", "cohort_percentage", "force_legacy")
        if name in data
    )
    return RouteState(
        overrides=(*sorted(found.items()), (GLOBAL, _target(data["override_target"]))), mode=mode
    )


def _domain(value: object, reply: Reply) -> str:
    if isinstance(value, str) and value != GLOBAL and re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value):
        return value
    raise UnusableReplyError(f"{reply.request_line}: '{printable(str(value))}' is not the name of a domain")


def _target(value: object) -> str | None:
    """Normalise a target: the API is set with ``rust`` and answers ``rust_shell``."""
    match value:
        case None | "":
            return None
        case "rust":
            return "rust_shell"
        case _:
            return printable(str(value))
