"""The fuzz targets by name."""

from collections.abc import Callable, Mapping

from tests.fuzz.checker import check_checker
from tests.fuzz.parser import check_parser

TARGETS: Mapping[str, Callable[[bytes], None]] = {"parser": check_parser, "checker": check_checker}
"""Name of a target, and of its corpus -> the function that runs for each input."""
