"""The inputs: every variable with its default, its help, its parser and its rule."""
