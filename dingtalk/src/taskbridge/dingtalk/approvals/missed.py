"""Finds the changes of approvals about which no event came, and posts them.

DingTalk lists approvals by when they were created, never by when they changed. So this process knows which approvals
are open, from events and from listings, and reads these: all after a time without a connection, else each once a day.
It reads before it lists further, so that even few calls bring something. It stores nothing. After a start it lists the
approvals of a week, and the older ones that are open.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import structlog
from msgspec import structs

from taskbridge.dingtalk import wire, workflow
from taskbridge.dingtalk.approvals import mapping
from taskbridge.dingtalk.calls import Absent, Later, Pace, Refused, Spent, Unexpected, Unreachable, Unsent
from taskbridge.dingtalk.times import DAY_MS, day_of, next_day_ms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskbridge.dingtalk.approvals.mapping import Event
    from taskbridge.dingtalk.calls import Calls
    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.errors import TaskbridgeError

_EVERY_S = 3600.0
_PAUSE_S = 300.0
"""Between two passes at least, and before the first: neither a connection that is lost again and again nor a service
that starts again and again may use up the calls."""
_AT_START_MS, _OPEN_MS = 7 * DAY_MS, 100 * DAY_MS
_MARGIN_MS = 10 * 60_000
"""How long before the last listing the next one begins: clocks differ, and a listing may lag behind."""
_ABSENT_MS = 3 * DAY_MS
"""For how long DingTalk says that it has no such approval until it is believed."""
_LATE = "late"
_REFUSALS = (Refused, Unexpected, Absent)

_log = structlog.stdlib.get_logger(__name__)


class Budget(Pace):
    """Counts the calls of a day, of all corps together: an application has one."""

    def __init__(self, per_second: float, per_day: int, clock: Clock) -> None:
        super().__init__(per_second, clock)
        self._per_day, self._day, self._used = per_day, "", 0

    async def acquire(self, corp_id: str) -> None:
        await super().acquire(corp_id)
        self._used = self.used_today() + 1

    def give_back(self, corp_id: str) -> None:  # noqa: ARG002 - as Pace
        self._used = max(0, self.used_today() - 1)

    def check(self) -> None:
        """Raises Spent if the calls of this day are used up."""
        if self.used_today() >= self._per_day:
            until = next_day_ms(self._clock.now_ms())
            raise Spent(f"APPROVALS_CALLS_PER_DAY is used up: {self._used} calls today", retry_at_ms=until)

    @property
    def share(self) -> int:
        """Calls of an hour in which nothing is known to be missed: half of the day's are left for what is."""
        return math.ceil(self._per_day / 48)

    def used_today(self) -> int:
        if (today := day_of(self._clock.now_ms())) != self._day:
            self._day, self._used = today, 0
        return self._used


@dataclass(slots=True)
class _Known:
    """An approval."""

    process_code: str
    read_ms: int
    """When it was read, or an event about it came; 0 if it must be read."""
    is_open: bool = True
    seen: set[mapping.Change] = field(default_factory=set[mapping.Change])
    failed_ms: int = 0
    """Since when DingTalk does not give it; 0 if it does."""
    retry_ms: int = 0


@dataclass(slots=True)
class _Process:
    """How far the approvals of a process are listed."""

    listed_ms: int = 0
    due_ms: int = 0
    as_of: int = -1
    """The number of connections when the last listing began."""
    left: list[workflow.ListProcessInstanceIds] = field(default_factory=list[workflow.ListProcessInstanceIds])
    """The next requests of a listing that is not finished: it goes on there on another day."""
    retry_ms: int = 0


