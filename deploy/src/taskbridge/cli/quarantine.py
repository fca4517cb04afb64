"""Rejected callbacks, which are checked again and published if they pass."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from taskbridge.cli.stored_records import StoredRecords, mark_replayed, publish
from taskbridge.cli.terminal import progress
from taskbridge.schemas.cloudevents import event_headers, headers_of, rfc3339
from taskbridge.schemas.dead_letters import without_replays
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import QuarantinedCallback
from taskbridge.schemas.json_forms import quarantined_json
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.stored_records import Choose
    from taskbridge.edge.verification.credentials import Credentials as KnownApps
    from taskbridge.edge.verification.replays import FileWindows, Window
    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskEvent

RELEASED, PUBLISHED_BEFORE, REJECTED, FAILED = "released", "already-published", "rejected", "not-delivered"
WOULD_BE_RELEASED = "would-be-released"

_CLOCK_SKEW_MS = 60_000
_UNKNOWN = ("unknown-app", "wrong-sign")
"""Reasons of rejections before an app or its token was known."""


def read_quarantine(connection: Connection, replays: dict[str, str]) -> Iterator[QuarantinedCallback]:
    """Every entry, partition by partition. Undecodable records are reported and skipped.

    ``replays`` receives the time of replay by id.
    """
    from taskbridge.schemas.codec import Undecodable, quarantined_callback_codec

    codec = quarantined_callback_codec(connection.registry)
    for message in without_replays(connection.read_to_end(CALLBACKS_QUARANTINE.name, progress=progress), replays):
        try:
            yield codec.decode(message.value())
        except Undecodable as error:
            progress(f"partition {message.partition()}, offset {message.offset()}: {error}")


def _whole(entry: QuarantinedCallback, _: Connection) -> dict[str, Any]:
    from msgspec.structs import asdict

    from taskbridge.cli.connection import json_value

    shown = {"id": entry.quarantine_id, **json_value(asdict(entry)), "received_at": rfc3339(entry.received_at)}
    return {**shown, "body": shown.pop("body")}


RECORDS = StoredRecords[QuarantinedCallback](
    name="quarantine",
    noun="quarantined callback",
    none="the quarantine is empty",
    read=read_quarantine,
    position=lambda each: (each.received_at, each.quarantine_id),
    summary=quarantined_json,
    whole=_whole,
)


def replay(
    connection: Connection,
    credentials: Path,
    folder: Path,
    choose: Choose[QuarantinedCallback],
    *,
    delete_extra_keys: Collection[str] = (),
    dry_run: bool = False,
    only_new: bool = False,
) -> list[Judgement]:
    """Check the chosen entries by this credentials file, and publish those that pass. ``folder`` is the edge's.

    ``only_new``: not those that were replayed before.
    """
    from taskbridge.edge.verification.credentials import CredentialsFile

    apps = CredentialsFile(credentials).current
    window = _windows(folder)
    replays: dict[str, str] = {}
    entries = RECORDS.by_id(connection, replays)
    chosen = set(choose(entries)) - (replays.keys() if only_new else set())
    judgements = judge(
        entries.values(), chosen, credentials=apps, delete_extra_keys=delete_extra_keys, known_before=window
    )
    judgements = leave_out_published(connection, judgements)
    return judgements if dry_run else asyncio.run(release(connection, judgements, replays, window=window))


def replay_apps(connection: Connection, credentials: Path, folder: Path, app_types: Collection[str]) -> int:
    """Replay the callbacks of these apps that were rejected because of unknown credentials; how many became events.

    Raises OperatorError if Kafka or the registry does not answer, or did not accept an event. Safe to repeat.
    """

    def choose(entries: Mapping[str, QuarantinedCallback]) -> list[str]:
        found = entries.items()
        return [name for name, each in found if each.app_type in app_types and each.reason in _UNKNOWN]

    judgements = replay(connection, credentials, folder, choose, only_new=True)
    for each in judgements:
        if each.outcome == FAILED:
            raise OperatorError(f"callback {each.entry.quarantine_id} could not be replayed: {each.reason}")
    return sum(each.outcome == RELEASED for each in judgements)


def _windows(folder: Path) -> FileWindows | None:
    from taskbridge.edge.verification.replays import FileWindows

    windows = FileWindows(folder, entries=None)
    if not windows.open():
        progress(f"no file {windows.path()}: copies are found only within the quarantine; check --data-dir")
        return None
    if windows.problem is not None:
        raise OperatorError(f"{windows.path()}: {windows.problem}")
    return windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    entry: QuarantinedCallback
    outcome: str
    reason: str | None = None
    """The reason why it is still rejected, or was not delivered."""
    event: TaskEvent | None = None

    @property
    def shown(self) -> dict[str, Any]:
        found = {"id": self.entry.quarantine_id, "outcome": self.outcome, "reason": self.reason}
        return {**found, "event_id": self.event.event_id if self.event else None}

    @property
    def detail(self) -> str:
        return f"  {self.entry.action}  {self.reason or (f'event {self.event.event_id}' if self.event else '')}"

    @property
    def failed(self) -> bool:
        return self.outcome in (REJECTED, FAILED)


def judge(
    entries: Iterable[QuarantinedCallback],
    ids: Collection[str],
    *,
    credentials: KnownApps,
    delete_extra_keys: Collection[str],
    known_before: FileWindows | None,
) -> list[Judgement]:
    """Check those with the requested ids, in order of receipt: WOULD_BE_RELEASED if they pass, else REJECTED.

    The others are checked too, because a requested entry may be a copy of an earlier one. Nothing is remembered
    beyond this call.
    """
    from taskbridge.edge.errors import Rejection
    from taskbridge.edge.quarantine import reconsider
    from taskbridge.edge.verification.replays import MemoryWindow

    window = MemoryWindow(known_before)
    judgements: list[Judgement] = []
    for entry in sorted(entries, key=RECORDS.position):
        try:
            event = reconsider(entry, credentials=credentials, delete_extra_keys=delete_extra_keys, window=window)
        except Rejection as rejection:
            judgement = Judgement(entry=entry, outcome=REJECTED, reason=rejection.reason)
        else:
            judgement = Judgement(entry=entry, outcome=WOULD_BE_RELEASED, event=event)
        if entry.quarantine_id in ids:
            judgements.append(judgement)
    return judgements


def leave_out_published(connection: Connection, judgements: Sequence[Judgement]) -> list[Judgement]:
    """The same, with PUBLISHED_BEFORE for events that are on the topic already, or twice in the list."""
    received = [each.entry.received_at for each in judgements if each.event is not None]
    if not received:
        return list(judgements)
    since = min(received) - _CLOCK_SKEW_MS
    ids, seen = {_ce_id(each.event) for each in judgements}, set[bytes]()
    for message in connection.read_to_end(TASK_EVENTS.name, progress=progress, since_ms=since):
        seen |= ids.intersection(value for name, value in headers_of(message) if name == "ce_id")
    found: list[Judgement] = []
    for judgement in judgements:
        ce_id = _ce_id(judgement.event)
        found.append(replace(judgement, outcome=PUBLISHED_BEFORE) if ce_id in seen else judgement)
        seen |= {ce_id} - {b""}
    return found


def _ce_id(event: TaskEvent | None) -> bytes:
    return event.event_id.encode() if event is not None else b""


async def release(
    connection: Connection, judgements: Sequence[Judgement], replays: Mapping[str, str], *, window: Window | None
) -> list[Judgement]:
    """Publish the events that would be released, as the edge does; returns the outcome of each.

    Entries whose event is on the topic are then marked as replayed, unless ``replays`` has them already.

    Raises RegistryUnavailable if the registry does not answer.
    """
    from taskbridge.schemas.codec import task_event_codec

    codec = task_event_codec(connection.registry)

    async def one(producer: AsyncProducer, judgement: Judgement) -> Judgement:
        if judgement.outcome == WOULD_BE_RELEASED and judgement.event is not None:
            judgement = await _published(producer, codec, judgement, judgement.event, window)
        entry = judgement.entry
        if judgement.outcome in (RELEASED, PUBLISHED_BEFORE) and entry.quarantine_id not in replays:
            key = (entry.app_type or "").encode()
            await mark_replayed(producer, CALLBACKS_QUARANTINE, entry.quarantine_id, key)
        return judgement

    return await publish(connection, judgements, one)


async def _published(
    producer: AsyncProducer, codec: Codec[TaskEvent], judgement: Judgement, event: TaskEvent, window: Window | None
) -> Judgement:
    from taskbridge.edge.errors import Rejection
    from taskbridge.edge.verification.replays import refuse_replay
    from taskbridge.runtime.tracing import valid_traceparent

    if window is not None:
        try:
            # So that the running edge rejects copies of it from now on.
            refuse_replay(event, window)
        except Rejection as rejection:
            return replace(judgement, outcome=REJECTED, reason=rejection.reason, event=None)
    headers = event_headers(event, traceparent=valid_traceparent(judgement.entry.headers.get("traceparent")))
    key, value = event.instance_id.encode(), codec.encode(event)
    try:
        await producer.produce(TASK_EVENTS.name, key=key, value=value, headers=headers)
    except OperatorError as error:
        return replace(judgement, outcome=FAILED, reason=str(error))
    return replace(judgement, outcome=RELEASED)
