"""Shapes given by a JSON Schema."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from cutover.contract.findings import Deviation, Severity
from cutover.contract.foreign import words_of
from cutover.contract.paths import json_text, parse_path, sent_text
from cutover.contract.shapes.places import names_of, shown
from cutover.text import escaped, printable


@attrs.frozen
class JsonSchemaShape:
    """A shape given by a JSON Schema."""

    validator: Any
    is_text = False

    def beside(self, tag: str) -> "JsonSchemaShape":  # noqa: ARG002
        """Return the same shape: it decides by itself about the field with the kind."""
        return self

    @classmethod
    def of(cls, schema: Mapping[str, Any] | bool, kind: str) -> "JsonSchemaShape":  # noqa: FBT001  a schema may be a bool
        """Return the shape of a schema.

        Raises:
            ValueError: If the schema is wrong, or refers to another document, or the extra `openapi` is not installed.
        """
        try:
            import jsonschema_rs  # noqa: PLC0415  an extra
        except ImportError as error:
            raise ValueError(
                f"the kind {kind} is declared by a JSON Schema, which needs an extra: pip install 'stream-cutover[openapi]'"
            ) from error
        try:
            return cls(
                jsonschema_rs.Draft202012Validator(
                    schema if isinstance(schema, bool) else dict(schema), offline=True
                )
            )
        except ValueError as error:
            raise ValueError(
                f"the JSON Schema of the kind {kind} cannot be used: {printable(str(error))}"
            ) from error

    def refusal(self, value: Any, text: str) -> Deviation | None:  # noqa: ANN401
        """Return the first rule that this data breaks; None if the data is right."""
        try:
            if self.validator.is_valid(value):
                return None
            return _of_json_schema(next(iter(self.validator.iter_errors(value))), text)
        except ValueError as error:
            # Lone surrogates are JSON, and jsonschema-rs takes none.
            got = f"{shown('/data', value, text)} ({words_of(error)})"
            return Deviation("schema.value", "data that a JSON Schema can describe", got, path="/data")

    def unknown_fields(self, value: Any, text: str) -> tuple[str, ...]:  # noqa: ANN401, ARG002
        """Return nothing: a schema refuses the fields that it does not allow."""
        return ()

    def has_path(self, steps: tuple[str, ...]) -> bool:  # noqa: ARG002
        """Return True: most schemas allow more fields than they list."""
        return True


_KEYWORD_RULES = {
    "required": "schema.missing-field",
    "dependentRequired": "schema.missing-field",
    "type": "schema.field-type",
    "enum": "schema.unknown-value",
    "const": "schema.unknown-value",
    "additionalProperties": "schema.unknown-field",
    "unevaluatedProperties": "schema.unknown-field",
}
_TAGS = frozenset({"const", "enum"})
"""Keywords that say that data belongs to another branch of a union."""


def _of_json_schema(error: Any, text: str) -> Deviation:  # noqa: ANN401  jsonschema_rs.ValidationError
    """Return the deviation that one error of jsonschema-rs tells.

    Of a union, tell the error of the one branch whose tags and fields fit; if several fit, or none, tell that no branch does.
    """
    keyword = str(error.schema_path[-1]) if error.schema_path else "false"
    branches = getattr(error.kind, "context", None) or ()
    fitting = [
        errors for errors in branches if not any(str(each.schema_path[-1]) in _TAGS for each in errors)
    ]
    if keyword in {"oneOf", "anyOf"} and len(fitting) == 1:
        return _of_json_schema(fitting[0][0], text)
    rule = _KEYWORD_RULES.get(keyword, "schema.value")
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path]
    path = "/".join(("/data", *steps))
    held = error.instance
    match keyword:
        case "type":
            wanted, got = " or ".join(error.kind.types), shown(path, held, text)
        case "required":
            wanted, got = f"a field {error.kind.property}", names_of(held)
        case "additionalProperties" | "unevaluatedProperties":
            wanted, got = "only known fields", escaped(", ".join(error.kind.unexpected))
        case "enum" | "const":
            wanted, got = printable(json_text(error.kind.value)), shown(path, held, text)
        case _:
            wanted = f"a value that the keyword {keyword} allows"
            # The message begins with the value, as a float if it is a long integer.
            decoded = json.dumps(held, ensure_ascii=False, separators=(",", ":"))
            why = error.message.removeprefix(decoded)
            sent = sent_text(text, parse_path(path)[1:], held) if why != error.message else ""
            got = f"{path}: {sent}{why}"
    severity = Severity.VIOLATION if rule == "schema.unknown-field" else None
    return Deviation(rule, printable(wanted), printable(got), severity=severity, path=path, keyword=keyword)
