"""Faust's RocksDB store of a table, whose partitions are opened and closed by whoever is told to, never by Faust."""

from __future__ import annotations

from typing import Any, cast

from faust.stores import rocksdb


class TableStore(rocksdb.Store):
    """One RocksDB a partition. Faust gives the folder and the options."""

    @property
    def held(self) -> frozenset[int]:
        """The partitions that are open."""
        return frozenset(self._open)

    def open_partition(self, partition: int) -> None:
        """Open the partition's RocksDB. Raises the library's own error where that cannot be."""
        self._open[partition] = self._open_for_partition(partition)

    def opened(self, partition: int) -> Any:
        """The partition's RocksDB; None where it is not open."""
        return self._open.get(partition)

    def release(self, partition: int) -> None:
        """Flush and close the partition's store; another process may open it afterwards."""
        held = self._open.pop(partition, None)
        if held is not None:
            held.close()

    async def on_rebalance(self, *_: Any, **__: Any) -> None:
        """Nothing: ``streams.tables.recovery`` opens and closes partitions, once whoever writes to them has stopped."""

    async def stop(self) -> None:
        for partition in self.held:
            self.release(partition)

    @property
    def _open(self) -> dict[int, Any]:
        return cast("dict[int, Any]", self._dbs)
