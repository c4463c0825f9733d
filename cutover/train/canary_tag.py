"""The tag that the drill gives a canary without one: at 0 %, as its first change, and only for the time of the drill.

The tag's URL leads to the canary alone, so that its streams are known before it has a share. Every way back writes the captured tags, and
so takes this tag away.
"""

from contextlib import suppress

import attrs

from cutover.errors import PeerError
from cutover.model.results import StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.production.on_refusal import OnRefusal
from cutover.production.services import Services
from cutover.production.traffic.mover import TrafficMover
from cutover.train.canary_evidence import TAG_SECONDS, TagAnswer, ask_at_tag
from cutover.train.step_recorder import StepRecorder
from cutover.train.stream_proof import LAG_PAUSE


@attrs.define(eq=False, kw_only=True)
class CanaryTag:
    """The tag of one drill."""

    canary: str
    name: str
    captured: TrafficState
    services: Services
    mover: TrafficMover
    recorder: StepRecorder
    row: TrafficTarget | None = None
    """The row that each later split of the drill keeps; None while the canary does not have the tag."""
    closed: bool = False
    """True if nothing answers at the URL of the tag."""

    async def give(self, state: TrafficState) -> TrafficState:
        """Give the canary its tag, and wait until the tag's URL is listed and answers; return the last state. No share moves.

        Without the tag nothing was judged, so a tag that cannot be given is an ``error``, and the drill ends.
        """
        row = TrafficTarget(revision=self.canary, tag=self.name)
        targets = (*(target.wanted() for target in self.captured.targets), row)
        shift = await self.mover.shift(targets, current=state, label="drill.tag", on_refusal=OnRefusal.STOP)
        state = shift.state or state
        if not shift.proven:
            detail = f"the tag {self.name} (CANARY_TAG) could not be given to the canary: {shift.detail}"
            self.recorder.check("canary-tag", StepStatus.ERROR, detail, kind="traffic", tolerable=False)
            return state
        self.row = row
        state, answer = await self._until_it_answers(state)
        detail = f"the canary has the tag {self.name} at 0 %"
        if not answer.reached:
            self.closed = True
            detail += f", but nothing answers at its URL: {answer.why}"
        self.recorder.check("canary-tag", StepStatus.PASS, detail, kind="traffic")
        return state

    async def _until_it_answers(self, state: TrafficState) -> tuple[TrafficState, TagAnswer]:
        """Wait until the URL of the tag is listed and the canary answers there; return the last state and the last answer."""
        clock = self.services.clock
        deadline = clock.now() + TAG_SECONDS
        answer = TagAnswer(why="the service lists no URL for the tag", reached=False)
        while True:
            url = state.tag_url(self.canary)
            if url is not None:
                answer = await ask_at_tag(self.services.control, url, label="drill.tag.answer")
            if answer.is_of(self.canary) or clock.now() >= deadline:
                return state, answer
            await clock.sleep(LAG_PAUSE)
            if url is None:
                # A read that fails is followed by another one, until the time is over.
                with suppress(PeerError):
                    state = await self.services.traffic.read(label="drill.tag.url")
