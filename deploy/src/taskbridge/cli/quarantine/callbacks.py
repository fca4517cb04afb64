"""Read quarantined callbacks, check them again, and publish those that pass."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from taskbridge.cli.terminal import Heartbeat
from taskbridge.cli.topics.marking import mark_replayed
from taskbridge.cli.topics.reading import read_to_end
from taskbridge.edge.errors import Rejection
from taskbridge.edge.quarantine import reconsider
from taskbridge.edge.verification.replays import FileWindows, MemoryWindow, refuse_replay
from taskbridge.runtime.producer import AsyncProducer, DeliveryFailed, QueueFull
from taskbridge.runtime.tracing import valid_traceparent
from taskbridge.schemas.cloudevents import event_headers, headers_of
from taskbridge.schemas.codec import Undecodable, quarantined_callback_codec, task_event_codec
from taskbridge.schemas.dead_letters import without_replays
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import Progress
    from taskbridge.edge.verification.credentials import Credentials
    from taskbridge.edge.verification.replays import Window
    from taskbridge.schemas.events import QuarantinedCallback, TaskEvent

_BATCH = 200
_CLOCK_SKEW_MS = 60_000

RELEASED, PUBLISHED_BEFORE, REJECTED, FAILED = "released", "already-published", "rejected", "not-delivered"
WOULD_BE_RELEASED = "would-be-released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome for one entry."""

    entry: QuarantinedCallback
    outcome: str
    reason: str | None = None
    """The reason why it is still rejected, or was not delivered."""
    event: TaskEvent | None = None

    @property
    def stays(self) -> bool:
        return self.outcome in (REJECTED, FAILED)

    def as_json(self) -> dict[str, Any]:
        event_id = self.event.event_id if self.event else None
        return {"id": self.entry.quarantine_id, "outcome": self.outcome, "reason": self.reason, "event_id": event_id}


def read_quarantine(
    connection: Connection, progress: Progress, replays: dict[str, str]
) -> Iterator[QuarantinedCallback]:
    """Every entry, partition by partition. Undecodable records are reported and skipped.

    ``replays`` receives the time of replay by id.
    """
    codec = quarantined_callback_codec(connection.registry)
    for message in without_replays(read_to_end(connection, CALLBACKS_QUARANTINE.name, progress=progress), replays):
        try:
            yield codec.decode(message.value())
        except Undecodable as error:
            progress(f"partition {message.partition()}, offset {message.offset()}: {error}")


def judge(
    entries: Iterable[QuarantinedCallback],
    wanted: Collection[str],
    *,
    credentials: Credentials,
    delete_extra_keys: Collection[str],
    known_before: FileWindows | None,
) -> list[Judgement]:
    """Check those with the requested ids, in order of receipt: WOULD_BE_RELEASED if they pass, else REJECTED.

    The others are checked too, because a requested entry may be a copy of an earlier one. Nothing is remembered
    beyond this call.
    """
    window = MemoryWindow(known_before)
    judgements: list[Judgement] = []
    for entry in sorted(entries, key=lambda each: (each.received_at, each.quarantine_id)):
        try:
            event = reconsider(entry, credentials=credentials, delete_extra_keys=delete_extra_keys, window=window)
        except Rejection as rejection:
            judgement = Judgement(entry=entry, outcome=REJECTED, reason=rejection.reason)
        else:
            judgement = Judgement(entry=entry, outcome=WOULD_BE_RELEASED, event=event)
        if entry.quarantine_id in wanted:
            judgements.append(judgement)
    return judgements


def leave_out_published(connection: Connection, judgements: Sequence[Judgement], progress: Progress) -> list[Judgement]:
    """The same, with PUBLISHED_BEFORE for events that are on the topic already, or twice in the list."""
    right = [each for each in judgements if each.event is not None]
    if not right:
        return list(judgements)
    since = min(each.entry.received_at for each in right) - _CLOCK_SKEW_MS
    wanted, seen = {_ce_id(each.event) for each in right}, set[bytes]()
    for message in read_to_end(connection, TASK_EVENTS.name, progress=progress, since_ms=since):
        seen |= wanted.intersection(value for name, value in headers_of(message) if name == "ce_id")
    found: list[Judgement] = []
    for judgement in judgements:
        ce_id = _ce_id(judgement.event)
        known = judgement.event is not None and ce_id in seen
        found.append(replace(judgement, outcome=PUBLISHED_BEFORE) if known else judgement)
        seen.add(ce_id)
    return found


def _ce_id(event: TaskEvent | None) -> bytes:
    return event.event_id.encode() if event is not None else b""


async def release(
    connection: Connection,
    judgements: Sequence[Judgement],
    replays: Mapping[str, str],
    *,
    window: Window | None,
    progress: Progress,
) -> list[Judgement]:
    """Publish the events that would be released, as the edge does; returns the outcome of each.

    Entries whose event is on the topic are then marked as replayed, unless ``replays`` has them already.

    Raises:
        RegistryUnavailable: the registry does not answer.
    """
    codec = task_event_codec(connection.registry)
    producer = AsyncProducer.connect(connection.bootstrap_servers, connection.kafka_properties)
    heartbeat = Heartbeat(progress)

    async def one(judgement: Judgement) -> Judgement:
        event, entry = judgement.event, judgement.entry
        if judgement.outcome != WOULD_BE_RELEASED or event is None:
            return judgement
        try:
            if window is not None:
                # So that the running edge rejects copies of it from now on.
                refuse_replay(event, window)
            headers = event_headers(event, traceparent=valid_traceparent(entry.headers.get("traceparent")))
            value = codec.encode(event)
            await producer.produce(TASK_EVENTS.name, key=event.instance_id.encode(), value=value, headers=headers)
        except Rejection as rejection:
            return replace(judgement, outcome=REJECTED, reason=rejection.reason, event=None)
        except (DeliveryFailed, QueueFull) as error:
            return replace(judgement, outcome=FAILED, reason=str(error))
        return replace(judgement, outcome=RELEASED)

    async def all_of(chosen: Sequence[Judgement]) -> list[Judgement]:
        found = await asyncio.gather(*map(one, chosen))
        published = [each.entry for each in found if each.outcome in (RELEASED, PUBLISHED_BEFORE)]
        await asyncio.gather(
            *(_mark(producer, each, progress) for each in published if each.quarantine_id not in replays)
        )
        return found

    done: list[Judgement] = []
    try:
        for start in range(0, len(judgements), _BATCH):
            batch = asyncio.ensure_future(all_of(judgements[start : start + _BATCH]))
            while not (await asyncio.wait([batch], timeout=1))[0]:
                heartbeat.beat(f"publishing: {len(done)} of {len(judgements)} done")
            done += batch.result()
            heartbeat.beat(f"publishing: {len(done)} of {len(judgements)} done")
    finally:
        await producer.close()
    return done


async def _mark(producer: AsyncProducer, entry: QuarantinedCallback, progress: Progress) -> None:
    key = (entry.app_type or "").encode()
    await mark_replayed(producer, CALLBACKS_QUARANTINE, entry.quarantine_id, key, progress)
