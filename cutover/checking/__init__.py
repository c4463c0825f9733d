"""The check of one HTTP response against a contract: piece by piece, to its end, or from a recording."""
