"""One edge app with a publisher that remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.edge.client import EdgeClient
from support.edge.fakes import SOURCE_SECRET, SYSTEM_TOKEN, MemoryPublisher, write_credentials
from taskbridge.edge.app import create_app
from taskbridge.edge.settings import EdgeSettings

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> EdgeSettings:
    write_credentials(tmp_path / "credentials.toml", SYSTEM_TOKEN, "previous-token", secrets=(SOURCE_SECRET,))
    return EdgeSettings(
        kafka_bootstrap_servers="127.0.0.1:1",
        schema_registry_url="http://127.0.0.1:1",
        credentials_file=tmp_path / "credentials.toml",
        data_dir=tmp_path / "edge",
    )


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
def client(settings: EdgeSettings, publisher: MemoryPublisher) -> Generator[EdgeClient]:
    with EdgeClient(create_app(settings, publisher=publisher)) as client:
        yield client