class Missed:
    """``post`` gets each event that is missing, and returns whether it is settled."""

    def __init__(self, calls: Calls, budget: Budget, clock: Clock, *, post: Callable[[Event], Awaitable[bool]]) -> None:
        self._calls, self._budget, self._clock, self._post = calls, budget, clock, post
        # The first one of both is the one that was tried longest ago.
        self._known: dict[str, _Known] = {}
        self._processes: dict[str, _Process] = {}
        self._named_ms, self._named_as_of = 0, -1
        self._routine_ms = 0
        self._problems: dict[str, str] = {}
        """What DingTalk refuses, by approval, process or path: the others are read all the same."""
        self._was_away, self._connections = asyncio.Event(), 0
        self.problem: str | None = "not listed yet"
        """Why what was missed is not known; None after a pass that found all."""

    def connected(self) -> None:
        """There was no connection before: any open approval may have changed."""
        for each in self._known.values():
            if each.is_open:
                each.read_ms = 0
        self._connections += 1
        self._was_away.set()

    def heard(self, event: Event) -> None:
        """An event came, and is settled."""
        instance_id = str(event.data.get("processInstanceId"))
        now, code = self._clock.now_ms(), str(event.data.get("processCode"))
        is_new = event.event_type == mapping.INSTANCE and event.data.get("type") == mapping.START
        known = self._known.setdefault(instance_id, _Known(code, now if is_new else 0))
        known.seen.add(mapping.change_of(event))
        known.is_open = known.is_open and not mapping.ends(event)
        # If it must be read, this event does not say what happened before. Of a deleted one nothing can be read.
        known.read_ms = now if known.read_ms or mapping.deletes(event) else 0

    @property
    def unread(self) -> int:
        """How many approvals must be read, because they may have changed."""
        return sum(not each.read_ms for each in self._known.values())

    async def run(self) -> NoReturn:
        """Look for what was missed after each connection, and once an hour."""
        await self._clock.sleep(_PAUSE_S)
        wait_s = _EVERY_S
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._was_away.wait(), wait_s)
            wait_s = await self.step()
            await self._clock.sleep(_PAUSE_S)

    async def step(self) -> float:
        """List and read once. Returns after how many seconds to do it again."""
        self._was_away.clear()
        wait_s, problem = _EVERY_S, None
        try:
            await self._pass()
        except Later as error:
            problem = str(error)
            wait_s = min(max((error.retry_at_ms - self._clock.now_ms()) / 1000, 0.0), _EVERY_S)
        self.problem = problem or next(reversed(self._problems.values()), None)
        if self.problem is not None:
            refused = len(self._problems)
            _log.warning("missed_approvals_not_read", problem=self.problem, unread=self.unread, refused=refused)
        return wait_s

    async def _pass(self) -> None:
        """Do what must be done, and then some of what is due, in its order.

        Raises:
            Later: The rest must wait. What is read is not read again, and a listing goes on where it stopped.
        """
        await self._read_changed()
        if self._named_as_of != self._connections or self._named_ms <= self._clock.now_ms() - DAY_MS:
            await self._name_processes()
        for code, process in [*self._processes.items()]:
            is_due = process.left or process.as_of != self._connections
            if is_due and process.retry_ms <= self._clock.now_ms():
                await self._list(code, process)
                await self._read_changed()
        now = self._clock.now_ms()
        if now < self._routine_ms:
            return
        self._routine_ms = now + int(_EVERY_S * 1000)
        await self._routine(now)

    async def _read_changed(self) -> None:
        now = self._clock.now_ms()
        for instance_id, known in [*self._known.items()]:
            if not known.read_ms and known.retry_ms <= now:
                await self._read_one(instance_id, known)

    async def _routine(self, now: int) -> None:
        """List each process once an hour and read each open approval once a day, as far as the share of calls allows.

        Nobody knows of anything that was missed: this finds what a connection lost without a word.
        """
        for instance_id, known in [*self._known.items()]:
            if known.read_ms and known.read_ms <= now - DAY_MS and not known.is_open:
                self._forget(instance_id)
        due = [(each.due_ms, code) for code, each in self._processes.items()]
        due += [(each.read_ms + DAY_MS, key) for key, each in self._known.items() if each.is_open and each.read_ms]
        self._problems.pop(_LATE, None)
        used = self._budget.used_today()
        for due_ms, key in sorted(each for each in due if each[0] <= now):
            if self._budget.used_today() - used >= self._budget.share:
                if due_ms <= now - DAY_MS:
                    self._problems[_LATE] = "APPROVALS_CALLS_PER_DAY is too low to look at everything once a day"
                return
            if (process := self._processes.get(key)) is not None:
                process.as_of = -1
                await self._list(key, process)
                await self._read_changed()
            elif (known := self._known.get(key)) is not None:
                await self._read_one(key, known)

    async def _name_processes(self) -> None:
        self._named_as_of, found = self._connections, set[str]()
        token: int | None = 0
        try:
            while token is not None:
                self._budget.check()
                request = workflow.ListProcesses(next_token=token)
                page = (await self._calls.get(request, workflow.ProcessAnswer)).result
                found |= {each.process_code for each in page.process_list}
                token = _next(token, page.next_token, request.path)
        except _REFUSALS as error:
            self._problems[workflow.ListProcesses.path] = str(error)
        except Later:
            self._named_as_of = -1
            raise
        else:
            self._problems.pop(workflow.ListProcesses.path, None)
            for code in self._processes.keys() - found:
                del self._processes[code]
                self._problems.pop(code, None)
            for code in sorted(found - self._processes.keys()):
                self._processes[code] = _Process()
        self._named_ms = self._clock.now_ms()

    async def _list(self, code: str, process: _Process) -> None:
        """List what is not listed yet, from where the last time stopped."""
        self._budget.check()
        self._processes[code] = self._processes.pop(code)
        try:
            while process.left or process.as_of != self._connections:
                await self._list_page(code, process)
            self._problems.pop(code, None)
        except _REFUSALS as error:
            self._problems[code] = str(error)
            process.left.clear()
            process.due_ms = self._clock.now_ms() + DAY_MS
        except Unreachable as error:
            process.retry_ms = process.due_ms = self._faulty(code, error)
            raise

    async def _list_page(self, code: str, process: _Process) -> None:
        now = self._clock.now_ms()
        if not process.left:
            process.as_of = self._connections
            since = process.listed_ms - _MARGIN_MS if process.listed_ms else now - _AT_START_MS
            # The last one says until when it is listed.
            if not process.listed_ms:
                process.left.append(_query(code, now - _OPEN_MS, since, statuses=[wire.RUNNING]))
            process.left.append(_query(code, since, now))
        self._budget.check()
        request = process.left[0]
        page = (await self._calls.post(request, workflow.IdAnswer)).result
        for each in page.ids:
            self._known.setdefault(each, _Known(code, 0))
        token = _next(request.next_token, page.next_token, request.path)
        process.left[:1] = [] if token is None else [structs.replace(request, next_token=token)]
        if not process.left:
            process.listed_ms, process.due_ms = request.end_time, now + int(_EVERY_S * 1000)

    async def _read_one(self, instance_id: str, known: _Known) -> None:
        self._budget.check()
        began_ms, connections = self._clock.now_ms(), self._connections
        self._known[instance_id] = self._known.pop(instance_id)
        request = workflow.GetProcessInstance(process_instance_id=instance_id)
        try:
            read = (await self._calls.get(request, workflow.ApprovalAnswer)).result
        except _REFUSALS as error:
            self._failed(instance_id, known, error, began_ms)
            return
        except Unreachable as error:
            known.read_ms, known.retry_ms = 0, self._faulty(instance_id, error)
            raise
        self._problems.pop(instance_id, None)
        known.failed_ms, is_whole = 0, True
        for event in mapping.events_of(instance_id, known.process_code, read):
            change = mapping.change_of(event)
            if change == mapping.BEGAN and event.data.get("createTime", 0) > began_ms:
                # Its minute is not over: an end within it would be older than this beginning.
                is_whole = False
                continue
            if change not in known.seen and not await self._post(event):
                raise Later("the edge does not store what was missed", retry_at_ms=self._clock.now_ms())
            known.seen.add(change)
        known.is_open = known.is_open and read.status in workflow.TASK_OPEN
        if is_whole and connections == self._connections:
            known.read_ms = began_ms

    def _failed(self, instance_id: str, known: _Known, error: TaskbridgeError, at_ms: int) -> None:
        """Try again in a day, but not for ever."""
        known.failed_ms = known.failed_ms or at_ms
        if isinstance(error, Absent):
            self._problems.pop(instance_id, None)
            known.read_ms, lasts_ms = at_ms, _ABSENT_MS
        else:
            self._problems[instance_id] = str(error)
            known.read_ms, known.retry_ms, lasts_ms = 0, at_ms + DAY_MS, _OPEN_MS
        if at_ms - known.failed_ms >= lasts_ms:
            self._forget(instance_id)

    def _faulty(self, key: str, error: Unreachable) -> int:
        """When to try this one again: DingTalk may have a fault with it alone, and the next pass begins with others."""
        if isinstance(error, Unsent):
            return 0
        self._problems[key] = str(error)
        return self._clock.now_ms() + int(_EVERY_S * 1000)

    def _forget(self, instance_id: str) -> None:
        del self._known[instance_id]
        self._problems.pop(instance_id, None)


def _query(code: str, since: int, until: int, statuses: list[str] | None = None) -> workflow.ListProcessInstanceIds:
    return workflow.ListProcessInstanceIds(
        process_code=code,
        start_time=since,
        end_time=until,
        next_token=0,
        max_results=workflow.IDS_PER_PAGE,
        statuses=statuses,
    )


def _next(token: int, given: wire.Id, path: str) -> int | None:
    """The token of the next page; None after the last one."""
    if given is None or given == "":
        return None
    if not str(given).isdecimal() or int(given) <= token:
        raise Unexpected(f"{path}: the next page would be {given!r} after {token}")
    return int(given)
