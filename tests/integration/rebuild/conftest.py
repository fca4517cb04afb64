"""An empty Kafka for each test, because the live version of the states is recorded on Kafka."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.streams.lives import delete_all_topics, read_topic
from support.streams.processes import Rebuild
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.streams.processes import Read
    from taskbridge.cli.connection import Connection


@pytest.fixture
def partitions() -> int:
    """The number of partitions of each topic of the contract."""
    return topics.DEFAULT_PARTITIONS


@pytest.fixture
def connection(own_kafka: Connection, partitions: int) -> Connection:
    delete_all_topics(own_kafka)
    apply_topics(own_kafka.admin(), topics.ALL, partitions=partitions)
    return own_kafka


@pytest.fixture
def rebuild(connection: Connection, tmp_path: Path) -> Generator[Rebuild]:
    """The operator's commands."""
    found = Rebuild(connection, tmp_path)
    yield found
    found.kill_if_running()
    found.show_log()


@pytest.fixture
def read(connection: Connection) -> Read:
    return partial(read_topic, connection)
