"""Sends what people decided, and finds out what became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.center.actions.store import (
    ACCEPTED,
    FAILED,
    OVERTAKEN,
    REFUSED,
    REQUESTED,
    SENDING,
    UNCLEAR,
    UNCONFIRMED,
    UNSENT,
    Action,
    Actions,
    Share,
    ends_at,
)
from taskbridge.center.actions.systems import Received, System, Systems, always
from taskbridge.center.actions.targets import AGENT_END
from taskbridge.runtime.clock import Clock, SystemClock
from taskbridge.runtime.database import DatabaseUnavailable, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.center.actions.systems import Allowed, Answer

_LEASE_MS = 120_000
"""How long one attempt may take. After that, the replica that made it is taken for dead."""
_LAST_MS = 30_000
"""Of the lease: when it is too late to begin the call, which must have ended before another replica acts."""
_AT_ONCE = {"source": 100, "actor_id": 25}
"""How many actions for a system, and by a person, this replica works on at once: no more than it can send long before
their leases end (a return is four calls), and so that nobody waits for all that another person decided."""
_CONFIRMED_MS = 60_000
"""When a callback that has not come is missed."""
_READ_BACK_MS = 10_000
_BACKOFF_MS, _BACKOFF_MAX_MS = 2_000, 60_000
_GIVE_UP_MS = 10 * 60_000
_READ_BACKS = 3
_REMOVAL_MAX_MS = 6 * 3600 * 1000
"""The longest pause before an agent is removed again: it may act for a year, and each attempt costs calls."""
_LOOK_S = 1.0
_END_S = 8.0

log = structlog.get_logger(__name__)


class ActionDispatcher:
    """Works on all actions that are due. Any replica may: each attempt is claimed in the database first."""

    def __init__(
        self,
        store: Actions,
        threads: Threads,
        systems: Systems,
        *,
        ended: Callable[[str], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        """``ended`` gets the status of each action that has ended."""
        self._store, self._threads, self._systems = store, threads, systems
        self._ended, self._clock = ended, clock or SystemClock()
        self._wake = asyncio.Event()
        self._under_way: dict[asyncio.Task[None], Action] = {}
        self._shares = Counter[Share]()

    def wake(self) -> None:
        """Look at once: something was requested."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled. A system that is slow holds only what goes to it."""
        while True:
            with suppress(DatabaseUnavailable):
                await self.step()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_S)
            self._wake.clear()

    async def step(self) -> set[asyncio.Task[None]]:
        """Begin to work on each action that is due and not worked on; returns what is under way."""
        now, is_all = self._clock.now_ms(), False
        while not is_all:
            full = [each for each in self._shares if self._is_full(each)]
            busy = {each.action_id for each in self._under_way.values()}
            found = await self._threads.run(partial(self._store.due, now=now, without=full))
            is_all = True
            for action in found:
                if any(map(self._is_full, _shares_of(action))):
                    is_all = False  # others may be due behind it
                elif action.action_id not in busy:
                    task = asyncio.create_task(self._look(action), name=action.action_id)
                    self._under_way[task] = action
                    self._shares.update(_shares_of(action))
                    task.add_done_callback(self._finished)
        return set(self._under_way)

    def _is_full(self, share: Share) -> bool:
        return self._shares[share] >= _AT_ONCE[share.kind]

    async def close(self) -> None:
        """Let requests that are under way end, so that their answers are recorded."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_END_S)
        await self._systems.close()

    def _finished(self, task: asyncio.Task[None]) -> None:
        shares = _shares_of(self._under_way.pop(task))
        if any(map(self._is_full, shares)):
            self._wake.set()
        self._shares = +(self._shares - Counter(shares))
        if not task.cancelled() and (error := task.exception()) is not None:
            # It is due again when its lease ends.
            log.error("action_not_handled", action_id=task.get_name(), exc_info=error)

    async def _look(self, action: Action) -> None:
        # What the database has not recorded is due again.
        with suppress(DatabaseUnavailable):
            is_new = action.status == REQUESTED and not action.attempts
            found = None if is_new else await self._threads.run(self._store.found_out, action)
            if found is not None:
                await self._end(action, found)
            elif action.status == REQUESTED:
                await self._send(action)
            elif action.due_at is not None and action.due_at <= self._clock.now_ms():
                await self._ask(action)

    async def _send(self, action: Action) -> None:
        now = self._clock.now_ms()
        if action.action == AGENT_END and now >= ends_at(action):
            await self._end(action, OVERTAKEN)  # the agent has ended by itself
            return
        is_late = action.action != AGENT_END and now - action.requested_at > _GIVE_UP_MS
        if is_late or self._system_of(action) is None:
            await self._failed(action, FAILED, action.detail or UNSENT, attempts=action.attempts + 1)
            return
        claimed = await self._advance(action, status=SENDING, due_at=now + _LEASE_MS, attempts=action.attempts + 1)
        if claimed is None:
            return
        system = self._system_of(claimed, allowed=partial(self._may_send, claimed))
        if system is None:  # it was removed meanwhile
            await self._failed(claimed, FAILED, action.detail or UNSENT)
            return
        answer = await system.send(claimed, now=now)
        await self._sent(claimed, answer, is_repeated=_repeats(system, action))

    async def _failed(self, action: Action, status: str, detail: str, **changes: Any) -> None:
        """It ends so; but the removal of an agent is tried until the agent's end."""
        if action.action == AGENT_END:
            due_at = self._clock.now_ms() + _pause_of(action)
            await self._advance(action, status=REQUESTED, due_at=due_at, detail=detail or UNCONFIRMED, **changes)
        else:
            await self._end(action, status, detail)

    async def _sent(self, action: Action, answer: Answer, *, is_repeated: bool) -> None:
        now = self._clock.now_ms()
        if answer.received is Received.REFUSED:
            await self._failed(action, REFUSED, answer.detail)
        elif answer.received is Received.ACCEPTED:
            await self._advance(action, status=ACCEPTED, due_at=now + _CONFIRMED_MS, attempts=0, detail="")
        elif answer.received is Received.UNSENT or is_repeated:
            detail = UNSENT if answer.received is Received.UNSENT and action.detail in ("", UNSENT) else UNCONFIRMED
            await self._advance(action, status=REQUESTED, due_at=now + _pause_of(action), detail=detail)
        else:
            await self._advance(action, status=UNCLEAR, due_at=now + _READ_BACK_MS, attempts=0, detail="")

    async def _ask(self, action: Action) -> None:
        """The callback has not come, or nobody knows whether the system received the action."""
        system, now = self._system_of(action), self._clock.now_ms()
        if action.status in (SENDING, UNCLEAR) and _repeats(system, action):
            await self._advance(action, status=REQUESTED, due_at=now, detail=UNCONFIRMED)
            return
        if action.status != SENDING:
            changes = {"attempts": action.attempts + 1}
        else:  # so far, attempts to send it were counted
            changes = {"status": UNCLEAR, "attempts": 1, "detail": ""}
        claimed = await self._advance(action, due_at=now + _LEASE_MS, **changes)
        if claimed is None:
            return
        found = None if system is None else await system.read_back(claimed)
        if found:
            await self._end(claimed, found)
        elif claimed.attempts >= _READ_BACKS and (found is not None or now - action.requested_at > _GIVE_UP_MS):
            await self._end(claimed, FAILED, UNCONFIRMED)
        else:
            await self._advance(claimed, due_at=self._clock.now_ms() + _READ_BACK_MS * claimed.attempts)

    async def _end(self, action: Action, status: str, detail: str = "") -> None:
        if await self._advance(action, status=status, detail=detail, due_at=None) is not None:
            self._ended(status)

    async def _advance(self, action: Action, **changes: Any) -> Action | None:
        return await self._threads.write(lambda: self._store.advance(action, **changes))

    def _system_of(self, action: Action, *, allowed: Allowed = always) -> System | None:
        return self._systems.of(action.corp_id, action.source, action.app_type, allowed=allowed)

    async def _may_send(self, claimed: Action) -> bool:
        """Whether the action is still ours, for as long as the call may take."""
        is_time = self._clock.now_ms() < (claimed.due_at or 0) - _LAST_MS
        return is_time and await self._threads.run(self._store.is_claimed, claimed)


def _repeats(system: System | None, action: Action) -> bool:
    """The removal of an agent too: it is found first, by what it is."""
    return action.action == AGENT_END or (system is not None and system.repeats)


def _pause_of(action: Action) -> int:
    longest = _REMOVAL_MAX_MS if action.action == AGENT_END else _BACKOFF_MAX_MS
    return min(_BACKOFF_MS * 2 ** min(max(action.attempts - 1, 0), 20), longest)


def _shares_of(action: Action) -> tuple[Share, Share]:
    by_system = Share("source", action.corp_id, action.source)
    return by_system, Share("actor_id", action.corp_id, action.actor_id)
