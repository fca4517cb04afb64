"""Receives from PostgreSQL whose changes any replica has committed, in a thread with a connection of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.center.database import Database
    from taskbridge.center.live.changes import Person

log = structlog.get_logger(__name__)

CHANNEL = "taskbridge_changes"
_RETRY_S = 1.0
_CHECK_S = 1.0
"""After so much silence the connection is tested."""

_decode = msgspec.json.Decoder(list[tuple[str, str]]).decode


class Listening:
    """Begins at once. ``lost`` is called after each new connection: before it, notifications may have been missed."""

    def __init__(self, database: Database, changed: Callable[[list[Person]], None], lost: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed
        self._lost = lost
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; the thread ends within seconds."""
        self._stopped.set()

    def _run(self) -> None:
        dialect = self._database.engine.dialect
        assert dialect.dbapi is not None
        failures = (SQLAlchemyError, dialect.dbapi.Error, OSError)
        while not self._stopped.is_set():
            try:
                self._listen()
            except failures as error:
                log.warning("listening_interrupted", problem=str(error).partition("\n")[0])
                self._stopped.wait(_RETRY_S)

    def _listen(self) -> None:
        pooled = self._database.engine.raw_connection()
        connection = pooled.driver_connection
        assert connection is not None
        pooled.detach()  # it does not go back to the pool
        try:
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANNEL}")
            self._lost()
            while not self._stopped.is_set():
                for each in connection.notifies(timeout=_CHECK_S):
                    self._changed(_decode(each.payload))
                    if self._stopped.is_set():
                        return
                connection.execute("SELECT 1")
        finally:
            connection.close()
