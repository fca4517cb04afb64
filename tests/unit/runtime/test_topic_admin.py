"""Topics are checked as far as the Kafka user may. What it may not read is reported, and blocks nothing."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from taskbridge.runtime.topic_admin import TopicsUnavailable, apply_topics
from taskbridge.schemas.topics import ALL, CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka.admin import ConfigResource, NewTopic

    from taskbridge.runtime.kafka import Admin as Client
    from taskbridge.runtime.topic_admin import TopicReport

TOPICS = (TASK_EVENTS, CALLBACKS_QUARANTINE)
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
    brokers: int = 1
    replicas: int = 1
    """Of the topics that are there."""
    new: list[NewTopic] = field(default_factory=list["NewTopic"])

    def list_topics(self, *, timeout: float) -> Any:
        assert timeout > 0
        partition = SimpleNamespace(replicas=range(self.replicas))
        return SimpleNamespace(
            brokers=dict.fromkeys(range(self.brokers)),
            topics={
                name: SimpleNamespace(partitions=dict.fromkeys(range(count), partition))
                for name, count in self.existing.items()
            },
        )

    def create_topics(self, new: Sequence[NewTopic], **_: object) -> dict[str, Future[Any]]:
        self.new += new
        if self.create_error is None:
            self.existing |= {each.topic: each.num_partitions for each in new}
        return {each.topic: done(error=self.create_error) for each in new}

    def describe_configs(self, resources: Iterable[ConfigResource], **_: object) -> dict[ConfigResource, Future[Any]]:
        return {each: self._described(str(each.name)) for each in resources}

    def _described(self, name: str) -> Future[Any]:
        if name in self.describe_errors:
            return done(error=self.describe_errors[name])
        (topic,) = [each for each in ALL if each.name == name]
        settings = {**topic.settings, **self.settings}
        return done({key: SimpleNamespace(value=value) for key, value in settings.items()})


def applied(admin: Admin, *, partitions: int = 3) -> list[TopicReport]:
    return apply_topics(cast("Client", admin), TOPICS, partitions=partitions)


def existing(partitions: int = 3) -> dict[str, int]:
    return {topic.name: partitions for topic in TOPICS}


def test_missing_topics_are_created_and_not_checked() -> None:
    admin = Admin()
    assert [(each.name, each.created, each.partitions) for each in applied(admin)] == [
        (topic.name, True, 3) for topic in TOPICS
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
    assert events.drift == ["1 partitions, but 3 are configured (TASKBRIDGE_PARTITIONS)"]


@pytest.mark.parametrize("code", NOT_ALLOWED)
def test_a_missing_topic_that_may_not_be_created_is_an_error_that_says_what_to_do(code: int) -> None:
    with pytest.raises(TopicsUnavailable, match=r"taskbridge\.task-events\.v1 .* 'taskbridge topics apply'"):
        applied(Admin(create_error=code))


def test_a_topic_that_somebody_else_creates_meanwhile_is_compared() -> None:
    class Raced(Admin):
        def create_topics(self, new: Sequence[NewTopic], **_: object) -> dict[str, Future[Any]]:
            self.existing = existing(2)
            return {each.topic: done(error=KafkaError.TOPIC_ALREADY_EXISTS) for each in new}

    assert [(each.created, len(each.drift)) for each in applied(Raced())] == [(False, 1), (False, 1)]


def test_settings_that_cannot_be_read_for_another_reason_are_reported_and_block_nothing() -> None:
    events, quarantine = applied(Admin(existing(), describe_errors={TASK_EVENTS.name: KafkaError.REQUEST_TIMED_OUT}))
    assert "could not be read: Broker: Request timed out" in (events.unchecked or "")
    assert (events.partitions, quarantine.unchecked) == (3, None)


def test_where_there_are_three_replicas_two_must_be_in_sync_from_the_creation_on() -> None:
    for brokers, replicas, expected in ((1, 1, None), (2, 2, None), (3, 3, "2"), (5, 3, "2")):
        admin = Admin(brokers=brokers)
        applied(admin)
        found = [(each.replication_factor, (each.config or {}).get("min.insync.replicas")) for each in admin.new]
        assert found == [(replicas, expected)] * 2


def test_fewer_replicas_than_three_brokers_could_have_are_drift_and_on_fewer_brokers_they_are_not() -> None:
    drift = ["1 of 3 brokers have it, the contract says 3 (--replication)"]
    assert [each.drift for each in applied(Admin(existing(), brokers=3))] == [drift, drift]
    created = apply_topics(cast("Client", Admin(brokers=3)), TOPICS, partitions=3, replication=1)
    assert [each.drift for each in created] == [drift, drift], "of those that are made too"
    assert [each.drift for each in applied(Admin(existing(), brokers=2))] == [[], []]
