"""``cutover lint-openapi``: tell what the event streams of an OpenAPI document promise, and what they leave open."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cutover.cli.contracts import read_openapi
from cutover.errors import OpenApiError
from cutover.protocols.openapi import StreamPromises
from cutover.protocols.openapi.lint import StreamLint, lint_document
from cutover.report.terminal import Terminal
from cutover.text import printable


@click.command(
    "lint-openapi",
    epilog="Exit codes: 0 a contract can be derived for each event stream; 1 not for each, or an event stream can never be right; "
    "2 usage, or a document that cannot be read.",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--path", help="Look at this path of the document alone.")
@click.option("--method", help="Look at this method alone. Needs --path.")
@click.option(
    "--overlay",
    "overlays",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Apply this OpenAPI Overlay first; can be given several times.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object for each event stream, each on one line."
)
def lint_openapi(
    file: Path, path: str | None, method: str | None, overlays: tuple[Path, ...], as_json: bool
) -> None:
    """Tell for each event stream of the OpenAPI document FILE what it promises, what it leaves open, and what is wrong.

    FILE is JSON or YAML (`-`: standard input). Nothing is fetched.
    """
    if method is not None and path is None:
        raise click.UsageError("--method needs --path")
    document = read_openapi(file, overlays)
    try:
        found = lint_document(document, path=path, method=method)
    except OpenApiError as error:
        raise click.UsageError(f"{printable(str(file))}: {printable(str(error), 400)}") from error
    if not found:
        raise click.UsageError(
            f"{printable(str(file))}: no operation has an event stream (text/event-stream) among its success responses"
        )
    for each in found:
        if as_json:
            click.echo(json.dumps(_as_json(each)))
        else:
            for line in _lines(each):
                Terminal(sys.stdout).line(line)
    sys.exit(1 if any(map(_is_broken, found)) else 0)


def _is_broken(found: StreamLint) -> bool:
    """Return True if no stream can keep the contract, or there is none."""
    return found.error is not None or any(each.rule == "openapi.unsatisfiable" for each in found.warnings)


def _lines(found: StreamLint) -> Iterator[str]:
    """Yield the lines about one event stream."""
    yield f"{found.method} {printable(found.path, 200)}"
    if found.error is not None:
        yield f"  error    {printable(str(found.error), 400)}"
    if found.description is not None:
        for promise in _promises(found):
            yield f"  promises {printable(promise, 400)}"
    for point in found.open_points:
        yield f"  open     {printable(point, 400)}"
    for warning in found.warnings:
        yield f"  warning  {warning.rule}: {printable(warning.message, 400)} ({printable(warning.where, 200)})"
    for witness in found.witnesses[:3]:
        yield f"  example  {printable(witness, 200)}"


def _promises(found: StreamLint) -> Iterator[str]:
    """Yield what a document promises about one event stream, in words."""
    described = found.description
    if described is None:
        return
    yield f"{described.content_type} with status {' or '.join(map(str, described.statuses[:3]))}; {described.dialect}"
    if described.kinds:
        yield f"kinds: {', '.join(described.kinds)}"
    if described.terminator is not None:
        yield f"the last event has the data {described.terminator}"
    for end in described.terminal:
        yield f"the last event has {end.value} at {end.pointer}"
    yield from _extra_promises(described.promises)


def _extra_promises(promises: StreamPromises) -> Iterator[str]:
    """Yield what the object `x-sse-stream` promises, in words."""
    if promises.order is not None:
        yield f"order: {promises.order}"
    for each in promises.each:
        yield f"each: {each}"
    times = {"first event": promises.first, "gap": promises.gap, "whole stream": promises.total}
    for what, seconds in times.items():
        if seconds is not None:
            yield f"{what}: at most {seconds:g} s"
    if promises.endless:
        yield "endless: the end of the body is no fault"
    if promises.resume is not None:
        yield "resume: each event has an id, and a request with Last-Event-ID goes on behind it"


def _as_json(found: StreamLint) -> dict[str, Any]:
    """Return the result about one event stream, for a program."""
    return {
        "path": found.path,
        "method": found.method,
        "error": None if found.error is None else {"rule": found.error.rule, "message": str(found.error)},
        "promises": list(_promises(found)),
        "open": list(found.open_points),
        "warnings": [
            {"rule": each.rule, "message": each.message, "where": each.where} for each in found.warnings
        ],
        "examples": list(found.witnesses),
    }
