"""The targets of ``cutover check``: URLs and files, and those that are refused before any request is sent."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import click

from cutover.config.values import is_utf8
from cutover.http.secrets import mask_login, mask_urls
from cutover.text import printable


def is_url(target: str) -> bool:
    """Return True if a target is a URL, and False if it is a file."""
    return target.lower().startswith(("http://", "https://"))


def refuse_unusable(targets: Sequence[str], data: str | None) -> None:
    """Raise a usage error for targets that cannot be checked, before any request is sent."""
    if not targets:
        raise click.UsageError("Missing argument 'TARGET...'.")
    if targets.count("-") + (data == "@-") > 1:
        raise click.UsageError("standard input (`-`) can be read only once")
    for target in targets:
        if not is_utf8(target):
            raise click.UsageError(
                f"TARGET {target!a} is not UTF-8, and the report cannot hold such a name; rename the file"
            )
    for target in filter(is_url, targets):
        try:
            parts = urlsplit(target)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise click.UsageError(
                f"{printable(mask_urls(mask_login(target)))}: not a URL with a host (and a valid port, if any)"
            )


def refuse_recordings(targets: Sequence[str]) -> None:
    """Raise a usage error for a target that is no URL: only a service can be asked to resume."""
    for target in targets:
        if not is_url(target):
            raise click.UsageError(
                f"--resume needs URLs, because only a service can resume a stream; {printable(target)} is a recording. "
                "Check it without --resume"
            )


def refuse_lone_method(targets: Sequence[str]) -> None:
    """Raise a usage error if no target has a request that the method could be for."""
    if not any(map(is_url, targets)):
        raise click.UsageError(
            "--method needs a URL, because a recording has no request (or --openapi, to choose the operation)"
        )
