"""Brings the people's topic to what a file says: what is there already is not written again."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.cli.topics.reading import read_to_end
from taskbridge.local.progress import Heartbeat
from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.producer import AsyncProducer
from taskbridge.runtime.settings import partitions_setting
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.cloudevents import CONTENT_TYPE
from taskbridge.schemas.codec import Undecodable, person_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.topics import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.people.people_file import Row
    from taskbridge.local.progress import Progress
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import PersonRecord

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, and what that is beside what is there."""

    records: Mapping[bytes, PersonRecord | None]
    new: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0


def prepare(connection: Connection) -> None:
    """Make the topic where it is missing, and register its schema. Safe to repeat.

    Raises:
        OperatorError: Kafka or the registry does not answer, or this user may not.
    """
    apply_topics(connection.admin(), [PEOPLE], partitions=partitions_setting(os.environ))
    connection.registry.register([PEOPLE])


def plan(connection: Connection, rows: Sequence[Row], progress: Progress, *, delete: bool) -> Plan:
    """Compare the file with the topic; with ``delete``, the file's people are to be there no more.

    Raises:
        ConfigurationError: there is no such topic.
        OperatorError: Kafka or the registry does not answer.
    """
    codec = person_codec(connection.registry)
    known = {message.key(): message.value() for message in read_to_end(connection, PEOPLE.name, progress=progress)}
    records: dict[bytes, PersonRecord | None] = {}
    counts: Counter[str] = Counter()
    for corp_id, person in rows:
        key = notification_key(corp_id, person.user_id)
        before, wanted = known.get(key), None if delete else person
        if (before is None) == (wanted is None) and (before is None or _says(codec, before, person)):
            counts["unchanged"] += 1
        else:
            records[key] = wanted
            counts["deleted" if delete else "new" if before is None else "changed"] += 1
    return Plan(records, **counts)


def _says(codec: Codec[PersonRecord], value: bytes, person: PersonRecord) -> bool:
    try:
        return codec.decode(value) == person
    except Undecodable:  # any system may have written it
        return False


def carry_out(connection: Connection, found: Plan, progress: Progress) -> None:
    """Write it; return once all in-sync replicas have all of it.

    Raises:
        OperatorError: Kafka did not take all of it. What it took stands; the same import again writes the rest.
    """
    codec = person_codec(connection.registry)
    records = {key: None if each is None else codec.encode(each) for key, each in found.records.items()}
    asyncio.run(_write(connection, records, progress))


async def _write(connection: Connection, records: Mapping[bytes, bytes | None], progress: Progress) -> None:
    producer = AsyncProducer(producer_config(connection.bootstrap_servers, connection.kafka_properties))
    heartbeat, left = Heartbeat(progress), list(records.items())
    try:
        while left:
            batch = [
                producer.produce(PEOPLE.name, key=key, value=value, headers=[] if value is None else [CONTENT_TYPE])
                for key, value in left[:_BATCH]
            ]
            done = await asyncio.gather(*batch, return_exceptions=True)
            for error in filter(None, done):
                taken = len(records) - len(left) + done.count(None)
                raise OperatorError(
                    f"{error}; {taken} of {len(records)} records are there: import the file again"
                ) from error
            left = left[_BATCH:]
            heartbeat.beat(f"writing {PEOPLE.name}: {len(records) - len(left)} of {len(records)} records")
    finally:
        await producer.close()
