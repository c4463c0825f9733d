"""What the errors of the library share."""

from cutover.errors import root_cause


def test_the_root_cause_of_an_exception_group_is_its_first_error() -> None:
    first = ValueError("first")
    inner = ExceptionGroup("inner", [first, OSError("second")])
    assert root_cause(BaseExceptionGroup("outer", [inner, KeyboardInterrupt()])) is first
    assert root_cause(first) is first
