"""The whole production as one ASGI app: finds the service, logs the request, applies the faults, sends the reply.

This module is longer than most, because it also holds what a test can see and change from outside.
"""

import random
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate

import anyio
import attrs
from starlette.types import Receive, Scope, Send

from cutover.simulation.addresses import METRICS_PATH, Place, Site, locate
from cutover.simulation.cloud_run import CloudRunApi, with_query
from cutover.simulation.cloud_run_v1 import KnativeApi
from cutover.simulation.deployment import Deployment, Target
from cutover.simulation.exchange import STREAMS, Fate, Operation, Reply, Request, html_reply, json_reply
from cutover.simulation.faults import ActiveFaults, Fault, Refuse, Rewrite, Role, Situation
from cutover.simulation.front_door import FrontDoor
from cutover.simulation.layout import ChangeKind, Credentials, Layout
from cutover.simulation.legacy import LEGACY_INSTANCE, legacy_service
from cutover.simulation.metrics_page import metrics_page
from cutover.simulation.object_store import ObjectStore
from cutover.simulation.request_log import LoggedRequest, answered, logged
from cutover.simulation.route_split import GLOBAL, RUST, Instance, RouteSplit, with_body
from cutover.simulation.service import ChatService
from cutover.simulation.timeline import Timeline
from cutover.simulation.wire import (
    ConnectionBroken,
    Disconnected,
    Ending,
    Sleep,
    read_body,
    request_head,
    send_reply,
)


