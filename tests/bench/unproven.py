"""The processor time of the edge for an unsigned megabyte, kind by kind.

``PYTHONPATH=tests uv run python tests/bench/unproven.py`` prints a table: the least of nine, from the
body to the refusal, next to the time of hashing a megabyte once on that machine.
"""

from __future__ import annotations

import hashlib
import sys

from support.edge.expensive import SIZE, hostile, least_processor_s

TIMES = 9


def main() -> None:
    hashed_s = least_processor_s(lambda: hashlib.md5(b"x" * SIZE, usedforsecurity=False).digest(), times=TIMES)
    lines = [
        f"Hashing it once: {hashed_s * 1000:.1f} ms.",
        "",
        "| a megabyte | ms | hashes | refused for |",
        "|---|---|---|---|",
    ]
    costs = sorted(
        ((least_processor_s(each.refused, times=TIMES), each) for each in hostile()), key=lambda pair: -pair[0]
    )
    lines += [
        f"| {each.name} | {cost_s * 1000:.1f} | {cost_s / hashed_s:.1f} | {each.reason} |" for cost_s, each in costs
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
