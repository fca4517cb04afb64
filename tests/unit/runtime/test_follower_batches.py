"""What one batch of a follower may have: a transaction is short, however large its records are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.center_records import REGISTRY, FakeMessage
from taskbridge.center.follow.lists import States
from taskbridge.runtime.database import open_database
from taskbridge.runtime.follow import follower as module
from taskbridge.runtime.follow.batch import Assigned
from taskbridge.runtime.follow.follower import Follower
from taskbridge.runtime.follow.positions import Position
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from taskbridge.runtime.follow.batch import Record


class FakeConsumer:
    def __init__(self, messages: list[FakeMessage]) -> None:
        self._left = messages

    def poll(self, _timeout_s: float) -> FakeMessage:
        return self._left.pop(0)

    def consume(self, _number: int, _timeout_s: float) -> list[FakeMessage]:
        return self._left


def test_a_batch_ends_with_the_record_that_reaches_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [10, 40, 60, 100, 1, 1]
    messages = [FakeMessage(TASK_STATES.name, 0, at, b"I-1", b"x" * size) for at, size in enumerate(sizes)]
    database = open_database(None, tmp_path)
    topic = States(database, REGISTRY)
    follower: Any = Follower(database, "test", [topic], service="test", servers="", kafka={}, on_change=lambda _: None)
    batches = list[list[int]]()

    def write(records: Sequence[Record], _ends: object) -> None:
        batches.append([each.offset for each in records])

    def read(_message: object) -> tuple[str, None]:
        return "I-1", None

    monkeypatch.setattr(module, "_BATCH_BYTES", 100)
    follower._write = write
    follower._consumer = FakeConsumer(messages)
    place = (TASK_STATES.name, 0)
    follower._assigned = {place: Assigned(place, Position("id", 0, 0, 0))}
    monkeypatch.setattr(topic, "read", read)
    follower._read_and_store()
    assert batches == [[0, 1, 2], [3], [4, 5]]
    database.close()
