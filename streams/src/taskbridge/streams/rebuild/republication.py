"""``taskbridge streams --republish``: publish every present list entry again, and rebuild the inboxes from them.

The states are the source, so earlier notifications may be gone. Workers are stopped meanwhile, as for the switch of a
rebuild, so that no notification of a worker comes between.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import (
    SOURCE_TASKBRIDGE,
    Change,
    Status,
    TaskNotification,
    event_id_for,
    notification_id_for,
)
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.contract.live_version import announce, announce_republished
from taskbridge.streams.cores.core import notification_record
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.fold.stored_instance import unpack
from taskbridge.streams.fold.views import difference, show
from taskbridge.streams.inbox import layout
from taskbridge.streams.instances.pending_notifications import FIRST_INSTANCE, cause
from taskbridge.streams.rebuild.copies import Copy, Located
from taskbridge.streams.rebuild.operation import operation
from taskbridge.streams.table_versions import INBOX_CHANGELOG, VERSION_TOPIC, instances_changelog
from taskbridge.streams.tables.store import explaining_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskState
    from taskbridge.schemas.inbox import Line
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.fold.views import Shown
    from taskbridge.streams.transactions.bulk_producer import TransactionalWriter

_TOGETHER = 20_000
"""Notifications in one transaction."""
_ACTION = "retold"  # spellchecker:disable-line - part of the ids of events
_PRESENT = Located(0, b"")


class NothingToRepublish(OperatorError):
    """The changelog of the live instances is not on this Kafka: rebuild the states first."""


def republish(environment: Mapping[str, str], *, report: Callable[[str], None]) -> dict[str, Any]:
    """Publish every present list entry of every instance again; returns counts by name.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: some entries may have been published, all of them correct; it is safe to run it again.
    """
    started = time.monotonic()
    with operation(environment, report) as run:
        with run.alone("republish") as (writer, versions, folder), ExitStack() as copies:
            there, changelog = run.topics(), instances_changelog(versions.live).name
            if changelog not in there:
                raise NothingToRepublish(f"Kafka has no topic {changelog}: run taskbridge streams --rebuild first")
            apply_topics(run.admin, [TASK_NOTIFICATIONS], partitions=there[changelog])

            states, *inboxes = (
                copies.enter_context(closing(run.copy_of(topic, folder / topic)))
                for topic in (changelog, INBOX_CHANGELOG.name)
                if topic in there
            )
            reading = run.ticker("states and inboxes")

            def catch_up() -> None:
                for copy in (states, *inboxes):
                    copy.catch_up(there[copy.topic], reading)

            # Copy most of it while workers still run.
            catch_up()
            with run.workers_stopped(writer, versions, versions.live):
                catch_up()
                shown = copies.enter_context(closing(Copy(folder / "shown")))
                # The offset of the record that stops the workers: it is different for each republication.
                number = run.offsets.ends(VERSION_TOPIC.name, [0])[0]
                publishing = run.ticker("instances published")
                republication = Republication(
                    writer, run.registry, shown, changelog=changelog, number=number, publishing=publishing
                )
                present = republication.publish(republication.of_instances(states))
                removed = sum(republication.publish(republication.of_no_instance(copy)) for copy in inboxes)
                published = run.notification_ends()
                # After publishing: workers start a new inbox at their position in the notifications.
                source_topic = run.new_inboxes(versions.live, there[changelog]) if run.settings.task_center else None
                with writer.transaction():
                    announce_republished(writer, published)
                    if source_topic is not None:
                        positions = run.workers.positions(TASK_NOTIFICATIONS.name)
                        writer.write_positions(APP_ID, TASK_NOTIFICATIONS.name, source_topic, positions)
                    announce(writer, versions)
        return {
            "instances": republication.instances,
            "notifications": present + removed,
            "unfounded": removed,
            "seconds": round(time.monotonic() - started, 1),
        }


@dataclass(eq=False)
class Republication:
    """One run over all instances."""

    writer: TransactionalWriter
    registry: Registry
    shown: Copy
    """Receives the key of each present entry."""
    changelog: str
    """The name of the changelog of the instances, for errors."""
    number: int
    """Different for each republication, so that its notifications do not repeat the ids of the last one's."""
    publishing: Callable[[int, int], None]

    def __post_init__(self) -> None:
        self._states: Codec[TaskState] = task_state_codec(self.registry)
        self._notifications: Codec[TaskNotification] = task_notification_codec(self.registry)
        self.instances = 0

    def publish(self, notifications: Iterator[TaskNotification]) -> int:
        """Publish all of them; returns how many."""
        count = 0
        while together := list(islice(notifications, _TOGETHER)):
            records = [notification_record(each, self._notifications) for each in together]
            with self.writer.transaction():
                self.writer.send(TASK_NOTIFICATIONS.name, records)
            self.shown.write({_line_key(each): _PRESENT for each in together})
            count += len(together)
            self.publishing(self.instances, self.instances)
        return count

    def of_instances(self, states: Copy) -> Iterator[TaskNotification]:
        """Every present entry of every instance in the copy.

        Raises:
            TableUnreadable: one of them cannot be read; nothing wrong was published.
        """
        for _, stored in states.items(FIRST_INSTANCE):
            with explaining_unreadable(self.changelog, stored.partition):
                instance = unpack(stored.value, self._states)
            self.instances += 1
            yield from republished(show(instance), number=self.number)

    def of_no_instance(self, inboxes: Copy) -> Iterator[TaskNotification]:
        """The removal of every entry in these inboxes that no instance shows."""
        for key in inboxes:
            line = layout.read_line_key(key)
            if line is not None and self.shown.get(key) is None:
                yield unfounded(line, number=self.number)


def republished(shown: Shown, *, number: int) -> list[TaskNotification]:
    """The present state, for everyone who has or ever had an entry; its cause is the republication of that number."""
    return difference(shown, shown, cause(shown.instance.state, _ACTION, number=number))


def unfounded(line: Line, *, number: int) -> TaskNotification:
    """The removal of an entry that no instance shows; only the id of its instance is known."""
    named = {"instance_id": line.instance_id, "number": str(number)}
    event_id = event_id_for(SOURCE_TASKBRIDGE, _ACTION, named)
    return TaskNotification(
        notification_id=notification_id_for(event_id, line.user_id, line.view, line.task_id, Change.REMOVED),
        corp_id=line.corp_id,
        recipient_id=line.user_id,
        view=line.view,
        change=Change.REMOVED,
        instance_id=line.instance_id,
        task_id=line.task_id,
        title=None,
        url=None,
        app_type="",
        originator=None,
        actor_id=None,
        status=Status.ACTIVE,
        occurred_at=0,
        event_id=event_id,
    )


def _line_key(notification: TaskNotification) -> bytes:
    user = layout.user_part(notification.corp_id, notification.recipient_id)
    return layout.line_key(user, notification.view, layout.line_part(notification.instance_id, notification.task_id))
