"""Shapes given by a pydantic model. This module does not import pydantic: the model knows how to check."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from cutover.contract.findings import Deviation, Severity
from cutover.contract.foreign import words_of
from cutover.contract.paths import MISSING, value_at
from cutover.contract.shapes.places import MAX_UNKNOWN, names_of, pointer_to, shown, without
from cutover.text import printable


@attrs.frozen
class PydanticShape:
    """A shape given by a pydantic model, or by a `TypeAdapter`."""

    model: Any
    tag: str | None = None
    """The field with the kind, which the model may leave out; None if the kind stands elsewhere."""
    is_text = False

    def beside(self, tag: str) -> "PydanticShape":
        """Return the same shape for objects that have the field with their kind too."""
        return attrs.evolve(self, tag=tag)

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401
        """Return the first rule that this data breaks; None if the data is right."""
        try:
            errors = self._errors(text, strict=True)
            if any(self._is_about_tag(each) for each in errors):
                errors = self._errors(json.dumps(without(value, self.tag)), strict=True)
        except Exception as error:  # noqa: BLE001  a validator of the owner's
            raised = f"{shown('/data', value, text)} ({words_of(error)})"
            return Deviation("schema.value", "data that its validators accept", raised, path="/data")
        return _of_pydantic(errors[0], value, text) if errors else None

    def _is_about_tag(self, error: Mapping[str, Any]) -> bool:
        """Return True if an error says that the model does not list the field with the kind. A union adds its branch before it."""
        *around, last = error["loc"] or ("",)
        return error["type"] == "extra_forbidden" and last == self.tag and len(around) < 2  # noqa: PLR2004

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401
        """Return the paths to the fields that the model ignores. A model that allows more fields knows them all.

        Pydantic tells them from version 2.12 on; before, nothing is known.
        """
        if getattr(self.model, "model_config", {}).get("extra") == "allow":
            return ()
        try:
            errors = self._errors(text, strict=True, extra="forbid")
        except Exception:  # noqa: BLE001  an older pydantic, or a validator of the owner's
            return ()
        # Of a union of several models nothing is known: the place then names one of them, and leads to no value.
        places = [tuple(map(str, each["loc"])) for each in errors if each["type"] == "extra_forbidden"]
        known = ["/".join(place) for place in places if value_at(value, place) is not MISSING]
        return tuple(name for name in known if name != self.tag)[:MAX_UNKNOWN]

    def has_path(self, steps: tuple[str, ...]) -> bool:
        """Return False if the model knows all its fields, and the first name is none of them."""
        fields = getattr(self.model, "model_fields", None)
        if not steps or fields is None or self.model.model_config.get("extra") == "allow":
            return True
        names = {field.serialization_alias or field.alias or name for name, field in fields.items()}
        aliases = [field.validation_alias for field in fields.values()]
        # An alias that is no text is a path, or a choice of several names.
        return (
            steps[0] in {*names, *fields}
            or steps[0] in aliases
            or any(not isinstance(alias, str | None) for alias in aliases)
        )

    def _errors(self, text: str, **options: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401
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


def _of_pydantic(error: Mapping[str, Any], value: Any, text: str) -> Deviation:  # noqa: ANN401
    """Return the deviation that one error of pydantic tells."""
    sort, message, loc = error["type"], error["msg"], [str(step) for step in error["loc"]]
    rule, keyword = _PYDANTIC_RULES.get(sort, (None, None))
    place, held = pointer_to(loc[:-1] if sort == "missing" else loc, value)
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
    got = shown(place, held, text)
    return Deviation(rule, _wanted(sort, message), got, severity=severity, path=place, keyword=keyword)


def _wanted(sort: str, message: str) -> str:
    """Return the content that a message of pydantic asks for."""
    if sort == "extra_forbidden":
        return "only known fields"
    for prefix in ("Input should be ", "Value error, ", "Assertion failed, "):
        if message.startswith(prefix):
            return printable(message.removeprefix(prefix))
    thing, should, what = message.partition(" should ")
    words = f"{thing} that should {what}" if should else message
    return printable(words[:1].lower() + words[1:])
