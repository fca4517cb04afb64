"""Runs the edge on listening sockets until a signal ends it."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE

from taskbridge.edge.server.protocol import EdgeProtocol
from taskbridge.edge.server.sockets import AcceptingLoop
from taskbridge.runtime.serving import Server, server_config

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from fastapi import FastAPI

_GRACE_S = 10
_KEEP_ALIVE_S = 30


def end_on_signal() -> None:
    """Until the edge serves, a signal ends the process with 0. SIGHUP acts as SIGTERM, also later."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _exit)
    signal.signal(signal.SIGHUP, _terminate)


def serve(app: FastAPI, sockets: list[socket.socket], *, are_held: bool) -> None:
    """Return after a signal, when all open requests are answered.

    ``are_held``: a supervisor leaves the sockets open when this process ends.
    """
    config = server_config(
        app,
        grace_s=_GRACE_S,
        protocol=EdgeProtocol,
        loop=partial(AcceptingLoop, are_held=are_held),
        lifespan="on",
        reset_contextvars=True,  # else a pipelined request has its log lines in the trace of the one before
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    server = Server(config)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, server.handle_exit)
    server.run(sockets)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # all is done, and a signal must not interrupt the interpreter's own end
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
