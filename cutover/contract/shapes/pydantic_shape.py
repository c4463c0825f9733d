"""Shapes given by a pydantic model. This module does not import pydantic: the model knows how to check."""

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from cutover.contract.findings import Deviation, Severity
from cutover.contract.shapes.places import MAX_UNKNOWN, names_of, path_of, shown, without


@attrs.frozen
class PydanticShape:
    """A shape given by a pydantic model, or by a `TypeAdapter`."""

    model: Any
    tag: str | None = None
    """The field with the kind, which the model must not see; None if it lists that field, or there is none."""
    is_text = False

    def beside(self, tag: str) -> "PydanticShape":
        """Return the same shape for objects that have the field with their kind too."""
        return (
            self
            if getattr(self.model, "model_fields", None) is None or self.has_path((tag,))
            else attrs.evolve(self, tag=tag)
        )

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401
        """Return the first rule that this data breaks; None if the data is right."""
        error = self._error(self._seen(value, text), strict=True)
        return None if error is None else _of_pydantic(error, value)

    def _seen(self, value: Any, text: str) -> str | bytes:  # noqa: ANN401
        """Return the JSON that the model sees."""
        return text if self.tag is None else msgspec.json.encode(without(value, self.tag))

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401
        """Return the paths to the fields that the model ignores. A model that allows more fields knows them all.

        Pydantic tells them from version 2.12 on; before, nothing is known.
        """
        if getattr(self.model, "model_config", {}).get("extra") == "allow":
            return ()
        try:
            errors = self._errors(self._seen(value, text), strict=True, extra="forbid")
        except TypeError:
            return ()
        return tuple("/".join(map(str, each["loc"])) for each in errors if each["type"] == "extra_forbidden")[
            :MAX_UNKNOWN
        ]

    def has_path(self, steps: tuple[str, ...]) -> bool:
        """Return False if the model knows all its fields, and the first name is none of them."""
        fields = getattr(self.model, "model_fields", None)
        if not steps or fields is None or self.model.model_config.get("extra") == "allow":
            return True
        names = {field.serialization_alias or field.alias or name for name, field in fields.items()}
        aliases = {field.validation_alias for field in fields.values() if field.validation_alias is not None}
        return steps[0] in names or steps[0] in fields or bool(aliases)

    def _error(self, text: str | bytes, **options: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
        errors = self._errors(text, **options)
        return next(iter(errors), None)

    def _errors(self, text: str | bytes, **options: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401
        validate = getattr(self.model, "model_validate_json", None) or self.model.validate_json
        try:
            validate(text, **options)
        except ValueError as error:
            tell = getattr(error, "errors", None)
            if tell is None:
                raise
            return list(tell(include_url=False, include_context=False, include_input=False))
        return []


_PYDANTIC_RULES = {
    "missing": ("schema.missing-field", "required"),
    "extra_forbidden": ("schema.unknown-field", None),
    "literal_error": ("schema.unknown-value", "enum"),
    "enum": ("schema.unknown-value", "enum"),
    "union_tag_invalid": ("schema.unknown-value", "enum"),
    "union_tag_not_found": ("schema.missing-field", "required"),
}


def _of_pydantic(error: Mapping[str, Any], value: Any) -> Deviation:  # noqa: ANN401
    """Return the deviation that one error of pydantic tells."""
    sort, message, loc = error["type"], error["msg"], [str(step) for step in error["loc"]]
    rule, keyword = _PYDANTIC_RULES.get(sort, (None, None))
    place, held = path_of(
        "$" + "".join(f".{step}" for step in (loc[:-1] if sort == "missing" else loc)), value
    )
    if sort == "missing":
        return Deviation(
            "schema.missing-field", f"a field {loc[-1]}", names_of(held), path=place, keyword=keyword
        )
    if rule is None:
        is_type = sort.endswith(("_type", "_parsing", "is_instance_of")) or sort in {
            "int_from_float",
            "none_required",
        }
        rule, keyword = ("schema.field-type", "type") if is_type else ("schema.value", None)
    severity = Severity.VIOLATION if sort == "extra_forbidden" else None
    got = shown(place, held)
    return Deviation(
        rule, message[:1].lower() + message[1:], got, severity=severity, path=place, keyword=keyword
    )
