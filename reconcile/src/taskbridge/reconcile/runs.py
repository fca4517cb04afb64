"""The kinds of runs: a pass over all apps, a read-back of instances, copies by person, the backfill of one app."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

import structlog

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import IDS_PER_CALL, Days
from taskbridge.dingtalk.calls import Absent, Later, NotOffered, Refused, TooMuch, Unexpected, Unreachable
from taskbridge.dingtalk.times import DAY_MS, day_of, day_start_ms, span_of
from taskbridge.reconcile.form_store import WORK
from taskbridge.reconcile.repairer import BACKFILL, READ_BACK, RECONCILE, Repairer, Tally
from taskbridge.reconcile.repairs import copied, deletion
from taskbridge.reconcile.states import GONE, StatesBehind
from taskbridge.reconcile.store import Cursor, CursorKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskbridge.dingtalk.api import YidaApi
    from taskbridge.dingtalk.organisation import OrganisationApi
    from taskbridge.reconcile.budget import Budget
    from taskbridge.reconcile.repairer import Context
    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.events import TaskState

_FIRST_PASS_MS = DAY_MS
"""How far back the first pass over a form looks. A backfill reads what is older."""
_SLICE_DAYS = 28
_LONG_DAYS = 7
_SLICE_ROWS = 2000
"""A slice with more rows is halved, because an interrupted slice is read from its beginning again."""
SUSPICIOUS = 10
"""If none of so many instances is returned, the user probably lost access to them."""
_READ_BACK_S = 60.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class PassReport:
    tally: Tally = field(default_factory=Tally)
    problems: dict[str, str] = field(default_factory=dict[str, str])
    """Why an app was not checked completely, by app."""
    retry_at_ms: int | None = None
    """The earliest time of a useful retry; None if any time is as good."""

    @property
    def is_whole(self) -> bool:
        return not self.problems

    @property
    def problem(self) -> str | None:
        return "; ".join(f"{app}: {why}" for app, why in self.problems.items()) or None


async def make_pass(context: Context, apis: Sequence[YidaApi]) -> PassReport:
    """Check and repair all instances that changed since the last pass.

    An app that is refused or postponed is in the report; the other apps are checked.

    Raises:
        StatesBehind: The workers are behind the events. DingTalk got no call.
        OperatorError: Kafka does not return the states, or does not accept an event.
    """
    await context.catch_up()
    report = PassReport()
    closed: dict[str, Later] = {}
    for api in apis:
        app = api.app
        try:
            if app.corp_id in closed:
                raise closed[app.corp_id]
            await _check_app(context, api, report)
        except Later as error:
            closed[app.corp_id] = error
            report.retry_at_ms = max(report.retry_at_ms or 0, error.retry_at_ms)
            report.problems[app.app_type] = str(error)
        except (Refused, Unexpected, Absent) as error:
            report.problems[app.app_type] = str(error)
            _log.error("app_not_read", app_type=app.app_type, problem=str(error))
    context.store.open_instances.remove_old(now_ms=context.clock.now_ms())
    context.store.findings.remove_old(now_ms=context.clock.now_ms())
    context.store.findings.pass_ended(now_ms=context.clock.now_ms(), is_whole=report.is_whole)
    return report


async def _check_app(context: Context, api: YidaApi, report: PassReport) -> None:
    key, now_ms = (api.app.corp_id, api.app.app_type), context.clock.now_ms()
    context.store.callbacks.watch(*key, now_ms=now_ms)
    repairer = Repairer(context, api, work=RECONCILE, tally=report.tally)
    # First, because people see a task that nobody can decide.
    ended = Repairer(context, api, work=RECONCILE, tally=report.tally)
    await _read_ended(ended)
    incomplete: Unreachable | Unexpected | TooMuch | None = None
    known_absent, absent = context.store.absent_forms.recent(*key, now_ms=now_ms), set[str]()
    for form in await api.forms():
        if form.form_uuid in known_absent:
            absent.add(form.form_uuid)
            continue
        rows = report.tally.rows
        try:
            await _read_form(repairer, form, context.clock.now_ms() - _FIRST_PASS_MS)
        except (Unreachable, Unexpected, TooMuch) as error:
            if report.tally.rows == rows:
                raise
            # DingTalk answered for some rows, so try the other forms.
            incomplete = error
        except Absent:
            absent.add(form.form_uuid)
            context.store.absent_forms.record(*key, form.form_uuid, now_ms=now_ms)
    await repairer.settle()
    await _find_deletions(repairer)
    for error in (incomplete, *ended.not_understood.values(), *repairer.not_understood.values()):
        if error is not None:
            raise error
    if absent:
        raise _absent(absent)


async def _read_ended(repairer: Repairer) -> None:
    """Read the instances that ended with a pending task. Raises what calls raise, but Unreachable."""
    app, rules = repairer.api.app, repairer.rules
    for instance_id in repairer.store.open_instances.ended(
        app.corp_id,
        app.app_type,
        now_ms=repairer.store.states.current_ms,
        quiet_ms=rules.settle_ms,
        most=rules.ids_per_pass,
    ):
        try:
            await repairer.read_open(instance_id)
        except Unreachable as error:
            # If DingTalk has this fault for one instance alone, the forms can be read.
            _log.warning("instance_not_read", app_type=app.app_type, problem=str(error))
            break


class ReadBack:
    """Reads instances that callbacks left open, once after the last callback. Off if no quiet time is set."""

    def __init__(self, context: Context, apis: Sequence[YidaApi], budget: Budget) -> None:
        rules = context.rules
        self._context = replace(context, rules=replace(rules, outcomes=True))
        self._apis, self._budget = apis, budget
        self._store, self._clock = context.store, context.clock
        # Callbacks need the settle time to arrive.
        self._quiet_ms = max(rules.read_back_ms, rules.settle_ms) if rules.read_back_ms else 0

    async def work_for(self, seconds: float, *, also: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run once a minute until this time is over, and then ``also``. Raises what they raise."""
        until_s = self._clock.monotonic_s() + seconds
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            await self._clock.sleep(min(left_s, _READ_BACK_S) if self._quiet_ms or also else left_s)
            if self._clock.monotonic_s() < until_s:
                if self._quiet_ms:
                    await self.run()
                if also is not None:
                    await also()

    async def run(self) -> Tally:
        """Read all quiet instances while more than half of the day's calls are left, because passes come first.

        Raises:
            OperatorError: Kafka does not return the states, or does not accept an event.
        """
        tally, closed = Tally(), set[str]()
        try:
            await self._context.catch_up()
        except StatesBehind as error:
            _log.info("read_back_postponed", problem=str(error))
            return tally
        known_ms = self._store.states.current_ms
        for api in self._apis:
            corp_id = api.app.corp_id
            repairer = Repairer(self._context, api, work=READ_BACK, tally=tally)
            due = self._store.open_instances.due(corp_id, api.app.app_type, now_ms=known_ms, quiet_ms=self._quiet_ms)
            for instance_id in due:
                if corp_id in closed or not self._budget.may_spend(corp_id):
                    break
                try:
                    await repairer.read_open(instance_id)
                except Later as error:
                    closed.add(corp_id)
                    _log.warning("read_back_stopped", corp_id=corp_id, problem=str(error))
        if tally.rows:
            _log.info("read_back", instances=tally.rows, repairs=tally.repairs.total())
        return tally


