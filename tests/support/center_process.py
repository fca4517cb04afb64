"""The task center as a real process that tests may kill, its lists as its API gives them, and its event streams."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2

from support import http_clients
from support.center_rows import AnsweringCenter, fill
from support.edge.process import LOAD_FAST
from support.forked import ForkedService
from support.http_clients import EventStreamClient
from taskbridge.center.access.access import Access
from taskbridge.center.migrations import FOLDER
from taskbridge.cli.connection import Connection
from taskbridge.runtime.database import open_database
from taskbridge.runtime.migrations import migrate
from taskbridge.schemas.topics import PEOPLE, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

_CODE = f"{LOAD_FAST}; from taskbridge.center.app import main; main()"
VIEWS = ("created", "pending", "handled", "copied")


class CenterProcess(ForkedService):
    """One replica, with a port and a data folder that stay the same over its restarts."""

    def __init__(self, folder: Path, connection: Connection, **environment: str) -> None:
        super().__init__("center", _CODE, folder, connection, **environment)


@contextlib.contextmanager
def without_kafka(
    folder: Path, write: Callable[[AnsweringCenter], None], *, code: str | None = None, **environment: str
) -> Generator[CenterProcess]:
    """A task center whose lists are complete with what ``write`` writes; with ``code``, one changed for a test."""
    process = CenterProcess(folder, Connection("127.0.0.1:1", "http://127.0.0.1:1", {}))
    process.environment |= {"CENTER_PUBLIC_URL": process.url, **environment}
    database = open_database(None, process.data_dir)
    migrate(database, FOLDER)
    rows = AnsweringCenter(database, Access(tokens=None))
    write(rows)
    for topic in (TASK_STATES, PEOPLE):
        fill(database, topic.name, read=1, of=1)
    rows.close()
    database.close()
    with process:
        process.start(code)
        deadline = time.monotonic() + 60
        while not process.is_ready():
            assert time.monotonic() < deadline, process.log_path.read_text()
            time.sleep(0.05)
        yield process


class Line(NamedTuple):
    """Identifies an entry of one person's lists."""

    view: str
    instance_id: str
    task_id: str | None


Lists = dict[Line, dict[str, Any]]
"""A person's entries as the API gives them, those of a view in its order."""


def lists_of(url: str, corp_id: str, user_id: str) -> Lists | None:
    """Everything that a person has; None while the service cannot say.

    Pages are queried one after the other: what changes meanwhile may be missed, but not what stays.
    """
    found: Lists = {}
    base = f"{url}/v1/corps/{corp_id}/users/{user_id}/tasks"
    with contextlib.suppress(httpx2.HTTPError), http_clients.client() as client:
        for view in VIEWS:
            cursor: str | None = ""
            while cursor is not None:
                answer = client.get(f"{base}?view={view}&limit=200{cursor and f'&cursor={cursor}'}")
                if answer.status_code != 200:
                    return None
                page = answer.json()
                found |= {Line(view, each["instance_id"], each["task_id"]): each for each in page["items"]}
                cursor = page["next_cursor"]
        return found
    return None


class Follower(EventStreamClient):
    """A client of one person's event stream, as a portal has it: it loads the lists once, then applies what comes.

    It reconnects however a connection ends, to any replica, with the last id. After ``reset`` it loads the lists again.
    """

    def __init__(self, corp_id: str, user_id: str, replica: Callable[[], str]) -> None:
        # Heartbeats come every 15 s: a frozen replica sends none.
        super().__init__("", timeout_s=17)
        self.user_id = user_id
        self.lists: Lists = {}
        self.connections = 0
        self._corp_id = corp_id
        self._replica = replica
        self._is_current = False
        self._over = threading.Event()
        self._following = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self._following.start()

    def stop(self) -> None:
        self._over.set()
        with contextlib.suppress(AttributeError):  # it has had no connection yet
            self.cut()
        self._following.join(60)

    def received(self, name: str, data: str) -> None:
        super().received(name, data)
        if name == "reset":
            self._is_current = False
        if not self._is_current:
            found = lists_of(self.url.partition("/v1/")[0], self._corp_id, self.user_id)
            if found is None:
                raise ConnectionAbortedError("the same event is requested again")
            self.lists, self._is_current = found, True
        if name == "notification":
            event = json.loads(data)
            line = Line(event["view"], event["instance_id"], event["task_id"])
            if event["change"] == "REMOVED":
                self.lists.pop(line, None)
            else:
                self.lists[line] = event

    def _follow(self) -> None:
        while not self._over.wait(0.1):
            self.url = f"{self._replica()}/v1/corps/{self._corp_id}/users/{self.user_id}/events"
            self._is_current = self._is_current and self.last_event_id is not None
            with contextlib.suppress(OSError):
                self.open()
                self.connections += 1
                self.ended.wait()
