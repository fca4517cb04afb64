"""Who else is at work, as a rebuild sees them: how far the workers are, that all are gone, and no other rebuild."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Consumer
from faust.types import TP

from taskbridge.runtime.kafka import LIBRDKAFKA
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS
from taskbridge.streams.contract.live_version import REBUILD_ID
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.positions.version import VERSION_TOPIC
from taskbridge.streams.rebuild.sources.copies import DECIDED_S, POLL_S, Ticker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from taskbridge.streams.positions.group_positions import Committed
    from taskbridge.streams.positions.offsets import Offsets

_LEAVE_S = 180.0
_SESSION_MS = 6_000
"""No broker allows less by default."""
_WAIT_S = 10.0
_LOOK_S = 0.5


class AnotherRebuild(OperatorError):
    """A rebuild is running already; there can be one at a time."""


class WorkersStay(OperatorError):
    """Workers did not stop for the switch, so that it was given up: they are of a program that knows no versions."""


@dataclass(eq=False)
class Workers:
    """Every method blocks, and may be told to stop.

    Raises:
        KafkaException, TimeoutError: Kafka refuses, or does not answer.
    """

    offsets: Offsets
    claim: Callable[[str], object]
    """Takes the producers of the worker of that name over, and blocks."""
    tell: Callable[[str], None]
    stopping: Callable[[], None]

    def positions(self, topic: str = TASK_EVENTS.name) -> dict[int, int]:
        """Up to where each partition of the topic is processed, at the least; not where it has never been.

        A transaction that is open is waited for: what it wrote may be readable a moment before its position is.
        """
        left = {TP(topic, each) for each in self.offsets.partitions(topic)}
        found: dict[int, int] = {}
        deadline = time.monotonic() + DECIDED_S
        while left:
            self.stopping()
            for source, at in self.offsets.committed(APP_ID, left).items():
                if at.is_stable:
                    left.discard(source)
                    if at.offset >= 0:
                        found[source.partition] = at.offset
            if left and time.monotonic() > deadline:
                raise TimeoutError(f"transactions stay open: partitions {sorted(each.partition for each in left)}")
            time.sleep(POLL_S if left else 0)
        return found

    def changelogs(self, version: int) -> frozenset[str]:
        """Kafka's ids of those that the group's positions name as that version's: one, where nothing is wrong."""
        marks = [at.mark for at in self._committed(TASK_EVENTS.name) if at.mark is not None]
        return frozenset(mark.changelog_id for mark in marks if mark.version == version)

    def wait_until_gone(self) -> None:
        """Return once no worker is there, and nothing is open that one of them wrote.

        A worker that is frozen, and counts as gone, can write nothing when it wakes: its producers are claimed.

        Raises:
            WorkersStay: they are still there after minutes.
        """
        deadline, said = time.monotonic() + _LEAVE_S, 0.0
        while found := self.offsets.members(APP_ID):
            self.stopping()
            if time.monotonic() > deadline:
                raise WorkersStay(f"still there after {_LEAVE_S:.0f} s: {named(found)}. Nothing was switched")
            if time.monotonic() - said > Ticker.EVERY_S:
                said = time.monotonic()
                self.tell(f"waiting until the workers have stopped: {named(found)}")
            time.sleep(_LOOK_S)
        # Whoever may have something open: see ``streams.transactions.takeover``.
        if owners := {at.owner for at in self._committed(TASK_EVENTS.name, TASK_NOTIFICATIONS.name) if at.owner}:
            # Side by side: each waits up to half a second for librdkafka's timers.
            with ThreadPoolExecutor(len(owners)) as pool:
                for claimed in [pool.submit(self.claim, owner) for owner in owners]:
                    claimed.result()

    def _committed(self, *topics: str) -> Iterable[Committed]:
        sources = [TP(topic, partition) for topic in topics for partition in self.offsets.partitions(topic)]
        return self.offsets.committed(APP_ID, sources).values()


@contextmanager
def alone(offsets: Offsets, consumer: Mapping[str, object]) -> Generator[None]:
    """Be the one rebuild that there is.

    That two begin at the same moment is not excluded here: the first one to claim the transactional id loses it, and
    fails at its next write.

    Raises:
        AnotherRebuild: somebody else is.
    """
    deadline = time.monotonic() + _WAIT_S
    while found := offsets.members(REBUILD_ID):
        # One that was killed counts as there until its session is over.
        if time.monotonic() > deadline:
            raise AnotherRebuild(f"a rebuild is running already: {named(found)}")
        time.sleep(_LOOK_S)
    stop = threading.Event()
    thread = threading.Thread(target=_be_there, args=(consumer, stop), name="rebuild-membership", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _WAIT_S
        while not offsets.members(REBUILD_ID):
            if time.monotonic() > deadline:
                raise OperatorError(f"Kafka does not let this rebuild into the group {REBUILD_ID}")
            time.sleep(_LOOK_S)
        yield
    finally:
        stop.set()
        thread.join()


def _be_there(consumer: Mapping[str, object], stop: threading.Event) -> None:
    with closing(
        Consumer({**consumer, "client.id": REBUILD_ID, "session.timeout.ms": _SESSION_MS}, logger=LIBRDKAFKA)
    ) as member:
        member.subscribe([VERSION_TOPIC.name])
        while not stop.is_set():
            member.poll(_LOOK_S)


def named(members: Mapping[str, str]) -> str:
    """The members of a group, for people."""
    return ", ".join(f"{name} on {host}" for name, host in members.items())
