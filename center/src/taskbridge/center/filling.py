"""Whether the lists are complete: looked up once a second, and after each query of the lists."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.center.access import refusals
from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads
from taskbridge.runtime.follow.positions import Progress, epoch_if_filled, progress
from taskbridge.runtime.refusals import Unknown
from taskbridge.schemas.topics import PEOPLE, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Connection

    from taskbridge.center.tables import Seen

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_FILLING_S = 5.0
"""After how long a client may try again."""


class Filling:
    """How much of the topics the database contains, written by any replica."""

    def __init__(self, database: Database, threads: Threads) -> None:
        self._database = database
        self._threads = threads
        self._lists = Progress(complete=False, read=0, of=0)
        self._epoch: str | None = None
        """In which the lists are complete."""
        self.people_complete = False
        self.problem: str | None = "the database was not read yet"
        """Why the database does not answer."""

    def is_complete(self) -> bool:
        return self._epoch is not None

    @contextmanager
    def complete(self, connection: Connection) -> Generator[Seen]:
        """The lists were complete while the block has read them.

        The last look does not suffice: the lists may have been dropped since, and may even be filled again. A block
        whose last statement had the column ``filled_epoch`` passes its value on; otherwise there is one more query.

        Raises:
            Filling: It was not. A transaction is rolled back.
        """
        if not self.is_complete():
            raise not_filled()
        epoch, seen = self._epoch, list[str | None]()

        def check_again() -> None:
            if (seen[-1] if seen else epoch_if_filled(connection, TASK_STATES.name)) != epoch:
                raise not_filled()

        try:
            yield seen.append
        except Unknown:  # perhaps because it is read again
            check_again()
            raise
        check_again()

    @contextmanager
    def all_people(self, connection: Connection) -> Generator[None]:
        """All people were there while the block has read them; raises Filling if not."""
        before = epoch_if_filled(connection, PEOPLE.name)
        if before is not None:
            yield
        if before is None or epoch_if_filled(connection, PEOPLE.name) != before:
            problem = f"people are being read from {PEOPLE.name}: if this lasts, see whether it exists"
            raise refusals.Filling(problem, retry_after_s=_FILLING_S)

    @property
    def idle(self) -> str | None:
        """Why nobody fills the lists."""
        is_read = self.is_complete() or self.problem is not None or self._lists.of > 0
        return None if is_read else f"no replica reads {TASK_STATES.name} yet: if this lasts, see whether it exists"

    @property
    def ratio(self) -> float:
        """The share that the lists contain of the states, from 0 to 1."""
        if self.is_complete():
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
            self._lists, self._epoch, self.people_complete = await self._threads.run(self._read)
        except DatabaseUnavailable as error:
            problem = str(error)
        if problem != self.problem:
            self.problem = problem
            if problem is not None:
                log.error("database_unavailable", problem=problem)

    def _read(self) -> tuple[Progress, str | None, bool]:
        with self._database.read() as connection:
            lists, people = (progress(connection, each.name) for each in (TASK_STATES, PEOPLE))
            return lists, epoch_if_filled(connection, TASK_STATES.name), people.complete


def not_filled() -> refusals.Filling:
    return refusals.Filling("the lists are being filled from the topics: see /readyz", retry_after_s=_FILLING_S)
