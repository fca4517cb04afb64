"""The task center on real Kafka: every view of every person is what their notifications add up to."""

from __future__ import annotations

import json
import signal
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import pytest
from msgspec.structs import replace

from support import http_clients
from support.streams.lives import caught_up, lives, notifications_on_topic, produce
from support.streams.processes import Load, Worker
from taskbridge.schemas.events import Action
from taskbridge.schemas.inbox import inbox_of
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.inbox import Inbox

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("as_if_nothing_ran")]

VIEWS = ("created", "pending", "handled", "copied")


def get(url: str, path: str, **query: Any) -> httpx2.Response:
    return http_clients.get(f"{url}{path}", params=query, timeout=10)


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


def folded(connection: Connection, read_topic: Callable[[str], list[Message]]) -> Inbox:
    return inbox_of(notifications_on_topic(connection, read_topic))


def assert_inboxes_are_right(url: str, inbox: Inbox) -> None:
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


def inboxes_caught_up(connection: Connection, *urls: str) -> bool:
    """Whether all notifications are in the inboxes of these workers: committed, and stored."""
    # A worker's status may be a second old: then it lacks the last notifications.
    if not caught_up(connection, TASK_NOTIFICATIONS.name):
        return False
    lags = [get(url, "/readyz").json().get("lag", {}) for url in urls]
    return all(lag.get("events") == 0 and lag.get("notifications") == 0 for lag in lags)


def test_every_view_is_what_the_notifications_add_up_to(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    produce(connection, lives(150, seed=11))
    streams_service.start()
    streams_service.wait_until_ready()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: inboxes_caught_up(connection, streams_service.url), what="all notifications are in the inboxes")
    inbox = folded(connection, read_topic)
    assert_inboxes_are_right(streams_service.url, inbox)
    streams_service.kill()
    produce(connection, lives(50, seed=12))
    streams_service.start()
    streams_service.wait_until_ready()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: inboxes_caught_up(connection, streams_service.url), what="all notifications are in the inboxes")
    assert_inboxes_are_right(streams_service.url, folded(connection, read_topic))
    assert streams_service.stop() == 0


def test_an_instances_history_is_read_at_the_offsets_of_its_events(
    connection: Connection, streams_service: Any, eventually: Any
) -> None:
    events = lives(60, seed=41)
    visible = [each for each in events if each.action is not Action.DELETED]
    deleted = {each.instance_id for each in events if each.action is Action.DELETED}
    instance_id = next(each.instance_id for each in visible if each.instance_id not in deleted)
    own = [each for each in visible if each.instance_id == instance_id]
    with_form = replace(own[0], action=Action.CREATED, event_id=str(uuid.uuid4()), occurred_at=own[0].occurred_at + 99)
    with_form = replace(with_form, form_data={"天数": "3", "reason": None}, task_id=None, actor_id=None)
    produce(connection, [*events, with_form, *own])
    streams_service.start()
    streams_service.wait_until_ready()
    eventually(lambda: caught_up(connection), what="all events are processed")
    path = f"/v1/instances/{instance_id}"
    eventually(lambda: get(streams_service.url, path).status_code == 200, what="the instance is there")
    history = get(streams_service.url, f"{path}/history").json()
    expected = {each.event_id for each in own} | {with_form.event_id}
    assert sorted(each["event_id"] for each in history["events"]) == sorted(expected), "each once, though sent twice"
    assert [each["occurred_at"] for each in history["events"]] == sorted(
        each["occurred_at"] for each in history["events"]
    )
    assert (history["form"], history["form_of"]) == ({"天数": "3", "reason": None}, with_form.event_id)
    assert history["complete"] is True
    assert {each["partition"] for each in history["events"]} == {history["events"][0]["partition"]}
    gone = get(streams_service.url, f"/v1/instances/{next(iter(deleted))}/history")
    assert gone.status_code == 404
    assert streams_service.stop() == 0


@pytest.fixture
def three(connection: Connection, tmp_path: Path) -> Generator[list[Worker]]:
    workers = [Worker(tmp_path, connection) for _ in range(3)]
    yield workers
    for worker in workers:
        worker.kill_if_running()


def url_of(worker: Worker) -> str:
    return f"http://127.0.0.1:{worker.port}"


def all_answers(client: httpx2.Client, worker: Worker, users: list[str]) -> dict[str, str | None]:
    """This worker's answers for every view and the counts of every user; None where it cannot answer now."""
    answers: dict[str, str | None] = {}
    for user in users:
        for path in (f"{user}/counts", *(f"{user}/tasks?view={view}&limit=200" for view in VIEWS)):
            answer = client.get(f"{url_of(worker)}/v1/corps/corp/users/{path}")
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1
            answers[path] = answer.text if answer.status_code == 200 else None
    return answers


def test_any_of_three_workers_answers_for_every_user_and_a_killed_one_makes_none_of_them_wrong(
    connection: Connection, three: list[Worker], read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    produce(connection, lives(200, seed=21))
    for worker in three:
        worker.start()
    eventually(lambda: all(worker.is_ready() for worker in three), what="all workers are ready")
    eventually(lambda: all(_has_some(worker) for worker in three), what="each worker has partitions")
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: inboxes_caught_up(connection, *map(url_of, three)), what="the inboxes are up to date")
    inbox = folded(connection, read_topic)
    users = sorted({line.user_id for line in inbox if line.corp_id == "corp"})
    with httpx2.Client(trust_env=False, timeout=15) as client:
        eventually(lambda: None not in all_answers(client, three[0], users).values(), what="all can answer")
        right = all_answers(client, three[0], users)
        assert right == all_answers(client, three[1], users) == all_answers(client, three[2], users)
        for user in users:
            counted = Counter(line.view.lower() for line in inbox if (line.corp_id, line.user_id) == ("corp", user))
            assert json.loads(right[f"{user}/counts"] or "") == {view: counted[view] for view in VIEWS}

        killed, *left = three
        killed.end(signal.SIGKILL)
        refused = set[str]()

        def all_right_again() -> bool:
            complete = True
            for worker in left:
                for path, answer in all_answers(client, worker, users).items():
                    assert answer in (None, right[path]), "an answer is right, or none is given"
                    if answer is None:
                        refused.add(path)
                        complete = False
            return complete

        eventually(all_right_again, within_s=60, what="the other two answer for everybody again")
        assert refused, "the dead worker's users could not be answered at first: else nothing was tried here"

        # Back, and killed again while events come: at the end all agree with the notifications.
        killed.start()
        load = Load(connection, seed=22)
        try:
            eventually(lambda: killed.is_ready() and _has_some(killed), what="the killed worker is back")
            left[0].end(signal.SIGKILL)
            eventually(lambda: left[1].is_ready() and killed.is_ready(), what="the others have taken over")
        finally:
            load.stop()
        alive = [killed, left[1]]
        eventually(lambda: caught_up(connection), what="all events are processed")
        eventually(lambda: inboxes_caught_up(connection, *map(url_of, alive)), what="the inboxes are up to date")
        eventually(lambda: None not in all_answers(client, killed, users).values(), what="all can answer")
        assert all_answers(client, killed, users) == all_answers(client, left[1], users)
    assert_inboxes_are_right(url_of(killed), folded(connection, read_topic))


def _has_some(worker: Worker) -> bool:
    return bool(worker.readiness().get("partitions", {}).get("active"))
