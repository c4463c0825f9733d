"""The evidence that can tell a train that the canary answered a stream; the preflight finds out which of it exists.

Nothing in a response of this lane names a revision. Two things can tell who answered: a response header that the operator has the
front door add (REVISION_HEADER), and the URL of a traffic tag, which leads to one revision alone. A tag URL is evidence only if
something answers there, and if no header says that another revision did: a new tag may lag.
"""

from collections.abc import Collection

import attrs

from cutover.errors import NoAnswerError, PeerError, RefusedError
from cutover.model.traffic_state import TrafficState
from cutover.production.routes.control_plane import ControlPlane
from cutover.production.services import Services
from cutover.train.stream_proof import LAG_PAUSE, LAG_SECONDS

TAG_SECONDS = 30.0
"""Seconds within which the URL of a new tag must be listed, and must answer."""
WAYS_TO_SEE_CANARY = (
    "Do one of these: let the front door name the revision in a response header, and set REVISION_HEADER to the name of that header; "
    "give the canary a tag whose URL answers from this machine; set ACCEPT_BLIND_DRILL=1 to drill without this evidence"
)
"""The things that an operator can do where nothing shows whether the canary answers."""
LONGEST_TAG_AND_SERVICE = 46
"""Largest number of characters of a tag and the service's name together: Cloud Run refuses more."""
_BEFORE_THE_SERVICE = frozenset({403, 404})
"""Statuses with which Cloud Run itself answers at a URL that it does not serve from here, besides redirects."""
_REDIRECTS = range(300, 400)


@attrs.frozen(kw_only=True)
class CanaryEvidence:
    """The evidence that exists before the drill."""

    header: bool = False
    """True if a header named stable in real answers of the front door, and nobody else."""
    tag: bool = False
    """True if the canary has a tag whose URL answers, and no header says that another revision answers there."""
    gives_tag: bool = False
    """True if the drill gives the canary a tag."""
    closed: frozenset[str] = frozenset()
    """The revisions that have a tag URL which leads to no instance from here. The drill does not probe them there."""
    detail: str = ""
    """The evidence and its gaps, in words."""

    @property
    def exists(self) -> bool:
        """True if something tells that the canary answers, or will tell it once the canary has a tag."""
        return self.header or self.tag or self.gives_tag

    def facts(self) -> dict[str, object]:
        """Return the evidence, ready for JSON."""
        return {
            "header": self.header,
            "tag": self.tag,
            "gives_tag": self.gives_tag,
            "closed": sorted(self.closed),
        }


@attrs.frozen(kw_only=True)
class TagAnswer:
    """The answer to one read of the route-split status at a tag URL. The read starts no chat turn."""

    why: str = ""
    """The reason why no route state came; empty if one came."""
    reached: bool = True
    """False if the URL leads to no instance from here. True also if an instance answered with an error."""
    revision: str | None = None
    """The revision that answered, by the header."""

    def is_of(self, revision: str) -> bool:
        """Return True if a route state came, and no header says that it came from another revision."""
        return not self.why and self.revision in {None, revision}


async def ask_at_tag(control: ControlPlane, url: str, *, label: str) -> TagAnswer:
    """Read the route-split status at a tag URL; return the answer."""
    try:
        reply = await control.at(url).read_status(label=label)
    except RefusedError as error:
        outside = error.status in _BEFORE_THE_SERVICE or error.status in _REDIRECTS
        return TagAnswer(why=str(error), reached=not outside)
    except NoAnswerError as error:
        return TagAnswer(why=str(error), reached=False)
    except PeerError as error:
        # A page instead of a route state: somebody in front of the service answers.
        return TagAnswer(why=str(error), reached=False)
    return TagAnswer(revision=reply.revision)


def names_others(header: str | None, named: Collection[str], *, stable: str) -> str:
    """Return the reason why a header is no evidence, and the thing to do; an empty text if it names stable alone.

    Stable serves everything here. With such a header no step could be judged, and no rollback proven.

    Args:
        header: The name of the header.
        named: The names in the header of the answers of the front door.
        stable: The revision that serves everything.
    """
    others = ", ".join(sorted(set(named) - {stable}))
    if not others:
        return ""
    return (
        f"the header {header} (REVISION_HEADER) names {others}, although {stable} serves everything: correct the header or REVISION_HEADER, "
        "or leave it empty; if the header is right, find out why the front door still leads there"
    )


@attrs.frozen(kw_only=True)
class _TagFinding:
    """The part that a tag of the canary plays."""

    answers: bool = False
    is_given: bool = False
    """True if the drill gives the canary a tag."""
    detail: str
    holder: str | None = None
    """Another revision that has the tag which the drill would give."""


