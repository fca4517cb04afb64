"""What several tests of the benchmarks' parts begin with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.bench.streams import contenders

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Of a contender of the streams that is never started, and nothing is built for it."""

    def built(_progress: object) -> Path:
        return tmp_path

    def schema_id(_topic: object) -> int:
        return 1

    monkeypatch.setattr(contenders, "build_kafka_streams", built)
    return SimpleNamespace(progress=print, bootstrap_servers="127.0.0.1:1", partitions=12, schema_id=schema_id)
