"""Kafka Streams commits as rarely as suits each measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.bench.streams.contenders import (
    KAFKA_STREAMS,
    KAFKA_STREAMS_EXACTLY_ONCE,
    LINGER_MS,
    LOW_LINGER_MS,
    prepare,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "throughput", "latency"),
    [
        (KAFKA_STREAMS, "1000", "1000"),
        (KAFKA_STREAMS_EXACTLY_ONCE, "1000", "100"),
    ],
)
def test_exactly_once_it_commits_soon_where_latency_is_measured(
    setup: Any, tmp_path: Path, name: str, throughput: str, latency: str
) -> None:
    contender = prepare(name, setup)
    channels = contender.channels("label", "events")
    env = [contender.program(channels, tmp_path / "states", each).env for each in (LINGER_MS, LOW_LINGER_MS)]
    assert [each["PEER_COMMIT_MS"] for each in env] == [throughput, latency]
    assert env[1]["PEER_LINGER_MS"] == str(LOW_LINGER_MS)
