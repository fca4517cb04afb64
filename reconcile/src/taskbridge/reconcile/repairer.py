"""Compares single instances with DingTalk, and publishes the events that repair our states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import structlog
from msgspec import structs

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import IDS_PER_CALL
from taskbridge.dingtalk.calls import Absent, Later, NotOffered, Refused, Unexpected, Unreachable
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.repairs import differences, is_settled, needs_details
from taskbridge.reconcile.snapshots import Snapshot, last_activity_ms, open_tasks
from taskbridge.reconcile.states import GONE
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskbridge.dingtalk.api import YidaApi
    from taskbridge.reconcile.repairs import Kind, Repair
    from taskbridge.reconcile.store import Cursor, CursorKey, Store
    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.events import TaskEvent

RECONCILE, BACKFILL, READ_BACK = "reconcile", "backfill", "read-back"
"""The work that found a repair: ``TaskEvent.recovered_by``. It is not part of the event's id."""

_QUIET_MS = DAY_MS // 2
"""Lists go back for a day from the last pass, and that is at least 16 hours if DingTalk's days are those of GMT."""

_log = structlog.stdlib.get_logger(__name__)


class Outbox(Protocol):
    async def publish(self, events: Sequence[TaskEvent]) -> None:
        """Return once all of them are durable, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    settle_ms: int
    """An instance that changed within this time before our states were read, or later, is left for the next run."""
    outcomes: bool = True
    """Whether to read instances of which only the outcome is unknown."""
    remarks: bool = False
    copies: bool = False
    read_back_ms: int = 0
    """The quiet time after which an open instance is read between passes. 0: never."""
    forms: bool = False
    """Whether the values of forms are published."""
    ids_per_pass: int = 200
    """How many unlisted instances of an app a pass reads by id."""


@dataclass(frozen=True, slots=True)
class Context:
    store: Store
    outbox: Outbox
    clock: Clock
    rules: Rules
    catch_up: Callable[[], Awaitable[None]]
    """Brings the stored states up to date, and ``States.current_ms`` to the time of the call."""


@dataclass(slots=True)
class Tally:
    rows: int = 0
    """Instances that queries returned."""
    fetched: int = 0
    """Those whose tasks were read."""
    unsettled: int = 0
    """Those that changed too recently, and are left for the next run."""
    repairs: Counter[tuple[str, Kind]] = field(default_factory=Counter["tuple[str, Kind]"])
    """Published events, by app and kind."""


class Repairer:
    """Repairs the instances of one app, for one kind of work."""

    def __init__(
        self,
        context: Context,
        api: YidaApi,
        *,
        work: str,
        tally: Tally,
        on_progress: Callable[[Tally], None] | None = None,
    ) -> None:
        """``on_progress`` gets the tally after each page."""
        self.api, self.store, self.clock, self.rules = api, context.store, context.clock, context.rules
        self.work, self.tally = work, tally
        self.publishes_forms = self.rules.forms and work == RECONCILE
        self._key = api.app.corp_id, api.app.app_type
        self._outbox = context.outbox
        self._on_progress = on_progress
        self._waiting: dict[str, tuple[Snapshot, CursorKey | None]] = {}
        """The instances whose tasks are to be read: several by one call."""
        self._reached: list[tuple[CursorKey, Cursor]] = []
        self.not_understood: dict[CursorKey | None, Unexpected] = {}
        """The last answer about an instance that was not understood. The reading of that form is then not complete."""

    async def repair_page(
        self, rows: Sequence[wire.Instance], process_name: str | None, key: CursorKey | None = None
    ) -> None:
        """Repair the instances of a page that differ from our states. Raises what calls and the outbox raise.

        Those whose tasks must be read may wait until ``settle``.

        Raises:
            Refused: Callbacks name another corp than the apps file. Nothing of the page is repaired.
        """
        for each in rows:
            self._check_corp(each.process_instance_id)
        now_ms = self.clock.now_ms()
        self.store.states.mark_seen((each.process_instance_id for each in rows), now_ms=now_ms)
        if self.publishes_forms:
            self.store.forms.schedule_changed(self.api.app, rows, now_ms=now_ms)
        for each in rows:
            self.tally.rows += 1
            self.store.absences.delete(*self._key, each.process_instance_id)
            await self._compare(each, process_name, key)
        if len(self._waiting) >= IDS_PER_CALL:
            await self.settle()
        if self._on_progress is not None:
            self._on_progress(self.tally)

    async def reach(self, key: CursorKey, cursor: Cursor) -> None:
        """Store this cursor once no instance waits. Never, if an answer about the form was not understood."""
        self._reached.append((key, cursor))
        if not self._waiting:
            await self.settle()

    async def settle(self) -> None:
        """Repair all waiting instances, and store the cursors. Raises what calls and the outbox raise."""
        may_be_open = [each for each, (snapshot, _) in self._waiting.items() if not snapshot.is_over]
        running = await self.api.running_tasks_of(may_be_open)
        for instance_id, (snapshot, key) in [*self._waiting.items()]:
            try:
                await self._repair_tasks(snapshot, running.get(instance_id, []))
            except Unexpected as error:
                # One instance that is not understood must not stop the others.
                self.not_understood[key] = error
            del self._waiting[instance_id]
        for key, cursor in self._reached:
            if key not in self.not_understood:
                self.store.cursors.move(key, cursor)
        self._reached.clear()

    async def repair_one(self, instance_id: str) -> bool:
        """Read and repair this instance. Return whether it had settled. Raises Absent too."""
        unsettled = self.tally.unsettled
        await self.repair_page([await self.api.instance(instance_id)], None)
        await self.settle()
        return self.tally.unsettled == unsettled

    async def read_open(self, instance_id: str) -> None:
        """Read an open instance once: it is read again only if it had not settled, or after its next callback.

        Raises:
            Later: DingTalk did not answer.
            OperatorError: Kafka does not accept an event.
        """
        settled = True
        try:
            settled = await self.repair_one(instance_id)
        except Absent:
            pass
        except NotOffered as error:
            settled = False
            _log.warning("instance_not_read", app_type=self.api.app.app_type, problem=str(error))
        except (Refused, Unexpected) as error:
            # A retry is useless. A later pass checks the instance.
            _log.error("instance_not_read", app_type=self.api.app.app_type, problem=str(error))
        except OperatorError as error:
            if not isinstance(error, Later) or isinstance(error, Unreachable):
                # The repetition reads it again: not at once, or it would spend the calls of the day, nor before others,
                # because DingTalk may have a fault for this instance alone.
                self.store.open_instances.postpone(instance_id, now_ms=self.clock.now_ms())
            raise
        if settled:
            self.store.open_instances.remove(instance_id)
        else:
            self.store.open_instances.postpone(instance_id, now_ms=self.clock.now_ms())

    async def publish(self, repairs: Sequence[Repair]) -> None:
        """Return once these are durable and counted."""
        if repairs:
            self.store.callbacks.announce(repairs)
            await self._outbox.publish([structs.replace(each.event, recovered_by=self.work) for each in repairs])
            self.store.findings.record(repairs, work=self.work)
            if self.work != BACKFILL:
                self.store.callbacks.record_missing(repairs)
            self.tally.repairs.update((each.event.app_type, each.kind) for each in repairs)

    async def _compare(self, instance: wire.Instance, process_name: str | None, key: CursorKey | None) -> None:
        instance_id = instance.process_instance_id
        state = self.store.states.find(instance_id)
        if state is GONE or self.store.compared.last_modified(*self._key, instance_id) == str(instance.modified_time):
            return
        # A callback of a later change may have arrived, and not be in the state yet.
        known_ms, settle_ms = self.store.states.current_ms, self.rules.settle_ms
        url = self.api.app.url_of(instance_id)
        snapshot = Snapshot(*self._key, instance, url=url, process_name=process_name)
        if not is_settled(snapshot, now_ms=known_ms, settle_ms=settle_ms):
            self.tally.unsettled += 1
            return
        outcomes = self._reads_outcomes(snapshot)
        # A step without any callback is not in the state at all.
        is_always_read = self.work == BACKFILL or (outcomes and instance.instance_status in wire.ENDED)
        if is_always_read or needs_details(snapshot, state, outcomes=outcomes):
            self._waiting[instance_id] = snapshot, key
        else:
            await self._repair(snapshot, is_all=outcomes == self.rules.outcomes)

    async def _repair_tasks(self, snapshot: Snapshot, running: list[wire.RunningTask]) -> None:
        """Read the instance's records too, and repair it. ``running`` may lack tasks."""
        instance_id = snapshot.instance.process_instance_id
        self.tally.fetched += 1
        try:
            if not self._are_complete(snapshot, running):
                running = await self.api.running_tasks(instance_id)
            records = await self.api.operation_records(instance_id)
        except Absent:
            return
        snapshot = replace(snapshot, running=running, records=records)
        if last_activity_ms(snapshot) + self.rules.settle_ms > self.store.states.current_ms:
            # The instance changed after the query.
            self.tally.unsettled += 1
            return
        await self._repair(snapshot, is_all=True)

    async def _repair(self, snapshot: Snapshot, *, is_all: bool) -> None:
        """``is_all``: nothing is left for a later pass, unless the instance changes."""
        instance_id = snapshot.instance.process_instance_id
        state = self.store.states.find(instance_id)
        if state is GONE:
            return
        found = differences(
            snapshot,
            state,
            received_at=self.clock.now_ms(),
            remarks=self.rules.remarks,
            with_copies=self.rules.copies,
        )
        await self.publish(found)
        if is_all and (found or snapshot.records is not None):
            self.store.compared.record(*self._key, instance_id, str(snapshot.instance.modified_time))

    def _check_corp(self, instance_id: str) -> None:
        state, corp_id = self.store.states.find(instance_id), self.api.app.corp_id
        if state is not None and state is not GONE and state.corp_id != corp_id:
            problem = f"instance {instance_id} belongs to corp_id {state.corp_id} by its callbacks, not to {corp_id}"
            raise Refused(f"{problem}: fix the apps file")

    def _reads_outcomes(self, snapshot: Snapshot) -> bool:
        """Whether to read an instance of which only an outcome is unknown.

        A pass waits for the end of the instance, or for some time without a change.
        """
        if not self.rules.outcomes or self.work != RECONCILE or snapshot.instance.instance_status in wire.ENDED:
            return self.rules.outcomes
        modified = snapshot.modified
        return modified is not None and modified.end + _QUIET_MS <= self.store.states.current_ms

    def _are_complete(self, snapshot: Snapshot, running: list[wire.RunningTask]) -> bool:
        """Whether these open tasks are the query's, and none of ours is missing: a task that is missing gets closed."""
        if snapshot.is_over:
            return True
        found, state = open_tasks(running), self.store.states.find(snapshot.instance.process_instance_id)
        tasks = () if state is None or state is GONE else state.tasks
        pending = {each.task_id for each in tasks if each.status is Status.PENDING}
        return pending <= found.keys() and snapshot.executors == {
            each for task in found.values() for each in task.assignee_ids
        }
