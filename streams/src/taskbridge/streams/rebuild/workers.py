"""The workers as a rebuild sees them: their positions, whether all have stopped, and no other rebuild runs."""

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
    """Another rebuild is running; only one can run at a time."""


class WorkersStay(OperatorError):
    """Workers did not stop, so the switch was aborted: their release knows no versions."""


@dataclass(eq=False)
class Workers:
    """Every method blocks, and a signal can stop it.

    Raises:
        KafkaException, TimeoutError: Kafka refuses, or does not answer.
    """

    offsets: Offsets
    claim: Callable[[str], object]
    """Fences the producers of the worker of that name; blocks."""
    tell: Callable[[str], None]
    stopping: Callable[[], None]

    def positions(self, topic: str = TASK_EVENTS.name) -> dict[int, int]:
        """The least position of each partition of the topic; partitions without one are missing.

        Waits for open transactions: their records may be readable a moment before their position.
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
                raise TimeoutError(
                    f"transactions are still open on partitions {sorted(each.partition for each in left)}"
                )
            time.sleep(POLL_S if left else 0)
        return found

    def changelogs(self, version: int) -> frozenset[str]:
        """The changelog ids of that version in the group's positions: one, unless something is wrong."""
        marks = [at.mark for at in self._committed(TASK_EVENTS.name) if at.mark is not None]
        return frozenset(mark.changelog_id for mark in marks if mark.version == version)

    def wait_until_gone(self) -> None:
        """Return once no worker is in the group, and no transaction of theirs is open.

        A frozen worker that has left the group can write nothing when it resumes: its producers are fenced.

        Raises:
            WorkersStay: they did not stop within minutes.
        """
        deadline, said = time.monotonic() + _LEAVE_S, 0.0
        while found := self.offsets.members(APP_ID):
            self.stopping()
            if time.monotonic() > deadline:
                raise WorkersStay(
                    f"workers still run after {_LEAVE_S:.0f} s: {named(found)}. Stop them, and run it again"
                )
            if time.monotonic() - said > Ticker.EVERY_S:
                said = time.monotonic()
                self.tell(f"waiting for workers to stop: {named(found)}")
            time.sleep(_LOOK_S)
        # Owners that may have an open transaction: see ``streams.transactions.takeover``.
        if owners := {at.owner for at in self._committed(TASK_EVENTS.name, TASK_NOTIFICATIONS.name) if at.owner}:
            # In parallel: each waits up to half a second for librdkafka's timers.
            with ThreadPoolExecutor(len(owners)) as pool:
                for claimed in [pool.submit(self.claim, owner) for owner in owners]:
                    claimed.result()

    def _committed(self, *topics: str) -> Iterable[Committed]:
        sources = [TP(topic, partition) for topic in topics for partition in self.offsets.partitions(topic)]
        return self.offsets.committed(APP_ID, sources).values()


@contextmanager
def alone(offsets: Offsets, consumer: Mapping[str, object]) -> Generator[None]:
    """Make sure that no other rebuild runs.

    Two may start at the same moment: then the first one to claim the transactional id is fenced, and fails at its
    next write.

    Raises:
        AnotherRebuild: another one runs.
    """
    deadline = time.monotonic() + _WAIT_S
    while found := offsets.members(REBUILD_ID):
        # A killed one stays in the group until its session ends.
        if time.monotonic() > deadline:
            raise AnotherRebuild(f"another rebuild is running: {named(found)}. Wait for its end")
        time.sleep(_LOOK_S)
    stop = threading.Event()
    thread = threading.Thread(target=_be_there, args=(consumer, stop), name="rebuild-membership", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _WAIT_S
        while not offsets.members(REBUILD_ID):
            if time.monotonic() > deadline:
                raise OperatorError(f"this rebuild could not join the group {REBUILD_ID}: check Kafka and its ACLs")
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
    """The members of a group, for messages."""
    return ", ".join(f"{name} on {host}" for name, host in members.items())
