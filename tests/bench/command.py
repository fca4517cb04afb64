"""What every benchmark does as a command: tell how it goes, and end with its page or with one line."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def progress(line: object) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run_benchmark(name: str, measure: Callable[[], Path]) -> None:
    """``measure`` writes a page, and returns where.

    Exit code 1 with one line where it cannot, or where what it asserts does not hold.
    """
    began = time.monotonic()
    try:
        page = measure()
    except (TaskbridgeError, AssertionError) as error:
        sys.exit(f"taskbridge bench {name}: {error}")
    progress(f"wrote {page} after {(time.monotonic() - began) / 60:.1f} minutes")
