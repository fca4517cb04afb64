"""After a failure another client is used; a group's positions are read with their stability; members are listed."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from faust.types import TP

from taskbridge.streams.transactions import offsets
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.positions import Committed

if TYPE_CHECKING:
    from collections.abc import Iterable


class FakeAdmin:
    """The first one knows an epoch that is over."""

    made = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        FakeAdmin.made += 1
        self._is_first = FakeAdmin.made == 1

    def list_offsets(self, wanted: Iterable[Any], **_: Any) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        if self._is_first:
            answer.set_exception(KafkaException(KafkaError(KafkaError.FENCED_LEADER_EPOCH)))
        else:
            answer.set_result(type("Found", (), {"offset": 7}))
        return dict.fromkeys(wanted, answer)


def test_after_a_failure_another_client_sends_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "Admin", FakeAdmin)
    monkeypatch.setattr(FakeAdmin, "made", 0)
    offsets_of_kafka = Offsets({"bootstrap.servers": "127.0.0.1:9"})
    with pytest.raises(KafkaException):
        offsets_of_kafka.ends("topic", [0])
    assert offsets_of_kafka.ends("topic", [0]) == {0: 7}
    assert offsets_of_kafka.ends("topic", [0]) == {0: 7}
    assert FakeAdmin.made == 2


CONFIG = {"bootstrap.servers": "127.0.0.1:9"}


class FakeConsumer:
    """Of a group for whose partition 1 a transaction is open, on a broker that has only just made what it needs."""

    made = 0
    refused = 0
    _lock = threading.Lock()

    def __init__(self, config: dict[str, Any], **_: Any) -> None:
        FakeConsumer.made += 1
        self._waits = config["isolation.level"] == "read_committed"

    def committed(self, wanted: list[TopicPartition], _timeout_s: float) -> list[TopicPartition]:
        with self._lock:
            if FakeConsumer.refused < 2:
                FakeConsumer.refused += 1
                raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        if self._waits and any(each.partition == 1 for each in wanted):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [TopicPartition(each.topic, each.partition, 7) for each in wanted]

    def close(self) -> None:
        FakeConsumer.made -= 1


@pytest.fixture(autouse=True)
def consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "Consumer", FakeConsumer)
    monkeypatch.setattr(offsets, "COORDINATOR_RETRY_S", 0)
    monkeypatch.setattr(FakeConsumer, "made", 0)
    monkeypatch.setattr(FakeConsumer, "refused", 0)


def test_positions_are_read_once_the_group_has_a_coordinator_and_unstable_ones_are_marked() -> None:
    partitions = [TP("topic", each) for each in range(3)]
    assert Offsets(CONFIG).committed("group", partitions) == {
        tp: Committed(7, None, is_stable=tp.partition != 1) for tp in partitions
    }
    assert (FakeConsumer.refused, FakeConsumer.made) == (2, 0)


def test_a_missing_coordinator_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeConsumer, "refused", -(10**9))
    monkeypatch.setattr(offsets, "_ANSWER_S", 0.05)
    with pytest.raises(KafkaException, match="NOT_COORDINATOR"):
        Offsets(CONFIG).committed("group", [TP("topic", 0)])
    assert FakeConsumer.made == 0


def members_for(answer: int | list[Any] | None) -> dict[str, str]:
    """Who is in the group, where this is answered."""

    def describe_groups(groups: list[str], _within_s: float) -> dict[str, Future[Any]]:
        future: Future[Any] = Future()
        if answer is None:
            return {}
        if isinstance(answer, int):
            future.set_exception(KafkaException(KafkaError(answer)))
        else:
            future.set_result(SimpleNamespace(members=answer))
        return {groups[0]: future}

    offsets_of_kafka = Offsets({"bootstrap.servers": "127.0.0.1:9"})
    vars(offsets_of_kafka)["_admin"] = SimpleNamespace(describe_groups=describe_groups)
    return offsets_of_kafka.members("group")


def test_no_answer_is_a_timeout() -> None:
    with pytest.raises(TimeoutError, match="group"):
        members_for(None)


def test_a_refusal_is_raised() -> None:
    with pytest.raises(KafkaException):
        members_for(KafkaError.GROUP_AUTHORIZATION_FAILED)
