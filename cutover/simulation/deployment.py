"""The state of the Cloud Run service: the requested traffic, the served traffic, and the traffic updates.

This file holds no JSON. `cloud_run.py` and `cloud_run_v1.py` show and change this state, each in its own format.
"""

from collections.abc import Callable, Mapping

import attrs

from cutover.simulation.exchange import Fate
from cutover.simulation.layout import Layout
from cutover.simulation.timeline import Timeline

NOT_STARTED = "The container failed to start and listen on its port."


@attrs.frozen(kw_only=True)
class Target:
    """One entry of a traffic list."""

    revision: str | None
    """Name of the revision; None for LATEST."""
    percent: int = 0
    """Share of the traffic in percent; 0 for an entry that only sets a tag."""
    tag: str | None = None


def _targets(percents: Mapping[str, int]) -> tuple[Target, ...]:
    return tuple(Target(revision=name, percent=percent) for name, percent in percents.items())


@attrs.define(eq=False, kw_only=True)
class Operation:
    """A long-running operation: the progress of one traffic update."""

    name: str
    done: bool = False
    error: str = ""
    """Message of its failure, reported with code 13 (INTERNAL); empty if it did not fail."""


@attrs.define(eq=False, kw_only=True)
class Deployment:
    """The Cloud Run service: requested and served traffic are two lists, which agree when an update settles without failure."""

    layout: Layout
    timeline: Timeline
    ready: dict[str, bool]
    """Every revision that exists, by name; the value is True for a revision that is ready."""
    latest_ready: str
    """Name of the latest ready revision, which LATEST stands for."""
    latest_created: str
    """Name of the revision that was created last. It differs from ``latest_ready`` while it is being deployed or does not start."""
    spec: tuple[Target, ...]
    """The requested traffic."""
    statuses: tuple[Target, ...]
    """The served traffic."""
    generation: int = 7
    """Number of the newest spec."""
    observed_generation: int = 7
    """Number of the newest spec whose traffic has settled."""
    served_generation: int = 7
    """Number of the newest spec that has settled without any failure, of the traffic or of a revision."""
    deploying: bool = False
    """True while the newest revision starts. It is neither ready nor failed yet."""
    failure: str = ""
    """The reason why the last settled update failed; empty if that update did not fail."""
    operations: dict[str, Operation] = attrs.field(factory=dict)
    _applied: int = 0
    """Number of traffic lists that have replaced the spec. Only the newest of them can settle."""
    when_served: Callable[[], None] = lambda: None
    """Function to call after the served traffic may have changed."""

    @classmethod
    def of(cls, layout: Layout, timeline: Timeline) -> "Deployment":
        """Return the deployment that a layout starts with. A tag of a revision that does not exist is left out."""
        whole = (Target(revision=None if layout.latest else layout.stable, percent=100),)
        served = _targets(layout.served) or whole
        requested = _targets(layout.requested) or served
        newest = layout.latest_ready_revision
        ready = {layout.stable: True, newest: True}
        ready |= dict.fromkeys((*layout.served, *layout.requested), True)
        if layout.canary_exists:
            ready[layout.canary] = layout.canary_ready
        tagged = {tag: layout.canary if tag == "canary" else layout.stable for tag in layout.tag_urls}
        tags = [Target(revision=revision, tag=tag) for tag, revision in tagged.items() if revision in ready]
        deployment = cls(
            layout=layout,
            timeline=timeline,
            ready=ready,
            latest_ready=newest if ready[newest] else layout.stable,
            latest_created=newest,
            spec=(*requested, *tags),
            statuses=(*served, *tags),
        )
        if layout.broken_revision:
            deployment.deploy(ready=False)
        return deployment

    @property
    def etag(self) -> str:
        """Return the etag. It changes with the generation, and not when an update settles."""
        return f'"{1700 + self.generation}"'

    @property
    def reconciling(self) -> bool:
        """Return True while a traffic update that has taken effect has not settled."""
        return self.observed_generation != self.generation

    @property
    def revision_failure(self) -> str:
        """Return the reason why the newest revision does not serve; empty if it is ready, or is still being deployed."""
        if self.deploying or self.ready[self.latest_created]:
            return ""
        return f"Revision '{self.latest_created}' is not ready and cannot serve traffic. {NOT_STARTED}"

    @property
    def split(self) -> Mapping[str, int]:
        """Return the served traffic: percent by revision."""
        shares: dict[str, int] = {}
        for target in self.statuses:
            if target.percent:
                name = target.revision or self.latest_ready
                shares[name] = shares.get(name, 0) + target.percent
        return shares

    @property
    def tags(self) -> Mapping[str, str]:
        """Return the served tags: revision by tag."""
        return {
            target.tag: target.revision or self.latest_ready
            for target in self.statuses
            if target.tag is not None
        }

    def tag_url(self, tag: str) -> str:
        """Return the URL of a tag. For a tag that the layout does not list, the URL has the form that Cloud Run gives it."""
        layout = self.layout
        return layout.tag_urls.get(tag) or layout.tag_url_form.format(tag=tag, service=layout.service)

    def update(self, targets: tuple[Target, ...], fate: Fate) -> Operation:
        """Replace the requested traffic, and return the operation of this update.

        Args:
            targets: the new traffic list.
            fate: the course of the update. With a delay or a failure, the traffic is replaced later or not at all.
        """
        name = f"projects/{self.layout.project}/locations/{self.layout.region}/operations/op-{len(self.operations) + 1}"
        operation = self.operations[name] = Operation(name=name)
        if not fate.keeps_tags:
            targets = tuple(attrs.evolve(target, tag=None) for target in targets if target.percent)
        if fate.error or not fate.takes_effect:
            operation.done, operation.error = True, fate.error
        elif fate.after:
            based_on = self.generation
            self.timeline.after(fate.after, lambda: self._land(targets, fate, operation, based_on))
        else:
            self._apply(targets, fate, operation)
        return operation

    def deploy(self, *, ready: bool = True, seconds: float = 0.0) -> None:
        """Deploy a new revision, as another operator would. Only traffic on LATEST moves to it, once it is ready.

        A deployment keeps the traffic list of the spec. So an update that has not settled yet settles later, with the newest
        generation, and is served.

        Args:
            ready: False for a revision that does not start: the service is not Ready from then on, and its traffic is served.
            seconds: seconds until the revision is ready, or has failed to start.
        """
        settled = not self.reconciling
        self.generation += 1
        if settled:
            self.observed_generation = self.generation
        self.latest_created = name = f"{self.layout.service}-{self.generation:05}-other"
        self.ready[name] = False
        self.deploying = True
        if seconds:
            self.timeline.after(seconds, lambda: self._deployed(name, ready=ready))
        else:
            self._deployed(name, ready=ready)

    def _deployed(self, name: str, *, ready: bool) -> None:
        """End the deployment of a revision."""
        self.ready[name] = ready
        if ready:
            self.latest_ready = name
            self.when_served()
        if name == self.latest_created:
            self.deploying = False
            self._serve()

    def _serve(self) -> None:
        """Note that the newest spec is served, if nothing has failed and nothing is under way."""
        under_way = self.reconciling or self.deploying
        if not (under_way or self.failure or self.revision_failure):
            self.served_generation = self.generation

    def _land(self, targets: tuple[Target, ...], fate: Fate, operation: Operation, based_on: int) -> None:
        """Apply a late update. If the service has changed since the request, the operation fails instead: its etag is stale."""
        if self.generation == based_on:
            self._apply(targets, fate, operation)
        else:
            operation.done, operation.error = True, "The service has changed since this update was requested."

    def _apply(self, targets: tuple[Target, ...], fate: Fate, operation: Operation) -> None:
        before = self.spec
        if any(target.percent and not self.ready.get(target.revision or "", True) for target in targets):
            fate = attrs.evolve(fate, fails="A revision in the traffic is not ready.")
        self.generation += 1
        self._applied += 1
        number = self._applied
        self.spec = targets
        seconds = self.layout.settle_seconds if fate.settles_after is None else fate.settles_after
        if seconds:
            self.timeline.after(seconds, lambda: self._settle(number, before, fate, operation))
        else:
            self._settle(number, before, fate, operation)

    def _settle(self, number: int, before: tuple[Target, ...], fate: Fate, operation: Operation) -> None:
        operation.done, operation.error = True, fate.fails
        if self._applied != number:
            return
        generation = self.observed_generation = self.generation
        self.failure = fate.fails
        if not fate.fails:
            self.statuses = self.spec
            self.when_served()
        self._serve()
        if fate.undone_after is not None:
            self.timeline.after(fate.undone_after, lambda: self._take_back(generation, before))

    def _take_back(self, generation: int, before: tuple[Target, ...]) -> None:
        """Put the old traffic back, as another operator would, unless the service has changed since."""
        if self.generation == generation:
            self._apply(before, Fate(settles_after=0.0), Operation(name=""))
