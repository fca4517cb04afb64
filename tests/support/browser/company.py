"""A running bridge, the company that works with it, and Yida, which posts to it."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support import http_clients
from support.callbacks import post_callback
from taskbridge.local.bridge import Bridge, BridgeOptions
from taskbridge.local.company import CORP, vendor_sample
from taskbridge.local.demo import APP, write_credentials
from taskbridge.local.host import free_ports
from taskbridge.runtime import standard_webhooks

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from taskbridge.cli.connection import Connection

# Without the addresses that may point at another Kafka, and without tokens: the page is opened anonymously.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TASKBRIDGE_KAFKA", "STREAMS_", "EDGE_", "CENTER_"))
}
SECRET = standard_webhooks.new_secret()


@dataclass(frozen=True)
class Task:
    title: str
    instance_id: str
    task_id: str


class Company:
    """A running bridge, and Yida, which posts to it."""

    def __init__(self, bridge: Bridge, connection: Connection, token: str) -> None:
        self.bridge, self.connection, self.token = bridge, connection, token

    def page_of(self, user: str) -> str:
        return f"{self.bridge.center_url}/?corp_id={CORP}&user_id={user}"

    def create(self, title: str, assignee: str, **more: Any) -> Task:
        task = Task(title, str(uuid.uuid4()), str(uuid.uuid4().int >> 72))
        body = {
            **vendor_sample(),
            "appType": APP,
            "formInstanceId": task.instance_id,
            "title": title,
            "taskId": task.task_id,
            "actionerId": assignee,
            "url": f"https://yida.example/processDetail?procInsId={task.instance_id}",
            **more,
        }
        self._post("create", {"task": json.dumps(body, ensure_ascii=False)})
        return task

    def complete(self, task: Task, actor: str) -> None:
        self._post("complete", {**self._ids(task), "taskId": task.task_id, "actualWorkId": actor})

    def delete(self, task: Task) -> None:
        self._post("delete", self._ids(task))

    def push(self, system: str, body: dict[str, Any]) -> None:
        """As the other system does that is known by this name: in its own format, signed."""
        content, moment, message_id = json.dumps(body).encode(), str(int(time.time())), f"msg_{uuid.uuid4().hex}"
        keys = [standard_webhooks.key_of(SECRET)]
        proof = standard_webhooks.signed_headers(message_id, moment, content, keys=keys)
        headers = {"Content-Type": "application/json", **proof}
        address = f"{self.bridge.edge_url}/sources/{system}/tasks"
        answer = http_clients.post(address, content=content, headers=headers)
        assert answer.status_code == 200, answer.text

    def restart_center(self) -> None:
        """As when the kernel kills it; the supervisor starts it again."""
        pid = self.bridge.pid("center")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def _ids(self, task: Task) -> dict[str, str]:
        return {"appType": APP, "corpId": CORP, "formInstId": task.instance_id}

    def _post(self, action: str, parameters: dict[str, str]) -> None:
        answer = post_callback(self.bridge.edge_url, action, parameters, system_token=self.token, encoding="form")
        assert answer.accepted, answer


@contextmanager
def at_work(folder: Path, *, systems: Sequence[str] = (), **environment: str) -> Generator[Company]:
    """The bridge runs during the block. ``environment`` may have settings of its services, and CENTER_PORT."""
    edge, center, streams, kafka, registry = free_ports(5)
    credentials = folder / "credentials.toml"
    token = write_credentials(credentials)
    with credentials.open("a") as file:
        for system in systems:
            names = f'name = "{system}"\nformat = "{system}"\ncorp_id = "{CORP}"'
            file.write(f'\n[[sources]]\n{names}\nsecrets = ["{SECRET}"]\n')
    options = BridgeOptions(
        data_dir=folder,
        edge_port=edge,
        center_port=int(environment.get("CENTER_PORT", center)),
        streams_port=streams,
        kafka_port=kafka,
        registry_port=registry,
        credentials=credentials,
    )
    bridge = Bridge(options, progress=lambda _: None, environment={**ENVIRONMENT, **environment})
    connection: Connection | None = None
    try:
        connection = bridge.start()
        yield Company(bridge, connection, token)
    finally:
        bridge.stop()
        if connection is not None:
            connection.close()
