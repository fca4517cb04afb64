"""The simulated company behind the fake DingTalk, and its server."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.schemas.events import SOURCE_YIDA, Action, TaskEvent


def filed(instance_id: str) -> TaskEvent:
    return TaskEvent(
        event_id=instance_id,
        source=SOURCE_YIDA,
        action=Action.CREATED,
        corp_id="ding1",
        app_type="APP_1",
        instance_id=instance_id,
        occurred_at=1,
        received_at=1,
    )


def test_events_may_be_added_while_instances_are_read() -> None:
    company = Company(map(filed, ("I-1", "I-2")))
    instances = company.instances(at_ms=1)
    first = next(instances)
    company.happened(filed("I-3"))
    assert [first.instance_id, *(each.instance_id for each in instances)] == ["I-1", "I-2"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("blocks", [False, True], ids=["one request", "all of the server"])
def test_the_server_ends_although_a_request_does_not(blocks: bool) -> None:  # noqa: FBT001
    reached, released = threading.Event(), threading.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        reached.set()
        if blocks:
            released.wait()
        await asyncio.Event().wait()

    with served(app) as url, socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        reached.wait()
        threads = [each for each in threading.enumerate() if each.name == "fake-dingtalk"]
    released.set()
    for each in threads:
        each.join()
