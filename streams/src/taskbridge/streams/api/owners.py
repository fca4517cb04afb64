"""Which worker has a user's inbox or an instance: the one that the group's leader made the owner of its partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.schemas.events import notification_key
from taskbridge.streams.api.refusals import NotNow
from taskbridge.streams.cores.core import target_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


class OwnerUnknown(NotNow):
    """Nobody who could answer is known at the moment: a rebalance or a restoration is on."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The worker of a partition."""

    partition: int
    url: str
    here: bool
    """It is this process, and its tables are restored."""


class Owners:
    """What this worker knows of all workers of its group.

    Every question raises OwnerUnknown where nobody could answer now, or this worker is not in the group yet.
    """

    def __init__(self, own_url: str) -> None:
        self._own_url = own_url.rstrip("/")
        self._partitions: int | None = None
        self._distribution: Callable[[], Mapping[str, Mapping[str, Collection[int]]]] = dict
        self._actives: Callable[[], Collection[int]] = tuple
        self._changelog = ""

    def join(
        self,
        *,
        partitions: int,
        distribution: Callable[[], Mapping[str, Mapping[str, Collection[int]]]],
        actives: Callable[[], Collection[int]],
        changelog: str,
    ) -> None:
        """Know the group; before that every owner is unknown.

        ``distribution`` gives each worker's URL, and of each changelog topic the partitions that are the worker's.
        ``actives`` gives the partitions that this worker can answer for now: none during a rebalance or recovery.
        """
        self._partitions = partitions
        self._distribution = distribution
        self._actives = actives
        self._changelog = changelog

    def of_user(self, corp_id: str, user_id: str) -> Owner:
        """Who has this user's inbox."""
        return self.of_partition(self.partition(notification_key(corp_id, user_id)))

    def of_instance(self, instance_id: str) -> Owner:
        """Who has this instance."""
        return self.of_partition(self.partition(instance_id.encode()))

    def partition(self, key: bytes) -> int:
        """The partition of a record key."""
        if self._partitions is None:
            raise OwnerUnknown("this worker is starting")
        return target_partition(key, self._partitions)

    def of_partition(self, partition: int) -> Owner:
        """Who has what is on this partition."""
        if partition in self._actives():
            return Owner(partition, self._own_url, here=True)
        for url, topics in self._distribution().items():
            if partition in topics.get(self._changelog, ()):
                if url.rstrip("/") == self._own_url:
                    raise OwnerUnknown("the worker that has this data is still restoring it")
                return Owner(partition, url.rstrip("/"), here=False)
        raise OwnerUnknown("no worker has this data yet")

    def workers(self) -> list[str]:
        """The URLs of all workers of the group, this one among them."""
        return sorted({self._own_url, *(url.rstrip("/") for url in self._distribution())})
