"""The same life in twelve random orders, through edge, Kafka and streams, ends in the same state for everybody."""

from __future__ import annotations

import json
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from support import http_clients
from support.edge.fakes import SYSTEM_TOKEN, parameters_of, task_of
from support.edge.process import RunningEdge, wait_until
from support.inbox import inbox_of
from support.streams.lives import assert_all_is_right, caught_up, states_on_topic
from taskbridge.edge.sender import ENCODINGS, encode_callback, signed
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import Status, View
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("as_if_nothing_ran")]

INSTANCES = 12
START_MS = 1_700_000_000_000


@pytest.fixture
def edge(connection: Connection, tmp_path: Path) -> Generator[RunningEdge]:
    running = RunningEdge(
        tmp_path, bootstrap_servers=connection.bootstrap_servers, registry_url=connection.registry_url
    )
    running.start()
    wait_until(running.is_whole, what="the edge is ready")
    yield running
    running.kill()


def test_the_same_life_in_twelve_orders_ends_equal(
    connection: Connection,
    edge: RunningEdge,
    streams_service: Any,
    read_topic: Callable[[str], list[Message]],
    eventually: Any,
) -> None:
    streams_service.start()
    chance = random.Random(30)
    ids = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(INSTANCES)]
    # Half of the instances come mixed with each other, as they would; the others one by one, so that their events fold
    # together in chunks.
    mixed = ids[INSTANCES // 2 :]
    posts = [(name, post) for name in ids for post in shuffled(life(name), chance)]
    chance.shuffle(posts)
    posts.sort(key=lambda each: "" if each[0] in mixed else each[0])
    with http_clients.client(base_url=edge.url) as client:
        for _, (action, parameters) in posts:
            encoded = encode_callback(signed(parameters, system_token=SYSTEM_TOKEN), chance.choice(ENCODINGS))
            path = f"/yida/tasks/{action}?{encoded.query}"
            assert client.post(path, content=encoded.body, headers=dict(encoded.headers)).status_code == 200
    eventually(lambda: caught_up(connection), what="all events are processed")

    states = states_on_topic(connection, read_topic)
    state, *others = (replace(states[name], instance_id="", revision=0) for name in ids)
    assert all(each == state for each in others)
    assert [(task.task_id, task.status) for task in state.tasks] == [
        ("T-1", Status.COMPLETED),
        ("T-2", Status.CANCELLED),
        ("T-3", Status.PENDING),
    ]
    codec = task_notification_codec(connection.registry)
    inbox = inbox_of(codec.decode(message.value()) for message in read_topic(TASK_NOTIFICATIONS.name))
    seen = {name: {(at.user_id, at.view, at.task_id) for at in inbox if at.instance_id == name} for name in ids}
    assert set(map(frozenset, seen.values())) == {
        frozenset(
            {
                ("ann", View.CREATED, None),
                ("bob", View.HANDLED, "T-1"),
                ("bob", View.PENDING, "T-3"),
                ("cai", View.PENDING, "T-3"),
                ("dan", View.COPIED, None),
                ("eve", View.COPIED, None),
            }
        )
    }
    assert_all_is_right(connection, read_topic)


def life(instance_id: str) -> list[tuple[str, dict[str, str]]]:
    """Actions and parameters of one instance's callbacks; all but their ids are the same for every instance."""

    def described(action: str, at: int, **members: object) -> tuple[str, dict[str, str]]:
        fields = {"title": None, "url": None, "originatorId": None, "taskId": None, "actionerId": None, **members}
        task = {**task_of(instance_id), **fields}
        return action, {"task": json.dumps(task, ensure_ascii=False), "dateTime": str(START_MS + at)}

    def decided(action: str, at: int, task_id: str, actor: str) -> tuple[str, dict[str, str]]:
        plain = parameters_of(action, instance_id=instance_id, task_id=task_id)
        return action, {**plain, "actualWorkId": actor, "dateTime": str(START_MS + at)}

    return [
        described("create", 1, originatorId="ann", title="first title", url="https://yida.example/1"),
        described("create", 2, taskId="T-1", actionerId=["bob", "cai"]),
        decided("cancel", 3, "T-1", "ann"),
        decided("complete", 4, "T-1", "bob"),
        described("create", 5, taskId="T-2", actionerId="cai", title="later title"),
        decided("complete", 6, "T-2", "cai"),
        decided("cancel", 7, "T-2", "ann"),
        described("cc", 8, actionerId=["dan"]),
        described("cc", 9, actionerId="dan,eve"),
        described("create", 10, taskId="T-3", actionerId=["bob"]),
        described("create", 11, taskId="T-3", actionerId='["cai"]'),
    ]


def shuffled(posts: list[tuple[str, dict[str, str]]], chance: random.Random) -> list[tuple[str, dict[str, str]]]:
    """In any order, and some of them twice."""
    repeated = posts + chance.sample(posts, 3)
    chance.shuffle(repeated)
    return repeated
