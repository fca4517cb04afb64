"""A worker resumes at the group's position only once Kafka returns it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from faust.types import TP
from structlog.testing import capture_logs

from taskbridge.runtime.kafka import NotAllowed
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.transactions.positions import Committed, Lineage, SourceTopic
from taskbridge.streams.transactions.takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Collection

SOURCE = TP(TASK_EVENTS.name, 0)
LINEAGE = Lineage(1, 1, "changelog-id", "version-id")


class Kafka:
    """Ten records are left after the first three. A committed position becomes readable two requests later."""

    def __init__(self) -> None:
        self.name = "us"
        self.after_loss: dict[TP, bool] = {}
        self.source_topic = SourceTopic("source", "changelog", LINEAGE)
        self.handed_over: dict[TP, int] = {}
        self.late = 2

    def begins(self, _topic: str, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 3)

    def ends(self, _topic: str, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 13)

    def committed(self, _group: str, sources: Collection[TP]) -> dict[TP, Committed]:
        self.late -= 1
        return {each: Committed(self.handed_over[each], "us", is_stable=self.late < 0) for each in sources}

    def submit(self, source: TP, to: int, _batches: object, *, generation: int) -> asyncio.Future[list[int]]:
        assert generation == 1
        self.handed_over[source] = to
        done = asyncio.get_running_loop().create_future()
        done.set_result([])
        return done


def test_a_moved_position_is_awaited_until_it_is_readable() -> None:
    """An earlier request would return the old position, whose records are gone or already processed."""
    kafka = Kafka()
    takeover = Takeover(cast("Any", kafka), cast("Any", kafka), group="group", topic=SOURCE.topic, claim=lambda _: None)
    before = {SOURCE: Committed(2, "them", is_stable=True)}
    asyncio.run(takeover.commit_positions(before, {SOURCE: None}, generation=1))
    assert kafka.handed_over == {SOURCE: 3}
    assert kafka.late < 0, "or the old one would still be returned"


def test_a_refused_claim_of_an_owner_is_logged() -> None:
    def claim(_owner: str) -> None:
        raise NotAllowed("lacks Write on transactional-id them-0")

    takeover = Takeover(cast("Any", None), cast("Any", None), group="group", topic=SOURCE.topic, claim=claim)
    with capture_logs() as logged:
        takeover._claim_one("them")  # pyright: ignore[reportPrivateUsage]
    [line] = logged
    assert (line["event"], line["owner"]) == ("former_owner_not_fenced", "them")
    assert "transactional-id" in line["problem"]
