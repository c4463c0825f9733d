"""A test whose program is missing is skipped with a reason; it fails if the program is required."""

import os

import pytest

from tests.interop import requirements


@pytest.mark.parametrize("required", ["", "node", "node, chromium"])
def test_a_missing_program_that_is_not_required_skips_the_test(
    required: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUTOVER_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="without nginx: there is no program no-such-nginx"):
        requirements.program("no-such-nginx", of="nginx")


def test_a_missing_program_that_is_required_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOVER_REQUIRE", "node, nginx")
    with pytest.raises(pytest.fail.Exception, match="nginx is required by CUTOVER_REQUIRE"):
        requirements.program("no-such-nginx", of="nginx")


def test_a_required_name_that_no_test_uses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOVER_REQUIRE", "nodejs")
    with pytest.raises(ValueError, match="no test needs nodejs"):
        requirements.missing("node", "it is missing")


def test_a_program_is_found_beside_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert requirements.program("python", of="node").exists()
