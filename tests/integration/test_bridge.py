"""The whole bridge: a signed callback becomes a notification, also after the broker was killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from mcp import Client

from support import http_clients
from support.callbacks import post_callback
from support.forked import taskbridge
from support.process_state import is_running
from taskbridge.cli.connection import Connection
from taskbridge.cli.data_folder import DataFolder
from taskbridge.local.bridge import Bridge, BridgeOptions
from taskbridge.local.company import CORP, vendor_sample
from taskbridge.local.demo import APP, write_credentials
from taskbridge.local.host import free_ports
from taskbridge.local.jvm import registry_url
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PORTS = ("edge-port", "center-port", "streams-port", "kafka-port", "registry-port")
# Without the addresses that may point at another Kafka: this bridge starts its own, and kills it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TASKBRIDGE_KAFKA")}


class Outsider:
    """A client that posts to a bridge and listens to its notifications."""

    def __init__(self, edge_url: str, token: str, connection: Connection | None = None) -> None:
        self.edge_url = edge_url
        self.token = token
        self.connection: Connection | None = connection

    def create(self) -> str:
        """Post one create until it is accepted, as an impatient person would; returns the event's id."""
        task = {**vendor_sample(), "formInstanceId": str(uuid.uuid4()), "appType": APP}
        # The time is given, so that a second try is the same callback with the same event id.
        parameters = {"task": json.dumps(task, ensure_ascii=False), "dateTime": str(time.time_ns() // 1_000_000)}
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(OperatorError):
                answer = post_callback(self.edge_url, "create", parameters, system_token=self.token, encoding="form")
                if answer.accepted:
                    return str(answer.body["eventId"])
                assert answer.status == 503
            time.sleep(0.2)
        pytest.fail("the edge did not accept a callback within 90 s")

    def notified(self, event_ids: set[str], *, within_s: float = 90) -> set[str]:
        """Which of these events came out as notifications in time."""
        assert self.connection is not None
        deadline = time.monotonic() + within_s
        found: set[str] = set()

        def is_over() -> bool:
            return time.monotonic() > deadline or found >= event_ids

        while not is_over():
            # What was killed may be back later than a consumer waits for it.
            with contextlib.suppress(OperatorError):
                codec = task_notification_codec(self.connection.registry)
                for batch in self.connection.follow(TASK_NOTIFICATIONS.name, from_beginning=True):
                    found |= {codec.decode(each.value()).event_id for each in batch}
                    if is_over():
                        break
        return found & event_ids


class RunningBridge(Outsider):
    """A bridge on free ports."""

    def __init__(self, data_dir: Path) -> None:
        edge, center, streams, kafka, registry = free_ports(5)
        self.lines: list[str] = []
        credentials = data_dir / "credentials.toml"
        super().__init__(f"http://127.0.0.1:{edge}", write_credentials(credentials))
        self.bridge = Bridge(
            BridgeOptions(
                data_dir=data_dir,
                edge_port=edge,
                center_port=center,
                streams_port=streams,
                kafka_port=kafka,
                registry_port=registry,
                credentials=credentials,
            ),
            progress=self.lines.append,
            # A busy machine's Kafka answers late.
            environment={**ENVIRONMENT, "EDGE_KAFKA_TIMEOUT_MS": "5000"},
        )

    def start(self) -> None:
        self.connection = self.bridge.start()

    def stop(self) -> None:
        self.bridge.stop()
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@pytest.fixture(scope="module")
def running(disk_folder: Callable[[], Path]) -> Generator[RunningBridge]:
    """One bridge for all: what a test kills is back when the test ends."""
    bridge = RunningBridge(disk_folder())
    try:
        bridge.start()
        yield bridge
    finally:
        bridge.stop()


def test_killed_processes_come_back_and_the_path_works_again(running: RunningBridge) -> None:
    before = running.create()
    assert running.notified({before}) == {before}
    pids = {each: running.bridge.pid(each) for each in ("kafka", "registry", "edge", "streams", "center")}
    shares = {
        each: os.getpriority(os.PRIO_PROCESS, pid or 0) - os.getpriority(os.PRIO_PROCESS, 0)
        for each, pid in pids.items()
    }
    assert shares == {"kafka": 0, "registry": 0, "edge": 0, "streams": 5, "center": 5}, "callbacks come first"
    for pid in pids.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(running.bridge.pid(each) in (pid, None) for each, pid in pids.items()) and time.monotonic() < deadline:
        time.sleep(0.1)
    after = {running.create() for _ in range(3)}
    assert running.notified({before} | after) == {before} | after
    for each in pids:
        assert any(each in line and "died" in line for line in running.lines), running.lines


def program(*arguments: str, env: Mapping[str, str] = ENVIRONMENT, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "taskbridge.cli", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


# Without --keep, test_documents.py runs it as the README says.
def test_a_demo_that_is_kept_shows_every_callback_and_the_four_views_and_answers_an_assistant() -> None:
    process = program("demo", "--keep")
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "press Ctrl-C" in line:
                break
        assert said.count("POST /yida/tasks/") == 9
        assert "9 callbacks accepted, 18 notifications" in said
        assert "The four views at the end" in said
        assert "REMOVED in 'pending'" in said
        assert "ADDED in 'handled', now COMPLETED" in said
        address = re.search(r"for an assistant \(MCP\) +(\S+)", said)
        person = re.search(r"tell it corp_id (\S+) and user_id (\S+),", said)
        assert address, said
        assert person, said

        async def ask() -> Any:
            async with Client(address[1]) as client:
                who = {"corp_id": person[1], "user_id": person[2]}
                return (await client.call_tool("list_tasks", {"view": "created", **who})).structured_content

        assert asyncio.run(ask())["items"][0]["title"]["text"]
    finally:
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert "kafka stopped" in err


def catches(pid: int, signum: signal.Signals) -> bool:
    """Whether the process has a handler for the signal by now."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (signum - 1) & 1)


def test_the_doctor_follows_a_task_all_the_way_through_a_bridge_that_runs(running: RunningBridge) -> None:
    options = ("--end-to-end", "--json", "--data-dir", str(running.bridge.data_dir))
    examined = taskbridge("doctor", *options, environment=ENVIRONMENT)
    assert examined.returncode == 0, examined.stdout + examined.stderr
    found = [json.loads(line) for line in examined.stdout.splitlines()]
    assert [each["state"] for each in found if each["check"] == "service"] == ["ok"] * 3
    created, deleted = [each["says"] for each in found if each["check"] == "end-to-end"]
    assert created.startswith("create accepted (kafka), live update after ")
    assert deleted.startswith("delete accepted (kafka), live update after ")


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in map(int, (task / "children").read_text().split()):
                with contextlib.suppress(FileNotFoundError):
                    found |= {child} | descendants(child)
    return found


@pytest.mark.parametrize(
    ("command", "starts", "signum", "code"),
    [
        ("up", ["using"], signal.SIGINT, 0),
        ("demo", ["kafka starts", "registry starts"], signal.SIGTERM, 130),
    ],
)
def test_a_signal_ends_a_start(
    tmp_path: Path, command: str, starts: list[str], signum: signal.Signals, code: int
) -> None:
    ports = zip((f"--{each}" for each in PORTS), free_ports(5), strict=True)
    process = program(command, "--data-dir", str(tmp_path), *(str(each) for pair in ports for each in pair))
    assert process.stderr is not None
    missing = set(starts)
    while missing:  # services start in parallel and are reported in any order
        line = process.stderr.readline()
        assert line, f"never printed: {missing}"
        missing = {each for each in missing if not line.startswith(each)}
    started = descendants(process.pid)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    # Kafka and the registry may begin to start while the signal is on its way.
    later = [line for line in err.splitlines() if not line.startswith(("kafka starts", "registry starts"))]
    assert not [line for line in later if line.endswith((" starts", "ready"))], "it goes on starting"
    assert not [pid for pid in started if is_running(pid)]


def test_tail_prints_decoded_records_as_json_lines(running: RunningBridge, eventually: Any) -> None:
    event_id = running.create()
    running.notified({event_id})
    assert running.connection is not None
    where = ("--bootstrap-servers", running.connection.bootstrap_servers)
    where += ("--registry-url", running.connection.registry_url)
    options = ("--from-beginning", "--max", "1", "--json", *where)
    first = taskbridge("tail", TASK_NOTIFICATIONS.name, *options, environment=ENVIRONMENT)
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.splitlines()) == 1
    process = program("tail", TASK_NOTIFICATIONS.name, "--from-beginning", "--max", "10000", *where)
    assert process.stdout is not None
    record = next(each for each in map(json.loads, process.stdout) if each["value"]["event_id"] == event_id)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(record) == ["topic", "partition", "offset", "key", "timestamp", "headers", "value"]
    assert record["key"] == f"{CORP}/{vendor_sample()['originatorId']}"
    assert record["headers"]["ce_type"] == "taskbridge.notification.added.v1"
    assert (record["value"]["view"], record["value"]["event_id"]) == ("CREATED", event_id)
    assert record["value"]["occurred_at"].endswith("Z")

    process = program("tail", "taskbridge.task-states.v1", *where)
    eventually(lambda: catches(process.pid, signal.SIGTERM), what="tail has started")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0

    ended = taskbridge("tail", "no.such.topic", *where, environment=ENVIRONMENT)
    assert ended.returncode == 1
    assert ended.stderr.startswith("taskbridge: topic no.such.topic does not exist")


def test_up_finds_yesterdays_events_and_stops_everything_in_order_on_a_signal(
    running: RunningBridge, eventually: Any
) -> None:
    """The last of this file: it stops the bridge, and starts another in its folder, on other ports."""
    yesterdays = running.create()
    assert running.notified({yesterdays}) == {yesterdays}
    running.stop()
    folder, credentials = running.bridge.data_dir, running.bridge.credentials
    credentials.write_text("")
    *numbers, webhooks_port = free_ports(6)
    ports, endpoints = dict(zip(PORTS, numbers, strict=True)), folder / "endpoints.toml"
    endpoints.touch()
    flags = [f"--{each}={port}" for each, port in (*ports.items(), ("webhooks", endpoints))]
    environment = {**ENVIRONMENT, "WEBHOOKS_PORT": str(webhooks_port)}
    process = program("up", "--data-dir", str(folder), *flags, env=environment)
    assert process.stdout is not None
    printed = list(iter(process.stdout.readline, "ready; press Ctrl-C to stop everything\n"))
    edge, center = (f"http://127.0.0.1:{ports[each]}" for each in ("edge-port", "center-port"))
    assert f"{edge}/yida/tasks/" in printed[0]
    assert f"task center  {center}/\n" in printed
    assert f"operations   {center}/ops\n" in printed
    assert f"webhooks     http://127.0.0.1:{webhooks_port}\n" in printed
    overview = http_clients.get(f"{center}/v1/ops/overview").json()
    assert [each["reachable"] for each in overview["webhooks"]["services"]] == [True]
    announced = DataFolder(folder, is_named=True).running()
    assert announced is not None
    assert announced.webhooks_url == f"http://127.0.0.1:{webhooks_port}"
    assert f"  export TASKBRIDGE_DATA_DIR={folder}\n" in printed
    # It started without an app; the terminal shows whether changes are in force.
    assert process.stderr is not None
    no_app, changed = f"add your apps to {credentials}", f"credentials file {credentials}: "
    assert any(no_app in line for line in process.stderr)
    token = write_credentials(folder / "apps.toml")
    (folder / "apps.toml").rename(credentials)
    assert f"{changed}the last change is in force (3 entries)\n" in process.stderr
    good = credentials.read_text()
    credentials.write_text(f"{good}[[apps\n")
    assert any(f"not in use: {changed}not TOML: Expected ']]'" in line for line in process.stderr)
    credentials.write_text(good)
    assert f"{changed}the last change is in force (3 entries)\n" in process.stderr
    ready = partial(httpx2.get, f"{edge}/readyz", trust_env=False)
    eventually(lambda: ready().is_success, what="the edge has the apps")
    kafka, registry = f"127.0.0.1:{ports['kafka-port']}", registry_url("127.0.0.1", ports["registry-port"])
    with contextlib.closing(Connection(kafka, registry, {})) as connection:
        outsider = Outsider(edge, token, connection)
        events = {yesterdays, outsider.create()}
        assert outsider.notified(events) == events
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    stops = [line.split()[0] for line in err.splitlines() if line.endswith(" stopped")]
    assert stops == ["webhooks", "center", "streams", "edge", "registry", "kafka"]
