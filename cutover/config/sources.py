"""The sources of an input's value: an option, else a variable, else ``cutover.toml``, else the default.

The problems of all sources are collected, so that a user sees all of them at once, each by the name that the user typed.

The library ``typed-settings`` was tried for this (version 26.0) and is not used. It converts a value without knowing its source, shows
the value of a secret in its errors, checks rules across fields only once every value is right, stops at an unknown key before it reads any
value, takes secrets from files, and adds 40 % to the time that the command takes to start. Only its merge of the sources would be
useful here, and ``Reading._candidates`` already does that.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from cutover.config.files import read_file
from cutover.config.inputs import Input, written
from cutover.text import printable

FILE = Path("cutover.toml")
"""The file that ``cutover run`` reads where it exists and ``--config`` names no other."""
_SIMILARITY = 0.9
"""The similarity from which a variable counts as a mistyped input: one letter missing, doubled, or in the other case. Swapped letters count too."""
_COMMON_NAMES = frozenset(
    {"PROJECT", "REGION", "SERVICE", "AUTH_TOKEN", "AUTH_TOKEN_FILE", "AUTH_TOKEN_COMMAND"}
)
"""Variables with common names: a similar name may belong to another program, so it does not count as mistyped."""
_COMMON_BEGINNINGS = frozenset({"ALLOW_INSECURE", "THREAD_ID"})
"""Names of other programs that are also the name of an input without its last word. Another such name, as NOTIFY_SLACK, counts as mistyped."""


@attrs.frozen(kw_only=True)
class Source:
    """The place that gave the value of one input, in the words of the user."""

    name: str
    """The name that the user typed: ``BASE_URL``, ``--base-url`` or ``base_url in cutover.toml``."""
    assignment: str
    """A format that sets the input there: ``BASE_URL={}``."""
    in_file: bool = False

    @classmethod
    def variable(cls, declared: Input) -> "Source":
        """Return the environment variable of an input."""
        return cls(name=declared.variable, assignment=f"{declared.variable}={{}}")

    @classmethod
    def option(cls, declared: Input) -> "Source":
        """Return the option of an input."""
        return cls(name=declared.option, assignment=f"{declared.option} {{}}")

    @classmethod
    def key(cls, declared: Input, file_name: str) -> "Source":
        """Return the key of an input in a file."""
        place = f" in {file_name}".replace("{", "{{").replace("}", "}}")
        name = f"{declared.field} in {file_name}"
        return cls(name=name, assignment=f"{declared.field} = {{}}{place}", in_file=True)

    def set_to(self, *, value: object) -> str:
        """Return the text that sets the input to a value there, such as ``DRY_RUN=0`` or ``dry_run = false in cutover.toml``."""
        return self.assignment.format(json.dumps(value) if self.in_file else written(value))


@attrs.define(eq=False, kw_only=True)
class Reading:
    """A reading of inputs from all sources: the values, their sources, and the problems."""

    options: Mapping[str, str]
    """Texts by field."""
    variables: Mapping[str, str]
    """The environment."""
    keys: Mapping[str, object]
    """The content of the file."""
    file_name: str
    values: dict[str, object] = attrs.field(factory=dict)
    sources: dict[str, Source] = attrs.field(factory=dict)
    """Field -> source; an input with its default has none."""
    problems: list[str] = attrs.field(factory=list)

    def read(self, declared: Input) -> None:
        """Read one input from the first source that sets it, unless it has a value already.

        A wrong value becomes a problem; no later source is read.
        """
        if declared.field in self.values:
            return
        for source, given in self._candidates(declared):
            if given is None or (given == "" and declared.kind.empty_is_unset):
                continue
            self.sources[declared.field] = source
            try:
                self.values[declared.field] = _value(declared, given, in_file=source.in_file)
            except ValueError as error:
                shown = "" if declared.secret else f", not {_shown(given)}"
                self.problems.append(f"{source.name} {error}{shown}")
            return

    def note(self, secret: Input) -> None:
        """Record that a variable sets a secret, without its value; do nothing if no variable sets it."""
        if self.variables.get(secret.variable):
            self.sources[secret.field] = Source.variable(secret)

    def _candidates(self, declared: Input) -> Iterator[tuple[Source, object]]:
        """Give each source with its value, None where it sets nothing; the first one that sets something wins."""
        if not declared.secret:
            yield Source.option(declared), self.options.get(declared.field)
        yield Source.variable(declared), self.variables.get(declared.variable)
        if not declared.secret:
            yield Source.key(declared, self.file_name), self.keys.get(declared.field)


def open_sources(
    inputs: Sequence[Input], *, options: Mapping[str, str], variables: Mapping[str, str], file: Path | None
) -> Reading:
    """Return a reading of these sources, with the problems of mistyped variables and of the file; no input is read yet."""
    problems = list(mistyped_variables(variables, inputs))
    keys: Mapping[str, object] = {}
    if file is not None:
        try:
            keys = read_toml(file)
        except ValueError as error:
            problems.append(str(error))
    problems += misplaced_keys(keys, inputs, place=f"in {file}", holder="a file")
    problems += misplaced_keys(options, inputs, place="in the options", holder="an option")
    return Reading(options=options, variables=variables, keys=keys, file_name=str(file), problems=problems)


def _shown(given: object) -> str:
    """Return a wrong value for a message. A table is not shown: it may hold a secret."""
    if isinstance(given, dict) or (
        isinstance(given, list) and any(isinstance(each, dict | list) for each in given)
    ):
        return "a table"
    try:
        return printable(repr(given))
    except ValueError:
        # Python refuses to print a whole number of thousands of digits.
        return "a number of that size"


def _value(declared: Input, given: object, *, in_file: bool) -> object:
    kind = declared.kind
    try:
        return kind.parse(given) if isinstance(given, str) else kind.from_toml(given)
    except ValueError:
        if in_file:
            raise ValueError(f"must be {kind.in_file}") from None
        raise


def read_toml(path: Path) -> dict[str, object]:
    """Read the keys of a TOML file.

    Raises:
        ValueError: The file cannot be read, is too large, or is not TOML; the message names the file.
    """
    try:
        data = read_file(path)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    try:
        # Some editors put a byte order mark first. TOML does not know it.
        return tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def misplaced_keys(keys: Iterable[str], inputs: Sequence[Input], *, place: str, holder: str) -> Iterator[str]:
    """Give a problem for each key that is not an input, and for each key like a secret's name. No problem shows a value."""
    known = {declared.field: declared for declared in inputs}
    for key in keys:
        nearest = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
        if nearest and known[nearest[0]].secret:
            variable = known[nearest[0]].variable
            yield f"{key} {place} is a secret, and {holder} must not hold one: set {variable} in the environment"
        elif key not in known:
            hint = f"; did you mean {nearest[0]}?" if nearest else "; `cutover run --help` lists all"
            yield f"{key} {place} is not an input of cutover{hint}"


