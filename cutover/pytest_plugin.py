"""The old name of ``cutover.testing.pytest_plugin``, for a test suite that loads the plugin by it."""

from cutover.testing.pytest_plugin import stream_contract

__all__ = ["stream_contract"]
