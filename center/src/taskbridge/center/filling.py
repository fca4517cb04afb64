"""Whether the lists are complete: looked up once a second, so that queries need not."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads
from taskbridge.runtime.follow.positions import Progress, progress
from taskbridge.schemas.topics import PEOPLE, TASK_STATES

log = structlog.get_logger(__name__)

_LOOK_S = 1.0


class Filling:
    """How much of the topics the database contains, written by any replica."""

    def __init__(self, database: Database, threads: Threads) -> None:
        self._database = database
        self._threads = threads
        self._lists = Progress(complete=False, read=0, of=0)
        self.people_complete = False
        self.problem: str | None = "the database was not read yet"
        """Why the database does not answer."""

    def is_complete(self) -> bool:
        return self._lists.complete

    @property
    def ratio(self) -> float:
        """The share that the lists contain of the states, from 0 to 1."""
        if self._lists.complete:
            return 1.0
        return min(0.999, self._lists.read / self._lists.of) if self._lists.of else 0.0

    def details(self) -> dict[str, Any]:
        return {
            "database": "connected" if self.problem is None else "unavailable",
            "lists": {"complete": self.is_complete(), "filled": round(self.ratio, 3)},
        }

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """While the database does not answer, the last answer counts."""
        problem = None
        try:
            self._lists, self.people_complete = await self._threads.run(self._read)
        except DatabaseUnavailable as error:
            problem = str(error)
        if problem != self.problem:
            self.problem = problem
            if problem is not None:
                log.error("database_unavailable", problem=problem)

    def _read(self) -> tuple[Progress, bool]:
        with self._database.read() as connection:
            return progress(connection, TASK_STATES.name), progress(connection, PEOPLE.name).complete
