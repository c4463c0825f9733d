"""Fuzz one target: `python -m fuzz TARGET [an option of libFuzzer | corpus]...`, with `tests` on the path."""

import sys

import atheris

with atheris.instrument_imports(include=["cutover"]):
    from fuzz.targets import TARGETS

target, *arguments = sys.argv[1:]
atheris.Setup(
    [f"{sys.executable} -m fuzz {target}", *arguments], TARGETS[target]
)  # a merge runs it again, by a shell
atheris.Fuzz()