class Estimate(NamedTuple):
    """The size of a backfill, as DingTalk counts its instances now."""

    forms: int
    instances: int
    list_calls: int
    detail_calls: int
    """One for each instance, and one for the open tasks of several. A known instance costs none."""


async def estimate(api: YidaApi, clock: Clock, *, since_ms: int) -> Estimate:
    """Count the instances. It costs one call per form, and those for the list of forms. Raises what calls raise."""
    days = Days(day_of(since_ms - DAY_MS), day_of(clock.now_ms() + DAY_MS))
    counts = list[int]()
    for form in await api.forms():
        with suppress(Absent):
            counts.append(await api.count(form.form_uuid, days))
    pages = sum(max(1, math.ceil(each / wire.PAGE_ROWS)) for each in counts)
    return Estimate(len(counts), sum(counts), pages, sum(counts) + math.ceil(sum(counts) / IDS_PER_CALL))


async def import_history(
    context: Context, api: YidaApi, since_ms: int, *, tally: Tally, on_progress: Callable[[Tally], None]
) -> None:
    """Import all instances of one app that were modified since then: the backfill.

    After an interruption it continues; after its end it starts again. ``on_progress`` gets the tally after each page.

    Raises:
        Later, Refused, Unexpected: A call failed. What was imported stays.
        Absent: Some forms do not exist. All others were imported.
        OperatorError: Kafka does not accept an event.
    """
    repairer = Repairer(context, api, work=BACKFILL, tally=tally, on_progress=on_progress)
    forms, absent = await api.forms(), set[str]()
    for form in forms:
        try:
            await _read_form(repairer, form, since_ms)
        except Absent:
            absent.add(form.form_uuid)
    await repairer.settle()
    for error in repairer.not_understood.values():
        raise error
    for form in forms:
        context.store.cursors.delete(CursorKey(BACKFILL, api.app.corp_id, api.app.app_type, form.form_uuid))
    if absent:
        raise _absent(absent)


