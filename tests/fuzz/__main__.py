"""Fuzz one target: `python -m tests.fuzz TARGET [an option of libFuzzer | corpus]...`."""

import sys

import atheris

with atheris.instrument_imports(include=["cutover"]):
    from tests.fuzz.targets import TARGETS

target, *arguments = sys.argv[1:]
atheris.Setup(
    [f"{sys.executable} -m tests.fuzz {target}", *arguments], TARGETS[target]
)  # a merge runs it again, by a shell
atheris.Fuzz()
