"""Brings the topics to another number of partitions while no worker works: for a rebuild whose version has that many.

Kafka adds partitions and takes none away, and a key has another partition then. So each topic is treated by what it is:

- Events stay where they are. The rebuild folds them by their keys, wherever they stand, and workers send on whatever
  comes, or still waits, on another partition than its key's (``streams.fold.homes``).
- States and inboxes are made anew: what is on a compacted topic would be there for ever beside what replaces it.
- Notifications so far are taken away and everybody is told again what they see. Else who has not read them yet might
  apply what was told on the old partition after what is told on the new one.
- Dead letters and quarantine only grow: they have no order.
- People and forms stay where they are: nothing is kept beside them, and the numbers of their topics are their own.

Should this end halfway, no worker works until another run has done all of it: the word for that is said before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import (
    CALLBACKS_QUARANTINE,
    TASK_EVENTS,
    TASK_EVENTS_DLQ,
    TASK_NOTIFICATIONS,
    TASK_STATES,
)
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.streams.positions.mark import Ground
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.transactions.transaction import TransactionalWriter

_GROW = (TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE, TASK_NOTIFICATIONS, TASK_EVENTS)
_ANSWER_S = 30.0
_LOOK_S = 0.2


class FewerPartitions(OperatorError):
    """Kafka takes no partitions away."""


class Move:
    """To that many partitions."""

    def __init__(self, run: Operation, partitions: int) -> None:
        """Look at what there is.

        Raises:
            FewerPartitions: a topic has more.
        """
        self._run = run
        self.partitions = partitions
        there = run.topics()
        most = max(there.get(topic.name, 0) for topic in _GROW)
        if partitions < most:
            raise FewerPartitions(f"there are {most}, and Kafka takes no partitions away: ask for {most} or more")
        self.inboxes: Ground | None = None
        """What workers stand upon that make them anew."""
        self.notified: dict[int, int] = {}
        """Where the notifications begin from which they make them."""

    def make(self, version: int) -> TransactionalWriter:
        """Bring all topics to the number, for that version; what writes from then on knows of it. Blocks.

        Raises:
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
        """
        run, there = self._run, self._run.topics()
        self._grow(there)
        self._take_notifications_away(there)
        run.recreate(TASK_STATES, partitions=self.partitions)
        if INBOX_CHANGELOG.name in there or run.settings.task_center:
            self.inboxes = run.new_inboxes(version, self.partitions)
        return run.claimed_writer()

    def _grow(self, there: Mapping[str, int]) -> None:
        names = [topic.name for topic in _GROW if 0 < there.get(topic.name, 0) < self.partitions]
        if not names:
            return
        admin = cast("Any", self._run.admin)
        for future in admin.create_partitions([NewPartitions(name, self.partitions) for name in names]).values():
            future.result(_ANSWER_S)
        deadline = time.monotonic() + _ANSWER_S
        while any(count < self.partitions for name, count in self._run.topics().items() if name in names):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Kafka was asked for {self.partitions} partitions and does not show them")
            time.sleep(_LOOK_S)

    def _take_notifications_away(self, there: Mapping[str, int]) -> None:
        name = TASK_NOTIFICATIONS.name
        self.notified = self._run.offsets.ends(name, range(there.get(name, 0)))
        gone = [TopicPartition(name, each, end) for each, end in self.notified.items() if end > 0]
        for future in cast("Any", self._run.admin).delete_records(gone).values() if gone else ():
            future.result(_ANSWER_S)
