"""Publishes the values of forms, as they are after people edit them: a create has them, others are read from DingTalk.

A record is written if it differs from the last one. One process writes at a time; what another one wrote is read from
the topic. Positions and digests are stored after the delivery: a kill in between writes a record twice, and loses none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import IDS_PER_CALL, Days, Part
from taskbridge.dingtalk.calls import Absent, Later, Refused, TooMuch, Unexpected
from taskbridge.dingtalk.times import DAY_MS, day_of, next_day_ms, next_month_ms, span_of
from taskbridge.reconcile.form_store import DELETED_MS, SCAN, WORK, Defined, Scan, Target, digest_of, is_late
from taskbridge.reconcile.form_values import Definition, Protection, fields_of, protected
from taskbridge.reconcile.repairer import BACKFILL, RECONCILE
from taskbridge.reconcile.store import Cursor, CursorKey
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import AHEAD_MS, SOURCE_YIDA, Action, FormData, TaskEvent
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.dingtalk.api import YidaApi
    from taskbridge.dingtalk.apps import App
    from taskbridge.dingtalk.organisation import OrganisationApi
    from taskbridge.reconcile.budget import Budget
    from taskbridge.reconcile.form_store import Due, Known
    from taskbridge.reconcile.store import Store
    from taskbridge.runtime.clock import Clock
    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.codec import Codec

    Key = tuple[str, ...]
    """Of a work: its corp, its app, and more."""
    Step = Callable[[], Awaitable[bool]]
    """Makes a call, or a few, and returns whether there is more to do."""

CREATE, EVENT = "create", "event"
"""Causes of a record, besides ``SCAN``, and ``BACKFILL`` for the create of a backfill."""
_FOR_EVENTS, _FOR_SCANS, _FOR_CHECKS = 0.6, 0.75, 0.85
"""The share of the calls above which each is made: repairs and names come first, then events, then scans."""
_CHECK = "check"
_HOUR_MS = 60 * 60 * 1000
_INDEXED_MS = 2 * _HOUR_MS
"""A list of instances has the changes before this time for certain."""
_PASS_FIRST_MS = _HOUR_MS
"""How much later than its time a scan of a process begins: a pass may do its work."""
_REFUSED_MS = _HOUR_MS
"""How long a work that DingTalk refuses is not tried again."""
_DEFINED_MS = 10 * 60 * 1000
_WITNESSES = 5
"""How many other instances of a form are read to see whether any is visible."""
_STALLED_S = 30.0
_DECIDED = (Action.COMPLETED, Action.CANCELLED)
_TOMBSTONES = 500

_log = structlog.stdlib.get_logger(__name__)


class FormWriter(Protocol):
    async def write_forms(self, records: Sequence[FormData], tombstones: Sequence[str] = ()) -> None:
        """Return once all records, and the tombstones of these instances, are durable."""
        ...


class FormTopics(NamedTuple):
    reader: PartitionReader
    events: Codec[TaskEvent]
    """Reads events with their form's values."""
    records: Codec[FormData]
    writer: FormWriter


@dataclass(frozen=True, slots=True)
class FormRules:
    wait_ms: int
    """How long events are collected before their instances are read."""
    scan_ms: int
    since_ms: int
    """How far back the first scan of a form goes."""
    check_ms: int
    """After so long without a reading, DingTalk is asked whether an instance exists."""
    hash_key: bytes = field(default=b"", repr=False)


class _Reading(NamedTuple):
    """Values, and since when they are known to be right."""

    instance: wire.Instance
    changed_ms: int
    """0: nothing says that it changed. Values may differ because of a new pattern, or a new definition."""
    as_of_ms: int
    cause: str
    event_id: str | None = None


