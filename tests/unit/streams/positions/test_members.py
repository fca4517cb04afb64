"""Who is in a group."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from taskbridge.streams.positions.offsets import Offsets

MEMBER = SimpleNamespace(group_instance_id=None, client_id="rebuild", host="/10.0.0.7")


def asked(answer: int | list[Any] | None) -> dict[str, str]:
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

    offsets = Offsets({"bootstrap.servers": "127.0.0.1:9"})
    vars(offsets)["_admin"] = SimpleNamespace(describe_groups=describe_groups)
    return offsets.members("group")


def test_members_are_told_by_their_client_id_and_host() -> None:
    assert asked([MEMBER]) == {"rebuild": "10.0.0.7"}


def test_that_nobody_answers_is_told() -> None:
    with pytest.raises(TimeoutError, match="group"):
        asked(None)


def test_a_refusal_is_told() -> None:
    with pytest.raises(KafkaException):
        asked(KafkaError.GROUP_AUTHORIZATION_FAILED)
