"""Runs the edge in this process, or in several workers, on listening sockets, until a signal ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from taskbridge.edge.server.protocol import EdgeProtocol
from taskbridge.edge.server.sockets import AcceptingLoop
from taskbridge.runtime.serving import Server, server_config

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from fastapi import FastAPI

_GRACE_S = 10
_KEEP_ALIVE_S = 30
_WORKER_START_S = 30
"""uvicorn's own 5 s would kill workers that start slowly on a busy machine, again and again."""


def end_on_signal() -> None:
    """Until the edge serves, a signal ends the process with 0. SIGHUP acts as SIGTERM, also later."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _exit)
    signal.signal(signal.SIGHUP, _terminate)


def serve(app: FastAPI, sockets: list[socket.socket], *, are_held: bool, workers: int, factory: str) -> None:
    """Return after a signal, when all open requests are answered; ``factory`` makes the app of several workers.

    With several workers SIGHUP replaces them one by one, each once its successor serves. ``are_held``: a supervisor
    leaves the sockets open when this process ends.
    """
    config = server_config(
        app if workers == 1 else factory,
        grace_s=_GRACE_S,
        protocol=EdgeProtocol,
        factory=workers > 1,
        workers=workers,
        # Simultaneous connections are spread over several workers.
        loop=partial(AcceptingLoop, are_held=are_held, **({"in_a_row": 1} if workers > 1 else {})),
        lifespan="on",
        reset_contextvars=True,  # else a pipelined request has its log lines in the trace of the one before
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_worker_healthcheck=_WORKER_START_S,
    )
    if workers > 1:
        Multiprocess(config, sockets=sockets).run()
        return
    server = Server(config)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, server.handle_exit)
    server.run(sockets)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # all is done, and a signal must not interrupt the interpreter's own end
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def end_with_parent() -> None:
    """End this worker process, as its parent would, once the parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="parent", daemon=True).start()


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
