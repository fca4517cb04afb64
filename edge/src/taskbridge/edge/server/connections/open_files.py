"""Fits the number of connections to the number of files that the process may open: each connection is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from taskbridge.runtime.open_files import allow_open_files

if TYPE_CHECKING:
    from taskbridge.edge.settings import EdgeSettings

OWN_FILES = 128
"""Files and sockets that a process needs beside its connections."""

_log = structlog.stdlib.get_logger(__name__)


def with_open_files(settings: EdgeSettings) -> EdgeSettings:
    """The settings with no more connections than this process may open, once it may open as many as it can.

    Where they run out, nothing is accepted, and the spool cannot open its files either.
    """
    wanted = settings.max_connections + OWN_FILES
    allowed = allow_open_files(wanted)
    if allowed == wanted:
        return settings
    fewer = max(1, allowed - OWN_FILES)
    _log.warning("fewer_connections_than_wanted", open_files_allowed=allowed, connections=fewer)
    return settings.model_copy(update={"max_connections": fewer})
