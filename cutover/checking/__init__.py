"""One HTTP response held to a contract: as it streams, to its end, or from a recording."""
