"""Move the topics to more partitions while no worker runs: for a rebuild whose version has that many.

Kafka can only add partitions, and then maps a key to another partition. So each topic is treated by its kind:

- Events stay where they are. The rebuild folds them by key from any partition, and workers forward events that are on
  another partition than their key's (``streams.cores.core``).
- States and inboxes are recreated: on a compacted topic, an old value on the old partition would never be removed.
- Notifications are deleted and every present entry is published again. Otherwise a slow reader might apply an old
  notification from the old partition after a new one from the new partition.
- Dead letters and quarantine only get partitions: they have no order.
- People and forms stay where they are: no other topic is partitioned like theirs.

If this ends halfway, workers wait until another run has completed it: that is recorded in Kafka first.
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
    """Kafka cannot remove partitions."""


class Move:
    """A move to that many partitions."""

    def __init__(self, run: Operation, partitions: int) -> None:
        """Check that the move only adds partitions.

        Raises:
            FewerPartitions: a topic has more already.
        """
        self._run = run
        self.partitions = partitions
        there = run.topics()
        most = max(there.get(topic.name, 0) for topic in _GROW)
        if partitions < most:
            raise FewerPartitions(
                f"topics have {most} partitions, and Kafka cannot remove any: use --partitions {most} or more"
            )
        self.inboxes: Ground | None = None
        """The ground of workers that rebuild them."""
        self.notified: dict[int, int] = {}
        """The start offsets of the notifications from which they are rebuilt."""

    def make(self, version: int) -> TransactionalWriter:
        """Move all topics, for that version; returns a writer that knows the new partitions. Blocks.

        Raises:
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
        """
        run, there = self._run, self._run.topics()
        self._grow(there)
        self._delete_notifications(there)
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
                raise TimeoutError(f"Kafka did not add partitions (target {self.partitions}) within {_ANSWER_S:.0f} s")
            time.sleep(_LOOK_S)

    def _delete_notifications(self, there: Mapping[str, int]) -> None:
        name = TASK_NOTIFICATIONS.name
        self.notified = self._run.offsets.ends(name, range(there.get(name, 0)))
        gone = [TopicPartition(name, each, end) for each, end in self.notified.items() if end > 0]
        for future in cast("Any", self._run.admin).delete_records(gone).values() if gone else ():
            future.result(_ANSWER_S)
