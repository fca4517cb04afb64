"""A release's artifacts are installed over those of the last one while its services run: ``make upgrade-test``.

As on a machine with one environment for all services: pip replaces files below running processes, which are then
replaced in the order of docs/how-to/upgrade.md, and back where that is promised. No callback is refused or lost, and
what edges, Kafka, SQLite and PostgreSQL hold stays readable.

The last release is the last tag, or TASKBRIDGE_UPGRADE_FROM=COMMIT.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from support import http_clients
from support.center import PostgresServer
from support.center_process import CenterProcess
from support.edge.fakes import CORP_ID
from support.edge.process import OwnStack
from support.releases import built, last_release, version_of
from support.streams.lives import assert_all_is_right, assert_notified_exactly_once, read_topic
from support.streams.processes import Worker
from support.upgrade import Company, Edge, folded, lists, operate, right_lists, roll, shared, wait_until
from support.webhooks_process import Receivers, WebhooksProcess
from support.wheels import PYPROJECT, ROOT, git
from taskbridge.cli.connection import Connection
from taskbridge.local.company import EMPLOYEES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from support.forked import ForkedService

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


class Installation:
    """The environment of the page "Install"."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.python = str(folder / "taskbridge" / "bin" / "python")
        page = (ROOT / "docs" / "how-to" / "install.md").read_text("utf-8")
        (self._commands,) = re.findall(r"(?ms)^## Install the program\n[^#]*?```sh\n(.*?)```", page)

    def install(self, artifacts: Path) -> None:
        """Type the commands of the page, for the version of the artifacts."""
        dist, version = self._folder / "dist", version_of(artifacts)
        dist.unlink(missing_ok=True)
        dist.symlink_to(artifacts)
        typed = self._commands.replace(PYPROJECT["project"]["version"], version)
        argv = ["/bin/bash", "-ec", typed]
        done = subprocess.run(argv, cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"taskbridge {version}\n" in done.stdout


class Bridge:
    """Two edges, two workers, a center (two with PostgreSQL), and webhooks. Each step is logged with its seconds."""

    def __init__(self, python: str, dialect: str, folder: Path, ending: contextlib.ExitStack) -> None:
        self.python = python
        self._at = time.monotonic()
        self._pinned: set[tuple[str, str]] = set()
        self._is_postgresql = dialect == "postgresql"
        stack = OwnStack(folder / "stack")
        ending.callback(stack.stop)
        self.connection = Connection(stack.endpoints.bootstrap_servers, stack.endpoints.registry_url, {})
        ending.callback(self.connection.close)
        operate(python, self.connection, "topics", "apply")
        operate(python, self.connection, "schemas", "register")
        self.receivers = Receivers(seed=1)
        self.receivers.start()
        ending.callback(self.receivers.stop)
        self.edges = Edge(folder / "edge-1", self.connection), Edge(folder / "edge-2", self.connection)
        self.workers = [Worker(folder, self.connection, STREAMS_SESSION_TIMEOUT_S="12") for _ in range(2)]
        databases: dict[str, str] = {}
        if self._is_postgresql:
            server = PostgresServer()
            ending.callback(server.stop)
            with psycopg.connect(server.url(), autocommit=True) as database:
                database.execute("CREATE DATABASE webhooks")
            databases = {"CENTER_DATABASE_URL": server.url(), "WEBHOOKS_DATABASE_URL": server.url("webhooks")}
        replicas = 2 if self._is_postgresql else 1
        self.centers = [CenterProcess(folder, self.connection, **databases) for _ in range(replicas)]
        endpoints = {"erp": f'{self.receivers.url("erp")}\nstart = "present"'}
        self.webhooks = WebhooksProcess(folder, self.connection, endpoints, corp=CORP_ID, **databases)
        # Delays and claims as they are: the code of either release is run unchanged.
        self.webhooks.code = "from taskbridge.webhooks.app import main; main()"
        for edge in self.edges:
            ending.callback(edge.close)
        for each in (*self.workers, *self.centers, self.webhooks):
            ending.enter_context(each)

    def say(self, line: str) -> None:
        now = time.monotonic()
        sys.stderr.write(f"\n[upgrade] {now - self._at:4.1f} s  {line}")
        self._at = now

    def prepare(self) -> None:
        """What comes before any service: schemas, topics, and the tables of PostgreSQL."""
        operate(self.python, self.connection, "schemas", "register")
        operate(self.python, self.connection, "topics", "apply")
        if self._is_postgresql:
            for name, service in (("center", self.centers[0]), ("webhooks", self.webhooks)):
                operate(self.python, self.connection, name, "--migrate", environment=service.environment)

    def roll(self, services: Sequence[ForkedService]) -> None:
        """One after the other, each when the one before is ready."""
        for each in services:
            roll(each, self.python)
            wait_until(each.is_ready, what="the service is ready")

    def pin(self, center: CenterProcess) -> None:
        """What a person does: it is in the center's database alone."""
        found = ((who.user_id, each) for who in EMPLOYEES for each in created(center, who.user_id))
        person, entry = next((who, each) for who, each in found if not each["marks"]["pinned"])
        item = {"view": "created", "instance_id": entry["instance_id"], "task_id": None, "pinned": True}
        with http_clients.client() as client:
            assert client.put(f"{url_of(center, person)}/marks", json={"items": [item]}).status_code == 204
        self._pinned.add((person, entry["instance_id"]))

    def assert_pinned(self) -> None:
        """Each replica has what people did at any of them."""
        people = {person for person, _ in self._pinned}
        for center in self.centers:
            entries = {(who, each["instance_id"]): each["marks"] for who in people for each in created(center, who)}
            assert {name for name, marks in entries.items() if marks["pinned"]} == self._pinned


def url_of(center: CenterProcess, person: str) -> str:
    return f"{center.url}/v1/corps/{CORP_ID}/users/{person}"


def created(center: CenterProcess, person: str) -> list[dict[str, Any]]:
    return http_clients.get(f"{url_of(center, person)}/tasks?view=created&marks=true&limit=200").json()["items"]


@pytest.fixture(scope="module")
def artifacts(disk_folder: Callable[[], Path]) -> tuple[Path, Path]:
    """Of the last release, and of the commit that is checked out."""
    before, after = built(last_release(), disk_folder()), built(git("rev-parse", "HEAD"), disk_folder())
    assert version_of(before) != version_of(after), "pip does not replace a package by one of the same version"
    return before, after


@pytest.fixture
def installation(artifacts: tuple[Path, Path], tmp_path: Path) -> Installation:
    found = Installation(tmp_path)
    found.install(artifacts[0])
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def bridge(request: pytest.FixtureRequest, installation: Installation, tmp_path: Path) -> Generator[Bridge]:
    with contextlib.ExitStack() as ending:
        yield Bridge(installation.python, request.param, tmp_path, ending)


def test_artifacts_are_replaced_below_running_services_and_nothing_is_refused_or_lost(
    bridge: Bridge, installation: Installation, artifacts: tuple[Path, Path]
) -> None:
    (first, second), say = bridge.edges, bridge.say
    bridge.prepare()
    # The first edge is cut off from Kafka: what it answers is in its spool alone.
    first.roll(bridge.python, reaches_kafka=False)
    second.roll(bridge.python)
    bridge.roll([*bridge.workers, *bridge.centers, bridge.webhooks])
    shared(bridge.workers)
    say(f"all run from {version_of(artifacts[0])}")
    with Company(bridge.edges) as company:
        company.served(first)
        company.served(second)
        wait_until(first.has_spooled, what="the spool is in use")
        folded(bridge.connection)
        bridge.pin(bridge.centers[0])

        installation.install(artifacts[1])
        for edge in bridge.edges:
            company.served(edge)
        folded(bridge.connection)
        say(f"{version_of(artifacts[1])} is installed below all of them, and they go on")

        bridge.prepare()
        bridge.roll(bridge.centers[:1])
        # With PostgreSQL, this one is old, next to a new one and on the new one's tables.
        bridge.pin(bridge.centers[-1])
        bridge.assert_pinned()
        say("old and new replicas of the center show the same")
        bridge.roll([*bridge.centers[1:], bridge.webhooks, *bridge.workers])
        shared(bridge.workers)
        first.roll(bridge.python, reaches_kafka=False)
        second.roll(bridge.python)
        for edge in bridge.edges:
            company.served(edge)
        folded(bridge.connection)
        say("all are new")

        # Center and webhooks stay: an older one refuses tables that a newer one has changed.
        installation.install(artifacts[0])
        first.roll(bridge.python, reaches_kafka=False)
        second.roll(bridge.python)
        bridge.roll(bridge.workers)
        shared(bridge.workers)
        for edge in bridge.edges:
            company.served(edge)
        folded(bridge.connection)
        say("edges and workers are old again")

        installation.install(artifacts[1])
        bridge.roll([*bridge.centers, bridge.webhooks, *bridge.workers])
        first.roll(bridge.python)
        second.roll(bridge.python)
        for edge in bridge.edges:
            company.served(edge)
        say("all are new again, and the first edge reaches Kafka")
    say(f"{dict(company.outcomes)}, the slowest took {company.slowest_s:.1f} s")
    company.assert_all_arrived(bridge.connection)
    assert_all_is_right_everywhere(bridge)
    bridge.assert_pinned()
    say("all is right\n")


def assert_all_is_right_everywhere(bridge: Bridge) -> None:
    """On the topics, in the center's lists, and at the receiver of webhooks."""

    def read(topic: str) -> list[Any]:
        return read_topic(bridge.connection, topic)

    assert_all_is_right(bridge.connection, read)
    assert_notified_exactly_once(bridge.connection, read)
    right = right_lists(bridge.connection)
    for center in bridge.centers:
        wait_until(lambda center=center: lists(center, right) == right, what="the lists are as the events say")
    delivered = {
        (person, each.view, each.instance_id, each.task_id or "") for person, found in right.items() for each in found
    }

    def received() -> set[tuple[str, ...]]:
        entries = [*bridge.receivers.received["erp"].lists]  # another thread adds to them
        return {(person, view.lower(), instance, task) for _, person, view, instance, task in entries}

    wait_until(lambda: received() == delivered, what="the receiver has all entries")
