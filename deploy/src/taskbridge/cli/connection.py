"""Finds Kafka and the registry for commands: from options, the environment, or the bridge that runs here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.cli import data_folder as folders
from taskbridge.runtime.kafka import admin_client, read_kafka_config
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.runtime.kafka import Admin

_LOCAL_KAFKA_PORT = 9092
LOCAL_BOOTSTRAP_SERVERS = f"127.0.0.1:{_LOCAL_KAFKA_PORT}"
LOCAL_REGISTRY_URL = "http://127.0.0.1:8081/apis/ccompat/v7"

_OTHERS = "set --bootstrap-servers and --registry-url"
_PREFIXES = ("TASKBRIDGE", "EDGE", "STREAMS")


@dataclass(frozen=True)
class Connection:
    """Addresses, extra client properties (TLS, SASL, registry), and one shared registry client."""

    bootstrap_servers: str
    registry_url: str
    kafka_properties: Mapping[str, str]
    is_default: bool = False
    """No address is given, and no bridge runs."""

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.registry_url, properties=self.kafka_properties)

    def close(self) -> None:
        """Close the connections to the registry."""
        self.registry.close()

    def admin(self) -> Admin:
        return admin_client(self.bootstrap_servers, self.kafka_properties)


def find_connection(
    bootstrap_servers: str | None,
    registry_url: str | None,
    environment: Mapping[str, str] = os.environ,
    *,
    data_dir: Path | None = None,
) -> Connection:
    """The first connection that is given.

    Looked up in this order: the address option, the bridge that runs in ``data_dir``, ``TASKBRIDGE_*``, the services'
    own settings, the bridge that runs in ``TASKBRIDGE_DATA_DIR`` or here, the local stack's default.

    Raises:
        ConfigurationError: only a data folder is given, and no bridge runs in it.
    """
    folder = folders.data_folder(data_dir, environment)
    running = folder.running()
    servers, url = first_given(environment, "KAFKA_BOOTSTRAP_SERVERS"), first_given(environment, "SCHEMA_REGISTRY_URL")
    if running is not None and (data_dir is not None or not (servers or url)):
        servers, url = running.bootstrap_servers, running.registry_url
    servers, url = bootstrap_servers or servers, registry_url or url
    if not (servers or url) and folder.is_named and folder.is_bridges:
        raise ConfigurationError(f"{folder.nothing_runs()}, or {_OTHERS}")
    config_file = first_given(environment, "KAFKA_CONFIG_FILE")
    properties = read_kafka_config(Path(config_file) if config_file else None)
    is_default = not (servers or url)
    return Connection(servers or LOCAL_BOOTSTRAP_SERVERS, url or LOCAL_REGISTRY_URL, properties, is_default=is_default)


def check_something_runs(connection: Connection) -> None:
    """Check that Kafka listens at the default address, where no address is given.

    Raises:
        OperatorError: it does not; the message names ``taskbridge up`` and the options.
    """
    if connection.is_default and not folders.is_listened_on(_LOCAL_KAFKA_PORT):
        raise OperatorError(f"{folders.data_folder().nothing_runs()}, or {_OTHERS}")


def first_given(environment: Mapping[str, str], name: str) -> str | None:
    """The first that is set of ``TASKBRIDGE_NAME``, ``EDGE_NAME`` and ``STREAMS_NAME``."""
    return next((value for prefix in _PREFIXES if (value := environment.get(f"{prefix}_{name}"))), None)
