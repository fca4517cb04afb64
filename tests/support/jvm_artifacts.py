"""What Kafka and the registry are run from and by, with what the JVM can do ahead of time for their many starts."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.disk import locked
from taskbridge.local.jvm.artifacts import cache_folder, ensure_artifacts
from taskbridge.local.jvm.java import cache_of
from taskbridge.local.jvm.kafka import kafka_service
from taskbridge.local.jvm.registry import registry_service
from taskbridge.local.ports import free_ports
from taskbridge.local.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.local.jvm.artifacts import Artifacts
    from taskbridge.local.processes.services import ServiceSpec
    from taskbridge.local.progress import Progress

_WRITTEN_WITHIN_S = 120.0


def artifacts(progress: Progress = print) -> Artifacts:
    """The jars, with a cache of what a start loads: once 19 s of CPU time, then two less wherever both start."""
    found = ensure_artifacts(cache_folder(os.environ), progress=progress)
    home = found.kafka_jars.parent
    with locked(home.with_name("caches.lock"), progress=progress, waiting_for="waiting for faster starts"):
        if not cache_of(found.kafka_jars).exists():
            with tempfile.TemporaryDirectory(prefix="caches-", dir=home.parent) as work:
                _write_caches(found, Path(work))
    return found


def _write_caches(found: Artifacts, work: Path) -> None:
    """Both programs run for a moment; when they stop, the JVM writes down what they loaded."""
    kafka_port, controller_port, registry_port, management_port = free_ports(4)
    kafka = kafka_service(
        jars=found.kafka_jars, data_dir=work / "kafka", port=kafka_port, controller_port=controller_port
    )
    registry = registry_service(
        home=found.registry_home, data_dir=work / "registry", port=registry_port, management_port=management_port
    )
    with Supervisor(on_event=print) as supervisor:
        supervisor.start(_writing(kafka, work), _writing(registry, work))
    cache_of(found.kafka_jars).parent.mkdir(exist_ok=True)
    for program in (found.registry_home, found.kafka_jars):  # Kafka's last: it says that both are there
        (work / cache_of(program).name).rename(cache_of(program))


def _writing(spec: ServiceSpec, folder: Path) -> ServiceSpec:
    java, *arguments = spec.argv
    written = f"-XX:AOTCacheOutput={folder / spec.name}.aot"
    return replace(spec, argv=(java, written, *arguments), stop_timeout_s=_WRITTEN_WITHIN_S)


def change_properties(path: Path, appended: Mapping[str, str], added: Mapping[str, str]) -> None:
    """In a file of Kafka's: these behind a comma, and those as they are here. Comments go."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    properties = dict(line.split("=", 1) for line in lines)
    for name, value in appended.items():
        properties[name] = f"{properties[name]},{value}"
    path.write_text("".join(f"{name}={value}\n" for name, value in {**properties, **added}.items()))
