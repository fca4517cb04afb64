"""Finds the changes of approvals about which no event came, and posts them.

DingTalk lists approvals by when they were created, never by when they changed. So this process knows which approvals
are open, from events and from listings, and reads these: all after a time without a connection, else each once a day.
It stores nothing. After a start it lists the approvals of a week, and the older ones that are open.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import structlog

from taskbridge.dingtalk import wire, workflow
from taskbridge.dingtalk.approvals import mapping
from taskbridge.dingtalk.calls import Absent, Later, Pace, Refused, Spent, Unexpected
from taskbridge.dingtalk.times import DAY_MS, day_of, next_day_ms
from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from taskbridge.dingtalk.approvals.mapping import Event
    from taskbridge.dingtalk.calls import Calls
    from taskbridge.runtime.clock import Clock

_EVERY_S = 3600.0
_PAUSE_S = 300.0
"""Between two passes at least: a connection that is lost again and again must not use up the calls."""
_AT_START_MS, _OPEN_MS = 7 * DAY_MS, 100 * DAY_MS
_MARGIN_MS = 10 * 60_000
"""How long before the last listing the next one begins: clocks differ, and a listing may lag behind."""

_log = structlog.stdlib.get_logger(__name__)


class Budget(Pace):
    """Counts the calls of a day, of all corps together: an application has one."""

    def __init__(self, per_second: float, per_day: int, clock: Clock) -> None:
        super().__init__(per_second, clock)
        self._per_day, self._day, self._used = per_day, "", 0

    async def acquire(self, corp_id: str) -> None:
        await super().acquire(corp_id)
        self._used = self._used_today() + 1

    def give_back(self, corp_id: str) -> None:  # noqa: ARG002 - as Pace
        self._used = max(0, self._used_today() - 1)

    def check(self) -> None:
        """Raises Spent if the calls of this day are used up."""
        if self._used_today() >= self._per_day:
            until = next_day_ms(self._clock.now_ms())
            raise Spent(f"APPROVALS_CALLS_PER_DAY is used up: {self._used} calls today", retry_at_ms=until)

    def _used_today(self) -> int:
        if (today := day_of(self._clock.now_ms())) != self._day:
            self._day, self._used = today, 0
        return self._used


@dataclass(slots=True)
class _Known:
    process_code: str
    read_ms: int
    """When it was read, or an event about it came; 0 if it must be read."""
    is_open: bool = True
    seen: set[mapping.Change] = field(default_factory=set[mapping.Change])


class Missed:
    """``post`` gets each event that is missing, and returns whether it is settled."""

    def __init__(self, calls: Calls, budget: Budget, clock: Clock, *, post: Callable[[Event], Awaitable[bool]]) -> None:
        self._calls, self._budget, self._clock, self._post = calls, budget, clock, post
        self._known: dict[str, _Known] = {}
        self._listed_ms: int | None = None
        self._was_away, self._connections = asyncio.Event(), 0
        self.problem: str | None = "not listed yet"
        """Why what was missed is not known; None after a pass that found all."""

    def connected(self) -> None:
        """There was no connection before: any open approval may have changed."""
        for each in self._known.values():
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
        # If it must be read, this event does not say what happened before.
        known.read_ms = known.read_ms and now

    @property
    def unread(self) -> int:
        """How many approvals must be read, because they may have changed."""
        return sum(each.is_open and not each.read_ms for each in self._known.values())

    async def run(self) -> NoReturn:
        """Look for what was missed after each connection, and once an hour."""
        wait_s = _EVERY_S
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._was_away.wait(), wait_s)
            wait_s = await self.step()
            await self._clock.sleep(_PAUSE_S)

    async def step(self) -> float:
        """List and read once. Returns after how many seconds to do it again."""
        self._was_away.clear()
        try:
            await self._list()
            await self._read()
            self.problem = None
        except TaskbridgeError as error:
            self.problem = str(error)
            _log.warning("missed_approvals_not_read", problem=self.problem, unread=self.unread)
            if isinstance(error, Later):
                return min(max((error.retry_at_ms - self._clock.now_ms()) / 1000, 0.0), _EVERY_S)
        return _EVERY_S

    async def _list(self) -> None:
        now, is_start = self._clock.now_ms(), self._listed_ms is None
        since = now - _AT_START_MS if self._listed_ms is None else self._listed_ms - _MARGIN_MS
        for code in [each async for each in self._codes()]:
            async for instance_id in self._ids(code, since, now):
                self._known.setdefault(instance_id, _Known(code, 0))
            if is_start:
                async for instance_id in self._ids(code, now - _OPEN_MS, since, statuses=[wire.RUNNING]):
                    self._known.setdefault(instance_id, _Known(code, 0))
        self._listed_ms = now

    async def _codes(self) -> AsyncIterator[str]:
        token: int | None = 0
        while token is not None:
            self._budget.check()
            request = workflow.ListProcesses(next_token=token)
            page = (await self._calls.get(request, workflow.ProcessAnswer)).result
            for each in page.process_list:
                yield each.process_code
            token = _next(token, page.next_token, request.path)

    async def _ids(self, code: str, since: int, until: int, statuses: list[str] | None = None) -> AsyncIterator[str]:
        token: int | None = 0
        while token is not None:
            self._budget.check()
            request = workflow.ListProcessInstanceIds(
                process_code=code,
                start_time=since,
                end_time=until,
                next_token=token,
                max_results=workflow.IDS_PER_PAGE,
                statuses=statuses,
            )
            page = (await self._calls.post(request, workflow.IdAnswer)).result
            for each in page.ids:
                yield each
            token = _next(token, page.next_token, request.path)

    async def _read(self) -> None:
        now = self._clock.now_ms()
        for instance_id, known in sorted(self._known.items(), key=lambda each: each[1].read_ms):
            is_old = known.read_ms < now - DAY_MS
            if known.is_open and is_old:
                self._budget.check()
                await self._read_one(instance_id, known)
            elif is_old and known.read_ms:
                del self._known[instance_id]

    async def _read_one(self, instance_id: str, known: _Known) -> None:
        began_ms, connections = self._clock.now_ms(), self._connections
        request = workflow.GetProcessInstance(process_instance_id=instance_id)
        try:
            read = (await self._calls.get(request, workflow.ApprovalAnswer)).result
        except (Absent, Refused) as error:
            # Perhaps it was deleted. Others can be read all the same; this one is tried again in a day.
            _log.warning("approval_not_read", instance_id=instance_id, problem=str(error))
            known.read_ms = began_ms
            return
        for event in mapping.events_of(instance_id, known.process_code, read):
            change = mapping.change_of(event)
            if change not in known.seen and not await self._post(event):
                raise Later("the edge does not store what was missed", retry_at_ms=self._clock.now_ms())
            known.seen.add(change)
        known.is_open = read.status in workflow.TASK_OPEN
        if connections == self._connections:
            known.read_ms = began_ms


def _next(token: int, given: wire.Id, path: str) -> int | None:
    """The token of the next page; None after the last one."""
    if given is None or given == "":
        return None
    if not str(given).isdecimal() or int(given) <= token:
        raise Unexpected(f"{path}: the next page would be {given!r} after {token}")
    return int(given)
