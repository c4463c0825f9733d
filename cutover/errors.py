"""The errors that this library raises.

    CutoverError
    ├── ContractViolation        (also an AssertionError) a stream broke its contract
    ├── ConfigurationError       the input is wrong; lists every problem at once       exit 2
    ├── NotStartedError          nothing was touched, and nothing could be: a live lock, an open journal   exit 3
    ├── UndoUnprovenError        what was applied could not be proven undone           exit 4
    └── PeerError                one request had no usable answer; caught by the steps, never raised to a caller
        ├── NoAnswerError
        ├── RefusedError
        └── UnusableReplyError

Failures of the network and of the services under test are not errors but evidence: they are values in a report.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutover.contract.findings import Finding

_SERVER_ERROR = 500


def root_cause(error: BaseException) -> BaseException:
    """Return the error that a group of a task group's is about: the first that is none itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class CutoverError(Exception):
    """Base of all errors that this library raises on purpose."""


class ContractViolation(CutoverError, AssertionError):  # noqa: N818  named for what happened; pytest shows it as a failed assertion
    """A stream broke its contract.

    Raised by ``ContractReport.raise_for_violations()`` and by ``stream_contract``.
    """

    __module__ = "cutover"  # where it is imported from: in a short summary the rule then comes sooner

    def __init__(self, message: str, *, findings: Sequence["Finding"]) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class ConfigurationError(CutoverError):
    """The configuration is wrong; every problem is listed, each with the variable or argument it is about."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class NotStartedError(CutoverError):
    """The train could not start, and nothing was touched."""


class UndoUnprovenError(CutoverError):
    """What the train had applied could not be proven undone: an operator must act."""


class PeerError(CutoverError):
    """A peer gave no usable answer to one request; steps turn it into evidence, it never leaves the library."""


class NoAnswerError(PeerError):
    """No reply came: refused, reset, timed out, cut short. What was asked for may have taken effect all the same."""


class RefusedError(PeerError):
    """The peer answered, and said no."""

    def __init__(self, message: str, *, status: int, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        """Seconds that the peer wishes to be left alone, by its ``retry-after``, up to a bound."""

    @property
    def for_certain(self) -> bool:
        """Whether what was asked for was not done: a 5xx may be a gateway's, and the peer behind it has done it."""
        return self.status < _SERVER_ERROR


class UnusableReplyError(PeerError):
    """The peer answered something that does not say what was asked: HTML for JSON, a missing field."""
