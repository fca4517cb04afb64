"""The frame of every benchmark command: print progress, and end with a page or one line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable


class NotCounted(OperatorError):
    """A measurement is invalid; the message says why."""


OUT = Path("docs/benchmarks")
"""The default folder for pages."""


def flags_of(part: str, about: str = "") -> argparse.ArgumentParser:
    """The flags that every part has; the rest of them is the part's own."""
    parser = argparse.ArgumentParser(
        prog=f"taskbridge bench {part}",
        description=about,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the page is written")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """The type of a flag that is a number, and no smaller one than that."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return int(text)

    return number


def progress(line: object) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run_benchmark(name: str, measure: Callable[[], Path]) -> None:
    """``measure`` writes a page, and returns where.

    Exit code 1 with one line where it cannot, or where what it asserts does not hold.
    """
    # Also where it was started with the signal ignored (by `nohup … &`), the signal stops it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A setting that many containers have: with it, each process that is measured compiles all its libraries first.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    try:
        page = measure()
    except (TaskbridgeError, AssertionError) as error:
        sys.exit(f"taskbridge bench {name}: {error}")
    progress(f"wrote {page} after {(time.monotonic() - began) / 60:.1f} minutes")
