"""Threads for what blocks are shared: no caller keeps the others waiting."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from taskbridge.runtime import database
from taskbridge.runtime.database import DatabaseUnavailable, Threads, purge_hourly, working_for

if TYPE_CHECKING:
    import pytest


async def test_a_caller_with_many_requests_leaves_threads_to_others_until_its_work_has_ended() -> None:
    go_on, lock = threading.Event(), threading.Lock()
    begun: list[str] = []

    def work(who: str) -> str:
        with lock:
            begun.append(who)
        if who == "busy":
            go_on.wait(60)
        return who

    async def run(threads: Threads, who: str) -> str:
        with working_for(who):
            return await threads.run(work, who)

    with closing(Threads(4)) as threads:
        busy = [asyncio.create_task(run(threads, "busy")) for _ in range(10)]
        assert await asyncio.wait_for(run(threads, "other"), 60) == "other"
        # Nobody waits for these any more, but their threads are not free.
        for each in busy:
            each.cancel()
        await asyncio.wait(busy)
        busy = [asyncio.create_task(run(threads, "busy")) for _ in range(10)]
        assert await asyncio.wait_for(run(threads, "other"), 60) == "other"
        assert begun.count("busy") == 2
        go_on.set()
        assert await asyncio.gather(*busy) == ["busy"] * 10


async def test_work_of_the_service_itself_has_all_threads() -> None:
    meeting = threading.Barrier(4)
    with closing(Threads(4)) as threads:
        await asyncio.gather(*(threads.run(meeting.wait, 30) for _ in range(4)))


async def test_queries_do_not_wait_for_what_waits_to_write() -> None:
    go_on = threading.Event()
    with closing(Threads(1)) as threads:
        writing = [asyncio.create_task(threads.write(go_on.wait, 60)) for _ in range(5)]
        assert await asyncio.wait_for(threads.run(int), 60) == 0
        go_on.set()
        await asyncio.gather(*writing)


async def test_a_purge_that_fails_does_not_end_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    failures, again = [RuntimeError("never seen before"), DatabaseUnavailable("gone")], threading.Event()
    monkeypatch.setattr(database, "_PURGE_S", 0)

    def purge() -> None:
        if failures:
            raise failures.pop()
        again.set()

    purging = asyncio.create_task(purge_hourly(purge))
    assert await asyncio.to_thread(again.wait, 30)
    purging.cancel()
    await asyncio.wait([purging])


async def test_a_purge_has_no_thread_of_those_who_write() -> None:
    go_on, begun = threading.Event(), threading.Event()

    def purge() -> None:
        begun.set()
        go_on.wait(60)

    with closing(Threads(1)) as threads:
        purging = asyncio.create_task(purge_hourly(purge))
        await asyncio.to_thread(begun.wait, 30)
        assert await asyncio.wait_for(threads.write(int), 60) == 0
        go_on.set()
        purging.cancel()
        await asyncio.wait([purging])
