"""The task center next to streams on real Kafka: every view of every person is what their notifications add up to."""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from support.center import databases
from support.center_process import VIEWS, CenterProcess, Line, lists_of
from support.inbox import inbox_of
from support.streams.lives import caught_up, lives, notifications_on_topic, produce
from taskbridge.center.tables import FOLLOWED, entries
from taskbridge.runtime.follow.positions import progress, rebuild
from taskbridge.schemas.events import Action
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from confluent_kafka import Message

    from support.center import Databases
    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("as_if_nothing_ran")]

__all__ = ["databases"]


@pytest.fixture
def center(connection: Connection, tmp_path: Path) -> Generator[CenterProcess]:
    with CenterProcess(tmp_path, connection) as found:
        yield found


@pytest.fixture
def replicas(connection: Connection, databases: Databases, tmp_path: Path) -> Generator[list[CenterProcess]]:
    """Two on one PostgreSQL."""
    url = str(databases.new_url("postgresql"))
    found = [CenterProcess(tmp_path, connection, CENTER_DATABASE_URL=url) for _ in range(2)]
    yield found
    for each in found:
        each.kill()
        each.show_log()


def wrong(connection: Connection, read_topic: Callable[[str], list[Message]], center: CenterProcess) -> list[str]:
    """The people of whom the center shows anything else than what their notifications add up to."""
    inbox = [each for each in inbox_of(notifications_on_topic(connection, read_topic)) if each.corp_id == "corp"]
    found: list[str] = []
    for user in {each.user_id for each in inbox}:
        own = {Line(each.view.lower(), each.instance_id, each.task_id) for each in inbox if each.user_id == user}
        counted = Counter(each.view for each in own)
        lists, counts = lists_of(center.url, "corp", user), center.get(f"/v1/corps/corp/users/{user}/counts")
        shown = None if counts is None else counts.json()
        if lists is None or set(lists) != own or shown != {view: counted[view] for view in VIEWS}:
            found.append(user)
    assert inbox
    return found


def test_an_instances_history_has_each_of_its_events_once(
    connection: Connection, streams_service: Any, center: CenterProcess, eventually: Any
) -> None:
    # Old events of instances that the center does not have yet would be deleted by its first purge.
    events = [replace(each, received_at=time.time_ns() // 1_000_000) for each in lives(60, seed=41)]
    deleted = {each.instance_id for each in events if each.action is Action.DELETED}
    instance_id = next(each.instance_id for each in events if each.instance_id not in deleted)
    own = [each for each in events if each.instance_id == instance_id]
    with_form = replace(own[0], action=Action.CREATED, event_id=str(uuid.uuid4()), occurred_at=own[0].occurred_at + 99)
    with_form = replace(with_form, form_data={"天数": "3", "reason": None}, task_id=None, actor_id=None)
    produce(connection, [*events, with_form, *own])
    streams_service.start()
    center.start()
    expected = {each.event_id for each in own} | {with_form.event_id}
    path = f"/v1/instances/{instance_id}/history"

    def history() -> Any:
        answer = center.get(path)
        if answer is None or answer.status_code != 200:
            return None
        return found if len((found := answer.json())["events"]) == len(expected) else None

    found = eventually(history, what="the whole history is there")
    assert {each["event_id"] for each in found["events"]} == expected, "each once, though sent twice"
    times = [each["occurred_at"] for each in found["events"]]
    assert times == sorted(times)
    assert (found["form"], found["form_of"]) == ({"天数": "3", "reason": None}, with_form.event_id)
    assert found["complete"] is True
    assert len({each["partition"] for each in found["events"]}) == 1
    eventually(lambda: caught_up(connection), what="all events are processed")

    def gone() -> bool:
        answer = center.get(f"/v1/instances/{next(iter(deleted))}/history")
        return answer is not None and answer.status_code == 404

    eventually(gone, what="a deleted instance has no history")
    assert center.stop() == 0
    assert streams_service.stop() == 0


def test_any_replica_answers_for_every_user_and_a_killed_one_makes_none_of_them_wrong(
    connection: Connection,
    streams_service: Any,
    replicas: list[CenterProcess],
    read_topic: Callable[[str], list[Message]],
    eventually: Any,
) -> None:
    produce(connection, lives(50, seed=21))
    streams_service.start()
    for each in replicas:
        each.start()
    eventually(lambda: all(each.is_ready() for each in replicas), what="both replicas are ready")
    eventually(lambda: caught_up(connection), what="all events are processed")
    for each in replicas:
        eventually(lambda each=each: not wrong(connection, read_topic, each), what="both show the same")
    killed, left = replicas
    killed.signal(signal.SIGKILL)
    killed.exit_code()
    produce(connection, lives(25, seed=22))
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: not wrong(connection, read_topic, left), what="the other follows all partitions")
    killed.start()
    eventually(killed.is_ready, what="the killed replica is back")
    assert wrong(connection, read_topic, killed) == []
    assert [each.stop() for each in replicas] == [0, 0]
    assert streams_service.stop() == 0


def test_readers_see_whole_lists_or_none_while_running_replicas_are_rebuilt(
    connection: Connection, streams_service: Any, replicas: list[CenterProcess], databases: Databases, eventually: Any
) -> None:
    """Nothing is published meanwhile: replicas learn of it from the database."""
    produce(connection, lives(60, seed=23))
    streams_service.start()
    eventually(lambda: caught_up(connection), what="all events are processed")
    for each in replicas:
        each.start()
    database = databases.open(replicas[0].environment["CENTER_DATABASE_URL"])
    with database.read() as rows:
        eventually(lambda: progress(rows, TASK_STATES.name).complete, what="the lists are filled")
        person = rows.execute(select(entries.c.user_id).limit(1)).scalar_one()
    eventually(lambda: all(each.is_ready() for each in replicas), what="both replicas are ready")

    def count(replica: CenterProcess) -> int | None:
        answer = replica.get(f"/v1/corps/corp/users/{person}/counts")
        assert answer is not None
        assert answer.status_code in {200, 503}
        return sum(answer.json().values()) if answer.status_code == 200 else None

    whole = count(replicas[0])
    assert whole
    seen: set[int | None] = set()

    def is_filled_again() -> bool:
        seen.update(count(each) for each in replicas * 20)
        with database.read() as rows:
            return progress(rows, TASK_STATES.name).complete

    with ThreadPoolExecutor(1) as pool:
        rebuilding = pool.submit(rebuild, database, FOLLOWED)
        while not rebuilding.done():
            seen.update(map(count, replicas))
        eventually(is_filled_again, what="the lists are filled again")
    eventually(lambda: all(each.is_ready() for each in replicas), what="both replicas are ready")
    seen.update(map(count, replicas))
    assert seen <= {None, whole}
    assert seen >= {whole}
    assert streams_service.stop() == 0
