"""The entries of the quarantine's topic, on a Kafka that tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.codec import quarantined_callback_codec
from taskbridge.schemas.dead_letters import without_replays
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import QuarantinedCallback


def quarantined(connection: Connection, read_topic: Callable[[str], list[Message]]) -> list[QuarantinedCallback]:
    """Every entry; not the records that the tests of foreign headers produce to all topics."""
    codec = quarantined_callback_codec(connection.registry)
    messages = without_replays(read_topic(CALLBACKS_QUARANTINE.name), {})
    return [codec.decode(each.value()) for each in messages if each.key() != b"foreign"]
