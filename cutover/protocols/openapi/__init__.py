r"""Contracts from OpenAPI documents: what a document says about an event stream, and the check of each event by it.

Nothing here does IO, and nothing is ever fetched. YAML and the check need the extra `openapi`.

A first use::

    from cutover.protocols.openapi import EventValidator, describe_stream, read_document

    description = describe_stream(read_document(text), "/chat", "post")
    problems = EventValidator(description).check(None, '{"type": "delta"}')
"""

from cutover.protocols.openapi.description import DocumentWarning, StreamDescription, describe_stream
from cutover.protocols.openapi.ends import TerminalEvent
from cutover.protocols.openapi.event_validator import EventValidator
from cutover.protocols.openapi.faults import Problem
from cutover.protocols.openapi.lint import StreamLint, lint_document
from cutover.protocols.openapi.overlay import apply_overlay
from cutover.protocols.openapi.promises import StreamPromises
from cutover.protocols.openapi.source import read_document

__all__ = [
    "DocumentWarning",
    "EventValidator",
    "Problem",
    "StreamDescription",
    "StreamLint",
    "StreamPromises",
    "TerminalEvent",
    "apply_overlay",
    "describe_stream",
    "lint_document",
    "read_document",
]
