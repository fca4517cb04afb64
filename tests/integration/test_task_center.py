"""The task center on real Kafka: every view of every person is what their notifications add up to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import pytest

from schemas.codec import task_notification_codec
from schemas.topics import TASK_NOTIFICATIONS
from stream_lives import caught_up, lives, produce
from streams.inbox import inbox_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message

    from deploy.connection import Connection
    from streams.inbox import type_inbox

pytestmark = pytest.mark.integration

VIEWS = ("created", "pending", "handled", "copied")


def get(url: str, path: str, **query: Any) -> httpx2.Response:
    return httpx2.get(f"{url}{path}", params=query, timeout=10, trust_env=False)


def walk(url: str, user: str, **query: Any) -> Iterator[dict[str, Any]]:
    """Every item of a view, page by page."""
    cursor: dict[str, str] = {}
    while True:
        page = get(url, f"/v1/corps/corp/users/{quote(user)}/tasks", **query, **cursor)
        assert page.status_code == 200, page.text
        found = page.json()
        yield from found["items"]
        if found["next_cursor"] is None:
            return
        cursor = {"cursor": found["next_cursor"]}


def folded(connection: Connection, read_topic: Callable[[str], list[Message]]) -> type_inbox:
    codec = task_notification_codec(connection.registry)
    return inbox_of(codec.decode(message.value()) for message in read_topic(TASK_NOTIFICATIONS.name))


def assert_inboxes_are_right(url: str, inbox: type_inbox) -> None:
    users = {line.user_id for line in inbox if line.corp_id == "corp"}
    for user in users:
        lines = [line for line in inbox if (line.corp_id, line.user_id) == ("corp", user)]
        counted = Counter(line.view.lower() for line in lines)
        assert get(url, f"/v1/corps/corp/users/{user}/counts").json() == {view: counted[view] for view in VIEWS}
        for view in VIEWS:
            found = [(item["instance_id"], item["task_id"]) for item in walk(url, user, view=view, limit=7)]
            assert sorted(found, key=str) == sorted(
                [(line.instance_id, line.task_id) for line in lines if line.view.lower() == view], key=str
            )


def inbox_caught_up(url: str) -> bool:
    lag = get(url, "/readyz").json().get("lag", {})
    return lag.get("events") == 0 and lag.get("notifications") == 0


def test_every_view_is_what_the_notifications_add_up_to(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    produce(connection, lives(150, seed=11))
    streams_service.start()
    streams_service.wait_until_ready()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: inbox_caught_up(streams_service.url), what="all notifications are in the inboxes")
    inbox = folded(connection, read_topic)
    assert_inboxes_are_right(streams_service.url, inbox)
    streams_service.kill()
    produce(connection, lives(50, seed=12))
    streams_service.start()
    streams_service.wait_until_ready()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: inbox_caught_up(streams_service.url), what="all notifications are in the inboxes")
    assert_inboxes_are_right(streams_service.url, folded(connection, read_topic))
    assert streams_service.stop() == 0
