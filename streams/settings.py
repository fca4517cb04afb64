"""The settings of the streams service, all by environment."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.topics import REPLAYED_DAYS


class StreamsSettings(BaseSettings):
    """``STREAMS_*``: where Kafka and the registry are, where state is kept, where HTTP is served."""

    model_config = SettingsConfigDict(env_prefix="STREAMS_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(8500, ge=0, le=65535)
    kafka_bootstrap_servers: str
    kafka_config_file: Path | None = None
    schema_registry_url: str
    data_dir: Path = Path("taskbridge-streams")
    live_instances: int = Field(60_000, ge=0)
    """How many are held in memory, some two kilobytes each (four without the native core); others are on disk."""
    retention_days: int = Field(0, ge=0)
    """How long an instance that nobody has to do anything about is kept after its last event; 0 is for ever."""
    advertised_url: str | None = None
    task_center: bool = True
    """Whether the group keeps the inboxes and answers queries; the same for all workers of the group."""
    event_streams: int = Field(10_000, ge=1)
    """Connections for live updates that a worker holds at a time, some ten kilobytes each."""
    event_streams_per_user: int = Field(32, ge=1)
    """Of one person: their tabs and devices, and no more of the places than that."""
    edge_urls: str = ""
    """Where the edges are, comma-separated: the operations page shows what they say of themselves."""
    api_tokens_file: Path | None = None
    allowed_origins: str = ""
    """Whose pages may embed the component: origins such as ``https://portal.example``, comma-separated."""
    query_rate_per_s: float = Field(500.0, gt=0)
    """Queries of one caller (a token, a person who signed in, else an address) that a worker answers, on average."""
    sso_proxies: str = ""
    """Networks of the reverse proxies whose word on who is asking is believed: CIDRs, comma-separated."""
    sso_user_header: str = "x-forwarded-user"
    sso_corp_header: str | None = None
    sso_corp_id: str | None = None
    sso_stream_s: float = Field(300.0, gt=0)
    """How long an event stream of somebody who signed in stays open before they come back through the proxy."""
    cluster_secret: SecretStr | None = Field(None, min_length=16)
    """Shared by all workers: they sign with it on whose behalf they forward a query. Needed with SSO only."""
    standbys: int = Field(1, ge=0)
    session_timeout_s: float = Field(6.0, gt=0, le=60)
    restore_buffer_bytes: int = Field(64 << 20, ge=1 << 20)
    watchdog_s: float = Field(120.0, gt=0)
    log_format: Literal["text", "json"] = "text"
    log_level: str = "INFO"

    @field_validator("retention_days")
    @classmethod
    def _outlives_replays(cls, days: int) -> int:
        if 0 < days < REPLAYED_DAYS:
            raise ValueError(
                f"0 (for ever) or {REPLAYED_DAYS} or more is needed: as long, an event can be put back, "
                "and what it says was to be done would be pending again"
            )
        return days

    @property
    def url(self) -> str:
        """Where other workers reach this one."""
        return self.advertised_url or f"http://{self.host}:{self.port}"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the HTTP side."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
