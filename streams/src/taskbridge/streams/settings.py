"""The settings of the streams service, all by environment."""

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
    """Where the API, health, metrics and pages are served. More than loopback needs `STREAMS_API_TOKENS_FILE`."""
    port: int = Field(8500, ge=0, le=65535)
    """The port of the same; 0 is a free one."""
    kafka_bootstrap_servers: str
    """Addresses of Kafka, `host:port`, comma-separated."""
    kafka_config_file: Path | None = None
    """More properties of all clients (TLS, SASL), one `name=value` a line: librdkafka's, and the registry's as
    `schema.registry.…`."""
    schema_registry_url: str
    """Address of the schema registry's Confluent API."""
    data_dir: Path = Path("taskbridge-streams")
    """The worker's state. One folder a worker: a second one in it is refused."""
    live_instances: int = Field(60_000, ge=0)
    """Instances that are held in memory, some 2 KiB each (4 without the native core); the others are read from disk."""
    retention_days: int = Field(0, ge=0)
    """How long an instance is kept after its last event once nobody has anything to do; 0 is for ever, else 30 or more:
    so long, dead letters can be put back, and would be pending again. Deleted instances are kept for 30 days."""
    state_form_fields: str = ""
    """Fields of forms whose values stand in states, for the data platform: names, comma-separated, or `*` for all; at
    most 8 KiB of an instance. Whoever may read states reads them. The same for all workers. `--rebuild` fills them in
    where states were made before."""
    advertised_url: str | None = None
    """Where other workers reach this one. Default: `http://` with host and port."""
    task_center: bool = True
    """`false`: no inboxes and no API, only states and notifications; the same for all workers of a group. Switched on
    later: run `taskbridge streams --republish` once."""
    event_streams: int = Field(10_000, ge=1)
    """Connections for live updates that a worker holds at a time, some ten kilobytes each, those to other workers too;
    more get 503."""
    event_streams_per_user: int = Field(32, ge=1)
    """Connections for live updates of one person, all tabs and devices; more get 429."""
    edge_urls: str = ""
    """Where the edges are, comma-separated: the operator's page shows what they say of themselves."""
    reconcile_url: str = ""
    """Where the service of reconcile is: the operator's page shows what it found missing, by app and day."""
    api_tokens_file: Path | None = None
    """Who may ask, by token. Needed before the service may listen on more than loopback. Read again when it changes."""
    allowed_origins: str = ""
    """Whose pages may embed the task list: origins such as `https://portal.example`, comma-separated."""
    query_rate_per_s: float = Field(500.0, gt=0)
    """Queries of one caller (a token, a person who signed in, else an address) that a worker answers, on average; more
    get 429 with `Retry-After`."""
    sso_proxies: str = ""
    """Networks of the reverse proxies whose word on who is asking is believed: CIDRs, comma-separated."""
    sso_user_header: str = "x-forwarded-user"
    """The header in which these proxies say who signed in."""
    sso_corp_header: str | None = None
    """The header in which these proxies say whose user that is; this or `STREAMS_SSO_CORP_ID` goes with
    `STREAMS_SSO_PROXIES`."""
    sso_corp_id: str | None = None
    """The organisation of everybody who signed in, where there is only one."""
    sso_mapped_id: str | None = None
    """Which id of a person the header has, where it is not the user id: `employee_number`, or the name of another id in
    the topic of people."""
    people_max: int = Field(200_000, ge=0)
    """People whose names and departments each worker holds in memory, some 250 bytes each, or 650 with
    `STREAMS_SSO_MAPPED_ID`; others are shown by their ids."""
    labels_max: int = Field(100_000, ge=0)
    """Labels of forms' fields, and titles of forms, that each worker holds in memory, some 200 bytes each; a form that
    has no room is shown by its fields' ids."""
    sso_stream_s: float = Field(300.0, gt=0)
    """How long an event stream of somebody who signed in stays open before they come back through the proxy."""
    cluster_secret: SecretStr | None = Field(None, min_length=16)
    """16 characters or more, the same on all workers: they sign with it on whose behalf they forward a query. Needed
    with single sign-on and several workers."""
    standbys: int = Field(1, ge=0)
    """How many other workers keep the states of each partition warm."""
    session_timeout_s: float = Field(6.0, gt=0, le=60)
    """A worker that died is missed after this long; one that restarts in time is not missed."""
    restore_buffer_bytes: int = Field(64 << 20, ge=1 << 20)
    """Changelog that may wait in memory while tables are restored."""
    watchdog_s: float = Field(120.0, gt=0)
    """A worker that has work and does none of it for this long ends, to be started anew."""
    log_format: Literal["text", "json"] = "text"
    """`json`: one object a line."""
    log_level: str = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""

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
    def form_fields(self) -> frozenset[str]:
        """Names of those whose values stand in states."""
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
