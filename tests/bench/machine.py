"""The machine and the versions that a page of measurements must name."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def machine_section(libraries: Sequence[str], load_before: float) -> list[str]:
    """A section of a page; ``libraries`` are distributions of this Python."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    found = ", ".join(f"{name} {version(name)}" for name in libraries)
    cores = f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()} ({platform.python_compiler()})"
    ours = f"{python}; {found}; taskbridge {version('taskbridge-cli')}"
    load = f"Load average before the run: {load_before:.1f}; above 0.5, other work took part of the cores."
    return ["## Machine", "", f"{cores}; {ours}.", "", load]
