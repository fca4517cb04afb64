"""The permissions that a user lacks are read from Kafka and reported in one line. Unknown ones block nothing."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from taskbridge.runtime.kafka import Acl, missing_acls, not_allowed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from confluent_kafka import TopicCollection

    from taskbridge.runtime import kafka

READ_EVENTS = Acl("Read", "topic", "events", "what is folded")
WRITE_OWN = Acl("Write", "topic", "own-", "changelogs", prefixed=True)
CREATE_OWN = Acl("Create", "topic", "own-", "changelogs", prefixed=True)
JOIN = Acl("Read", "group", "workers", "partitions are shared")
ALL = [READ_EVENTS, WRITE_OWN, CREATE_OWN, JOIN]

READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE


class Admin:
    """Answers by name: operations, the code of an error, or nothing."""

    def __init__(self, **granted: Collection[AclOperation] | int | None) -> None:
        self._granted = granted

    def describe_topics(self, topics: TopicCollection, **options: Any) -> Mapping[str, Future[Any]]:
        return self.describe_groups(cast("Any", topics).topic_names, 1, **options)

    def describe_groups(self, names: Collection[str], _within_s: float, **options: Any) -> dict[str, Future[Any]]:
        assert options["include_authorized_operations"]
        return {name: self._answer(self._granted.get(name.replace("-", "_"), 3)) for name in names}

    def _answer(self, granted: Collection[AclOperation] | int | None) -> Future[Any]:
        answer: Future[Any] = Future()
        if isinstance(granted, int):
            answer.set_exception(KafkaException(KafkaError(granted)))
        else:
            answer.set_result(SimpleNamespace(authorized_operations=granted))
        return answer


def lacks(**granted: Collection[AclOperation] | int | None) -> list[Acl]:
    return missing_acls(cast("kafka.Admin", Admin(**granted)), ALL, topics=["events", "own-1", "own-2"])


def test_what_is_granted_everywhere_is_not_lacking() -> None:
    assert lacks(events=[READ, DESCRIBE], own_1=[WRITE], own_2=[WRITE, READ], workers=[READ]) == []


def test_what_may_not_even_be_looked_at_is_lacking() -> None:
    refused = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
    assert lacks(events=refused[0], workers=refused[1]) == [READ_EVENTS, JOIN]


def test_one_line_names_all_that_is_lacking() -> None:
    assert not_allowed(READ_EVENTS, WRITE_OWN) == (
        "this Kafka user lacks Read on topic events (what is folded), Write on topic own-* (changelogs):"
        " 'taskbridge topics acls' lists what each user needs"
    )
