"""The name of the page, for modules that do not make it."""

FILE = "report.html"
"""The name of the page in the run directory."""
