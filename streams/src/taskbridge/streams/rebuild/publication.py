"""Makes a rebuilt version live: its changelog first, and then, while no worker works, all the rest at one stroke.

In one transaction: the rest of the changelog, the states and notifications of what came out another, and the word that
the version is live. Whoever dies before its end has changed nothing. Only a move to another number of partitions takes
more than a transaction: see ``streams.rebuild.moving``.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import say, say_told
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.positions.version import Versions
from taskbridge.streams.rebuild.sources.copies import Ticker, unfold_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.positions.mark import Ground
    from taskbridge.streams.rebuild.moving import Move
    from taskbridge.streams.rebuild.rebuilding import Outcome, Rebuilding
    from taskbridge.streams.rebuild.workers import Workers
    from taskbridge.streams.transactions.transaction import TransactionalWriter

_TOGETHER = 20_000
"""Records of the changelog in one transaction."""

log = structlog.get_logger(__name__)


class Publication:
    """Of the version after the live one of ``versions``."""

    def __init__(
        self,
        writer: TransactionalWriter,
        *,
        ground: Ground,
        versions: Versions,
        notifications: Codec[TaskNotification],
        tell: Callable[[str], None],
        stopping: Callable[[], None],
    ) -> None:
        """``ground``: what the workers of that version are to stand upon."""
        self._writer = writer
        self._ground = ground
        self._changelog = ground.changelog
        self._before = versions
        self._version = versions.live + 1
        self._notifications = notifications
        self._tell = tell
        self._stopping = stopping

    def write_changelog(self, rebuilding: Rebuilding) -> None:
        """Everything so far; from then on the changes are remembered, for ``switch``."""
        rebuilding.new.changed = {}
        tick = Ticker(self._tell, "new changelog", stopping=self._stopping)
        items = rebuilding.new.items()
        written = 0
        more = True
        while more:
            with self._writer.transaction():
                for key, stored in items:
                    partition, value = unfold_kept(stored)
                    self._writer.send(self._changelog, key, value, partition=partition)
                    written += 1
                    if written % _TOGETHER == 0:
                        break
                else:
                    more = False
            tick(written, max(written, rebuilding.counts.instances))

    def switch(self, rebuilding: Rebuilding, workers: Workers, move: Move | None = None) -> None:
        """Have the workers of the live version stop, make ours as up to date as theirs was, and live.

        Raises:
            OperatorError: it was given up. The live version is what it was, and its workers go on; but for one whose
                ``move`` had begun: they wait until it is done.
        """
        with self._writer.transaction():
            say(self._writer, self._before._replace(next=self._version))
        try:
            workers.wait_until_gone()
            rebuilding.catch_up()
            if move is None:
                self._tell("telling what came out another")
                with self._writer.transaction():
                    self._write_changes(rebuilding)
                    self._publish(rebuilding.outcomes(self._version))
                    self._hand_over(rebuilding, workers)
                    say(self._writer, Versions(self._version))
            else:
                self._move(rebuilding, workers, move)
        except BaseException:
            # Where this fails too, the first worker that asks finds that nobody is there to switch.
            with suppress(OperatorError, KafkaException), self._writer.transaction():
                say(self._writer, self._before)
            raise

    def _move(self, rebuilding: Rebuilding, workers: Workers, move: Move) -> None:
        self._tell(
            f"all topics get {move.partitions} partitions; from here on, only the end of this lets workers start"
        )
        self._before = Versions(self._before.live, self._version, move.partitions)
        with self._writer.transaction():
            say(self._writer, self._before)
        self._writer = move.make(self._version)
        self._tell("telling everybody what they see")
        outcomes = rebuilding.outcomes(self._version, everything=True)
        while some := list(islice(outcomes, _TOGETHER)):
            with self._writer.transaction():
                self._publish(some)
        told = move.told_now()
        with self._writer.transaction():
            self._write_changes(rebuilding)
            self._hand_over(rebuilding, workers)
            say_told(self._writer, told)
            if move.inboxes is not None:
                self._writer.hand_over(APP_ID, TASK_NOTIFICATIONS.name, move.inboxes, move.notified)
            say(self._writer, Versions(self._version))

    def _publish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.publish_state:
                self._writer.send(TASK_STATES.name, outcome.key, outcome.state, headers=outcome.headers)
            self._notify(outcome.notifications)

    def _write_changes(self, rebuilding: Rebuilding) -> None:
        new = rebuilding.new
        for key, partition in (new.changed or {}).items():
            kept = new.get(key)
            self._writer.send(self._changelog, key, None if kept is None else kept.value, partition=partition)

    def _hand_over(self, rebuilding: Rebuilding, workers: Workers) -> None:
        """Workers go on where they were: what they miss from there on is theirs to say."""
        stood = workers.positions()
        positions = {each: min(offset, stood.get(each, offset)) for each, offset in rebuilding.reached.items()}
        self._writer.hand_over(APP_ID, TASK_EVENTS.name, self._ground, positions)

    def _notify(self, notifications: Iterable[TaskNotification]) -> None:
        for each in notifications:
            self._writer.send(
                TASK_NOTIFICATIONS.name,
                notification_key(each.corp_id, each.recipient_id),
                self._notifications.encode(each),
                headers=notification_headers(each),
            )
