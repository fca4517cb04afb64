"""What a process of ours asks of Python and of the system: few collections, many open files."""

from __future__ import annotations

import gc
import resource

_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100


def collect_garbage_rarely() -> None:
    """To be called once a service stands: what it holds by then is never looked at again.

    Everything that a record makes is freed by its reference count. With Python's own thresholds a collection walks
    over tens of thousands of instances in memory for every few thousand records, a quarter of the streams' CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def allow_open_files(wanted: int) -> int:
    """Have the process open so many (each connection is one), as far as its hard limit goes.

    Returns how many it may open now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
