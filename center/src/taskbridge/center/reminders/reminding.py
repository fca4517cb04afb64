"""Sends reminders, a daily digest, and what has just happened: each once, by any of several replicas.

A row in ``reminders`` is one person's message about one task on one channel, or their digest of one day. Rows are added
when they are due to be sent; a row that is there is not added again. A replica claims a row before it sends it, so
that others leave it alone for _LEASE_MS, and notes it right after. If a replica dies in between, the message is sent
once more: a reminder that is lost costs more than one that comes twice. It then has the id that it had before.
Receivers of push messages and work notifications cannot recognise that: there a row is noted before it is sent.

Of new tasks and decisions, rows are added by ``changes``, also in quiet hours, and sent if they are still true then.

A message that fails is tried again, _ATTEMPTS times in all. Rows of tasks that are not pending any more are removed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from datetime import datetime  # noqa: TC003 - msgspec reads it
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, and_, bindparam, delete, or_, select, tuple_, update

from taskbridge.center.reminders.channels import NotSent, Outside, Send, opened
from taskbridge.center.reminders.file import (
    WORK,
    Channel,
    Email,
    Push,
    Reminders,
    RemindersFile,
    Robot,
    Work,
    kinds_of,
)
from taskbridge.center.reminders.messages import DECIDED, DIGEST, NAMED_MAX, NEW, REMINDER, Line, Message, Task, id_of
from taskbridge.center.reminders.waiting import IS_WAITING, counts_of, names_of, people_after, waiting
from taskbridge.center.tables import (
    VIEW_CODES,
    WHOLE_INSTANCE,
    Person,
    changes,
    entries,
    instances,
    of_person,
    person_ids,
    read_entry,
    read_state,
    reminders,
)
from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, Upsert, now_ms
from taskbridge.runtime.refusals import NotNow
from taskbridge.runtime.tokens import ALL_CORPS
from taskbridge.schemas.events import Change, Status, View
from taskbridge.schemas.outcomes import TERMINATED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from prometheus_client import Counter

    from taskbridge.center.reminders.devices import Devices
    from taskbridge.center.reminders.due import Rule
    from taskbridge.center.reminders.messages import Notice
    from taskbridge.center.tables import Complete
    from taskbridge.schemas.events import TaskState

EMAIL = "email"
"""In ``person_ids``: the kind of a person's address."""
_EVERY_S = 30.0
_PAGE = 500
_CLAIMED, _OF_PERSON = 100, 5_000
"""Rows of a claim, which may be more if they are of its last person."""
_LEASE_MS = 10 * 60_000
_SENDING_S = 5 * 60.0
"""No message of a claim is begun later: it ends before the claim does."""
_ATTEMPTS = 5
_RETRY_MS = (60_000, 5 * 60_000, 30 * 60_000, 2 * 3_600_000)
_DIGEST_MS = 3 * 3_600_000
"""A digest that could not be sent for so long is not sent that day."""
_STORED_MS = 30 * 86_400_000
_ARRIVED_MS = 86_400_000
"""What happened longer ago is no news: it came late, or history was brought in."""
_FIRST_MS, _LATE_MS = 3_600_000, 10 * 60_000
"""How far back changes are read at first, and again: others commit late, and partitions lag."""
_SETTLED_MS = 120_000
"""A request that is decided may have its next step by then."""
_TOGETHER_MS = 5 * 60_000
"""Work notifications of so long are one call, because DingTalk's calls are counted."""

_ADD = Upsert(reminders, only_new=True)
_KEY = tuple(reminders.primary_key.columns)
_THIS = and_(*(each == bindparam(f"its_{each.name}") for each in _KEY))
_DELETE = delete(reminders).where(_THIS)
_CLAIM = update(reminders).where(_THIS).values(attempts=reminders.c.attempts + 1, retry_at=bindparam("until"))
_NEW: dict[str, Any] = {each: bindparam(f"new_{each}") for each in ("retry_at", "done_at", "problem")}
_NOTE = update(reminders).where(_THIS).values(_NEW)
_CHANGE = changes.c.at, changes.c.corp_id, changes.c.user_id, changes.c.seq

