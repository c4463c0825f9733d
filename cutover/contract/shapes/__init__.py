"""The shapes of chunks: what the data of one kind of chunk must be."""
