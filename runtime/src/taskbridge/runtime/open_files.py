"""Raises the number of files that the process may open: each connection is one."""

from __future__ import annotations

import resource


def allow_open_files(wanted: int) -> int:
    """Have the process open so many, as far as its hard limit goes; returns how many it may open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
