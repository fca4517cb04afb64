"""The views of people in memory, updated by the notifications."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Self

from taskbridge.client.source import Reader, Source
from taskbridge.client.subscription import OneOrMany, accepting, log_undecodable
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.events import Change, TaskNotification, View
from taskbridge.schemas.inbox import Inbox as Lines
from taskbridge.schemas.inbox import apply

_BATCH = 500


class Inbox:
    """The views of the people of these corps, computed from the notifications on the topic. Use it with ``async with``.

    Entering returns when all notifications that were on the topic are applied. From then on the inbox follows the topic
    until the end of the ``async with``. It joins no group and commits nothing: each start reads the whole topic. It
    waits for brokers and the registry; the views stay unchanged meanwhile. A record that cannot be decoded is logged
    and skipped. A view or change of a newer version is skipped.

    **As complete as the topic.** The topic's retention is seven days. After a start, an entry that changed earlier is
    missing until ``taskbridge streams --republish`` publishes every present entry again. For complete views at every
    start, raise the topic's ``retention.ms`` or use the task center's API.
    """

    def __init__(self, source: Source, *, corp: OneOrMany = None, person: OneOrMany = None) -> None:
        self._source = source
        self._accepts = accepting(corp=corp, person=person)
        self._people: dict[tuple[str, str], Lines] = {}
        self._open = AsyncExitStack()
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Read to the end of the topic.

        Raises:
            ConfigurationError: librdkafka rejects the properties of the source.
            KafkaRefused: Kafka denies this client access.
        """
        self._people, self._following = {}, None
        async with AsyncExitStack() as opened:
            reader = await opened.enter_async_context(
                Reader(self._source.whole, self._source.open_registry(), batch=_BATCH)
            )
            while not reader.is_at_end:
                await self._apply(reader)
            self._open = opened.pop_all()
        self._following = asyncio.create_task(self._follow(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._open:
            assert self._following is not None
            self._following.cancel()
            await asyncio.wait([self._following])

    def entries(self, corp: str, person: str, view: View) -> list[TaskNotification]:
        """The entries of a view in the order of the task center: by the time they entered the view, newest first.

        Raises the error that ended the updates, such as KafkaRefused.
        """
        found = [each for line, each in self._lines(corp, person).items() if line.view is view]
        return sorted(found, key=_sort_key)

    def counts(self, corp: str, person: str) -> dict[View, int]:
        """The number of entries in each of the four views.

        Raises the error that ended the updates, such as KafkaRefused.
        """
        counted = Counter(line.view for line in self._lines(corp, person))
        return {view: counted[view] for view in View if view is not View.UNKNOWN}

    def people(self) -> list[tuple[str, str]]:
        """The corp and the id of each person with an entry."""
        return [each for each, lines in self._people.items() if lines]

    def _lines(self, corp: str, person: str) -> Lines:
        if self._following is not None and self._following.done():
            self._following.result()
        return self._people.get((corp, person), {})

    async def _follow(self, reader: Reader) -> None:
        while True:
            await self._apply(reader)

    async def _apply(self, reader: Reader) -> None:
        for record in await reader.read():
            found = record.content
            if isinstance(found, Undecodable):
                log_undecodable(record)
            elif self._accepts(found) and found.view is not View.UNKNOWN and found.change is not Change.UNKNOWN:
                apply(self._people.setdefault((found.corp_id, found.recipient_id), {}), found)


def _sort_key(entry: TaskNotification) -> tuple[int, bytes, bytes]:
    """Entries of one time are ordered by id; an entry of the instance comes before those of its tasks."""
    at = entry.occurred_at if entry.entered_at is None else entry.entered_at
    return -at, entry.instance_id.encode(), (entry.task_id or "").encode()
