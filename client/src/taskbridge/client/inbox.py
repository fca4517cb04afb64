"""People's task centers in this program's memory, kept up to date by what comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from taskbridge.client.reading import Reader
from taskbridge.client.subscription import Filter, log_undecodable
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.events import Change, View
from taskbridge.schemas.inbox import apply

if TYPE_CHECKING:
    from types import TracebackType

    from taskbridge.client.source import Source
    from taskbridge.client.subscription import Wanted
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.inbox import Inbox as Lines

_BATCH = 500


class Inbox:
    """The lists of these organisations' people, as the notifications on the topic add up; ``async with`` keeps them.

    Entering returns when everything is in that was on the topic then; from there on it follows by itself, until the
    end of the ``async with``. It joins no group and commits nothing: each program that keeps one has all of it, rebuilt
    from the topic's first record at each start. What is away is waited for; lists stay as they were meanwhile. What
    cannot be decoded, or is of a newer version's view, is passed over; the first is logged.

    **As complete as the topic.** That keeps seven days, so a task that has not moved for longer is missing after a
    start, until ``taskbridge streams --republish`` publishes every present entry again. Who needs all of it at every
    start raises the topic's ``retention.ms``, or asks the task center's API.
    """

    def __init__(self, source: Source, *, corp: Wanted = None, person: Wanted = None) -> None:
        self._source = source
        self._is_wanted = Filter.of(corp=corp, person=person)
        self._people: dict[tuple[str, str], Lines] = {}
        self._open = AsyncExitStack()
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Come to the end of the topic.

        Raises:
            ConfigurationError: librdkafka does not take the source's properties.
            KafkaRefused: Kafka does not let this client read.
        """
        self._people, self._following = {}, None
        async with AsyncExitStack() as opened:
            reader = await opened.enter_async_context(
                Reader(self._source.whole, self._source.open_registry(), batch=_BATCH)
            )
            while not reader.is_at_end:
                await self._take(reader)
            self._open = opened.pop_all()
        self._following = asyncio.create_task(self._follow(reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._open:
            assert self._following is not None
            self._following.cancel()
            await asyncio.wait([self._following])

    def entries(self, corp: str, person: str, view: View) -> list[TaskNotification]:
        """What the view shows, in the order of the task center: by the time it entered the view, newest first.

        Raises what ended the following, such as KafkaRefused.
        """
        found = [each for line, each in self._lines(corp, person).items() if line.view is view]
        return sorted(found, key=_place)

    def counts(self, corp: str, person: str) -> dict[View, int]:
        """How many entries each of the four views has.

        Raises what ended the following, such as KafkaRefused.
        """
        counted = Counter(line.view for line in self._lines(corp, person))
        return {view: counted[view] for view in View if view is not View.UNKNOWN}

    def people(self) -> list[tuple[str, str]]:
        """Organisation and id of everybody who has an entry."""
        return [each for each, lines in self._people.items() if lines]

    def _lines(self, corp: str, person: str) -> Lines:
        if self._following is not None and self._following.done():
            self._following.result()
        return self._people.get((corp, person), {})

    async def _follow(self, reader: Reader) -> None:
        while True:
            await self._take(reader)

    async def _take(self, reader: Reader) -> None:
        for record in await reader.read():
            told = record.content
            if isinstance(told, Undecodable):
                log_undecodable(record)
            elif self._is_wanted(told) and told.view is not View.UNKNOWN and told.change is not Change.UNKNOWN:
                apply(self._people.setdefault((told.corp_id, told.recipient_id), {}), told)


def _place(entry: TaskNotification) -> tuple[int, bytes, bytes]:
    """Those of one moment by their ids; an entry about the whole instance before those about its tasks."""
    at = entry.occurred_at if entry.entered_at is None else entry.entered_at
    return -at, entry.instance_id.encode(), (entry.task_id or "").encode()
