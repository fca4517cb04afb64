"""Run Kafka and the registry as Docker containers, with testcontainers."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from taskbridge.cli.terminal import Heartbeat, Progress, call_with_heartbeat
from taskbridge.local.host import LOOPBACK, check_free
from taskbridge.local.jvm import BROKER_PROPERTIES, H2_OPTIONS, Endpoints, kafka_answers, registry_answers, registry_url
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from urllib.parse import SplitResult

    from testcontainers.core.container import DockerContainer

KAFKA_IMAGE_VARIABLE = "TASKBRIDGE_KAFKA_IMAGE"
REGISTRY_IMAGE_VARIABLE = "TASKBRIDGE_REGISTRY_IMAGE"
KAFKA_IMAGE = "apache/kafka:4.3.1"
REGISTRY_IMAGE = "apicurio/apicurio-registry:3.3.3"

_KAFKA_PORT, _CONTROLLER_PORT, _INTERNAL_PORT, _REGISTRY_PORT = 9092, 9093, 19092, 8080
_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20


@dataclass(frozen=True)
class ContainerSpec:
    """One container to run, as plain values."""

    image: str
    image_variable: str
    container_port: int
    bind_address: str
    host_port: int
    environment: Mapping[str, str]
    volumes: Mapping[str, str] = field(default_factory=dict[str, str])  # volume name → folder in the container
    user: str | None = None


def docker_answers(*, timeout_s: float = 1.0) -> bool:
    """Whether a Docker daemon answers within about a second, and its ports can be reached from here.

    Does not use Docker's own client, which is slow to import and leaves its socket open on failure.
    """
    address = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    try:
        with _connect_to_docker(address, timeout_s) as connection:
            if os.environ.get("DOCKER_TLS_VERIFY"):
                return True  # it speaks TLS, so a plain request proves nothing
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except (OSError, ValueError):
        return False


def _connect_to_docker(address: SplitResult, timeout_s: float) -> socket.socket:
    if address.scheme in ("tcp", "http", "https"):
        return socket.create_connection((address.hostname or "localhost", address.port or 2375), timeout=timeout_s)
    if address.scheme != "unix":  # over ssh its ports are on the remote machine
        raise ValueError(address.scheme)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection


def kafka_container(
    environ: Mapping[str, str], *, host: str, host_port: int, volume: str | None = None
) -> ContainerSpec:
    """Return a broker that advertises ``host:host_port`` to clients, and an internal address to itself."""
    properties = {
        **BROKER_PROPERTIES,
        "controller.quorum.voters": f"1@localhost:{_CONTROLLER_PORT}",
        "listeners": f"HOST://:{_KAFKA_PORT},INTERNAL://localhost:{_INTERNAL_PORT},"
        f"CONTROLLER://localhost:{_CONTROLLER_PORT}",
        "advertised.listeners": f"HOST://{host}:{host_port},INTERNAL://localhost:{_INTERNAL_PORT}",
        "listener.security.protocol.map": "HOST:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": "/var/lib/kafka/data",
    }
    return ContainerSpec(
        image=environ.get(KAFKA_IMAGE_VARIABLE) or KAFKA_IMAGE,
        image_variable=KAFKA_IMAGE_VARIABLE,
        container_port=_KAFKA_PORT,
        bind_address=_bind_address(host),
        host_port=host_port,
        # The image turns KAFKA_A_B into a.b.
        environment={f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in properties.items()},
        volumes={volume: "/var/lib/kafka/data"} if volume else {},
    )


def registry_container(
    environ: Mapping[str, str], *, host: str, host_port: int, volume: str | None = None
) -> ContainerSpec:
    """Return a registry that stores its schemas in one H2 file."""
    return ContainerSpec(
        image=environ.get(REGISTRY_IMAGE_VARIABLE) or REGISTRY_IMAGE,
        image_variable=REGISTRY_IMAGE_VARIABLE,
        container_port=_REGISTRY_PORT,
        bind_address=_bind_address(host),
        host_port=host_port,
        environment={
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:/registry-data/registry{H2_OPTIONS}",
            "QUARKUS_HTTP_PORT": str(_REGISTRY_PORT),
        },
        volumes={volume: "/registry-data"} if volume else {},
        user="0",  # a new volume belongs to root, and the image's own user could not write to it
    )


def run_container(spec: ContainerSpec) -> DockerContainer:
    """Start a container, pulling its image if it is missing."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - slow, and used for Docker only

    container = DockerContainer(spec.image, env=dict(spec.environment))
    # Docker takes (address, port), to listen on loopback only; testcontainers' annotation knows plain ports.
    ports = {f"{spec.container_port}/tcp": (spec.bind_address, spec.host_port)}
    container.ports.update(cast("dict[str, int | None]", ports))
    for volume, folder in spec.volumes.items():
        container.with_volume_mapping(volume, folder, "rw")
    options: dict[str, object] = {"restart_policy": {"Name": "always"}}
    if spec.user is not None:
        options["user"] = spec.user
    return container.with_kwargs(**options).start()


