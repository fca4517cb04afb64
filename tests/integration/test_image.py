"""The image is built and run: both services, as nobody, on a root that cannot be written, without a shell."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import image
import pytest
from docker_daemon import BASE, DockerDaemon

from taskbridge.cli.doctor.examination import Examination
from taskbridge.cli.doctor.findings import State
from taskbridge.edge.testing import SYSTEM_TOKEN, write_credentials
from taskbridge.local.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(900)]

MOST_BYTES = 300_000_000


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[DockerDaemon]:
    with DockerDaemon(tmp_path_factory.mktemp("docker")) as daemon:
        daemon.make_base()
        image.main(["--build-arg", f"BASE={BASE}"], docker=daemon.docker)
        yield daemon


def test_the_image_is_small_and_has_the_program_and_nothing_of_the_tests(daemon: DockerDaemon) -> None:
    (found,) = json.loads(daemon.run("image", "inspect", image.TAG))
    assert found["Size"] < MOST_BYTES
    assert found["Config"]["User"] == "10001:10001"
    assert "Yida" in daemon.run("run", "--rm", "--read-only", "--network", "none", image.TAG)
    there = "import importlib.util as u; print([n for n in ('pytest', 'pip', 'taskbridge.native') if u.find_spec(n)])"
    assert "['taskbridge.native']" in daemon.run("run", "--rm", "--entrypoint", "python3", image.TAG, "-c", there)


def test_a_task_passes_through_both_services_and_what_they_keep_outlives_them(
    daemon: DockerDaemon, connection: Connection, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    edge_port, streams_port = free_ports(2)
    credentials = tmp_path / "credentials.toml"
    write_credentials(credentials, SYSTEM_TOKEN)
    shared = {"KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers, "SCHEMA_REGISTRY_URL": connection.registry_url}
    own = {
        "edge": {"HOST": "127.0.0.1", "PORT": str(edge_port), "CREDENTIALS_FILE": "/run/credentials.toml"},
        "streams": {"HOST": "127.0.0.1", "PORT": str(streams_port)},
    }
    ports = {"edge": edge_port, "streams": streams_port}
    for service, settings in own.items():
        environment = [f"--env={service.upper()}_{name}={value}" for name, value in {**shared, **settings}.items()]
        mounts = ["--volume", f"{credentials}:/run/credentials.toml:ro", "--volume", f"{service}:/var/lib/taskbridge"]
        hard = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host"]
        daemon.run("run", "--detach", "--name", service, *hard, *mounts, *environment, image.TAG, service)
    try:
        edge, streams = (f"http://127.0.0.1:{port}" for port in ports.values())

        def passes() -> bool:
            examination = Examination({}, edge_url=edge, streams_url=streams, credentials=credentials)
            found = [each for each in examination.findings(end_to_end=True) if each.check == "end-to-end"]
            return [each.state for each in found] == [State.OK, State.OK]

        eventually(passes, what="a task passes through", within_s=120)
        for service in own:
            daemon.run("stop", "--time", "60", service)
            (stopped,) = json.loads(daemon.run("inspect", service))
            assert stopped["State"]["ExitCode"] == 0, daemon.run("logs", service)
        kept = "import pathlib; print([p.name for p in pathlib.Path('/var/lib/taskbridge').rglob('*')])"
        for service, name in (("edge", "schema-ids.json"), ("streams", "worker-name")):
            asked = ("--entrypoint", "python3", "--volume", f"{service}:/var/lib/taskbridge", image.TAG, "-c", kept)
            assert name in daemon.run("run", "--rm", *asked)
    finally:
        for service in own:
            subprocess.run([*daemon.docker, "rm", "--force", service], capture_output=True, check=False)
