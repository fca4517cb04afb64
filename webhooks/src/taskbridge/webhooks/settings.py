"""The settings of webhooks, all from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class WebhooksSettings(BaseSettings):
    """Each field is the environment variable ``WEBHOOKS_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="WEBHOOKS_", frozen=True, extra="ignore")

    endpoints_file: Path
    """TOML file with the endpoints. Changes are loaded without a restart."""
    host: str = "127.0.0.1"
    """Address on which health and metrics are served."""
    port: int = Field(8700, ge=0, le=65535)
    """Port on which they are served. `0` chooses a free port."""
    database_url: SecretStr | None = None
    """`postgresql://user:password@host/database` for several replicas. Default: the SQLite file `webhooks.db` in
    `WEBHOOKS_DATA_DIR`."""
    data_dir: Path = Path("taskbridge-webhooks")
    """Folder of the SQLite database and of cached schema ids."""
    kafka_bootstrap_servers: str
    """Addresses of Kafka brokers: `host:port`, comma-separated."""
    kafka_config_file: Path | None = None
    """File with further properties of all Kafka clients (TLS, SASL): one librdkafka `name=value` per line. Those of the
    registry begin with `schema.registry.`."""
    schema_registry_url: str
    """URL of the schema registry's Confluent API."""
    allowed_networks: str = ""
    """Networks (CIDR, comma-separated) that endpoints may be in although they are not public, such as
    `10.20.0.0/16`."""
    log_format: Literal["text", "json"] = "text"
    """`text`, or `json` for one object per line."""
    log_level: str = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
