"""``taskbridge streams --rebuild`` and its like as processes of their own, and what is on Kafka before and after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from running_workers import show_log
from stream_lives import caught_up, expected, read_topic, topics_on
from taskbridge.runtime.kafka import consumer_config
from taskbridge.streams.contract.live_version import LiveVersion
from taskbridge.streams.fold.views import show
from taskbridge.streams.inbox.changes import inbox_changes
from taskbridge.streams.positions.changelog_topic import INBOX_CHANGELOG, instances_changelog
from taskbridge.streams.positions.offsets import Offsets
from taskbridge.streams.processing.untold import UNTOLD, instance_key
from taskbridge.streams.rebuild.comparison import republished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from confluent_kafka import Message

    from running_workers import Worker
    from taskbridge.cli.connection import Connection
    from taskbridge.streams.fold.instance import Instance
    from taskbridge.streams.positions.version import Versions

    Read = Callable[[str], list[Message]]


class Rebuild:
    """``taskbridge streams --rebuild`` as a process of its own."""

    def __init__(self, connection: Connection, folder: Path, *, data_dir: Path | None = None) -> None:
        """``data_dir``: where workers have left their stores, else one of its own."""
        self.log_path = folder / "rebuild.log"
        self.data_dir = data_dir or folder / "rebuild"
        self._environment = {
            **os.environ,
            "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
            "TASKBRIDGE_SCHEMA_REGISTRY_URL": connection.registry_url,
            "STREAMS_DATA_DIR": str(self.data_dir),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "taskbridge.cli", "streams", "--json", *(arguments or ("--rebuild",))]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=log)
        return self._process

    def run(self, *arguments: str) -> dict[str, Any]:
        """What it came to."""
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=180)
        assert process.returncode == 0, self.log_path.read_text()
        return json.loads(out)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def kill_if_running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def show_log(self) -> None:
        show_log(self.log_path)


def ends(connection: Connection) -> dict[str, dict[int, int]]:
    """Where each partition of each topic of ours ends."""
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    return {name: offsets.ends(name, partitions) for name, partitions in topics_on(connection).items()}


def processed(connection: Connection, workers: Iterable[Worker], eventually: Any) -> None:
    """Return once the workers are ready, have folded every event, and have told what a rebuild left to be told."""
    eventually(lambda: all(each.is_ready() for each in workers), what="the workers are ready")
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: not untold(connection), what="all is told that a rebuild left")


def versions(connection: Connection) -> Versions:
    """What is said of them now."""
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    return LiveVersion(connection.bootstrap_servers, {}, offsets).read()


def untold(connection: Connection) -> set[bytes]:
    """Keys of the instances of which the live changelog has something that people have not been told."""
    changelog = instances_changelog(versions(connection).live).name
    last = {bytes(each.key() or b""): each.value() for each in read_topic(connection, changelog)}
    return {instance_key(key) for key, value in last.items() if key.startswith(UNTOLD) and value is not None}


def lines_kept(read: Read) -> dict[bytes, bytes]:
    """All inboxes, by their changelog."""
    found = {bytes(each.key() or b""): each.value() for each in read(INBOX_CHANGELOG.name)}
    return {key: bytes(value) for key, value in found.items() if value is not None and key[:1] in b"ELC"}


def lines_by_the_states(connection: Connection, read: Read) -> dict[bytes, bytes]:
    """The same as the plain fold of the events has it."""
    return lines_of(expected(connection, read).values())


def lines_of(instances: Iterable[Instance]) -> dict[bytes, bytes]:
    """The same of these instances."""
    store: dict[bytes, bytes] = {}
    for instance in instances:
        for key, value in inbox_changes(republished(show(instance), number=1), stored=store.get).items():
            if value is None:
                store.pop(key, None)
            else:
                store[key] = value
    return store
