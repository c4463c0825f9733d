"""The tokens of a run, masked in everything that comes back."""

import attrs

from cutover.text import CUT

SHORTEST_SECRET = 4
"""A shorter text is not masked: it would black out half of the evidence and hide nothing."""


@attrs.define(eq=False)
class Secrets:
    """The tokens of a run, known here so that they can be masked in whatever comes back."""

    values: tuple[str, ...] = attrs.field(default=(), repr=False)

    def add(self, value: str) -> None:
        """Mask one more from now on: a token that a run was handed on its way."""
        if value not in self.values:
            self.values = (*self.values, value)

    def mask(self, data: bytes) -> bytes:
        """Blank out every secret at equal length, so that offsets hold."""
        for value in self._worth_masking():
            secret = value.encode()
            data = data.replace(secret, b"*" * len(secret))
        return data

    def mask_text(self, text: str) -> str:
        """Blank out every secret at equal length, and what `printable` left of one where it cut the text."""
        for value in self._worth_masking():
            text = text.replace(value, "*" * len(value))
            for size in range(len(value) - 1, SHORTEST_SECRET - 1, -1):
                text = text.replace(f"{value[:size]}{CUT}", "*" * size + CUT)
        return text

    def _worth_masking(self) -> list[str]:
        return sorted(
            (value for value in self.values if len(value) >= SHORTEST_SECRET), key=len, reverse=True
        )
