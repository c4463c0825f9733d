"""Fuzz one target: `python -m tests.fuzz TARGET [an option of libFuzzer | corpus]...`."""

import sys

import atheris

with atheris.instrument_imports(include=["cutover"]):
    from tests.fuzz.targets import TARGETS

target, *arguments = sys.argv[1:]
# The program name is a command line, because libFuzzer's merge starts it again in a shell.
atheris.Setup([f"{sys.executable} -m tests.fuzz {target}", *arguments], TARGETS[target])
atheris.Fuzz()
