# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownLambdaType=false
"""The reference job on Quix Streams, record by record, in an environment of its own that the harness makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from quixstreams import Application
from quixstreams.models.serializers import Serializer
from tests.bench.streams.peers.given import Given

if TYPE_CHECKING:
    from tests.bench.streams.peers.job import Notified

_STATE = "instance"


class Result(NamedTuple):
    state: bytes | None
    notified: list[Notified]


class StateOf(Serializer):
    """The state's bytes, or a tombstone."""

    def __call__(self, value: Result, ctx: Any) -> Any:  # noqa: ARG002 - the framework's signature
        return value.state


class NotificationOf(Serializer):
    def __call__(self, value: Notified, ctx: Any) -> bytes:  # noqa: ARG002 - the framework's signature
        return value.value


def main() -> None:
    given = Given.read()
    job = given.job
    app = Application(
        broker_address=given.bootstrap_servers,
        consumer_group=given.group,
        auto_offset_reset="earliest",
        processing_guarantee="at-least-once",
        state_dir=given.state_dir,
        producer_extra_config={
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": given.linger_ms,
            "batch.size": 256 << 10,
            "queue.buffering.max.messages": 1_000_000,
        },
        auto_create_topics=True,
        loglevel="WARNING",
    )

    def on_event(value: bytes, state: Any) -> Result:
        stored, published, notified = job.step(state.get_bytes(_STATE), value)
        state.set_bytes(_STATE, stored)
        return Result(published, notified)

    events = app.topic(given.events_topic, key_deserializer="bytes", value_deserializer="bytes")
    states = app.topic(given.states_topic, key_serializer="bytes", value_serializer=StateOf())
    notifications = app.topic(given.notifications_topic, key_serializer="bytes", value_serializer=NotificationOf())
    results = app.dataframe(events).apply(on_event, stateful=True)
    results.to_topic(states)
    notified = results.apply(lambda result: result.notified, expand=True)
    notified = notified.set_headers(lambda value, *_: value.headers)
    notified.to_topic(notifications, key=lambda value: value.key)
    given.report_ready()
    app.run()


if __name__ == "__main__":
    main()
