"""Who is in a group, asked while its coordinator moves."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from taskbridge.streams.positions import group_positions
from taskbridge.streams.positions.offsets import Offsets

MEMBER = SimpleNamespace(group_instance_id=None, client_id="rebuild", host="/10.0.0.7")


class Answers:
    """An admin client that answers each question with the next of these."""

    def __init__(self, *answers: int | list[Any]) -> None:
        self._answers = list(answers)

    def described_groups(self, groups: list[str], _within_s: float) -> dict[str, Future[Any]]:
        answer = self._answers.pop(0)
        future: Future[Any] = Future()
        if isinstance(answer, int):
            future.set_exception(KafkaException(KafkaError(answer)))
        else:
            future.set_result(SimpleNamespace(members=answer))
        return {groups[0]: future}


def asked(*answers: int | list[Any]) -> dict[str, str]:
    offsets = Offsets({"bootstrap.servers": "127.0.0.1:9"})
    vars(offsets)["_admin"] = Answers(*answers)
    return offsets.members("group")


def test_a_coordinator_that_moves_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_positions, "_AGAIN_S", 0)
    moves = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE)
    assert asked(*moves, [MEMBER]) == {"rebuild": "10.0.0.7"}


def test_one_that_goes_on_moving_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_positions, "_ANSWER_S", 0)
    with pytest.raises(KafkaException):
        asked(KafkaError.NOT_COORDINATOR, KafkaError.NOT_COORDINATOR)


def test_another_refusal_is_told_at_once() -> None:
    with pytest.raises(KafkaException):
        asked(KafkaError.GROUP_AUTHORIZATION_FAILED, [MEMBER])