class FormSync:
    """Follows the events, reads what they changed, and scans for changes that no event announced."""

    def __init__(
        self,
        store: Store,
        topics: FormTopics,
        budget: Budget,
        clock: Clock,
        rules: FormRules,
        *,
        on_written: Callable[[FormData], None] = lambda _: None,
        on_left_out: Callable[[str, int], None] = lambda _app_type, _values: None,
    ) -> None:
        """``on_left_out`` gets an app, and how many values were left out because their labels or shapes are unknown."""
        self._store, self._forms = store, store.forms
        self._reader, self._events, self._records, self._writer = topics
        self._budget, self._clock, self._rules = budget, clock, rules
        self._on_written, self._on_left_out = on_written, on_left_out
        self._not_before: dict[Key, int] = {}
        """By corp, or by what DingTalk refused: when calls are made again."""
        self._defined_ms: dict[Key, int] = {}
        """By corp, app and form: when its definition was read."""
        self._next_ms: dict[str, int] = {}
        """By corp: when instances are read again because of events."""
        self._ordinary = set[Target]()
        self._problems: list[str] = []
        self._runs = 0

    async def run(self, apis: Sequence[YidaApi], organisations: Sequence[OrganisationApi]) -> None:
        """Write what the events have, then read what is due, while enough of the calls of the day and month are left.

        Raises:
            OperatorError: Kafka or the registry does not answer, or DingTalk refuses a call.
        """
        self._problems, self._runs = [], self._runs + 1
        self._ordinary = {target for api in apis for target in targets_of(api.app) if target.ordinary}
        await self._follow_records()
        await self._follow_events({(each.app.corp_id, each.app.app_type): each.app for each in apis})
        by_corp = {each.organisation.corp_id: each for each in organisations}
        every = [(_App(each, by_corp[each.app.corp_id]), target) for each in apis for target in targets_of(each.app)]
        self._forms.forget_others([target for _, target in every])
        now_ms, used = self._clock.now_ms(), {each: self._budget.used(each).day for each in by_corp}
        # Another one is the first each time, also if each run is a process of its own.
        first = (now_ms // DAY_MS + self._runs) % max(1, len(every))
        every = every[first:] + every[:first]
        ready = [each for each in every if not self._waits(self._next_ms.get(each[1].corp_id, 0))]
        reads = [((*each[1], EVENT), partial(self._read_due, *each)) for each in ready]
        await self._by_turns(_FOR_EVENTS, [*self._to_define(ready), *reads])
        self._space(used)
        scans = [(*each, form_uuid) for each in every for form_uuid in self._to_scan(each[0].api.app, each[1])]
        await self._by_turns(_FOR_SCANS, [((*each[1], each[2]), partial(self._scan, *each)) for each in scans])
        await self._by_turns(_FOR_CHECKS, [((*each[1], _CHECK), partial(self._check, *each)) for each in every])
        apps = [each.app for each in apis]
        while ids := self._forms.expired(apps, now_ms=self._clock.now_ms(), most=_TOMBSTONES):
            await self._writer.write_forms([], ids)
            with self._forms.transaction():
                self._forms.delete(ids)
        if self._problems:
            raise OperatorError("; ".join(dict.fromkeys(self._problems)))

    def _space(self, used: Mapping[str, int]) -> None:
        """Let the calls for events last until the end of the day and the month: what waits is read by one call."""
        now_ms, allowance = self._clock.now_ms(), self._budget.allowance
        for corp_id, before in used.items():
            now_used = self._budget.used(corp_id)
            if (made := now_used.day - before) > 0:
                today = max(1, (1 - _FOR_EVENTS) * allowance.per_day - now_used.day)
                month = max(1, (1 - _FOR_EVENTS) * (allowance.per_month - now_used.month))
                each_ms = max((next_day_ms(now_ms) - now_ms) / today, (next_month_ms(now_ms) - now_ms) / month)
                self._next_ms[corp_id] = min(next_day_ms(now_ms), now_ms + int(made * each_ms))

    async def _by_turns(self, above: float, steps: Iterable[tuple[Key, Step]]) -> None:
        """Make one step of each work in turn, while enough calls are left and it has more to do."""
        left = deque(steps)
        while left:
            key, step = left.popleft()
            if self._may(key, above=above) and await self._attempt(key, step()):
                left.append((key, step))

    async def _attempt(self, key: Key, step: Awaitable[bool]) -> bool:
        """Await the step. What DingTalk refuses stops no other work, and is not repeated at once."""
        try:
            return await step
        except Later as error:
            self._not_before[key[:1]] = error.retry_at_ms
            self._problems.append(str(error))
        except (Refused, Unexpected, Absent) as error:
            self._refused(key, error)
        return False

    def _refused(self, key: Key, error: Exception) -> None:
        pause_ms = DAY_MS if isinstance(error, Absent) else _REFUSED_MS
        self._not_before[key] = self._clock.now_ms() + pause_ms
        self._problems.append(f"{key[1]}: {error}")

    def _may(self, key: Key, *, above: float) -> bool:
        is_closed = any(self._waits(self._not_before.get(each, 0)) for each in (key[:1], key))
        return not is_closed and self._budget.may_spend(key[0], above=above, of_month=True)

    def _waits(self, until_ms: int) -> bool:
        """Whether that time is to come. One in more than two days is of a clock that was wrong."""
        return 0 < until_ms - self._clock.now_ms() <= 2 * DAY_MS

    async def _follow(self, topic: str, *, from_start: bool) -> AsyncGenerator[list[Message]]:
        """The records since the stored positions, which the caller stores with what it makes of a batch."""
        bounds = await asyncio.to_thread(self._reader.bounds, topic)
        ends, known = {each: end for each, (_, end) in bounds.items()}, self._forms.positions(topic)
        if any(offset > ends.get(each, -1) for each, offset in known.items()):
            _log.warning("topic_recreated", topic=topic)
            with self._forms.transaction():
                self._forms.clear(topic, records=from_start)
                if from_start:
                    self._store.cursors.delete_work(WORK)
            known, from_start = dict[int, int](), True
        if known or from_start:
            starts = {each: max(first, known.get(each, first)) for each, (first, _) in bounds.items()}
        else:
            # What was before is found by the first scan.
            starts = ends
            self._forms.save_positions(topic, ends)
        with closing(self._reader.read(topic, starts, ends, quiet_s=_STALLED_S)) as batches:
            for batch in batches:
                yield batch
                await asyncio.sleep(0)

    async def _follow_records(self) -> None:
        """Learn what another process wrote, and what this one wrote before it was killed."""
        async with aclosing(self._follow(FORM_DATA.name, from_start=True)) as batches:
            async for batch in batches:
                with self._forms.transaction():
                    for each in batch:
                        instance_id, value = (each.key() or b"").decode("utf-8", "replace"), each.value()
                        if value is None:
                            self._forms.delete([instance_id])
                            continue
                        try:
                            self._learn(self._records.decode(value))
                        except Undecodable as error:
                            _log.error("form_record_not_readable", instance_id=instance_id, problem=str(error))
                    self._forms.save_positions(FORM_DATA.name, self._reader.reached)

    def _learn(self, record: FormData) -> None:
        known, now_ms = self._known(record.instance_id), self._clock.now_ms()
        if known is not None and known.digest == digest_of(record):
            return
        ordinary = Target(record.corp_id, record.app_type, record.form_uuid)
        target = ordinary if ordinary in self._ordinary else ordinary._replace(ordinary="")
        changed_ms = record.modified_at or (0 if known is not None and record.cause == SCAN else record.read_at)
        self._forms.store(record, target, changed_ms=changed_ms, as_of_ms=0, due_ms=self._due_ms(record, now_ms))
        if known is not None and record.read_at < known.read_ms:
            # An older reading was written later: by a process that was stopped for a while.
            self._forms.schedule(record.instance_id, target, changed_ms=record.read_at, due_ms=now_ms, is_late=True)

    async def _follow_events(self, apps: Mapping[tuple[str, str], App]) -> None:
        async with aclosing(self._follow(TASK_EVENTS.name, from_start=False)) as batches:
            async for batch in batches:
                new, changed = dict[str, tuple[FormData, int]](), list[TaskEvent]()
                for event in (event for each in batch if (event := self._event_of(each, apps)) is not None):
                    self._sort(event, apps[event.corp_id, event.app_type], new, changed)
                await self._write([each for each, _ in new.values() if each.form_uuid])
                with self._forms.transaction():
                    for event in changed:
                        self._schedule(event)
                    for record, as_of_ms in new.values():
                        target = Target(record.corp_id, record.app_type)
                        self._store_record(record, target, changed_ms=as_of_ms, as_of_ms=as_of_ms)
                        if record.deleted:
                            self._forms.forget(record.instance_id)
                    self._forms.save_positions(TASK_EVENTS.name, self._reader.reached)

    def _sort(self, event: TaskEvent, app: App, new: dict[str, tuple[FormData, int]], changed: list[TaskEvent]) -> None:
        """Add what the event says to the new records, each with the time of its values, or to the changes to read."""
        known, (record, _) = self._known(event.instance_id), new.get(event.instance_id, (None, 0))
        if (known is not None and known.is_deleted) or (record is not None and record.deleted):
            return
        kept_since = app.kept_since(event.form_uuid or "", now_ms=self._clock.now_ms())
        if known is None and event.occurred_at < kept_since and event.form_uuid:
            return  # values that are read by id have no time
        if any((each.corp_id, each.app_type) != (event.corp_id, event.app_type) for each in (known, record) if each):
            return  # another app says this, and streams believe it as little
        if event.action is Action.DELETED:
            new[event.instance_id] = self._deleted(event, known), self._clock.now_ms()
        elif event.action is Action.CREATED and known is None and record is None:
            if (created := self._created(event, app)) is not None:
                new[event.instance_id] = created, event.occurred_at
            else:
                changed.append(event)
        elif (event.action in _DECIDED or event.instance_status in wire.ENDED) and (known or record or not app.forms):
            changed.append(event)

    def _event_of(self, message: Message, apps: Mapping[tuple[str, str], App]) -> TaskEvent | None:
        """An event about a form whose values are published."""
        try:
            event = self._events.decode(message.value())
        except Undecodable:
            return None  # a dead letter of streams
        app = apps.get((event.corp_id, event.app_type))
        if app is None or event.source != SOURCE_YIDA or event.action is Action.COPIED:
            return None
        return event if event.form_uuid is None or not app.forms or event.form_uuid in app.forms else None

    def _created(self, event: TaskEvent, app: App) -> FormData | None:
        """The values of a create; None if there are none, or its form's labels are unknown."""
        protection = self._protection(app)
        if not event.form_data or not event.form_uuid:
            return None
        defined = self._forms.defined(app.corp_id, app.app_type, event.form_uuid)
        if protection.needs_labels and (defined is None or defined.due_ms <= self._clock.now_ms()):
            return None
        found = protected(event.form_data, Definition() if defined is None else defined.definition, protection)
        if defined is not None and found.unknown - defined.unknown:
            return None
        self._count(app, len(found.unknown) + found.unclear)
        return FormData(
            corp_id=event.corp_id,
            app_type=event.app_type,
            form_uuid=event.form_uuid,
            process_code=event.process_code,
            instance_id=event.instance_id,
            data=found.data,
            read_at=event.received_at,
            cause=BACKFILL if event.recovered_by == BACKFILL else CREATE,
            event_id=event.event_id,
        )

    def _deleted(self, event: TaskEvent, known: Known | None) -> FormData:
        """Without a form if no record is on the topic: then it is not written, but nor is a late create."""
        return FormData(
            corp_id=event.corp_id,
            app_type=event.app_type,
            form_uuid="" if known is None else known.form_uuid,
            process_code=known and known.process_code,
            instance_id=event.instance_id,
            read_at=self._read_at(known),
            cause=EVENT,
            event_id=event.event_id,
            deleted=True,
        )

    def _schedule(self, event: TaskEvent) -> None:
        now_ms = self._clock.now_ms()
        self._forms.schedule(
            event.instance_id,
            Target(event.corp_id, event.app_type),
            event_id=event.event_id,
            changed_ms=event.occurred_at,
            due_ms=min(event.received_at, now_ms) + self._rules.wait_ms,
            is_late=is_late(event.occurred_at, now_ms=now_ms),
        )

    def _to_define(self, apps: Iterable[tuple[_App, Target]]) -> Iterator[tuple[Key, Step]]:
        """The forms whose values have fields that their definitions lack: perhaps later ones have them."""
        for app, target in apps:
            if not target.ordinary:
                for form_uuid in self._forms.to_define(*target[:2], now_ms=self._clock.now_ms()):
                    yield (*target[:2], form_uuid), partial(self._redefine, app, form_uuid)

    async def _redefine(self, app: _App, form_uuid: str) -> bool:
        await self._define(app, form_uuid, set())
        return False

    async def _read_due(self, app: _App, target: Target) -> bool:
        """Read instances that events or scans announced, those of the newest changes first."""
        now_ms = self._clock.now_ms()
        due = {each.instance_id: each for each in self._forms.due(target, now_ms=now_ms, most=IDS_PER_CALL)}
        if not due:
            return False
        unread = set[str]()
        await self._read(app, target, [*due], due, unread)
        with self._forms.transaction():
            for each in due.values():
                if each.instance_id not in unread:
                    self._forms.was_read(each, now_ms=now_ms)
        return True

    async def _read(
        self, app: _App, target: Target, ids: Sequence[str], due: Mapping[str, Due], unread: set[str] | None = None
    ) -> set[str]:
        """Publish the values of these instances, and return those that DingTalk has, or cannot answer for.

        ``unread``: as of ``YidaApi.instances_by_id``.
        """
        now_ms = self._clock.now_ms()
        try:
            found = await app.api.instances_by_id(ids, form_uuid=target.ordinary, unread=unread)
        except Unexpected as error:
            if len(ids) == 1:
                _log.error("form_not_readable", app_type=target.app_type, instance_id=ids[0], problem=str(error))
                return {*ids}
            half = len(ids) // 2
            return {
                each for some in (ids[:half], ids[half:]) for each in await self._read(app, target, some, due, unread)
            }
        readings = list[_Reading]()
        for each, instance in found.items():
            changed_ms, event_id = (due[each].changed_ms, due[each].event_id) if each in due else (0, None)
            readings.append(_Reading(instance, changed_ms, now_ms, SCAN if event_id is None else EVENT, event_id))
        await self._publish(app, target, readings)
        return {*found}

    def _to_scan(self, app: App, target: Target) -> list[str]:
        """The forms that were not listed for long. A pass that listed one spared this."""
        forms, late_ms = {target.ordinary}, self._rules.scan_ms
        if not target.ordinary:
            late_ms += _PASS_FIRST_MS
            keys = (key for key, _ in self._store.cursors.all() if key[:3] == (RECONCILE, *target[:2]))
            forms = {each.form_uuid for each in keys} - {*app.ordinary_forms}
            forms &= {*app.forms} or forms
        keys = {each: CursorKey(WORK, *target[:2], each) for each in sorted(forms)}
        now_ms = self._clock.now_ms()
        return [
            each for each, key in keys.items() if self._forms.scan(*key[1:]) or self._scanned(key) + late_ms <= now_ms
        ]

    def _scanned(self, key: CursorKey) -> int:
        """Until when all changes are known. A time to come is of a clock that was wrong: nothing is known."""
        cursor, now_ms = self._store.cursors.find(key), self._clock.now_ms()
        return now_ms - self._rules.since_ms if cursor is None or cursor.until_ms > now_ms else cursor.until_ms

    async def _scan(self, app: _App, target: Target, form_uuid: str) -> bool:
        """Read a page of the lists of a form, of the instances that were modified since the last scan."""
        key, now_ms = CursorKey(WORK, *target[:2], form_uuid), self._clock.now_ms()
        if await self._protected(app, form_uuid, {}) is None:
            return False  # nothing would be published
        scan = self._forms.scan(*key[1:])
        if scan is None or scan.began_ms > now_ms:
            scan = Scan(now_ms, [Part(Days(day_of(self._scanned(key) - DAY_MS), day_of(now_ms + DAY_MS)))])
        # A scan may take days, in which rows always disappear.
        part = scan.parts.pop()._replace(shrunk=0)
        read = await app.api.read_part(form_uuid, part, is_process=not target.ordinary)
        await self._take(app, target, form_uuid, read.rows)
        scan.parts += read.left
        if read.problem is not None:
            _log.error("form_not_listed", form_uuid=form_uuid, problem=str(read.problem))
            # What DingTalk never lists, no repetition finds.
            scan.is_whole &= isinstance(read.problem, TooMuch)
        if scan.parts:
            self._forms.save_scan(*key[1:], scan)
            return True
        with self._forms.transaction():
            self._forms.end_scan(*key[1:])
            if scan.is_whole:
                before = self._store.cursors.find(key)
                since_ms = self._scanned(key) if before is None else before.since_ms
                self._store.cursors.move(key, Cursor(since_ms, scan.began_ms))
        if not scan.is_whole:
            raise Unexpected(f"form {form_uuid} was not listed completely")
        return False

    async def _take(self, app: _App, target: Target, form_uuid: str, rows: Sequence[wire.Instance]) -> None:
        """Publish a page of a list. Where the list may be behind a reading by id, read the instance once more."""
        now_ms, readings = self._clock.now_ms(), list[_Reading]()
        with self._forms.transaction():
            for row in rows:
                known = self._known(row.process_instance_id)
                if self._forms.is_read(row, now_ms=now_ms):
                    continue
                modified = span_of(row.modified_time)
                first_ms = 0 if modified is None else min(modified.first, now_ms)
                if known is None or (not known.is_deleted and first_ms > known.as_of_ms + AHEAD_MS):
                    readings.append(_Reading(row, first_ms or now_ms, max(first_ms, now_ms - _INDEXED_MS), SCAN))
                else:
                    its_id, changed_ms = row.process_instance_id, first_ms or now_ms
                    self._forms.schedule(its_id, target, changed_ms=changed_ms, due_ms=now_ms, is_late=True)
        await self._publish(app, target, readings, form_uuid)

    async def _check(self, app: _App, target: Target) -> bool:
        """Find deletions that no event announced, among the instances that were not read for long.

        A deletion needs two answers, at least a day apart, that there is no such instance, while DingTalk returns
        others of the same form. That it does not return one proves nothing.
        """
        now_ms = self._clock.now_ms()
        ids = self._forms.to_check(target, now_ms=now_ms, most=IDS_PER_CALL)
        if not ids:
            return False
        found = await self._read(app, target, ids, {})
        self._forms.postpone(found, due_ms=now_ms + self._rules.check_ms)
        missing = {each: known for each in ids if each not in found and (known := self._known(each)) is not None}
        for form_uuid in {each.form_uuid for each in missing.values()}:
            its = [each for each, known in missing.items() if known.form_uuid == form_uuid]
            if not await self._is_visible(app, target, form_uuid, since_ms=now_ms):
                _log.warning("no_instances_visible", form_uuid=form_uuid, instances=len(its))
                self._forms.postpone(its, due_ms=now_ms + DAY_MS)
                continue
            for each in its:
                if not self._may((*target, _CHECK), above=_FOR_CHECKS):
                    return False
                await self._look_up(app, target, each, missing[each])
        return True

    async def _is_visible(self, app: _App, target: Target, form_uuid: str, *, since_ms: int) -> bool:
        """Whether DingTalk returns the values of an instance of the form, or did so since that time."""
        seen = partial(
            self._forms.is_visible, target, form_uuid, since_ms=since_ms, due_ms=since_ms + self._rules.check_ms
        )
        if not seen():
            await self._read(app, target, self._forms.lately_read(target, form_uuid, most=_WITNESSES), {})
        return seen()

    def _known(self, instance_id: str) -> Known | None:
        return self._forms.find(instance_id, now_ms=self._clock.now_ms())

    def _read_at(self, known: Known | None) -> int:
        """Now, and after the last reading, by any clock: who follows the topic keeps the later one."""
        return max(self._clock.now_ms(), 0 if known is None else known.read_ms + 1)

    async def _look_up(self, app: _App, target: Target, instance_id: str, known: Known) -> None:
        now_ms = self._clock.now_ms()
        # If it has no answer, others come first the next time.
        self._forms.postpone([instance_id], due_ms=now_ms + DAY_MS, absent_ms=known.absent_ms)
        if await app.api.exists(instance_id, form_uuid=target.ordinary):
            self._forms.postpone([instance_id], due_ms=now_ms + self._rules.check_ms)
        elif known.absent_ms is None or known.absent_ms + DAY_MS > now_ms:
            first_ms = min(known.absent_ms or now_ms, now_ms)
            self._forms.postpone([instance_id], due_ms=first_ms + DAY_MS, absent_ms=first_ms)
        else:
            record = FormData(
                *target[:2],
                form_uuid=known.form_uuid,
                process_code=known.process_code,
                instance_id=instance_id,
                read_at=self._read_at(known),
                cause=SCAN,
                deleted=True,
            )
            await self._write([record])
            self._store_record(record, target, changed_ms=now_ms, as_of_ms=now_ms)

    async def _publish(
        self, app: _App, target: Target, readings: Sequence[_Reading], form_uuid: str | None = None
    ) -> None:
        """Write those that differ from the last record of their instance.

        Those whose form has no readable definition, where one is needed, are read again later.
        """
        changed, same = list[tuple[FormData, _Reading]](), list[tuple[FormData, _Reading]]()
        held = dict[str, tuple[int, int]]()
        for each in readings:
            known = self._known(each.instance.process_instance_id)
            record = await self._record(app, target, each, form_uuid, held=held)
            if record is None or (known is not None and known.as_of_ms > each.as_of_ms):
                continue
            is_same = known is not None and known.digest == digest_of(record)
            (same if is_same else changed).append((record, each))
        await self._write([record for record, _ in changed])
        now_ms = self._clock.now_ms()
        with self._forms.transaction():
            for record, (_, changed_ms, as_of_ms, *_) in same:
                due_ms = now_ms + self._rules.check_ms
                self._forms.confirm(record.instance_id, changed_ms=changed_ms, as_of_ms=as_of_ms, due_ms=due_ms)
            for record, (_, changed_ms, as_of_ms, *_) in changed:
                self._store_record(record, target, changed_ms=changed_ms, as_of_ms=as_of_ms)
            self._forms.hold(held, target)

    async def _record(
        self, app: _App, target: Target, reading: _Reading, form_uuid: str | None, *, held: dict[str, tuple[int, int]]
    ) -> FormData | None:
        """None: the form is unknown, or its values were not returned, or are not published, or are held."""
        instance, its = reading.instance, app.api.app
        before, modified = self._known(instance.process_instance_id), span_of(instance.modified_time)
        if instance.data is None:
            return None
        form_uuid = target.ordinary or instance.form_uuid or form_uuid or (before.form_uuid if before else None)
        if not form_uuid or (its.forms and not target.ordinary and form_uuid not in its.forms):
            return None
        if before is None and reading.changed_ms < its.kept_since(form_uuid, now_ms=self._clock.now_ms()):
            return None
        data = await self._protected(app, form_uuid, instance.texts())
        if data is None:
            held[instance.process_instance_id] = reading.changed_ms, self._not_before[*target[:2], form_uuid]
            return None
        return FormData(
            *target[:2],
            form_uuid=form_uuid,
            process_code=instance.process_code or (before.process_code if before else None),
            instance_id=instance.process_instance_id,
            data=data,
            modified_at=None if modified is None else modified.first,
            read_at=self._read_at(before),
            cause=reading.cause,
            event_id=reading.event_id,
        )

    async def _protected(
        self, app: _App, form_uuid: str, data: Mapping[str, str | None]
    ) -> Mapping[str, str | None] | None:
        """The values that may be published; None if the form's definition, which says so, cannot be read now.

        A field that the definition lacks may be new: then it is read at once. If it lacks it still, the field is left
        out.
        """
        protection, key = self._protection(app.api.app), (app.api.app.corp_id, app.api.app.app_type, form_uuid)
        if not protection.needs_labels:
            return data
        if self._waits(self._not_before.get(key, 0)):
            return None
        try:
            defined = await self._definition(app, form_uuid)
            found = protected(data, defined.definition, protection)
            if found.unknown - defined.unknown:
                defined = await self._define(app, form_uuid, found.unknown)
                found = protected(data, defined.definition, protection)
        except (Refused, Unexpected, Absent) as error:
            self._refused(key, error)
            return None
        self._count(app.api.app, len(found.unknown) + found.unclear)
        return found.data

    async def _definition(self, app: _App, form_uuid: str) -> Defined:
        its = app.api.app
        defined = self._forms.defined(its.corp_id, its.app_type, form_uuid)
        if defined is None or not 0 < defined.due_ms - self._clock.now_ms() <= DAY_MS:
            return await self._define(app, form_uuid, set())
        return defined

    async def _define(self, app: _App, form_uuid: str, unknown: set[str]) -> Defined:
        """Read the form's definition: daily, and an hour after it lacked another field. Raises what calls raise.

        If it lacks another one within minutes, it is not read at once: names of fields that never end cost no calls.
        """
        its, now_ms = app.api.app, self._clock.now_ms()
        key = its.corp_id, its.app_type, form_uuid
        before = self._forms.defined(*key)
        if before is not None and self._waits(self._defined_ms.get(key, 0) + _DEFINED_MS):
            definition = before.definition
        else:
            definition = Definition.of(await app.organisation.form(its, form_uuid, None))
            self._defined_ms[key] = now_ms
        before = before or Defined(definition, 0, set())
        left = {each for each in before.unknown | unknown if not definition.knows(each)}
        if left - before.unknown:
            _log.warning("form_fields_unknown", form_uuid=form_uuid, fields=sorted(left))
        found = Defined(definition, now_ms + (_HOUR_MS if left - before.unknown else DAY_MS), left)
        with self._forms.transaction():
            self._forms.define(*key, found)
            if before.unknown - left:
                self._forms.check_all(*key, now_ms=now_ms)
        return found

    def _protection(self, app: App) -> Protection:
        if app.hash_fields and not self._rules.hash_key:
            self._problems.append(f"{app.app_type}: hash_fields are left out without RECONCILE_HASH_KEY_FILE")
            return Protection((*app.omit_fields, *app.hash_fields))
        return Protection(app.omit_fields, app.hash_fields, self._rules.hash_key)

    def _count(self, app: App, left_out: int) -> None:
        if left_out:
            self._on_left_out(app.app_type, left_out)

    async def _write(self, records: Sequence[FormData]) -> None:
        await self._writer.write_forms(records)
        for each in records:
            self._on_written(each)

    def _store_record(self, record: FormData, target: Target, *, changed_ms: int, as_of_ms: int) -> None:
        now_ms = self._clock.now_ms()
        due_ms = self._due_ms(record, now_ms)
        self._forms.store(record, target, changed_ms=changed_ms, as_of_ms=as_of_ms, due_ms=due_ms)
        if record.form_uuid and not record.deleted:
            its = record.corp_id, record.app_type, record.form_uuid
            is_new = self._forms.add_fields(record.corp_id, record.form_uuid, fields_of(record.data))
            self._store.names.see_form(*its, now_ms=now_ms, is_new=is_new)

    def _due_ms(self, record: FormData, now_ms: int) -> int:
        return now_ms + (DELETED_MS if record.deleted else self._rules.check_ms)


class _App(NamedTuple):
    api: YidaApi
    organisation: OrganisationApi


def targets_of(app: App) -> list[Target]:
    return [Target(app.corp_id, app.app_type, each) for each in ("", *app.ordinary_forms)]
