"""Deletes what is left of versions that are not live any more: their changelogs on Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from taskbridge.runtime.kafka import admin_client, consumer_config, read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.contract.live_version import LiveVersion
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.positions.changelog_topic import instances_changelog
from taskbridge.streams.positions.offsets import Offsets
from taskbridge.streams.positions.version import FIRST_VERSION, VERSION_TOPIC
from taskbridge.streams.rebuild.operation import delete_topics
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANSWER_S = 15


def forget_old(environment: Mapping[str, str]) -> list[str]:
    """The names of the changelogs that were deleted; none where the first version is live.

    Raises:
        OperatorError: Kafka does not answer, or does not allow it.
    """
    settings = load_settings(StreamsSettings, environment)
    configure_logs(settings.log_format, "WARNING")
    servers, properties = settings.kafka_bootstrap_servers, read_kafka_config(settings.kafka_config_file)
    admin = admin_client(servers, properties)
    offsets = Offsets(consumer_config(servers, APP_ID, properties))
    try:
        there = admin.list_topics(timeout=_ANSWER_S).topics
        if VERSION_TOPIC.name not in there:
            return []
        live = LiveVersion(servers, properties, offsets).read().live
        names = [instances_changelog(version).name for version in range(FIRST_VERSION, live)]
        old = [name for name in names if name in there]
        if old:
            delete_topics(admin, old)
    except (KafkaException, TimeoutError) as error:
        raise OperatorError(f"Kafka refuses or does not answer: {error}") from error
    return old
