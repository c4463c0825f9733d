"""The command ``cutover``: its commands, options, signals and exit codes."""
