"""The value of every input and the place that gave it, for ``cutover run --show-config``."""

from collections.abc import Iterator

from cutover.config.config import INPUTS, CutoverConfig
from cutover.config.inputs import Input, written


def describe_inputs(config: CutoverConfig) -> Iterator[str]:
    """Give one line for each input: its name, its value, its source. The value of a secret is only "set" or "not set"."""
    rows = [(declared.field, _value(declared, config), _source(declared, config)) for declared in INPUTS]
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, source in rows:
        yield f"{name:{name_width}}  {value:{value_width}}  {source}"


def _value(declared: Input, config: CutoverConfig) -> str:
    value = getattr(config, declared.field)
    if declared.secret:
        return "set" if value or declared.field in config.sources else "not set"
    return written(value)


def _source(declared: Input, config: CutoverConfig) -> str:
    source = config.sources.get(declared.field)
    if source is None:
        return "default"
    unused = " (not used: a rehearsal needs no token)" if declared.secret and config.dry_run else ""
    return source.name + unused
