"""Applies converted schemas to values, with jsonschema-rs, which fetches nothing here.

The keyword `CONTENT` is added to it: it decodes a text and applies the schema of the content in place. A second kind of
validator, the advisory one, also asserts `format` and refuses `writeOnly`. Its faults are warnings.
"""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi.conversion import CONTENT, Content, Converted, Schema
from cutover.protocols.openapi.json_text import NotJsonError, decode_base64, decode_json

_ROOT = "#/$defs/"
_FORMATS: Final = frozenset(
    {
        "date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
        "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer", "regex",
    }
)  # fmt: skip
"""Formats that the validator knows. Others, such as int64, say nothing of a text."""


def load_engine() -> Any:  # noqa: ANN401  a module that may be absent
    """Return the module jsonschema_rs.

    Raises:
        OpenApiError: If it is not installed.
    """
    try:
        # Only the extra `openapi` installs it.
        import jsonschema_rs  # noqa: PLC0415
    except ImportError:
        raise OpenApiError(
            "openapi.not-installed",
            "checking a stream by its OpenAPI document needs one more package: pip install 'stream-cutover[openapi]'",
        ) from None
    return jsonschema_rs


class ContentFaultError(ValueError):
    """A text does not hold what its content keywords say."""


@attrs.define(eq=False)
class Validators:
    """The validators of one stream's schemas. Each is built when it is first needed."""

    converted: Converted
    _built: dict[tuple[str, bool], Any] = attrs.field(factory=dict, init=False)
    _engine: Any = attrs.field(factory=load_engine, init=False)

    def of(self, name: str, *, advisory: bool = False) -> Any:  # noqa: ANN401  jsonschema-rs has no common type
        """Return the validator of a schema in `$defs`.

        Raises:
            OpenApiError: If the schema is not valid JSON Schema.
        """
        validator = self._built.get((name, advisory))
        if validator is None:
            validator = self._built[name, advisory] = self.build(
                {"$ref": _ROOT + name}, name, advisory=advisory
            )
        return validator

    def build(self, schema: Mapping[str, Any], name: str, *, advisory: bool = False) -> Any:  # noqa: ANN401
        """Return a validator of a schema whose references lead to `$defs`. `name` is for the message of an error."""
        keywords: dict[str, Any] = {
            CONTENT: lambda _parent, index, _path: _ContentKeyword(self, index, advisory)
        }
        if advisory:
            keywords["writeOnly"] = lambda _parent, _value, _path: _WriteOnlyKeyword()
        try:
            return self._engine.Draft202012Validator(
                {**schema, "$defs": self._reached(schema)},
                validate_formats=advisory,
                keywords=keywords,
                offline=True,
            )
        except (ValueError, self._engine.ReferencingError) as error:
            reason = " ".join(str(error).split())[:300]
            raise OpenApiError(
                "openapi.bad-schema", f"the schema {name} is no JSON Schema: {reason}"
            ) from None

    def _reached(self, schema: Mapping[str, Any]) -> dict[str, Schema]:
        """Return the definitions that a schema reaches. The contents of texts have validators of their own."""
        reached: dict[str, Schema] = {}
        waiting: list[Any] = [schema]
        while waiting:
            node = waiting.pop()
            if isinstance(node, list):
                waiting.extend(node)
            elif isinstance(node, dict):
                reference = node.get("$ref")
                name = reference.removeprefix(_ROOT) if isinstance(reference, str) else ""
                if name in self.converted.defs and name not in reached:
                    reached[name] = self.converted.defs[name]
                    waiting.append(reached[name])
                waiting.extend(node.values())
        return reached

    def has_advice(self, schema: Mapping[str, Any]) -> bool:
        """Return True if a schema, or one that it reaches, has a keyword whose fault is a warning."""
        seen: set[str] = set()
        waiting: list[Any] = [schema]
        while waiting:
            node = waiting.pop()
            if isinstance(node, list):
                waiting.extend(node)
            elif isinstance(node, dict):
                if node.get("writeOnly") is True or node.get("format") in _FORMATS:
                    return True
                reference, content = node.get("$ref"), node.get(CONTENT)
                names = [reference.removeprefix(_ROOT)] if isinstance(reference, str) else []
                if isinstance(content, int):
                    names.append(self.converted.contents[content].schema or "")
                for name in names:
                    if name in self.converted.defs and name not in seen:
                        seen.add(name)
                        waiting.append(self.converted.defs[name])
                waiting.extend(node.values())
        return False

    def content_fault(self, content: Content, text: str, *, advisory: bool = False) -> str | None:
        """Return the keyword that a text breaks: `contentEncoding`, `contentMediaType` or `contentSchema`; None if none."""
        keyword, value = content_value(content, text)
        if keyword is None and content.schema is not None:
            keyword = None if self.of(content.schema, advisory=advisory).is_valid(value) else "contentSchema"
        return keyword


def content_value(content: Content, text: str) -> tuple[str | None, Any]:
    """Return the keyword that a text breaks, if it cannot be decoded, and the decoded value."""
    decoded = decode_base64(text) if content.is_base64 else text
    if decoded is None:
        return "contentEncoding", None
    if content.kind == "text":
        return None, decoded
    try:
        return None, decode_json(decoded)
    except NotJsonError:
        return "contentMediaType", None


class _ContentKeyword:
    """The keyword `CONTENT` of one schema."""

    def __init__(self, validators: Validators, index: int, advisory: bool) -> None:  # noqa: FBT001
        self.validators, self.advisory = validators, advisory
        self.content = validators.converted.contents[index]

    def validate(self, instance: object) -> None:
        """Raise the error if a text does not hold the content."""
        if isinstance(instance, str):
            keyword = self.validators.content_fault(self.content, instance, advisory=self.advisory)
            if keyword is not None:
                raise ContentFaultError(keyword)


class _WriteOnlyKeyword:
    """The keyword `writeOnly` of one schema, in an advisory validator: such a field does not belong in a response."""

    def validate(self, _instance: object) -> None:
        """Raise the error. The conversion keeps no other `writeOnly` than true."""
        raise ContentFaultError("writeOnly")
