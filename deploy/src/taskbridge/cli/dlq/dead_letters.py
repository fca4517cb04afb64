"""Read dead letters, and publish them to their original topic again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from taskbridge.cli.topics.marking import mark_replayed
from taskbridge.cli.topics.reading import read_one, read_to_end
from taskbridge.cli.topics.tail import Decoder
from taskbridge.runtime.producer import AsyncProducer, DeliveryFailed, QueueFull
from taskbridge.schemas.cloudevents import headers_of, text_of
from taskbridge.schemas.dead_letters import REPLAY_HEADER, dead_letter_of, without_replays
from taskbridge.schemas.topics import REPLAYED_DAYS, TASK_EVENTS, TASK_EVENTS_DLQ

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import Progress
    from taskbridge.schemas.dead_letters import DeadLetter

REPLAYED, REPLAYED_BEFORE, NOT_OURS, FAILED, GONE, TOO_OLD = (
    "replayed",
    "already-replayed",
    "of-another-topic",
    "not-delivered",
    "no-longer-kept",
    "too-old",
)

_BATCH = 500
_REMEMBERED_MS = REPLAYED_DAYS * 24 * 60 * 60 * 1000


def read_dead_letters(connection: Connection, progress: Progress, replays: dict[str, str]) -> Iterator[DeadLetter]:
    """Every dead letter, partition by partition; ``replays`` receives the time of replay by id."""
    for message in without_replays(read_to_end(connection, TASK_EVENTS_DLQ.name, progress=progress), replays):
        yield dead_letter_of(message)


def summary(letter: DeadLetter) -> dict[str, Any]:
    """The fields of a dead letter in a list."""
    return {
        "id": letter.id,
        "at": letter.parked_at,
        "reason": letter.reason,
        "key": text_of(letter.key),
        "from": f"{letter.topic} {letter.partition}-{letter.offset}",
        "detail": letter.detail,
        "replayed_at": None,
    }


def in_full(letter: DeadLetter, replayed_at: str | None, connection: Connection) -> dict[str, Any]:
    """All fields of one dead letter; the value is decoded if its schema is available."""
    letter = _whole(letter, connection)
    headers = {name: text_of(value) for name, value in letter.received_headers}
    value = Decoder(connection.registry).value(letter.value)
    return {**summary(letter), "replayed_at": replayed_at, "headers": headers, "value": value}


def replay(
    connection: Connection,
    letters: Sequence[DeadLetter],
    replays: Mapping[str, str],
    progress: Progress,
    *,
    older_too: bool = False,
) -> list[tuple[DeadLetter, str]]:
    """Publish the letters again with their original key, value and headers, each once; returns each outcome.

    Each published letter is marked as replayed on the dead letters' topic, unless ``replays`` has it already.

    A letter older than the retention of instances stays, unless ``older_too``: the later events of its task may be
    gone, and it would be pending again.

    Raises:
        OperatorError: Kafka does not answer.
    """
    before = _replayed_before(connection, letters, progress) if letters else set[str]()
    oldest_ms = 0 if older_too else time.time() * 1000 - _REMEMBERED_MS
    return asyncio.run(_replay(connection, letters, before, replays, progress, oldest_ms=oldest_ms))


async def _replay(
    connection: Connection,
    letters: Sequence[DeadLetter],
    before: set[str],
    replays: Mapping[str, str],
    progress: Progress,
    *,
    oldest_ms: float,
) -> list[tuple[DeadLetter, str]]:
    producer = AsyncProducer.connect(connection.bootstrap_servers, connection.kafka_properties)

    async def put_back(parked: DeadLetter) -> tuple[DeadLetter, str]:
        letter = _whole(parked, connection)
        outcome = _outcome(letter, before, oldest_ms=oldest_ms)
        if outcome == REPLAYED:
            # First: the last of the received headers may be the trace.
            headers = [(REPLAY_HEADER, letter.id.encode()), *letter.received_headers]
            try:
                await producer.produce(TASK_EVENTS.name, key=letter.key, value=letter.value, headers=headers)
            except (DeliveryFailed, QueueFull) as error:
                progress(str(error))
                return letter, FAILED
        if outcome in (REPLAYED, REPLAYED_BEFORE) and letter.id not in replays:
            await mark_replayed(producer, TASK_EVENTS_DLQ, letter.id, parked.key, progress)
        return letter, outcome

    done: list[tuple[DeadLetter, str]] = []
    try:
        parked = [each for each in letters if not each.was_left]
        for start in range(0, len(parked), _BATCH):
            done += await asyncio.gather(*map(put_back, parked[start : start + _BATCH]))
        for each in letters:
            if each.was_left:  # one at a time: they are large
                done.append(await put_back(each))
    finally:
        await producer.close()
    return done


def _outcome(letter: DeadLetter, before: set[str], *, oldest_ms: float) -> str:
    if letter.topic != TASK_EVENTS.name:
        return NOT_OURS
    if letter.id in before:
        return REPLAYED_BEFORE
    if letter.at_ms < oldest_ms:
        return TOO_OLD
    return GONE if letter.was_left and letter.value is None else REPLAYED


def _whole(letter: DeadLetter, connection: Connection) -> DeadLetter:
    """The letter, completed from its original topic as long as the record is still there."""
    topic, partition, offset = letter.topic, letter.partition, letter.offset
    if not letter.was_left or topic is None or partition is None or offset is None:
        return letter
    found = read_one(connection, topic, partition, offset)
    if found is None:
        return letter
    return changed(letter, key=found.key(), value=found.value(), headers=[*headers_of(found), *letter.headers])


def _replayed_before(connection: Connection, letters: Sequence[DeadLetter], progress: Progress) -> set[str]:
    since = min(each.at_ms for each in letters)
    return {
        value.decode()
        for message in read_to_end(connection, TASK_EVENTS.name, progress=progress, since_ms=since)
        for name, value in headers_of(message)
        if name == REPLAY_HEADER
    }
