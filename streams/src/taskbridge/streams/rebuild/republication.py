"""``taskbridge streams --republish``: publish every state, and every present list entry, again.

The changelog is the source, so earlier states and notifications may be gone. Workers are stopped meanwhile, as for the
switch of a rebuild, so that nothing of a worker comes between.
"""

from __future__ import annotations

import time
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import announce
from taskbridge.streams.cores.core import notification_record
from taskbridge.streams.fold.stored_instance import shown
from taskbridge.streams.fold.views import difference
from taskbridge.streams.instances.pending_notifications import FIRST_INSTANCE, cause, state_record
from taskbridge.streams.rebuild.operation import operation
from taskbridge.streams.table_versions import VERSION_TOPIC, instances_changelog
from taskbridge.streams.tables.store import explaining_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.engine.joint_producer import JointProducer
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.rebuild.copies import TopicCopy
    from taskbridge.streams.rebuild.operation import Operation

_TOGETHER = 2_000
"""Instances in one transaction."""
_ACTION = "retold"  # spellchecker:disable-line - part of the ids of events


class NothingToRepublish(OperatorError):
    """The changelog of the live instances is not on this Kafka: rebuild the states first."""


def republish(environment: Mapping[str, str], *, report: Callable[[str], None]) -> dict[str, Any]:
    """Publish every state and every present list entry again; returns counts by name.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: a part may have been published, all of it correct; it is safe to run it again.
    """
    started = time.monotonic()
    with operation(environment, report) as run, run.alone("republish") as (writer, versions, folder):
        there, changelog = run.topics(), instances_changelog(versions.live).name
        if changelog not in there:
            raise NothingToRepublish(f"Kafka has no topic {changelog}: run taskbridge streams --rebuild first")
        partitions = there[changelog]
        apply_topics(run.admin, [TASK_STATES, TASK_NOTIFICATIONS], partitions=partitions)
        with closing(run.copy_of(changelog, folder / "states")) as states:
            # Copy most of it while workers still run.
            states.catch_up(partitions, run.ticker("states"))
            with run.workers_stopped(writer, versions, versions.live):
                states.catch_up(partitions, run.ticker("states"))
                # The offset of the record that stops the workers: it is different for each republication.
                number = run.offsets.ends(VERSION_TOPIC.name, [0])[0]
                instances, notifications = _publish(run, writer, states, number=number)
                with writer.transaction():
                    announce(writer, versions)
    return {
        "instances": instances,
        "notifications": notifications,
        "seconds": round(time.monotonic() - started, 1),
    }


def _publish(run: Operation, writer: JointProducer, states: TopicCopy, *, number: int) -> tuple[int, int]:
    """Publish everything that the copy of the changelog has; returns the numbers of instances and notifications.

    Raises:
        TableUnreadable: an instance cannot be read; nothing wrong was published.
    """
    codec, notifications = task_state_codec(run.registry), task_notification_codec(run.registry)
    tick, instances, published = run.ticker("instances published"), 0, 0
    stored = states.items(FIRST_INSTANCE)
    while together := list(islice(stored, _TOGETHER)):
        with writer.transaction():
            for key, each in together:
                with explaining_unreadable(states.topic, each.partition):
                    state = state_record(key, each.value, codec)
                    entries = republished(shown(each.value, codec), number=number)
                writer.send(TASK_STATES.name, [state])
                writer.send(TASK_NOTIFICATIONS.name, [notification_record(entry, notifications) for entry in entries])
                published += len(entries)
        instances += len(together)
        tick(instances, instances)
    return instances, published


def republished(shown: Shown, *, number: int) -> list[TaskNotification]:
    """The present state, for everyone who has or ever had an entry; its cause is the republication of that number."""
    return difference(shown, shown, cause(shown.instance.state, _ACTION, number=number))
