"""Before partitions are restored: no other worker has an open transaction for them, and none can begin one.

After the rebalance, the group's coordinator refuses commits of former owners. A commit that it accepted before may
still end either way: then the positions are not stable, or records of the changelog are undecided. The takeover waits
for both, in this order, because a transaction's outcome reaches positions and changelog at different moments.

The metadata of a committed offset names the owner, which writes it before anything else. An owner that left the group
is dead or frozen: its producers are claimed, which aborts its open transaction at once instead of after its timeout.

After the restoration, the group's positions are compared with those in the changelogs: see ``positions``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.transactions.positions import Bounds, is_after_loss, resume_position

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from faust.types import TP

    from taskbridge.streams.transactions.group_commit import GroupCommit
    from taskbridge.streams.transactions.offsets import Offsets
    from taskbridge.streams.transactions.positions import Committed, RecordedPosition

log = structlog.get_logger(__name__)

_UNDER_WAY_S = 0.5
"""How long a living owner's last transaction may take before the owner's producers are claimed."""
_PATIENCE_S = 1.0
_POLL_S = 0.02


@dataclass(eq=False)
class Takeover:
    """The takeovers of one worker, one at each rebalance."""

    offsets: Offsets
    group_commit: GroupCommit
    group: str
    topic: str
    claim: Callable[[str], None]
    note: Callable[[str], None] = lambda _reason: None
    """Is called with the reason why a partition does not resume at the group's position."""

    def __post_init__(self) -> None:
        self._claimed: set[str] = set()
        """In the current takeover. Once is enough: a worker that restarts under its name must not be fenced again."""

    async def claim_partitions(self, sources: Collection[TP]) -> dict[TP, Committed]:
        """Return the group's positions once no other worker can write for these partitions of events.

        Raises:
            TimeoutError: transactions of former owners are still open, or Kafka does not answer: try again.
            KafkaException: Kafka refuses.
        """
        await asyncio.to_thread(self.group_commit.claim)
        return await asyncio.to_thread(self._wait_until_decided, sources)

    async def commit_positions(
        self, committed: Mapping[TP, Committed], recorded: Mapping[TP, RecordedPosition | None], *, generation: int
    ) -> None:
        """Return once the group's position of each partition is where it resumes, with this worker's name.

        ``recorded``: the positions in the changelogs, which are restored to their ends.

        Raises:
            OperatorError: a changelog is behind the group's position.
            KafkaException, TimeoutError: Kafka refuses, does not answer, or takes longer than one attempt waits.
            Overtaken: another rebalance came.
        """
        bounds = await asyncio.to_thread(self._bounds, committed)
        moved: dict[TP, int] = {}
        topic = self.group_commit.source_topic
        for source, at in committed.items():
            ours, within = recorded.get(source), bounds[source]
            found = resume_position(source, at, ours, source_topic=topic, bounds=within)
            if found.reason is not None:
                self.note(found.reason)
                log.error(
                    "position_moved",
                    topic=source.topic,
                    partition=source.partition,
                    because=found.because,
                    was=at.offset,
                    resumes_at=found.offset,
                )
            is_named = (at.owner, at.lineage) == (self.group_commit.name, topic.lineage)
            after_loss = is_after_loss(ours, source_id=topic.source_id, end=within.end)
            self.group_commit.after_loss[source] = after_loss
            is_recorded = ours is not None and ours[:2] == (topic.source_id, at.offset)
            if not is_named or not is_recorded or found.offset != at.offset:
                moved[source] = found.offset
        await asyncio.gather(
            *(self.group_commit.submit(source, to, [], generation=generation) for source, to in moved.items())
        )
        await asyncio.to_thread(self._wait_until_readable, moved)

    def _wait_until_decided(self, sources: Collection[TP]) -> dict[TP, Committed]:
        began = time.monotonic()
        self._claimed.clear()
        while True:
            committed = self.offsets.committed(self.group, sources)
            unstable = {source.partition for source, at in committed.items() if not at.is_stable}
            open_partitions = unstable or self._undecided([each.partition for each in sources])
            waited_s = time.monotonic() - began
            self._claim_from(committed, open_partitions if waited_s > _UNDER_WAY_S else ())
            if not open_partitions:
                return committed
            if waited_s > _PATIENCE_S:
                raise TimeoutError(f"transactions of former owners are open: partitions {sorted(open_partitions)}")
            time.sleep(_POLL_S)

    def _wait_until_readable(self, moved: Mapping[TP, int]) -> None:
        """Positions become readable some milliseconds after their commit; until then, readers get the former ones."""
        deadline = time.monotonic() + _PATIENCE_S
        while not all(at.is_stable for at in self.offsets.committed(self.group, moved).values()):
            if time.monotonic() > deadline:
                raise TimeoutError("the group's committed positions are not readable yet")
            time.sleep(_POLL_S)

    def _undecided(self, partitions: Collection[int]) -> set[int]:
        changelog = self.group_commit.source_topic.changelog
        # In this order: no former owner can write after the first request.
        ends = self.offsets.ends(changelog, partitions)
        decided = self.offsets.decided(changelog, partitions)
        return {each for each in partitions if decided[each] < ends[each]}

    def _claim_from(self, committed: dict[TP, Committed], overdue: Collection[int]) -> None:
        owners = {at.owner for at in committed.values() if at.owner not in (None, "", self.group_commit.name)}
        if not owners - self._claimed:
            return
        gone = owners - self.offsets.members(self.group).keys()
        late = {at.owner for source, at in committed.items() if source.partition in overdue} & owners
        for owner in (gone | late) - self._claimed:
            assert owner is not None
            self._claimed.add(owner)
            # In the background: with nothing open, nothing waits for it, and a claim never delays the worker's end.
            threading.Thread(target=self._claim_one, args=(owner,), name="claim", daemon=True).start()

    def _claim_one(self, owner: str) -> None:
        try:
            self.claim(owner)
            log.info("former_owner_fenced", owner=owner)
        except (KafkaException, OperatorError) as error:
            log.warning("former_owner_not_fenced", owner=owner, problem=str(error))

    def _bounds(self, sources: Collection[TP]) -> dict[TP, Bounds]:
        partitions = [each.partition for each in sources]
        # In this order, because the topic grows.
        first, ends = self.offsets.begins(self.topic, partitions), self.offsets.ends(self.topic, partitions)
        return {each: Bounds(first[each.partition], ends[each.partition]) for each in sources}