@attrs.define(eq=False, kw_only=True)
class EvidenceSearch:
    """The search for evidence before the first change."""

    stable: str
    canary: str
    canary_tag: str
    """The tag that the drill may give the canary; empty: it gives none."""
    service: str
    services: Services
    traffic: TrafficState
    """The captured traffic: stable serves everything."""
    revisions: tuple[str | None, ...]
    """The revisions that answered the status reads at the front door, by the header."""
    label: str
    closed: dict[str, str] = attrs.field(factory=dict)
    """Revision -> the reason why its tag URL leads to no instance from here."""

    async def find(self) -> tuple[CanaryEvidence, str | None]:
        """Return the evidence; also the revision that has the tag which the drill would give the canary, if there is one."""
        header, about_header = self._header(self.revisions)
        tag = await self._tag(header=header)
        if not header and not tag.answers and self.header_name and set(self.revisions) <= {None}:
            # The front door may set the header on streams alone. This costs one chat turn.
            prober = self.services.prober
            probe = await prober.probe(prober.aliases[0], label=self.label)
            header, about_header = self._header((prober.revision(probe),))
        evidence = CanaryEvidence(
            header=header,
            tag=tag.answers,
            gives_tag=tag.is_given,
            closed=frozenset(self.closed),
            detail=f"{tag.detail}; {about_header}",
        )
        return evidence, tag.holder

    @property
    def header_name(self) -> str | None:
        """The name of the response header that names the revision; None if REVISION_HEADER is not set."""
        return self.services.prober.revision_header

    def _header(self, revisions: tuple[str | None, ...]) -> tuple[bool, str]:
        """Return True if these answers of the front door named stable alone; also return that in words."""
        if self.header_name is None:
            return False, "REVISION_HEADER is not set"
        named = {name for name in revisions if name}
        if not named:
            return False, f"no answer of the front door has the header {self.header_name} (REVISION_HEADER)"
        if why := names_others(self.header_name, named, stable=self.stable):
            return False, why
        return True, f"the header {self.header_name} names the revision that answered"

    async def _tag(self, *, header: bool) -> "_TagFinding":
        """Find out what a tag of the canary can tell. ``header`` is True if a header tells as well."""
        if (stable_url := self.traffic.tag_url(self.stable)) is not None:
            await self._ask(self.stable, stable_url)
        if (url := self.traffic.tag_url(self.canary)) is not None:
            answer = await self._ask(self.canary, url, patient=not header)
            return _TagFinding(answers=answer.is_of(self.canary), detail=self._describe(url, answer))
        if self.traffic.tags_of(self.canary):
            return _TagFinding(detail="the canary's tag has no URL yet")
        return self._new_tag()

    def _new_tag(self) -> "_TagFinding":
        """Find out if the drill can give the canary a tag."""
        if not self.canary_tag:
            return _TagFinding(detail="the canary has no tag, and CANARY_TAG is empty")
        length = len(self.canary_tag) + len(self.service)
        if length > LONGEST_TAG_AND_SERVICE:
            return _TagFinding(
                detail=f"the canary has no tag, and CANARY_TAG {self.canary_tag} is too long: with the service's name it has "
                f"{length} characters, and Cloud Run allows {LONGEST_TAG_AND_SERVICE}"
            )
        if why := self.traffic.tag_urls_closed or next(iter(self.closed.values()), ""):
            return _TagFinding(detail=f"the canary has no tag, and no tag URL answers: {why}")
        if holder := self.traffic.holder_of_tag(self.canary_tag):
            return _TagFinding(detail="the canary has no tag", holder=holder)
        return _TagFinding(
            is_given=True, detail=f"the drill gives the canary the tag {self.canary_tag} at 0 %"
        )

    async def _ask(self, revision: str, url: str, *, patient: bool = False) -> TagAnswer:
        """Ask at a tag URL; if ``patient``, ask again while a header says that another revision answers, because a tag may lag."""
        role = "canary" if revision == self.canary else "stable"
        clock = self.services.clock
        deadline = clock.now() + LAG_SECONDS
        while True:
            answer = await ask_at_tag(self.services.control, url, label=f"{self.label}.{role}")
            if not patient or answer.why or answer.is_of(revision) or clock.now() >= deadline:
                break
            await clock.sleep(LAG_PAUSE)
        if not answer.reached:
            self.closed[revision] = self._with_ingress(answer.why)
        return answer

    def _with_ingress(self, why: str) -> str:
        """Return the reason why a tag URL does not answer, with the setting of the service that explains it, if there is one."""
        setting = self.traffic.tag_urls_closed
        return f"{why} ({setting})" if setting else why

    def _describe(self, url: str, answer: TagAnswer) -> str:
        if answer.why:
            return f"the canary's tag URL {url} does not answer: {self._with_ingress(answer.why)}"
        if not answer.is_of(self.canary):
            return f"{answer.revision} answers at the canary's tag URL {url}"
        return f"the canary answers at its tag URL {url}"
