"""Dead letters: records that streams could not process, which are published to their original topic again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from taskbridge.cli.stored_records import Replayed, StoredRecords, mark_replayed, publish
from taskbridge.cli.terminal import progress
from taskbridge.schemas.cloudevents import headers_of, text_of
from taskbridge.schemas.dead_letters import REPLAY_HEADER, DeadLetter, dead_letter_of, without_replays
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import REPLAYED_DAYS, TASK_EVENTS, TASK_EVENTS_DLQ

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.stored_records import Choose
    from taskbridge.runtime.producer import AsyncProducer

REPLAYED, REPLAYED_BEFORE, NOT_OURS = "replayed", "already-replayed", "of-another-topic"
FAILED, GONE, TOO_OLD = "not-delivered", "no-longer-kept", "too-old"

_RETENTION_MS = REPLAYED_DAYS * 24 * 60 * 60 * 1000


def read_dead_letters(connection: Connection, replays: dict[str, str]) -> Iterator[DeadLetter]:
    """Every dead letter, partition by partition; ``replays`` receives the time of replay by id."""
    messages = without_replays(connection.read_to_end(TASK_EVENTS_DLQ.name, progress=progress), replays)
    return map(dead_letter_of, messages)


def summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "at": letter.parked_at,
        "reason": letter.reason,
        "key": text_of(letter.key),
        "from": f"{letter.topic} {letter.partition}-{letter.offset}",
        "detail": letter.detail,
        "replayed_at": None,
    }


def _whole(stored: DeadLetter, connection: Connection) -> dict[str, Any]:
    from taskbridge.cli.connection import Decoder

    letter = _completed(stored, connection)
    headers = {name: text_of(each) for name, each in letter.received_headers}
    return {**summary(letter), "headers": headers, "value": Decoder(connection.registry).value(letter.value)}


async def _published(producer: AsyncProducer, letter: DeadLetter) -> str:
    # First: the last of the received headers may be the trace.
    headers = [(REPLAY_HEADER, letter.id.encode()), *letter.received_headers]
    try:
        await producer.produce(TASK_EVENTS.name, key=letter.key, value=letter.value, headers=headers)
    except OperatorError as error:
        progress(str(error))
        return FAILED
    return REPLAYED


def _outcome(letter: DeadLetter, before: set[str], *, oldest_ms: float) -> str:
    if letter.topic != TASK_EVENTS.name:
        return NOT_OURS
    if letter.id in before:
        return REPLAYED_BEFORE
    if letter.at_ms < oldest_ms:
        return TOO_OLD
    return GONE if letter.was_left and letter.value is None else REPLAYED


def _completed(letter: DeadLetter, connection: Connection) -> DeadLetter:
    topic, partition, offset = letter.topic, letter.partition, letter.offset
    if not letter.was_left or topic is None or partition is None or offset is None:
        return letter
    found = connection.read_one(topic, partition, offset)
    if found is None:
        return letter
    return changed(letter, key=found.key(), value=found.value(), headers=[*headers_of(found), *letter.headers])


def _replayed_before(connection: Connection, letters: Sequence[DeadLetter]) -> set[str]:
    since = min(each.at_ms for each in letters)
    return {
        value.decode()
        for message in connection.read_to_end(TASK_EVENTS.name, progress=progress, since_ms=since)
        for name, value in headers_of(message)
        if name == REPLAY_HEADER
    }


RECORDS = StoredRecords[DeadLetter](
    name="dead-letters",
    noun="dead letter",
    none="there are no dead letters",
    read=read_dead_letters,
    position=lambda each: (each.at_ms, each.id),
    summary=summary,
    whole=_whole,
)


def replay(connection: Connection, choose: Choose[DeadLetter], *, force: bool) -> list[Replayed]:
    """Publish the chosen dead letters to their original topic again, each once; with ``force``, old ones too."""
    replays: dict[str, str] = {}
    letters = RECORDS.by_id(connection, replays)
    chosen = [letters[each] for each in choose(letters)]
    before = _replayed_before(connection, chosen) if chosen else set[str]()
    oldest_ms = 0 if force else time.time() * 1000 - _RETENTION_MS

    async def one(producer: AsyncProducer, stored: DeadLetter) -> Replayed:
        letter = _completed(stored, connection)
        outcome = _outcome(letter, before, oldest_ms=oldest_ms)
        if outcome == REPLAYED:
            outcome = await _published(producer, letter)
        if outcome in (REPLAYED, REPLAYED_BEFORE) and letter.id not in replays:
            await mark_replayed(producer, TASK_EVENTS_DLQ, letter.id, stored.key)
        shown = {"id": letter.id, "outcome": outcome, "reason": letter.reason}
        return Replayed(shown, f"  {letter.reason or '-'}", outcome in (FAILED, GONE, TOO_OLD))

    done = asyncio.run(publish(connection, [each for each in chosen if not each.was_left], one))
    # One at a time: they are large.
    return done + asyncio.run(publish(connection, [each for each in chosen if each.was_left], one, size=1))
