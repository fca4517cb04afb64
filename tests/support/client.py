"""The fake Kafka of the client with errors of brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, Message

from taskbridge.client.testing import FakeKafka
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.client.source import Consumer


class TroubledKafka(FakeKafka):
    """Its consumers get an error at each read, from ``stall`` or ``refuse`` on."""

    def __init__(self, *, partitions: int = 3) -> None:
        super().__init__(partitions=partitions)
        self.consumers: list[_Troubled] = []
        """Those that are not closed."""

    def stall(self) -> None:
        """Report a moved coordinator to the members. They read nothing until they join again."""
        for each in self.consumers:
            each.error = KafkaError(KafkaError.NOT_COORDINATOR)

    def refuse(self) -> None:
        """Deny access from now on."""
        for each in self.consumers:
            each.error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def member(self, group: str) -> Consumer:
        return cast("Consumer", _Troubled(self, super().member(group)))

    def whole(self) -> Consumer:
        return cast("Consumer", _Troubled(self, super().whole()))


class _Troubled:
    def __init__(self, kafka: TroubledKafka, consumer: Consumer) -> None:
        self.error: KafkaError | None = None
        self._kafka, self._consumer = kafka, consumer
        kafka.consumers.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if self.error is None:
            return self._consumer.consume(num_messages, timeout)
        make = cast("Callable[..., Message]", Message)
        return [make(topic=TASK_NOTIFICATIONS.name, error=self.error)]

    def close(self) -> None:
        self._kafka.consumers.remove(self)
        self._consumer.close()
