"""The containers that Docker runs; no daemon is needed."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from taskbridge.local import docker_stack
from taskbridge.local.docker_stack import (
    ContainerSpec,
    DockerStack,
    docker_answers,
    kafka_container,
    registry_container,
)
from taskbridge.local.host import free_ports
from taskbridge.local.jvm import Endpoints
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class FakeContainer:
    def __init__(self, spec: ContainerSpec, log: list[str]) -> None:
        self.spec = spec
        self.log = log

    def get_wrapped_container(self) -> FakeWrapped:
        return FakeWrapped(self)

    def stop(self) -> None:
        self.log.append(f"removed {self.spec.image}")


class FakeWrapped:
    def __init__(self, container: FakeContainer) -> None:
        self._container = container

    def stop(self, *, timeout: int) -> None:
        assert timeout > 0
        self._container.log.append(f"stopped {self._container.spec.image}")


def stack(folder: Path, run: Any, *, keep_data: bool = True) -> tuple[DockerStack, list[int]]:
    ports = free_ports(2)
    made = DockerStack(
        environ={},
        data_dir=folder,
        kafka_port=ports[0],
        registry_port=ports[1],
        progress=lambda _: None,
        keep_data=keep_data,
        run=run,
        host=lambda: "127.0.0.1",
    )
    return made, ports


def test_the_broker_is_published_at_its_advertised_address() -> None:
    spec = kafka_container({}, host="127.0.0.1", host_port=29092)

    assert spec.image == "apache/kafka:4.3.1"
    assert (spec.bind_address, spec.host_port, spec.container_port) == ("127.0.0.1", 29092, 9092)
    assert "HOST://127.0.0.1:29092" in spec.environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    # The broker talks to itself at an address that exists inside its container.
    assert spec.environment["KAFKA_INTER_BROKER_LISTENER_NAME"] == "INTERNAL"
    assert "INTERNAL://localhost:19092" in spec.environment["KAFKA_ADVERTISED_LISTENERS"].split(",")


def test_the_broker_has_the_same_limits_as_the_local_one() -> None:
    environment = kafka_container({}, host="127.0.0.1", host_port=29092).environment

    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"] == "1"
    assert int(environment["KAFKA_MESSAGE_MAX_BYTES"]) > 4 * 1024 * 1024


def test_the_registry_writes_each_schema_at_once_into_its_volume() -> None:
    spec = registry_container({}, host="127.0.0.1", host_port=28081, volume="v")

    assert spec.image == "apicurio/apicurio-registry:3.3.3"
    (folder,) = spec.volumes.values()
    assert spec.environment["APICURIO_DATASOURCE_URL"] == f"jdbc:h2:file:{folder}/registry;WRITE_DELAY=0"
    assert (spec.bind_address, spec.host_port, spec.container_port) == ("127.0.0.1", 28081, 8080)


def test_images_are_overridden_by_environment() -> None:
    environ = {"TASKBRIDGE_KAFKA_IMAGE": "mine/kafka:1", "TASKBRIDGE_REGISTRY_IMAGE": "mine/registry:1"}

    assert kafka_container(environ, host="127.0.0.1", host_port=1).image == "mine/kafka:1"
    assert registry_container(environ, host="127.0.0.1", host_port=1).image == "mine/registry:1"


def test_a_daemon_elsewhere_publishes_on_its_own_addresses() -> None:
    assert kafka_container({}, host="docker", host_port=1).bind_address == "0.0.0.0"  # noqa: S104
    assert kafka_container({}, host="172.17.0.1", host_port=1).bind_address == "0.0.0.0"  # noqa: S104


@pytest.fixture
def all_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def yes(*_: object, **__: object) -> bool:
        return True

    monkeypatch.setattr(docker_stack, "kafka_answers", yes)
    monkeypatch.setattr(docker_stack, "registry_answers", yes)


@pytest.mark.usefixtures("all_answer")
def test_kafka_starts_first_and_stops_last(tmp_path: Path) -> None:
    log: list[str] = []

    def run(spec: ContainerSpec) -> FakeContainer:
        log.append(f"started {spec.image}")
        return FakeContainer(spec, log)

    made, ports = stack(tmp_path, run)
    endpoints = made.start()
    made.stop()

    assert endpoints == Endpoints(f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}/apis/ccompat/v7")
    kafka, registry = docker_stack.KAFKA_IMAGE, docker_stack.REGISTRY_IMAGE
    assert log == [
        f"started {kafka}",
        f"started {registry}",
        f"stopped {registry}",
        f"removed {registry}",
        f"stopped {kafka}",
        f"removed {kafka}",
    ]


@pytest.mark.usefixtures("all_answer")
@pytest.mark.parametrize("keep_data", [True, False])
def test_the_data_folder_names_the_volumes_if_data_is_stored(
    keep_data: bool,  # noqa: FBT001  a parameter of the test
    tmp_path: Path,
) -> None:
    specs: list[ContainerSpec] = []

    def run(spec: ContainerSpec) -> FakeContainer:
        specs.append(spec)
        return FakeContainer(spec, [])

    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        stack(folder, run, keep_data=keep_data)[0].start()

    volumes = [frozenset(spec.volumes) for spec in specs[::2]]
    assert len(set(volumes)) == (2 if keep_data else 1)
    assert volumes[0] == volumes[1]
    assert all(volumes) is keep_data


def test_an_unavailable_image_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    def run(_: ContainerSpec) -> None:
        raise RuntimeError("manifest\nunknown")

    made, _ = stack(tmp_path, run)
    with pytest.raises(
        ConfigurationError, match=r"^Docker could not run apache/kafka:4\.3\.1 \(manifest unknown\): .*_KAFKA_IMAGE"
    ):
        made.start()

    made.stop()


def test_docker_receives_the_whole_container_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    from testcontainers.core import container  # noqa: PLC0415  slow, for this test only

    class Client:
        def __init__(self, **_: Any) -> None:
            pass

    monkeypatch.setattr(container, "DockerClient", Client)
    monkeypatch.setattr(container.DockerContainer, "start", lambda self: self)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]

    made = docker_stack.run_container(registry_container({}, host="127.0.0.1", host_port=28081, volume="v"))

    assert cast("dict[str, Any]", made.ports) == {"8080/tcp": ("127.0.0.1", 28081)}
    assert made.volumes == {"v": {"bind": "/registry-data", "mode": "rw"}}
    assert vars(made)["_kwargs"] == {"restart_policy": {"Name": "always"}, "user": "0"}


def test_without_a_daemon_the_answer_is_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")

    assert docker_answers() is False


def test_a_daemon_that_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")

    def answer(daemon: socket.socket) -> None:
        connection, _ = daemon.accept()
        with connection:
            assert connection.recv(1000).startswith(b"GET /_ping ")
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(path)
        daemon.listen()
        thread = threading.Thread(target=answer, args=(daemon,))
        thread.start()
        assert docker_answers() is True
        thread.join()


def test_a_daemon_that_hangs_costs_less_than_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{mute.getsockname()[1]}")

        began = time.monotonic()
        assert docker_answers() is False

    assert time.monotonic() - began < 2
