"""The edge's settings, all from the environment, read once at start."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

Networks = tuple[IPv4Network | IPv6Network, ...]

LOOPBACK = "127.0.0.1"
_MAPPED_BITS = 96
_KIB = 1 << 10
_MIB = 1 << 20
_URL_MAX = 64 * _KIB - 1
"""httptools' URL parser counts in 16 bits."""


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """The network that a CIDR names; one of IPv4-mapped IPv6 addresses is the IPv4 network.

    Raises:
        ValueError: it names none.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError("one of the networks is not a CIDR like 10.0.0.0/8, without host bits") from error
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _split(value: Any) -> Any:
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


def _no_blank_token(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    # A secret that was not filled in must not open the edge to everyone, nor to whoever sends a blank one.
    if not all(token.get_secret_value().strip() for token in tokens):
        raise ValueError("one of the tokens is blank")
    return tokens


def _no_blank(keys: frozenset[str]) -> frozenset[str]:
    return keys - {""}


def _or_none(value: Any) -> Any:
    return value or None


def _or_loopback(value: Any) -> Any:
    return value or LOOPBACK


def _another_port(port: int | None, info: ValidationInfo) -> int | None:
    if port is not None and port == info.data.get("port"):
        raise ValueError("must be another port than the callbacks'")
    return port


def _with_a_port(host: str, info: ValidationInfo) -> str:
    # Alone it would look as if the metrics were there, and leave them on the callbacks' port.
    if host != LOOPBACK and info.data.get("operator_port") is None:
        raise ValueError("needs EDGE_OPERATOR_PORT beside it")
    return host


def _networks(value: Any) -> Any:
    return tuple(parse_network(each) for each in _split(value)) if isinstance(value, str) else value


def _networks_or_none(value: Any) -> Any:
    return _networks(value) if value else ()


class EdgeSettings(BaseSettings):
    """Each field is the environment variable ``EDGE_`` and its name in capitals; the reference has its text."""

    model_config = SettingsConfigDict(env_prefix="EDGE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
    """Addresses of Kafka, `host:port`, comma-separated."""
    schema_registry_url: Annotated[str, Field(pattern="^https?://.")]
    """Address of the schema registry's Confluent API."""
    credentials_file: Path
    """The apps whose callbacks are accepted, and other systems, with their secrets. Read again when it changes."""

    host: str = LOOPBACK
    """Where callbacks are accepted. Loopback by default, so that nothing is open by accident; containers set
    `0.0.0.0`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8400
    """The port where callbacks are accepted."""
    operator_port: Annotated[
        int | None, Field(ge=1, le=65535), BeforeValidator(_or_none), AfterValidator(_another_port)
    ] = None
    """A port of its own for `/metrics` and the details of `/readyz`, which the callbacks' port then lacks. Name it in
    `STREAMS_EDGE_URLS`."""
    operator_host: Annotated[str, BeforeValidator(_or_loopback), AfterValidator(_with_a_port)] = LOOPBACK
    """The address that belongs to `EDGE_OPERATOR_PORT`."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes. With more than one, every metric has the label `worker`, and one scrape has all of them."""
    kafka_config_file: Annotated[Path | None, BeforeValidator(_or_none)] = None
    """More properties of all clients (TLS, SASL), one `name=value` a line: librdkafka's, and the registry's as
    `schema.registry.…`."""
    data_dir: Path = Path("edge-data")
    """The spool, the signatures that were seen and the ids of the schemas: keep it on a real disk."""
    max_body_bytes: Annotated[int, Field(ge=1, le=(MAX_MESSAGE_BYTES - _MIB) // 2)] = _MIB
    """Larger bodies are answered 413. A body stands in its event twice, and the event must fit into a record."""
    spool_max_bytes: Annotated[int, Field(ge=1)] = 1024 * _MIB
    """Bound of the spool, all workers together."""
    kafka_timeout_ms: Annotated[int, Field(ge=1)] = 1000
    """How long a callback waits for Kafka before it goes to the spool."""
    bearer_tokens: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_no_blank_token)
    ] = ()
    """Comma-separated. Where there are any, one must stand in `Authorization: Bearer …` of each callback of Yida's."""
    delete_extra_keys: Annotated[frozenset[str], NoDecode, BeforeValidator(_split), AfterValidator(_no_blank)] = (
        frozenset()
    )
    """Parameters that a delete may carry beside the documented ones, comma-separated."""
    source_networks: Annotated[Networks, NoDecode, BeforeValidator(_networks)] = ()
    """Networks (CIDR, comma-separated) that callbacks may come from; from anywhere when not given. Blank is wrong, lest
    it opens the edge by accident."""
    trusted_proxies: Annotated[Networks, NoDecode, BeforeValidator(_networks_or_none)] = ()
    """Networks (CIDR, comma-separated) of your proxies: only what they append to `X-Forwarded-For` is believed."""
    max_header_bytes: Annotated[int, Field(ge=_KIB, le=_MIB)] = 16 * _KIB
    """The largest head of a request, all headers together."""
    max_url_bytes: Annotated[int, Field(ge=_KIB, le=_URL_MAX)] = _URL_MAX
    """The longest URL. As large as can be: a whole callback may stand in the query string."""
    header_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10
    """How long a connection may take to deliver the head of a request."""
    max_connections: Annotated[int, Field(ge=1)] = 1000
    """Connections of each worker; idle ones give way to new ones."""
    max_connections_per_address: Annotated[int, Field(ge=0)] = 0
    """Connections of one address to each worker; 0 is no bound. Trusted proxies are not counted."""
    quarantine_max_per_minute: Annotated[int, Field(ge=1)] = 600
    """Rejected callbacks that are kept of one sender; ten times as many of all."""
    quarantine_max_bytes_per_day: Annotated[int, Field(ge=0)] = 256 * _MIB
    """Of all senders; one of them gets a quarter. A day's worth may come at once."""
    replay_window_entries: Annotated[int, Field(ge=8, le=1 << 28)] = 1 << 20
    """Latest callbacks whose signatures pass for nothing else; each takes 32 bytes of disk, and 8 for each source."""
    log_format: Literal["text", "json"] = "text"
    """`json`: one object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG` has a line for each accepted callback too."""
