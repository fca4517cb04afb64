"""The image is built and run, also by compose.yaml."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import image
from support import http_clients, needs
from support.callbacks import post_callback
from support.deployment import docker
from support.deployment.docker import BASE, DockerDaemon
from support.edge.fakes import CORP_ID, SYSTEM_TOKEN, parameters_of, write_credentials
from support.http_clients import EventStreamClient
from taskbridge.local.host import free_ports
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.runtime.tokens import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path


pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(900)]

MOST_BYTES = 300_000_000
API_TOKEN = "tb_portal"
AUTHORIZED = {"Authorization": f"Bearer {API_TOKEN}"}
ASSIGNEE = "0169"


@pytest.fixture(scope="module")
def daemon(disk_folder: Callable[[], Path]) -> Generator[DockerDaemon]:
    """It has the image of our services."""
    with DockerDaemon(disk_folder()) as daemon:
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


class Composed:
    """deploy/compose in a folder of its own, on ports of its own."""

    def __init__(self, daemon: DockerDaemon, folder: Path) -> None:
        self._daemon, self._folder = daemon, folder
        names = ("EDGE_PORT", "CENTER_PORT", "STREAMS_PORT", "KAFKA_PORT", "REGISTRY_PORT")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.edge, self.center = (f"http://127.0.0.1:{ports[name]}" for name in ("EDGE_PORT", "CENTER_PORT"))
        self.ports = {str(port) for port in ports.values()}
        self._environment = os.environ | {name: str(port) for name, port in ports.items()}
        self._environment["CENTER_WEBHOOKS_URLS"] = "http://webhooks:8700"
        compose = (image.ROOT / "deploy" / "compose" / "compose.yaml").read_text("utf-8")
        assert "interval: 5s" in compose
        # Containers wait for each other's health.
        (folder / "compose.yaml").write_text(compose.replace("interval: 5s", "interval: 2s"), "utf-8")
        for service in ("edge", "center", "webhooks"):
            (folder / service).mkdir()
        endpoint = {"name": "erp", "url": "http://edge:8400/", "corps": [CORP_ID], "secrets": [new_secret()]}
        write_credentials(folder / "edge" / "credentials.toml", SYSTEM_TOKEN)
        (folder / "webhooks" / "webhooks.env").write_text("WEBHOOKS_API_TOKENS_FILE=/etc/taskbridge/api-tokens.toml\n")
        token = {"name": "portal", "sha256": digest_of(API_TOKEN), "corps": [CORP_ID]}
        (folder / "center" / "webhooks-token").write_text(API_TOKEN)
        for name, table, entry in (
            ("center/api-tokens", "tokens", token),
            ("webhooks/api-tokens", "tokens", {**token, "corps": ["*"]}),
            ("webhooks/endpoints", "endpoints", endpoint),
        ):
            lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
            (folder / f"{name}.toml").write_text("\n".join([f"[[{table}]]", *lines]))

    def run(self, *arguments: str) -> str:
        needs.program("docker compose")
        argv = [*self._daemon.docker, "compose", "--profile", "webhooks", *arguments]
        done = subprocess.run(
            argv, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + self._daemon.run("ps", "--all")
        return done.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker knows of each service's, ended ones too."""
        found = json.loads(self._daemon.run("inspect", *self._daemon.run("ps", "--all", "--quiet").split()))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def post(self, wire_action: str, instance_id: str) -> str:
        """The store that has the event."""
        parameters = parameters_of(wire_action, instance_id=instance_id)
        answer = post_callback(self.edge, wire_action, parameters, system_token=SYSTEM_TOKEN, encoding="json")
        assert answer.accepted, answer
        return answer.body["durability"]

    def of_assignee(self, path: str) -> str:
        return f"{self.center}/v1/corps/{CORP_ID}/users/{ASSIGNEE}/{path}"

    def pending(self) -> set[str]:
        answer = http_clients.get(self.of_assignee("tasks?view=pending"), headers=AUTHORIZED)
        return {item["instance_id"] for item in answer.raise_for_status().json()["items"]}


# In every run, the image is built and started, and unit/local/test_compose.py reads compose.yaml.
@pytest.mark.nightly
def test_compose_brings_all_of_it_and_what_was_answered_outlives_the_edges_container(
    daemon: DockerDaemon, disk_folder: Callable[[], Path], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    docker.build(daemon, disk_folder())
    composed = Composed(daemon, tmp_path)
    try:
        composed.run("up", "--detach", "--wait")
        there = composed.containers()
        command = {
            service: each["State"]["Health"]["Status"] for service, each in there.items() if "Health" in each["State"]
        }
        services = ("edge", "streams", "center", "webhooks")
        assert command == dict.fromkeys(("kafka", "registry", "postgres", *services), "healthy")
        published = [binding for each in there.values() for binding in bindings(each)]
        assert {binding["HostIp"] for binding in published} == {"127.0.0.1"}
        assert {binding["HostPort"] for binding in published} == composed.ports
        for service in (*services, "topics", "schemas", "tables"):
            assert there[service]["HostConfig"]["ReadonlyRootfs"]

        client = EventStreamClient(composed.of_assignee("events"), AUTHORIZED).open()
        eventually(lambda: composed.post("create", "I-1") == "kafka", what="Kafka acknowledges in time")
        assert {each["instance_id"] for each in client.wait_for(1)} == {"I-1"}
        client.cut()

        composed.run("stop", "kafka")
        assert composed.post("create", "I-2") == "spool"
        composed.run("up", "--detach", "--force-recreate", "--no-deps", "edge")
        composed.run("start", "kafka")
        eventually(lambda: composed.pending() == {"I-1", "I-2"}, what="both tasks are pending")
        assert composed.containers()["edge"]["Id"] != there["edge"]["Id"]

        listing = ("exec", "-T", "webhooks", "python3", "-m", "taskbridge.cli", "webhooks", "list", "--json")
        # The edge is no receiver, and its address is a private one.
        eventually(lambda: json.loads(composed.run(*listing))["waiting"] > 0, what="a delivery waits")

        composed.run("stop")
        ended = composed.containers()
        assert [ended[service]["State"]["ExitCode"] for service in services] == [0, 0, 0, 0]
    finally:
        composed.run("down", "--volumes")
    assert daemon.run("ps", "--all", "--quiet") == ""


def bindings(container: dict[str, Any]) -> list[dict[str, str]]:
    return [binding for port in container["HostConfig"]["PortBindings"].values() for binding in port]
