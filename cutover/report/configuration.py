"""The value of every input and the place that gave it, for ``cutover run --show-config`` and ``cutover preflight``."""

from collections.abc import Iterator

from cutover.config.config import INPUTS, CutoverConfig
from cutover.config.inputs import Input, written


def describe_inputs(config: CutoverConfig) -> Iterator[str]:
    """Give one line for each input: its name, its value, its source. The value of a secret is only "set" or "not set"."""
    rows = [(declared.field, value_of(declared, config), source_of(declared, config)) for declared in INPUTS]
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, source in rows:
        yield f"{name:{name_width}}  {value:{value_width}}  {source}"


def value_of(declared: Input, config: CutoverConfig) -> str:
    """Return the value of an input as it is written; of a secret only "set" or "not set"."""
    value = getattr(config, declared.field)
    if declared.secret:
        return "set" if value or declared.field in config.sources else "not set"
    return written(value)


def source_of(declared: Input, config: CutoverConfig) -> str:
    """Return the place that set an input, by the name that the user typed; "default" if nothing set it."""
    source = config.sources.get(declared.field)
    if source is None:
        return "default"
    unused = " (not used: a rehearsal needs no token)" if declared.token and config.dry_run else ""
    return source.name + unused
