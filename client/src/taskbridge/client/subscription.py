"""``async for notification in subscribe(...)``: at least once, and once within a window of ids."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Collection
from typing import TYPE_CHECKING

from taskbridge.client.source import Reader, Record, Source
from taskbridge.schemas.codec import Undecodable

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification

OneOrMany = str | Collection[str] | None
"""A value, several values, or None for all."""

DEDUPE_WINDOW = 10_000

_log = logging.getLogger("taskbridge.client")


def subscribe(
    kafka: Source,
    /,
    *,
    group: str,
    corp: OneOrMany = None,
    person: OneOrMany = None,
    view: OneOrMany = None,
    app: OneOrMany = None,
    source: OneOrMany = None,
    dedupe_window: int = DEDUPE_WINDOW,
    explicit_ack: bool = False,
    on_undecodable: Callable[[Record], None] | None = None,
) -> Subscription:
    """Every notification of these corps, people, views, apps and sources, one at a time by ``async for``.

    **At least once.** A notification is processed when the loop requests the next one, or with ``explicit_ack`` when
    ``Subscription.ack`` is called. Its position is committed for the group within a second, and when the loop ends.
    After a crash, an exception in the body or ``break``, unprocessed notifications come again, maybe to another member.

    **Once, within the window.** The subscription remembers the ids of the last ``dedupe_window`` processed
    notifications, and skips repeats. Another member or the next start does not know these ids. If a repeat must have no
    effect at all, store ``notification_id`` in the transaction of the effect.

    **In order, per person.** A person's notifications come in the order of the changes to their lists. Notifications of
    two people have no order.

    **Rebalances.** When a member joins or leaves, the partitions that move are committed first, so only unprocessed
    notifications come again. A body that runs longer than ``max.poll.interval.ms`` (five minutes) loses its partitions.

    **Outages.** The subscription waits for brokers and the registry as long as necessary, and logs this as
    ``taskbridge.client``. The group continues at its position. After an outage longer than the topic's retention (seven
    days) it continues with the oldest record. ``taskbridge streams --republish`` publishes all present entries again.

    **A record that cannot be decoded** is logged with its position and skipped. With ``on_undecodable``, this function
    is called instead. If it raises, the loop ends and the record is unprocessed.

    **The end.** When the task is cancelled, or after ``break``, all processed notifications are committed and the
    member leaves the group. The program handles signals: let SIGTERM cancel the task.

    A new group starts with the oldest record. Set ``auto.offset.reset`` in the properties of ``kafka`` to change that.

    Raises, from the loop:
        ConfigurationError: librdkafka rejects the properties of ``kafka``.
        KafkaRefused: Kafka denies this client access.
    """
    accepts = accepting(corp=corp, person=person, view=view, app=app, source=source)
    report = on_undecodable or log_undecodable
    return Subscription(kafka, group, accepts, dedupe_window, explicit_ack=explicit_ack, on_undecodable=report)


class Subscription:
    """The result of ``subscribe``. Each ``async for`` over it is one membership in the group; only one at a time."""

    def __init__(
        self,
        kafka: Source,
        group: str,
        accepts: Callable[[TaskNotification], bool],
        dedupe_window: int,
        *,
        explicit_ack: bool,
        on_undecodable: Callable[[Record], None],
    ) -> None:
        self._kafka = kafka
        self._group = group
        self._accepts = accepts
        self._explicit_ack = explicit_ack
        self._on_undecodable = on_undecodable
        self._window_size = dedupe_window
        self._window: dict[str, None] = {}
        """The ids of the last processed notifications."""
        self._reader: Reader | None = None
        self._passed: dict[int, int] = {}
        """The position in each partition after all notifications that were returned or skipped since the last ack."""
        self._returned: list[str] = []
        """The ids of those that were returned since the last ack."""

    async def __aiter__(self) -> AsyncGenerator[TaskNotification]:
        self._passed, self._returned = {}, []
        async with Reader(lambda: self._kafka.member(self._group), self._kafka.open_registry()) as self._reader:
            while True:
                for record in await self._reader.read():
                    if isinstance(record.content, Undecodable):
                        self._on_undecodable(record)
                    self._passed[record.partition] = record.offset + 1
                    if not isinstance(record.content, Undecodable) and self._is_new(record.content):
                        self._returned.append(record.content.notification_id)
                        yield record.content
                        if not self._explicit_ack:
                            self.ack()
                if not self._returned:
                    self.ack()

    def ack(self) -> None:
        """Mark everything that was returned so far as processed. Does not block; may be called from the loop's body."""
        self._window |= dict.fromkeys(self._returned)
        while len(self._window) > self._window_size:
            del self._window[next(iter(self._window))]
        if self._passed and self._reader is not None:
            self._reader.store(self._passed)
        self._passed, self._returned = {}, []

    def _is_new(self, notification: TaskNotification) -> bool:
        return self._accepts(notification) and notification.notification_id not in self._window


def accepting(
    *,
    corp: OneOrMany = None,
    person: OneOrMany = None,
    view: OneOrMany = None,
    app: OneOrMany = None,
    source: OneOrMany = None,
) -> Callable[[TaskNotification], bool]:
    """Whether a notification is of these corps, people, views, apps and sources."""
    given = {"corp_id": corp, "recipient_id": person, "view": view, "app_type": app, "source": source}
    sets = {
        name: frozenset([values] if isinstance(values, str) else values)
        for name, values in given.items()
        if values is not None
    }
    return lambda notification: all(getattr(notification, name) in values for name, values in sets.items())


def log_undecodable(record: Record) -> None:
    _log.error("record_undecodable partition=%s offset=%s error=%s", record.partition, record.offset, record.content)
