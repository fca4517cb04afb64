"""The commands ``taskbridge dlq list|show|replay``: dead letters, which are published to their original topic again."""

from __future__ import annotations

import json
import time
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskbridge.cli.options import (
    BootstrapServers,
    DataDir,
    Everything,
    Json,
    RegistryUrl,
    WhichOne,
    WhichOnes,
    example,
    operator_connection,
)
from taskbridge.cli.stored_records import StoredRecords, check_one_way, mark_replayed, print_whole
from taskbridge.cli.terminal import json_line, progress, say
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import REPLAYED_DAYS, TASK_EVENTS, TASK_EVENTS_DLQ

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.dead_letters import DeadLetter

# Commands import what they need when they run, as in program.py.

dlq_app = typer.Typer(
    help="List, show and replay dead letters: records that streams could not process.", no_args_is_help=True
)

REPLAYED, REPLAYED_BEFORE, NOT_OURS, FAILED, GONE, TOO_OLD = (
    "replayed",
    "already-replayed",
    "of-another-topic",
    "not-delivered",
    "no-longer-kept",
    "too-old",
)

_BATCH = 500
_RETENTION_MS = REPLAYED_DAYS * 24 * 60 * 60 * 1000
_RECORDS = StoredRecords(
    none="there are no dead letters",
    none_for="no dead letter has the reason",
    none_with="no dead letter has the id {}: list the ids with 'taskbridge dlq list'",
)


