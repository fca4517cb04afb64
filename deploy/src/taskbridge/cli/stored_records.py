"""Records that are set aside on a topic, dead letters and quarantined callbacks: how they are read and replayed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from taskbridge.cli.terminal import Heartbeat, progress
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.topics import Topic

_BATCH = 200


class _Stored(Protocol):
    @property
    def reason(self) -> str | None: ...


E = TypeVar("E", bound=_Stored)
R = TypeVar("R")
S = TypeVar("S")
Choose = Callable[[Mapping[str, E]], Collection[str]]


@dataclass(kw_only=True)
class StoredRecords(Generic[E]):
    """One kind of stored record: its words, and how it is read and shown."""

    name: str
    noun: str
    none: str
    read: Callable[[Connection, dict[str, str]], Iterable[E]]
    position: Callable[[E], tuple[int, str]]
    summary: Callable[[E], dict[str, Any]]
    whole: Callable[[E, Connection], dict[str, Any]]

    def listed(self, connection: Connection) -> list[dict[str, Any]]:
        replays: dict[str, str] = {}
        summaries = [self.summary(each) for each in sorted(self.read(connection, replays), key=self.position)]
        return [each | {"replayed_at": replays.get(each["id"])} for each in summaries]

    def shown(self, connection: Connection, entry_id: str) -> dict[str, Any]:
        """All fields of a record, the content last. Raises ConfigurationError if none has the id."""
        replays: dict[str, str] = {}
        entries = self.by_id(connection, replays)
        check_ids(self.name, [entry_id], entries)
        whole = self.whole(entries[entry_id], connection)
        content = whole.popitem()
        return {**whole, "replayed_at": replays.get(entry_id), **dict([content])}

    def by_id(self, connection: Connection, replays: dict[str, str]) -> dict[str, E]:
        return {self.position(each)[1]: each for each in self.read(connection, replays)}

    def chosen(
        self, entries: Mapping[str, E], ids: list[str] | None, reason: str | None, *, everything: bool
    ) -> list[str]:
        """The ids to replay: those given, else all of the reason, else all; ``entries`` has all records by id.

        Raises ConfigurationError if an id does not exist, or no record has the reason.
        """
        if ids:
            check_ids(self.name, ids, entries)
            return list(dict.fromkeys(ids))
        found = [name for name, each in entries.items() if everything or reason == each.reason]
        if entries and not found:
            raise ConfigurationError(self.nothing_for(reason, [each.reason for each in entries.values()]))
        if not found:
            progress(f"nothing to replay: {self.none}")
        return found

    def nothing_for(self, reason: str | None, reasons: Collection[str | None]) -> str:
        if reason is None or not reasons:
            return self.none
        counted = Counter(each or "-" for each in reasons).most_common()
        found = ", ".join(f"{each} ({count})" for each, count in counted)
        return f"no {self.noun} has the reason '{reason}'; reasons found: {found}"


class Replayed(NamedTuple):
    shown: dict[str, Any]
    detail: str
    failed: bool


def check_ids(kind: str, ids: Iterable[str], stored: Collection[str]) -> None:
    """Check that records have these ids. Raises ConfigurationError, which names those that none has."""
    if missing := [each for each in ids if each not in stored]:
        raise ConfigurationError(
            f"no record has the id {', '.join(missing)}: list the ids with 'taskbridge set-aside list {kind}'"
        )


async def publish(
    connection: Connection, entries: Sequence[S], one: Callable[[AsyncProducer, S], Awaitable[R]], *, size: int = _BATCH
) -> list[R]:
    """The outcome of ``one`` for each entry, ``size`` of them at a time, with progress."""
    if not entries:
        return []
    producer, heartbeat = connection.producer(), Heartbeat(progress)
    done: list[R] = []
    try:
        for start in range(0, len(entries), size):
            batch = asyncio.gather(*(one(producer, each) for each in entries[start : start + size]))
            while not (await asyncio.wait([batch], timeout=1))[0]:
                heartbeat.beat(f"publishing: {len(done)} of {len(entries)} done")
            done += batch.result()
    finally:
        await producer.close()
    return done


async def mark_replayed(producer: AsyncProducer, topic: Topic, entry_id: str, key: bytes | None) -> None:
    """Mark a record as replayed, on its own topic.

    Returns also if Kafka refuses the mark: the next replay finds the record published, and marks it.
    """
    from taskbridge.schemas.dead_letters import replay_headers

    headers = replay_headers(entry_id, time.time_ns() // 1_000_000)
    try:
        await producer.produce(topic.name, key=key, value=None, headers=headers)
    except OperatorError as error:
        progress(f"{entry_id} was replayed, but not marked as replayed ({error}): replay it again to mark it")
