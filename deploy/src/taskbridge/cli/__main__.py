"""Where the program begins: Ctrl-C ends it without a word while it is still being loaded."""

from __future__ import annotations

import gc
import signal


def main() -> None:
    """Run ``taskbridge``. What has begun is asked to end by KeyboardInterrupt, or as its command takes signals."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What is loaded stays: to look through it as often as Python would takes a tenth of the CPU time of loading it.
    gc.set_threshold(50_000, 20, 100)
    from taskbridge.cli.program import main as run  # noqa: PLC0415 - loading it is what takes its time

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
