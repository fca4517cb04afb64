"""The settings of the streams service, all from the environment."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from taskbridge.schemas.topics import REPLAYED_DAYS


class StreamsSettings(BaseSettings):
    """Each field is the environment variable ``STREAMS_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="STREAMS_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    """Address on which the API, health, metrics and pages are served. Any address other than loopback requires
    `STREAMS_API_TOKENS_FILE`."""
    port: int = Field(8500, ge=0, le=65535)
    """Port on which they are served. `0` chooses a free port."""
    kafka_bootstrap_servers: str
    """Addresses of Kafka brokers: `host:port`, comma-separated."""
    kafka_config_file: Path | None = None
    """File with further properties of all Kafka clients (TLS, SASL): one librdkafka `name=value` per line. Those of the
    registry begin with `schema.registry.`."""
    schema_registry_url: str
    """URL of the schema registry's Confluent API."""
    data_dir: Path = Path("taskbridge-streams")
    """Folder with the worker's local state. Each worker needs its own: a second worker in it does not start."""
    live_instances: int = Field(60_000, ge=0)
    """Maximum number of instances in memory, about 2 KiB each (4 KiB without the native core). Others are read from
    disk."""
    retention_days: int = Field(0, ge=0)
    """Days that an instance without open tasks is stored after its last event. `0`: for ever. Otherwise at least 30, so
    that replayed dead letters do not make it pending again. Deleted instances are stored for 30 days."""
    state_form_fields: str = ""
    """Form fields whose values states contain, for the data platform: names, comma-separated, or `*` for all. At most 8
    KiB per instance. Everyone who may read states can read them. Set the same value on all workers. `--rebuild` adds
    them to existing states."""
    advertised_url: str | None = None
    """URL under which other workers reach this one. Default: `http://` with host and port."""
    task_center: bool = True
    """`false`: publish states and notifications only, without inboxes and API. Set the same value on all workers of a
    group. After enabling it later, run `taskbridge streams --republish` once."""
    event_streams: int = Field(10_000, ge=1)
    """Maximum number of live-update connections per worker, including those to other workers. Each takes about 10 KB.
    Further ones get 503."""
    event_streams_per_user: int = Field(32, ge=1)
    """Maximum number of live-update connections per person, across all tabs and devices. Further ones get 429."""
    edge_urls: str = ""
    """URLs of the edges, comma-separated. The operator page shows their status."""
    reconcile_url: str = ""
    """URL of the reconcile service. The operator page shows the callbacks that it found missing, by app and day."""
    api_tokens_file: Path | None = None
    """File with the API tokens and their permissions. Required before the service may listen on an address other than
    loopback. Changes are loaded without a restart."""
    allowed_origins: str = ""
    """Origins whose pages may embed the task list, such as `https://portal.example`, comma-separated."""
    query_rate_per_s: float = Field(500.0, gt=0)
    """Average queries per second that a worker answers for one caller: a token, a signed-in person, or an address.
    Further ones get 429 with `Retry-After`."""
    sso_proxies: str = ""
    """Networks of the reverse proxies whose identity headers are trusted (CIDR, comma-separated)."""
    sso_user_header: str = "x-forwarded-user"
    """Header in which these proxies send the id of the person who signed in."""
    sso_corp_header: str | None = None
    """Header in which these proxies send the person's corp. `STREAMS_SSO_PROXIES` requires this or
    `STREAMS_SSO_CORP_ID`."""
    sso_corp_id: str | None = None
    """Corp of every person who signs in, if there is only one corp."""
    sso_mapped_id: str | None = None
    """Type of id in the user header, if it is not the user id: `employee_number`, or the name of another id in the
    people topic."""
    people_max: int = Field(200_000, ge=0)
    """Maximum number of people whose names and departments a worker stores in memory. Each takes about 250 bytes, or
    650 with `STREAMS_SSO_MAPPED_ID`. Others appear by their ids."""
    labels_max: int = Field(100_000, ge=0)
    """Maximum number of field labels and form titles that a worker stores in memory, about 200 bytes each. A form
    beyond the limit appears with its field ids."""
    sso_stream_s: float = Field(300.0, gt=0)
    """Seconds after which the live-update connection of a signed-in person closes, so that they reconnect through the
    proxy."""
    cluster_secret: SecretStr | None = Field(None, min_length=16)
    """Secret with which workers sign the identity in queries that they forward: at least 16 characters, the same on all
    workers. Required for single sign-on with several workers."""
    standbys: int = Field(1, ge=0)
    """Number of other workers that hold a standby copy of each partition's states."""
    session_timeout_s: float = Field(6.0, gt=0, le=60)
    """Seconds after which a worker that sends no heartbeat loses its partitions. A worker that restarts sooner gets
    them back without a rebalance."""
    restore_buffer_bytes: int = Field(64 << 20, ge=1 << 20)
    """Maximum size of changelog records that wait in memory while tables are restored."""
    watchdog_s: float = Field(120.0, gt=0)
    """A worker that makes no progress for this long exits, so that its supervisor restarts it. In seconds."""
    log_format: Literal["text", "json"] = "text"
    """`text`, or `json` for one object per line."""
    log_level: str = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""

    @field_validator("retention_days")
    @classmethod
    def _outlives_replays(cls, days: int) -> int:
        if 0 < days < REPLAYED_DAYS:
            raise ValueError(
                f"must be 0 (for ever) or at least {REPLAYED_DAYS}: an event can be replayed for {REPLAYED_DAYS} days, "
                "and would make its task pending again"
            )
        return days

    @property
    def form_fields(self) -> frozenset[str]:
        """Names of the form fields whose values states contain."""
        return frozenset(each.strip() for each in self.state_form_fields.split(",")) - {""}

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
