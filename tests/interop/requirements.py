"""Programs that a test needs. If one is missing, the test is skipped, or fails if ``CUTOVER_REQUIRE`` names the program."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

VARIABLE = "CUTOVER_REQUIRE"
"""Environment variable with the names of required programs, separated by commas."""
NAMES = frozenset({"node", "nginx", "prometheus", "gcloud", "chromium"})
"""Names that the variable may contain."""
_FOLDERS = (Path(sys.executable).parent, "/usr/sbin", "/usr/local/sbin")
"""Folders to search after the path: Python's own, and those of daemons."""


def program(name: str, *, of: str) -> Path:
    """Return the path of a program that requirement ``of`` needs. Without the program, skip or fail the test."""
    path = os.pathsep.join(map(str, (os.environ.get("PATH", os.defpath), *_FOLDERS)))
    found = shutil.which(name, path=path)
    if found is None:
        missing(of, f"there is no program {name}")
    return Path(found)


def missing(name: str, why: str) -> NoReturn:
    """Skip the test because a requirement is missing; fail it if the environment requires it.

    Raises:
        ValueError: The environment requires a name that no test uses, so its absence would never fail a test.
    """
    required = {each.strip() for each in os.environ.get(VARIABLE, "").split(",")} - {""}
    if unknown := sorted((required | {name}) - NAMES):
        raise ValueError(f"{VARIABLE}: no test needs {', '.join(unknown)}")
    if name in required:
        pytest.fail(f"{name} is required by {VARIABLE}: {why}", pytrace=False)
    pytest.skip(f"without {name}: {why}")
