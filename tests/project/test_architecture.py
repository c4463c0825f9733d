"""The house keeps its shape: layers, public names, what loads when."""

import subprocess
import sys
from pathlib import Path

import pytest

import cutover
from tests.support.paths import ROOT

PUBLIC = {
    "EventStreamParser", "MessageEvent", "Comment", "Retry", "Truncated", "Oversized",
    "StreamContract", "ContractChecker", "ContractReport", "Finding", "Severity", "ContractViolation",
    "COMPAT_LANE", "AI_SDK_5", "AI_SDK_6", "AI_SDK_7",
    "check_recording", "check_stream", "stream_contract", "StreamingASGITransport",
    "CutoverConfig", "CutoverSummary", "run_cutover", "recover_cutover",
}  # fmt: skip


def test_the_public_names_are_exactly_these() -> None:
    assert set(cutover.__all__) == PUBLIC
    assert {name for name in PUBLIC if getattr(cutover, name, None) is None} == set()
    assert set(dir(cutover)) >= PUBLIC
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = cutover.nonsense


def test_importing_it_loads_no_io() -> None:
    code = "import sys, cutover; print([m for m in ('httpx', 'anyio', 'asyncio', 'jinja2', 'rich', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_pytest_plugin_loads_nothing_of_it() -> None:
    code = (
        "import sys, cutover.pytest_plugin as plugin; "
        "print([m for m in ('httpx', 'anyio', 'jinja2', 'msgspec', 'cutover.contract', 'cutover.testing.session') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.source
def test_imports_go_only_downward() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
