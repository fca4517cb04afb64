"""The client that asks for offsets is made anew once it failed: it would go on with what it knew of a broker before."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from taskbridge.streams.positions import offsets

if TYPE_CHECKING:
    from collections.abc import Iterable


class FakeAdmin:
    """The first one knows an epoch that is over."""

    made = 0
    error = KafkaError.FENCED_LEADER_EPOCH

    def __init__(self, *_: Any, **__: Any) -> None:
        FakeAdmin.made += 1
        self._is_first = FakeAdmin.made == 1

    def list_offsets(self, wanted: Iterable[Any], **_: Any) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        if self._is_first:
            answer.set_exception(KafkaException(KafkaError(FakeAdmin.error)))
        else:
            answer.set_result(type("Found", (), {"offset": 7}))
        return dict.fromkeys(wanted, answer)


@pytest.mark.parametrize(
    ("error", "asks_again"), [(KafkaError.FENCED_LEADER_EPOCH, True), (KafkaError._TIMED_OUT, False)]
)
def test_after_a_failure_the_next_question_is_asked_by_another_client(
    monkeypatch: pytest.MonkeyPatch, error: int, asks_again: Any
) -> None:
    """At once where the answer says that the client's knowledge is out of date."""
    monkeypatch.setattr(offsets, "Admin", FakeAdmin)
    monkeypatch.setattr(FakeAdmin, "made", 0)
    monkeypatch.setattr(FakeAdmin, "error", error)
    asked = offsets.Offsets({"bootstrap.servers": "127.0.0.1:9"})
    if not asks_again:
        with pytest.raises(KafkaException):
            asked.ends("topic", [0])
    assert asked.ends("topic", [0]) == {0: 7}
    assert asked.ends("topic", [0]) == {0: 7}
    assert FakeAdmin.made == 2