log = structlog.get_logger(__name__)


class Key(NamedTuple):
    """Of a row, in the order of the columns."""

    corp_id: str
    user_id: str
    instance_id: str
    task_id: str
    kind: str
    due_at: int
    channel: str

    def given(self) -> dict[str, Any]:
        return {f"its_{name}": value for name, value in self._asdict().items()}


class ClaimedReminder(NamedTuple):
    """A row that this replica is to send, and what it is about."""

    key: Key
    attempts: int
    """Including this one."""
    task: Task | None = None


class _Change(Struct):
    """Of ``changes.data``."""

    view: str
    change: str
    status: str
    instance_id: str
    task_id: str | None = None
    entered_at: datetime | None = None
    updated_at: datetime | None = None


_read_change = msgspec.json.Decoder(_Change).decode


class Reminding:
    def __init__(
        self,
        database: Database,
        file: RemindersFile,
        results: Counter,
        is_complete: Callable[[], bool],
        *,
        complete: Complete,
        url: str | None = None,
        devices: Devices,
        notify: Callable[[Notice], None],
    ) -> None:
        """``is_complete`` tells whether lists and people are read. ``url``: the task center's, for messages.

        ``notify`` sends DingTalk's work notifications.
        """
        self._database, self._file, self._results = database, file, results
        self._is_complete, self._complete, self._url = is_complete, complete, url
        self._stopping = threading.Event()
        self._digested: set[int] = set()
        self._devices = devices
        self._outside = Outside(devices.forget, notify, {})
        self._read_to: int | None = None
        """Up to which time changes were read."""
        self._added: set[Key] = set()
        """Of these changes: they are read again."""

    async def run(self) -> None:
        """Look until cancelled. A message that is being sent then is sent and noted first."""
        thread = Threads(1)
        try:
            while True:
                await thread.run(self._look)
                await asyncio.sleep(_EVERY_S)
        finally:
            self._stopping.set()
            await asyncio.to_thread(thread.close, wait=True)

    def _look(self) -> None:
        try:
            if self._is_complete():
                self.tick(now_ms())
        except (DatabaseUnavailable, NotNow) as error:
            log.warning("reminders_interrupted", problem=str(error))

    def tick(self, now: int) -> None:
        """Add what is due to be sent at this time, and send what is there, unless these are quiet hours."""
        current = self._file.current
        if any(NEW in kinds_of(each) for each in current.channels.values()):
            self._add_arrivals(current, now)
        if not current.channels or current.is_quiet(now):
            return
        for name, channel in current.channels.items():
            for kind in kinds_of(channel):
                for result in ("sent", "failed", "given_up"):
                    self._results.labels(name, kind, result)  # from 0, so that the first one is an increase
        for rule in current.due.rules:
            if rule.reminder_ms is not None:
                self._add_reminders(current, rule, now)
        self._add_digests(current, now)
        for name, channel in current.channels.items():
            while not self._stopping.is_set() and self._send_some(current, name, channel, now):
                pass
        self._database.purge(reminders, reminders.c.due_at < now - _STORED_MS)

    # Which messages there are to send.

    def _add_reminders(self, current: Reminders, rule: Rule, now: int) -> None:
        due, before = current.due, rule.reminder_ms or 0
        # What is overdue has had its time: the digest names it.
        entered = due.entered_up_to(rule, now), due.entered_up_to(rule, now, less_ms=before)
        self._add_between(current, rule, now, entries.c.entered_at, entered, entries.c.due_at.is_(None))
        self._add_between(current, rule, now, entries.c.due_at, (now, due.working_time.after(now, before)))

    def _add_between(
        self,
        current: Reminders,
        rule: Rule,
        now: int,
        at: Column[int],
        period: tuple[int, int],
        *more: ColumnElement[bool],
    ) -> None:
        due = current.due
        where = [IS_WAITING, at > period[0], at <= period[1], *more]
        for column, name in ((entries.c.app_type, rule.app_type), (entries.c.process_name, rule.process)):
            if name is not None:
                where.append(column == name)
        place = at.label("at"), entries.c.instance, entries.c.number
        names = ("corp_id", "user_id", "instance_id", "task_id", "app_type", "process_name", "entered_at", "due_at")
        columns = [entries.c[name] for name in names]
        page = select(*place, *columns).where(*where).order_by(at, *place[1:]).limit(_PAGE)
        after: tuple[int, int, int] | None = None
        while True:
            further = page if after is None else page.where(at >= after[0], tuple_(at, *place[1:]) > tuple_(*after))
            with self._database.read() as connection, self._complete(connection):
                rows = connection.execute(further).all()
                found = {
                    (row.corp_id, row.user_id, row.instance_id, row.task_id): due_at
                    for row in rows
                    if due.rule_of(row.app_type, row.process_name) is rule
                    and (due_at := due.due_at(row.app_type, row.process_name, row.entered_at, row.due_at)) is not None
                }
                to = self._channels_of(connection, current, REMINDER, {key[:2] for key in found}, now)
            self._add(Key(*key, REMINDER, due_at, channel) for key, due_at in found.items() for channel in to(key[:2]))
            if len(rows) < _PAGE:
                return
            after = rows[-1].at, rows[-1].instance, rows[-1].number

    def _add_digests(self, current: Reminders, now: int) -> None:
        if current.digest_at is None:
            return
        working_time = current.due.working_time
        today = working_time.local(now).date()
        at = working_time.moment(today, current.digest_at)
        if not (working_time.is_working_day(today) and at <= now < at + _DIGEST_MS) or at in self._digested:
            return
        after: Person | None = None
        while True:
            with self._database.read() as connection, self._complete(connection):
                found = people_after(connection, after, _PAGE)
                to = self._channels_of(connection, current, DIGEST, found, now)
            keys: dict[Key, None] = {}
            for corp_id, user_id in found:
                for channel in to((corp_id, user_id)):
                    is_group = isinstance(current.channels[channel], Robot)
                    keys[Key(corp_id, "" if is_group else user_id, "", "", DIGEST, at, channel)] = None
            self._add(keys)
            if len(found) < _PAGE:
                break
            after = found[-1]
        # Others may do the same: a row is added once.
        self._digested = {at}

    def _add_arrivals(self, current: Reminders, now: int) -> None:
        """New tasks, and decisions on people's own requests, of the changes since the last time."""
        since, latest = self._read_to or now - _FIRST_MS, 0
        after: tuple[object, ...] = (since - _LATE_MS, "", "", 0)
        added: set[Key] = set()
        while True:
            # The first condition is the one by which SQLite enters the index.
            where = changes.c.at >= after[0], tuple_(*_CHANGE) > tuple_(*after)
            with self._database.read() as connection, self._complete(connection):
                rows = connection.execute(
                    select(*_CHANGE, changes.c.data).where(*where).order_by(*_CHANGE).limit(_PAGE)
                ).all()
                found = [
                    (row.corp_id, row.user_id, *arrived)
                    for row in rows
                    if (arrived := _arrival(_read_change(row.data))) and arrived[-1] > now - _ARRIVED_MS
                ]
                to = self._channels_of(connection, current, NEW, {each[:2] for each in found}, now)
            for wait_ms, kind in ((0, NEW), (_SETTLED_MS, DECIDED)):
                of_kind = [each for each in found if each[4] == kind]
                keys = {Key(*each, channel) for each in of_kind for channel in to(each[:2])}
                self._add(keys - self._added, at=now + wait_ms)
                added |= keys
            if rows:
                latest, after = rows[-1].at, tuple(rows[-1])[:-1]
            if len(rows) < _PAGE:
                self._read_to, self._added = max(since, min(latest, now)), added
                return

    def _add(self, keys: Iterable[Key], *, at: int = 0) -> None:
        """``at``: when they may be sent; work notifications of some minutes together."""
        together = -(-at // _TOGETHER_MS) * _TOGETHER_MS
        if rows := [(*each, 0, together if each.channel == WORK else at, None, None) for each in sorted(set(keys))]:
            with self._database.write() as connection:
                self._database.put(connection, _ADD, rows)

    # Sending them.

    def _send_some(self, current: Reminders, name: str, channel: Channel, now: int) -> bool:
        """Send a part of what is there; returns whether there may be more to send now."""
        began = time.monotonic()
        claimed = self._claim(current, name, now)
        if not claimed:
            return False
        with self._database.read() as connection, self._complete(connection):
            messages = list(self._messages(connection, current, channel, claimed, now))
        left = {each.key: each for each in claimed}
        failure: NotSent | None = None
        try:
            with opened(channel, current, self._url, self._outside) as send:
                for message, rows in messages:
                    if self._stopping.is_set() or time.monotonic() > began + _SENDING_S:
                        return False  # they are claimed again after the lease
                    if isinstance(channel, Push | Work):
                        self._note(rows, done_at=now)
                    failure = self._send_one(send, message, rows, now)
                    for each in rows:
                        del left[each.key]
                    if failure is not None:
                        break
        except NotSent as error:
            failure = error
        if failure is not None:
            self._failed(list(left.values()), failure, now)
        elif left:
            self._drop(channel, [each for each in claimed if each.key in left], now)
        return failure is None

    def _drop(self, channel: Channel, rows: Sequence[ClaimedReminder], now: int) -> None:
        """What they are about is not true any more."""
        if isinstance(channel, Push | Work):
            self._note(rows, done_at=now)  # or changes, which are read several times, would add them
            return
        with self._database.write() as connection:
            connection.execute(_DELETE, [each.key.given() for each in rows])

    def _send_one(self, send: Send, message: Message, rows: Sequence[ClaimedReminder], now: int) -> NotSent | None:
        """Returns why no other message would be sent either."""
        try:
            send(message)
        except NotSent as error:
            self._failed(rows, error, now)
            return error if error.channel_fails else None
        self._results.labels(rows[0].key.channel, message.kind, "sent").inc()
        self._note(rows, done_at=now)
        return None

    def _failed(self, rows: Sequence[ClaimedReminder], failure: NotSent, now: int) -> None:
        for each in rows:
            given_up = failure.is_final or each.attempts >= _ATTEMPTS
            result = "given_up" if given_up else "failed"
            self._results.labels(each.key.channel, each.key.kind, result).inc()
            log.warning(
                "reminder_given_up" if given_up else "reminder_failed",
                channel=each.key.channel,
                kind=each.key.kind,
                corp_id=each.key.corp_id,
                user_id=each.key.user_id,
                attempts=each.attempts,
                problem=str(failure),
            )
            retry_at = now + _RETRY_MS[min(each.attempts, len(_RETRY_MS)) - 1]
            self._note([each], retry_at=retry_at, done_at=now if given_up else None, problem=str(failure))

    def _note(
        self, rows: Sequence[ClaimedReminder], *, retry_at: int = 0, done_at: int | None, problem: str = ""
    ) -> None:
        new = {"new_retry_at": retry_at, "new_done_at": done_at, "new_problem": problem or None}
        with self._database.write() as connection:
            connection.execute(_NOTE, [{**each.key.given(), **new} for each in rows])

    def _claim(self, current: Reminders, channel: str, now: int) -> list[ClaimedReminder]:
        """Rows that may be sent now, and whose digests are not of a past day; no other replica has them."""
        open_rows = select(*_KEY, reminders.c.attempts).where(
            reminders.c.channel == channel, reminders.c.done_at.is_(None), reminders.c.retry_at <= now
        )
        order = reminders.c.corp_id, reminders.c.user_id
        with self._database.write() as connection, self._complete(connection):
            rows = connection.execute(
                open_rows.order_by(*order).limit(_CLAIMED).with_for_update(skip_locked=True)
            ).all()
            if len(rows) == _CLAIMED:
                # All of the last person's: what they get is one message.
                last = rows[-1].corp_id, rows[-1].user_id
                more = open_rows.where(of_person(reminders, last)).limit(_OF_PERSON).with_for_update(skip_locked=True)
                rows = [*(each for each in rows if (each.corp_id, each.user_id) != last), *connection.execute(more)]
            found = [ClaimedReminder(Key(*tuple(row)[:-1]), row.attempts + 1) for row in rows]
            if found:
                given = [{**each.key.given(), "until": now + _LEASE_MS} for each in found]
                connection.execute(_CLAIM, given)
            return [
                each._replace(task=task) for each, task in zip(found, _tasks(connection, current, found), strict=True)
            ]

    def _messages(
        self, connection: Connection, current: Reminders, channel: Channel, claimed: Sequence[ClaimedReminder], now: int
    ) -> Iterator[tuple[Message, list[ClaimedReminder]]]:
        """One for each person and kind, or for each corp and kind to a group. None about what is not pending."""
        people = {each.key[:2] for each in claimed}
        addresses = _addresses(connection, people) if isinstance(channel, Email) else {}
        devices = self._devices.of(connection, people, now) if isinstance(channel, Push) else {}
        for (corp_id, user_id, kind), rows in _grouped(channel, claimed, now).items():
            person = corp_id, user_id
            message = Message(
                id_of([each.key for each in rows]),
                kind,
                corp_id,
                now,
                user_id,
                addresses.get(person),
                [each.task for each in rows if each.task is not None],
                devices=devices.get(person, ()),
            )
            if (isinstance(channel, Email) and message.address is None) or (
                isinstance(channel, Push) and not message.devices
            ):
                continue
            if isinstance(channel, Work):
                users = sorted({each.key.user_id for each in rows})
                message = message._replace(lines=[Line(each, None, 0, 0) for each in users])
            elif isinstance(channel, Robot):
                message = _to_group(connection, current, message, rows)
            elif kind == DIGEST:
                counts = counts_of(connection, current.due, now, person)
                message = message._replace(counts=counts, tasks=_oldest(connection, current, person))
            if message.tasks or message.lines:
                yield message, rows

    def _channels_of(
        self, connection: Connection, current: Reminders, kind: str, found: Collection[Person], now: int
    ) -> Callable[[Person], list[str]]:
        """The channels of each of these people: by e-mail, those who have an address; by push, a device."""
        channels = {name: each for name, each in current.channels.items() if kind in kinds_of(each)}
        only: dict[str, Collection[Person]] = {}
        for name, channel in channels.items():
            if isinstance(channel, Email):
                only[name] = _addresses(connection, found)
            elif isinstance(channel, Push):
                only[name] = self._devices.of(connection, found, now)

        def of_person(person: Person) -> list[str]:
            return [
                name
                for name, channel in channels.items()
                if (ALL_CORPS in channel.corps or person[0] in channel.corps)
                and (name not in only or person in only[name])
            ]

        return of_person


def _addresses(connection: Connection, found: Collection[Person]) -> dict[Person, str]:
    person = person_ids.c.corp_id, person_ids.c.user_id
    wanted = select(*person, person_ids.c.value).where(tuple_(*person).in_(found), person_ids.c.kind == EMAIL)
    return {(row[0], row[1]): row[2] for row in connection.execute(wanted)} if found else {}


def _grouped(
    channel: Channel, claimed: Iterable[ClaimedReminder], now: int
) -> dict[tuple[str, str, str], list[ClaimedReminder]]:
    """By corp, person (empty: several) and kind; what is not true any more is left out."""
    groups: dict[tuple[str, str, str], list[ClaimedReminder]] = defaultdict(list)
    for each in claimed:
        corp_id, user_id, kind = each.key.corp_id, each.key.user_id, each.key.kind
        if isinstance(channel, Robot | Work):
            user_id = ""
        if each.task is not None if kind != DIGEST else now < each.key.due_at + _DIGEST_MS:
            groups[corp_id, user_id, kind].append(each)
    return groups


def _arrival(change: _Change) -> tuple[str, str, str, int] | None:
    """Instance, task, kind and time of what a change says that the person should know at once; None if nothing."""
    kind, at = None, change.entered_at
    if change.view == View.PENDING.lower() and change.change == Change.ADDED:
        kind = NEW
    elif change.view == View.CREATED.lower() and change.status == Status.COMPLETED:
        kind, at = DECIDED, change.updated_at
    if kind is None or at is None:
        return None
    return change.instance_id, change.task_id or "", kind, round(at.timestamp() * 1000)


def _tasks(connection: Connection, current: Reminders, rows: Sequence[ClaimedReminder]) -> list[Task | None]:
    """What each row is about; None for a digest, or if it is not true any more.

    The task is not pending or is due at another time; the request has changed since it was decided, or the person
    decided or withdrew it.
    """
    ids = {each.key.instance_id for each in rows if each.key.kind != DIGEST}
    columns = [entries.c[name] for name in ("corp_id", "user_id", "instance_id", "task_id", "view", "item")]
    of_instances = select(*columns).join(instances, entries.c.instance == instances.c.id)
    created, handled = (VIEW_CODES[each] for each in (View.CREATED, View.HANDLED))
    where = instances.c.instance_id.in_(ids), or_(IS_WAITING, entries.c.view.in_((created, handled)))
    decided = {each.key.instance_id for each in rows if each.key.kind == DECIDED}
    states = select(instances.c.instance_id, instances.c.state).where(instances.c.instance_id.in_(decided))
    read = connection.execute(states) if decided else ()
    withdrawn = {instance_id for instance_id, data in read if _is_withdrawn(read_state(data))}
    found: dict[tuple[object, ...], Task] = {}
    own: set[tuple[object, ...]] = set()
    """Who decided themself, and when."""
    for row in connection.execute(of_instances.where(*where)):
        task, entry, key = _task(current, row.instance_id, row.task_id, row.item), read_entry(row.item), tuple(row[:4])
        if row.view == handled:
            own.add((*key[:3], WHOLE_INSTANCE, DECIDED, entry.entered_at))
        elif row.view == created and entry.status == Status.COMPLETED and row.instance_id not in withdrawn:
            found[*key, DECIDED, entry.updated_at] = task
        elif row.view != created:
            found[*key, REMINDER, task.due_at] = found[*key, NEW, entry.entered_at] = task
    return [None if (key := tuple(each.key)[:6]) in own else found.get(key) for each in rows]


def _is_withdrawn(state: TaskState) -> bool:
    """Whether no decision ended it. Yida does not say so: then, whether a step ended that nobody decided."""
    if state.finished_at is not None and state.result is not None:
        return state.result.upper().endswith(TERMINATED)
    decisions = [each.decided_at or 0 for each in state.tasks if each.status is Status.COMPLETED]
    last = max(decisions, default=0)
    return any(
        each.status is Status.CANCELLED
        and (each.decided_at or 0) > last
        and ((each.created_at or 0) >= last or (each.decided_at or 0) > last + _SETTLED_MS)
        for each in state.tasks
    )


def _oldest(connection: Connection, current: Reminders, person: Person) -> list[Task]:
    columns = entries.c.instance_id, entries.c.task_id, entries.c.item
    its = of_person(entries, person), IS_WAITING
    found = select(*columns).where(*its).order_by(entries.c.entered_at).limit(NAMED_MAX)
    return [_task(current, *row) for row in connection.execute(found)]


def _task(current: Reminders, instance_id: str, task_id: str, item: bytes) -> Task:
    entry, due = read_entry(item), current.due
    due_at = due.due_at(entry.app_type, entry.process_name, entry.entered_at, entry.due_at)
    local = None if due_at is None else due.working_time.local(due_at)
    named = entry.title, entry.app_type, entry.process_name, entry.url
    return Task(instance_id, task_id or None, *named, due_at, local)


def _to_group(connection: Connection, current: Reminders, message: Message, rows: Sequence[ClaimedReminder]) -> Message:
    corp_id, due, now = message.corp_id, current.due, message.at
    if message.kind == DIGEST:
        found = waiting(connection, due, now, corp_id, limit=NAMED_MAX)
        lines = [Line(user, name, counts.pending, counts.overdue) for (user, name), counts in found.people]
        return message._replace(lines=lines, is_complete=found.is_complete)
    counts: dict[str, int] = defaultdict(int)
    for each in rows:
        counts[each.key.user_id] += 1
    names = names_of(connection, corp_id, counts)
    lines = [Line(user, names.get(user), count, 0) for user, count in sorted(counts.items())]
    return message._replace(lines=lines[:NAMED_MAX], is_complete=len(lines) <= NAMED_MAX)
