"""Keeps a directory up to date with its topic: reads it from the beginning, then new records every few seconds.

Nothing waits for it. A failure to read is logged once, and the known records are used until it can read again.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Form, PersonRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.codec import Codec
    from taskbridge.streams.directories.directory import Directory
    from taskbridge.streams.offsets import Offsets

log = structlog.get_logger(__name__)

_LOOK_S = 5.0
_QUIET_S = 10.0

R = TypeVar("R", PersonRecord, Form)


class DirectoryReader(Generic[R]):
    """One consumer in a thread of its own."""

    def __init__(
        self,
        directory: Directory[R, Any],
        config: Mapping[str, object],
        *,
        offsets: Offsets,
        codec: Codec[R],
        topic: str | None = None,
    ) -> None:
        """``topic`` where it is not the directory's own."""
        self._directory = directory
        self._reader = PartitionReader({**config, "queued.max.messages.kbytes": 4 << 10})
        self._offsets = offsets
        self._codec = codec
        self._topic = topic or directory.topic.name
        self._thread = ThreadPoolExecutor(1, f"{directory.what}-reader")
        self._closed = False
        self._topic_id: str | None = None
        self._next: dict[int, int] = {}
        self._told: str | None = "nothing yet"
        self._read_at = time.monotonic()

    @property
    def age_s(self) -> float:
        """How long ago the directory was as its topic."""
        return time.monotonic() - self._read_at

    async def keep(self) -> None:
        """Read on until cancelled, also after errors."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(self._thread, self.look)
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reader.close)
        self._thread.shutdown()

    def look(self) -> None:
        """Read new records. Blocks; an error is logged, and the next call tries again."""
        problem = None
        try:
            problem = self._read_on()
        except (KafkaException, TimeoutError, OperatorError) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if not self._closed:
                self._read_at = time.monotonic()
        if problem != self._told:
            self._told = problem
            if problem is None:
                self._tell(log.info, "read", known=self._directory.count)
            else:
                self._tell(log.warning, "not_read", problem=problem)

    def _read_on(self) -> str | None:
        """Returns the event to log if there is nothing to read, which is no failure."""
        found = self._offsets.topics([self._topic]).get(self._topic)
        topic_id = None if found is None else found.topic_id
        if topic_id != self._topic_id:
            self._restart(topic_id)
        if found is None:
            self._directory.is_read = True
            return f"there is no topic {self._topic}: ids are shown"
        ends = self._offsets.decided(self._topic, range(found.partitions))
        if any(end < self._next.get(partition, 0) for partition, end in ends.items()):
            # It lost its end, and other records are there now.
            self._restart(topic_id)
        if new := ends.keys() - self._next.keys():
            self._next |= self._offsets.begins(self._topic, new)
        unusable = self._take(ends)
        if self._closed:
            return None
        self._directory.is_read = True
        if unusable:
            self._tell(log.warning, "undecodable", records=len(unusable), first=unusable[0])
        for event, values in self._directory.news():
            self._tell(log.warning, event, **values)
        return None

    def _tell(self, tell: Callable[..., object], event: str, **values: object) -> None:
        tell(f"{self._directory.what}_{event}", **values)

    def _restart(self, topic_id: str | None) -> None:
        self._directory.clear()
        self._topic_id, self._next = topic_id, {}

    def _take(self, ends: Mapping[int, int]) -> list[str]:
        """What could not be used, in words."""
        unusable: list[str] = []
        batches = self._reader.read(self._topic, dict(self._next), ends, quiet_s=_QUIET_S)
        with closing(batches):
            for batch in batches:
                for message in batch:
                    partition, offset = message.partition() or 0, message.offset() or 0
                    try:
                        self._apply(message)
                    except Undecodable as error:
                        unusable.append(f"partition {partition} offset {offset}: {error}")
                    self._next[partition] = offset + 1
                if self._closed:
                    return unusable
        self._next |= self._reader.reached
        return unusable

    def _apply(self, message: Message) -> None:
        """As the latest record of its key says; where nobody can read that, nothing is known of what it is about.

        Raises:
            Undecodable: that is so.
            RegistryUnavailable: it has to be read later.
        """
        corp_id, its_id = _named(message.key())
        value = message.value()
        try:
            record = None if value is None else self._codec.decode(value)
            if record is not None:
                self._directory.check(its_id, record)
        except Undecodable:
            self._directory.forget(corp_id, its_id)
            raise
        if record is None:
            self._directory.forget(corp_id, its_id)
        else:
            self._directory.know(corp_id, record)


def _named(key: bytes | None) -> tuple[str, str]:
    """Corp and id: the corp ends at the key's first slash."""
    try:
        corp_id, _, its_id = (key or b"").decode().partition("/")
    except UnicodeDecodeError as error:
        raise Undecodable("its key is not UTF-8") from error
    if not corp_id or not its_id:
        raise Undecodable("its key names no corp and no id in it")
    return corp_id, its_id
