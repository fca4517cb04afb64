"""Who sends a record without waiting is told once what became of it, in time, and Kafka's state follows from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from taskbridge.edge.kafka.record import Record
from taskbridge.edge.kafka.sending import Sendings
from taskbridge.runtime.producer import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RECORD = Record(topic="t", key=b"k", headers=(), schema="s", body=b"")


def run(scenario: Callable[[Sendings, list[object]], Awaitable[None]]) -> list[object]:
    """All that is told, in order: failures as the path hears of them, and what each sender hears."""
    told: list[object] = []

    async def main() -> None:
        await scenario(Sendings(lambda record, error: told.append((record, str(error)))), told)

    asyncio.run(main())
    return told


def test_what_arrived_is_told_at_once_and_waits_for_nothing_more() -> None:
    async def scenario(sendings: Sendings, told: list[object]) -> None:
        sending = sendings.add(RECORD, told.append, 0.01)
        assert not sending.done()
        sending.set_result(None)
        assert (told, sending.done(), dict(sendings)) == ([None], True, {})
        await asyncio.sleep(0.05)

    assert run(scenario) == [None]


def test_a_failure_is_told_to_the_path_first_and_to_the_sender_in_the_next_turn() -> None:
    async def scenario(sendings: Sendings, told: list[object]) -> None:
        sending = sendings.add(RECORD, lambda error: told.append(str(error)), 10)
        sending.set_exception(DeliveryFailed("no"))
        assert (told, sending.done(), dict(sendings)) == ([], True, {})
        await asyncio.sleep(0)

    assert run(scenario) == [(RECORD, "no"), "no"]


def test_each_is_late_in_its_own_time_and_one_that_arrived_never() -> None:
    async def scenario(sendings: Sendings, told: list[object]) -> None:
        late = asyncio.Event()

        def second(error: Exception | None) -> None:
            told.append(f"second: {error}")
            late.set()

        sendings.add(RECORD, lambda error: told.append(f"first: {error}"), 0.02)
        arrived = sendings.add(RECORD, lambda error: told.append(f"arrived: {error}"), 0.02)
        arrived.set_result(None)
        await asyncio.sleep(0.01)
        sendings.add(RECORD, second, 0.02)
        await late.wait()
        assert not sendings

    text = "no acknowledgement in time"
    assert run(scenario) == ["arrived: None", (RECORD, text), f"first: {text}", (RECORD, text), f"second: {text}"]
