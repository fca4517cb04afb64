"""Where an operator's command finds Kafka and the registry: flags, then the environment, then the local stack."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.registry import Registry
from service.kafka import admin_client, read_kafka_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka.admin import AdminClient

LOCAL_BOOTSTRAP_SERVERS = "127.0.0.1:9092"
LOCAL_REGISTRY_URL = "http://127.0.0.1:8081/apis/ccompat/v7"

_PREFIXES = ("TASKBRIDGE", "EDGE", "STREAMS")


@dataclass(frozen=True)
class Connection:
    """Addresses, and the extra librdkafka properties for TLS or SASL; one client of the registry for all who ask."""

    bootstrap_servers: str
    registry_url: str
    kafka_properties: Mapping[str, str]

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.registry_url)

    def close(self) -> None:
        """Close the registry's connections."""
        self.registry.close()

    def admin(self) -> AdminClient:
        return admin_client(self.bootstrap_servers, self.kafka_properties)


def find_connection(
    bootstrap_servers: str | None, registry_url: str | None, environment: Mapping[str, str] = os.environ
) -> Connection:
    """The first that is given: the flag, ``TASKBRIDGE_*``, the services' own settings, the local stack's default."""
    config_file = _first(environment, "KAFKA_CONFIG_FILE")
    return Connection(
        bootstrap_servers or _first(environment, "KAFKA_BOOTSTRAP_SERVERS") or LOCAL_BOOTSTRAP_SERVERS,
        registry_url or _first(environment, "SCHEMA_REGISTRY_URL") or LOCAL_REGISTRY_URL,
        read_kafka_config(Path(config_file) if config_file else None),
    )


def _first(environment: Mapping[str, str], name: str) -> str | None:
    return next((value for prefix in _PREFIXES if (value := environment.get(f"{prefix}_{name}"))), None)
