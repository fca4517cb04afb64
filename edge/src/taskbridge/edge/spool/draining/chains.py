"""Records that are sent one after the other, since they belong to one instance; many such chains go side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from taskbridge.edge.spool.store import REFUSED, TOO_LARGE
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.edge.kafka.path import KafkaPath
    from taskbridge.edge.kafka.record import SpooledRecord

_PATIENCE_S = 2.0


class Chain:
    """Records that go one after the other; behind a failure, none of the later ones is sent."""

    def __init__(self, records: list[SpooledRecord]) -> None:
        self.left = records
        self.error: DeliveryFailed | QueueFull | None = None
        self.delivered: list[SpooledRecord] = []

    @property
    def is_refused(self) -> bool:
        """The next one, or another that went out together with it, will never be taken."""
        return isinstance(self.error, DeliveryFailed) and self.error.is_final

    @property
    def refusal(self) -> str:
        """The word for which a refused one is set aside."""
        return TOO_LARGE if isinstance(self.error, DeliveryFailed) and self.error.too_large else REFUSED

    def so_far(self) -> Chain:
        """What is through already, as a chain of its own."""
        found = Chain([])
        found.delivered, self.delivered = self.delivered, []
        return found

    async def run(self, kafka: KafkaPath) -> None:
        while self.left:
            try:
                # No time limit of its own: sent once more, a record that is only late would be there twice.
                await kafka.send(self.left[0])
            except (DeliveryFailed, QueueFull) as error:
                self.error = error
                return
            self.delivered.append(self.left.pop(0))


Sending = dict["asyncio.Task[None]", Chain]


def chains_of(window: Sequence[SpooledRecord]) -> list[Chain]:
    """Events of one instance go one after the other, all else side by side."""
    chains: dict[object, list[SpooledRecord]] = {}
    for record in window:
        ordered = record.topic == TASK_EVENTS.name
        chains.setdefault((record.topic, record.key) if ordered else record.position, []).append(record)
    return [Chain(records) for records in chains.values()]


async def while_they_get_on(sending: Sending) -> set[asyncio.Task[None]]:
    """Return once all are through, or none has got on for a while; returns those that are not through."""
    waiting = set(sending)
    try:
        while waiting:
            before = sum(len(chain.delivered) for chain in sending.values())
            _, waiting = await asyncio.wait(waiting, timeout=_PATIENCE_S)
            if sum(len(chain.delivered) for chain in sending.values()) == before:
                break
    except asyncio.CancelledError:
        for task in sending:
            task.cancel()
        raise
    return waiting