@dlq_app.command("list", epilog=example("taskbridge dlq list", "taskbridge dlq list --reason undecodable --json"))
def list_(
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """List the dead letters in the order of their arrival, with the time of their replay."""
    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = sorted(read_dead_letters(connection, replays), key=lambda each: (each.at_ms, each.id))
    _RECORDS.print_list([summary(each) for each in letters], replays, reason, as_json=as_json)


@dlq_app.command("show", epilog=example("taskbridge dlq show 3-17"))
def show(
    letter_id: WhichOne,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Print all fields of one dead letter, its value decoded if possible."""
    from taskbridge.cli.connection import Decoder
    from taskbridge.schemas.cloudevents import text_of

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = {each.id: each for each in read_dead_letters(connection, replays)}
        _RECORDS.check([letter_id], letters)
        letter = _completed(letters[letter_id], connection)
        value = Decoder(connection.registry).value(letter.value)
    headers = {name: text_of(each) for name, each in letter.received_headers}
    shown = {**summary(letter), "replayed_at": replays.get(letter_id), "headers": headers}
    if as_json:
        say(json_line({**shown, "value": value}))
        return
    print_whole(shown, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2), width=10)


@dlq_app.command(
    "replay", epilog=example("taskbridge dlq replay 3-17 3-18", "taskbridge dlq replay --reason unknown-action")
)
def replay(
    ids: WhichOnes = None,
    reason: Annotated[str | None, typer.Option(help="Select all with this reason.")] = None,
    everything: Everything = False,  # noqa: FBT002
    force: Annotated[bool, typer.Option("--force", help="Also replay those older than 30 days.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Publish dead letters to their original topic again, after the cause is fixed.

    A record that still fails becomes a new dead letter. Safe to repeat: each is published once. Exit code 1 if any
    could not be delivered, was too large to store and is gone from its topic, or is older than 30 days: the later
    events of its task may be gone, and it would be pending again.
    """
    check_one_way(ids, reason, everything=everything)
    import asyncio

    replays: dict[str, str] = {}
    with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        letters = {each.id: each for each in read_dead_letters(connection, replays)}
        selected = _RECORDS.chosen({each.id: each.reason for each in letters.values()}, ids, reason)
        chosen = [letters[each] for each in selected]
        before = _replayed_before(connection, chosen) if chosen else set[str]()
        oldest_ms = 0 if force else time.time() * 1000 - _RETENTION_MS
        done = asyncio.run(_replay(connection, chosen, before, replays, oldest_ms=oldest_ms))
    for letter, outcome in done:
        shown = {"id": letter.id, "outcome": outcome, "reason": letter.reason}
        say(json_line(shown) if as_json else f"{outcome:18}{letter.id}  {letter.reason or '-'}")
    if any(outcome in (FAILED, GONE, TOO_OLD) for _, outcome in done):
        raise typer.Exit(1)


def read_dead_letters(connection: Connection, replays: dict[str, str]) -> Iterator[DeadLetter]:
    """Every dead letter, partition by partition; ``replays`` receives the time of replay by id."""
    from taskbridge.schemas.dead_letters import dead_letter_of, without_replays

    for message in without_replays(connection.read_to_end(TASK_EVENTS_DLQ.name, progress=progress), replays):
        yield dead_letter_of(message)


def summary(letter: DeadLetter) -> dict[str, Any]:
    """The fields of a dead letter in a list."""
    from taskbridge.schemas.cloudevents import text_of

    return {
        "id": letter.id,
        "at": letter.parked_at,
        "reason": letter.reason,
        "key": text_of(letter.key),
        "from": f"{letter.topic} {letter.partition}-{letter.offset}",
        "detail": letter.detail,
        "replayed_at": None,
    }


async def _replay(
    connection: Connection,
    letters: Sequence[DeadLetter],
    before: set[str],
    replays: Mapping[str, str],
    *,
    oldest_ms: float,
) -> list[tuple[DeadLetter, str]]:
    """Publish the letters again with their original key, value and headers, each once; returns each outcome.

    Each published letter is marked as replayed on the dead letters' topic, unless ``replays`` has it already. A letter
    from before ``oldest_ms`` stays.

    Raises:
        OperatorError: Kafka does not answer.
    """
    import asyncio

    from taskbridge.schemas.dead_letters import REPLAY_HEADER

    producer = connection.producer()

    async def republish(stored: DeadLetter) -> tuple[DeadLetter, str]:
        letter = _completed(stored, connection)
        outcome = _outcome(letter, before, oldest_ms=oldest_ms)
        if outcome == REPLAYED:
            # First: the last of the received headers may be the trace.
            headers = [(REPLAY_HEADER, letter.id.encode()), *letter.received_headers]
            try:
                await producer.produce(TASK_EVENTS.name, key=letter.key, value=letter.value, headers=headers)
            except OperatorError as error:
                progress(str(error))
                return letter, FAILED
        if outcome in (REPLAYED, REPLAYED_BEFORE) and letter.id not in replays:
            await mark_replayed(producer, TASK_EVENTS_DLQ, letter.id, stored.key)
        return letter, outcome

    done: list[tuple[DeadLetter, str]] = []
    try:
        complete = [each for each in letters if not each.was_left]
        for start in range(0, len(complete), _BATCH):
            done += await asyncio.gather(*map(republish, complete[start : start + _BATCH]))
        for each in letters:
            if each.was_left:  # one at a time: they are large
                done.append(await republish(each))
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


def _completed(letter: DeadLetter, connection: Connection) -> DeadLetter:
    """The letter, completed from its original topic if it was too large and the record is still there."""
    from taskbridge.schemas.cloudevents import headers_of

    topic, partition, offset = letter.topic, letter.partition, letter.offset
    if not letter.was_left or topic is None or partition is None or offset is None:
        return letter
    found = connection.read_one(topic, partition, offset)
    if found is None:
        return letter
    return changed(letter, key=found.key(), value=found.value(), headers=[*headers_of(found), *letter.headers])


def _replayed_before(connection: Connection, letters: Sequence[DeadLetter]) -> set[str]:
    """The ids of dead letters that are on the events topic again."""
    from taskbridge.schemas.cloudevents import headers_of
    from taskbridge.schemas.dead_letters import REPLAY_HEADER

    since = min(each.at_ms for each in letters)
    return {
        value.decode()
        for message in connection.read_to_end(TASK_EVENTS.name, progress=progress, since_ms=since)
        for name, value in headers_of(message)
        if name == REPLAY_HEADER
    }
