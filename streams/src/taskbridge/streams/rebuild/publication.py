"""Makes a rebuilt version live: its changelog first, and then, while no worker works, all the rest at one stroke.

In one transaction: the states and notifications of what came out another, the rest of the changelog, where workers go
on, and the word that the version is live. Whoever dies before its end has changed nothing. Only a move to another
number of partitions takes more than a transaction: see ``streams.rebuild.moving``.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import say, say_told
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.folding.outgoing import notification_record
from taskbridge.streams.positions.version import Versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.positions.mark import Ground
    from taskbridge.streams.rebuild.moving import Move
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.rebuild.rebuilding import Outcome, Rebuilding
    from taskbridge.streams.transactions.transaction import TransactionalWriter

_TOGETHER = 20_000
"""Records of the changelog in one transaction."""


class Publication:
    """Of the version whose workers are to stand upon that ground."""

    def __init__(self, run: Operation, registry: Registry, writer: TransactionalWriter, ground: Ground) -> None:
        self._run = run
        self._writer = writer
        self._ground = ground
        self._version = ground.mark.version
        self._notifications = task_notification_codec(registry)

    def write_changelog(self, rebuilding: Rebuilding) -> None:
        """Everything so far; from then on the changes are remembered, for ``switch``."""
        rebuilding.new.changed = {}
        tick = self._run.ticker("new changelog")
        items = rebuilding.new.items()
        before, written = -1, 0
        while before < written:
            before = written
            with self._writer.transaction():
                for key, (partition, value) in islice(items, _TOGETHER):
                    self._writer.write(self._ground.changelog, key, value, partition=partition)
                    written += 1
            tick(written, max(written, rebuilding.counts.instances))

    def switch(self, rebuilding: Rebuilding, versions: Versions, move: Move | None = None) -> None:
        """Have the workers of the live version stop, make ours as up to date as theirs was, and live.

        Raises:
            OperatorError: it was given up. The live version is what it was, and its workers go on; but for one whose
                ``move`` had begun: they wait until it is done.
        """
        with self._run.nobody_at_work(self._writer, versions, self._version) as way_back:
            rebuilding.catch_up()
            if move is None:
                self._run.tell("telling what came out another")
                with self._writer.transaction():
                    self._publish(rebuilding.outcomes(self._version))
                    self._go_live(rebuilding)
            else:
                way_back.pop_all()
                self._move(rebuilding, versions, move)

    def _move(self, rebuilding: Rebuilding, versions: Versions, move: Move) -> None:
        tell = self._run.tell
        tell(f"all topics get {move.partitions} partitions; from here on, only the end of this lets workers start")
        with self._writer.transaction():
            say(self._writer, Versions(versions.live, self._version, move.partitions))
        self._writer = move.make(self._version)
        tell("telling everybody what they see")
        outcomes = rebuilding.outcomes(self._version, everything=True)
        while some := list(islice(outcomes, _TOGETHER)):
            with self._writer.transaction():
                self._publish(some)
        told = self._run.told_now()
        with self._writer.transaction():
            say_told(self._writer, told)
            if move.inboxes is not None:
                self._writer.hand_over(APP_ID, TASK_NOTIFICATIONS.name, move.inboxes, move.notified)
            self._go_live(rebuilding)

    def _go_live(self, rebuilding: Rebuilding) -> None:
        """With the rest of the changelog. Workers go on where they were: what they miss there is theirs to say."""
        for key, partition in (rebuilding.new.changed or {}).items():
            kept = rebuilding.new.get(key)
            self._writer.write(self._ground.changelog, key, None if kept is None else kept.value, partition=partition)
        stood = self._run.workers.positions()
        positions = {each: min(offset, stood.get(each, offset)) for each, offset in rebuilding.reached.items()}
        self._writer.hand_over(APP_ID, TASK_EVENTS.name, self._ground, positions)
        say(self._writer, Versions(self._version))

    def _publish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.publish_state:
                self._writer.write(TASK_STATES.name, outcome.key, outcome.state, headers=outcome.headers)
            told = [notification_record(each, self._notifications) for each in outcome.notifications]
            self._writer.send_with_headers(TASK_NOTIFICATIONS.name, told)
