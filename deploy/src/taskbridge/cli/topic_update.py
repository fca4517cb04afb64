"""Update a compacted topic to the contents of a file; unchanged records are not written."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from taskbridge.cli.terminal import Heartbeat
from taskbridge.runtime.topic_admin import apply_topics, partitions_setting
from taskbridge.schemas.cloudevents import CONTENT_TYPE, FROM_DINGTALK, headers_of
from taskbridge.schemas.codec import Undecodable, form_codec, person_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Form, PersonRecord
from taskbridge.schemas.topics import FORMS, PEOPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import Progress
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.registry import Registry
    from taskbridge.schemas.topics import Topic

_BATCH = 500

R = TypeVar("R", PersonRecord, Form)


class Target(NamedTuple, Generic[R]):
    topic: Topic
    codec: Callable[[Registry], Codec[R]]


PEOPLE_TARGET, FORMS_TARGET = Target(PEOPLE, person_codec), Target(FORMS, form_codec)
TARGETS: Mapping[str, Target[Any]] = {"people": PEOPLE_TARGET, "forms": FORMS_TARGET}


class Plan(NamedTuple, Generic[R]):
    """The records to write, and the counts ``new``, ``changed``, ``deleted`` and ``unchanged``."""

    records: Mapping[bytes, R | None]
    counts: Counter[str]


def fill(connection: Connection, target: Target[R], records: Mapping[bytes, R], progress: Progress) -> None:
    """Write these records to the topic, which is created if missing. Safe to repeat; raises as its parts do."""
    prepare(connection, target.topic)
    carry_out(connection, target, plan(connection, target, records, progress), progress)


def prepare(connection: Connection, topic: Topic) -> None:
    """Create the topic if it is missing, and register its schema. Safe to repeat.

    Raises OperatorError if Kafka or the registry does not answer, or denies access.
    """
    apply_topics(connection.admin(), [topic], partitions=partitions_setting(os.environ))
    connection.registry.register([topic])


def plan(
    connection: Connection, target: Target[R], records: Mapping[bytes, R], progress: Progress, *, delete: bool = False
) -> Plan[R]:
    """Compare the records with the topic; with ``delete``, plan to delete their keys.

    Raises ConfigurationError if the topic does not exist; OperatorError if Kafka or the registry does not answer.
    """
    codec = target.codec(connection.registry)
    known: dict[bytes | None, bytes | None] = {}
    from_dingtalk = set[bytes | None]()
    for each in connection.read_to_end(target.topic.name, progress=progress):
        known[each.key()] = each.value()
        (from_dingtalk.add if FROM_DINGTALK in headers_of(each) else from_dingtalk.discard)(each.key())
    differing: dict[bytes, R | None] = {}
    counts: Counter[str] = Counter()
    for key, record in records.items():
        before, target_record = known.get(key), None if delete else record
        # A record of DingTalk's is written again even if it is equal: an imported one is never replaced.
        is_equal = before is None or (key not in from_dingtalk and _equals(codec, before, record))
        if (before is None) == (target_record is None) and is_equal:
            counts["unchanged"] += 1
        else:
            differing[key] = target_record
            counts["deleted" if delete else "new" if before is None else "changed"] += 1
    return Plan(differing, counts)


def _equals(codec: Codec[R], value: bytes, record: R) -> bool:
    try:
        return codec.decode(value) == record
    except Undecodable:  # written by another program
        return False


def carry_out(connection: Connection, target: Target[R], found: Plan[R], progress: Progress) -> None:
    """Write the planned records; return once all in-sync replicas have them.

    Raises OperatorError if Kafka did not accept all records. Accepted records stay; importing again writes the rest.
    """
    codec = target.codec(connection.registry)
    records = {key: None if each is None else codec.encode(each) for key, each in found.records.items()}
    asyncio.run(_write(connection, target.topic.name, records, progress))


async def _write(connection: Connection, topic: str, records: Mapping[bytes, bytes | None], progress: Progress) -> None:
    producer = connection.producer()
    heartbeat, left = Heartbeat(progress), list(records.items())
    try:
        while left:
            batch = [
                producer.produce(topic, key=key, value=value, headers=[] if value is None else [CONTENT_TYPE])
                for key, value in left[:_BATCH]
            ]
            done = await asyncio.gather(*batch, return_exceptions=True)
            for error in filter(None, done):
                accepted = len(records) - len(left) + done.count(None)
                raise OperatorError(
                    f"{error}; {accepted} of {len(records)} records were written: import the file again"
                ) from error
            left = left[_BATCH:]
            heartbeat.beat(f"writing {topic}: {len(records) - len(left)} of {len(records)} records")
    finally:
        await producer.close()
