"""Serves an application on loopback, in a thread of its own, as long as somebody needs it."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Generator

LOOPBACK = "127.0.0.1"


@contextmanager
def served(app: Any, *, port: int = 0) -> Generator[str]:
    """Its address, from now until the end of the block; 0 is a free port."""
    listening = socket.create_server((LOOPBACK, port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        # Who connects before it is up waits in the socket's queue.
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
