"""The contract that a user names on the command line: a shipped one, one in a Python module, or one from an OpenAPI document."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import click

from cutover.cli.check_request import read_target
from cutover.contract import StreamContract
from cutover.errors import OpenApiError
from cutover.protocols import SHIPPED
from cutover.text import printable


def contract_named(name: str) -> StreamContract:
    """Return a shipped contract by its name, or the contract `module:NAME` of a Python module.

    The current folder counts as a place of modules, as it does for `python -m`.

    Raises:
        click.BadParameter: If there is no such contract.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise _bad(name, f"give one of {', '.join(SHIPPED)}, or module:NAME for a contract of your own")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise _bad(
            name, f"there is no module {error.name}; run the command where it can be imported"
        ) from error
    except AttributeError as error:
        raise _bad(name, f"the module {module} has no name {attribute}") from error
    except Exception as error:
        raise _bad(
            name, f"the module {module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, StreamContract):
        raise _bad(name, f"it is a {type(found).__name__}, and not a StreamContract")
    return found


def _bad(name: str, why: str) -> click.BadParameter:
    """Return the usage error about a contract's name."""
    return click.BadParameter(f"{printable(name)}: {printable(why, 400)}", param_hint="--contract")


def read_openapi(file: Path, overlays: Sequence[Path] = ()) -> Mapping[str, Any]:
    """Return the content of an OpenAPI document, with overlays applied to it.

    Raises:
        click.UsageError: If a file cannot be read, is no such document, or the extra `openapi` is not installed.
    """
    # Other commands do not need this package.
    from cutover.protocols.openapi import apply_overlay, read_document  # noqa: PLC0415

    document: Mapping[str, Any] = _read(file, read_document)
    for overlay in overlays:
        layer = _read(overlay, read_document)
        try:
            document = apply_overlay(document, layer)
        except OpenApiError as error:
            raise click.UsageError(f"{printable(str(overlay))}: {printable(str(error), 400)}") from error
    return document


def _read(file: Path, read: Callable[[bytes], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the content of a file, or raise a usage error that names the file."""
    try:
        return read(read_target(str(file)))
    except OSError as error:
        raise click.UsageError(f"{printable(str(file))} cannot be read ({error.strerror})") from error
    except OpenApiError as error:
        raise click.UsageError(f"{printable(str(file))}: {printable(str(error), 400)}") from error


@attrs.frozen(kw_only=True)
class ContractChoice:
    """The contract of each target, as the options of `cutover check` choose it."""

    named: StreamContract
    """The contract of all targets, unless there is a document."""
    document: Mapping[str, Any] | None
    """The OpenAPI document that has the contracts; None without one."""
    path: str | None
    """The path of the operation; None: that of the URL, or of the only event stream."""
    method: str | None
    """The method of the operation; None: that of the path's event stream."""
    terminator: str | None
    """The data of the event that ends the stream; None: the contract's."""
    limits: Mapping[str, Any]
    """Limits of the contract that the user replaced, by their name in `Limits`."""
    strict: bool
    """True for the contract in which each break that a user can see is a violation; False for the verdict of the client itself."""

    @property
    def for_explanation(self) -> StreamContract:
        """Return the contract whose severities an explanation of a rule shows."""
        return self.named if self.document is None else self._from_document(self.document, "")

    def contract_for(self, target: str) -> StreamContract:
        """Return the contract of a target: a URL, or a recording.

        Raises:
            click.UsageError: If none can be derived from the document.
        """
        contract = self.named if self.document is None else self._from_document(self.document, target)
        changed = attrs.evolve(
            contract,
            limits=attrs.evolve(contract.limits, **self.limits),
            terminator=contract.terminator if self.terminator is None else self.terminator,
        )
        return changed.strict() if self.strict else changed

    def _from_document(self, document: Mapping[str, Any], target: str) -> StreamContract:
        path = self.path or _path_of(document, target)
        try:
            return StreamContract.from_openapi(document, path, self.method, terminator=self.terminator)
        except OpenApiError as error:
            raise click.UsageError(f"--openapi: {printable(str(error), 400)}") from error


def choose_contract(
    name: str | None,
    openapi: Path | None,
    *,
    path: str | None,
    overlays: Sequence[Path],
    terminator: str | None,
    method: str | None,
    limits: Mapping[str, Any],
    strict: bool,
) -> ContractChoice:
    """Return the choice that the options of `cutover check` make.

    Raises:
        click.UsageError: If the options contradict each other, or name something that is not there.
    """
    if openapi is None and (path is not None or overlays):
        raise click.UsageError(f"{'--path' if path is not None else '--overlay'} needs --openapi")
    if openapi is not None and name is not None:
        raise click.UsageError("--contract and --openapi both say what the contract is; give one of them")
    return ContractChoice(
        named=contract_named(name or "compat-lane"),
        document=None if openapi is None else read_openapi(openapi, overlays),
        path=path,
        method=method,
        terminator=terminator,
        limits={name: value for name, value in limits.items() if value is not None},
        strict=strict,
    )


def _path_of(document: Mapping[str, Any], target: str) -> str:
    """Return the path of a URL, without that of the document's servers; of a recording, the path of the only event stream."""
    if target.lower().startswith(("http://", "https://")):
        path = urlsplit(target).path or "/"
        servers = document.get("servers")
        bases = [
            urlsplit(str(server.get("url"))).path.rstrip("/")
            for server in (servers if isinstance(servers, list) else ())
            if isinstance(server, dict)
        ]
        base = next((base for base in bases if base and path.startswith(base + "/")), "")
        return path.removeprefix(base)
    from cutover.protocols.openapi.lint import lint_document  # noqa: PLC0415

    try:
        paths = list(dict.fromkeys(each.path for each in lint_document(document)))
    except OpenApiError as error:
        raise click.UsageError(f"--openapi: {printable(str(error), 400)}") from error
    if len(paths) != 1:
        known = f"it has {', '.join(paths[:8])}" if paths else "it has none"
        raise click.UsageError(
            f"--openapi: say with --path which event stream of the document this is; {printable(known, 400)}"
        )
    return paths[0]
