"""The instances' store: Faust's RocksDB store, written a chunk at a time together with the changelog offset it reaches.

Found by Faust as the ``chunks://`` scheme of a table's store, an entry point in the group ``faust.stores``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import rocksdict
from faust.stores import rocksdb

if TYPE_CHECKING:
    from collections.abc import Mapping


class Store(rocksdb.Store):
    """One RocksDB a partition. Values and the offset that they stand for are written in one atomic batch."""

    def read(self, partition: int, key: bytes) -> bytes | None:
        """The value of a key on this partition, which the caller must own."""
        return self._db(partition).get(key)

    def write_chunk(self, partition: int, values: Mapping[bytes, bytes], *, changelog_offset: int) -> None:
        """Put these values, and remember that the changelog is applied up to this offset: both or neither."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value)
        batch.put(self.offset_key, str(changelog_offset).encode())
        self._db(partition).write(batch)

    def _db(self, partition: int) -> Any:
        return cast("Any", self._db_for_partition(partition))
