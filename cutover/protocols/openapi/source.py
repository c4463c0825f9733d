"""Reads an OpenAPI document: text or a mapping in, plain JSON values out.

A document may come from anybody, so reading is bounded: an alias that stands for a million values, nesting without an end
and a key that is no string are refused or mended here, once. All other modules of this package see only dicts with string
keys, lists, strings, numbers, booleans and None.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from cutover.errors import OpenApiError

MAX_DEPTH = 150
"""Most levels of nesting in a document. Real ones have fewer than fifty."""
MAX_VALUES = 1_000_000
"""Most values in a document, with each alias written out. The largest public documents have about 200,000."""
_SYNTAX = "openapi.syntax"


def read_document(source: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    """Return the document as plain JSON values. The result shares nothing with a mapping that was given.

    Text that begins with a brace is read as JSON, all other text as YAML 1.2. A key that is no string becomes one
    (`200:` is "200"); a timestamp stays a string.

    Raises:
        OpenApiError: If the text is neither, if the document is no object, or if it exceeds a bound.
    """
    value: Any = source
    if isinstance(source, bytes):
        try:
            source = source.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise OpenApiError(_SYNTAX, f"the document is not UTF-8: {error}; save it as UTF-8") from None
    if isinstance(source, str):
        value = _parse(source.removeprefix("\ufeff"))
    if not isinstance(value, Mapping):
        raise OpenApiError(
            _SYNTAX, "the document is not an object; give the text of an OpenAPI document, not its path"
        )
    copied: dict[str, Any] = plain_copy(value)
    return copied


def plain_copy(value: object) -> Any:  # noqa: ANN401  JSON is anything
    """Return a deep copy of a value in which all keys are strings.

    Raises:
        OpenApiError: If the value is no JSON, is nested too deep, or is too large.
    """
    return _copy(value, 0, [MAX_VALUES])


def _parse(text: str) -> object:
    """Return the value of a JSON or YAML text."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise OpenApiError(_SYNTAX, "the document is nested too deep") from None
        except OpenApiError:
            raise
        except ValueError as error:
            # A flow mapping of YAML begins with a brace, too.
            try:
                return _parse_yaml(text)
            except OpenApiError:
                raise OpenApiError(_SYNTAX, f"the document is not JSON: {error}") from None
    return _parse_yaml(text)


def _refuse_constant(constant: str) -> NoReturn:
    """Raise the error for a constant that Python accepts and JSON does not have."""
    raise OpenApiError(_SYNTAX, f"the document is not JSON: it holds {constant}")


def _parse_yaml(text: str) -> object:
    """Return the value of a YAML 1.2 text."""
    try:
        # The package is needed for YAML alone, and only the extra `openapi` installs it.
        from ruamel.yaml import YAML  # noqa: PLC0415
        from ruamel.yaml.constructor import SafeConstructor  # noqa: PLC0415
        from ruamel.yaml.error import YAMLError  # noqa: PLC0415
    except ImportError:
        raise OpenApiError(
            _SYNTAX,
            "the document is not JSON, and YAML needs one more package: pip install 'stream-cutover[openapi]'",
        ) from None

    class TextConstructor(SafeConstructor):
        """Leaves timestamps as they are written: JSON has none."""

    TextConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = TextConstructor
    try:
        return yaml.load(text)
    except RecursionError:
        raise OpenApiError(_SYNTAX, "the document is nested too deep") from None
    except (YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise OpenApiError(_SYNTAX, f"the document is neither JSON nor YAML: {reason}") from None


def _copy(value: object, depth: int, left: list[int]) -> Any:  # noqa: ANN401
    """Return the copy of a value at this depth. `left` holds the number of values that may still come."""
    left[0] -= 1
    if left[0] < 0:
        raise OpenApiError(_SYNTAX, f"the document holds more than {MAX_VALUES} values, aliases written out")
    if depth > MAX_DEPTH:
        raise OpenApiError(_SYNTAX, f"the document is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key): _copy(member, depth + 1, left) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(member, depth + 1, left) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise OpenApiError(_SYNTAX, f"the document holds a {type(value).__name__}, which JSON does not have")


def _key(key: object) -> str:
    """Return a key as JSON has it."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return str(json.dumps(key))
    raise OpenApiError(_SYNTAX, f"a key is a {type(key).__name__}; keys are strings")
