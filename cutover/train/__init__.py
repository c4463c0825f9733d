"""The release train: its engine, its steps, its sentinel streams, and the way back."""
