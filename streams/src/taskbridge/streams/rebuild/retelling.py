"""``taskbridge streams --retell``: everybody is told again what they see, and the inboxes are made anew from it.

The states are the source, wherever the notifications that once told of them have gone. No worker works meanwhile, as in
a rebuild's switch: what is told is what is so, and nothing that a worker tells can come in between.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.contract.live_version import say, say_told
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.fold.stored_instance import unpack
from taskbridge.streams.fold.views import show
from taskbridge.streams.inbox import layout
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, instances_changelog
from taskbridge.streams.positions.version import VERSION_TOPIC
from taskbridge.streams.rebuild.comparison import told_again, unfounded
from taskbridge.streams.rebuild.operation import operation
from taskbridge.streams.rebuild.sources.copies import Copy, Kept, Ticker, TopicCopy
from taskbridge.streams.tables.unreadable import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.positions.version import Versions
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.records import RecordWithHeaders
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
    with operation(environment, tell) as run, closing(Registry(run.settings.schema_registry_url)) as registry:
        with run.alone("retell") as (writer, versions, folder), ExitStack() as copies:
            there, changelog = run.topics(), instances_changelog(versions.live).name
            if changelog not in there:
                raise NothingToTell(f"{changelog} is lost: make the states anew first, taskbridge streams --rebuild")
            apply_topics(run.admin, [TASK_NOTIFICATIONS], partitions=there[changelog])

            def copy_of(topic: str) -> TopicCopy:
                copy = TopicCopy(folder / topic, topic, consumer=run.consumer, offsets=run.offsets)
                return copies.enter_context(closing(copy))

            states = copy_of(changelog)
            inboxes = copy_of(INBOX_CHANGELOG.name) if INBOX_CHANGELOG.name in there else None
            reading = Ticker(tell, "states and inboxes", stopping=run.stopping)

            def catch_up() -> None:
                for copy in (states, inboxes):
                    if copy is not None:
                        copy.catch_up(there[copy.topic], reading)

            # Most of it while the workers are still at work.
            catch_up()
            with nobody_at_work(run, writer, versions):
                catch_up()
                shown = copies.enter_context(closing(Copy(folder / "shown")))
                telling = Ticker(tell, "instances told", stopping=run.stopping)
                retelling = Retelling(
                    writer, registry, shown, changelog=changelog, number=_number(run), telling=telling
                )
                retelling.tell_of(states)
                if inboxes is not None:
                    retelling.take_away(inboxes)
                told = run.told_now()
                # After what was told: workers begin a new inbox where they stood in the notifications.
                ground = run.new_inboxes(versions.live, there[changelog]) if run.settings.task_center else None
                with writer.transaction():
                    say_told(writer, told)
                    if ground is not None:
                        stood = run.workers.positions(TASK_NOTIFICATIONS.name)
                        writer.hand_over(APP_ID, TASK_NOTIFICATIONS.name, ground, stood)
        return {
            "instances": retelling.instances,
            "notifications": retelling.notifications,
            "unfounded": retelling.unfounded,
            "seconds": round(time.monotonic() - began, 1),
        }


@contextmanager
def nobody_at_work(run: Operation, writer: TransactionalWriter, versions: Versions) -> Generator[None]:
    """The workers have stopped, and start again afterwards; as the same version.

    Should this process die, the first worker that asks finds that nobody is there, and goes on.

    Raises:
        WorkersStay: they do not stop.
    """
    with writer.transaction():
        say(writer, versions._replace(next=versions.live))
    try:
        run.workers.wait_until_gone()
        yield
    except BaseException:
        with suppress(OperatorError, KafkaException), writer.transaction():
            say(writer, versions)
        raise
    with writer.transaction():
        say(writer, versions)


class Retelling:
    """Of all instances, once."""

    def __init__(
        self,
        writer: TransactionalWriter,
        registry: Registry,
        shown: Copy,
        *,
        changelog: str,
        number: int,
        telling: Callable[[int, int], None],
    ) -> None:
        """``shown`` takes the key of each line that there is. ``changelog`` is the instances'.

        ``number``: another one for each retelling. So its notifications are no repeats of the last one's.
        """
        self._writer = writer
        self._states: Codec[TaskState] = task_state_codec(registry)
        self._notifications: Codec[TaskNotification] = task_notification_codec(registry)
        self._shown = shown
        self._changelog = changelog
        self._number = number
        self._telling = telling
        self.instances = self.notifications = self.unfounded = 0

    def tell_of(self, states: Copy) -> None:
        """Tell of every instance in the copy, which holds them as they are stored.

        Raises:
            TableUnreadable: one of them cannot be read; nobody is told anything wrong.
        """
        together: list[TaskNotification] = []
        for kept in states.values():
            with naming(self._changelog, kept.partition):
                instance = unpack(kept.value, self._states)
            together += told_again(show(instance), number=self._number)
            self.instances += 1
            if len(together) >= _TOGETHER:
                self._send(together)
                together = []
        self._send(together)

    def take_away(self, inboxes: Copy) -> None:
        """Tell of every line in these inboxes that no instance shows that it goes."""
        together: list[TaskNotification] = []
        for key in inboxes:
            line = layout.read_line_key(key)
            if line is not None and self._shown.get(key) is None:
                together.append(unfounded(line, number=self._number))
        self.unfounded = len(together)
        self._send(together)

    def _send(self, together: list[TaskNotification]) -> None:
        with self._writer.transaction():
            self._writer.send_all(TASK_NOTIFICATIONS.name, [self._record(each) for each in together])
        self._shown.write({_line_key(each): _THERE for each in together})
        self.notifications += len(together)
        self._telling(self.instances, self.instances)

    def _record(self, told: TaskNotification) -> RecordWithHeaders:
        return (
            notification_key(told.corp_id, told.recipient_id),
            self._notifications.encode(told),
            notification_headers(told),
        )


_THERE = Kept(0, b"")


def _line_key(told: TaskNotification) -> bytes:
    user = layout.user_part(told.corp_id, told.recipient_id)
    return layout.line_key(user, told.view, layout.line_part(told.instance_id, told.task_id))


def _number(run: Operation) -> int:
    """Where the word that nobody may work stands: it grows with each retelling."""
    return run.offsets.ends(VERSION_TOPIC.name, [0])[0]
