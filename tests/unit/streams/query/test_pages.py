"""Pages of a view: each line that was there throughout exactly once, in order, while entries come and go."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from support.streams.api_context import WHOLE, AnsweringWorker, notification
from taskbridge.schemas.events import Action, Change, Person, TaskNotification, View
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.refusals import BadQuery
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.inbox import layout
from taskbridge.streams.query.cursors import read_cursor, write_cursor
from taskbridge.streams.query.inboxes import APPS_LOOKED_AT, LOOKED_AT_MAX, Inboxes
from taskbridge.streams.query.search import folded, matcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.query.inboxes import Page

USER = layout.user_part("corp", "ann")


def _changes(max_size: int) -> SearchStrategy[list[TaskNotification]]:
    return st.lists(
        st.builds(
            notification,
            st.sampled_from((Change.ADDED, Change.UPDATED, Change.REMOVED)),
            # Neighbours in the store, whose lines must never show.
            user=st.sampled_from(("ann", "ann", "ann", "an", "ann\0", "anna")),
            view=st.sampled_from((View.PENDING, View.PENDING, View.HANDLED)),
            instance_id=st.sampled_from([f"I-{number}" for number in range(8)]),
            task_id=st.sampled_from((None, "T-1")),
            occurred_at=st.integers(1, 6),
            title=st.sampled_from(("Leave", "leave 二", "Trip")),
        ),
        max_size=max_size,
    )


def lines(page: Page) -> list[tuple[str, str | None]]:
    return [(item.instance_id, item.task_id) for item in map(layout.read_item, page.values)]


def all_lines(context: AnsweringWorker, view: View = View.PENDING) -> list[tuple[str, str | None]]:
    partition = context.owners.of_user("corp", "ann").partition
    return lines(Inboxes(context.inbox, WHOLE).page(partition, USER, view, limit=1_000))


@given(
    before=_changes(25),
    meanwhile=st.lists(_changes(5), max_size=6),
    limit=st.integers(1, 4),
    search=st.booleans(),
)
def test_a_walk_returns_what_was_there_throughout_exactly_once(
    *, before: list[TaskNotification], meanwhile: list[list[TaskNotification]], limit: int, search: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = AnsweringWorker(Path(folder), Access(tokens=None))
        try:
            context.apply(before)
            inboxes, partition = Inboxes(context.inbox, WHOLE), context.owners.of_user("corp", "ann").partition
            stayed = set(all_lines(context))
            seen: list[tuple[str, str | None]] = []
            place: bytes | None = None
            nothing: list[TaskNotification] = []
            coming = iter(meanwhile)
            matches = matcher("leave" if search else "", "APP")
            assert matches is not None
            while True:
                if search:
                    page = asyncio.run(inboxes.search(partition, USER, View.PENDING, matches, limit=limit, after=place))
                else:
                    page = inboxes.page(partition, USER, View.PENDING, limit=limit, after=place)
                assert len(page.values) <= limit
                seen += lines(page)
                place = page.next_place
                if place is None:
                    break
                for change in next(coming, nothing):
                    context.apply([change])
                    if change.recipient_id == "ann" and change.view is View.PENDING:
                        if change.change is Change.REMOVED:
                            stayed.discard((change.instance_id, change.task_id))
                        if search and folded(change.title or "")[:5] != "leave":
                            stayed.discard((change.instance_id, change.task_id))
            if search:
                stayed = {line for line in stayed if line in seen or _would_match(context, line)}
            assert [line for line in seen if line in stayed] == list(
                dict.fromkeys(line for line in seen if line in stayed)
            )
            assert stayed <= set(seen)
        finally:
            context.close()


def _would_match(context: AnsweringWorker, line: tuple[str, str | None]) -> bool:
    partition = context.owners.of_user("corp", "ann").partition
    page = Inboxes(context.inbox, WHOLE).page(partition, USER, View.PENDING, limit=1_000)
    item = next(each for each in map(layout.read_item, page.values) if (each.instance_id, each.task_id) == line)
    return "leave" in folded(item.title or "")


def test_the_newest_come_first_and_those_of_one_moment_by_their_ids(context: AnsweringWorker) -> None:
    context.apply(
        [
            notification(instance_id="b", occurred_at=5),
            notification(instance_id="a", task_id="T-2", occurred_at=5),
            notification(instance_id="a", task_id="T-10", occurred_at=5),
            notification(instance_id="c", occurred_at=9),
            notification(instance_id="d", occurred_at=1),
            notification(Change.UPDATED, instance_id="d", occurred_at=99),
        ]
    )
    assert all_lines(context) == [("c", "T-1"), ("a", "T-10"), ("a", "T-2"), ("b", "T-1"), ("d", "T-1")]


def test_a_search_ends_after_so_many_lines_and_goes_on_from_there(context: AnsweringWorker) -> None:
    partition, values = context.owners.of_user("corp", "ann").partition, dict[bytes, bytes | None]()
    for number in range(LOOKED_AT_MAX + 1):
        told = notification(instance_id=f"I-{number:06}", title="the last" if number == LOOKED_AT_MAX else "Leave")
        line = layout.Line(1, layout.line_part(told.instance_id, told.task_id))
        values[layout.entry_key(USER, View.PENDING, line)] = layout.write_item(layout.item_of(told, entered_at=1))
    values[layout.counts_key(USER)] = layout.write_counts((0, LOOKED_AT_MAX + 1, 0, 0))
    context.inbox.write_chunk(partition, values, changelog_offset=1)
    with TestClient(context.http()) as client:
        path = "/v1/corps/corp/users/ann/tasks?view=pending&q=the%20last"
        first = client.get(path).json()
        assert first["items"] == []
        assert first["next_cursor"] is not None
        second = client.get(f"{path}&cursor={first['next_cursor']}").json()
        assert [item["title"] for item in second["items"]] == ["the last"]
        assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("q", "title"),
    [
        ("请假", "王小明发起的请假申请"),
        ("LEAVE", "Annual leave"),
        ("straße", "STRASSE 5"),
        ("ＡＢＣ１", "abc123"),  # noqa: RUF001 - full-width on purpose
        ("é", "Cafe\u0301"),
        ("ﾃｽﾄ", "テスト申請"),
        ("  leave ", "leave"),
        ("i̇", "İstanbul"),
    ],
)
def test_a_search_finds_what_looks_alike(q: str, title: str) -> None:
    matches = matcher(q, None)
    assert matches is not None
    assert matches(layout.item_of(notification(title=title), entered_at=1))
    assert not matches(layout.item_of(notification(title="其他", originator=None), entered_at=1))


def test_a_search_looks_at_title_process_and_originator_and_the_app_alone() -> None:
    item = layout.item_of(
        notification(title="t", process_name="Leave request", originator=Person("x", "王小明")), entered_at=1
    )
    for q, found in (("request", True), ("小明", True), ("x", False), ("app", False)):
        matches = matcher(q, None)
        assert matches is not None
        assert matches(item) is found
    in_app, elsewhere = matcher("", "APP"), matcher("request", "OTHER")
    assert in_app is not None
    assert elsewhere is not None
    assert in_app(item)
    assert not elsewhere(item)


def test_a_view_is_narrowed_to_the_tasks_of_one_source(
    context: AnsweringWorker, make_event: Callable[..., TaskEvent]
) -> None:
    """Those of a second one have ids of their own, which their routes take."""
    theirs = notification(instance_id="flowable:12/3 4", app_type="leave", source="flowable")
    context.apply([notification(), theirs])
    created = make_event(Action.CREATED, instance_id=theirs.instance_id, app_type="leave", source="flowable")
    context.store(fold(None, created))
    with TestClient(context.http()) as client:
        path = "/v1/corps/corp/users/ann/tasks?view=pending"
        for source, ids in (("yida", ["I-1"]), ("flowable", [theirs.instance_id]), ("other", [])):
            found = client.get(f"{path}&source={source}").json()["items"]
            assert [(each["instance_id"], each["source"]) for each in found] == [(each, source) for each in ids]
        assert client.get(f"{path}&source={'s' * 257}").status_code == 400
        apps = client.get("/v1/corps/corp/users/ann/apps").json()["items"]
        assert {(each["app_type"], each["source"]) for each in apps} == {("APP", "yida"), ("leave", "flowable")}
        instance = client.get("/v1/instances/flowable%3A12%2F3%204")
        assert (instance.json()["instance_id"], instance.json()["source"]) == (theirs.instance_id, "flowable")


def test_lines_that_were_stored_before_there_were_sources_are_yidas() -> None:
    item = layout.item_of(notification(), entered_at=1)
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(layout.write_item(item))[:12])
    assert layout.read_item(older) == item


@given(st.binary(min_size=0, max_size=40), st.text(max_size=60))
def test_a_cursor_is_good_for_its_user_and_view_only(suffix: bytes, noise: str) -> None:
    place = layout.place(layout.Line(5, suffix + b"\0"))
    cursor = write_cursor(USER, View.PENDING, place)
    assert read_cursor(cursor, USER, View.PENDING) == place
    for user, view in ((layout.user_part("corp", "bob"), View.PENDING), (USER, View.HANDLED)):
        with pytest.raises(BadQuery):
            read_cursor(cursor, user, view)
    with pytest.raises(BadQuery):
        read_cursor(noise, USER, View.PENDING)
    with pytest.raises(BadQuery):
        read_cursor(cursor[:-4], USER, View.PENDING) if suffix == b"" else read_cursor(cursor[2:], USER, View.PENDING)


def test_apps_are_found_with_the_names_of_their_processes_among_the_newest_lines(context: AnsweringWorker) -> None:
    told = [
        notification(instance_id="I-1", app_type="APP_B", process_name=None),
        notification(instance_id="I-2", app_type="APP_A", process_name="Travel", view=View.CREATED, task_id=None),
        notification(instance_id="I-3", app_type="APP_A", process_name="Leave", view=View.HANDLED),
        notification(instance_id="I-4", app_type="APP_A", process_name=None, view=View.COPIED, task_id=None),
    ]
    old = notification(instance_id="I-0", app_type="APP_OLD", occurred_at=1)
    newer = (notification(instance_id=f"N-{number}", app_type="APP_B") for number in range(APPS_LOOKED_AT))
    context.apply([*told, old, *newer, notification(user="bob", app_type="APP_OF_BOB")])
    with TestClient(context.http()) as client:
        found = client.get("/v1/corps/corp/users/ann/apps").json()
        assert client.get("/v1/corps/corp/users/nobody/apps").json() == {"items": []}
    assert [(app["app_type"], app["process_name"]) for app in found["items"]] == [
        ("APP_A", "Leave"),
        ("APP_A", "Travel"),
        ("APP_B", None),
    ]
