"""Make a rebuilt version live: write its changelog, then, while no worker runs, its positions in one transaction.

The changelog also has the pending notifications of changed instances, which workers publish once the version is live
(``streams.processing.telling``): so the size of transactions is bounded. The last transaction sets the positions of the
workers and the live version. A process that dies before its end has changed nothing. Only a move to more partitions
needs several transactions: see ``streams.rebuild.moving``.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import say, say_told
from taskbridge.streams.cores.core import notification_record
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.positions.version import Versions
from taskbridge.streams.processing.untold import state_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.positions.mark import Ground
    from taskbridge.streams.rebuild.moving import Move
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.rebuild.rebuilding import Outcome, Rebuilding
    from taskbridge.streams.transactions.transaction import TransactionalWriter

_TOGETHER = 20_000
"""Records of the changelog in one transaction."""


class Publication:
    """The publication of the version with that ground."""

    def __init__(self, run: Operation, registry: Registry, writer: TransactionalWriter, ground: Ground) -> None:
        self._run = run
        self._writer = writer
        self._ground = ground
        self._version = ground.mark.version
        self._notifications = task_notification_codec(registry)
        self._states = task_state_codec(registry)

    def write_changelog(self, rebuilding: Rebuilding) -> None:
        """Write all instances so far; later changes are remembered for ``write_changes``."""
        rebuilding.new.changed = {}
        self._write(((key, kept.partition, kept.value) for key, kept in rebuilding.new.items()), "new changelog")

    def write_changes(self, rebuilding: Rebuilding) -> None:
        """Write the changes since then."""
        new, changed = rebuilding.new, rebuilding.new.changed or {}
        new.changed = {}
        values = ((key, partition, new.get(key)) for key, partition in changed.items())
        self._write(((key, partition, kept and kept.value) for key, partition, kept in values), "changes")

    def _write(self, records: Iterator[tuple[bytes, int, bytes | None]], what: str) -> None:
        tick, written = self._run.ticker(what), 0
        while some := list(islice(records, _TOGETHER)):
            with self._writer.transaction():
                for key, partition, value in some:
                    self._writer.write(self._ground.changelog, key, value, partition=partition)
            written += len(some)
            tick(written, written)

    def switch(self, rebuilding: Rebuilding, versions: Versions, move: Move | None = None) -> None:
        """Stop the workers of the live version, bring the new version up to date, and make it live.

        Raises:
            OperatorError: the switch was aborted. The live version and its workers continue; but once a ``move`` has
                begun, workers wait until it is complete.
        """
        self._run.tell("stopping the workers for the switch")
        with self._run.nobody_at_work(self._writer, versions, self._version) as way_back:
            rebuilding.catch_up()
            if move is None:
                rebuilding.compare(self._version)
                self.write_changes(rebuilding)
                with self._writer.transaction():
                    self._go_live(rebuilding)
            else:
                way_back.pop_all()
                self._move(rebuilding, versions, move)
        self._run.tell(f"version {self._version} is live: workers continue, and publish what changed")

    def _move(self, rebuilding: Rebuilding, versions: Versions, move: Move) -> None:
        tell = self._run.tell
        tell(f"moving all topics to {move.partitions} partitions; workers can start only after this is complete")
        with self._writer.transaction():
            say(self._writer, Versions(versions.live, self._version, move.partitions))
        self._writer = move.make(self._version)
        self.write_changes(rebuilding)
        tell("publishing every present list entry")
        outcomes = rebuilding.outcomes(self._version, everything=True)
        while some := list(islice(outcomes, _TOGETHER)):
            with self._writer.transaction():
                self._publish(some)
        told = self._run.notification_ends()
        with self._writer.transaction():
            say_told(self._writer, told)
            if move.inboxes is not None:
                self._writer.hand_over(APP_ID, TASK_NOTIFICATIONS.name, move.inboxes, move.notified)
            self._go_live(rebuilding)

    def _go_live(self, rebuilding: Rebuilding) -> None:
        """Workers continue at their positions, also where these are lower than what the rebuild has read."""
        stood = self._run.workers.positions()
        positions = {each: min(offset, stood.get(each, offset)) for each, offset in rebuilding.reached.items()}
        self._writer.hand_over(APP_ID, TASK_EVENTS.name, self._ground, positions)
        say(self._writer, Versions(self._version))

    def _publish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._writer.send(TASK_STATES.name, [state_record(outcome.key, outcome.new.value, self._states)])
            told = [notification_record(each, self._notifications) for each in outcome.notifications]
            self._writer.send(TASK_NOTIFICATIONS.name, told)
