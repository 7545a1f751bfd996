"""The `sie-triton` program: an interrupt while the command line is still being imported ends it without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Import the command line and run it."""
    # Whoever started us with SIGINT ignored, as `nohup` and a shell's background do, wants it so.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sie_triton import cli

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()
