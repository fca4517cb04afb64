"""The Apicurio registry from its jars, on loopback only, with its schemas in one H2 file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.local.jvm.java import ENVIRONMENT, java_argv, make_service_folder
from taskbridge.local.ports import LOOPBACK
from taskbridge.local.probes import registry_answers
from taskbridge.local.processes.services import ServiceSpec

if TYPE_CHECKING:
    from pathlib import Path

_HEAP_MB = 256
API_PATH = "/apis/ccompat/v7"

# WRITE_DELAY=0 writes each commit before it is answered. H2's default is half a second later, and a registry that is
# killed in between assigns the lost schema's id a second time.
H2_OPTIONS = ";WRITE_DELAY=0"


def registry_url(host: str, port: int) -> str:
    """Return the base address of the Confluent API of a registry."""
    return f"http://{host}:{port}{API_PATH}"


def registry_service(*, home: Path, data_dir: Path, port: int, management_port: int) -> ServiceSpec:
    """Prepare ``data_dir`` for a registry on ``port`` and return what to run; existing data stays.

    Raises:
        OSError: the folder cannot be written.
    """
    make_service_folder(data_dir)
    properties = {
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        # Relative to the working folder: a ; in the folder's name would end the file name here.
        "apicurio.datasource.url": f"jdbc:h2:file:./registry{H2_OPTIONS}",
        "quarkus.http.host": LOOPBACK,
        "quarkus.http.port": str(port),
        "quarkus.management.host": LOOPBACK,
        "quarkus.management.port": str(management_port),
        "quarkus.http.access-log.enabled": "false",
        "quarkus.banner.enabled": "false",
        'quarkus.log.category."io.apicurio".level': "WARN",
    }
    url = registry_url(LOOPBACK, port)
    return ServiceSpec(
        name="registry",
        argv=java_argv(
            *(f"-D{key}={value}" for key, value in properties.items()),
            "-jar",
            str(home / "quarkus-run.jar"),
            program=home,
            heap_mb=_HEAP_MB,
        ),
        env=ENVIRONMENT,
        cwd=data_dir,
        log_path=data_dir / "registry.log",
        ready=lambda: registry_answers(url, trust_env=False),
    )
