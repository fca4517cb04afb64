"""Publishes the values of forms, as they are after people edit them: a create has them, others are read from DingTalk.

A record is written if it differs from the last one. One process writes at a time; what another one wrote is read from
the topic. Positions and digests are stored after the delivery: a kill in between writes a record twice, and loses none.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import IDS_PER_CALL, Days
from taskbridge.dingtalk.calls import Absent, Later, Refused, TooMuch, Unexpected
from taskbridge.dingtalk.times import DAY_MS, day_of, day_start_ms, next_day_ms, next_month_ms, span_of
from taskbridge.reconcile.form_store import DELETED_MS, SCAN, WORK, Target, digest_of, is_late
from taskbridge.reconcile.form_values import Protection, fields_of, protected, unlabelled
from taskbridge.reconcile.repairer import BACKFILL, RECONCILE
from taskbridge.reconcile.repairs import form_texts
from taskbridge.reconcile.runs import SUSPICIOUS, plus_days, slice_of
from taskbridge.reconcile.store import Cursor, CursorKey
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import AHEAD_MS, SOURCE_YIDA, Action, FormData, TaskEvent
from taskbridge.schemas.topics import FORM_DATA, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

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

CREATE, EVENT = "create", "event"
"""Causes of a record, besides ``SCAN``, and ``BACKFILL`` for the create of a backfill."""
_FOR_EVENTS, _FOR_SCANS, _FOR_CHECKS = 0.5, 0.6, 0.75
"""The share of the day's calls above which each is made: events come before scans, and these before deletions."""
_CHECK = "check"
_HOUR_MS = 60 * 60 * 1000
_INDEXED_MS = 2 * _HOUR_MS
"""A list of instances has the changes before this time for certain."""
_PASS_FIRST_MS = _HOUR_MS
"""How much later than its time a scan of a process begins: a pass may do its work."""
_REFUSED_MS = _HOUR_MS
"""How long a work that DingTalk refuses is not tried again."""
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
    hash_key: bytes = b""


