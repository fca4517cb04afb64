"""``async for notification in subscribe(...)``: at least once, and each once as far as the window remembers."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.client.reading import Reader
from taskbridge.schemas.codec import Undecodable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from taskbridge.client.reading import Record
    from taskbridge.client.source import Source
    from taskbridge.schemas.events import TaskNotification

Wanted = str | Collection[str] | None
"""One, any of several, or, where None, all."""

DEDUPE_WINDOW = 10_000

_log = logging.getLogger("taskbridge.client")


def subscribe(
    kafka: Source,
    /,
    *,
    group: str,
    corp: Wanted = None,
    person: Wanted = None,
    view: Wanted = None,
    app: Wanted = None,
    source: Wanted = None,
    dedupe_window: int = DEDUPE_WINDOW,
    explicit_ack: bool = False,
    on_undecodable: Callable[[Record], None] | None = None,
) -> Subscription:
    """Every notification of these organisations, people, views, apps and sources: ``async for`` gives one at a time.

    **At least once.** A notification is done when the body of the loop asks for the next one, or, with
    ``explicit_ack``, when ``Subscription.ack`` is called. What is done is committed for the group within a second, and
    when the loop ends. Whoever dies, or leaves the body by an exception or ``break``, gets what was not done again, and
    so does another member of the group.

    **Once, within the window.** The ids of the last ``dedupe_window`` notifications that were done are remembered; one
    that comes again is passed over. That is this subscription's memory: another member or the next start knows nothing
    of it. Where a repeat must have no effect at all, keep ``notification_id`` in the transaction with the effect.

    **In order, per person.** All of a person's notifications come in the order in which things happened to their lists,
    also those of one instance. Two people's do not.

    **Rebalances.** When a member joins or leaves, the partitions that move are committed first: nothing comes again
    but what was not done. A body that takes longer than ``max.poll.interval.ms`` (five minutes) loses its partitions,
    and what it was doing comes again elsewhere.

    **What is away is waited for**, brokers and registry alike, however long it takes; the log ``taskbridge.client``
    says so. The group goes on where it was. A group that was away for longer than the topic keeps (seven days) goes
    on with the first record that there is: ``taskbridge streams --republish`` publishes what it missed again.

    **A record that cannot be decoded** is logged, with its place, and passed over: it stops nothing. With
    ``on_undecodable`` that is called instead; what it raises ends the loop, with the record not done.

    **Ends** when the task is cancelled, or by ``break``: the group is left and all that is done is committed. Signals
    are the program's: let SIGTERM cancel the task.

    A new group begins with the oldest record that there is; ``auto.offset.reset`` of the properties of ``kafka`` says
    otherwise.

    Raises, from the loop:
        ConfigurationError: librdkafka does not take the properties of ``kafka``.
        KafkaRefused: Kafka does not let this client read.
    """
    wanted = Filter.of(corp=corp, person=person, view=view, app=app, source=source)
    report = on_undecodable or log_undecodable
    return Subscription(kafka, group, wanted, dedupe_window, explicit_ack=explicit_ack, on_undecodable=report)


class Subscription:
    """What ``subscribe`` gives. Each ``async for`` over it is one membership in the group; one at a time."""

    def __init__(
        self,
        kafka: Source,
        group: str,
        wanted: Callable[[TaskNotification], bool],
        dedupe_window: int,
        *,
        explicit_ack: bool,
        on_undecodable: Callable[[Record], None],
    ) -> None:
        self._kafka = kafka
        self._group = group
        self._is_wanted = wanted
        self._explicit_ack = explicit_ack
        self._on_undecodable = on_undecodable
        self._window = _Window(dedupe_window)
        self._reader: Reader | None = None
        self._passed: dict[int, int] = {}
        """Of each partition, the offset before which everything was given or passed over since the last ack."""
        self._given: list[str] = []
        """The ids of those that were given since."""

    async def __aiter__(self) -> AsyncGenerator[TaskNotification]:
        self._passed, self._given = {}, []
        async with Reader(lambda: self._kafka.member(self._group), self._kafka.open_registry()) as self._reader:
            while True:
                for record in await self._reader.read():
                    if isinstance(record.content, Undecodable):
                        self._on_undecodable(record)
                    self._passed[record.partition] = record.offset + 1
                    if not isinstance(record.content, Undecodable) and self._is_new(record.content):
                        self._given.append(record.content.notification_id)
                        yield record.content
                        if not self._explicit_ack:
                            self.ack()
                if not self._given:
                    self.ack()

    def ack(self) -> None:
        """Say that everything is done that was given so far. Does not block, and may be called from the loop's body."""
        self._window.add(self._given)
        if self._passed and self._reader is not None:
            self._reader.store(self._passed)
        self._passed, self._given = {}, []

    def _is_new(self, notification: TaskNotification) -> bool:
        return self._is_wanted(notification) and notification.notification_id not in self._window


@dataclass(frozen=True, slots=True)
class Filter:
    """Which notifications are wanted."""

    corps: frozenset[str] | None
    people: frozenset[str] | None
    views: frozenset[str] | None
    apps: frozenset[str] | None
    sources: frozenset[str] | None

    @staticmethod
    def of(
        *,
        corp: Wanted = None,
        person: Wanted = None,
        view: Wanted = None,
        app: Wanted = None,
        source: Wanted = None,
    ) -> Filter:
        return Filter(*(_as_set(each) for each in (corp, person, view, app, source)))

    def __call__(self, notification: TaskNotification) -> bool:
        return (
            (self.corps is None or notification.corp_id in self.corps)
            and (self.people is None or notification.recipient_id in self.people)
            and (self.views is None or notification.view in self.views)
            and (self.apps is None or notification.app_type in self.apps)
            and (self.sources is None or notification.source in self.sources)
        )


class _Window:
    """The last so many ids."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: dict[str, None] = {}

    def __contains__(self, wanted: str) -> bool:
        return wanted in self._ids

    def add(self, ids: Collection[str]) -> None:
        for each in ids:
            self._ids[each] = None
        while len(self._ids) > self._size:
            del self._ids[next(iter(self._ids))]


def _as_set(wanted: Wanted) -> frozenset[str] | None:
    if wanted is None:
        return None
    return frozenset([wanted] if isinstance(wanted, str) else wanted)


def log_undecodable(record: Record) -> None:
    _log.error("record_undecodable partition=%s offset=%s error=%s", record.partition, record.offset, record.content)
