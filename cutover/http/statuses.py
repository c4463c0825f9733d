"""HTTP statuses that have a meaning of their own for a train."""

TOKEN_REFUSED = frozenset({401, 403})
"""Statuses of a service that refused the token. Such a response is no evidence about the stream."""
