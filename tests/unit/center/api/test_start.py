"""Forms to start are the vendor's list of each app, read rarely and by one replica for everybody."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import insert, select, text, update
from structlog.testing import capture_logs

from support.center_rows import state
from support.plans import Plans
from support.sign_in import SAME_SITE, Served, signing_in, tokens_file
from taskbridge.center.actions import systems
from taskbridge.center.actions.systems import Away, Busy, StartForm
from taskbridge.center.api import start as module
from taskbridge.center.api.start import StartLists, start_router
from taskbridge.center.tables import forms, start_lists
from taskbridge.runtime.database import now_ms
from taskbridge.runtime.tokens import new_token
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Person

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import httpx2
    from starlette.testclient import TestClient

    from taskbridge.runtime.database import Database

TOKEN = new_token()
PATH = "/v1/corps/ours/users/{}/forms"
MARKUP = "<img src=x onerror=alert(1)>"


def form(name: str, title: str | None = "") -> StartForm:
    title = name if title == "" else title
    return StartForm(f"FORM-{name}", title, None, f"https://yida.example/APP/submission/FORM-{name}")


class Vendor:
    """Two apps."""

    def __init__(self) -> None:
        self.app_types: tuple[str, ...] = ("APP_1", "APP_2")
        self.listed = {"APP_1": [form("a"), form("b")], "APP_2": [form("c")]}
        self.problems: dict[str, OperatorError] = {}
        self.has_names, self.are_all = True, True
        self.of_apps_file: dict[str, list[StartForm]] = {}
        self.answers = asyncio.Event()
        self.answers.set()
        self.reads: list[str] = []
        self.again: list[str] = []
        """Of these the calls of those that failed the last time."""
        self.is_read = asyncio.Event()

    async def forms(self, app_type: str, *, again: bool = False) -> tuple[list[StartForm], bool]:
        await self._read(app_type, again=again)
        return self.listed[app_type], self.are_all

    def named(self, app_type: str) -> list[StartForm]:
        return self.of_apps_file.get(app_type, [])

    async def names(self, *, again: bool = False) -> dict[str, str]:
        await self._read("", again=again)
        return {"APP_1": "Office"}

    async def _read(self, app_type: str, *, again: bool) -> None:
        self.reads.append(app_type)
        if again:
            self.again.append(app_type)
        self.is_read.set()
        await self.answers.wait()
        if app_type in self.problems:
            raise self.problems[app_type]


class World:
    def __init__(self, served: Served) -> None:
        self.served, self.browser, self.vendor = served, served.signed_in, Vendor()
        rows = served.rows
        self.lists = StartLists(served.database)
        self.starts = {"yida": self.vendor}
        made = start_router(rows.access, rows.queries, rows.threads, self.lists, starts_of=lambda _: self.starts)
        served.http.include_router(made)

    def get(self, browser: TestClient, user: str = "ann") -> httpx2.Response:
        return browser.get(PATH.format(user), headers=SAME_SITE)

    def age(self, app_type: str, *, days: float) -> None:
        """As if the list had been read so much earlier."""
        of_app = start_lists.c.app_type == f"yida {app_type}"
        with self.served.database.write() as connection:
            listed = msgspec.json.decode(connection.execute(select(start_lists.c.data).where(of_app)).scalar_one())
            listed["read_at"] -= int(days * 24 * 3_600_000)
            connection.execute(update(start_lists).where(of_app).values(data=msgspec.json.encode(listed)))

    def pass_hours(self, hours: float) -> None:
        with self.served.database.write() as connection:
            earlier = start_lists.c.due_at - int(hours * 3_600_000)
            connection.execute(update(start_lists).values(due_at=earlier))


def names(answer: httpx2.Response) -> list[str]:
    return [each["title"] for each in answer.json()["items"]]


@pytest.fixture
def world(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Generator[World]:
    monkeypatch.setattr(module, "_LOOKED_S", getattr(request, "param", 0.0))
    people = {"api_tokens_file": tokens_file(tmp_path, all=TOKEN), "operators": "ours/cai"}
    with signing_in(database, tmp_path, **people) as (served, _):
        yield World(served)


def test_lists_are_read_once_for_everybody_and_no_person_costs_a_call(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    found = [world.get(ann), world.get(ann), world.get(bob, "bob")]
    assert [(each.status_code, names(each), each.json()["complete"]) for each in found] == [
        (200, ["a", "b", "c"], True)
    ] * 3
    assert found[0].json()["items"][0] == {
        **form("a")._asdict(),
        "app_type": "APP_1",
        "app_name": "Office",
        "used_at": None,
    }
    assert found[0].json()["items"][2]["app_name"] is None
    assert sorted(world.vendor.reads) == ["", "APP_1", "APP_2"]


def test_replicas_at_the_same_time_read_each_list_once(world: World) -> None:
    rows, vendor = world.served.rows, world.vendor

    async def scenario() -> None:
        replicas = [
            module.read_due("yida", vendor, "ours", StartLists(world.served.database), rows.threads) for _ in range(4)
        ]
        await asyncio.gather(*replicas)

    asyncio.run(scenario())
    assert sorted(vendor.reads) == ["", "APP_1", "APP_2"]
    assert names(world.get(world.browser("ann"))) == ["a", "b", "c"]


def test_after_four_hours_new_forms_are_there_and_removed_ones_are_not(world: World) -> None:
    ann = world.browser("ann")
    world.get(ann)
    world.vendor.listed["APP_1"] = [form("b"), form("new")]
    world.pass_hours(3.9)
    assert names(world.get(ann)) == ["a", "b", "c"]
    world.pass_hours(0.2)
    assert names(world.get(ann)) == ["b", "new", "c"]
    assert len(world.vendor.reads) == 3 + 2, "names are those of the day"
    world.vendor.app_types = ("APP_2",)
    assert names(world.get(ann)) == ["c"]


def test_a_refused_app_hides_no_other_and_is_not_requested_at_each_look(world: World) -> None:
    world.vendor.problems = {"APP_1": OperatorError("its token is wrong")}
    ann = world.browser("ann")
    with capture_logs() as logs:
        found = [world.get(ann) for _ in range(3)]
    assert [(names(each), each.json()["complete"]) for each in found] == [(["c"], False)] * 3
    assert sorted(world.vendor.reads) == ["", "APP_1", "APP_2"]
    [logged] = [each for each in logs if each["event"] == "start_forms_not_read"]
    assert logged["app_type"] == "APP_1"
    assert "ann" not in str(logged)
    # Once an operator has repaired it, it is there after minutes.
    world.vendor.problems.clear()
    world.pass_hours(0.26)
    assert (names(world.get(ann)), world.get(ann).json()["complete"]) == (["a", "b", "c"], True)


def test_an_app_that_is_refused_for_long_is_requested_every_four_hours(world: World) -> None:
    world.vendor.problems = {"APP_1": OperatorError("its token is wrong")}
    ann, tries = world.browser("ann"), list[int]()
    for hour in range(15):
        world.get(ann)
        if hour == 0:
            world.pass_hours(0.26)
            world.get(ann)
        tries.append(world.vendor.reads.count("APP_1"))
        world.pass_hours(1.01)
    assert tries == [2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6]
    assert world.vendor.again.count("APP_1") == 5


def test_lists_that_failed_are_read_last_and_by_calls_of_their_own(world: World) -> None:
    refused = tuple(f"APP_{each}" for each in range(3, 33))
    world.vendor.app_types = (*refused, "APP_1", "APP_2")
    world.vendor.problems = dict.fromkeys(refused, OperatorError("no permission"))
    ann = world.browser("ann")
    world.get(ann)
    world.pass_hours(5)
    world.vendor.reads.clear()
    assert names(world.get(ann)) == ["a", "b", "c"]
    assert (sorted(world.vendor.reads[:2]), world.vendor.again) == (["APP_1", "APP_2"], [*refused])
    # They are not again at the expense of others once they are read.
    world.vendor.problems, world.vendor.listed = {}, {each: [form("a")] for each in world.vendor.app_types}
    for _ in range(2):
        world.pass_hours(25)
        world.get(ann)
    assert len(world.vendor.again) == 2 * len(refused)


def test_a_list_that_takes_too_long_each_time_keeps_no_other_waiting(world: World) -> None:
    world.vendor.problems = {"APP_1": Away("no answer in 60 s")}
    ann = world.browser("ann")
    assert world.get(ann).status_code == 503
    for _ in range(2):
        world.pass_hours(0.26)
        assert names(world.get(ann)) == ["c"]
    assert world.vendor.reads == ["", "APP_1", "APP_2", "APP_1"]


def test_without_calls_nothing_counts_as_failed(world: World) -> None:
    world.vendor.problems = dict.fromkeys(("", "APP_1", "APP_2"), Busy("the calls of a day are used up"))
    ann = world.browser("ann")
    for _ in range(3):
        world.get(ann)
        world.pass_hours(0.26)
    world.vendor.problems.clear()
    assert names(world.get(ann)) == ["a", "b", "c"]
    assert (len(world.vendor.reads), world.vendor.again) == (6, [])


def test_forms_of_all_systems_are_listed_and_one_that_is_away_hides_no_other(world: World) -> None:
    other = Vendor()
    other.app_types, other.listed = ("APP_1",), {"APP_1": [form("z")]}
    world.starts = {"yida": world.vendor, "flow": other}
    world.vendor.problems = dict.fromkeys(("", "APP_1", "APP_2"), Away("no answer"))
    ann = world.browser("ann")
    found = world.get(ann)
    assert (names(found), found.json()["complete"]) == (["z"], False)
    world.vendor.problems.clear()
    world.pass_hours(0.3)
    found = world.get(ann)
    assert (names(found), found.json()["complete"]) == (["a", "b", "c", "z"], True)
    assert (other.reads, sorted(world.vendor.reads)) == (["", "APP_1"], ["", "", "APP_1", "APP_2"])


def test_a_list_that_fails_later_stays_for_a_week_and_then_the_page_says_that_it_is_missing(world: World) -> None:
    ann = world.browser("ann")
    world.get(ann)
    world.vendor.problems = {"APP_1": OperatorError("DingTalk has no such app")}
    world.pass_hours(4.1)
    assert (names(world.get(ann)), world.get(ann).json()["complete"]) == (["a", "b", "c"], True)
    assert world.vendor.reads.count("APP_1") == 2
    world.vendor.problems = {}
    world.vendor.listed["APP_1"] = [form("new")]
    world.pass_hours(0.26)
    assert names(world.get(ann)) == ["new", "c"]
    world.vendor.problems = {"APP_1": OperatorError("DingTalk has no such app")}
    world.pass_hours(4.1)
    world.get(ann)
    world.age("APP_1", days=6.9)
    assert names(world.get(ann)) == ["new", "c"]
    world.age("APP_1", days=0.2)
    assert (names(world.get(ann)), world.get(ann).json()["complete"]) == (["c"], False)


def test_forms_that_the_operator_named_are_shown_until_the_list_was_read(world: World) -> None:
    ann = world.browser("ann")
    world.vendor.of_apps_file = {"APP_1": [form("named")]}
    world.vendor.problems = dict.fromkeys(("APP_1", "APP_2"), OperatorError("this DingTalk does not offer the call"))
    assert (names(world.get(ann)), world.get(ann).json()["complete"]) == (["named"], False)
    world.vendor.problems.clear()
    world.pass_hours(0.26)
    assert (names(world.get(ann)), world.get(ann).json()["complete"]) == (["a", "b", "c"], True)
    # A gateway that lacks its service for a moment.
    world.vendor.problems = {"APP_1": OperatorError("this DingTalk does not offer the call")}
    world.pass_hours(4.1)
    assert names(world.get(ann)) == ["a", "b", "c"]


def test_a_list_of_which_a_part_is_missing_is_not_complete(world: World) -> None:
    world.vendor.are_all = False
    answer = world.get(world.browser("ann"))
    assert (names(answer), answer.json()["complete"]) == (["a", "b", "c"], False)


def test_an_answer_has_so_many_forms_at_most_with_texts_that_are_cut_before_they_are_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FORMS_MOST", 2)
    world.vendor.listed = {"APP_1": [form("a", "长" * 100_000)], "APP_2": [form("b"), form("c")]}
    ann = world.browser("ann")
    answer = world.get(ann)
    assert ([each[:1] for each in names(answer)], answer.json()["complete"]) == (["长", "b"], False)
    with world.served.database.read() as connection:
        stored = connection.execute(select(start_lists.c.data)).scalars().all()
    assert max(map(len, stored)) < 2_000


@pytest.mark.parametrize("world", [60.0], indirect=True)
def test_answers_are_built_off_the_event_loop_from_lists_that_are_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, built_in_thread = list[str](), list[bool]()
    real_of, real_answer = StartLists.of, module.JsonAnswer

    def of(self: StartLists, corp_id: str) -> Any:
        read.append(corp_id)
        return real_of(self, corp_id)

    def answer(content: object) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            built_in_thread.append(True)
        return real_answer(content)

    monkeypatch.setattr(StartLists, "of", of)
    monkeypatch.setattr(module, "JsonAnswer", answer)
    ann, bob = world.browser("ann"), world.browser("bob")
    world.get(ann)
    before = len(read)
    assert [names(world.get(ann)), names(world.get(bob, "bob"))] == [["a", "b", "c"]] * 2
    assert len(read) == before
    assert built_in_thread == [True] * 3


def test_names_are_not_asked_for_where_they_cannot_be_and_are_there_soon_once_they_can(world: World) -> None:
    world.vendor.has_names = False
    ann = world.browser("ann")
    assert world.get(ann).json()["items"][0]["app_name"] is None
    assert sorted(world.vendor.reads) == ["APP_1", "APP_2"]
    world.vendor.has_names = True
    assert world.get(ann).json()["items"][0]["app_name"] == "Office"


def test_names_that_are_refused_hide_no_form(world: World) -> None:
    world.vendor.problems = {"": OperatorError("no corp token")}
    answer = world.get(world.browser("ann"))
    assert (names(answer), answer.json()["items"][0]["app_name"]) == (["a", "b", "c"], None)


def test_a_vendor_that_is_away_is_said_and_tried_again_after_minutes(world: World) -> None:
    ann, away = world.browser("ann"), Away("it does not answer")
    world.vendor.problems = dict.fromkeys(("", "APP_1", "APP_2"), away)
    answers = [world.get(ann) for _ in range(5)]
    assert [(each.status_code, each.headers["retry-after"]) for each in answers] == [(503, "60")] * 5
    assert len(world.vendor.reads) == 1, "one call in a quarter of an hour"
    world.vendor.problems.clear()
    world.pass_hours(0.3)
    assert names(world.get(ann)) == ["a", "b", "c"]
    world.vendor.problems = {"APP_1": away, "APP_2": away}
    world.pass_hours(4.1)
    assert names(world.get(ann)) == ["a", "b", "c"], "what was listed before"


def test_a_replica_that_died_while_it_read_a_list_leaves_it_to_another(world: World) -> None:
    assert world.lists.claim("ours", "yida APP_1", now=now_ms())
    ann = world.browser("ann")
    answer = world.get(ann)
    assert (names(answer), answer.json()["complete"]) == (["c"], False)
    world.pass_hours(0.3)
    assert (names(world.get(ann)), world.get(ann).json()["complete"]) == (["a", "b", "c"], True)


def test_a_page_ends_though_the_vendor_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = world.browser("ann")
    assert world.get(ann).status_code == 200
    world.pass_hours(5)
    world.vendor.answers = asyncio.Event()
    monkeypatch.setattr(module, "OPEN_S", 0.01)
    assert names(world.get(ann)) == ["a", "b", "c"]


def test_a_list_that_takes_longer_than_a_page_waits_is_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "OPEN_S", 0.0)
    read = partial(module.read_due, "yida", world.vendor, "ours", world.lists, world.served.rows.threads)

    async def scenario() -> None:
        world.vendor.answers = asyncio.Event()
        reading = asyncio.ensure_future(read())
        await world.vendor.is_read.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        world.vendor.answers.set()
        await reading

    asyncio.run(scenario())
    assert sorted(world.vendor.reads) == ["", "APP_1", "APP_2"]
    assert names(world.get(world.browser("ann"))) == ["a", "b", "c"]


def test_only_the_person_reads_them(world: World) -> None:
    cai = world.browser("cai")
    assert world.get(cai).status_code == 403
    assert world.served.browser().get(PATH.format("ann")).status_code == 401
    program = {"Authorization": f"Bearer {TOKEN}"}
    assert world.served.browser().get(PATH.format("ann"), headers=program).status_code == 403
    assert world.vendor.reads == []
    with world.served.database.read() as connection:
        assert connection.execute(select(start_lists)).all() == []


def test_a_corp_without_credentials_has_none(world: World) -> None:
    world.starts.clear()
    assert world.get(world.browser("ann")).status_code == 404
    assert world.vendor.reads == []


def test_the_last_use_is_that_of_the_persons_own_requests(world: World) -> None:
    for instance, originator, form_uuid in (
        ("I-1", "ann", "FORM-a"),
        ("I-2", "ann", "FORM-a"),
        ("I-3", "bob", "FORM-b"),
        ("I-4", "ann", None),
    ):
        made = state(instance, corp_id="ours", originator=Person(originator, None), form_uuid=form_uuid)
        world.served.rows.store(made)
    used = {each["title"]: each["used_at"] for each in world.get(world.browser("ann")).json()["items"]}
    newest = world.served.rows.queries.last_started(("ours", "ann"))
    assert used == {"a": iso(newest["FORM-a"]), "b": None, "c": None}


def test_titles_are_text_cut_and_else_those_of_the_topic_of_forms(world: World) -> None:
    world.vendor.listed = {"APP_1": [form("a", None), form("b", MARKUP)], "APP_2": [form("c", "长" * 5_000)]}
    with world.served.database.write() as connection:
        row = {"corp_id": "ours", "form_uuid": "FORM-a", "partition": 0, "title": "Visitors", "labels": b"{}"}
        connection.execute(insert(forms), row)
    assert names(world.get(world.browser("ann"))) == ["Visitors", MARKUP, "长" * 200]


def test_what_nobody_looks_at_any_more_is_deleted(world: World) -> None:
    world.get(world.browser("ann"))
    world.pass_hours(29 * 24)
    assert world.lists.purge() == 0
    world.pass_hours(2 * 24 + 24)
    assert world.lists.purge() == 3


def test_each_query_has_an_index(world: World) -> None:
    for number in range(300):
        made = state(f"I-{number}", corp_id="ours", originator=Person(f"user{number % 50}", None), form_uuid="FORM-a")
        world.served.rows.store(made)
    with world.served.database.write() as connection:
        many = [{"corp_id": f"c{each}", "app_type": "APP", "due_at": 0} for each in range(300)]
        connection.execute(insert(start_lists), many)
        titled = {"corp_id": "ours", "partition": 0, "title": "t", "labels": b"{}"}
        connection.execute(insert(forms), [{**titled, "form_uuid": f"FORM-{each}"} for each in range(300)])
        connection.execute(text("ANALYZE"))
    plans = Plans(world.served.database)
    assert world.served.rows.queries.last_started(("ours", "user1")).keys() == {"FORM-a"}
    assert world.served.rows.queries.form_titles("ours", ["FORM-1", "FORM-x"]) == {"FORM-1": "t"}
    assert world.lists.of("c7").keys() == {"APP"}
    assert world.lists.claim("c7", "APP", now=now_ms())
    assert not world.lists.claim("c7", "APP", now=now_ms())
    world.lists.store("c7", "APP", module.Listed(), due_at=now_ms())
    assert plans
    for sql, plan in plans.items():
        for table in ("entries", "instances", "forms", "start_lists"):
            assert f"SCAN {table}\n" not in f"{plan}\n", f"{sql}\n{plan}"
            assert f"Seq Scan on {table} " not in plan, f"{sql}\n{plan}"
