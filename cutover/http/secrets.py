"""The secrets of a run, and how they are masked in every response."""

from collections.abc import Mapping

import attrs

from cutover.text import CUT

_SECRET_WORDS = ("token", "secret", "key", "cookie", "session", "password")
"""Words in the name of a header that suggest that its value is a secret."""
SHORTEST_SECRET = 4
"""Characters of the shortest secret that is masked. To mask a shorter one would hide most of the evidence."""


@attrs.define(eq=False)
class Secrets:
    """The secrets of a run. Each response is masked with them before anything is stored or shown.

    A secret with fewer than ``SHORTEST_SECRET`` characters is not masked.
    """

    values: tuple[str, ...] = attrs.field(default=(), repr=False)

    def add(self, value: str) -> None:
        """Mask one more secret from now on, such as a token that the run received later."""
        if value not in self.values:
            self.values = (*self.values, value)

    def mask(self, data: bytes) -> bytes:
        """Return the data with each secret of at least ``SHORTEST_SECRET`` characters replaced by as many asterisks."""
        for value in self._long_enough():
            secret = value.encode()
            data = data.replace(secret, b"*" * len(secret))
        return data

    def mask_text(self, text: str) -> str:
        """Return the text with each secret replaced by asterisks, also a secret that `printable` has cut short."""
        for value in self._long_enough():
            text = text.replace(value, "*" * len(value))
            for size in range(len(value) - 1, SHORTEST_SECRET - 1, -1):
                text = text.replace(f"{value[:size]}{CUT}", "*" * size + CUT)
        return text

    def _long_enough(self) -> list[str]:
        return sorted(
            (value for value in self.values if len(value) >= SHORTEST_SECRET), key=len, reverse=True
        )


def secrets_of(headers: Mapping[str, str]) -> Secrets:
    """Return the secrets in a request's headers: the credentials, and values of headers whose name suggests a secret."""
    credentials = [
        value.split(" ", 1)[-1] for name, value in headers.items() if name.lower() == "authorization"
    ]
    return Secrets((*credentials, *(value for name, value in headers.items() if holds_secret(name))))


def holds_secret(header: str) -> bool:
    """Return True if the name of a header suggests that its value is a secret."""
    return any(word in header.lower() for word in _SECRET_WORDS)
