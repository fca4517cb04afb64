"""``taskbridge streams --rebuild`` and ``--forget-old``: rebuild all states while workers run, then switch over.

The new version gets a changelog of its own. It also contains the pending notifications of changed instances, which
workers publish once the version is live: so the size of transactions is bounded. The last transaction sets the
positions of the workers and the live version. A process that dies before it has changed nothing.

With ``--partitions`` the switch also moves the topics to more partitions, in several transactions. Kafka can only add
partitions, and then maps a key to another partition. So each topic is treated by its kind:

- Events stay where they are. The rebuild folds them by key from any partition, and workers forward events that are on
  another partition than their key's (``split_by_partition`` of ``streams.cores.core``).
- States are recreated: on a compacted topic, an old value on the old partition would never be removed.
- Notifications are deleted and every present entry is published again. Otherwise a slow reader might apply an old
  notification from the old partition after a new one from the new partition.
- Dead letters and quarantine only get partitions: they have no order.
- People and forms stay where they are: no other topic is partitioned like theirs.

If a move ends halfway, workers wait until another run has completed it: that is recorded in Kafka first.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from faust.types import TP

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import (
    CALLBACKS_QUARANTINE,
    TASK_EVENTS,
    TASK_EVENTS_DLQ,
    TASK_NOTIFICATIONS,
    TASK_STATES,
)
from taskbridge.streams.contract.live_version import announce
from taskbridge.streams.cores.core import notification_record
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.transaction_requests import Membership
from taskbridge.streams.instances.pending_notifications import state_record
from taskbridge.streams.positions import RecordedPosition
from taskbridge.streams.rebuild.new_version import NewVersion
from taskbridge.streams.rebuild.operation import Operation, delete_topics, operation
from taskbridge.streams.table_versions import FIRST_VERSION, VERSION_TOPIC, Versions, instances_changelog
from taskbridge.streams.transactions.group_commit import write_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from taskbridge.streams.engine.joint_producer import JointProducer
    from taskbridge.streams.positions import SourceTopic
    from taskbridge.streams.rebuild.new_version import Outcome

_TOGETHER = 20_000
"""Records of the changelog in one transaction."""
_GROW = (TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE, TASK_NOTIFICATIONS, TASK_EVENTS)
_ANSWER_S = 30.0
_LOOK_S = 0.2


class NothingToRebuild(OperatorError):
    """The events topic, or the changelog of the live version, is missing."""


class FewerPartitions(OperatorError):
    """Kafka cannot remove partitions."""


def rebuild(
    environment: Mapping[str, str], *, dry_run: bool, report: Callable[[str], None], partitions: int | None = None
) -> dict[str, Any]:
    """Rebuild the instances from the events as a new version; returns counts by name.

    Workers run meanwhile, and stop only for the switch. With ``dry_run`` nothing is written to Kafka.
    ``partitions``: the new number of partitions of all topics.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: nothing changed; it is safe to run it again.
    """
    started = time.monotonic()
    with operation(environment, report) as run:
        found = _dry_run(run) if dry_run else _rebuild(run, partitions)
        return {**found, "seconds": round(time.monotonic() - started, 1)}


def forget_old(environment: Mapping[str, str]) -> list[str]:
    """Delete the changelogs of versions that are no longer live; returns their names.

    Raises:
        OperatorError: Kafka does not answer, or denies access.
    """
    with operation(environment, report=lambda _line: None) as run:
        there = run.topics()
        live = run.live_version.read().live if VERSION_TOPIC.name in there else FIRST_VERSION
        names = [instances_changelog(version).name for version in range(FIRST_VERSION, live)]
        old = [name for name in names if name in there]
        if old:
            delete_topics(run.admin, old)
        return old


def _dry_run(run: Operation) -> dict[str, Any]:
    # On the disk of the data folder, which a dry run does not create.
    data_dir = run.settings.data_dir
    there = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
    partitions = _partitions(run)[TASK_EVENTS.name]
    live = (run.live_version.read() if VERSION_TOPIC.name in run.topics() else Versions()).live
    with (
        tempfile.TemporaryDirectory(prefix="rebuild-dry-run-", dir=there) as folder,
        closing(NewVersion(run, run.registry, Path(folder), live=live, partitions=partitions)) as new_version,
    ):
        new_version.read()
        # Again, because new events would count as differences.
        new_version.catch_up()
        new_version.compare(live + 1)
        new_version.count()
        return {"version": live, "switched": False, **asdict(new_version.counts)}


def _rebuild(run: Operation, target_partitions: int | None) -> dict[str, Any]:
    with run.alone("rebuild", partitions=target_partitions) as (writer, versions, folder):
        live, there = versions.live, _partitions(run)
        changelog, version = instances_changelog(live + 1), live + 1
        move = None if target_partitions is None else Move(run, target_partitions)
        partitions = target_partitions or there[TASK_EVENTS.name]
        if move is not None and instances_changelog(live).name not in there:
            raise NothingToRebuild(
                f"Kafka has no topic {instances_changelog(live).name}: run --rebuild without --partitions first"
            )
        # Create missing topics; a move recreates the states topic.
        apply_topics(run.admin, [TASK_NOTIFICATIONS, *([] if move else [TASK_STATES])], partitions=partitions)
        # Remains of an earlier rebuild are deleted.
        created = run.recreate(changelog, partitions=partitions)
        source_topic = run.source_topic(changelog.name, created, version=version, partitions=partitions)
        run.report(f"building version {version} of the instances; version {live} stays live")
        with closing(NewVersion(run, run.registry, folder, live=live, partitions=partitions)) as new_version:
            publication = Publication(run, writer, source_topic, new_version)
            new_version.read()
            if move is None:
                new_version.compare(version)
            publication.write_changelog()
            # New events first, so that workers are stopped only briefly.
            new_version.catch_up()
            if move is None:
                new_version.compare(version)
            publication.write_changes()
            publication.switch(versions, move)
            new_version.count()
            return {"version": version, "switched": True, "partitions": partitions, **asdict(new_version.counts)}


def _partitions(run: Operation) -> dict[str, int]:
    """The number of partitions of each topic."""
    there = run.topics()
    if TASK_EVENTS.name not in there:
        raise NothingToRebuild(f"Kafka has no topic {TASK_EVENTS.name}, so there is nothing to rebuild from")
    return there


class Publication:
    """Writes the new version to Kafka, with that source topic, and makes it live."""

    def __init__(
        self, run: Operation, writer: JointProducer, source_topic: SourceTopic, new_version: NewVersion
    ) -> None:
        self._run = run
        self._writer = writer
        self._source_topic = source_topic
        self._new_version = new_version
        self._version = source_topic.lineage.version
        self._notifications = task_notification_codec(run.registry)
        self._states = task_state_codec(run.registry)

    def write_changelog(self) -> None:
        """Write all instances so far; later changes are remembered for ``write_changes``."""
        new = self._new_version.new
        new.changed = {}
        self._write(((key, stored.partition, stored.value) for key, stored in new.items()), "new changelog")

    def write_changes(self) -> None:
        """Write the changes since then."""
        new = self._new_version.new
        changed, new.changed = new.changed or {}, {}
        values = ((key, partition, new.get(key)) for key, partition in changed.items())
        self._write(((key, partition, stored and stored.value) for key, partition, stored in values), "changes")

    def _write(self, records: Iterator[tuple[bytes, int, bytes | None]], what: str) -> None:
        tick, written = self._run.ticker(what), 0
        while some := list(islice(records, _TOGETHER)):
            with self._writer.transaction():
                for key, partition, value in some:
                    self._writer.send(self._source_topic.changelog, [(key, value, [])], partition=partition)
            written += len(some)
            tick(written, written)

    def switch(self, versions: Versions, move: Move | None = None) -> None:
        """Stop the workers of the live version, bring the new version up to date, and make it live.

        Raises:
            OperatorError: the switch was aborted. The live version and its workers continue; but once a ``move`` has
                begun, workers wait until it is complete.
        """
        self._run.report("stopping the workers for the switch")
        with self._run.workers_stopped(self._writer, versions, self._version) as undo:
            self._new_version.catch_up()
            if move is None:
                self._new_version.compare(self._version)
                self.write_changes()
                with self._writer.transaction():
                    self._go_live()
            else:
                undo.pop_all()
                self._move(versions, move)
        self._run.report(f"version {self._version} is live: workers continue, and publish what changed")

    def _move(self, versions: Versions, move: Move) -> None:
        report = self._run.report
        report(f"moving all topics to {move.partitions} partitions; workers can start only after this is complete")
        with self._writer.transaction():
            announce(self._writer, Versions(versions.live, self._version, move.partitions))
        move.move_topics()
        # A writer that is claimed again knows the new partitions.
        self._writer.claim()
        self.write_changes()
        report("publishing every present list entry")
        outcomes = self._new_version.outcomes(self._version, everything=True)
        while some := list(islice(outcomes, _TOGETHER)):
            with self._writer.transaction():
                self._publish(some)
        with self._writer.transaction():
            self._go_live()

    def _go_live(self) -> None:
        """Workers continue at their positions, also where these are lower than what the rebuild has read."""
        current = self._run.workers.positions()
        topic = self._source_topic
        positions = {
            TP(TASK_EVENTS.name, each): RecordedPosition(topic.source_id, min(at, current.get(each, at)))
            for each, at in self._new_version.reached.items()
        }
        write_positions(self._writer, positions, topic, owner="", member=Membership(APP_ID))
        announce(self._writer, Versions(self._version))

    def _publish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._writer.send(TASK_STATES.name, [state_record(outcome.key, outcome.new.value, self._states)])
            records = [notification_record(each, self._notifications) for each in outcome.notifications]
            self._writer.send(TASK_NOTIFICATIONS.name, records)


class Move:
    """A move of all topics to that many partitions, while no worker runs."""

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

    def move_topics(self) -> None:
        """Move all topics. Blocks.

        Raises:
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
        """
        run, there = self._run, self._run.topics()
        self._grow(there)
        self._delete_notifications(there)
        run.recreate(TASK_STATES, partitions=self.partitions)

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
        ends = self._run.offsets.ends(name, range(there.get(name, 0)))
        gone = [TopicPartition(name, each, end) for each, end in ends.items() if end > 0]
        for future in cast("Any", self._run.admin).delete_records(gone).values() if gone else ():
            future.result(_ANSWER_S)
