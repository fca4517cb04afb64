from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoints:
    """The addresses of Kafka and the registry; ``registry_url`` is the base URL of its Confluent API."""

    bootstrap_servers: str
    registry_url: str
