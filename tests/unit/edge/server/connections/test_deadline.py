"""A deadline passes once, at the time that was set first, unless it is lifted."""

from __future__ import annotations

import asyncio

from taskbridge.edge.server.connections.deadline import Deadline


def test_the_first_time_that_is_set_stands() -> None:
    async def scenario() -> None:
        passed: list[str] = []
        deadline = Deadline(asyncio.get_running_loop())
        deadline.set(0.01, lambda: passed.append("first"))
        deadline.set(0, lambda: passed.append("second"))
        await asyncio.sleep(0.05)
        assert passed == ["first"]
        deadline.set(0, lambda: passed.append("third"))
        await asyncio.sleep(0.01)
        assert passed == ["first", "third"]

    asyncio.run(scenario())


def test_what_is_lifted_never_passes_and_another_may_be_set() -> None:
    async def scenario() -> None:
        passed: list[str] = []
        deadline = Deadline(asyncio.get_running_loop())
        deadline.lift()
        deadline.set(0, lambda: passed.append("lifted"))
        deadline.lift()
        deadline.set(0, lambda: passed.append("kept"))
        await asyncio.sleep(0.01)
        assert passed == ["kept"]

    asyncio.run(scenario())
