"""Topics are made sure of as far as the Kafka user may; what it may not look at is said, and holds nothing up."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS
from service.topic_admin import TopicsUnavailable, apply_topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

    from service.topic_admin import TopicReport

WANTED = (TASK_EVENTS, CALLBACKS_QUARANTINE)
NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


def done(value: object = None, *, error: int | None = None) -> Future[Any]:
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(KafkaException(KafkaError(error)))
    return future


@dataclass
class Admin:
    """A cluster's admin client, as far as one Kafka user may use it."""

    existing: dict[str, int] = field(default_factory=dict[str, int])
    create_error: int | None = None
    describe_errors: dict[str, int] = field(default_factory=dict[str, int])
    settings: dict[str, str] = field(default_factory=dict[str, str])

    def list_topics(self, *, timeout: float) -> Any:
        assert timeout > 0
        return SimpleNamespace(
            topics={name: SimpleNamespace(partitions=range(count)) for name, count in self.existing.items()}
        )

    def create_topics(self, new: Sequence[NewTopic], **_: object) -> dict[str, Future[Any]]:
        if self.create_error is None:
            self.existing |= {each.topic: each.num_partitions for each in new}
        return {each.topic: done(error=self.create_error) for each in new}

    def describe_configs(self, resources: Iterable[ConfigResource]) -> dict[ConfigResource, Future[Any]]:
        return {each: self._described(str(each.name)) for each in resources}

    def _described(self, name: str) -> Future[Any]:
        if name in self.describe_errors:
            return done(error=self.describe_errors[name])
        (topic,) = [each for each in WANTED if each.name == name]
        settings = {**topic.settings, **self.settings}
        return done({key: SimpleNamespace(value=value) for key, value in settings.items()})


def applied(admin: Admin, *, partitions: int = 3) -> list[TopicReport]:
    return apply_topics(cast("AdminClient", admin), WANTED, partitions=partitions)


def existing(partitions: int = 3) -> dict[str, int]:
    return {topic.name: partitions for topic in WANTED}


def test_missing_topics_are_created_and_not_checked() -> None:
    admin = Admin()
    assert [(each.name, each.created, each.partitions) for each in applied(admin)] == [
        (topic.name, True, 3) for topic in WANTED
    ]
    assert admin.existing == existing()


def test_what_differs_is_a_line_each() -> None:
    reports = applied(Admin(existing(1), settings={"retention.ms": "1"}))
    assert [len(each.drift) for each in reports] == [2, 2]
    assert [each.unchecked for each in reports] == [None, None]


@pytest.mark.parametrize("code", NOT_ALLOWED)
def test_existing_topics_whose_settings_are_hidden_are_reported_and_hold_nothing_up(code: int) -> None:
    events, quarantine = applied(Admin(existing(), describe_errors={TASK_EVENTS.name: code}))
    assert events.unchecked is not None
    assert "DescribeConfigs" in events.unchecked
    assert (events.created, events.partitions, events.drift) == (False, 3, [])
    assert (quarantine.unchecked, quarantine.drift) == (None, [])


def test_partitions_are_compared_even_where_settings_are_hidden() -> None:
    events, _ = applied(Admin(existing(1), describe_errors={TASK_EVENTS.name: NOT_ALLOWED[0]}))
    assert events.drift == ["1 partitions, 3 are configured (TASKBRIDGE_PARTITIONS)"]


@pytest.mark.parametrize("code", NOT_ALLOWED)
def test_a_missing_topic_that_may_not_be_created_is_an_error_that_says_what_to_do(code: int) -> None:
    with pytest.raises(TopicsUnavailable, match=r"taskbridge\.task-events\.v1 .* 'taskbridge topics apply'"):
        applied(Admin(create_error=code))


def test_nothing_is_created_where_all_is_there() -> None:
    assert not any(each.created for each in applied(Admin(existing(), create_error=NOT_ALLOWED[0])))


def test_a_topic_that_somebody_else_creates_meanwhile_is_compared() -> None:
    class Raced(Admin):
        def create_topics(self, new: Sequence[NewTopic], **_: object) -> dict[str, Future[Any]]:
            self.existing = existing(2)
            return {each.topic: done(error=KafkaError.TOPIC_ALREADY_EXISTS) for each in new}

    assert [(each.created, len(each.drift)) for each in applied(Raced())] == [(False, 1), (False, 1)]


def test_settings_that_cannot_be_read_for_another_reason_are_an_error() -> None:
    with pytest.raises(TopicsUnavailable, match="settings"):
        applied(Admin(existing(), describe_errors={TASK_EVENTS.name: KafkaError.REQUEST_TIMED_OUT}))