@attrs.define(eq=False, kw_only=True)
class SimulatedProduction:
    """A simulated production, with the behaviour that its layout and its faults describe."""

    credentials: Credentials
    """The tokens that the services know."""
    layout: Layout = attrs.field(factory=Layout)
    """Settings at the start. After construction they include the changes that the faults make."""
    faults: tuple[Fault, ...] = ()
    """Faults and variants of this production; several at once are allowed."""
    now: Callable[[], float] = anyio.current_time
    """Clock, in seconds."""
    sleep: Sleep = anyio.sleep
    """Function that waits for a number of seconds of the clock."""
    seed: int = 0
    """Seed of the random choice among instances."""
    storage: ObjectStore = attrs.field(init=False)
    """The bucket of Cloud Storage."""
    requests: list[LoggedRequest] = attrs.field(init=False, factory=list)
    """All requests so far, in the order of arrival."""
    _began: float | None = attrs.field(init=False, default=None)
    """Time of the first request; token lifetimes count from it."""
    _first_at_tag: dict[tuple[str, str], float] = attrs.field(init=False, factory=dict)
    """Tag and its revision -> the time of the first request at the tag's URL."""
    _timeline: Timeline = attrs.field(init=False)
    _deployment: Deployment = attrs.field(init=False)
    _front_door: FrontDoor = attrs.field(init=False)
    _service: ChatService = attrs.field(init=False)
    _legacy: ChatService = attrs.field(init=False)
    _cloud_run: CloudRunApi = attrs.field(init=False)
    _knative: KnativeApi = attrs.field(init=False)
    _active: ActiveFaults = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for fault in self.faults:
            self.layout = fault.arrange(self.layout) if fault.arrange is not None else self.layout
        layout = self.layout
        # A token that is renewed later is one of this production alone.
        self.credentials = attrs.evolve(self.credentials, renewed=dict(self.credentials.renewed))
        self._timeline = Timeline(self.now)
        self._deployment = Deployment.of(layout, self._timeline)
        self._active = ActiveFaults(self.faults)
        chance = random.Random(self.seed)  # noqa: S311  tests need the same choices in every run
        self._front_door = FrontDoor(size=layout.instances, chance=chance, affinity=layout.affinity)
        self._front_door.split = dict(self._deployment.split)
        self._deployment.when_served = self._traffic_served
        self._service = ChatService(
            credentials=self.credentials,
            user="auth",
            turn_prefix="",
            layout=layout,
            timeline=self._timeline,
            routes=RouteSplit(
                settings=layout.route_split,
                legacy_url=layout.legacy_url,
                timeline=self._timeline,
                when_changed=lambda: self._changed(ChangeKind.ROUTES),
                later_version=layout.later_version,
            ),
            session_seconds=self._session_seconds if layout.tells_sessions else None,
        )
        self._legacy = legacy_service(layout, self.credentials, self._timeline)
        self._cloud_run = CloudRunApi(deployment=self._deployment, credentials=self.credentials)
        self._knative = KnativeApi(deployment=self._deployment, credentials=self.credentials)
        self.storage = ObjectStore(bucket=layout.bucket, credentials=self.credentials)
        stable, _ = self._front_door.all_of(layout.stable), self._front_door.all_of(layout.canary)
        if layout.flipped:
            for instance in stable:
                instance.overrides |= dict.fromkeys(self._route_keys(), RUST)
        if layout.odd_instance:
            stable[-1].overrides[GLOBAL] = "legacy" if layout.flipped else RUST

    @property
    def turns(self) -> int:
        """Return the number of chat turns started so far, at both the new and the legacy service."""
        return self._service.turns + self._legacy.turns

    @property
    def traffic(self) -> dict[str, int]:
        """Return the split that is served now: percent by revision."""
        self._timeline.catch_up()
        return dict(self._deployment.split)

    @property
    def traffic_spec(self) -> tuple[Target, ...]:
        """Return the traffic list in the specification of the service."""
        self._timeline.catch_up()
        return self._deployment.spec

    @property
    def tags(self) -> dict[str, str]:
        """Return the traffic tags that are served now: revision by tag."""
        self._timeline.catch_up()
        return dict(self._deployment.tags)

    @property
    def generation(self) -> int:
        """Return the generation of the Cloud Run service."""
        self._timeline.catch_up()
        return self._deployment.generation

    @property
    def reconciling(self) -> bool:
        """Return True while a traffic update that has taken effect has not settled."""
        self._timeline.catch_up()
        return self._deployment.reconciling

    @property
    def routes(self) -> list[dict[str, object]]:
        """Return the overrides of each instance: ``{"revision", "instance", "global", "domains": {domain: target}}``."""
        self._timeline.catch_up()
        return [
            {
                "revision": instance.revision,
                "instance": instance.number,
                "global": instance.overrides.get(GLOBAL),
                "domains": {key: value for key, value in instance.overrides.items() if key != GLOBAL},
            }
            for instances in self._front_door.instances.values()
            for instance in instances
        ]

    def route_targets(self) -> dict[str, str | None]:
        """Return route key -> its override on the serving instances: None if it is not set, ``mixed`` if the instances differ."""
        self._timeline.catch_up()
        serving = [one for name in self._deployment.split for one in self._front_door.all_of(name)]
        targets: dict[str, str | None] = {}
        for key in self._route_keys():
            found = {instance.overrides.get(key) for instance in serving}
            targets[key] = found.pop() if len(found) == 1 else "mixed"
        return targets

    def deploy(self, *, ready: bool = True, seconds: float = 0.0) -> None:
        """Deploy a new revision, as somebody else would; see ``Deployment.deploy``."""
        self._timeline.catch_up()
        self._deployment.deploy(ready=ready, seconds=seconds)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI 3 connection: this method is the app.

        Raises:
            ConnectionBroken: a fault breaks the connection, the request body is too large, or the connection is not HTTP.
        """
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ConnectionBroken(f"the simulation accepts only HTTP, not {scope['type']}")
        now = self._timeline.catch_up()
        self._began = now if self._began is None else self._began
        head = request_head(scope)
        place = self._locate(head)
        # A load balancer routes by the head alone, so a request whose body has not come yet is already on its instance.
        session = self._front_door.session(head) if place is not None and place.site is Site.FRONT else ""
        instance = self._route(place, session)
        entry = logged(
            head,
            sequence=len(self.requests),
            time=now,
            credentials=self.credentials,
            place=place,
            operation=self._operation(head, place),
            instance=instance,
        )
        self.requests.append(entry)
        ending = Ending.DISCONNECTED
        try:
            body = await read_body(receive)
            self._timeline.catch_up()
            operation = with_body(entry.operation, body)
            reply = self._answer(attrs.evolve(head, body=body), operation, place, instance)
            reply = self._front_door.with_session(session, reply)
            entry = answered(
                entry,
                operation=operation,
                body=body,
                status=reply.status,
                started_turn=reply.started_turn,
            )
            self.requests[entry.sequence] = entry
            with self._front_door.stream() if _is_front_stream(entry) else anyio.CancelScope() as sending:
                ending = await send_reply(
                    reply,
                    receive=receive,
                    send=send,
                    sleep=self.sleep,
                    chunk_seconds=self.layout.chunk_seconds,
                )
            if sending.cancelled_caught:
                ending = Ending.BROKEN
        except Disconnected:
            pass
        except ConnectionBroken:
            ending = Ending.BROKEN
            raise
        finally:
            self.requests[entry.sequence] = attrs.evolve(entry, ending=ending)
        if ending is Ending.BROKEN:
            raise ConnectionBroken(f"the simulation broke the connection of request {entry.sequence}")

    def _traffic_served(self) -> None:
        """Bring a change of the served traffic to the front door, after its lag."""
        split = dict(self._deployment.split)
        if self.layout.canary_takes_all and split.get(self.layout.canary):
            split = {self.layout.canary: 100}
        if self.layout.front_lag_seconds:
            self._timeline.after(self.layout.front_lag_seconds, lambda: self._route_by(split))
        else:
            self._route_by(split)

    def _route_by(self, split: dict[str, int]) -> None:
        if split != self._front_door.split:
            self._front_door.split = split
            self._changed(ChangeKind.TRAFFIC)

    def _changed(self, kind: ChangeKind) -> None:
        if kind in self.layout.cuts_responses_at:
            self._front_door.cut()

    def renew(self, name: str, token: str) -> None:
        """Accept one more token of this name, which never expires."""
        self.credentials.renewed[token] = name

    def _seconds_left(self, token: str | None) -> float | None:
        """Return the seconds until a token expires, negative after it; None if it never expires."""
        names = [name for name in self.layout.token_lifetimes if self.credentials.first(name) == token]
        if not names or self._began is None:
            return None
        age = self._timeline.catch_up() - self._began
        return min(self.layout.token_lifetimes[name] for name in names) - age

    def _session_seconds(self, token: str | None) -> float:
        """Return the seconds that a session lives; a token that never expires begins a new session with each question."""
        left = self._seconds_left(token)
        return self.layout.session_seconds if left is None else left

    def _token_info(self, token: str | None, operation: Operation) -> Reply:
        """Return what Google tells about a token of the Admin API: the seconds that it lives, as text."""
        if operation is not Operation.LIFETIME or not self.layout.tells_sessions:
            return html_reply("<!doctype html><title>Error 404 (Not Found)</title>\n", status=404)
        if token is None or "cloud_run" not in self.credentials.names(token):
            return json_reply({"error": "invalid_token", "error_description": "Invalid Value"}, status=400)
        return json_reply({"expires_in": str(round(self._session_seconds(token)))})

    def _without_expired_token(self, request: Request) -> Request:
        """Return the request as the service sees it: an expired token counts as none."""
        left = self._seconds_left(request.token)
        if left is None or left > 0:
            return request
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        return attrs.evolve(request, headers=headers)

    def _route_keys(self) -> Sequence[str]:
        return (*(group.domain for group in self.layout.route_split.groups), GLOBAL)

    def _locate(self, head: Request) -> Place | None:
        tag_urls = {tag: self._deployment.tag_url(tag) for tag in self._deployment.tags}
        place = locate(self.layout, tag_urls, authority=head.headers.get("host", ""), path=head.path)
        if place is None or place.tag is None:
            return place
        return place if self._is_open(place.tag) else None

    def _is_open(self, tag: str) -> bool:
        """Return True if the URL of a tag leads to an instance."""
        layout = self.layout
        if layout.ingress != "INGRESS_TRAFFIC_ALL" or layout.default_uri_disabled:
            return False
        return self._seconds_since_first(tag) >= layout.tag_opens_after

    def _seconds_since_first(self, tag: str) -> float:
        """Return the seconds since the first request at the URL of a tag on its present revision."""
        now = self._timeline.catch_up()
        return now - self._first_at_tag.setdefault((tag, self._deployment.tags[tag]), now)

    def _route(self, place: Place | None, session: str) -> Instance | None:
        if place is not None and place.site is Site.FRONT:
            return self._front_door.admit(session, self._front_door.split)
        if place is not None and place.tag is not None:
            lags = self._seconds_since_first(place.tag) < self.layout.tag_lags
            return self._front_door.one_of(self.layout.stable if lags else self._deployment.tags[place.tag])
        return None

    def _operation(self, request: Request, place: Place | None) -> Operation:
        if place is None:
            return Operation.OTHER
        if place.site is Site.TOKENS:
            return Operation.LIFETIME if place.path == "/tokeninfo" else Operation.OTHER
        return with_query(self._service_at(place).operation(request.method, place.path), request.query)

    def _service_at(self, place: Place) -> ChatService | CloudRunApi | KnativeApi | ObjectStore:
        if place.site is Site.STORAGE:
            return self.storage
        if place.site is Site.CLOUD_RUN:
            return self._cloud_run_api(place.path)
        return self._legacy if place.site is Site.LEGACY else self._service

    def _cloud_run_api(self, path: str) -> CloudRunApi | KnativeApi:
        return self._cloud_run if path.startswith("/v2/") else self._knative

    def _answer(
        self, request: Request, operation: Operation, place: Place | None, instance: Instance | None
    ) -> Reply:
        if place is None:
            return self._dated(
                html_reply("<!doctype html><title>Error 404 (Not Found)</title>\n", status=404)
            )
        request = self._without_expired_token(attrs.evolve(request, path=place.path))
        effects = self._active.strike(self._situation(request, operation, place.site, instance))
        for effect in effects:
            if isinstance(effect, Fate):
                request = attrs.evolve(request, fate=effect)
        refusal = next((effect.reply for effect in effects if isinstance(effect, Refuse)), None)
        reply = refusal or self._ask(request, operation, place.site, instance)
        if instance is not None and self.layout.revision_header:
            reply = reply.with_header(self.layout.revision_header, instance.revision)
        if instance is not None and self.layout.instance_header:
            reply = reply.with_header(self.layout.instance_header, f"{instance.revision}-{instance.number}")
        for effect in effects:
            if isinstance(effect, Rewrite):
                reply = effect.change(reply)
        return self._dated(reply)

    def _dated(self, reply: Reply) -> Reply:
        """Return the reply with a Date header (RFC 9110 6.6.1)."""
        return reply.with_header("date", formatdate(time.time() + self.layout.clock_ahead, usegmt=True))

    def _ask(self, request: Request, operation: Operation, site: Site, instance: Instance | None) -> Reply:
        if site is Site.CLOUD_RUN and request.path == METRICS_PATH:
            return metrics_page(self.requests, self.layout)
        if site is Site.CLOUD_RUN:
            return self._cloud_run_api(request.path).answer(request, operation)
        if site is Site.TOKENS:
            return self._token_info(request.token, operation)
        if site is Site.STORAGE:
            return self.storage.answer(request, operation)
        if instance is None:
            return self._legacy.answer(request, operation, LEGACY_INSTANCE)
        return self._service.answer(request, operation, instance)

    def _situation(
        self, request: Request, operation: Operation, site: Site, instance: Instance | None
    ) -> Situation:
        roles = {self.layout.stable: Role.STABLE, self.layout.canary: Role.CANARY}
        stable = self._front_door.all_of(self.layout.stable)
        return Situation(
            request=request,
            operation=operation,
            site=site,
            instance=instance,
            role=roles.get(instance.revision) if instance is not None else None,
            flipped=any(one.overrides.get(GLOBAL) == RUST for one in stable),
            layout=self.layout,
        )


def _is_front_stream(entry: LoggedRequest) -> bool:
    return entry.site is Site.FRONT and entry.operation in STREAMS


async def _lifespan(receive: Receive, send: Send) -> None:
    """Answer the ASGI lifespan protocol. The production has nothing to start or to stop."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