async def find_copies(
    context: Context,
    api: YidaApi,
    people: Sequence[str],
    since_ms: int,
    *,
    tally: Tally,
    organisation: OrganisationApi | None = None,
) -> None:
    """Publish the copies to these people whose callbacks never arrived, of known instances created since then.

    By person, because no call lists the copies of an instance. It costs a call for each person, one for each further
    hundred of a person's copies, and with an ``organisation`` one for a person with lost copies.

    ``organisation`` has a corp token. Only so it is known when a lost copy was made, and where it is read.

    Raises:
        Later, Refused, Unexpected: A call failed. What was found for the people before stays.
        OperatorError: Kafka does not accept an event.
    """
    repairer = Repairer(context, api, work=RECONCILE, tally=tally)
    for user_id in people:
        lost: dict[str, tuple[TaskState, int]] = {}
        async for rows in api.copies(user_id, since_ms):
            found = [each for row in rows if (each := _lost(repairer, row, user_id)) is not None]
            lost |= {state.instance_id: (state, at_ms) for state, at_ms in found}
        notices: dict[str, wire.CopyNotice] = {}
        if lost and organisation is not None:
            with suppress(NotOffered):  # then they lack their times and their pages
                notices = await organisation.copies(api.app.app_type, user_id, since_ms)
        now_ms = context.clock.now_ms()
        await repairer.publish(
            [
                copied(
                    state,
                    user_id,
                    created_ms=at_ms,
                    notice=notices.get(each),
                    received_at=now_ms,
                    url=api.app.url_of(each),
                )
                for each, (state, at_ms) in lost.items()
            ]
        )


def _lost(repairer: Repairer, row: wire.TaskCopy, user_id: str) -> tuple[TaskState, int] | None:
    """The state that lacks this copy, and when its instance was created; None if nothing is known to be lost."""
    states = repairer.store.states
    state, created = states.find(str(row.process_instance_id)), span_of(row.create_time)
    repairer.tally.rows += 1
    if state is None or state is GONE or created is None or user_id in {each.user_id for each in state.copied}:
        return None
    modified = span_of(row.modified_time)
    if modified is None or modified.end + repairer.rules.settle_ms > states.current_ms:
        repairer.tally.unsettled += 1
        return None
    return state, created.first


def _absent(forms: set[str]) -> Absent:
    return Absent(f"DingTalk has no form {', '.join(sorted(forms))}: if the apps file names it, remove it there")


