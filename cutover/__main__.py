"""The entry point of the command ``cutover`` and of ``python -m cutover``."""

import gc
import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 plus the number of SIGINT, as in a shell."""


def main() -> None:
    """Run the command. A Ctrl-C while the command loads ends the process without a traceback: nothing has started yet."""
    try:
        from cutover.cli.streams import never_failing_streams  # noqa: PLC0415  Ctrl-C may come while it loads

        with never_failing_streams():
            gc.disable()
            from cutover.cli.commands import main as command  # noqa: PLC0415  a slow import; Ctrl-C may come while it runs

            # The loaded code is never garbage, so no later collection needs to look at it.
            gc.freeze()
            gc.enable()
            command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
