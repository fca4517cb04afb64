"""Reads instances as the fold stored them, for those who may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.events import Lifecycle
from taskbridge.streams.api.refusals import Unknown
from taskbridge.streams.fold.stored_instance import event_offsets, unpack
from taskbridge.streams.fold.views import was_shown_to

if TYPE_CHECKING:
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskState
    from taskbridge.streams.api.access import Caller
    from taskbridge.streams.fold.instance import Instance
    from taskbridge.streams.tables.store import Store


class Instances:
    """The instances of this worker's partitions."""

    def __init__(self, store: Store, states: Codec[TaskState]) -> None:
        self._store = store
        self._states = states

    def find(self, partition: int, instance_id: str, caller: Caller) -> tuple[Instance, tuple[int, ...]]:
        """The instance, and the offsets of its events on its partition of the events topic.

        Raises:
            Unknown: it was never heard of, is deleted, or is nothing that this caller may see.
            PartitionNotHeld: it went to another worker meanwhile.
        """
        found = self.look_up(partition, instance_id)
        if found is None or not _may_see(caller, found[0]):
            raise Unknown("no such instance, or this caller may not read it")
        return found

    def look_up(self, partition: int, instance_id: str) -> tuple[Instance, tuple[int, ...]] | None:
        """The instance as it is stored, deleted or not, and its events' offsets: for those who may see everything.

        Raises:
            PartitionNotHeld: it went to another worker meanwhile.
        """
        stored = self._store.read(partition, instance_id.encode())
        return None if stored is None else (unpack(stored, self._states), event_offsets(stored))


def _may_see(caller: Caller, instance: Instance) -> bool:
    if instance.state.lifecycle is Lifecycle.DELETED or not caller.may_see(instance.state.corp_id):
        return False
    return caller.user_id is None or was_shown_to(instance, caller.user_id)
