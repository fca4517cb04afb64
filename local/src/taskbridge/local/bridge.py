"""Run the whole bridge on one machine: start Kafka, registry and services, supervise, stop in reverse order."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from taskbridge.center.settings import settings_class
from taskbridge.cli.connection import Connection
from taskbridge.cli.data_folder import DataFolder, Running
from taskbridge.cli.terminal import call_with_heartbeat
from taskbridge.edge.server.sockets import listen
from taskbridge.edge.settings import EdgeSettings
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.local.company import CORP
from taskbridge.local.host import LOOPBACK, check_distinct, check_free, readable_os_errors, write_new
from taskbridge.local.jvm import Endpoints
from taskbridge.local.stack import ExternalStack, choose_stack
from taskbridge.local.supervisor import ServiceSpec, Supervisor
from taskbridge.runtime.inside_http import NO_ANSWER, inside_client
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.settings import POLL_S, given_settings, load_settings
from taskbridge.runtime.tokens import TokensFile
from taskbridge.runtime.topic_admin import apply_topics, partitions_setting
from taskbridge.schemas import topics
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.settings import StreamsSettings
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    import httpx2

    from taskbridge.cli.terminal import Progress
    from taskbridge.runtime.settings import ReloadedFile

_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 30.0
CONSUMERS_NICENESS = 5
"""Where the processors are busy, an edge and Kafka come first: a callback is posted once, a record can wait."""
_WEBHOOKS_PORT = "8700"
_QUEUES = 8
"""Each holds net.core.somaxconn connections, 4096 by default: in total a minute of callbacks at 500/s."""
_NOWHERE = Endpoints(f"{LOOPBACK}:1", f"http://{LOOPBACK}:1")
_ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104 - only compared


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    data_dir: Path
    edge_port: int
    center_port: int
    streams_port: int
    kafka_port: int
    registry_port: int
    credentials: Path | None = None
    webhooks: Path | None = None
    edges: int = 1
    """So many edges share the port and the data folder, and with it the signatures of past callbacks."""


class Bridge:
    """Starts and supervises all services; one that dies is restarted until ``stop``.

    A service gets the ``EDGE_*``, ``STREAMS_*``, ``CENTER_*`` or ``WEBHOOKS_*`` of ``environment``; the bridge itself
    sets addresses, ports, data folders and credentials, which must fit together.
    """

    def __init__(
        self, options: BridgeOptions, *, progress: Progress, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._options = options
        self.data_dir = options.data_dir.resolve()
        self._progress = progress
        self._environment = environment
        self._supervisor = Supervisor(on_event=lambda event: progress(str(event)))
        self._stack = choose_stack(
            environment,
            data_dir=options.data_dir,
            kafka_port=options.kafka_port,
            registry_port=options.registry_port,
            supervisor=self._supervisor,
            progress=progress,
        )
        self._folder = DataFolder(options.data_dir, is_named=True)
        self._occupied: ExitStack | None = None
        self._sockets: list[socket.socket] = []
        self._files: list[ReloadedFile[Any]] = []
        self._stopped = Event()
        self.credentials = options.credentials or options.data_dir / "credentials.toml"
        self.edge_url = f"http://{LOOPBACK}:{options.edge_port}"
        self._operator_ports = self._ports_of_operators()
        # If the operator's address is set, the edge gives details only there.
        operator_host = environment.get("EDGE_OPERATOR_HOST") or LOOPBACK
        operator_host = LOOPBACK if operator_host in _ALL_INTERFACES else operator_host
        self.operator_urls = {
            name: f"http://{operator_host}:{port}" if port else self.edge_url
            for name, port in self._operator_ports.items()
        }
        self.streams_url = f"http://{LOOPBACK}:{options.streams_port}"
        self.center_url = f"http://{LOOPBACK}:{options.center_port}"
        port = given_settings(WebhooksSettings, environment).get("port", _WEBHOOKS_PORT)
        if not port.isdecimal():
            raise ConfigurationError(f"WEBHOOKS_PORT={port} is no port")
        self._webhooks_port = int(port)
        self.webhooks_url = f"http://{LOOPBACK}:{self._webhooks_port}"

    def start(self) -> Connection:
        """Return when callbacks are accepted and notifications flow.

        Raises ConfigurationError, which says what is wrong, and what to do.
        """
        ports = self._distinct_ports()
        if self._options.credentials is not None and not self._options.credentials.is_file():
            raise ConfigurationError(
                f"credentials file {self._options.credentials} does not exist: check --credentials"
            )
        with readable_os_errors(self._options.data_dir, remedy="choose another folder with --data-dir"):
            self._options.data_dir.mkdir(parents=True, exist_ok=True)
            # Before the ports are tried, which a bridge that runs in the folder may have.
            self._occupied = self._folder.occupy()
            self._example_credentials()
        for flag, port in ports.items():
            check_free(port, flag)
        self._check_files()
        Thread(target=self._watch_files, name="watch-files", daemon=True).start()
        self._progress(f"using {self._stack.description}")
        endpoints = self._stack.start()
        connection = Connection(endpoints.bootstrap_servers, endpoints.registry_url, {})
        call_with_heartbeat(lambda: self._apply_contract(connection), self._progress, "creating topics and schemas")
        self._sockets = self._listen()
        edge, streams, center = self._settings_of_services(endpoints)
        webhooks = self._settings_of_webhooks(endpoints)
        self._supervisor.start(
            *(self._edge(name, edge) for name in self._operator_ports),
            self._service("streams", self.streams_url, streams),
            self._service("center", self.center_url, center, is_up=is_center_up),
            *([self._service("webhooks", self.webhooks_url, webhooks)] if webhooks else []),
        )
        self._folder.announce(
            Running(
                bootstrap_servers=endpoints.bootstrap_servers,
                registry_url=endpoints.registry_url,
                edge_url=self.edge_url,
                streams_url=self.streams_url,
                center_url=self.center_url,
                credentials=edge["EDGE_CREDENTIALS_FILE"],
                webhooks_url=self.webhooks_url if webhooks else None,
                endpoints_file=webhooks.get("WEBHOOKS_ENDPOINTS_FILE"),
            )
        )
        return connection

    def _apply_contract(self, connection: Connection) -> None:
        apply_topics(connection.admin(), topics.ALL, partitions=partitions_setting(self._environment))
        connection.registry.register(topics.ALL)

    def stop(self) -> None:
        self._stopped.set()
        self._supervisor.stop(*self._operator_ports, "streams", "center", "webhooks")
        for each in self._sockets:
            each.close()
        self._stack.stop()
        if self._occupied is not None:
            self._folder.forget()
            self._occupied.close()
            self._occupied = None

    def pid(self, service: str) -> int | None:
        return self._supervisor.pid(service)

    def _distinct_ports(self) -> dict[str, int]:
        given = {
            "--edge-port": self._options.edge_port,
            "--center-port": self._options.center_port,
            "--streams-port": self._options.streams_port,
        }
        if self._options.webhooks is not None:
            given["WEBHOOKS_PORT"] = self._webhooks_port
        if self._options.edges > 1:
            given |= {f"EDGE_OPERATOR_PORT of {name}": int(port) for name, port in self._operator_ports.items()}
        stacks = {"--kafka-port": self._options.kafka_port, "--registry-port": self._options.registry_port}
        check_distinct(given if isinstance(self._stack, ExternalStack) else given | stacks)
        return given

    def _example_credentials(self) -> None:
        if write_new(self.credentials, _EXAMPLE_CREDENTIALS.format(token=secrets.token_hex(20))):
            self._progress(f"wrote an example credentials file: add your apps to {self.credentials}")

    def _check_files(self) -> None:
        """Check settings and files before the services start: those would report errors in their logs only."""
        of_edge, of_streams, of_center = self._settings_of_services(_NOWHERE)
        partitions_setting(self._environment)
        edge, streams = load_settings(EdgeSettings, of_edge), load_settings(StreamsSettings, of_streams)
        center = load_settings(settings_class(), of_center)
        try:
            for each in (edge, streams, center):
                read_kafka_config(each.kafka_config_file)
            self._files = [CredentialsFile(edge.credentials_file)]
            if given_settings(settings_class(), self._environment):
                # Not at the top: it doubles the memory of this process, and with the defaults nothing can be wrong.
                from taskbridge.center.checks import check_settings  # noqa: PLC0415

                check_settings(center)
            if center.api_tokens_file is not None:
                self._files.append(TokensFile(center.api_tokens_file))
            if of_webhooks := self._settings_of_webhooks(_NOWHERE):
                webhooks = load_settings(WebhooksSettings, of_webhooks)
                self._files.append(EndpointsFile(webhooks.endpoints_file, of_webhooks))
                if webhooks.api_tokens_file is not None:
                    self._files.append(TokensFile(webhooks.api_tokens_file))
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}: correct it and start again") from error
        if not self._has_apps():
            self._progress(
                f"no app is configured, so the edge rejects every callback: add your apps to {self.credentials}; "
                "the edge reloads it when it changes"
            )

    def _has_apps(self) -> bool:
        return self._files[0].current.count > 0

    def _watch_files(self) -> None:
        while not self._stopped.wait(POLL_S):
            report_changes(self._files, self._progress)

    def _listen(self) -> list[socket.socket]:
        try:
            return listen(self._environment.get("EDGE_HOST", LOOPBACK), self._options.edge_port, queues=_QUEUES)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error}: stop the program that uses the port, or choose another with --edge-port"
            ) from error

    def _ports_of_operators(self) -> dict[str, str]:
        """The edges, each with its own port for operators; empty is the port for callbacks.

        Several edges share that one, so each needs another.
        """
        first = self._environment.get("EDGE_OPERATOR_PORT", "")
        if self._options.edges == 1:
            return {"edge": first}
        start = int(first) if first.isdecimal() else self._options.edge_port + 1
        return {
            "edge" if number == 0 else f"edge-{number + 1}": str(start + number)
            for number in range(self._options.edges)
        }

    def _edge(self, name: str, environment: Mapping[str, str]) -> ServiceSpec:
        port = self._operator_ports[name]
        return self._service(
            name,
            self.operator_urls[name],
            {**environment, **({"EDGE_OPERATOR_PORT": port} if port else {})},
            command="edge",
            sockets=self._sockets,
            niceness=0,
            is_up=lambda answer: answer.is_success or not self._has_apps(),
        )

    def _service(
        self,
        name: str,
        url: str,
        environment: Mapping[str, str],
        *,
        command: str | None = None,
        sockets: Sequence[socket.socket] = (),
        niceness: int = CONSUMERS_NICENESS,
        is_up: Callable[[httpx2.Response], bool] = lambda answer: answer.is_success,
    ) -> ServiceSpec:
        return ServiceSpec(
            name=name,
            argv=[sys.executable, "-P", "-m", "taskbridge.cli", command or name],
            env=environment,
            log_path=self._options.data_dir / "logs" / f"{name}.log",
            ready=probe(url, is_up),
            ready_timeout_s=_READY_TIMEOUT_S,
            stop_timeout_s=_STOP_TIMEOUT_S,
            # Time to finish open requests.
            orphan_signal=signal.SIGTERM,
            sockets=sockets,
            niceness=niceness,
        )

    def _settings_of_services(self, endpoints: Endpoints) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        options, credentials = self._options, str(self.credentials.resolve())
        urls = {"EDGE_URLS": ",".join(self.operator_urls.values()), "STREAMS_URLS": self.streams_url}
        if options.webhooks is not None:
            urls["WEBHOOKS_URLS"] = self.webhooks_url
        urls = {name: self._environment.get(f"CENTER_{name}", url) for name, url in urls.items()}
        return (
            self._settings("edge", options.edge_port, endpoints, CREDENTIALS_FILE=credentials),
            self._settings("streams", options.streams_port, endpoints),
            self._settings("center", options.center_port, endpoints, **urls, CREDENTIALS_FILE=credentials),
        )

    def _settings_of_webhooks(self, endpoints: Endpoints) -> dict[str, str]:
        if (file := self._options.webhooks) is None:
            return {}
        return self._settings("webhooks", self._webhooks_port, endpoints, ENDPOINTS_FILE=str(file.resolve()))

    def _settings(self, service: str, port: int, endpoints: Endpoints, **more: str) -> dict[str, str]:
        prefix = service.upper()
        own = {
            "HOST": self._environment.get(f"{prefix}_HOST", LOOPBACK),
            "PORT": str(port),
            "KAFKA_BOOTSTRAP_SERVERS": endpoints.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": endpoints.registry_url,
            "DATA_DIR": str((self._options.data_dir / service).resolve()),
            **more,
        }
        return {**self._environment, **{f"{prefix}_{name}": value for name, value in own.items()}}


def report_changes(files: Iterable[ReloadedFile[Any]], progress: Progress) -> None:
    """Report for each changed file whether the change is in force; the services reload it within a second."""
    for each in files:
        if each.refresh():
            done = f"{each.title} {each.path}: the last change is in force ({each.current.count} entries)"
            progress(each.problem or done)


def probe(url: str, is_up: Callable[[httpx2.Response], bool]) -> Callable[[], bool]:
    # Created once: a new client reads the certificates of the system, which takes 30 ms. Each request has a new
    # connection, so that it reaches any of several edges.
    client = inside_client(timeout_s=2, headers={"Connection": "close"})

    def ready() -> bool:
        try:
            return is_up(client.get(f"{url}/readyz"))
        except NO_ANSWER:
            return False

    return ready


def is_center_up(answer: httpx2.Response) -> bool:
    """Whether the task center is ready, or reads the topics into its database, which may take minutes."""
    try:
        lists = answer.json()["lists"]
        return answer.is_success or (not lists["complete"] and lists["filled"] > 0)
    except (ValueError, KeyError, TypeError):
        return answer.is_success


_EXAMPLE_CREDENTIALS = f"""\
# One entry for each Yida app, in place of this example. The system token is the app's secret: application settings,
# deployment and operation. While you rotate it, list the old and the new one. The edge reloads this file when it
# changes.
[[apps]]
app_type = "APP_EXAMPLE"
corp_id = "{CORP}"
system_tokens = ["{{token}}"]
"""
