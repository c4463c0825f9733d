"""The declaration of one input: its default, its help, the parser of its text, and the rule that its value must keep.

An input is one field of ``CutoverConfig``, made by one of the functions here::

    canary_soak_seconds: float = number_field(default=30.0, most=86_400, help="how long each share is held and watched")

The variable, the option, the key of the file, ``--help`` and ``--show-config`` all follow from it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs

from cutover.config import values
from cutover.config.values import Rule

_T = TypeVar("_T")
_KEY = "cutover"
"""The key of an attrs field's metadata that holds its ``Input``."""
_LARGEST_COUNT = 10**12
"""Largest whole number that a file may hold. A larger one is surely a mistake."""


def _no_toml_value(_: object) -> object:
    raise ValueError


def _flag_from_toml(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004  readers raise ValueError alone
    return value


def _number_from_toml(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError  # noqa: TRY004
    try:
        return float(value)
    except OverflowError:
        raise ValueError from None


def _count_from_toml(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_COUNT:
        raise ValueError
    return value


def _steps_from_toml(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004
    return tuple(_count_from_toml(percent) for percent in value)


def _holds_from_toml(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004
    return tuple(place if isinstance(place, str) else str(_count_from_toml(place)) for place in value)


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of input: it reads the text of a variable or an option, and a value of a TOML file."""

    parse: Callable[[str], object]
    """Parser of a text, also of a text in a TOML file. For a wrong text it raises ValueError, whose message says the right form."""
    from_toml: Callable[[object], object] = _no_toml_value
    """Parser of a TOML value that is not a text. For a wrong value it raises ValueError."""
    in_file: str = "text in quotes"
    """The right form in a TOML file, in words, for messages."""
    empty_is_unset: bool = False
    """True where an empty text counts as not set. An empty flag or number is an error."""


FLAG = Kind(parse=values.parse_flag, from_toml=_flag_from_toml, in_file="true or false")
NUMBER = Kind(parse=values.parse_number, from_toml=_number_from_toml, in_file="a number")
COUNT = Kind(parse=values.parse_count, from_toml=_count_from_toml, in_file="a whole number, 0 or more")
STEPS = Kind(
    parse=values.parse_steps, from_toml=_steps_from_toml, in_file="whole percents like [5, 25, 50, 100]"
)
HOLDS = Kind(
    parse=values.parse_holds,
    from_toml=_holds_from_toml,
    in_file='whole percents and names like [25, 100, "flip"]',
    empty_is_unset=True,
)
URL = Kind(parse=values.parse_url, empty_is_unset=True)
TEXT = Kind(parse=str, empty_is_unset=True)
TEXT_OR_NONE = Kind(parse=str)
PATH = Kind(parse=Path, empty_is_unset=True)


@attrs.frozen(kw_only=True)
class Input:
    """One input: a variable, a key of ``cutover.toml`` and an option. A secret has the variable only."""

    field: str = ""
    """The field of ``CutoverConfig``, and the key of the file."""
    help: str
    kind: Kind
    rule: Rule
    """Returns the reason why a value is wrong; an empty text if it is right."""
    default: object = None
    secret: bool = False
    token: bool = False
    """True for a secret that a rehearsal does not take."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return self.field.upper()

    @property
    def option(self) -> str:
        """The option of ``cutover run``. A secret has no option, so this name is not used for a secret."""
        return "--" + self.field.replace("_", "-")


def written(value: object) -> str:
    """Return a value as a user would write it in a variable."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case float():
            return f"{value:.15g}"
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def _field(
    default: _T,
    kind: Kind,
    rule: Rule,
    description: str,
    *,
    converter: Callable[[Any], _T] | None = None,
    secret: bool = False,
    token: bool = False,
) -> _T:
    declared = Input(help=description, kind=kind, rule=rule, default=default, secret=secret, token=token)
    convert = None if converter is None else _unless_wrong_type(converter)
    field: _T = attrs.field(default=default, converter=convert, repr=not secret, metadata={_KEY: declared})
    return field


def _unless_wrong_type(converter: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """Return a converter that leaves a value of the wrong type as it is; the input's rule then refuses it by name."""

    def convert(value: Any) -> Any:  # noqa: ANN401
        try:
            return converter(value)
        except (AttributeError, TypeError):
            return value

    return convert


def flag_field(*, default: bool, help: str) -> bool:  # noqa: A002  the word that click uses
    """Declare an input that is 0 or 1."""
    return _field(default, FLAG, values.flag, help)


def number_field(*, default: _T, most: float, above: bool = False, help: str) -> _T:  # noqa: A002
    """Declare an input that is a number from 0 to ``most``; ``above=True`` refuses 0."""
    return _field(default, NUMBER, values.number(most=most, above=above, optional=default is None), help)


def count_field(*, default: int = 0, most: float = 1e9, help: str) -> int:  # noqa: A002
    """Declare an input that is a whole number from 0 to ``most``."""
    return _field(default, COUNT, values.count(most=most), help)


def url_field(*, default: str = "", rule: Rule = values.url, help: str) -> str:  # noqa: A002
    """Declare an input that is the address of a service."""
    return _field(default, URL, rule, help, converter=values.parse_url)


def text_field(*, default: str = "", rule: Rule = values.text, help: str) -> str:  # noqa: A002
    """Declare an input that is a text."""
    return _field(default, TEXT, rule, help)


def optional_text_field(*, default: str, rule: Rule = values.text, help: str) -> str:  # noqa: A002
    """Declare an input that is a text, where an empty text is a value of its own and not the default."""
    return _field(default, TEXT_OR_NONE, rule, help)


def token_field(*, help: str) -> str:  # noqa: A002
    """Declare a token: no option and no file may hold it, and no output shows it. Its ``_file`` and its ``_command`` are inputs too."""
    return _field("", TEXT, values.token, help, secret=True, token=True)


def secret_field(*, rule: Rule, help: str) -> str:  # noqa: A002
    """Declare another secret, such as a key or an address that nobody else may know: no option and no key of the file may hold it.

    Its ``_file`` and its ``_command`` are inputs too.
    """
    return _field("", TEXT, rule, help, secret=True)


def token_file_field(variable: str) -> str:
    """Declare the file that holds a token. Its path is no secret."""
    return secret_file_field(variable, again="; read again when the token expires or is refused")


def token_command_field(variable: str) -> str:
    """Declare the command that prints a token. The command is no secret."""
    return secret_command_field(
        variable,
        again=', bare or as {"token": ..., "expiration": ...}; run again when the token expires or is refused',
    )


def secret_file_field(variable: str, *, again: str = "") -> str:
    """Declare the file that holds a secret. Its path is no secret."""
    return text_field(rule=values.path, help=f"file with {variable}{again}")


def secret_command_field(variable: str, *, again: str = "") -> str:
    """Declare the command that prints a secret. The command is no secret."""
    return text_field(rule=values.command, help=f"command that prints {variable}{again}")


def steps_field(*, default: tuple[int, ...], help: str) -> tuple[int, ...]:  # noqa: A002
    """Declare an input that is a list of rising percents."""
    return _field(default, STEPS, values.steps, help, converter=tuple)


def holds_field(*, help: str) -> tuple[str, ...]:  # noqa: A002
    """Declare an input that is a list of places where the train waits for a decision; empty by default."""
    return _field((), HOLDS, values.holds, help, converter=tuple)


def path_field(*, default: Path | None = None, help: str) -> Path | None:  # noqa: A002
    """Declare an input that is the path of a file or folder."""
    return _field(default, PATH, values.path, help, converter=attrs.converters.optional(Path))


def inputs_of(settings: type[attrs.AttrsInstance]) -> tuple[Input, ...]:
    """Return the inputs that a class declares, in the order of its fields."""
    return tuple(
        attrs.evolve(field.metadata[_KEY], field=field.name)
        for field in attrs.fields(settings)
        if _KEY in field.metadata
    )
