"""The records of a compacted topic by corp and id, in memory, up to a limit. Pure.

One thread writes, any may read: a look-up is one step, and finds a thing as it is or as it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.schemas.topics import Topic

R = TypeVar("R")
V = TypeVar("V")


class Directory(ABC, Generic[R, V]):
    """Values ``V`` of the records ``R`` of a topic, by corp and id."""

    what: ClassVar[str]
    """Of what it is, in the words of log and metrics."""
    topic: ClassVar[Topic]

    def __init__(self, *, most: int) -> None:
        """Of no more than ``most``, as ``size`` counts them."""
        self.most = most
        self.clear()

    def clear(self) -> None:
        """Know nothing."""
        self.is_read = False
        """Whether the topic was read to its end at least once."""
        self._known: dict[str, dict[str, V]] = {}
        self.count = 0
        self.left_out = 0
        """Records for which there was no room."""
        self._left_out_told = 0

    def find(self, corp_id: str, its_id: str) -> V | None:
        """What is known of it."""
        known = self._known.get(corp_id)
        return None if known is None else known.get(its_id)

    def size(self, _value: V, /) -> int:
        """How much of the limit it uses."""
        return 1

    @abstractmethod
    def check(self, its_id: str, record: R) -> None:
        """Raise Undecodable if the record is about another id, or is too large."""

    @abstractmethod
    def know(self, corp_id: str, record: R) -> None:
        """Add a record, instead of the one before it."""

    def forget(self, corp_id: str, its_id: str) -> None:
        """Know this one no more."""
        known = self._known.get(corp_id, {})
        if its_id in known:
            self.count -= self.size(known.pop(its_id))

    def news(self) -> Iterator[tuple[str, dict[str, object]]]:
        """What an operator should hear of that was not so the last time: a word for it, and values."""
        if self.left_out > self._left_out_told:
            self._left_out_told = self.left_out
            yield "left_out", {"known": self.count, "records": self.left_out}

    def _keep(self, corp_id: str, its_id: str, value: V) -> bool:
        """Whether there is room for it. If not, the value before it is dropped."""
        known = self._known.get(corp_id, {})
        grown = self.count + self.size(value) - (self.size(known[its_id]) if its_id in known else 0)
        if grown > self.most:
            self.forget(corp_id, its_id)
            self.left_out += 1
            return False
        self._known.setdefault(corp_id, {})[its_id] = value
        self.count = grown
        return True