async def _read_form(repairer: Repairer, form: wire.Form, since_ms: int) -> None:
    """Repair the instances of a form that were modified from ``since_ms`` or the cursor until now.

    DingTalk compares days of its own clock, so one day more is requested at both ends. The cursor stays before changes
    that are too recent for our states.

    Raises:
        Later, Refused, Unexpected: A call failed. What was repaired stays.
        Absent: The form does not exist.
    """
    settled_ms = repairer.store.states.current_ms - repairer.rules.settle_ms
    key = CursorKey(repairer.work, repairer.api.app.corp_id, repairer.api.app.app_type, form.form_uuid)
    title = None if form.title is None else form.title.in_chinese or form.title.in_english
    cursor = repairer.store.cursors.find(key)
    if cursor is None or cursor.since_ms > since_ms:
        cursor = Cursor(since_ms, since_ms)
    began_ms, first_ms = repairer.clock.now_ms(), cursor.until_ms
    first = day_of(first_ms - DAY_MS)
    last = day_of(began_ms + DAY_MS)
    while first <= last:
        days = await _slice_of(repairer.api, form.form_uuid, Days(first, last))
        async for rows in repairer.api.instances(form.form_uuid, days):
            await repairer.repair_page(rows, title, key)
        until_ms = min(day_start_ms(days.last), settled_ms)
        cursor = Cursor(cursor.since_ms, max(cursor.until_ms, until_ms))
        await repairer.reach(key, cursor)
        first = _plus_days(days.last, 1)
    if repairer.publishes_forms:
        repairer.store.cursors.extend(key._replace(work=WORK), first_ms, until_ms=began_ms)


async def _slice_of(api: YidaApi, form_uuid: str, days: Days) -> Days:
    """The first of these days, as many as are read in one go."""
    last = min(days.last, _plus_days(days.first, _SLICE_DAYS - 1))
    while _length(days.first, last) > _LONG_DAYS:
        if await api.count(form_uuid, Days(days.first, last)) <= _SLICE_ROWS:
            break
        last = _plus_days(days.first, _length(days.first, last) // 2 - 1)
    return Days(days.first, last)


def _length(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days + 1


def _plus_days(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


async def _find_deletions(repairer: Repairer) -> None:
    """Read instances by id that were absent a day ago, or not listed for long. Raises what calls raise.

    An instance is deleted only after two absences, at least a day apart.
    """
    app, store, now_ms = repairer.api.app, repairer.store, repairer.clock.now_ms()
    for instance_id in store.absences.due(app.corp_id, app.app_type, now_ms=now_ms):
        if store.states.find(instance_id) in (None, GONE):
            store.absences.delete(app.corp_id, app.app_type, instance_id)
        else:
            await _check_absence(repairer, instance_id)
    ids = store.states.unseen(app.corp_id, app.app_type, now_ms=now_ms, most=repairer.rules.ids_per_pass)
    returned = await repairer.api.instances_by_id(ids)
    store.states.mark_seen(returned, now_ms=now_ms)
    for instance_id in returned:
        store.absences.delete(app.corp_id, app.app_type, instance_id)
    if not returned and len(ids) >= SUSPICIOUS:
        _log.warning("no_instances_visible", app_type=app.app_type, instances=len(ids), user_id=app.user_id)
        return
    for instance_id in ids:
        if instance_id not in returned:
            await _check_absence(repairer, instance_id)


async def _check_absence(repairer: Repairer, instance_id: str) -> None:
    app, store, now_ms = repairer.api.app, repairer.store, repairer.clock.now_ms()
    key = app.corp_id, app.app_type, instance_id
    try:
        await repairer.api.instance(instance_id)
    except Absent:
        first_ms = store.absences.record(*key, now_ms=now_ms)
    else:
        first_ms = None
        store.absences.delete(*key)
    store.states.mark_seen([instance_id], now_ms=now_ms)
    if first_ms is not None:
        await repairer.publish([deletion(*key, first_absent_ms=first_ms, received_at=now_ms)])
        store.absences.delete(*key)
