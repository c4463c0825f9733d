"""The old name of ``cutover.testing.pytest_plugin``, kept for a test suite that loads the plugin under this name."""

from cutover.testing.pytest_plugin import stream_contract

__all__ = ["stream_contract"]
