"""Entry point: while the program loads, Ctrl-C ends it without a message."""

from __future__ import annotations

import gc
import signal


def main() -> None:
    """Run ``taskbridge``. Once loaded, Ctrl-C raises KeyboardInterrupt, unless the command handles signals."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Loaded modules stay: collecting garbage at Python's default rate takes a tenth of the CPU time of loading.
    gc.set_threshold(50_000, 20, 100)
    from taskbridge.cli.program import main as run  # loading takes the time

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
