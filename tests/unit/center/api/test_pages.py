"""Pages of a view: each entry that was there throughout exactly once, in order, while entries come and go."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text
from sqlalchemy.event import listen

from support.center_rows import entry_row, items, state
from taskbridge.center.api import queries as queries_module
from taskbridge.center.api.cursors import PageCursor, read_cursor, write_cursor
from taskbridge.center.api.queries import APPS_SEARCHED, SEARCHED_MAX, PageQuery
from taskbridge.center.search import folded
from taskbridge.center.tables import entries
from taskbridge.runtime.refusals import BadQuery
from taskbridge.schemas.events import View

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from starlette.testclient import TestClient

    from support.center_rows import AnsweringCenter
    from taskbridge.center.api.models import PageOut

EntryId = tuple[str, str | None]
TASKS = "/v1/corps/corp/users/ann/tasks"

_SAME_DATABASE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
"""Each example has a corp of its own."""


def _rows(max_size: int) -> SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        st.fixed_dictionaries(
            {
                # Neighbours in the index, whose entries must never show.
                "user": st.sampled_from(("ann", "ann", "ann", "an", "anna")),
                "view": st.sampled_from((View.PENDING, View.PENDING, View.HANDLED)),
                "instance_id": st.sampled_from([f"I-{number}" for number in range(8)]),
                "task_id": st.sampled_from((None, "T-1")),
                "entered_at": st.integers(1, 6),
                "title": st.sampled_from(("Leave", "leave 二", "Trip")),
            }
        ),
        max_size=max_size,
    )


def page(center: AnsweringCenter, corp: str, **query: Any) -> PageOut:
    return center.queries.page(PageQuery(corp, "ann", "pending", **query))


class _World:
    """The entries of one corp, of which each has a place of its own."""

    def __init__(self, center: AnsweringCenter) -> None:
        self.center, self.corp = center, uuid.uuid4().hex
        self.present: dict[EntryId, dict[str, Any]] = {}

    def change(self, row: dict[str, Any]) -> None:
        """Add an entry, or remove the one that has its id."""
        # Of another corp's instances, ids are unique too.
        row = {**row, "corp": self.corp, "instance_id": f"{row['instance_id']}-{self.corp}"}
        new = entry_row(**row)
        same = [entries.c[name] == new[name] for name in ("instance_id", "view", "user_id", "task_id")]
        with self.center.database.write() as connection:
            removed = connection.execute(delete(entries).where(*same)).rowcount
        if not removed:
            self.center.add(new)
        if (row["user"], row["view"]) == ("ann", View.PENDING):
            entry_id = row["instance_id"], row["task_id"]
            if removed:
                del self.present[entry_id]
            else:
                self.present[entry_id] = row


@pytest.mark.parametrize("searched_max", [2, SEARCHED_MAX])
@_SAME_DATABASE
@given(before=_rows(25), meanwhile=st.lists(_rows(5), max_size=6), limit=st.integers(1, 4), search=st.booleans())
def test_a_walk_returns_what_was_there_throughout_exactly_once(
    center: AnsweringCenter,
    searched_max: int,
    *,
    before: list[dict[str, Any]],
    meanwhile: list[list[dict[str, Any]]],
    limit: int,
    search: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(queries_module, "SEARCHED_MAX", searched_max)
        queries_module.bound_statement.cache_clear()  # pyright: ignore[reportPrivateUsage]
        world = _World(center)
        for row in before:
            world.change(row)
        stayed = dict(world.present)
        seen: list[EntryId] = []
        coming, cursor = iter(meanwhile), None
        nothing: list[dict[str, Any]] = []
        while True:
            found = page(center, world.corp, q="LEAVE" if search else "", limit=limit, cursor=cursor)
            assert len(found["items"]) <= limit
            seen += items(found)
            cursor = found["next_cursor"]
            if cursor is None:
                break
            for row in next(coming, nothing):
                world.change(row)
            stayed = {each: row for each, row in stayed.items() if world.present.get(each) is row}
        stayed = {each: row for each, row in stayed.items() if not search or "leave" in folded(row["title"])}
        shown = [each for each in seen if each in stayed]
        assert sorted(shown, key=lambda each: (-stayed[each]["entered_at"], each[0], each[1] or "")) == shown
        assert len(set(shown)) == len(shown) == len(stayed)
    queries_module.bound_statement.cache_clear()  # pyright: ignore[reportPrivateUsage]


def test_the_newest_come_first_and_those_of_one_moment_by_their_ids(
    client: TestClient, center: AnsweringCenter
) -> None:
    center.add(
        entry_row("b", entered_at=5),
        entry_row("a", "T-2", entered_at=5),
        entry_row("a", "T-10", entered_at=5),
        entry_row("a", None, entered_at=5),
        entry_row("B", entered_at=5),
        entry_row("é", entered_at=5),
        entry_row("c", entered_at=9),
        entry_row("d", entered_at=1, updated_at=99),
    )
    expected = ["c T-1", "B T-1", "a None", "a T-10", "a T-2", "b T-1", "é T-1", "d T-1"]
    for limit in (1, 2, 3, 50):
        found: list[EntryId] = []
        cursor: dict[str, str] = {}
        while True:
            answer = client.get(TASKS, params={"view": "pending", "limit": limit, **cursor}).json()
            found += items(answer)
            if answer["next_cursor"] is None:
                break
            cursor = {"cursor": answer["next_cursor"]}
        assert [f"{instance} {task}" for instance, task in found] == expected


def test_a_search_ends_after_so_many_entries_and_goes_on_from_there(
    client: TestClient, center: AnsweringCenter
) -> None:
    rows = [entry_row(f"I-{number:06}") for number in range(SEARCHED_MAX)]
    center.add(*rows, entry_row(f"I-{SEARCHED_MAX:06}", title="the last", app_type="LAST"))
    for query in ("q=the%20last", "app_type=LAST"):
        first = client.get(f"{TASKS}?view=pending&{query}").json()
        assert first["items"] == []
        assert first["next_cursor"] is not None
        second = client.get(f"{TASKS}?view=pending&{query}&cursor={first['next_cursor']}").json()
        assert [item["title"] for item in second["items"]] == ["the last"]
        assert second["next_cursor"] is None


def test_a_search_finds_what_looks_alike(center: AnsweringCenter) -> None:
    center.add(entry_row("I-other", title="其他 50 %", originator=None))
    for number, (q, title) in enumerate(
        (
            ("请假", "王小明发起的请假申请"),
            ("LEAVE", "Annual leave"),
            ("straße", "STRASSE 5"),
            ("ＡＢＣ１", "abc123"),  # noqa: RUF001 - full-width on purpose
            ("é", "Cafe\u0301"),
            ("ﾃｽﾄ", "テスト申請"),
            ("  hours ", "hours"),
            ("i̇", "İstanbul"),
            ("50%_", "50%_"),
        )
    ):
        center.add(entry_row(f"I-{number}", title=title))
        assert items(page(center, "corp", q=q)) == [(f"I-{number}", "T-1")], q


def test_a_view_is_narrowed_to_the_tasks_of_one_source(client: TestClient, center: AnsweringCenter) -> None:
    """Those of a second one have ids with characters that paths must escape."""
    theirs = "flowable:12/3 4"
    center.add(entry_row(), entry_row(theirs, app_type="leave", source="flowable"))
    center.store(state(theirs, app_type="leave", source="flowable"))
    for source, ids in (("yida", ["I-1"]), ("flowable", [theirs]), ("other", [])):
        found = client.get(f"{TASKS}?view=pending&source={source}").json()["items"]
        assert [(each["instance_id"], each["source"]) for each in found] == [(each, source) for each in ids]
    assert client.get(f"{TASKS}?view=pending&source={'s' * 257}").status_code == 400
    apps = client.get("/v1/corps/corp/users/ann/apps").json()["items"]
    assert {(each["app_type"], each["source"]) for each in apps} == {("APP", "yida"), ("leave", "flowable")}
    instance = client.get("/v1/instances/flowable%3A12%2F3%204")
    assert (instance.json()["instance_id"], instance.json()["source"]) == (theirs, "flowable")


@example(-(1 << 63), "", "")
@given(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40),
    st.text(max_size=60),
)
def test_a_cursor_is_good_for_its_user_and_view_only(at: int, instance_id: str, noise: str) -> None:
    place = PageCursor(at, instance_id, "T-1")
    cursor = write_cursor("corp", "ann", 2, place)
    assert read_cursor(cursor, "corp", "ann", 2) == place
    for corp, user, view in (("corp", "bob", 2), ("corp", "ann", 3), ("cor", "pann", 2)):
        with pytest.raises(BadQuery):
            read_cursor(cursor, corp, user, view)
    for wrong in (noise, cursor[:-4], cursor[2:], write_cursor("corp", "ann", 2, PageCursor(at, "\0", ""))):
        with pytest.raises(BadQuery):
            read_cursor(wrong, "corp", "ann", 2)


def test_apps_are_found_with_the_names_of_their_processes_among_the_newest_entries(
    client: TestClient, center: AnsweringCenter
) -> None:
    rows = [
        entry_row("I-1", app_type="APP_B", process_name=None),
        entry_row("I-2", None, app_type="APP_A", process_name="Travel", view=View.CREATED),
        entry_row("I-3", app_type="APP_A", process_name="Leave", view=View.HANDLED),
        entry_row("I-4", None, app_type="APP_A", process_name=None, view=View.COPIED),
    ]
    old = entry_row("I-0", app_type="APP_OLD", entered_at=1)
    newer = (entry_row(f"N-{number}", app_type="APP_B") for number in range(APPS_SEARCHED))
    center.add(*rows, old, *newer, entry_row("I-5", user="bob", app_type="APP_OF_BOB"))
    found = client.get("/v1/corps/corp/users/ann/apps").json()
    assert client.get("/v1/corps/corp/users/nobody/apps").json() == {"items": []}
    assert [(app["app_type"], app["process_name"]) for app in found["items"]] == [
        ("APP_A", "Leave"),
        ("APP_A", "Travel"),
        ("APP_B", None),
    ]


def test_pages_counts_and_searches_read_the_index_and_sort_nothing(center: AnsweringCenter) -> None:
    """A page costs as much as it shows, however many entries there are."""
    plans: dict[str, str] = {}
    is_sqlite = center.database.is_sqlite

    def explained(_conn: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: Any) -> tuple[str, Any]:
        return ("EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ") + sql, parameters

    statements = {
        "search": queries_module.page_statement(after=True, until=True, q=True, app_type=False, source=False),
        "page": queries_module.page_statement(after=False, until=False, q=False, app_type=False, source=False),
        "overdue": queries_module.page_statement(
            after=True, until=True, q=False, app_type=False, source=False, overdue=(("APP", "Leave"), (None, None))
        ),
        "counts": queries_module.COUNTS,
        "bound": queries_module.bound_statement(after=True),
    }
    given = {"corp_id": "corp", "user_id": "user1", "view": 2, "rows": 51, "q": "x", "app_type": "", "source": ""}
    given |= {"due_0": 3, "due_1": 3, "now": 3}
    given |= {"after_at": 5, "after_instance": "I", "after_task": ""}
    given |= {"until_at": 1, "until_instance": "", "until_task": ""}
    center.add(*(entry_row(f"I-{number}", user=f"user{number % 50}") for number in range(2_000)))
    with center.database.write() as connection:
        connection.execute(text("ANALYZE"))
        if not is_sqlite:
            # For so few rows it would read the whole table.
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        listen(connection, "before_cursor_execute", explained, retval=True)
        for name, statement in statements.items():
            cursor = connection.execute(statement, given).cursor
            assert cursor is not None
            plans[name] = "\n".join(str(tuple(row)) for row in cursor.fetchall())
    for name, plan in plans.items():
        assert "entries_page" in plan, (name, plan)
        # A search sorts the originators whose names it looks up, but no entries.
        assert not re.search("TEMP B-TREE FOR ORDER BY" if is_sqlite else "Sort Key: .*entered_at", plan), (name, plan)
    assert "COVERING" in plans["search"] if is_sqlite else "Index Only" in plans["search"], plans["search"]
