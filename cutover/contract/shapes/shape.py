"""The protocol of a shape, and the two shapes that accept everything."""

from typing import Any, Final, Protocol

import attrs

from cutover.contract.findings import Deviation


class Shape(Protocol):
    """A shape tells right data of a kind of chunk from wrong data."""

    @property
    def is_text(self) -> bool:
        """Return True if the data is not decoded from JSON."""

    def beside(self, tag: str) -> "Shape":
        """Return the same shape for objects that have the field with their kind too, although the shape may not list it.

        Args:
            tag: The name of the field.
        """

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401  JSON is anything
        """Return the first rule that this data breaks; None if the data is right.

        Args:
            value: The decoded data.
            text: The data itself.
        """

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401
        """Return the paths to fields of this right data that the shape does not know, such as `item/extra`."""

    def has_path(self, steps: tuple[str, ...]) -> bool:
        """Return False if no data of this shape has a value at these names; True if it may have one."""


@attrs.frozen
class _Mark:
    """A shape that accepts everything."""

    name: str
    is_text: bool

    def beside(self, tag: str) -> Shape:  # noqa: ARG002
        return self

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401, ARG002
        return None

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401, ARG002
        return ()

    def has_path(self, steps: tuple[str, ...]) -> bool:
        return not (self.is_text and steps)

    def __repr__(self) -> str:
        return self.name


ANYTHING: Final = _Mark("ANYTHING", is_text=False)
"""The shape of a chunk whose data may be any JSON."""
TEXT: Final = _Mark("TEXT", is_text=True)
"""The shape of a chunk whose data may be any text. It is not decoded, so only the event's name can say its kind."""