class _Reading(NamedTuple):
    """Values, and since when they are known to be right."""

    instance: wire.Instance
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
    ) -> None:
        self._store, self._forms = store, store.forms
        self._reader, self._events, self._records, self._writer = topics
        self._budget, self._clock, self._rules, self._on_written = budget, clock, rules, on_written
        self._labels: dict[tuple[str, str], tuple[int, Mapping[str, str]]] = {}
        """By corp and form: when its definition was read, and its labels."""
        self._not_before: dict[tuple[str, ...], int] = {}
        """By corp, or by what DingTalk refused: when calls are made again."""
        self._next_ms: dict[str, int] = {}
        """By corp: when instances are read again because of events."""
        self._ordinary = set[Target]()

    async def run(self, apis: Sequence[YidaApi], organisations: Sequence[OrganisationApi]) -> None:
        """Write what the events have, then read what is due, while enough of the day's calls are left.

        Raises:
            OperatorError: Kafka or the registry does not answer, or DingTalk refuses a call.
        """
        problems = list[str]()
        self._ordinary = {target for api in apis for target in targets_of(api.app) if target.ordinary}
        await self._follow_records()
        await self._follow_events({(each.app.corp_id, each.app.app_type): each.app for each in apis})
        by_corp = {each.organisation.corp_id: each for each in organisations}
        every = [(_App(each, by_corp[each.app.corp_id]), target) for each in apis for target in targets_of(each.app)]
        self._forms.forget_others([target for _, target in every])
        now_ms, used = self._clock.now_ms(), {each: self._budget.used(each).day for each in by_corp}
        for app, target in every:
            if self._next_ms.get(target.corp_id, 0) <= now_ms:
                await self._attempt((*target, EVENT), self._read_due(app, target), problems)
        self._space(used)
        for app, target in every:
            for form_uuid in self._to_scan(app.api.app, target):
                await self._attempt((*target, form_uuid), self._scan(app, target, form_uuid), problems)
        for app, target in every:
            await self._attempt((*target, _CHECK), self._check_due(app, target), problems)
        while ids := self._forms.expired(now_ms=self._clock.now_ms(), most=_TOMBSTONES):
            await self._writer.write_forms([], ids)
            with self._forms.transaction():
                self._forms.delete(ids)
        if problems:
            raise OperatorError("; ".join(dict.fromkeys(problems)))

    def _space(self, used: Mapping[str, int]) -> None:
        """Let the calls for events last until the end of the day and the month: what waits is read by one call."""
        now_ms, allowance = self._clock.now_ms(), self._budget.allowance
        for corp_id, before in used.items():
            now_used = self._budget.used(corp_id)
            if (made := now_used.day - before) > 0:
                today = max(1, (1 - _FOR_EVENTS) * allowance.per_day - now_used.day)
                month = max(1, _FOR_EVENTS * (allowance.per_month - now_used.month))
                each_ms = max((next_day_ms(now_ms) - now_ms) / today, (next_month_ms(now_ms) - now_ms) / month)
                self._next_ms[corp_id] = min(next_day_ms(now_ms), now_ms + int(made * each_ms))

    async def _attempt(self, key: tuple[str, ...], work: Awaitable[None], problems: list[str]) -> None:
        """Await the work. What DingTalk refuses stops no other work, and is not repeated at once."""
        try:
            await work
        except Later as error:
            self._not_before[key[:1]] = error.retry_at_ms
            problems.append(str(error))
        except (Refused, Unexpected, Absent) as error:
            pause_ms = DAY_MS if isinstance(error, Absent) else _REFUSED_MS
            self._not_before[key] = self._clock.now_ms() + pause_ms
            problems.append(f"{key[1]}: {error}")

    def _may(self, target: Target, work: str, *, above: float) -> bool:
        closed_ms = max(self._not_before.get(each, 0) for each in (target[:1], (*target, work)))
        return closed_ms <= self._clock.now_ms() and self._budget.may_spend(target.corp_id, above=above)

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
                latest = {(each.key() or b"").decode("utf-8", "replace"): each.value() for each in batch}
                with self._forms.transaction():
                    for instance_id, value in latest.items():
                        if value is None:
                            self._forms.delete([instance_id])
                            continue
                        try:
                            self._learn(self._records.decode(value))
                        except Undecodable as error:
                            _log.error("form_record_not_readable", instance_id=instance_id, problem=str(error))
                    self._forms.save_positions(FORM_DATA.name, self._reader.reached)

    def _learn(self, record: FormData) -> None:
        known, now_ms = self._forms.find(record.instance_id), self._clock.now_ms()
        if known is not None and known.digest == digest_of(record):
            return
        ordinary = Target(record.corp_id, record.app_type, record.form_uuid)
        target = ordinary if ordinary in self._ordinary else ordinary._replace(ordinary="")
        self._forms.store(record, target, as_of_ms=0, due_ms=self._due_ms(record, now_ms))
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
                        self._store_record(record, Target(record.corp_id, record.app_type), as_of_ms)
                        if record.deleted:
                            self._forms.forget(record.instance_id)
                    self._forms.save_positions(TASK_EVENTS.name, self._reader.reached)

    def _sort(self, event: TaskEvent, app: App, new: dict[str, tuple[FormData, int]], changed: list[TaskEvent]) -> None:
        """Add what the event says to the new records, each with the time of its values, or to the changes to read."""
        known, (record, _) = self._forms.find(event.instance_id), new.get(event.instance_id, (None, 0))
        if (known is not None and known.is_deleted) or (record is not None and record.deleted):
            return
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
        """The values of a create; None if it has none, or if the labels that protect them were not read."""
        protection, labels = self._protection(app), self._labels.get((app.corp_id, event.form_uuid or ""))
        if not event.form_data or not event.form_uuid or (protection.needs_labels and labels is None):
            return None
        if labels is not None and unlabelled(event.form_data, labels[1]):
            return None
        return FormData(
            corp_id=event.corp_id,
            app_type=event.app_type,
            form_uuid=event.form_uuid,
            process_code=event.process_code,
            instance_id=event.instance_id,
            data=protected(event.form_data, {} if labels is None else labels[1], protection),
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
            read_at=self._clock.now_ms(),
            cause=EVENT,
            event_id=event.event_id,
            deleted=True,
        )

    def _schedule(self, event: TaskEvent) -> None:
        self._forms.schedule(
            event.instance_id,
            Target(event.corp_id, event.app_type),
            event_id=event.event_id,
            changed_ms=event.occurred_at,
            due_ms=event.received_at + self._rules.wait_ms,
            is_late=is_late(event.occurred_at, now_ms=self._clock.now_ms()),
        )

    async def _read_due(self, app: _App, target: Target) -> None:
        """Read the instances that events or scans announced, those of the newest changes first."""
        while self._may(target, EVENT, above=_FOR_EVENTS):
            due = self._forms.due(target, now_ms=self._clock.now_ms(), most=IDS_PER_CALL)
            if not due:
                break
            by_id = {each.instance_id: each for each in due}
            await self._read(app, target, [*by_id], by_id)
            with self._forms.transaction():
                for each in due:
                    self._forms.was_read(each, now_ms=self._clock.now_ms())

    async def _read(self, app: _App, target: Target, ids: Sequence[str], due: Mapping[str, Due]) -> set[str]:
        """Publish the values of these instances, and return those that DingTalk returned, or cannot answer for."""
        now_ms = self._clock.now_ms()
        try:
            found = await app.api.instances_by_id(ids, form_uuid=target.ordinary)
        except Unexpected as error:
            if len(ids) == 1:
                _log.error("form_not_readable", app_type=target.app_type, instance_id=ids[0], problem=str(error))
                return {*ids}
            half = len(ids) // 2
            return {each for some in (ids[:half], ids[half:]) for each in await self._read(app, target, some, due)}
        readings = list[_Reading]()
        for each, instance in found.items():
            event_id = due[each].event_id if each in due else None
            readings.append(_Reading(instance, now_ms, SCAN if event_id is None else EVENT, event_id))
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
        cursors = {each: self._store.cursors.find(CursorKey(WORK, *target[:2], each)) for each in sorted(forms)}
        now_ms = self._clock.now_ms()
        return [each for each, cursor in cursors.items() if cursor is None or cursor.until_ms + late_ms <= now_ms]

    async def _scan(self, app: _App, target: Target, form_uuid: str) -> None:
        """Read the lists of a form, of the instances that were modified since the last time."""
        key, now_ms, is_process = CursorKey(WORK, *target[:2], form_uuid), self._clock.now_ms(), not target.ordinary
        cursor = self._store.cursors.find(key) or Cursor(*[now_ms - self._rules.since_ms] * 2)
        first, last, is_large = day_of(cursor.until_ms - DAY_MS), day_of(now_ms + DAY_MS), False
        while first <= last and self._may(target, form_uuid, above=_FOR_SCANS):
            days = Days(first, first)
            if not is_large:
                days = await slice_of(app.api, form_uuid, Days(first, last), is_process=is_process)
            try:
                async for rows in app.api.instances(form_uuid, days, is_process=is_process):
                    await self._take(app, target, form_uuid, rows)
            except TooMuch as error:
                # A day has more than DingTalk lists. What it listed was taken; go on after that day.
                _log.error("form_not_listed", form_uuid=form_uuid, **days._asdict(), problem=str(error))
                if days.first < days.last:
                    is_large = True
                    continue
            cursor = Cursor(cursor.since_ms, max(cursor.until_ms, min(day_start_ms(days.last), now_ms)))
            self._store.cursors.move(key, cursor)
            first = plus_days(days.last, 1)

    async def _take(self, app: _App, target: Target, form_uuid: str, rows: Sequence[wire.Instance]) -> None:
        """Publish a page of a list. Where the list may be behind a reading by id, read the instance once more."""
        now_ms, readings = self._clock.now_ms(), list[_Reading]()
        with self._forms.transaction():
            for row in rows:
                known, modified = self._forms.find(row.process_instance_id), span_of(row.modified_time)
                if self._forms.is_read(row):
                    continue
                first_ms = 0 if modified is None else modified.first
                is_newer = known is None or (not known.is_deleted and first_ms > known.as_of_ms + AHEAD_MS)
                if is_newer:
                    as_of_ms = max(first_ms, now_ms - _INDEXED_MS)
                    readings.append(_Reading(row, as_of_ms, SCAN))
                else:
                    its_id, changed_ms = row.process_instance_id, first_ms or now_ms
                    self._forms.schedule(its_id, target, changed_ms=changed_ms, due_ms=now_ms, is_late=True)
        await self._publish(app, target, readings, form_uuid)

    async def _check_due(self, app: _App, target: Target) -> None:
        """Find deletions that no event announced: an instance that is absent twice, at least a day apart."""
        while self._may(target, _CHECK, above=_FOR_CHECKS):
            now_ms = self._clock.now_ms()
            ids = self._forms.to_check(target, now_ms=now_ms, most=IDS_PER_CALL)
            if not ids:
                break
            found = await self._read(app, target, ids, {})
            missing = [each for each in ids if each not in found]
            if len(missing) == len(ids) >= SUSPICIOUS:
                _log.warning("no_instances_visible", app_type=target.app_type, instances=len(ids))
                self._forms.postpone(ids, due_ms=now_ms + DAY_MS)
                break
            self._forms.postpone(found & {*ids}, due_ms=now_ms + self._rules.check_ms)
            for each in missing:
                await self._check_absence(app, target, each)

    async def _check_absence(self, app: _App, target: Target, instance_id: str) -> None:
        known, now_ms = self._forms.find(instance_id), self._clock.now_ms()
        if known is None or known.absent_ms is None or known.absent_ms + DAY_MS > now_ms:
            self._forms.postpone([instance_id], due_ms=now_ms + DAY_MS, absent_ms=now_ms)
        elif await app.api.exists(instance_id, form_uuid=target.ordinary):
            self._forms.confirm(instance_id, as_of_ms=0, due_ms=now_ms + self._rules.check_ms)
        else:
            record = FormData(
                *target[:2],
                form_uuid=known.form_uuid,
                process_code=known.process_code,
                instance_id=instance_id,
                read_at=now_ms,
                cause=SCAN,
                deleted=True,
            )
            await self._write([record])
            self._store_record(record, target, now_ms)

    async def _publish(
        self, app: _App, target: Target, readings: Sequence[_Reading], form_uuid: str | None = None
    ) -> None:
        """Write those that differ from the last record of their instance."""
        changed, same = list[tuple[FormData, int]](), list[tuple[FormData, int]]()
        for each in readings:
            known = self._forms.find(each.instance.process_instance_id)
            record = await self._record(app, target, each, known, form_uuid)
            if record is None or (known is not None and known.as_of_ms > each.as_of_ms):
                continue
            is_same = known is not None and known.digest == digest_of(record)
            (same if is_same else changed).append((record, each.as_of_ms))
        await self._write([record for record, _ in changed])
        with self._forms.transaction():
            for record, as_of_ms in same:
                due_ms = self._clock.now_ms() + self._rules.check_ms
                self._forms.confirm(record.instance_id, as_of_ms=as_of_ms, due_ms=due_ms)
            for record, as_of_ms in changed:
                self._store_record(record, target, as_of_ms)

    async def _record(
        self, app: _App, target: Target, reading: _Reading, before: Known | None, form_uuid: str | None
    ) -> FormData | None:
        """None: the form is unknown, or its values were not returned or are not published."""
        instance, its = reading.instance, app.api.app
        if instance.data is None:
            return None
        form_uuid = target.ordinary or instance.form_uuid or form_uuid or (before.form_uuid if before else None)
        if not form_uuid or (its.forms and not target.ordinary and form_uuid not in its.forms):
            return None
        data, labels = form_texts(instance.data), dict[str, str]()
        protection, modified = self._protection(its), span_of(instance.modified_time)
        if protection.needs_labels:
            labels = await self._labels_of(app, form_uuid, data)
        return FormData(
            *target[:2],
            form_uuid=form_uuid,
            process_code=instance.process_code or (before.process_code if before else None),
            instance_id=instance.process_instance_id,
            data=protected(data, labels, protection),
            modified_at=None if modified is None else modified.first,
            read_at=self._clock.now_ms(),
            cause=reading.cause,
            event_id=reading.event_id,
        )

    async def _labels_of(self, app: _App, form_uuid: str, data: Mapping[str, str | None]) -> Mapping[str, str]:
        """The form's labels: read daily, and once more for fields that they lack. Raises what calls raise."""
        key, now_ms = (app.api.app.corp_id, form_uuid), self._clock.now_ms()
        read_ms, labels = self._labels.get(key, (0, dict[str, str]()))
        if read_ms + DAY_MS <= now_ms or (read_ms + _HOUR_MS <= now_ms and unlabelled(data, labels)):
            labels = (await app.organisation.form(app.api.app, form_uuid, None)).labels
            self._labels[key] = now_ms, labels
        return labels

    def _protection(self, app: App) -> Protection:
        if app.hash_fields and not self._rules.hash_key:
            raise OperatorError(f"{app.app_type}: hash_fields requires RECONCILE_HASH_KEY_FILE")
        return Protection(app.omit_fields, app.hash_fields, self._rules.hash_key)

    async def _write(self, records: Sequence[FormData]) -> None:
        await self._writer.write_forms(records)
        for each in records:
            self._on_written(each)

    def _store_record(self, record: FormData, target: Target, as_of_ms: int) -> None:
        now_ms = self._clock.now_ms()
        self._forms.store(record, target, as_of_ms=as_of_ms, due_ms=self._due_ms(record, now_ms))
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
