"""One instance as a query by time shows it: asked for where it differs from our state, and mended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from msgspec import structs

from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.dingtalk.errors import Absent, Refused, Unexpected
from taskbridge.reconcile.kept.absences import Absences
from taskbridge.reconcile.kept.cursors import Asked, Cursors
from taskbridge.reconcile.kept.found import Found
from taskbridge.reconcile.kept.states import GONE, States
from taskbridge.reconcile.repairs.differences import differences, is_settled, needs_details
from taskbridge.reconcile.repairs.reading import Reading, last_operation, open_tasks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from taskbridge.reconcile.clock import Clock
    from taskbridge.reconcile.dingtalk.api import YidaApi
    from taskbridge.reconcile.repairs.events import Kind, Repair
    from taskbridge.schemas.events import TaskEvent, TaskState

RECONCILE, BACKFILL, READ_BACK = "reconcile", "backfill", "read-back"
"""What found a repair: ``TaskEvent.recovered_by``. It does not enter the event's id."""


class Outbox(Protocol):
    async def publish(self, events: Sequence[TaskEvent]) -> None:
        """Return once all of them are durable, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What the administrator chose."""

    settle_ms: int
    """An instance that changed so shortly before the moment of our states, or after it, is left for later."""
    outcomes: bool = True
    """Whether instances are asked for of which only the outcome is not known."""
    remarks: bool = False
    copies: bool = False
    read_back_ms: int = 0
    """So long an instance that callbacks left open must be quiet to be asked for between passes; 0: none is."""
    ids_a_pass: int = 200
    """So many instances of an app are asked for by id in one pass that DingTalk has not shown for long."""


class Kept:
    """All that outlives the process, but for the budget."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.states = States(database)
        self.callbacks, self.questions = self.states.callbacks, self.states.questions
        self.cursors = Cursors(database)
        self.asked = Asked(database)
        self.absences = Absences(database)
        self.found = Found(database)


@dataclass(slots=True)
class Tally:
    """What was done."""

    rows: int = 0
    """Instances that queries showed."""
    asked: int = 0
    """Of them, for whose tasks was asked."""
    unsettled: int = 0
    """Of them, left for later, for they had just changed."""
    repairs: Counter[tuple[str, Kind]] = field(default_factory=Counter["tuple[str, Kind]"])
    """Events that were delivered, by app and kind."""


class Mender:
    """Of one app, for one kind of work."""

    def __init__(
        self,
        api: YidaApi,
        kept: Kept,
        outbox: Outbox,
        clock: Clock,
        rules: Rules,
        *,
        work: str,
        tally: Tally,
        told: Callable[[Tally], None] | None = None,
    ) -> None:
        """``told`` hears of the tally after each page."""
        self.api, self.kept, self.clock, self.rules, self.work, self.tally = api, kept, clock, rules, work, tally
        self._key = api.app.corp_id, api.app.app_type
        self._outbox = outbox
        self._told = told
        self.not_understood: Unexpected | None = None
        """The last answer about one instance of which nothing could be concluded: what was read is not whole."""

    async def look_at(self, rows: Sequence[wire.Instance], process_name: str | None) -> None:
        """Mend those of a page's instances that differ from our states. Raises what calls and the outbox may.

        Raises:
            Refused: callbacks tell of another organisation than the file of apps; nothing of the page is mended.
        """
        for each in rows:
            self._check(each.process_instance_id)
        self.kept.states.seen((each.process_instance_id for each in rows), now_ms=self.clock.now_ms())
        for each in rows:
            self.tally.rows += 1
            self.kept.absences.seen(*self._key, each.process_instance_id)
            try:
                await self._mend(each, process_name)
            except Unexpected as error:
                # One that nobody understands keeps no other from being mended.
                self.not_understood = error
        if self._told is not None:
            self._told(self.tally)

    async def ask_again(self, instance_id: str) -> bool:
        """Mend this one; whether it had settled. Raises what calls and the outbox may, and Absent."""
        unsettled = self.tally.unsettled
        instance = await self.api.instance(instance_id)
        await self.look_at([instance], None)
        return self.tally.unsettled == unsettled

    async def _mend(self, instance: wire.Instance, process_name: str | None) -> None:
        instance_id, modified = instance.process_instance_id, str(instance.modified_time)
        state = self.kept.states.find(instance_id)
        if state is GONE or self.kept.asked.modified(*self._key, instance_id) == modified:
            return
        # Of what happened later, the callback may be there and not yet in the state.
        known_ms, settle_ms = self.kept.states.current_ms, self.rules.settle_ms
        url = self.api.app.url_of(instance_id)
        reading = Reading(*self._key, instance, url=url, process_name=process_name)
        if not is_settled(reading, now_ms=known_ms, settle_ms=settle_ms):
            self.tally.unsettled += 1
            return
        if self._wants_all(instance) or needs_details(reading, state, outcomes=self.rules.outcomes):
            try:
                reading = await self._with_details(reading)
            except Absent:
                return
            if _last_ms(reading) + settle_ms > known_ms:
                # Something happened between the query and the questions.
                self.tally.unsettled += 1
                return
        if await self._deliver(reading, state) or reading.records is not None:
            self.kept.asked.note(*self._key, instance_id, modified)

    def _check(self, instance_id: str) -> None:
        state, corp_id = self.kept.states.find(instance_id), self.api.app.corp_id
        if state is not None and state is not GONE and state.corp_id != corp_id:
            told = f"instance {instance_id} belongs to corp_id {state.corp_id} by its callbacks, not to {corp_id}"
            raise Refused(f"{told}: fix the apps file")

    def _wants_all(self, instance: wire.Instance) -> bool:
        """Whether it is asked for though nothing differs: steps of which no callback told show nowhere in a state."""
        return self.work == BACKFILL or (self.rules.outcomes and instance.instance_status in wire.ENDED)

    async def _with_details(self, reading: Reading) -> Reading:
        instance_id = reading.instance.process_instance_id
        self.tally.asked += 1
        running = await self.api.running_tasks(instance_id)
        return replace(reading, running=running, records=await self.api.operation_records(instance_id))

    async def _deliver(self, reading: Reading, state: TaskState | None) -> bool:
        found = differences(
            reading,
            state,
            received_at=self.clock.now_ms(),
            remarks=self.rules.remarks,
            with_copies=self.rules.copies,
        )
        await self.deliver(found)
        return bool(found)

    async def deliver(self, repairs: Sequence[Repair]) -> None:
        """Return once they are durable, and counted."""
        if repairs:
            self.kept.callbacks.announce(repairs)
            await self._outbox.publish([structs.replace(each.event, recovered_by=self.work) for each in repairs])
            self.kept.found.note(repairs, work=self.work)
            if self.work != BACKFILL:
                self.kept.callbacks.missed(repairs)
            self.tally.repairs.update((each.event.app_type, each.kind) for each in repairs)


def _last_ms(reading: Reading) -> int:
    """When something last happened in the instance, as far as its tasks tell."""
    done = last_operation(reading.records or ())
    begun = [each.since.first for each in open_tasks(reading.running or ()).values() if each.since is not None]
    return max(begun if done is None else [*begun, done.end], default=0)
