"""A Faust app of a worker that is not connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.runtime.settings import load_settings
from taskbridge.streams.engine.app import build_faust_app
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from pathlib import Path

    import faust


def faust_app(folder: Path, *, partitions: int) -> faust.App:
    environment = {
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "STREAMS_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
        "STREAMS_DATA_DIR": str(folder),
    }
    return build_faust_app(load_settings(StreamsSettings, environment), partitions=partitions, kafka_properties={})
