"""The route-split API: it reads the overrides of one instance or of all, and sets an override on one instance.

An override lives in the memory of one instance, so one reply proves nothing. A proof is a sample: if 59 status reads
in a row agree, then, with 95 % confidence, at least 95 % of the requests see that state (0.95 ** 59 < 0.05).

The module is longer than most, because the four requests of one small API share its headers and the reading of its replies.
"""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

import anyio
import attrs
import msgspec

from cutover.errors import PeerError, RefusedError, UnusableReplyError
from cutover.http.outbound import ATTEMPTS, Outbound, Reply
from cutover.http.statuses import FORBIDDEN
from cutover.http.tokens import Token, fixed
from cutover.model.route_state import GLOBAL, RouteState
from cutover.production.lane import Lane
from cutover.text import printable

SAMPLE_READS = 59
"""Number of status reads in a sample, which must agree."""
SAMPLE_CONCURRENCY = 8
"""Number of reads, or writes, at once."""
UNKNOWN_TARGET = "cutover-permission-check"
"""A target that no service knows. An override to it changes nothing."""
_INVALID = 422


@attrs.frozen(kw_only=True)
class Evaluation:
    """The answer to a route evaluation: the target of a path, and the reason."""

    path: str
    target: str
    reason: str
    domain: str | None


@attrs.frozen(kw_only=True)
class RouteAnswer:
    """The reads of a sample that saw one state at one origin."""

    state: RouteState
    origin: str
    """The instance and the revision that answered, in words, as far as headers name them."""
    reads: int


@attrs.frozen(kw_only=True)
class RouteSample:
    """The states that the reads of a sample saw."""

    shares: tuple[tuple[RouteState, int], ...]
    """(state, number of reads that saw it), the most frequent first."""
    answers: tuple[RouteAnswer, ...] = ()
    """The same reads, told apart by who answered; the most frequent first."""
    revisions: tuple[str | None, ...] = ()
    """The revisions that answered, each once, by the header; None stands for replies without the header."""

    @property
    def agreed(self) -> RouteState | None:
        """The state that every read saw; None if two reads saw different overrides or a different ``mode``."""
        return self.shares[0][0] if len(self.shares) == 1 else None

    @property
    def reads(self) -> int:
        """The number of reads."""
        return sum(count for _, count in self.shares)

    def holds(self, wanted: Sequence[tuple[str, str | None]]) -> bool:
        """Return True if every read saw these overrides."""
        return all(state.holds(wanted) for state, _ in self.shares)

    def describe(self) -> str:
        """Return the states and their numbers of reads in words."""
        return "; ".join(f"{count} of {self.reads} reads: {state.describe()}" for state, count in self.shares)


@attrs.frozen(kw_only=True)
class OverridePermission:
    """The answer to the question if the token may set overrides."""

    proven: bool
    """True if a reply proves the permission."""
    detail: str
    """The reply in words, and the thing to do if it proves nothing."""


@attrs.frozen(kw_only=True)
class StatusReply:
    """The reply to one read of the status."""

    state: RouteState
    revision: str | None
    """The revision that answered; None if no header names it."""
    instance: str | None = None
    """The instance that answered; None if no header names it."""

    @property
    def origin(self) -> str:
        """The instance and the revision that answered, in words."""
        revision = f"revision {self.revision}" if self.revision else "a revision without a name"
        return f"instance {self.instance} of {revision}" if self.instance else f"an instance of {revision}"


