"""aiokafka's consumer in its thread, with what Faust has no settings for.

It fetches events and notifications; changelogs are fetched by ``streams.tables.changelog``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import OffsetOutOfRangeError
from faust.transport.drivers import aiokafka as driver

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.fetched_records import read_fetches
from taskbridge.streams.transactions.group_metadata import Membership

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from faust.types import TP


class PositionGone(OperatorError):
    """The topic no longer has what comes next. Started again, the worker says what is missing and goes on behind it."""


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Keeps aiokafka from fetching changelogs: it would hold the first megabytes of each for ever."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        thread = cast("Any", self._thread)
        changelogs = thread.app.tables.changelog_topics
        aiokafka = thread._ensure_consumer()  # noqa: SLF001
        thread.let_skip(may=True)
        aiokafka.pause(*(tp for tp in assigned if tp.topic in changelogs))
        thread.consumer.joined(_membership(aiokafka))
        await super().on_partitions_assigned(assigned)


def _membership(aiokafka: Any) -> Membership:
    coordinator = aiokafka._coordinator  # noqa: SLF001 - nobody else knows the member's id
    return Membership(coordinator.generation, coordinator.member_id, coordinator._group_instance_id)  # noqa: SLF001


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer, with what Faust has no settings for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.polled: dict[TP, int] = {}
        """Behind the last record of each partition that was polled, whoever has it by now."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        read_fetches()
        aiokafka = cast("Any", super()._create_worker_consumer(transport))
        # Of what another worker's transaction left unfinished, nothing is to be folded.
        aiokafka._isolation_level = "read_committed"  # noqa: SLF001
        return aiokafka

    async def _fetch_records(self, consumer: Any, *args: Any, **options: Any) -> Any:
        """Records of one poll. A partition that has more of them comes behind all others next time.

        aiokafka would go on with the same one until nothing is left of what it fetched, some megabytes later, while all
        other partition queues stand empty.
        """
        try:
            fetched = await super()._fetch_records(consumer, *args, **options)
        except OffsetOutOfRangeError as error:
            raise PositionGone(
                f"records were deleted before they were read, or the topic was truncated: {error}"
            ) from error
        waiting = consumer._fetcher._records  # noqa: SLF001 - polled in this dict's order
        for tp, records in fetched.items():
            self.polled[tp] = records[-1].offset + 1
            if tp in waiting:
                waiting[tp] = waiting.pop(tp)
        return fetched

    async def seek_to_committed(self) -> Any:
        thread = cast("Any", self)
        changelogs = thread.app.tables.changelog_topics
        return await self.call_thread(seek_to_committed, thread._ensure_consumer(), changelogs)  # noqa: SLF001

    def let_skip(self, *, may: bool) -> None:
        """Whether a position that is not there is silently moved to what is: only until it is known where all go on."""
        fetcher = cast("Any", self)._ensure_consumer()._fetcher  # noqa: SLF001
        strategy = OffsetResetStrategy.EARLIEST if may else OffsetResetStrategy.NONE
        fetcher._default_reset_strategy = strategy  # noqa: SLF001 - a setting only where the consumer is made

    def fetch_position(self, tp: TP) -> int:
        """Where the next fetch begins; 0 where that is not known."""
        subscription = cast("Any", self)._ensure_consumer()._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        state = None if assignment is None else assignment.state_value(tp)
        return state.position if state is not None and state.has_valid_position else 0


async def seek_to_committed(aiokafka: Any, changelogs: Collection[str]) -> Mapping[TP, int | None]:
    """Every partition comes again from what is committed, and from its beginning where nothing is.

    aiokafka alone leaves the latter where they are, and those where 0 is committed: behind what was fetched and, it may
    be, dropped. ``changelogs`` are not fetched at all.
    """
    committed: Mapping[TP, int | None] = await aiokafka.seek_to_committed()
    for tp, offset in committed.items():
        if offset == 0:
            aiokafka.seek(tp, 0)
    if unread := [tp for tp, offset in committed.items() if offset is None and tp.topic not in changelogs]:
        await aiokafka.seek_to_beginning(*unread)
    return committed
