"""The edge's settings, all from the environment, read once at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import NoDecode, SettingsConfigDict

from taskbridge.runtime.settings import Networks, ServiceSettings
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

LOOPBACK = "127.0.0.1"
_KIB = 1 << 10
_MIB = 1 << 20


def _split(value: Any) -> Any:
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


def _no_blank_token(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    # A secret that was not filled in must not open the edge to everyone, nor to a client that sends an empty one.
    if not all(token.get_secret_value().strip() for token in tokens):
        raise ValueError("one of the tokens is empty")
    return tokens


def _another_port(port: int | None, info: ValidationInfo) -> int | None:
    if port is not None and port == info.data.get("port"):
        raise ValueError("must differ from EDGE_PORT")
    return port


def _with_a_port(host: str, info: ValidationInfo) -> str:
    # Alone it would look as if the metrics were there, and leave them on the callbacks' port.
    if host != LOOPBACK and info.data.get("operator_port") is None:
        raise ValueError("requires EDGE_OPERATOR_PORT")
    return host


def _not_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("must name a network, such as 10.0.0.0/8; unset, it allows any")
    return value


class EdgeSettings(ServiceSettings):
    """Each field is the environment variable ``EDGE_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="EDGE_")

    credentials_file: Path
    """TOML file with the apps and other systems whose callbacks are accepted, and their secrets. Changes are loaded
    without a restart."""

    host: str = LOOPBACK
    """Address on which the edge receives callbacks; in containers `0.0.0.0`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8400
    """Port on which the edge receives callbacks."""
    operator_port: Annotated[
        int | None, Field(ge=1, le=65535), BeforeValidator(lambda value: value or None), AfterValidator(_another_port)
    ] = None
    """Separate port for `/metrics` and the details of `/readyz`; the callback port then serves neither. List it in
    `CENTER_EDGE_URLS`."""
    operator_host: Annotated[str, BeforeValidator(lambda value: value or LOOPBACK), AfterValidator(_with_a_port)] = (
        LOOPBACK
    )
    """Address of the separate port. Requires `EDGE_OPERATOR_PORT`."""
    workers: str | None = None
    """No effect: an edge is one process. Start more edges instead, for example with `taskbridge up --edges`."""
    data_dir: Path = Path("edge-data")
    """Folder for the spool, the signatures of past callbacks and the schema ids. Put it on a disk that survives
    restarts."""
    max_body_bytes: Annotated[int, Field(ge=1, le=(MAX_MESSAGE_BYTES - _MIB) // 2)] = _MIB
    """Maximum size of a request body; a larger one gets 413. An event contains the body twice and must fit into one
    record."""
    spool_max_bytes: Annotated[int, Field(ge=1)] = 1024 * _MIB
    """Maximum size of the spool."""
    kafka_timeout_ms: Annotated[int, Field(ge=1)] = 1000
    """How long a callback waits for Kafka's acknowledgement before it goes to the spool, in milliseconds."""
    bearer_tokens: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_no_blank_token)
    ] = ()
    """Bearer tokens, comma-separated. If set, each callback from Yida must have one of them in `Authorization: Bearer
    …`."""
    delete_extra_keys: Annotated[
        frozenset[str], NoDecode, BeforeValidator(_split), AfterValidator(lambda keys: keys - {""})
    ] = frozenset()
    """Parameters that a delete callback may have in addition to the documented ones, comma-separated."""
    source_networks: Annotated[Networks, BeforeValidator(_not_empty)] = ()
    """Networks that may send callbacks (CIDR, comma-separated). Unset: any network. An empty value is rejected."""
    trusted_proxies: Networks = ()
    """Networks of your proxies (CIDR, comma-separated). The edge trusts only the entries that they append to
    `X-Forwarded-For`."""
    max_header_bytes: ClassVar[int] = 16 * _KIB
    max_url_bytes: ClassVar[int] = 64 * _KIB - 1
    """httptools' URL parser counts in 16 bits."""
    max_connections: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of connections. At the limit, idle connections are closed for new ones."""
    quarantine_max_bytes_per_day: Annotated[int, Field(ge=0)] = 256 * _MIB
    """Bytes of rejected callbacks that are stored per day, for all senders. One sender gets a quarter."""
    replay_window_entries: Annotated[int, Field(ge=8, le=1 << 28)] = 1 << 20
    """Number of latest callbacks whose signatures are stored, so that copies are rejected. Each takes 32 bytes of disk,
    plus 8 per source."""
