"""Names of a package that load on first use (PEP 562): ``import cutover`` does not load modules that nobody uses."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def load(module: str, name: str) -> Any:  # noqa: ANN401  any name of any module
    """Return a name of a module, which is imported only now."""
    return getattr(import_module(module), name)


def load_on_first_use(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__``, which imports each public name on its first use, and its ``__dir__``.

    Args:
        package: The package's ``__name__``.
        modules: The module of each public name: name -> full module name.
    """

    def load_public(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = load(modules[name], name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return load_public, names
