"""Threads for what blocks are shared: no caller keeps the others waiting."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from taskbridge.runtime import database
from taskbridge.runtime.database import DatabaseUnavailable, Threads, purge_hourly, working_for

if TYPE_CHECKING:
    import pytest


async def test_two_callers_with_many_requests_leave_a_thread_to_a_third_until_their_work_has_ended() -> None:
    go_on, begun = threading.Event(), queue.SimpleQueue[str]()

    def work(who: str) -> str:
        if who != "other":
            begun.put(who)
            go_on.wait(60)
        return who

    async def run(threads: Threads, who: str) -> str:
        with working_for(who):
            return await threads.run(work, who)

    with closing(Threads(5)) as threads:
        busy = [asyncio.create_task(run(threads, who)) for who in 10 * ("ann", "bob")]
        assert sorted([await asyncio.to_thread(begun.get, timeout=60) for _ in range(4)]) == [
            "ann",
            "ann",
            "bob",
            "bob",
        ]
        assert await asyncio.wait_for(run(threads, "other"), 60) == "other"
        # Nobody waits for these any more, but their threads are not free.
        for each in busy:
            each.cancel()
        await asyncio.wait(busy)
        busy = [asyncio.create_task(run(threads, who)) for who in 10 * ("ann", "bob")]
        assert await asyncio.wait_for(run(threads, "other"), 60) == "other"
        assert begun.empty()
        go_on.set()
        assert await asyncio.gather(*busy) == 10 * ["ann", "bob"]


async def test_a_callers_second_search_waits_while_others_are_at_work_and_no_short_query_waits_for_it() -> None:
    ends, begun = queue.SimpleQueue[None](), queue.SimpleQueue[str]()

    def search(who: str) -> None:
        begun.put(who)
        ends.get(timeout=60)

    async def next_begun() -> str:
        return await asyncio.to_thread(begun.get, timeout=60)

    with closing(Threads(5)) as threads:
        with working_for("bob"):
            others = asyncio.create_task(threads.run(search, "bob", is_search=True))
            assert await next_begun() == "bob"
        with working_for("ann"):
            searches = [asyncio.create_task(threads.run(search, "ann", is_search=True)) for _ in range(3)]
            assert await next_begun() == "ann"
            assert [await asyncio.wait_for(threads.run(int), 60) for _ in range(20)] == 20 * [0]
        with working_for("carl"):
            assert await asyncio.wait_for(threads.run(int), 60) == 0
        assert begun.empty()
        # Nobody waits for it any more, but it still runs.
        searches[0].cancel()
        await asyncio.wait(searches[:1])
        with working_for("ann"):
            assert await asyncio.wait_for(threads.run(int), 60) == 0
        assert begun.empty()
        for _ in range(4):
            ends.put(None)
        await asyncio.gather(others, *searches[1:])


async def test_two_searches_of_a_caller_run_at_once_while_nobody_else_is_at_work() -> None:
    together = threading.Barrier(2)
    with closing(Threads(5)) as threads:
        with working_for("bob"):
            await threads.run(int, is_search=True)
        with working_for("ann"):
            both = [asyncio.create_task(threads.run(together.wait, 60, is_search=True)) for _ in range(2)]
            assert sorted(await asyncio.gather(*both)) == [0, 1]


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