def _docker_host() -> str:
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - slow, and used for Docker only

    client = DockerClient()
    try:
        host = client.host()
    finally:
        client.client.close()
    return LOOPBACK if host == "localhost" else host


def _bind_address(host: str) -> str:
    """Return the address that a container's port is published on: loopback unless the daemon is remote."""
    try:
        return host if ipaddress.ip_address(host).is_loopback else "0.0.0.0"  # noqa: S104  a remote daemon
    except ValueError:
        return "0.0.0.0"  # noqa: S104


@dataclass(kw_only=True)
class DockerStack:
    """Both services as containers on the chosen host ports; Docker restarts one that dies."""

    description = "Kafka and the Apicurio registry as Docker containers"

    environ: Mapping[str, str]
    data_dir: Path
    kafka_port: int
    registry_port: int
    progress: Progress
    keep_data: bool
    run: Callable[[ContainerSpec], DockerContainer] = run_container
    host: Callable[[], str] = _docker_host
    _running: list[DockerContainer] = field(default_factory=list["DockerContainer"], init=False)

    def start(self) -> Endpoints:
        host = self.host()
        if _bind_address(host) == host:
            check_free(self.kafka_port, "--kafka-port")
            check_free(self.registry_port, "--registry-port")
        # The folder names the volumes, so that the same --data-dir finds the same events.
        folder = hashlib.sha256(str(self.data_dir.absolute()).encode()).hexdigest()[:12]
        volumes = [f"taskbridge-{folder}-{name}" if self.keep_data else None for name in ("kafka", "registry")]
        endpoints = Endpoints(f"{host}:{self.kafka_port}", registry_url(host, self.registry_port))
        kafka = kafka_container(self.environ, host=host, host_port=self.kafka_port, volume=volumes[0])
        self._start(kafka, lambda: kafka_answers(endpoints.bootstrap_servers))
        registry = registry_container(self.environ, host=host, host_port=self.registry_port, volume=volumes[1])
        self._start(registry, lambda: registry_answers(endpoints.registry_url, trust_env=False))
        return endpoints

    def stop(self) -> None:
        while self._running:
            container = self._running.pop()
            container.get_wrapped_container().stop(timeout=_STOP_TIMEOUT_S)
            container.stop()

    def _start(self, spec: ContainerSpec, ready: Callable[[], bool]) -> None:
        try:
            # Recorded at its start, so that an interrupted wait can still stop it.
            call_with_heartbeat(lambda: self._running.append(self.run(spec)), self.progress, f"starting {spec.image}")
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigurationError(
                f"Docker could not run {spec.image} ({reason}): pull it, name another with {spec.image_variable}, "
                "or stop Docker to use the local JVM"
            ) from error
        heartbeat = Heartbeat(self.progress)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not ready():
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{spec.image} did not answer within {_READY_TIMEOUT_S:g} s: see its log with 'docker logs'"
                )
            heartbeat.beat(f"waiting for {spec.image}")
            time.sleep(0.2)
