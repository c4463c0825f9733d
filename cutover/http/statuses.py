"""HTTP statuses that mean something to a train."""

TOKEN_REFUSED = frozenset({401, 403})
"""Statuses that say that a token is not taken: there is no evidence to be had then."""