def mistyped_variables(given: Iterable[str], inputs: Sequence[Input]) -> Iterator[str]:
    """Give a problem for each variable with almost the name of an input, because its value would be ignored.

    That is so where the input's own variable is set too: nobody can tell which of both values was meant. An input whose name is common
    is not compared.
    """
    known, names = {declared.variable for declared in inputs}, set(given)
    for name in sorted(names - known):
        match _meant(name.upper(), known):
            case []:
                continue
            case [meant] if meant in names:
                yield f"{name} is no variable of cutover; {meant} is, and it is set too: unset {name}"
            case [meant]:
                yield f"{name} is no variable of cutover; {meant} is: set that one, or unset {name}"
            case several:
                yield f"{name} is no variable of cutover; {' and '.join(several)} are: set the one that you mean, and unset {name}"


def _meant(name: str, known: set[str]) -> list[str]:
    """Return the variables that a name in capitals was likely meant to be: all with the same letters, else the nearest one."""
    compared = sorted(known - _COMMON_NAMES)
    if swapped := [meant for meant in compared if sorted(meant) == sorted(name)]:
        return swapped
    if similar := difflib.get_close_matches(name, compared, n=1, cutoff=_SIMILARITY):
        return similar
    if "_" not in name or name in _COMMON_BEGINNINGS:
        return []
    return [meant for meant in compared if meant.rpartition("_")[0] == name]
