"""What a machine lacks is skipped, and said to be; what must be there fails."""

import os

import pytest

from tests.interop import requirements


@pytest.mark.parametrize("required", ["", "node", "node, chromium"])
def test_what_is_not_required_is_skipped(required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOVER_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="without nginx: there is no program no-such-nginx"):
        requirements.program("no-such-nginx", of="nginx")


def test_what_is_required_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOVER_REQUIRE", "node, nginx")
    with pytest.raises(pytest.fail.Exception, match="nginx is required by CUTOVER_REQUIRE"):
        requirements.program("no-such-nginx", of="nginx")


def test_a_requirement_that_no_test_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOVER_REQUIRE", "nodejs")
    with pytest.raises(ValueError, match="no test needs nodejs"):
        requirements.missing("node", "it is missing")


def test_a_program_is_found_beside_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert requirements.program("python", of="node").exists()
