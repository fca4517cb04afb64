"""The machine and versions that a page must name, and the CPU time of processes."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


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
            # The name in brackets may have spaces; after it come state and parent, and CPU times as 12th and 13th.
            fields = stat.rpartition(")")[2].split()
            parents[int(each.name)], ticks[int(each.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    total, tree = 0, [pid]
    while tree:
        current = tree.pop()
        total += ticks.get(current, 0)
        tree += [child for child, parent in parents.items() if parent == current]
    return total / _TICKS


def tree_seconds(pid: int) -> float:
    """What ``cpu_seconds`` gives, and of ended children what was waited for, from the process's own files only.

    Cheap enough to read ten times a second during a measurement.
    """
    folder = Path(f"/proc/{pid}")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    total = sum(map(int, fields[11:15])) / _TICKS
    for each in (folder / "task").glob("*/children"):
        try:
            children = each.read_text().split()
        except OSError:
            continue  # that thread ended just now
        for child in children:
            with suppress(OSError):  # likewise
                total += tree_seconds(int(child))
    return total


def resident_mb(pid: int) -> float:
    """The memory of the process that is in use now, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def bytes_below(folder: Path) -> int:
    """The total size of the files below a folder."""
    return sum(size_of(path) for path in folder.rglob("*"))


def size_of(path: Path) -> int:
    """0 for what is no file, or was deleted just now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


_STEAL = 7
"""The field of /proc/stat with what the hypervisor gave to others."""


class Before(NamedTuple):
    """Facts that are read before any measurement."""

    load: float
    stolen: int
    ticks: int


def before() -> Before:
    ticks = _ticks(Path("/proc/stat").read_text())
    return Before(os.getloadavg()[0], ticks[_STEAL], sum(ticks[: _STEAL + 1]))


def machine_section(libraries: Sequence[str], earlier: Before) -> list[str]:
    """A section of a page; ``libraries`` are distributions of this Python."""
    software = (
        f"Python {platform.python_version()} ({platform.python_compiler()})",
        ", ".join(f"{name} {version(name)}" for name in libraries),
        f"taskbridge {version('taskbridge-cli')}",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    now = before()
    stolen = (now.stolen - earlier.stolen) / max(now.ticks - earlier.ticks, 1)
    cores = f"{os.cpu_count()} cores of {processor(Path('/proc/cpuinfo').read_text())}"
    load = f"Load average before the run: {earlier.load:.1f}."
    return [
        "## Machine",
        "",
        f"- {cores}; {', '.join(_caches())}; {memory:.0f} GiB of memory.",
        f"- {platform.system()} {platform.release()}, {_virtual()}; {_frequency()}.",
        f"- {'; '.join(filter(None, software))}.",
        f"- {load} The hypervisor gave {stolen:.1%} of the cores' time to others meanwhile.",
    ]


def processor(cpuinfo: str) -> str:
    """The first core as the kernel describes it: in a virtual machine the name alone is vague."""
    lines = cpuinfo.split("\n\n", 1)[0].splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    names = ("vendor_id", "cpu family", "model", "stepping", "microcode", "cpu MHz")
    details = ", ".join(f"{name.removesuffix('_id')} {facts[name]}" for name in names if name in facts)
    named = facts.get("model name", platform.machine())
    return f"{named} ({details})" if details else named


def _caches() -> list[str]:
    found: list[str] = []
    for each in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((each / name).read_text().strip() for name in ("type", "level", "size"))
        found.append(f"L{level}{'' if kind == 'Unified' else kind[0].lower()} {size}")
    return found or ["caches unknown"]


def _virtual() -> str:
    if " hypervisor" not in Path("/proc/cpuinfo").read_text():
        return "no hypervisor"
    vendor = Path("/sys/class/dmi/id/sys_vendor")
    return f"under a hypervisor ({vendor.read_text().strip()})" if vendor.exists() else "under a hypervisor"


def _frequency() -> str:
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return f"governor {governor.read_text().strip()}" if governor.exists() else "frequency not visible"


def _ticks(stat: str) -> list[int]:
    """The first line's: user, nice, system, idle, iowait, irq, softirq, steal."""
    return [int(each) for each in stat.splitlines()[0].split()[1:]]
