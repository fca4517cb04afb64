"""The CPU time that processes took, as the kernel counts it."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants that live."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                stat = (each / "stat").read_text()
            except OSError:
                continue  # it ended just now
            # The name in brackets may hold spaces; behind it stand state and parent, and CPU times as 12th and 13th.
            fields = stat.rpartition(")")[2].split()
            parents[int(each.name)], ticks[int(each.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    total, tree = 0, [pid]
    while tree:
        current = tree.pop()
        total += ticks.get(current, 0)
        tree += [child for child, parent in parents.items() if parent == current]
    return total / _TICKS
