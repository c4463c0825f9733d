"""The inputs that the fuzzer found are run again, without a fuzzer. `nox -s fuzz` adds to them."""

import pytest

from tests.fuzz.feeding import SETTINGS, settings_and_pieces
from tests.fuzz.targets import TARGETS
from tests.support.paths import FIXTURES

CORPUS = FIXTURES / "fuzz"


@pytest.mark.parametrize("name", sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*")))
def test_an_input_of_the_corpus_keeps_the_promises(name: str) -> None:
    TARGETS[name.partition("/")[0]]((CORPUS / name).read_bytes())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()
    assert all(any((CORPUS / target).iterdir()) for target in TARGETS)


@pytest.mark.parametrize(
    "sizes", [b"", b"\0\0\0\0", b"\1\0\0\0", b"\0\2\0\x80", b"\xff\xff\xff\xff", b"\3\3\3\3"]
)
def test_the_pieces_of_an_input_are_its_body(sizes: bytes) -> None:
    body = bytes(range(256)) * 3 if len(sizes) == 4 else b""
    first, second, pieces = settings_and_pieces(b"\7\1" + sizes + body)
    assert (first, second, b"".join(pieces)) == (7, 1, body)
    assert len(pieces) == 1 or any(sizes)
    assert SETTINGS == 2 + 4


def test_a_target_fails_if_a_promise_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that cannot fail finds nothing."""
    given = b"\0" * SETTINGS + b"data: a\n\n"
    monkeypatch.setattr("tests.fuzz.parser.interpret", lambda body, **_: ([], "", None))
    monkeypatch.setattr("tests.fuzz.checker.check_recording", lambda body, **_: None)
    for target in TARGETS.values():
        with pytest.raises(AssertionError):
            target(given)
