"""The plan of the canary's shares: the drill and the promotion give, watch and judge each share by it."""

import attrs


@attrs.frozen(kw_only=True)
class Plan:
    """The plan by which each share is held, watched and judged."""

    stable_revision: str
    canary_revision: str
    canary_soak_seconds: float
    """Seconds for which each share is held and watched."""
    canary_look_seconds: float
    """Longest time in seconds between two looks at every alias while a share is held."""
    canary_max_soak_seconds: float
    """Seconds for which a share is held at most while it is undecided; CANARY_SOAK_SECONDS if that is longer."""
    max_canary_worse_percent: float
    """The share of its turns that the canary must be shown not to fail, in percent."""
    max_canary_slower_percent: float
    """The percentage by which the canary may be slower than stable; 0: the times are not judged."""
    max_broken_streams: int
    canary_tag: str
    """The tag that the canary gets for the time of the step, if ``CanaryEvidence.gives_tag`` says so."""
    accept_blind_drill: bool
    """True: a share may pass although no stream is known to have been answered by the canary."""

    @property
    def longest_soak(self) -> float:
        """The seconds for which a share is held at most."""
        return max(self.canary_soak_seconds, self.canary_max_soak_seconds)
