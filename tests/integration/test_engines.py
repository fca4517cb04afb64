"""Real engines of Flowable and Camunda 7 report to a real bridge: everybody's lists are what the engines say."""

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

from support import http_clients, needs, toolchains
from support.center_process import CenterProcess
from support.edge.process import RunningEdge, wait_until
from support.streams.processes import Worker
from taskbridge.runtime import standard_webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.consumers, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "connect-an-engine.md"
CORP = "ding-company"
PEOPLE = ("piggy", "kermit", "gonzo", "fozzie", "rowlf", "animal", "statler")
ENGINES = ("flowable", "camunda")
VIEWS = (("pending", "involved"), ("handled", "completed"), ("created", "started"))
"""Of the bridge, and of an engine. A person once named still sees a task, so an engine's own list may be shorter."""


class Console:
    """The example, started as its page says; ``run`` does what people do."""

    def __init__(self, engine: str, source: str, log: Path) -> None:
        self.source = source
        self.engine = engine
        self._log = log
        self._running: subprocess.Popen[str] | None = None

    def start(self, address: str, secret: str) -> None:
        folder, *_, command = commands()
        words = shlex.split(command)
        words[words.index("camunda") :] = [self.engine, f"{address}/sources/{self.source}/tasks", secret]
        self._running = typed(f"{folder}\nexec {shlex.join(words)}", self._log)

    def run(self, *words: str) -> Any:
        """What it answers when these are typed."""
        assert self._running is not None
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(" ".join(words) + "\n")
        self._running.stdin.flush()
        answer = self._running.stdout.readline()
        assert answer, shown_log(self._log)
        return json.loads(answer)

    def has(self, line: Mapping[str, Any]) -> bool:
        """Whether an entry is of this engine."""
        return line["instance_id"].startswith(f"{self.source}:")

    def id_of(self, line: Mapping[str, Any], view: str) -> str:
        """The engine's own id of what a line is about."""
        return line["instance_id"].removeprefix(f"{self.source}:") if view == "created" else line["task_id"]

    def end(self) -> int:
        assert self._running is not None
        self._running.communicate()
        return self._running.returncode

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.communicate()


def commands() -> list[str]:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return block.splitlines()


