"""``start = "present"``: every entry that is in a list when an endpoint is added is delivered first.

Live notifications come in meanwhile. An entry of which one has come is left out here: it says more, and nothing older
is sent after it. What is read here and changes later has a notification that comes later.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, cast

import structlog
from confluent_kafka import OFFSET_BEGINNING, Message

from taskbridge.runtime.kafka import consumer_config
from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.topics import TASK_STATES
from taskbridge.webhooks import store
from taskbridge.webhooks.notifications import deliveries_of, event_of, present

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import TaskState
    from taskbridge.schemas.registry import Registry
    from taskbridge.webhooks.endpoints import Endpoint

GROUP = "taskbridge-webhooks-present"
_PART_S = 60
"""How long a part of the entries may take to be added."""

log = structlog.get_logger(__name__)


class PresentEntries:
    """Reads the states topic once for endpoints that are new."""

    def __init__(self, database: Database, registry: Registry, *, servers: str, kafka: Mapping[str, str]) -> None:
        self._database = database
        self._codec = task_state_codec(registry)
        self._config = {**consumer_config(servers, GROUP, kafka), "auto.offset.reset": "earliest"}

    def add(self, endpoints: Mapping[str, Endpoint], added: Callable[[Collection[str]], None]) -> None:
        """Blocks until all entries wait. Killed or after an error, it is repeated: nothing is added twice."""
        with closing(PartitionReader(self._config)) as reader:
            for partition in reader.partitions(TASK_STATES.name):
                # Only an instance's last state counts: which entries an older one had is over.
                last: dict[bytes, int] = {}
                for batch in reader.read(TASK_STATES.name, {partition: OFFSET_BEGINNING}):
                    last.update((cast("bytes", each.key()), each.offset() or 0) for each in batch)
                ends = {partition: reader.reached[partition]}
                for batch in reader.read(TASK_STATES.name, {partition: OFFSET_BEGINNING}, ends):
                    found = [self._state(each) for each in batch if last[cast("bytes", each.key())] == each.offset()]
                    self._add([each for each in found if each is not None], endpoints, added)
        for name in endpoints:
            store.present_is_added(self._database, name)
            log.info("present_entries_added", endpoint=name)

    def _state(self, message: Message) -> TaskState | None:
        try:
            return None if message.value() is None else self._codec.decode(message.value())
        except RecordError as error:
            log.warning("record_skipped", topic=TASK_STATES.name, offset=message.offset(), problem=str(error))
            return None

    def _add(
        self, found: Sequence[TaskState], endpoints: Mapping[str, Endpoint], added: Callable[[Collection[str]], None]
    ) -> None:
        new = [
            delivery
            for each in chain.from_iterable(map(present, found))
            for delivery in deliveries_of(each, endpoints, partial(event_of, each, present=True))
        ]
        if new:
            with self._database.write(within_s=_PART_S) as connection:
                names = store.add(self._database, connection, new, only_first=True)
            added(names)
