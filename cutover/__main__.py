"""The command's entry point, and ``python -m cutover``: it takes a while to load, and Ctrl-C may come by then."""

import sys

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Run the command; a Ctrl-C that nobody listens for yet ends it quietly, for nothing has begun."""
    try:
        from cutover.cli.commands import main as command  # noqa: PLC0415  what takes a while

        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
