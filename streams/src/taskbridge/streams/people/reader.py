"""Keeps the directory of people as their topic says: read from its beginning, and every few seconds what is new.

Nothing waits for it. What keeps it from reading is told once, and what it knew stands until it can read again.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import MAX_PERSON_CHARACTERS
from taskbridge.schemas.topics import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import PersonRecord
    from taskbridge.streams.people.directory import Directory
    from taskbridge.streams.positions.offsets import Offsets

log = structlog.get_logger(__name__)

_LOOK_S = 5.0
_QUIET_S = 10.0
_NO_TOPIC = f"there is no topic {PEOPLE.name}: people are shown by their ids"


class PeopleReader:
    """One consumer in a thread of its own."""

    def __init__(
        self,
        directory: Directory,
        config: Mapping[str, object],
        *,
        offsets: Offsets,
        codec: Codec[PersonRecord],
        topic: str = PEOPLE.name,
    ) -> None:
        self._directory = directory
        self._reader = PartitionReader({**config, "queued.max.messages.kbytes": 4 << 10})
        self._offsets = offsets
        self._codec = codec
        self._topic = topic
        self._thread = ThreadPoolExecutor(1, "people-reader")
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
        """Read on until cancelled, whatever comes in between."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(self._thread, self.look)
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reader.close)
        self._thread.shutdown()

    def look(self) -> None:
        """Take in what is new. Blocks; what goes wrong is told, and tried again the next time."""
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
                log.info("people_read", people=self._directory.count)
            else:
                log.warning("people_not_read", problem=problem)

    def _read_on(self) -> str | None:
        """Returns what is to be told where there is nothing to be read, and that is no failure."""
        found = self._offsets.topics([self._topic]).get(self._topic)
        topic_id = None if found is None else found.topic_id
        if topic_id != self._topic_id:
            self._start_anew(topic_id)
        if found is None:
            self._directory.is_read = True
            return _NO_TOPIC
        ends = self._offsets.decided(self._topic, range(found.partitions))
        if any(end < self._next.get(partition, 0) for partition, end in ends.items()):
            # It lost its end, and what stands there now is something else.
            self._start_anew(topic_id)
        if new := ends.keys() - self._next.keys():
            self._next |= self._offsets.begins(self._topic, new)
        left_out, shared = self._directory.left_out, set(self._directory.shared)
        unusable = self._take(ends)
        if self._closed:
            return None
        self._directory.is_read = True
        if unusable:
            log.warning("people_undecodable", records=len(unusable), first=unusable[0])
        if self._directory.shared - shared:
            # Whom it concerns, and not the id: that is personal, and not for a log.
            corp_id, mapped_id = min(self._directory.shared - shared)
            users = self._directory.users_of(corp_id, mapped_id)
            log.warning("people_share_an_id", ids=len(self._directory.shared), corp_id=corp_id, users=sorted(users))
        if self._directory.left_out > left_out:
            log.warning("people_left_out", people=self._directory.count, records=self._directory.left_out)
        return None

    def _start_anew(self, topic_id: str | None) -> None:
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
        """As the latest record of its key says; where nobody can read that, nothing is known of the person.

        Raises:
            Undecodable: that is so.
            RegistryUnavailable: it has to be read later.
        """
        corp_id, user_id = _named(message.key())
        value = message.value()
        person = None
        try:
            if value is not None:
                person = _checked(self._codec.decode(value), user_id)
        except Undecodable:
            self._directory.forget(corp_id, user_id)
            raise
        if person is None:
            self._directory.forget(corp_id, user_id)
        else:
            self._directory.know(corp_id, person)


def _named(key: bytes | None) -> tuple[str, str]:
    """Corp and user: the corp ends at the key's first slash."""
    try:
        corp_id, _, user_id = (key or b"").decode().partition("/")
    except UnicodeDecodeError as error:
        raise Undecodable("its key is not UTF-8") from error
    if not corp_id or not user_id:
        raise Undecodable("its key names no corp and user")
    return corp_id, user_id


def _checked(person: PersonRecord, user_id: str) -> PersonRecord:
    if person.user_id != user_id:
        raise Undecodable("it is about somebody else than its key")
    if max(len(person.user_id), len(person.name or "")) > MAX_PERSON_CHARACTERS:
        raise Undecodable(f"its name or id has more than {MAX_PERSON_CHARACTERS} characters")
    return person
