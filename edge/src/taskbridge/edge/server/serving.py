"""Runs the edge in this process, or in several workers, on sockets that listen already, until it is told to end."""

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
"""uvicorn's own 5 s would kill workers that start slowly on a busy machine, and start them again, for ever."""


def end_when_told() -> None:
    """Until it serves, a signal ends the process with 0; SIGHUP is as SIGTERM, also later."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _exit)
    signal.signal(signal.SIGHUP, _terminate)


def serve(app: FastAPI, sockets: list[socket.socket], *, are_held: bool, workers: int, factory: str) -> None:
    """Return when it was told to end and what was under way is finished; ``factory`` makes the app of several workers.

    With several workers SIGHUP replaces them one by one, each once its successor serves. ``are_held``: somebody keeps
    the sockets open when this process ends.
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
        signal.signal(each, signal.SIG_IGN)  # all is done, and the interpreter's own end is no time for them
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def end_with_parent() -> None:
    """In a worker process: once its parent is gone, however that ended, it is told to end as by the parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="parent", daemon=True).start()


def loop_of(*, are_held: bool, workers: int) -> str:
    """The loop of each process, by the name that uvicorn imports."""
    name = "HeldSocketsLoop" if are_held else "AcceptingLoop"
    if workers > 1:
        name = "SharingHeldSocketsLoop" if are_held else "SharingLoop"
    return f"taskbridge.edge.server.connections.accepting:{name}"


class _Server(uvicorn.Server):
    """Ends in its own bounded time, however often it is told to.

    Of a second Ctrl-C uvicorn would leave callbacks unanswered and parts open, and ``uv run`` passes on what the
    terminal has sent us already. Nor is the signal raised again at the end, in the midst of the loop's closing.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the overridden signature
        self.should_exit = True


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
