"""The differences between two states, in words."""


def describe_differences(captured: dict[str, str], found: dict[str, str]) -> str:
    """Return each facet that differs, as ``NAME: captured X, found Y``; an empty text where none does."""
    names = [name for name in captured | found if captured.get(name) != found.get(name)]
    return "; ".join(
        f"{name}: captured {captured.get(name, 'unknown')}, found {found.get(name, 'unknown')}"
        for name in names
    )
