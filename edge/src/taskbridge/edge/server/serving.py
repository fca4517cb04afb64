"""Runs the edge in this process, or in several workers, on listening sockets, until a signal ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from taskbridge.edge.server.protocol import EdgeProtocol

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
    config = uvicorn.Config(
        app if workers == 1 else factory,
        factory=workers > 1,
        workers=workers,
        loop=loop_of(are_held=are_held, workers=workers),
        http=EdgeProtocol,
        proxy_headers=False,  # uvicorn's own would let anyone on this machine name any address
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        reset_contextvars=True,  # else a request that was pipelined has its log lines in the trace of the one before
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_worker_healthcheck=_WORKER_START_S,
    )
    if workers > 1:
        Multiprocess(config, sockets=sockets).run()
        return
    server = _Server(config)
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


def loop_of(*, are_held: bool, workers: int) -> str:
    """The loop of each process, as the name that uvicorn imports."""
    name = "HeldSocketsLoop" if are_held else "AcceptingLoop"
    if workers > 1:
        name = "SharingHeldSocketsLoop" if are_held else "SharingLoop"
    return f"taskbridge.edge.server.sockets:{name}"


class _Server(uvicorn.Server):
    """Ends in bounded time, however many signals arrive.

    After a second Ctrl-C uvicorn would leave callbacks unanswered and parts open, and ``uv run`` repeats a signal that
    the terminal has sent already. Nor is the signal raised again at the end, while the loop is being closed.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the overridden signature
        self.should_exit = True


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
