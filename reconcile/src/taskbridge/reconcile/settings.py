"""The settings of reconcile, all by environment; what is known of each app stands in a file: ``apps``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _or_none(value: Any) -> Any:
    return value or None


class ReconcileSettings(BaseSettings):
    """Each field is the environment variable ``RECONCILE_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="RECONCILE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
    """Addresses of Kafka, `host:port`, comma-separated."""
    schema_registry_url: Annotated[str, Field(pattern="^https?://.")]
    """Address of the schema registry's Confluent API."""
    apps_file: Path
    """The apps that are asked for, and the organisations' credentials for the open API: TOML."""

    credentials_file: Annotated[Path | None, BeforeValidator(_or_none)] = None
    """The edge's credentials file: system tokens are taken from it of apps that say none in the file of apps."""
    kafka_config_file: Annotated[Path | None, BeforeValidator(_or_none)] = None
    """More properties of all clients (TLS, SASL), one `name=value` a line: librdkafka's, and the registry's as
    `schema.registry.…`."""
    host: str = "127.0.0.1"
    """Where the service has its health and metrics."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8600
    """The port of `RECONCILE_HOST`."""
    data_dir: Path = Path("reconcile-data")
    """What was called this month, how far each form was read, and what was found absent: keep it on a real disk."""
    api_url: Annotated[str, Field(pattern="^https?://.")] = "https://api.dingtalk.com"
    """Where DingTalk's open API is."""
    calls_per_second: Annotated[float, Field(gt=0, le=20)] = 10.0
    """Calls of an organisation, all kinds together. DingTalk refuses more than 20 of an app to one API."""
    calls_per_day: Annotated[int, Field(ge=1)] = 250
    """Calls of an organisation on one day, China's time."""
    calls_per_month: Annotated[int, Field(ge=1)] = 2500
    """Calls of an organisation in one month, China's time. The standard edition has 5,000, of which all apps and
    integrations of the organisation take."""
    call_timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    """How long one call may take."""
    call_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """How often a call is tried that meets a limit for a second, a fault of DingTalk's or of the network; each try
    counts as a call."""
    settle_minutes: Annotated[float, Field(ge=1, le=1440)] = 15.0
    """What was modified in DingTalk so lately is left for the next pass: its callbacks may be on their way."""
    every_minutes: Annotated[float, Field(ge=1, le=10_080)] = 1440.0
    """How long the service waits from pass to pass. Each takes a call for 100 instances of a form, at least one."""
    read_back_quiet: Annotated[float, Field(ge=0, le=604_800)] = 0.0
    """Seconds that an instance must be quiet for before the service asks for it, by three calls, between passes, where
    its callbacks left open who may decide, how it was decided or how it ended. Not less than
    `RECONCILE_SETTLE_MINUTES`, and only while half of a day's calls are left. 0: none."""
    records_per_second: Annotated[float, Field(gt=0, le=10_000)] = 50.0
    """Events a second at most, of a pass and of a backfill, so that no consumer is flooded."""
    ids_per_pass: Annotated[int, Field(ge=0, le=10_000)] = 200
    """Instances of an app that a pass asks for by id, 50 a call, for DingTalk has not shown them for a day, or, once
    finished, for a month: only so deletions are found. 0: none."""
    outcomes: bool = True
    """Whether instances are asked for, by two calls each, of which only how they were decided and ended is not known:
    most that change. Without, only those whose open tasks may differ."""
    remarks: bool = False
    """Whether the words that people leave with a decision go into events and states: whoever may read states reads
    them."""
    copies: bool = False
    """Whether records that DingTalk calls `carbon` are taken for who was copied in, which no document says: whoever
    they name is shown the instance."""
    log_format: Literal["text", "json"] = "text"
    """`json`: one object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG` has a line for each call too, without its parameters."""
