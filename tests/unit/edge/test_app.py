"""A wrong configuration ends the process with one readable line; the decisions stay free of I/O libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.edge.fakes import write_credentials
from support.edge.process import RunningEdge, wait_until
from support.forked import run_forked
from taskbridge.local.host import free_port

if TYPE_CHECKING:
    from pathlib import Path


def run_edge(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    defaults = {
        "EDGE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "EDGE_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
        "EDGE_CREDENTIALS_FILE": str(tmp_path / "credentials.toml"),
        "EDGE_DATA_DIR": str(tmp_path / "edge"),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    code = "from taskbridge.edge.app import run; run()"
    return run_forked(code, environment=inherited | defaults | environment, arguments=("-c",), timeout=120)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"EDGE_CREDENTIALS_FILE": "/nowhere"}, "credentials file /nowhere: No such file or directory"),
        ({"EDGE_KAFKA_BOOTSTRAP_SERVERS": ""}, "EDGE_KAFKA_BOOTSTRAP_SERVERS: "),
        ({"TASKBRIDGE_PARTITIONS": "0"}, "TASKBRIDGE_PARTITIONS: "),
        ({"EDGE_BEARER_TOKENS": ""}, "EDGE_BEARER_TOKENS: "),
        ({"EDGE_KAFKA_CONFIG_FILE": "kafka.properties"}, "Kafka's configuration: No such configuration property"),
        ({"EDGE_DATA_DIR": "/dev/null/edge"}, "data folder /dev/null/edge: Not a directory"),
    ],
    ids=[
        "no credentials",
        "no brokers",
        "no partitions",
        "blank bearer token",
        "unknown Kafka property",
        "no data folder",
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_credentials(tmp_path / "credentials.toml", "token")
    (tmp_path / "kafka.properties").write_text("no.such.property=1\n")
    ended = run_edge(tmp_path, **environment)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"taskbridge edge: {message}")
    assert ended.stderr.count("\n") == 1


def test_decisions_import_no_io_library() -> None:
    program = """
import sys
import taskbridge.edge.decision.callbacks
import taskbridge.edge.parsing.fields
import taskbridge.edge.parsing.parameters
import taskbridge.edge.parsing.strict_json
import taskbridge.edge.verification.signature, taskbridge.edge.sender
print(sorted({"fastapi", "starlette", "confluent_kafka", "uvicorn", "asyncio"} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_the_process_ends_in_time_while_a_part_still_waits(tmp_path: Path) -> None:
    write_credentials(tmp_path / "credentials.toml", "token")
    program = f"""
import asyncio, gc, pathlib, time
import taskbridge.edge.app
from taskbridge.edge.settings import EdgeSettings
from support.edge.fakes import MemoryPublisher
from support.edge.client import EdgeClient

class Stuck(MemoryPublisher):
    async def close(self):
        await asyncio.to_thread(time.sleep, 60)

taskbridge.edge.app._LAST_S = 0.5
folder = pathlib.Path({str(tmp_path)!r})
settings = EdgeSettings(
    kafka_bootstrap_servers="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1",
    credentials_file=folder / "credentials.toml", data_dir=folder / "edge",
)
with EdgeClient(taskbridge.edge.app.create_app(settings, publisher=Stuck(), owns_process=True)):
    print("frozen:", gc.get_freeze_count() > 0, flush=True)
print("closed")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert "frozen: True" in ended.stdout, "the collector looks at what was built at start"
    assert "closed" not in ended.stdout


def alone(tmp_path: Path, **environment: str) -> RunningEdge:
    """Started, with neither Kafka nor a registry."""
    edge = RunningEdge(tmp_path, bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1", **environment)
    edge.start()
    return edge


def test_operators_have_a_port_of_their_own(tmp_path: Path) -> None:
    edge = alone(tmp_path, EDGE_OPERATOR_PORT=str(operator_port := free_port()))
    wait_until(edge.is_ready)
    public, edge.url = edge.url, f"http://127.0.0.1:{operator_port}"
    try:
        assert edge.metric("taskbridge_edge_credentials_apps") is not None
        readiness = edge.get("/readyz")
        assert readiness is not None
        assert readiness.json()["kafka"] == "does not answer"
        edge.url = public
        answers = [edge.get(path) for path in ("/metrics", "/readyz")]
        assert [each.status_code for each in answers if each is not None] == [404, 200]
        assert answers[1] is not None
        assert answers[1].json() == {"ready": True}
    finally:
        assert edge.stop() == 0


def test_a_number_of_workers_is_accepted_and_has_no_effect(tmp_path: Path) -> None:
    edge = alone(tmp_path, EDGE_WORKERS="2")
    try:
        wait_until(edge.is_ready)
        assert [line["problem"] for line in edge.log() if line["event"] == "setting_without_effect"] == [
            "EDGE_WORKERS has no effect: an edge is one process; start more edges"
        ]
    finally:
        assert edge.stop() == 0
