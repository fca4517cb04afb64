"""``taskbridge streams --rebuild`` and ``--republish``: rebuild all states, or publish all entries again.

The new version gets a changelog of its own. It also contains the pending notifications of changed instances, which
workers publish once the version is live: so the size of transactions is bounded. The last transaction sets the
positions of the workers and the live version. A process that dies before it has changed nothing.

With ``--partitions`` the switch also moves the topics to more partitions, each by its kind
(docs/adr/0032-more-partitions.md). If a move ends halfway, workers wait until another run has completed it: that is
recorded in Kafka first.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from faust.types import TP

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import (
    CALLBACKS_QUARANTINE,
    TASK_EVENTS,
    TASK_EVENTS_DLQ,
    TASK_NOTIFICATIONS,
    TASK_STATES,
)
from taskbridge.streams.contract.live_version import announce
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.transaction_requests import Membership
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.instances.pending_notifications import (
    FIRST_INSTANCE,
    Pending,
    pending_key,
    read_pending,
    write_pending,
)
from taskbridge.streams.rebuild.new_version import NewVersion
from taskbridge.streams.rebuild.operation import (
    CannotRun,
    Operation,
    delete_topics,
    known_source,
    operation,
    wait_for,
    write_all,
)
from taskbridge.streams.table_versions import FIRST_VERSION, VERSION_TOPIC, Versions, instances_changelog
from taskbridge.streams.transactions.group_commit import write_positions
from taskbridge.streams.transactions.positions import RecordedPosition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from taskbridge.streams.engine.joint_producer import JointProducer
    from taskbridge.streams.rebuild.copies import TopicCopy
    from taskbridge.streams.records import RecordWithHeaders

_GROW = (TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE, TASK_NOTIFICATIONS, TASK_EVENTS)
_ANSWER_S = 30.0


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
        if TASK_EVENTS.name not in run.topics():
            raise CannotRun(f"Kafka has no topic {TASK_EVENTS.name}, so there is nothing to rebuild from")
        found = _dry_run(run) if dry_run else _rebuild(run, partitions)
        return {**found, "seconds": round(time.monotonic() - started, 1)}


def _dry_run(run: Operation) -> dict[str, Any]:
    # On the disk of the data folder, which a dry run does not create.
    data_dir = run.settings.data_dir
    existing = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
    there = run.topics()
    live = (run.live_version.read() if VERSION_TOPIC.name in there else Versions()).live
    with (
        tempfile.TemporaryDirectory(prefix="rebuild-dry-run-", dir=existing) as folder,
        closing(NewVersion(run, Path(folder), live=live, partitions=there[TASK_EVENTS.name])) as new_version,
    ):
        new_version.catch_up()
        # Again, because new events would count as differences.
        new_version.catch_up()
        new_version.count()
        return {"version": live, "switched": False, **asdict(new_version.counts)}


def _rebuild(run: Operation, target: int | None) -> dict[str, Any]:
    with run.alone("rebuild", partitions=target) as (writer, versions, folder):
        there, live, version = run.topics(), versions.live, versions.live + 1
        if target is not None:
            _check_move(there, live, target)
        partitions = target or there[TASK_EVENTS.name]
        # Create missing topics; a move recreates the states topic.
        apply_topics(run.admin, [TASK_NOTIFICATIONS, *([] if target else [TASK_STATES])], partitions=partitions)
        # Versions before the live one, and remains of an earlier rebuild, are deleted.
        old = [name for each in range(FIRST_VERSION, live) if (name := instances_changelog(each).name) in there]
        if old:
            delete_topics(run.admin, old)
        changelog = instances_changelog(version)
        run.recreate(changelog, partitions=partitions)
        source = known_source(run.offsets, partitions, version)
        run.report(f"building version {version} of the instances; version {live} stays live")
        is_move = target is not None
        with closing(
            NewVersion(run, folder, live=live, partitions=partitions, number=run.number(), everything=is_move)
        ) as new_version:
            new_version.catch_up()
            write_all(writer, changelog.name, new_version.changes(), run.ticker("new changelog"))
            # New events first, so that workers are stopped only briefly.
            new_version.catch_up()
            write_all(writer, changelog.name, new_version.changes(), run.ticker("changes"))
            run.report("stopping the workers for the switch")
            with run.workers_stopped(writer, versions, version) as undo:
                new_version.catch_up()
                if target is not None:
                    undo.pop_all()
                    _move(run, writer, Versions(live, version, target))
                    # In full, before any worker writes to it: readers expect all states on the topic.
                    write_all(writer, TASK_STATES.name, new_version.states(), run.ticker("states"))
                write_all(writer, changelog.name, new_version.changes(), run.ticker("changes"))
                # Workers resume at their positions, also where these are lower than what the rebuild has read.
                current = run.workers.positions()
                positions = {
                    TP(TASK_EVENTS.name, each): RecordedPosition(source.source_id, min(at, current.get(each, at)))
                    for each, at in new_version.reached.items()
                }
                with writer.transaction():
                    write_positions(writer, positions, source, owner="", member=Membership(APP_ID))
                    announce(writer, Versions(version))
            run.report(f"version {version} is live: workers continue, and publish what changed")
            new_version.count()
            return {"version": version, "switched": True, "partitions": partitions, **asdict(new_version.counts)}


def _check_move(there: Mapping[str, int], live: int, target: int) -> None:
    """Raise if Kafka cannot move the topics to that many partitions, or states could be lost."""
    most = max(there.get(topic.name, 0) for topic in _GROW)
    if target < most:
        raise CannotRun(f"topics have {most} partitions, and Kafka cannot remove any: use --partitions {most} or more")
    if instances_changelog(live).name not in there:
        raise CannotRun(
            f"Kafka has no topic {instances_changelog(live).name}: run --rebuild without --partitions first"
        )


def _move(run: Operation, writer: JointProducer, versions: Versions) -> None:
    partitions = cast("int", versions.partitions)
    run.report(f"moving all topics to {partitions} partitions; workers can start only after this is complete")
    with writer.transaction():
        announce(writer, versions)
    admin, there = cast("Any", run.admin), run.topics()
    names = [topic.name for topic in _GROW if 0 < there.get(topic.name, 0) < partitions]
    new = [NewPartitions(name, partitions) for name in names]
    for future in admin.create_partitions(new, request_timeout=_ANSWER_S).values() if new else ():
        future.result()
    wait_for(
        lambda: all(count >= partitions for name, count in run.topics().items() if name in names),
        lambda: CannotRun(f"Kafka did not add partitions (target {partitions}): run it again"),
    )
    ends = run.offsets.ends(TASK_NOTIFICATIONS.name, range(there.get(TASK_NOTIFICATIONS.name, 0)))
    old = [TopicPartition(TASK_NOTIFICATIONS.name, each, end) for each, end in ends.items() if end > 0]
    for future in admin.delete_records(old, request_timeout=_ANSWER_S).values() if old else ():
        future.result()
    run.recreate(TASK_STATES, partitions=partitions)
    # It does not notice a recreated topic otherwise.
    writer.claim()


def republish(environment: Mapping[str, str], *, report: Callable[[str], None]) -> dict[str, Any]:
    """Have workers publish every state and every present list entry again; returns counts by name.

    The changelog is the source, so earlier states and notifications may be gone. It gets what is pending for each
    instance; workers are stopped meanwhile, because each of them expects to be its only writer.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: workers may publish a part; it is safe to run it again.
    """
    started = time.monotonic()
    with operation(environment, report) as run, run.alone("republish") as (writer, versions, folder):
        there, changelog = run.topics(), instances_changelog(versions.live).name
        if changelog not in there:
            raise CannotRun(f"Kafka has no topic {changelog}: run taskbridge streams --rebuild first")
        partitions = there[changelog]
        apply_topics(run.admin, [TASK_STATES, TASK_NOTIFICATIONS], partitions=partitions)
        with closing(run.copy_of(changelog, folder / "states")) as states:
            # Copy most of it while workers still run.
            states.catch_up(partitions, run.ticker("states"))
            with run.workers_stopped(writer, versions, versions.live):
                states.catch_up(partitions, run.ticker("states"))
                pending = _pending(states, run.number())
                instances = write_all(writer, changelog, pending, run.ticker("instances"))
                with writer.transaction():
                    announce(writer, versions)
    return {"instances": instances, "seconds": round(time.monotonic() - started, 1)}


def _pending(states: TopicCopy, number: int) -> Iterator[tuple[RecordWithHeaders, int]]:
    for key, stored in states.items(FIRST_INSTANCE):
        earlier = states.get(pending_key(key))
        try:
            before = None if earlier is None else read_pending(earlier.value).before
        except StoreUnreadable:
            before = None
        pending = Pending(number, is_published=False, everything=True, before=before)
        yield (pending_key(key), write_pending(pending), []), stored.partition
