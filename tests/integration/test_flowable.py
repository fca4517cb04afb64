"""A real Flowable engine reports to a real bridge: everybody's lists are what the engine itself says of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import plain_http
from running_edge import RunningEdge, wait_until
from running_workers import Worker
from taskbridge.edge.verification import webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.consumers, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "connect-flowable.md"
CORP = "ding-company"
PEOPLE = ("piggy", "kermit", "gonzo", "fozzie", "rowlf", "animal", "statler")


class Console:
    """The example, built and started as its page says, to be told what people do."""

    def __init__(self, log: Path) -> None:
        self._log = log
        (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        *self._build, self._start = block.splitlines()
        self._running: subprocess.Popen[str] | None = None

    def build(self) -> None:
        with self._type("\n".join(["set -e", *self._build])) as building:
            assert building.wait(300) == 0, self._log.read_text("utf-8", "replace")[-5000:]

    def start(self, address: str, secret: str) -> None:
        command, _, _ = self._start.partition(" http://")
        self._running = self._type(f"{self._build[0]}\nexec {shlex.join([*shlex.split(command), address, secret])}")

    def _type(self, commands: str) -> subprocess.Popen[str]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", commands],
                cwd=ROOT,
                env=dict(os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def told(self, *words: str) -> Any:
        """What it answers when these are typed."""
        assert self._running is not None
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(" ".join(words) + "\n")
        self._running.stdin.flush()
        answer = self._running.stdout.readline()
        assert answer, self._log.read_text("utf-8", "replace")[-5000:]
        return json.loads(answer)

    def end(self) -> int:
        assert self._running is not None
        self._running.communicate()
        return self._running.returncode

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.communicate()


@pytest.fixture
def console(tmp_path: Path) -> Generator[Console]:
    console = Console(tmp_path / "console.log")
    console.build()
    yield console
    console.kill()


@pytest.fixture
def worker(connection: Connection, tmp_path: Path) -> Generator[Worker]:
    worker = Worker(tmp_path, connection)
    worker.start()
    yield worker
    worker.kill_if_running()


@pytest.fixture
def edge(connection: Connection, tmp_path: Path) -> Generator[RunningEdge]:
    edge = RunningEdge(tmp_path, bootstrap_servers=connection.bootstrap_servers, registry_url=connection.registry_url)
    yield edge
    edge.kill_if_running()


def test_lists_are_what_the_engine_says_through_a_life_of_tasks_and_an_edge_that_is_away(
    console: Console,
    edge: RunningEdge,
    worker: Worker,
    eventually: Callable[..., Any],
) -> None:
    secret = webhooks.new_secret()
    # Names of each run's own, so that two runs on one Kafka never meet.
    source, corp = f"flowable-{edge.port}", f"{CORP}-{edge.port}"
    entry = f'[[sources]]\nname = "{source}"\nformat = "flowable"\ncorp_id = "{corp}"\nsecrets = ["{secret}"]\n'
    edge.credentials.write_text(entry)
    edge.start()
    wait_until(edge.is_whole)
    console.start(f"{edge.url}/sources/{source}/tasks", secret)

    def shown(user: str, view: str) -> list[dict[str, Any]]:
        address = f"http://127.0.0.1:{worker.port}/v1/corps/{corp}/users/{user}/tasks"
        return plain_http.get(address, params={"view": view, "limit": 200}, timeout=10).json()["items"]

    def differences() -> list[str]:
        found: list[str] = []
        for user in PEOPLE:
            says = console.told("lists", user)
            # Who was ever named goes on seeing the task, so the engine's own list may be shorter.
            assert set(says["open"]) <= set(says["involved"])
            for view, right in (("pending", "involved"), ("handled", "completed"), ("created", "started")):
                name = "instance_id" if view == "created" else "task_id"
                lines = sorted(each[name].removeprefix(f"{source}:") for each in shown(user, view))
                if lines != says[right]:
                    found.append(f"{user} {view}: {lines}, {says[right]} in the engine")
        return found

    def agree(what: str) -> None:
        deadline = time.monotonic() + 120
        while left := differences():
            assert time.monotonic() < deadline, f"{what}: {left}"
            time.sleep(0.2)

    def statuses(user: str) -> dict[str, str]:
        return {each["instance_id"].removeprefix(f"{source}:"): each["status"] for each in shown(user, "created")}

    eventually(worker.is_ready, what="the worker is ready")
    first = console.told("start", "piggy")
    agree("two tasks came, one of them somebody's, one of two people's")
    assert console.told("lists", "gonzo")["open"] == console.told("lists", "fozzie")["open"] != []
    console.told("claim", first, "check", "gonzo")
    console.told("candidate", first, "approve", "animal")
    agree("a task was taken, and another person may do the other")
    assert shown("animal", "pending")[0]["title"] == "Approve the leave"
    console.told("complete", first, "check", "gonzo")
    console.told("assign", first, "approve", "rowlf")
    agree("one was done, the other was given to somebody else")

    # What happens while the bridge is away is reported when it is back.
    edge.stop()
    console.told("complete", first, "approve", "statler")
    second, third = console.told("start", "piggy"), console.told("start", "piggy")
    console.told("complete", second, "check", "fozzie")
    console.told("cancel", third, "statler")
    edge.start()
    agree("what an administrator did in somebody's place, two more, one of them cancelled")
    assert statuses("piggy") == {first: "COMPLETED", second: "PENDING", third: "CANCELLED"}
    console.told("withdraw", second, "piggy")
    agree("an event in the process ended a task")
    assert console.told("lists", "kermit")["involved"] == []
    assert statuses("piggy") == {first: "COMPLETED", second: "COMPLETED", third: "CANCELLED"}
    assert console.end() == 0
