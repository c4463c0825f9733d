"""HTTP statuses that have a meaning of their own for a train."""

FORBIDDEN = 403
TOO_MANY_REQUESTS = 429
TOKEN_REFUSED = frozenset({401, FORBIDDEN})
"""Statuses of a service that refused the token. Such a response is no evidence about the stream."""
