"""Before partitions are restored: nothing that somebody else wrote for them is open, and nothing can come any more.

From the rebalance on, the group's coordinator refuses what former owners want to commit. What it had taken on before
can still end either way: then their positions are not stable, or records of their changelog are not decided. Both is
waited for, in this order, since a transaction's outcome reaches the positions and the changelog at different moments.

Who may have something open stands where the position stands: its owner's name is the committed offset's metadata, and
an owner writes it there before anything else. An owner that the group no longer has is dead or frozen: its producers
are claimed, which undoes at once what it left open, and readers wait no longer than that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import KafkaException
from faust.types import TP

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from streams.commit.rounds import Rounds
    from streams.tables.offsets import Committed, Offsets

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


class Takeover:
    """Of one worker, at each of its rebalances."""

    def __init__(
        self, offsets: Offsets, rounds: Rounds, *, group: str, name: str, claim: Callable[[str], object]
    ) -> None:
        """``claim`` takes the producers of the worker of that name over, and blocks."""
        self._offsets = offsets
        self._rounds = rounds
        self._group = group
        self._name = name
        self._claim = claim
        self._claimed: set[str] = set()
        """By the takeover under way. Once is enough: a worker that comes back under its name must not be hit again."""

    async def take(self, owned: Owned, *, generation: int) -> None:
        """Return once the partitions are this worker's alone, and marked with its name.

        Raises:
            Undecided: former owners' transactions are open for longer than is worth waiting at one go.
            KafkaException, TimeoutError: Kafka does not answer, or does not allow it.
            Overtaken: another rebalance came.
        """
        await asyncio.to_thread(self._rounds.claim)
        committed = await asyncio.to_thread(self._settle, owned)
        unmarked = {source: at.offset for source, at in committed.items() if at.owner != self._name}
        if unmarked:
            first = await asyncio.to_thread(self._first, [source for source, offset in unmarked.items() if offset < 0])
            await asyncio.gather(
                *(
                    self._rounds.deliver(source, first.get(source, offset), [], generation=generation)
                    for source, offset in unmarked.items()
                )
            )

    def _settle(self, owned: Owned) -> dict[TP, Committed]:
        began = time.monotonic()
        self._claimed.clear()
        while True:
            committed = self._offsets.committed(self._group, owned.sources)
            unstable = {source for source, at in committed.items() if not at.is_stable}
            undecided = frozenset[TP]() if unstable else self._undecided(owned.changelogs)
            open_partitions = {each.partition for each in unstable | undecided}
            waited_s = time.monotonic() - began
            self._claim_from(committed, open_partitions if waited_s > _UNDER_WAY_S else ())
            if not open_partitions:
                return committed
            if waited_s > _PATIENCE_S:
                raise Undecided(f"transactions of former owners are open: partitions {sorted(open_partitions)}")
            time.sleep(_POLL_S)

    def _undecided(self, changelogs: Collection[TP]) -> frozenset[TP]:
        found: set[TP] = set()
        for topic in {each.topic for each in changelogs}:
            partitions = [each.partition for each in changelogs if each.topic == topic]
            # In this order: what is written after the first question is no owner's any more.
            ends = self._offsets.ends(topic, partitions)
            decided = self._offsets.decided(topic, partitions)
            found |= {
                each for each in changelogs if each.topic == topic and decided[each.partition] < ends[each.partition]
            }
        return frozenset(found)

    def _claim_from(self, committed: dict[TP, Committed], overdue: Collection[int]) -> None:
        """Claim what belongs to those who left, and to those whose transactions are overdue."""
        owners = {at.owner for at in committed.values() if at.owner not in (None, "", self._name)}
        if not owners - self._claimed:
            return
        gone = owners - self._offsets.members(self._group)
        late = {at.owner for source, at in committed.items() if source.partition in overdue} & owners
        for owner in (gone | late) - self._claimed:
            assert owner is not None
            self._claimed.add(owner)
            # In the background: where nothing is open, nobody has to wait for it. No claim holds up the worker's end.
            threading.Thread(target=self._claim_one, args=(owner,), name="claim", daemon=True).start()

    def _claim_one(self, owner: str) -> None:
        try:
            self._claim(owner)
            log.info("a former owner's transactions are closed", owner=owner)
        except KafkaException as error:
            log.warning("a former owner's transactions could not be closed", owner=owner, problem=str(error))

    def _first(self, sources: Collection[TP]) -> dict[TP, int]:
        return {
            source: self._offsets.bounds(source.topic, [source.partition])[source.partition].first for source in sources
        }
