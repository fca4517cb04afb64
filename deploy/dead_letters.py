"""What operators do with dead letters: read them, and put them back on the topic that they were taken from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from deploy.tail import Decoder, text_of
from deploy.topic_reading import read_one, read_to_end
from schemas.topics import TASK_EVENTS, TASK_EVENTS_DLQ
from service.kafka import AsyncProducer, DeliveryFailed, QueueFull, producer_config
from streams.dead_letters import LEFT_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from confluent_kafka import Message

    from deploy.connection import Connection
    from deploy.local.progress import Progress

REPLAYED, REPLAYED_BEFORE, NOT_OURS, FAILED, GONE = (
    "replayed",
    "already-replayed",
    "of-another-topic",
    "not-delivered",
    "no-longer-kept",
)

REPLAY_HEADER = "dlq_replay_of"
"""On a record that was put back: the id of its dead letter, so that it is put back once."""

_PREFIX = "dlq_"
_BATCH = 500

type_headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One record of the dead-letter topic."""

    id: str
    """Its place there, as ``partition-offset``."""
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: type_headers

    def said(self, name: str) -> str | None:
        """What the header says that the stream added; None where there is none."""
        return next((text_of(value) for key, value in reversed(self.headers) if key == _PREFIX + name), None)

    @property
    def was_left(self) -> bool:
        """Too large to be parked: its value and headers are still where they were received, if they are kept there."""
        return any(name == LEFT_HEADER for name, _ in self.headers)

    @property
    def received_headers(self) -> type_headers:
        return [each for each in self.headers if not each[0].startswith(_PREFIX)]


def read_dead_letters(connection: Connection, progress: Progress) -> Iterator[DeadLetter]:
    """Every dead letter, partition by partition."""
    for message in read_to_end(connection, TASK_EVENTS_DLQ.name, progress=progress):
        yield DeadLetter(
            id=f"{message.partition()}-{message.offset()}",
            at_ms=message.timestamp()[1],
            key=message.key(),
            value=message.value(),
            headers=_headers(message),
        )


def summary(letter: DeadLetter) -> dict[str, Any]:
    """What a list shows of a dead letter."""
    return {
        "id": letter.id,
        "at": letter.said("at"),
        "reason": letter.said("reason"),
        "key": text_of(letter.key),
        "from": f"{letter.said('topic')} {letter.said('partition')}-{letter.said('offset')}",
        "detail": letter.said("detail"),
    }


def in_full(letter: DeadLetter, connection: Connection) -> dict[str, Any]:
    """Everything that is kept of one dead letter; the value decoded where its schema can be had."""
    letter = _whole(letter, connection)
    headers = {name: text_of(value) for name, value in letter.received_headers}
    return {**summary(letter), "headers": headers, "value": Decoder(connection.registry).value(letter.value)}


def replay(connection: Connection, letters: Sequence[DeadLetter], progress: Progress) -> list[tuple[DeadLetter, str]]:
    """Put the letters back with the key, value and headers they had, each once; says what became of each.

    Raises:
        OperatorError: Kafka does not answer.
    """
    before = _replayed_before(connection, letters, progress) if letters else set[str]()
    return asyncio.run(_replay(connection, letters, before, progress))


async def _replay(
    connection: Connection, letters: Sequence[DeadLetter], before: set[str], progress: Progress
) -> list[tuple[DeadLetter, str]]:
    producer = AsyncProducer(producer_config(connection.bootstrap_servers, connection.kafka_properties))
    done: list[tuple[DeadLetter, str]] = []
    try:
        for start in range(0, len(letters), _BATCH):
            batch = [_whole(each, connection) for each in letters[start : start + _BATCH]]
            outcomes = [(each, _outcome(each, before)) for each in batch]
            records = [
                (each.key, each.value, [*each.received_headers, (REPLAY_HEADER, each.id.encode())])
                for each, outcome in outcomes
                if outcome == REPLAYED
            ]
            try:
                await asyncio.gather(
                    *(
                        producer.produce(TASK_EVENTS.name, key=key, value=value, headers=headers)
                        for key, value, headers in records
                    )
                )
            except (DeliveryFailed, QueueFull) as error:
                progress(str(error))
                outcomes = [(each, FAILED if outcome == REPLAYED else outcome) for each, outcome in outcomes]
            done += outcomes
    finally:
        await producer.close()
    return done


def _outcome(letter: DeadLetter, before: set[str]) -> str:
    if letter.said("topic") != TASK_EVENTS.name:
        return NOT_OURS
    if letter.id in before:
        return REPLAYED_BEFORE
    return GONE if letter.was_left and letter.value is None else REPLAYED


def _whole(letter: DeadLetter, connection: Connection) -> DeadLetter:
    """The letter with what was left on the topic that it was taken from, as long as that is kept there."""
    partition, offset = letter.said("partition"), letter.said("offset")
    topic = letter.said("topic")
    if not letter.was_left or topic is None or partition is None or offset is None:
        return letter
    found = read_one(connection, topic, int(partition), int(offset))
    if found is None:
        return letter
    return replace(letter, key=found.key(), value=found.value(), headers=[*_headers(found), *letter.headers])


def _replayed_before(connection: Connection, letters: Sequence[DeadLetter], progress: Progress) -> set[str]:
    since = min(each.at_ms for each in letters)
    return {
        value.decode()
        for message in read_to_end(connection, TASK_EVENTS.name, progress=progress, since_ms=since)
        for name, value in _headers(message)
        if name == REPLAY_HEADER
    }


def _headers(message: Message) -> type_headers:
    return [(name, value or b"") for name, value in cast("list[tuple[str, bytes | None]]", message.headers() or [])]
