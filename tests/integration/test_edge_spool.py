"""The real edge's spool: on the disk before the answer, delivered by the command too, honest about a broken disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from support import http_clients, needs
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of
from support.edge.process import RunningEdge, wait_until
from support.edge.spool import can_mount, fill, small_disk
from support.forked import taskbridge
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.local.host import free_port
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import httpx2
    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

FORGED = f"appType={APP_TYPE}&corpId={CORP_ID}&formInstId=forged&sign={'0' * 32}"


def send(edge: RunningEdge, instance_id: str, task_id: str = "t-1") -> httpx2.Response:
    plain = parameters_of("complete", instance_id=instance_id, task_id=task_id)
    encoded = encode_callback(signed(plain, system_token=SYSTEM_TOKEN), "json")
    return edge.post("/yida/tasks/complete", encoded)


def away(folder: Path, connection: Connection) -> RunningEdge:
    """An edge whose Kafka does not answer."""
    return RunningEdge(folder, bootstrap_servers=f"127.0.0.1:{free_port()}", registry_url=connection.registry_url)


@pytest.fixture
def edge(tmp_path: Path, connection: Connection) -> Generator[RunningEdge]:
    with away(tmp_path, connection) as edge:
        yield edge


def task_ids(connection: Connection, messages: list[Message], instance_id: str) -> list[str | None]:
    codec = task_event_codec(connection.registry)
    return [codec.decode(each.value()).task_id for each in messages if each.key() == instance_id.encode()]


def test_the_spools_fsync_is_complete_before_the_answer_is_written(tmp_path: Path, edge: RunningEdge) -> None:
    needs.program("strace")
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,write,writev,sendto,sendmsg,pwrite64"
    edge.start("strace", "-f", "-qq", "-ttt", "-T", "-y", "-s", "300", "-e", calls, "-o", str(trace))
    wait_until(edge.is_ready)
    ids = [f"strace-{number}" for number in range(5)]
    for each in ids:
        answer = send(edge, each)
        assert (answer.status_code, answer.json()["durability"]) == (200, "spool")
    assert edge.process is not None
    (traced,) = Path(f"/proc/{edge.process.pid}/task/{edge.process.pid}/children").read_text().split()
    os.kill(int(traced), signal.SIGTERM)
    assert edge.process.wait(60) == 0
    written, synced, answered = log_and_answers(trace.read_text(errors="replace"))
    assert len(answered) == len(ids)
    before = 0.0
    for at in answered:
        # The record went into the log after the answer before, and a sync that began after that was over before this.
        wrote = [each for each in written if before < each < at]
        assert wrote, "nothing was written for this callback"
        assert any(wrote[-1] <= began and ended < at for began, ended in synced), "it was answered before the sync"
        before = at


def log_and_answers(trace: str) -> tuple[list[float], list[tuple[float, float]], list[float]]:
    """From a trace: ends of writes to the spool's log, starts and ends of its syncs, starts of answers to callbacks."""
    line = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
    duration = re.compile(r"<(\d+\.\d+)>$")
    unfinished: dict[str, tuple[float, str]] = {}
    written, synced, answered = list[float](), list[tuple[float, float]](), list[float]()
    for text in trace.splitlines():
        found = line.match(text)
        if found is None:
            continue
        thread, at, call = found[1], float(found[2]), found[3]
        began = at
        if call.endswith("<unfinished ...>"):
            unfinished[thread] = (at, call)
            if "durability" in call:
                answered.append(at)
            continue
        if call.startswith("<..."):
            began, start = unfinished.pop(thread, (at, ""))
            took = duration.search(call)
            ended = began + float(took[1]) if took else at
            call = start
        else:
            took = duration.search(call)
            ended = began + float(took[1]) if took else at
            if '"durability' in call or '\\"durability' in call:
                answered.append(began)
        if "0.db-wal" in call and call.startswith("pwrite64"):
            written.append(ended)
        elif "0.db-wal" in call and call.startswith(("fsync", "fdatasync")):
            synced.append((began, ended))
    return written, synced, answered


@pytest.mark.skipif(not can_mount(), reason="only root can mount a small disk; the unit tests fake one")
def test_a_full_disk_is_answered_503_and_recovered_from_by_itself(tmp_path: Path, edge: RunningEdge) -> None:
    with small_disk(edge.data_dir, megabytes=8):
        edge.start()
        wait_until(edge.is_ready)
        assert send(edge, "full-1").status_code == 200
        ballast = fill(edge.data_dir)
        refused = send(edge, "full-2")
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
        wait_until(lambda: not edge.is_ready(), what="not ready")
        assert edge.metric("taskbridge_edge_spool_full") == 1
        ballast.unlink()
        wait_until(edge.is_ready, what="ready again")
        assert send(edge, "full-3").status_code == 200
        assert edge.metric("taskbridge_edge_spool_depth") == 2
        # It even starts on a full disk, and opens the spool when there is room.
        assert edge.stop() == 0
        ballast = fill(edge.data_dir)
        edge.start()
        wait_until(lambda: edge.get("/healthz") is not None)
        assert send(edge, "full-4").status_code == 503
        ballast.unlink()
        # With nothing known against Kafka yet it is ready before the spool is open again.
        wait_until(lambda: edge.metric("taskbridge_edge_spool_depth") == 2, what="the spool is open again")
        wait_until(edge.is_ready, what="ready again")
        edge.kill()
    assert tmp_path.exists()


@contextlib.contextmanager
def fsync_fails(pid: int) -> Generator[None]:
    inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    strace = subprocess.Popen(["strace", "-f", "-qq", "-o", os.devnull, *inject, "-p", str(pid)])
    try:
        yield
    finally:
        strace.terminate()
        strace.wait()


