"""Compares single instances with DingTalk, and publishes the events that repair our states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from msgspec import structs

from taskbridge.reconcile.repairs import differences, is_settled, needs_details
from taskbridge.reconcile.snapshots import Snapshot, last_activity_ms
from taskbridge.reconcile.states import GONE
from taskbridge.runtime.dingtalk import wire
from taskbridge.runtime.dingtalk.calls import Absent, Refused, Unexpected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskbridge.reconcile.repairs import Kind, Repair
    from taskbridge.reconcile.store import Store
    from taskbridge.runtime.dingtalk.api import YidaApi
    from taskbridge.runtime.dingtalk.clock import Clock
    from taskbridge.schemas.events import TaskEvent

RECONCILE, BACKFILL, READ_BACK = "reconcile", "backfill", "read-back"
"""The work that found a repair: ``TaskEvent.recovered_by``. It is not part of the event's id."""


class Outbox(Protocol):
    async def publish(self, events: Sequence[TaskEvent]) -> None:
        """Return once all of them are durable, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """The administrator's choices."""

    settle_ms: int
    """An instance that changed within this time before our states were read, or later, is left for the next run."""
    outcomes: bool = True
    """Whether to read instances of which only the outcome is unknown."""
    remarks: bool = False
    copies: bool = False
    read_back_ms: int = 0
    """The quiet time after which an open instance is read between passes. 0: never."""
    ids_per_pass: int = 200
    """How many unlisted instances of an app a pass reads by id."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every run needs."""

    store: Store
    outbox: Outbox
    clock: Clock
    rules: Rules
    catch_up: Callable[[], Awaitable[None]]
    """Brings the stored states up to date, and ``States.current_ms`` to the time of the call."""


@dataclass(slots=True)
class Tally:
    """The counts of a run."""

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
        self._key = api.app.corp_id, api.app.app_type
        self._outbox = context.outbox
        self._on_progress = on_progress
        self.last_unexpected: Unexpected | None = None
        """The last answer about one instance that was not understood. The reading is then not complete."""

    async def repair_page(self, rows: Sequence[wire.Instance], process_name: str | None) -> None:
        """Repair the instances of a page that differ from our states. Raises what calls and the outbox raise.

        Raises:
            Refused: Callbacks name another corp than the apps file. Nothing of the page is repaired.
        """
        for each in rows:
            self._check_corp(each.process_instance_id)
        self.store.states.mark_seen((each.process_instance_id for each in rows), now_ms=self.clock.now_ms())
        for each in rows:
            self.tally.rows += 1
            self.store.absences.delete(*self._key, each.process_instance_id)
            try:
                await self._repair(each, process_name)
            except Unexpected as error:
                # One instance that is not understood must not stop the others.
                self.last_unexpected = error
        if self._on_progress is not None:
            self._on_progress(self.tally)

    async def repair_one(self, instance_id: str) -> bool:
        """Read and repair this instance. Return whether it had settled. Raises Absent too."""
        unsettled = self.tally.unsettled
        await self.repair_page([await self.api.instance(instance_id)], None)
        return self.tally.unsettled == unsettled

    async def publish(self, repairs: Sequence[Repair]) -> None:
        """Return once these are durable and counted."""
        if repairs:
            self.store.callbacks.announce(repairs)
            await self._outbox.publish([structs.replace(each.event, recovered_by=self.work) for each in repairs])
            self.store.findings.record(repairs, work=self.work)
            if self.work != BACKFILL:
                self.store.callbacks.record_missing(repairs)
            self.tally.repairs.update((each.event.app_type, each.kind) for each in repairs)

    async def _repair(self, instance: wire.Instance, process_name: str | None) -> None:
        instance_id, modified = instance.process_instance_id, str(instance.modified_time)
        state = self.store.states.find(instance_id)
        if state is GONE or self.store.compared.last_modified(*self._key, instance_id) == modified:
            return
        # A callback of a later change may have arrived, and not be in the state yet.
        known_ms, settle_ms = self.store.states.current_ms, self.rules.settle_ms
        url = self.api.app.url_of(instance_id)
        snapshot = Snapshot(*self._key, instance, url=url, process_name=process_name)
        if not is_settled(snapshot, now_ms=known_ms, settle_ms=settle_ms):
            self.tally.unsettled += 1
            return
        if self._is_always_read(instance) or needs_details(snapshot, state, outcomes=self.rules.outcomes):
            self.tally.fetched += 1
            try:
                running = await self.api.running_tasks(instance_id)
                records = await self.api.operation_records(instance_id)
            except Absent:
                return
            snapshot = replace(snapshot, running=running, records=records)
            if last_activity_ms(snapshot) + settle_ms > known_ms:
                # The instance changed after the query.
                self.tally.unsettled += 1
                return
        found = differences(
            snapshot,
            state,
            received_at=self.clock.now_ms(),
            remarks=self.rules.remarks,
            with_copies=self.rules.copies,
        )
        await self.publish(found)
        if found or snapshot.records is not None:
            self.store.compared.record(*self._key, instance_id, modified)

    def _check_corp(self, instance_id: str) -> None:
        state, corp_id = self.store.states.find(instance_id), self.api.app.corp_id
        if state is not None and state is not GONE and state.corp_id != corp_id:
            problem = f"instance {instance_id} belongs to corp_id {state.corp_id} by its callbacks, not to {corp_id}"
            raise Refused(f"{problem}: fix the apps file")

    def _is_always_read(self, instance: wire.Instance) -> bool:
        """Whether to read its tasks without a difference: a step without any callback is not in the state at all."""
        return self.work == BACKFILL or (self.rules.outcomes and instance.instance_status in wire.ENDED)
