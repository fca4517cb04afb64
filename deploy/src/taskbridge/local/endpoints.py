from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoints:
    """Where Kafka and the registry are; ``registry_url`` is the whole base of its Confluent API."""

    bootstrap_servers: str
    registry_url: str
