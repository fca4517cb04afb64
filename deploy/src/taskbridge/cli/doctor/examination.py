"""All checks, in the order of their dependencies."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from taskbridge.cli.connection import Connection, check_something_runs, find_connection
from taskbridge.cli.data_folder import data_folder
from taskbridge.cli.doctor import host, services
from taskbridge.cli.doctor.findings import failed, found, ok, warning
from taskbridge.cli.doctor.kafka import Rights, kafka
from taskbridge.edge.kafka.acls import EDGE
from taskbridge.edge.settings import EdgeSettings
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.settings import FileBroken, load_settings
from taskbridge.runtime.topic_admin import partitions_setting
from taskbridge.streams.api.tokens import TokensFile
from taskbridge.streams.contract.start import optional_acls, required_acls
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from taskbridge.cli.doctor.findings import Finding

_STATES_BYTES = 1 << 30
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CORRECT = "correct the setting; docs/reference/settings.md lists all"


@dataclass(frozen=True)
class Examination:
    """The checks of one environment. A failed check skips only those that depend on it."""

    environment: Mapping[str, str]
    bootstrap_servers: str | None = None
    registry_url: str | None = None
    data_dir: Path | None = None
    credentials: Path | None = None
    edge_url: str | None = None
    streams_url: str | None = None

    def findings(self, *, end_to_end: bool = False, api_token: str | None = None) -> Iterator[Finding]:
        configure_logs("text", "ERROR")
        alone = {name for name in ("edge", "streams") if f"{name.upper()}_KAFKA_BOOTSTRAP_SERVERS" in self.environment}
        if "edge" in alone:
            yield from found("settings", self._edge, _CORRECT)
        if "streams" in alone:
            yield from found("settings", self._streams, _CORRECT)
        running = None if alone else data_folder(self.data_dir, self.environment).running()
        if not alone:
            yield from found("kafka", self._connection, "start it, or set --bootstrap-servers")
        edge = self.edge_url or (running.edge_url if running else None)
        streams = self.streams_url or (running.streams_url if running else None)
        if edge is not None:
            yield from services.readiness("edge", edge)
            yield from host.clock(f"{edge.rstrip('/')}/healthz")
        if streams is not None:
            yield from services.readiness("streams", streams)
        if end_to_end:
            if edge is None or streams is None:
                yield failed(
                    "end-to-end", "the addresses of the services are unknown", "set --edge-url and --streams-url"
                )
            else:
                yield from found(
                    "end-to-end", partial(self._end_to_end, edge, streams, api_token), "start what is missing"
                )

    def _connection(self) -> Iterator[Finding]:
        connection = find_connection(
            self.bootstrap_servers, self.registry_url, self.environment, data_dir=self.data_dir
        )
        check_something_runs(connection)
        yield from self._brokers(connection, None, "--bootstrap-servers")

    def _edge(self) -> Iterator[Finding]:
        settings = load_settings(EdgeSettings, self.environment)
        yield ok("settings", "the settings of the edge are valid")
        yield from found("credentials", partial(self._credentials, settings.credentials_file), "correct the file")
        yield from host.folder(settings.data_dir, setting="EDGE_DATA_DIR", needs_bytes=settings.spool_max_bytes)
        yield from host.port(settings.host, settings.port, service="edge", setting="EDGE_PORT")
        yield from host.open_files(settings.max_connections)
        yield from self._brokers(_connection(settings), Rights("edge", EDGE), "EDGE_KAFKA_BOOTSTRAP_SERVERS")

    def _streams(self) -> Iterator[Finding]:
        settings = load_settings(StreamsSettings, self.environment)
        yield ok("settings", "the settings of streams are valid")
        if settings.api_tokens_file is not None:
            yield from found("tokens", partial(_tokens, settings.api_tokens_file), "correct the file")
        yield from host.folder(settings.data_dir, setting="STREAMS_DATA_DIR", needs_bytes=_STATES_BYTES)
        yield from host.port(settings.host, settings.port, service="streams", setting="STREAMS_PORT")
        center = settings.task_center
        rights = Rights("streams", required_acls(task_center=center), optional_acls(task_center=center))
        yield from self._brokers(_connection(settings), rights, "STREAMS_KAFKA_BOOTSTRAP_SERVERS")

    def _brokers(self, connection: Connection, wanted: Rights | None, setting: str) -> Iterator[Finding]:
        yield from host.names(connection.bootstrap_servers, setting=setting)
        partitions = partitions_setting(self.environment)
        look = partial(kafka, connection.admin(), wanted=wanted, partitions=partitions)
        yield from found(
            "kafka", look, "start it, or correct the address; TLS and SASL: docs/how-to/run-on-your-kafka.md"
        )
        try:
            look = partial(services.registry, connection.registry)
            yield from found("registry", look, "start it, or correct its URL")
        finally:
            connection.close()
        yield from host.clock(connection.registry_url)

    def _credentials(self, path: Path) -> Iterator[Finding]:
        current = CredentialsFile(path).current
        if not current.count:
            yield failed(
                "credentials", f"{path} has no apps, so every callback is rejected", "add [[apps]] to the file"
            )
        else:
            yield ok("credentials", f"{path} has {current.count} apps and sources")
        if path.stat().st_mode & _OTHERS:
            yield warning("credentials", f"users other than its owner can read {path}", f"chmod 600 {path}")

    def _end_to_end(self, edge: str, streams: str, api_token: str | None) -> Iterator[Finding]:
        named = self.credentials or data_folder(self.data_dir, self.environment).credentials
        try:
            credentials = CredentialsFile(named).current
        except FileBroken as error:
            yield failed("end-to-end", str(error), "set --credentials to the credentials file of the edge")
            return
        yield from services.end_to_end(edge, streams, credentials, api_token)


def _connection(settings: EdgeSettings | StreamsSettings) -> Connection:
    properties = read_kafka_config(settings.kafka_config_file)
    return Connection(settings.kafka_bootstrap_servers, settings.schema_registry_url, properties)


def _tokens(path: Path) -> Iterator[Finding]:
    yield ok("tokens", f"{path} has {TokensFile(path).current.count} tokens")
