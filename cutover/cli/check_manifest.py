"""``cutover check --manifest FILE``: whether a file is a manifest of a dual run. No request is sent."""

from collections.abc import Sequence
from pathlib import Path

import click

from cutover.config.files import read_file
from cutover.config.manifest import parse_manifest
from cutover.errors import ConfigurationError
from cutover.text import printable


def check_manifest(path: Path, targets: Sequence[str]) -> str:
    """Return one line about a manifest.

    Raises:
        click.UsageError: There are targets too, the file cannot be read, or is no manifest; every problem is listed.
    """
    if targets:
        raise click.UsageError(
            "--manifest checks the manifest alone; check the TARGET in a command of its own"
        )
    name = printable(str(path))
    try:
        entries = parse_manifest(read_file(path), name=name)
    except ValueError as error:
        raise click.BadParameter(f"{name} {error}", param_hint="--manifest") from error
    except ConfigurationError as error:
        raise click.UsageError("\n  ".join(["the manifest cannot be used:", *error.problems])) from error
    changing = sum(entry.mutates for entry in entries)
    noun = "request" if len(entries) == 1 else "requests"
    return f"{name}: {len(entries)} {noun}, {changing} of which need RUN_MUTATING_REQUESTS=1"