def typed(text: str, log: Path) -> subprocess.Popen[str]:
    with log.open("ab") as errors:
        return subprocess.Popen(
            ["bash", "-ec", text],
            cwd=ROOT,
            env={**os.environ, **toolchains.JAVA_QUICKLY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def shown_log(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-5000:]


@pytest.fixture
def worker(connection: Connection, tmp_path: Path) -> Generator[Worker]:
    with Worker(tmp_path, connection) as worker:
        worker.start()
        yield worker


@pytest.fixture
def center(connection: Connection, tmp_path: Path) -> Generator[CenterProcess]:
    with CenterProcess(tmp_path, connection) as center:
        center.start()
        yield center


@pytest.fixture
def edge(connection: Connection, tmp_path: Path) -> Generator[RunningEdge]:
    with RunningEdge(
        tmp_path, bootstrap_servers=connection.bootstrap_servers, registry_url=connection.registry_url
    ) as edge:
        yield edge


@pytest.fixture
def consoles(edge: RunningEdge, tmp_path: Path) -> Generator[tuple[Console, ...]]:
    needs.program("javac")
    *build, _ = commands()
    log = tmp_path / "build.log"
    with typed("\n".join(build), log) as building:
        assert building.wait(300) == 0, shown_log(log)
    # Names of each run's own, so that two runs on one Kafka never meet.
    consoles = tuple(Console(each, f"{each}-{edge.port}", tmp_path / f"{each}.log") for each in ENGINES)
    yield consoles
    for console in consoles:
        console.kill()


class Company:
    """What its people do in each engine, and what they are shown."""

    def __init__(self, corp: str, consoles: tuple[Console, ...], center: CenterProcess) -> None:
        self._corp = corp
        self._consoles = consoles
        self._center = center

    def run(self, *words: str, of: Mapping[Console, str] | None = None) -> dict[Console, Any]:
        """The answer of each engine; ``of`` has the value for INSTANCE."""
        return {
            each: each.run(*(of[each] if of and word == "INSTANCE" else word for word in words))
            for each in self._consoles
        }

    def shown(self, user: str, view: str) -> list[dict[str, Any]]:
        address = f"{self._center.url}/v1/corps/{self._corp}/users/{user}/tasks"
        return http_clients.get(address, params={"view": view, "limit": 200}).json()["items"]

    def agrees(self, what: str) -> None:
        """In time, all lists are what the engines say."""
        deadline = time.monotonic() + 120
        while left := self._differences():
            assert time.monotonic() < deadline, f"{what}: {left}"
            time.sleep(0.2)

    def _differences(self) -> list[str]:
        found: list[str] = []
        for user in PEOPLE:
            lists = self.run("lists", user)
            assert all(set(each["open"]) <= set(each["involved"]) for each in lists.values())
            for view, right in VIEWS:
                lines = self.shown(user, view)
                for console in self._consoles:
                    ids = sorted(console.id_of(each, view) for each in lines if console.has(each))
                    if ids != sorted(lists[console][right]):
                        found.append(f"{user} {view} {console.source}: {ids}, {lists[console][right]} in the engine")
        return found

    def statuses(self, user: str) -> dict[Console, dict[str, str]]:
        """Of the instances that they started."""
        lines = self.shown(user, "created")
        return {
            console: {console.id_of(each, "created"): each["status"] for each in lines if console.has(each)}
            for console in self._consoles
        }


@pytest.fixture
def company(
    consoles: tuple[Console, ...],
    edge: RunningEdge,
    worker: Worker,
    center: CenterProcess,
    eventually: Callable[..., Any],
) -> Company:
    secret, corp = standard_webhooks.new_secret(), f"{CORP}-{edge.port}"
    edge.credentials.write_text(
        "".join(
            f'[[sources]]\nname = "{each.source}"\nformat = "{each.engine}"\n'
            f'corp_id = "{corp}"\nsecrets = ["{secret}"]\n'
            for each in consoles
        )
    )
    edge.start()
    for each in consoles:
        each.start(edge.url, secret)
    wait_until(edge.is_whole)
    eventually(worker.is_ready, what="the worker is ready")
    eventually(center.is_ready, what="the center is ready")
    return Company(corp, consoles, center)


def test_lists_are_what_the_engines_say_through_a_life_of_tasks_and_an_edge_that_is_away(
    company: Company, consoles: tuple[Console, ...], edge: RunningEdge
) -> None:
    run, agrees = company.run, company.agrees
    first = run("start", "piggy")
    agrees("two new tasks, one with an assignee, one with two candidates")
    assert all(each["open"] for user in ("gonzo", "fozzie") for each in run("lists", user).values())
    run("claim", "INSTANCE", "check", "gonzo", of=first)
    run("candidate", "INSTANCE", "approve", "animal", of=first)
    agrees("a claimed task, and a new candidate of the other")
    assert {each["title"] for each in company.shown("animal", "pending")} == {"Approve the leave"}
    run("complete", "INSTANCE", "check", "gonzo", of=first)
    run("delegate", "INSTANCE", "approve", "rowlf", of=first)
    agrees("one completed task, the other delegated")
    run("resolve", "INSTANCE", "approve", "rowlf", of=first)
    run("assign", "INSTANCE", "approve", "fozzie", of=first)

    # What happens while the bridge is away is reported when it is back.
    edge.stop()
    run("complete", "INSTANCE", "approve", "statler", of=first)
    second, third = run("start", "piggy"), run("start", "piggy")
    run("complete", "INSTANCE", "check", "fozzie", of=second)
    run("cancel", "INSTANCE", "statler", of=third)
    edge.start()
    agrees("a task completed by an administrator, two new instances, one of them cancelled")
    assert company.statuses("piggy") == {
        each: {first[each]: "COMPLETED", second[each]: "PENDING", third[each]: "CANCELLED"} for each in consoles
    }
    run("withdraw", "INSTANCE", "piggy", of=second)
    agrees("an event in the process ended a task")
    assert all(each["involved"] == [] for each in run("lists", "kermit").values())
    assert company.statuses("piggy") == {
        each: {first[each]: "COMPLETED", second[each]: "COMPLETED", third[each]: "CANCELLED"} for each in consoles
    }
    assert [each.end() for each in consoles] == [0, 0]
