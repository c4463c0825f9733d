"""The errors that this library raises.

    CutoverError
    ├── ContractViolation        a stream broke its contract; also an AssertionError
    ├── OpenApiError             no contract can be derived from an OpenAPI document; also a ValueError
    ├── ConfigurationError       the input is wrong; the error lists every problem                  exit 2
    ├── NotStartedError          the train, or the recovery, could not start                        exit 3
    ├── NotDecidedError          a decision was refused: the train does not wait for it, or nothing was written   exit 3
    ├── UndoUnprovenError        an interrupted train could not prove that its changes are undone   exit 4
    └── PeerError                one request got no usable answer; the steps catch it, a caller never sees it
        ├── NoAnswerError            no reply came
        ├── RefusedError             the service refused, or the request was not sent
        └── UnusableReplyError       the reply lacks the requested data

A caller gets no error for a failure of the network or of a service under test. Such a failure is evidence: a value in a report.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutover.contract.findings import Finding

_SERVER_ERROR = 500
_MOST_LEAVES = 3
"""Errors of an exception group that a message names."""


def root_cause(error: BaseException) -> BaseException:
    """Return the error itself, or the first error inside the exception group that a task group raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def named(error: BaseException) -> str:
    """Return the type and the text of an error. Of an exception group, return those of the errors inside it, at most three."""
    leaves = [error]
    while any(isinstance(each, BaseExceptionGroup) for each in leaves):
        leaves = [
            leaf
            for each in leaves
            for leaf in (each.exceptions if isinstance(each, BaseExceptionGroup) else (each,))
        ]
    shown = [f"{type(leaf).__name__}: {leaf}" if str(leaf) else type(leaf).__name__ for leaf in leaves]
    more = f" and {len(shown) - _MOST_LEAVES} more" if len(shown) > _MOST_LEAVES else ""
    return "; ".join(shown[:_MOST_LEAVES]) + more


def _rebuilt(
    kind: "type[CutoverError]", args: tuple[object, ...], state: dict[str, object]
) -> "CutoverError":
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class CutoverError(Exception):
    """Base of all errors that this library defines. They can be copied and pickled, as between processes of a test run."""

    def __reduce__(self) -> tuple[object, ...]:
        # Without this, a copy is made by calling the class with the message alone, which most of these classes do not accept.
        return _rebuilt, (type(self), self.args, self.__dict__)


class ContractViolation(CutoverError, AssertionError):  # noqa: N818  a failed assertion; its name says what failed
    """A stream broke its contract.

    ``ContractReport.raise_for_violations()`` and ``stream_contract`` raise it. ``findings`` holds the violations, and
    the first line of the message names the first broken rule.
    """

    # The public name is shorter than the module path, so pytest's short summary has room for the rule.
    __module__ = "cutover"

    def __init__(self, message: str, *, findings: Sequence["Finding"]) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class OpenApiError(CutoverError, ValueError):
    """No contract can be derived from an OpenAPI document.

    The message says what is wrong, at which JSON pointer of the document, and what to do.
    """

    def __init__(self, rule: str, message: str, *, where: str = "") -> None:
        super().__init__(f"{rule}: {message}" + (f" (at {where})" if where else ""))
        self.rule = rule
        """The id of the rule, such as ``openapi.no-operation``. Ids are stable."""
        self.where = where
        """JSON pointer of the place in the document; empty if the error is about the whole document."""


class ConfigurationError(CutoverError):
    """The configuration is wrong. ``problems`` lists every problem and names its variable, option, file or argument."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class NotStartedError(CutoverError):
    """The train, or the recovery, could not start. Production was not changed."""


class NotDecidedError(CutoverError):
    """A decision was refused: the train does not wait for it, or it could not be written. Nothing was written."""


class UndoUnprovenError(CutoverError):
    """A train that was interrupted, or stopped by a fault, could not prove that its changes are undone. An operator must act.

    A train that ends with NO GO raises nothing: if its undo is unproven, its summary has the exit code 4.
    """


class PeerError(CutoverError):
    """A service gave no usable answer to one request. The steps turn this error into evidence; a caller never sees it."""


class NoAnswerError(PeerError):
    """No reply came: no connection, a reset, a timeout or a reply that broke off. The request may still have taken effect."""


class RefusedError(PeerError):
    """The service refused the request, or the request was not sent."""

    def __init__(self, message: str, *, status: int, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the answer; 0 if the request was not sent. Missing credentials count as 401, a stale generation as 409."""
        self.retry_after = retry_after
        """Seconds to wait before a retry, from the ``retry-after`` header (RFC 9110 10.2.3), up to a bound; else 0."""

    @property
    def for_certain(self) -> bool:
        """True if the request certainly had no effect.

        A 5xx is not certain: a gateway may send it although the service behind the gateway has carried out the request.
        """
        return self.status < _SERVER_ERROR


class UnusableReplyError(PeerError):
    """The reply does not contain the requested data: HTML instead of JSON, a missing field, or too many bytes."""
