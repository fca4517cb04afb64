"""``taskbridge streams --retell``: everybody is told again what they see, and the inboxes are made anew from it.

The states are the source, wherever the notifications that once told of them have gone. No worker works meanwhile, as in
a rebuild's switch: what is told is what is so, and nothing that a worker tells can come in between.
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
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.contract.live_version import say, say_told
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.fold.stored_instance import unpack
from taskbridge.streams.fold.views import show
from taskbridge.streams.folding.outgoing import notification_record
from taskbridge.streams.inbox import layout
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, instances_changelog
from taskbridge.streams.positions.version import VERSION_TOPIC
from taskbridge.streams.processing.untold import FIRST_INSTANCE
from taskbridge.streams.rebuild.comparison import told_again, unfounded
from taskbridge.streams.rebuild.operation import operation
from taskbridge.streams.rebuild.sources.copies import Copy, Kept
from taskbridge.streams.tables.unreadable import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.transactions.transaction import TransactionalWriter

_TOGETHER = 20_000
"""Notifications in one transaction."""


class NothingToTell(OperatorError):
    """The changelog of the live instances is not on this Kafka: they have to be made anew first."""


def retell(environment: Mapping[str, str], *, tell: Callable[[str], None]) -> dict[str, Any]:
    """Tell everybody again what they see of every instance; returns what it came to, by name.

    Raises:
        ConfigurationError: before anything is begun.
        OperatorError: some may have been told, and nobody anything wrong; it can be started again.
    """
    began = time.monotonic()
    with operation(environment, tell) as run:
        with run.alone("retell") as (writer, versions, folder), ExitStack() as copies:
            there, changelog = run.topics(), instances_changelog(versions.live).name
            if changelog not in there:
                raise NothingToTell(f"{changelog} is lost: make the states anew first, taskbridge streams --rebuild")
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

            # Most of it while the workers are still at work.
            catch_up()
            with run.nobody_at_work(writer, versions, versions.live):
                catch_up()
                shown = copies.enter_context(closing(Copy(folder / "shown")))
                telling = run.ticker("instances told")
                # Where the word that nobody may work stands: it grows with each retelling.
                number = run.offsets.ends(VERSION_TOPIC.name, [0])[0]
                retelling = Retelling(writer, run.registry, shown, changelog=changelog, number=number, telling=telling)
                told = retelling.tell(retelling.of_instances(states))
                gone = sum(retelling.tell(retelling.of_no_instance(copy)) for copy in inboxes)
                told_to = run.told_now()
                # After what was told: workers begin a new inbox where they stood in the notifications.
                ground = run.new_inboxes(versions.live, there[changelog]) if run.settings.task_center else None
                with writer.transaction():
                    say_told(writer, told_to)
                    if ground is not None:
                        stood = run.workers.positions(TASK_NOTIFICATIONS.name)
                        writer.hand_over(APP_ID, TASK_NOTIFICATIONS.name, ground, stood)
                    say(writer, versions)
        return {
            "instances": retelling.instances,
            "notifications": told + gone,
            "unfounded": gone,
            "seconds": round(time.monotonic() - began, 1),
        }


@dataclass(eq=False)
class Retelling:
    """Of all instances, once."""

    writer: TransactionalWriter
    registry: Registry
    shown: Copy
    """Takes the key of each line that there is."""
    changelog: str
    """The instances'."""
    number: int
    """Another one for each retelling. So its notifications are no repeats of the last one's."""
    telling: Callable[[int, int], None]

    def __post_init__(self) -> None:
        self._states: Codec[TaskState] = task_state_codec(self.registry)
        self._notifications: Codec[TaskNotification] = task_notification_codec(self.registry)
        self.instances = 0

    def tell(self, notifications: Iterator[TaskNotification]) -> int:
        """Tell all of it; returns how many it were."""
        told = 0
        while together := list(islice(notifications, _TOGETHER)):
            records = [notification_record(each, self._notifications) for each in together]
            with self.writer.transaction():
                self.writer.send(TASK_NOTIFICATIONS.name, records)
            self.shown.write({_line_key(each): _THERE for each in together})
            told += len(together)
            self.telling(self.instances, self.instances)
        return told

    def of_instances(self, states: Copy) -> Iterator[TaskNotification]:
        """How every instance in the copy stands, which holds them as they are stored.

        Raises:
            TableUnreadable: one of them cannot be read; nobody is told anything wrong.
        """
        for _, kept in states.items(FIRST_INSTANCE):
            with naming(self.changelog, kept.partition):
                instance = unpack(kept.value, self._states)
            self.instances += 1
            yield from told_again(show(instance), number=self.number)

    def of_no_instance(self, inboxes: Copy) -> Iterator[TaskNotification]:
        """That every line in these inboxes goes which was not told of."""
        for key in inboxes:
            line = layout.read_line_key(key)
            if line is not None and self.shown.get(key) is None:
                yield unfounded(line, number=self.number)


_THERE = Kept(0, b"")


def _line_key(told: TaskNotification) -> bytes:
    user = layout.user_part(told.corp_id, told.recipient_id)
    return layout.line_key(user, told.view, layout.line_part(told.instance_id, told.task_id))
