"""Shapes given by a function of the decoded data."""

from collections.abc import Callable
from typing import Any

import attrs

from cutover.contract.findings import Deviation
from cutover.contract.foreign import words_of
from cutover.text import printable


@attrs.frozen
class FunctionShape:
    """A shape given by a function of the decoded data, which returns None, or a text about the defect."""

    function: Callable[[Any], object]
    is_text = False

    def beside(self, tag: str) -> "FunctionShape":  # noqa: ARG002
        """Return the same shape: it decides by itself about the field with the kind."""
        return self

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401
        """Return the defect that the function tells; an error that it raises counts as one."""
        name = getattr(self.function, "__name__", "the function")
        try:
            defect = self.function(value)
        except Exception as error:  # noqa: BLE001  it was written for right data, and this may be wrong
            defect = f"it raised {words_of(error)}"
        if defect is None or defect is True:
            return None
        what = f" ({printable(defect)})" if isinstance(defect, str) and defect else ""
        return Deviation("schema.value", f"data that {name} accepts", printable(text) + what, path="/data")

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401, ARG002
        """Return nothing: a function tells no fields."""
        return ()

    def has_path(self, steps: tuple[str, ...]) -> bool:  # noqa: ARG002
        """Return True: a function tells no fields."""
        return True
