"""The processor time of the edge for an unsigned megabyte, kind by kind.

``PYTHONPATH=tests uv run python tests/bench/unproven.py`` prints a table: the least of nine, from the
body to the refusal, next to the time of hashing a megabyte once on that machine.
"""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING

from support.edge.expensive import SIZE, hostile

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 9


def least_processor_s(run: Callable[[], object]) -> float:
    """The least of several: what else runs on the machine only adds to it."""
    found: list[float] = []
    for _ in range(TIMES):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    hashed_s = least_processor_s(lambda: hashlib.md5(b"x" * SIZE, usedforsecurity=False).digest())
    lines = [
        f"Hashing it once: {hashed_s * 1000:.1f} ms.",
        "",
        "| a megabyte | ms | hashes | refused for |",
        "|---|---|---|---|",
    ]
    costs = sorted(((least_processor_s(each.refused), each) for each in hostile()), key=lambda pair: -pair[0])
    lines += [
        f"| {each.name} | {cost_s * 1000:.1f} | {cost_s / hashed_s:.1f} | {each.reason} |" for cost_s, each in costs
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
