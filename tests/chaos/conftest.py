"""A Kafka of the test's own, which it may freeze and kill. The registry is that of the run, where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.edge.process import OwnStack
from support.kafka.stack import given_registry
from taskbridge.cli.connection import Connection
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def own_stack(pytestconfig: pytest.Config, tmp_path: Path) -> Generator[OwnStack]:
    stack = OwnStack(tmp_path / "stack", registry_url=given_registry(pytestconfig))
    yield stack
    stack.stop()


@pytest.fixture
def connection(own_stack: OwnStack) -> Generator[Connection]:
    found = Connection(own_stack.endpoints.bootstrap_servers, own_stack.endpoints.registry_url, {})
    apply_topics(found.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    found.registry.register(topics.ALL)
    yield found
    found.close()
