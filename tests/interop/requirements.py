"""Programs that a test needs of its machine: where one is missing the test is skipped, or fails if ``CUTOVER_REQUIRE`` names it."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

VARIABLE = "CUTOVER_REQUIRE"
"""Environment variable: what must be there, separated by commas."""
NAMES = frozenset({"node", "nginx", "prometheus", "gcloud", "chromium"})
"""What it may name."""
_FOLDERS = (Path(sys.executable).parent, "/usr/sbin", "/usr/local/sbin")
"""Where programs lie beside those on the path: Python's own folder, and that of daemons."""


def program(name: str, *, of: str) -> Path:
    """Find a program of a requirement; without it the test is skipped, or fails."""
    path = os.pathsep.join(map(str, (os.environ.get("PATH", os.defpath), *_FOLDERS)))
    found = shutil.which(name, path=path)
    if found is None:
        missing(of, f"there is no program {name}")
    return Path(found)


def missing(name: str, why: str) -> NoReturn:
    """Skip the test, for want of something; or fail it, where that is required.

    Raises:
        ValueError: The environment requires something that no test knows: it would never be missed.
    """
    required = {each.strip() for each in os.environ.get(VARIABLE, "").split(",")} - {""}
    if unknown := sorted((required | {name}) - NAMES):
        raise ValueError(f"{VARIABLE}: no test needs {', '.join(unknown)}")
    if name in required:
        pytest.fail(f"{name} is required by {VARIABLE}: {why}", pytrace=False)
    pytest.skip(f"without {name}: {why}")