def test_after_a_failed_fsync_a_new_file_is_begun_and_nothing_is_lost(edge: RunningEdge) -> None:
    needs.program("strace")
    edge.start()
    wait_until(edge.is_ready)
    assert edge.process is not None
    assert send(edge, "eio-1").status_code == 200
    with fsync_fails(edge.process.pid):
        wait_until(lambda: send(edge, "eio-2").status_code == 503, what="the failed fsync is noticed")
        wait_until(lambda: edge.metric("taskbridge_edge_spool_broken") == 1, what="no new file can be made either")
        assert not edge.is_ready()
        health = edge.get("/readyz")
        assert health is not None
        assert "broken" in health.json()["spool"]
    wait_until(edge.is_ready, what="a new file")
    assert send(edge, "eio-3").status_code == 200
    # The disk works again, and its view of the first file is not trusted: the rows are in another one.
    wait_until(lambda: edge.metric("taskbridge_edge_spool_unopened_files") == 0, what="the rows are moved")
    assert edge.metric("taskbridge_edge_spool_damaged_files_total") == 0
    assert (edge.metric("taskbridge_edge_spool_depth") or 0) >= 2
    assert edge.stop() == 0
    edge.start()
    wait_until(lambda: (edge.metric("taskbridge_edge_spool_depth") or 0) >= 2, what="both files are adopted")


def run_spool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return taskbridge("spool", *arguments, timeout=90)


def test_replay_waits_until_an_edge_has_delivered_what_another_left_behind(
    tmp_path: Path, edge: RunningEdge, connection: Connection, read_topic: Callable[[str], list[Message]]
) -> None:
    edge.start()
    wait_until(edge.is_ready)
    tasks = [f"t-{number}" for number in range(30)]
    assert {send(edge, "replayed", each).status_code for each in tasks} == {200}
    edge.kill()
    addresses = ("--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url)
    alone = run_spool("replay", "--data-dir", str(edge.data_dir), *addresses)
    assert (alone.returncode, "no edge runs on" in alone.stderr) == (1, True), alone.stderr
    back = RunningEdge(tmp_path, bootstrap_servers=connection.bootstrap_servers, registry_url=connection.registry_url)
    with back:
        back.start()
        done = run_spool("replay", "--data-dir", str(edge.data_dir), *addresses)
    assert (done.returncode, done.stdout) == (0, "the spool is empty\n"), done.stderr
    assert task_ids(connection, read_topic(TASK_EVENTS.name), "replayed") == tasks
    shown = run_spool("status", "--data-dir", str(edge.data_dir), "--json").stdout
    assert sum(json.loads(line)["records"] for line in shown.splitlines()) == 0


@pytest.fixture
def refused_by_policy(connection: Connection) -> Generator[Callable[[], None]]:
    """Meanwhile the broker refuses quarantine records that are older than a millisecond, that is all."""
    setting = "message.timestamp.before.max.ms"

    def set_to(value: str | None) -> None:
        operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
        entry = ConfigEntry(setting, value, incremental_operation=operation)
        resource = ConfigResource(ConfigResource.Type.TOPIC, CALLBACKS_QUARANTINE.name, incremental_configs=[entry])
        admin = connection.admin()
        admin.incremental_alter_configs([resource])[resource].result(30)

    set_to("0")
    try:
        yield lambda: set_to(None)
    finally:
        set_to(None)


def test_what_the_broker_refuses_of_the_quarantine_is_set_aside_and_holds_up_nothing(
    tmp_path: Path,
    connection: Connection,
    refused_by_policy: Callable[[], None],
    read_topic: Callable[[str], list[Message]],
) -> None:
    edge = RunningEdge(
        tmp_path,
        bootstrap_servers=connection.bootstrap_servers,
        registry_url=connection.registry_url,
        EDGE_KAFKA_TIMEOUT_MS="20000",
    )
    edge.start()
    with contextlib.ExitStack() as ending:
        ending.callback(edge.kill)
        wait_until(edge.is_ready)
        # The broker accepts a record within the millisecond of its timestamp: then another one is sent.
        arrived = len(read_topic(CALLBACKS_QUARANTINE.name))
        while not edge.metric("taskbridge_edge_spool_set_aside_records"):
            forged = http_clients.post(f"{edge.url}/yida/tasks/delete?{FORGED}")
            assert forged.status_code == 401
            arrived += 1
            wait_until(
                lambda arrived=arrived: (
                    edge.metric("taskbridge_edge_spool_set_aside_records") == 1
                    or len(read_topic(CALLBACKS_QUARANTINE.name)) == arrived
                ),
                what="it is set aside, or arrives",
            )
        durabilities = [send(edge, "refused-edge-runs", f"t-{number}").json()["durability"] for number in range(30)]
        assert durabilities == ["kafka"] * 30
        health = edge.get("/readyz")
        assert health is not None
        assert (health.status_code, health.json()["degraded"], health.json()["kafka"]) == (200, True, "ok")
        assert "1 records set aside" in health.json()["spool"]
        listed = run_spool("set-aside", "--data-dir", str(edge.data_dir), "--json")
        (aside,) = [json.loads(line) for line in listed.stdout.splitlines()]
        assert (aside["topic"], aside["reason"]) == (CALLBACKS_QUARANTINE.name, "refused")
        refused_by_policy()
        before = len(read_topic(CALLBACKS_QUARANTINE.name))
        addresses = ("--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url)
        assert run_spool("replay", "--data-dir", str(edge.data_dir), *addresses).returncode == 0
        assert len(read_topic(CALLBACKS_QUARANTINE.name)) == before + 1
    assert "nothing is set aside" in run_spool("set-aside", "--data-dir", str(edge.data_dir)).stderr
