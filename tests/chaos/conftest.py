"""A Kafka of the test's own, which it may freeze and kill. The registry is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.edge.process import OwnStack
from taskbridge.cli.connection import Connection
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints


@pytest.fixture
def own_stack(stack: Endpoints, tmp_path: Path) -> Generator[OwnStack]:
    own = OwnStack(tmp_path / "stack", registry_url=stack.registry_url)
    yield own
    own.stop()


@pytest.fixture
def connection(own_stack: OwnStack) -> Generator[Connection]:
    found = Connection(own_stack.endpoints.bootstrap_servers, own_stack.endpoints.registry_url, {})
    apply_topics(found.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    found.registry.register(topics.ALL)
    yield found
    found.close()
