"""Before partitions are restored: no other worker has an open transaction for them, and none can begin one.

After the rebalance, the group's coordinator refuses commits of former owners. A commit that it accepted before may
still end either way: then the positions are not stable, or records of the changelog are undecided. The takeover waits
for both, in this order, because a transaction's outcome reaches positions and changelog at different moments.

The metadata of a committed offset names the owner, which writes it before anything else. An owner that left the group
is dead or frozen: its producers are claimed, which aborts its open transaction at once instead of after its timeout.

After the restoration, the group's positions are compared with those in the changelogs: see ``streams.positions``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import KafkaException
from faust.types import TP

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.positions import Bounds, is_after_loss, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from taskbridge.streams.offsets import Offsets
    from taskbridge.streams.positions import Committed, KeptPosition
    from taskbridge.streams.transactions.group_commit import GroupCommit

log = structlog.get_logger(__name__)

_UNDER_WAY_S = 0.5
"""How long a living owner's last transaction may take to be decided, before it is claimed."""
_PATIENCE_S = 1.0
_POLL_S = 0.02


class Owned(NamedTuple):
    """What a worker takes over: the partitions of events, and those of changelogs that go with them."""

    sources: frozenset[TP]
    changelogs: frozenset[TP]


class Undecided(TimeoutError):
    """Former owners' transactions are still open: it is worth asking again."""


@dataclass(eq=False)
class Takeover:
    """Of one worker, at each of its rebalances."""

    offsets: Offsets
    group_commit: GroupCommit
    group: str
    name: str
    claim: Callable[[str], object]
    """Takes the producers of the worker of that name over, and blocks."""
    note: Callable[[str], None] = lambda _reason: None
    """Is told why a partition goes on from elsewhere than the group's position."""

    def __post_init__(self) -> None:
        self._claimed: set[str] = set()
        """By the takeover under way. Once is enough: a worker that comes back under its name must not be hit again."""

    async def take(self, owned: Owned) -> dict[TP, Committed]:
        """Return once the partitions are this worker's alone: where the group stands in each.

        Raises:
            Undecided: former owners' transactions are open for longer than is worth waiting at one go.
            KafkaException, TimeoutError: Kafka does not answer, or does not allow it.
        """
        await asyncio.to_thread(self.group_commit.claim)
        return await asyncio.to_thread(self._settle, owned)

    async def begin(
        self, committed: Mapping[TP, Committed], kept: Mapping[TP, KeptPosition | None], *, generation: int
    ) -> None:
        """Return once the group stands where each partition goes on, marked with this worker's name.

        ``kept`` is what the changelogs, which are restored to their ends, say of the positions.

        Raises:
            ChangelogCut: one lacks what the group says is folded.
            KafkaException, TimeoutError: Kafka does not answer, or does not allow it.
            Undecided: it takes longer than is worth waiting at one go.
            Overtaken: another rebalance came.
        """
        bounds = await asyncio.to_thread(self._bounds, committed)
        moved: dict[TP, int] = {}
        for source, at in committed.items():
            ground, said = self.group_commit.grounds.get(source.topic), kept.get(source)
            found = standing(source, at, said, ground=ground, bounds=bounds[source])
            if found.reason is not None:
                self.note(found.reason)
                log.error(
                    "position_moved",
                    topic=source.topic,
                    partition=source.partition,
                    because=found.because,
                    was=at.offset,
                    goes_on_from=found.offset,
                )
            is_marked = (at.owner, at.mark) == (self.name, None if ground is None else ground.mark)
            if ground is not None:
                after_loss = is_after_loss(said, source_id=ground.source_id, end=bounds[source].end)
                self.group_commit.after_loss[source] = after_loss
            is_kept = ground is None or (said is not None and said[:2] == (ground.source_id, at.offset))
            if not is_marked or not is_kept or found.offset != at.offset:
                moved[source] = found.offset
        await asyncio.gather(
            *(self.group_commit.hand_over(source, to, [], generation=generation) for source, to in moved.items())
        )
        await asyncio.to_thread(self._until_told, moved)

    def changelog_of(self, source: TP) -> str | None:
        """The topic in which this one's positions are kept."""
        ground = self.group_commit.grounds.get(source.topic)
        return None if ground is None else ground.changelog

    def _settle(self, owned: Owned) -> dict[TP, Committed]:
        began = time.monotonic()
        self._claimed.clear()
        while True:
            committed = self.offsets.committed(self.group, owned.sources)
            unstable = {source for source, at in committed.items() if not at.is_stable}
            undecided = frozenset[TP]() if unstable else self._undecided(owned.changelogs)
            open_partitions = {each.partition for each in unstable | undecided}
            waited_s = time.monotonic() - began
            self._claim_from(committed, open_partitions if waited_s > _UNDER_WAY_S else ())
            if not open_partitions:
                return committed
            if waited_s > _PATIENCE_S:
                raise Undecided(f"transactions of former owners are still open: partitions {sorted(open_partitions)}")
            time.sleep(_POLL_S)

    def _until_told(self, moved: Mapping[TP, int]) -> None:
        """Positions are told some milliseconds after they are committed; until then, whoever asks gets the old ones."""
        deadline = time.monotonic() + _PATIENCE_S
        while not all(at.is_stable for at in self.offsets.committed(self.group, moved).values()):
            if time.monotonic() > deadline:
                raise Undecided("the group's committed positions are not readable yet")
            time.sleep(_POLL_S)

    def _undecided(self, changelogs: Collection[TP]) -> frozenset[TP]:
        found: set[TP] = set()
        for topic in {each.topic for each in changelogs}:
            partitions = [each.partition for each in changelogs if each.topic == topic]
            # In this order: what is written after the first question is no owner's any more.
            ends = self.offsets.ends(topic, partitions)
            decided = self.offsets.decided(topic, partitions)
            found |= {
                each for each in changelogs if each.topic == topic and decided[each.partition] < ends[each.partition]
            }
        return frozenset(found)

    def _claim_from(self, committed: dict[TP, Committed], overdue: Collection[int]) -> None:
        """Claim what belongs to those who left, and to those whose transactions are overdue."""
        owners = {at.owner for at in committed.values() if at.owner not in (None, "", self.name)}
        if not owners - self._claimed:
            return
        gone = owners - self.offsets.members(self.group).keys()
        late = {at.owner for source, at in committed.items() if source.partition in overdue} & owners
        for owner in (gone | late) - self._claimed:
            assert owner is not None
            self._claimed.add(owner)
            # In the background: where nothing is open, nobody has to wait for it. No claim holds up the worker's end.
            threading.Thread(target=self._claim_one, args=(owner,), name="claim", daemon=True).start()

    def _claim_one(self, owner: str) -> None:
        try:
            self.claim(owner)
            log.info("former_owner_fenced", owner=owner)
        except (KafkaException, OperatorError) as error:
            log.warning("former_owner_not_fenced", owner=owner, problem=str(error))

    def _bounds(self, sources: Collection[TP]) -> dict[TP, Bounds]:
        found: dict[TP, Bounds] = {}
        for topic in {source.topic for source in sources}:
            partitions = [source.partition for source in sources if source.topic == topic]
            # In this order: a topic that is read goes on growing.
            first, end = self.offsets.begins(topic, partitions), self.offsets.ends(topic, partitions)
            found |= {TP(topic, each): Bounds(first[each], end[each]) for each in partitions}
        return found
