"""What chunks under way will write to the store: the next chunk is folded upon it before it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class PendingWrites:
    """By generation of the group and partition: what was under way in an earlier generation counts for nothing.

    The chunks stay apart, since they come and go as a whole, are few, and are rarely asked.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[int, int], list[Mapping[bytes, bytes | None]]] = {}

    def reader(
        self, partition: int, read: Callable[[int, list[bytes]], list[bytes | None]], *, generation: int
    ) -> Callable[[list[bytes]], list[bytes | None]]:
        """Reads keys as they will be once all that is under way is written; ``read`` is asked once for those left."""
        chunks = self._chunks.get((generation, partition), [])

        def latest(keys: list[bytes]) -> list[bytes | None]:
            found: dict[bytes, bytes | None] = {key: chunk[key] for chunk in chunks for key in keys if key in chunk}
            left = [key for key in keys if key not in found]
            found.update(zip(left, read(partition, left), strict=True))
            return [found[key] for key in keys]

        return latest

    def add(self, partition: int, stored: Mapping[bytes, bytes | None], *, generation: int) -> None:
        """A chunk will write these; None takes a key away."""
        self._chunks.setdefault((generation, partition), []).append(stored)

    def remove(self, partition: int, stored: Mapping[bytes, bytes | None], *, generation: int) -> None:
        """It has, or never will. What a later chunk will write of the same keys stays."""
        chunks = self._chunks.get((generation, partition), [])
        chunks[:] = [each for each in chunks if each is not stored]
        if not chunks:
            self._chunks.pop((generation, partition), None)
