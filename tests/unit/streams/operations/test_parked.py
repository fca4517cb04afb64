"""What was set aside is counted once, while it is there, and read on from where it was left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from taskbridge.schemas.dead_letters import DeadLetter, replay_headers
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.topics import Topic
from taskbridge.streams.operations.parked import LATEST, Parked, SetAside
from taskbridge.streams.operations.search import dead_letter_summary
from taskbridge.streams.positions import Bounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskbridge.streams.operations.parked import Reading

HOUR_MS = 3_600_000
KEPT_MS = 24 * HOUR_MS


class Record:
    def __init__(self, offset: int, reason: str, at_ms: int, replay_of: int | None = None) -> None:
        self._offset, self.reason, self.at_ms, self._replay_of = offset, reason, at_ms, replay_of

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes | None:
        return b"entry" if self._replay_of is None else None

    def headers(self) -> list[tuple[str, bytes]]:
        return [] if self._replay_of is None else replay_headers(str(self._replay_of), self.at_ms)


class MemoryTopic:
    """Stands in for the reading and for the offsets of a topic of one partition."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.first = 0
        self.read: list[int] = []
        self.away = False

    @property
    def offsets(self) -> MemoryTopic:
        return self

    def partitions(self, _topic: str) -> list[int]:
        if self.away:
            raise TimeoutError
        return [0]

    def bounds(self, _topic: str, _partitions: list[int]) -> dict[int, Bounds]:
        return {0: Bounds(self.first, len(self.records))}

    def between(
        self, _topic: str, starts: Mapping[int, int], ends: Mapping[int, int], *, within_s: float
    ) -> Iterator[Record]:
        assert within_s > 0
        for record in self.records[starts[0] : ends[0]]:
            self.read.append(record.offset())
            yield record

    def add(self, reason: str, *, at_ms: int = 0, count: int = 1) -> None:
        for _ in range(count):
            self.records.append(Record(len(self.records), reason, at_ms))

    def replay(self, entry: int, at_ms: int = 0) -> None:
        self.records.append(Record(len(self.records), "", at_ms, replay_of=entry))


def entry_of(record: Any) -> SetAside:
    if record.reason == "damaged":
        raise RecordError("no entry")
    return SetAside(
        record.at_ms, record.reason, {"id": str(record.offset()), "reason": record.reason, "replayed_at": None}
    )


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic()


@pytest.fixture
def parked(topic: MemoryTopic, monkeypatch: pytest.MonkeyPatch) -> Parked:
    monkeypatch.setattr("taskbridge.streams.operations.parked._REFRESH_S", 0.0)
    kept = Topic("topic", None, {"retention.ms": str(KEPT_MS)})
    return Parked(cast("Reading", topic), kept, entry_of)


def test_each_is_read_and_counted_once_however_often_somebody_looks(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("wrong-sign", count=2)
    assert parked.overview(now_ms=0)["reasons"] == {"wrong-sign": 2}
    topic.add("unknown-app", at_ms=5)
    found = [parked.overview(now_ms=10) for _ in range(3)][-1]
    assert (found["total"], found["reasons"]) == (3, {"wrong-sign": 2, "unknown-app": 1})
    assert found["latest"][0]["reason"] == "unknown-app"
    assert topic.read == [0, 1, 2]


def test_what_retention_took_is_counted_no_more(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("old", at_ms=HOUR_MS)
    topic.add("new", at_ms=20 * HOUR_MS)
    assert parked.overview(now_ms=20 * HOUR_MS)["total"] == 2
    assert parked.overview(now_ms=KEPT_MS + 3 * HOUR_MS)["reasons"] == {"new": 1}


def test_what_was_replayed_waits_no_more_and_shows_when_it_was(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("wrong-sign", count=2)
    topic.add("unknown-app")
    assert parked.overview(now_ms=0)["total"] == 3
    for entry in (0, 2, 2, 99):  # also twice, and one that is not known here
        topic.replay(entry, at_ms=1000)
    found = parked.overview(now_ms=0)
    assert (found["total"], found["reasons"]) == (1, {"wrong-sign": 1})
    assert {each["id"]: each["replayed_at"] for each in found["latest"]} == {
        "0": "1970-01-01T00:00:01.000Z",
        "1": None,
        "2": "1970-01-01T00:00:01.000Z",
    }
    parked.overview(now_ms=KEPT_MS + 3 * HOUR_MS)
    topic.replay(1)
    assert parked.overview(now_ms=KEPT_MS + 3 * HOUR_MS)["total"] == 0


def test_only_so_many_are_remembered_for_their_replay(
    topic: MemoryTopic, parked: Parked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.streams.operations.parked._REMEMBERED", 2)
    topic.add("wrong-sign", count=3)
    topic.replay(0)
    topic.replay(2)
    assert parked.overview(now_ms=0)["total"] == 2


def test_what_is_no_entry_is_passed_over(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("damaged")
    topic.add("fine")
    assert parked.overview(now_ms=0)["reasons"] == {"fine": 1}


def test_while_kafka_is_away_what_is_known_is_shown(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("wrong-sign")
    parked.overview(now_ms=0)
    topic.away = True
    assert parked.overview(now_ms=0)["total"] == 1


def test_only_the_newest_of_a_long_topic_are_read_and_few_are_listed(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("flood", count=5000)
    found = parked.overview(now_ms=0)
    assert found["total"] == 2000
    assert len(found["latest"]) == LATEST
    assert topic.read[0] == 3000


def test_a_recreated_topic_is_read_from_its_beginning(topic: MemoryTopic, parked: Parked) -> None:
    topic.add("before", count=3)
    parked.overview(now_ms=0)
    topic.records.clear()
    parked.overview(now_ms=0)
    topic.add("after")
    assert parked.overview(now_ms=0)["reasons"]["after"] == 1


def test_any_dead_letter_is_summarised() -> None:
    headers = [("dlq_reason", b"undecodable"), ("dlq_partition", b"3"), ("dlq_offset", b"x"), ("other", b"1")]
    letter = DeadLetter(id="0-1", at_ms=0, key=b"\xff", value=None, headers=headers)
    found = dead_letter_summary(letter)
    assert (found["reason"], found["partition"], found["offset"], found["key"]) == ("undecodable", 3, None, "\ufffd")
