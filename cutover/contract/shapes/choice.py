"""The shapes of chunks: what the data of one kind of chunk must be, in any of the ways in which a team has written it down already.

| you have | it is | what is checked |
|---|---|---|
| `msgspec.Struct`, dataclass, attrs class, `TypedDict`, `Literal`, `int`, unions | a type | by msgspec, strictly: "1" is no integer |
| a pydantic model or `TypeAdapter` | a model | by pydantic in its strict mode for JSON |
| a `dict` or a bool | a JSON Schema (2020-12) | by jsonschema-rs (extra `openapi`), without any fetching |
| a function | a function of the decoded data | it returns None, or a text about the defect |
| `ANYTHING`, `TEXT` | one of two marks | any JSON; any text, also such that is not JSON |

A shape gives at most one refusal for one event: the first defect that its library reports.
"""

import functools
import types
from collections.abc import Mapping
from typing import Any

import msgspec

from cutover.contract.shapes.function_shape import FunctionShape
from cutover.contract.shapes.pydantic_shape import PydanticShape
from cutover.contract.shapes.schema_shape import JsonSchemaShape
from cutover.contract.shapes.shape import Shape
from cutover.contract.shapes.type_shape import TypeShape, closed_names, known_names


def shape_of(thing: object, kind: str) -> Shape:
    """Return the shape that a type, a model, a schema or a function stands for.

    Raises:
        ValueError: If the thing is none of these; the message names the kind.
    """
    if all(hasattr(thing, name) for name in ("refusal", "unknown_fields", "has_path")):
        shape: Any = thing
        return shape  # type: ignore[no-any-return]
    if isinstance(thing, Mapping | bool):
        return JsonSchemaShape.of(thing, kind)
    if hasattr(thing, "model_validate_json") or hasattr(thing, "validate_json"):
        return PydanticShape(thing)
    if isinstance(
        thing, types.FunctionType | types.MethodType | types.BuiltinFunctionType | functools.partial
    ):
        # A fast way for most functions. Objects that can be called come below, because some types can be called too.
        return FunctionShape(thing)
    try:
        msgspec.json.Decoder(thing)
        information = msgspec.inspect.type_info(thing)
    except (TypeError, NameError) as error:
        if callable(thing) and not isinstance(thing, type):
            return FunctionShape(thing)
        raise _no_shape(thing, kind, f"which is no type that msgspec takes ({error})") from error
    if isinstance(information, msgspec.inspect.CustomType):
        raise _no_shape(thing, kind, "a class whose fields are not declared")
    return TypeShape(thing, known_names(information), closed_names(information))


def _no_shape(thing: object, kind: str, why: str) -> ValueError:
    """Return the error for something that stands for no shape."""
    give = "give a type, a pydantic model, a JSON Schema, a function, ANYTHING or TEXT"
    return ValueError(f"the kind {kind} is declared by {thing!r}, {why}; {give}")