@attrs.define(eq=False)
class ControlPlane:
    """The route-split API of one deployment."""

    outbound: Outbound
    """Its client must open a new connection for each request: a kept connection may always reach the same instance."""
    base_url: str
    lane: Lane
    token: Token = attrs.field(converter=fixed)
    headers: Mapping[str, str]
    """The lane's headers for client build, protocol and schema. A service that enforces them answers 426 without them."""
    revision_header: str | None = None
    """Name of the response header that names the revision that answered."""
    instance_header: str | None = None
    """Name of the response header that names the instance that answered."""
    is_simulated: bool = False
    """True in a rehearsal: a command for an operator says BASE_URL, since nobody should change real production because a simulated one needs it."""

    def at(self, base_url: str) -> "ControlPlane":
        """Return the API at another address of the same service, such as the tag URL of a revision."""
        return attrs.evolve(self, base_url=base_url)

    async def status(self, *, label: str, attempts: int = ATTEMPTS) -> RouteState:
        """Return the overrides of the instance that answers, after up to ``attempts`` reads.

        Raises:
            PeerError: There was no usable answer.
        """
        return (await self.read_status(label=label, attempts=attempts)).state

    async def read_status(self, *, label: str, attempts: int = ATTEMPTS) -> StatusReply:
        """Return the overrides of the instance that answers, and the name of its revision.

        Raises:
            PeerError: There was no usable answer.
        """
        reply = await self.outbound.read(
            "GET",
            self.base_url + self.lane.status_path,
            label=label,
            headers=self._headers(),
            authorize=self.token,
            attempts=attempts,
        )
        state = _route_state(self._expect_success(reply))
        return StatusReply(
            state=state,
            revision=_name_in(reply, self.revision_header),
            instance=_name_in(reply, self.instance_header),
        )

    async def sample(self, *, label: str) -> RouteSample:
        """Return a sample of ``SAMPLE_READS`` status reads.

        Raises:
            PeerError: A read had no usable answer, after retries.
        """
        seen: Counter[RouteState] = Counter()
        by_origin: Counter[tuple[RouteState, str]] = Counter()
        revisions: dict[str | None, None] = {}
        failures: list[PeerError] = []
        remaining = iter(range(SAMPLE_READS))

        async def reader() -> None:
            for _ in remaining:
                if failures:
                    return
                try:
                    reply = await self.read_status(label=label)
                    seen[reply.state] += 1
                    by_origin[reply.state, reply.origin] += 1
                    revisions[reply.revision] = None
                except PeerError as error:
                    failures.append(error)

        async with anyio.create_task_group() as readers:
            for _ in range(SAMPLE_CONCURRENCY):
                readers.start_soon(reader)
        if failures:
            raise failures[0]
        return RouteSample(
            shares=tuple(seen.most_common()),
            answers=tuple(
                RouteAnswer(state=state, origin=origin, reads=reads)
                for (state, origin), reads in by_origin.most_common()
            ),
            revisions=tuple(revisions),
        )

    async def evaluate(self, path: str, *, cohort_key: str, label: str) -> Evaluation:
        """Return the target of a path.

        Raises:
            PeerError: There was no usable answer.
        """
        reply = await self.outbound.read(
            "POST",
            self.base_url + self.lane.evaluate_path,
            label=label,
            headers=self._headers(),
            authorize=self.token,
            json={"path": path, "cohort_key": cohort_key},
        )
        data = _data(self._expect_success(reply))
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
        """Set one override once, on the instance that answers; return the state in its reply.

        Raises:
            NoAnswerError: There was no reply; the override may have taken effect.
            RefusedError: The status was not 2xx. After a 5xx the override may have taken effect.
            UnusableReplyError: The reply shows no state, or is too large; the override may have taken effect.
        """
        reply = await self.outbound.change(
            "POST",
            self.base_url + self.lane.override_path,
            label=label,
            headers=self._headers(),
            authorize=self.token,
            json=_override_body(key, word),
        )
        return _route_state(self._expect_success(reply))

    async def override_permission(self, *, label: str) -> OverridePermission:
        """Ask if the token may set overrides, by an override to a target that no service knows. It changes nothing.

        A service looks at the permission before the target. So 422 with the service's own error proves the permission, and 403
        disproves it. 422 in plain text proves nothing: then the body was refused before anybody looked at the token.

        Raises:
            NoAnswerError: There was no reply.
            UnusableReplyError: The reply is too large.
        """
        reply = await self.outbound.read(
            "POST",
            self.base_url + self.lane.override_path,
            label=label,
            headers=self._headers(),
            authorize=self.token,
            json=_override_body(GLOBAL, UNKNOWN_TARGET),
        )
        said = f"{reply.request_line} with the unknown target {UNKNOWN_TARGET}: {reply.describe()}"
        if reply.status == _INVALID and reply.has_error:
            return OverridePermission(proven=True, detail=f"CONTROL_ACCESS_TOKEN may set overrides ({said})")
        return OverridePermission(proven=False, detail=f"{said}; {self._without_permission(reply)}")

    def _without_permission(self, reply: Reply) -> str:
        """Return the meaning of a reply that does not prove the permission, and the thing to do."""
        if reply.status == FORBIDDEN and reply.has_error:
            return (
                "CONTROL_ACCESS_TOKEN may read the routes and may not set overrides, so the flip would fail; nothing was changed; "
                "give the token of a user who is an administrator of the service"
            )
        if reply.is_success:
            return (
                "this service accepts a target that it cannot know, so the request may have changed the global override; "
                f"check that {self.base_url}{self.lane.status_path} shows the overrides that you expect, and find out what answers "
                "at BASE_URL before you start again"
            )
        return (
            "the permission to set overrides is not known; nothing was changed; "
            "check BASE_URL and CONTROL_ACCESS_TOKEN, whose user must be an administrator of the service"
        )

    def curl(self, key: str, value: str | None) -> str:
        """Return the curl command with which an operator sets one override on the instance that answers.

        The command takes the token from the variable CONTROL_ACCESS_TOKEN of the shell. Everything else is quoted for a shell.

        Args:
            key: The domain, or ``GLOBAL``.
            value: The override as a status reply names it; None to clear it.
        """
        address = "BASE_URL" if self.is_simulated else self.base_url
        word = self.lane.override_words.get(value, value)
        words = ["curl", "-X", "POST", shlex.quote(address + self.lane.override_path)]
        words += ["-H", "'authorization: Bearer '$CONTROL_ACCESS_TOKEN"]
        for name, content in {**self.headers, "content-type": "application/json"}.items():
            words += ["-H", shlex.quote(f"{name}: {content}")]
        return " ".join((*words, "-d", shlex.quote(msgspec.json.encode(_override_body(key, word)).decode())))

    def how_to_agree(self, sample: RouteSample) -> str:
        """Return what an operator does where the instances disagree: the commands that set each override as most instances have it."""
        states = [state for state, _ in sample.shares]
        differing = [
            key for key, value in states[0].overrides if any(state.get(key) != value for state in states)
        ]
        if not differing:
            return "their settings differ: wait until every instance runs the same version, then start again"
        commands = "; ".join(self.curl(key, states[0].get(key)) for key in differing)
        return f"to make them agree, repeat this until each instance has answered, or choose other values: {commands}"

    def _headers(self) -> dict[str, str]:
        return {**self.headers, "accept": "application/json"}

    def _expect_success(self, reply: Reply) -> Reply:
        """Return a reply with status 2xx.

        Raises:
            RefusedError: The status is not 2xx. The message quotes the reply; for a 403 it names the meaning.
        """
        try:
            return reply.expect_success()
        except RefusedError as error:
            # Only the service's own refusal has a meaning; a page may come from something in front of the service.
            if reply.status != FORBIDDEN or not reply.has_error:
                raise
            meaning = f"{error}: the user of CONTROL_ACCESS_TOKEN may not do this; overrides need an administrator: give the token of one"
            raise RefusedError(meaning, status=error.status, retry_after=error.retry_after) from error


def _name_in(reply: Reply, header: str | None) -> str | None:
    """Return the value of a header that names who answered, safe to print; None without the header."""
    name = reply.header(header) if header else None
    return printable(name, 80) if name else None


def _override_body(key: str, word: str | None) -> dict[str, str | None]:
    return {"target": word} if key == GLOBAL else {"target": word, "domain": key}


def route_state_of(reply: Reply) -> RouteState:
    """Return the overrides that a status reply shows, from whatever service it comes.

    Raises:
        PeerError: The status is not 2xx, or the reply shows no state.
    """
    return _route_state(reply.expect_success())


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
    """Return a target as status replies name it: ``rust``, the word that sets it, becomes ``rust_shell``. Empty: None."""
    match value:
        case None | "":
            return None
        case "rust":
            return "rust_shell"
        case _:
            return printable(str(value))
