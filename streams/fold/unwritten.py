"""What chunks under way will write to the store: the next chunk is folded upon it before it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Unwritten:
    """By generation of the group and partition: what was under way in an earlier generation counts for nothing."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], dict[bytes, bytes]] = {}

    def reader(
        self, partition: int, read: Callable[[int, bytes], bytes | None], *, generation: int
    ) -> Callable[[bytes], bytes | None]:
        """Reads a key as it will be once all that is under way is written."""
        values = self._values.get((generation, partition), {})

        def latest(key: bytes) -> bytes | None:
            found = values.get(key)
            return read(partition, key) if found is None else found

        return latest

    def add(self, partition: int, stored: Mapping[bytes, bytes], *, generation: int) -> None:
        """A chunk will write these."""
        self._values.setdefault((generation, partition), {}).update(stored)

    def remove(self, partition: int, stored: Mapping[bytes, bytes], *, generation: int) -> None:
        """It has, or never will. What a later chunk will write of the same keys stays."""
        values = self._values.get((generation, partition), {})
        for key, value in stored.items():
            if values.get(key) is value:
                del values[key]
        if not values:
            self._values.pop((generation, partition), None)
