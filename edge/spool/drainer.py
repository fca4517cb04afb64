"""Empties a spool file into Kafka: oldest first, one record per instance under way, deleted when acknowledged."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from edge.spool.elsewhere import keys_ahead
from edge.spool.errors import SpoolBroken
from edge.spool.store import DAMAGED, TOO_LARGE
from schemas.errors import TaskbridgeError
from schemas.topics import TASK_EVENTS
from service.kafka import DeliveryFailed, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.kafka_path import KafkaPath
    from edge.spool.files import Page
    from edge.spool.record import SpooledRecord
    from edge.spool.writer import Spool

_BATCH_COUNT = 500
_BATCH_BYTES = 4 << 20
_UNCOMMITTED_S = 0.002
_TURN_S = 0.005
_STALLED_S = 10.0
_RETRY_S = 0.2
_REGISTRY_RETRY_S = 1.0
_MAX_PAUSE_S = 0.2

_log = structlog.stdlib.get_logger(__name__)


class DrainObserver(Protocol):
    def drained(self, count: int) -> None: ...

    def row_damaged(self) -> None: ...

    def row_too_large(self) -> None: ...


class Drainer:
    """Drains one spool until it is cancelled, or the spool breaks.

    Order over several files: a record waits while an older one of its key is in another file, whoever drains that.
    """

    def __init__(self, spool: Spool, kafka: KafkaPath, page: Page, observer: DrainObserver | None = None) -> None:
        self._spool = spool
        self._kafka = kafka
        self._page = page
        self._observer = observer
        self._cursor = -1
        self._pending: list[SpooledRecord] = []
        self._one_by_one = False
        self._seen: dict[int, tuple[int, float]] = {}
        self._stopping = False

    def stop(self) -> None:
        """Start nothing new; ``run`` returns when what is under way is done."""
        self._stopping = True

    async def run(self) -> None:
        try:
            while not self._stopping and self._spool.broken is None:
                try:
                    await self._step()
                except TaskbridgeError:
                    raise
                except Exception:  # noqa: BLE001
                    # Whatever it is, the records must not wait for a restart.
                    _log.exception("drainer_failed")
                    await asyncio.sleep(_RETRY_S)
        except SpoolBroken:
            return

    async def _step(self) -> None:
        if not self._pending:
            await self._spool.until_waiting()
            self._one_by_one = False
            self._pending = await self._spool.read(self._cursor, count=_BATCH_COUNT, max_bytes=_BATCH_BYTES)
            if not self._pending:
                await asyncio.sleep(_UNCOMMITTED_S)
                return
            self._cursor = self._pending[-1].position
        self._spool.oldest_is(self._pending[0].created_at)
        if not self._kafka.is_open:
            await self._kafka.until_open()
            self._seen.clear()  # nobody gets on while Kafka is away, which says nothing about who is stuck
        window = await self._whose_turn_it_is()
        if not window:
            await asyncio.sleep(_TURN_S)
            return
        if self._kafka.is_failing or self._one_by_one:
            window = window[:1]
        if await self._can_frame(window):
            await self._drain(window)

    async def _drain(self, window: Sequence[SpooledRecord]) -> None:
        started, waiting = time.monotonic(), self._spool.waiting
        failures = await self._send(window)
        delivered = [record for record in window if record.position not in failures]
        never = [each for each in window if self._is_never(each, failures, alone=len(window) == 1)]
        for record in never:
            if self._observer is not None:
                self._observer.row_too_large()
            _log.error("spool_record_too_large", topic=record.topic, position=record.position, bytes=record.size)
        gone = {record.position for record in (*delivered, *never)}
        self._pending = [record for record in self._pending if record.position not in gone]
        self._one_by_one = any(each.too_large for each in failures.values() if isinstance(each, DeliveryFailed))
        removed = self._spool.remove(delivered, [(record.position, TOO_LARGE) for record in never])
        if self._pending:
            self._spool.oldest_is(self._pending[0].created_at)
        if self._observer is not None:
            self._observer.drained(len(delivered))
        await removed
        if delivered:
            self._kafka.succeed()
        if failures and not self._one_by_one:
            await asyncio.sleep(_RETRY_S)
        elif self._spool.waiting and self._spool.waiting < waiting:
            # Half of the time belongs to live traffic, unless that comes in faster than it goes out.
            await asyncio.sleep(min(time.monotonic() - started, _MAX_PAUSE_S))

    async def _send(self, window: Sequence[SpooledRecord]) -> dict[int, TaskbridgeError]:
        """Send them; returns what went wrong by position. Behind a failure, no later record of its key is sent."""
        chains: dict[object, list[SpooledRecord]] = {}
        for record in window:
            ordered = record.topic == TASK_EVENTS.name
            chains.setdefault((record.topic, record.key) if ordered else record.position, []).append(record)
        failures: dict[int, TaskbridgeError] = {}
        await asyncio.gather(*(self._send_chain(chain, failures) for chain in chains.values()))
        return failures

    async def _send_chain(self, chain: Sequence[SpooledRecord], failures: dict[int, TaskbridgeError]) -> None:
        for at, record in enumerate(chain):
            try:
                # No time limit of its own: sent once more, a record that is only late would be there twice.
                await self._kafka.send(record)
            except (DeliveryFailed, QueueFull) as error:
                failures |= dict.fromkeys((each.position for each in chain[at:]), error)
                if isinstance(error, DeliveryFailed) and not error.too_large:
                    self._kafka.replace_if_dead()
                    self._kafka.fail(str(error))
                return

    def _is_never(self, record: SpooledRecord, failures: dict[int, TaskbridgeError], *, alone: bool) -> bool:
        """Only a record that went out alone is known to be too large itself."""
        error = failures.get(record.position)
        return alone and isinstance(error, DeliveryFailed) and error.too_large

    async def _can_frame(self, window: Sequence[SpooledRecord]) -> bool:
        for key in {record.schema for record in window if not self._kafka.can_frame(record.schema)}:
            texts = await asyncio.to_thread(self._spool.schema_texts)
            try:
                known = await self._kafka.learn(key, texts)
            except TaskbridgeError as error:
                _log.warning("spool_waits_for_schema_id", problem=str(error))
                await asyncio.sleep(_REGISTRY_RETRY_S)
                return False
            if not known:
                lost = [record for record in self._pending if record.schema == key]
                _log.error("spool_schema_unknown", schema=key, records=len(lost))
                self._pending = [record for record in self._pending if record.schema != key]
                await self._spool.remove((), [(record.position, DAMAGED) for record in lost])
                return False
        return True

    async def _whose_turn_it_is(self) -> list[SpooledRecord]:
        """Those without an older record of their key elsewhere; files that have not moved for long do not count."""
        older = self._older_elsewhere()
        if not older:
            return self._pending
        folder, last = self._spool.claim.path.parent, self._pending[-1].created_at
        ahead = await asyncio.to_thread(keys_ahead, [folder / f"{number}.db" for number in older], before=last)
        found: list[SpooledRecord] = []
        held: set[bytes] = set()
        for record in self._pending:
            if record.created_at > ahead.horizon:
                break
            if record.key in held or ahead.oldest.get(record.key, record.created_at) < record.created_at:
                held.add(record.key)
            else:
                found.append(record)
        return found

    def _older_elsewhere(self) -> list[int]:
        now = time.monotonic()
        found: list[int] = []
        for number, oldest in self._page.oldest_elsewhere(self._spool.claim.number).items():
            seen, since = self._seen.get(number, (0, now))
            if seen != oldest:
                since = now
            self._seen[number] = (oldest, since)
            if oldest < self._pending[-1].created_at and now - since < _STALLED_S:
                found.append(number)
        return found
