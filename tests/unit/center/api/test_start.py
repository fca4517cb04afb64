"""The forms that a person may start are the vendor's list, read rarely, and what it does not list is not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from support.center_rows import state
from support.plans import Plans
from support.sign_in import SAME_SITE, Served, sign_in, signing_in
from taskbridge.center.actions.systems import StartForm
from taskbridge.center.api import start as module
from taskbridge.center.api.start import start_router
from taskbridge.runtime.tokens import digest_of, new_token
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Person

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import httpx2
    from starlette.testclient import TestClient

    from taskbridge.runtime.database import Database

TOKEN = new_token()
PATH = "/v1/corps/ours/users/{}/forms"


def form(name: str) -> StartForm:
    return StartForm("APP", "Office", f"FORM-{name}", name, None, f"https://yida.example/APP/submission/FORM-{name}")


class Vendor:
    """What it lists to a user, and to the app's own (None)."""

    def __init__(self) -> None:
        self.forms = {user: [form("a"), form("b"), form("c")] for user in (None, "ann", "bob")}
        self.reads: list[str | None] = []
        self.broken: set[str | None] = set()

    async def read(self, corp_id: str, user_id: str | None) -> Sequence[StartForm]:
        assert corp_id == "ours"
        self.reads.append(user_id)
        if user_id in self.broken:
            raise OperatorError("DingTalk says no")
        return self.forms[user_id]


class World:
    def __init__(self, served: Served, provider: Any) -> None:
        self.served, self._provider, self.vendor = served, provider, Vendor()
        rows = served.rows
        served.http.include_router(start_router(rows.access, rows.queries, rows.threads, read=self.vendor.read))

    def browser(self, user: str = "ann") -> TestClient:
        self._provider.claims["preferred_username"] = user
        browser = self.served.browser()
        sign_in(browser)
        return browser

    def get(self, browser: TestClient, user: str = "ann") -> httpx2.Response:
        return browser.get(PATH.format(user), headers=SAME_SITE)


def names(answer: httpx2.Response) -> list[str]:
    return [each["title"] for each in answer.json()["items"]]


@pytest.fixture
def world(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Generator[World]:
    """A parameter is how many people's lists are read in a day."""
    monkeypatch.setattr(module, "_OF_PEOPLE", getattr(request, "param", 30))
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "portal"\nsha256 = "{digest_of(TOKEN)}"\ncorps = ["*"]\n')
    people = {"api_tokens_file": str(tokens), "operators": "ours/cai"}
    with signing_in(database, tmp_path, **people) as (served, provider):
        yield World(served, provider)


def test_what_a_person_may_not_start_is_not_listed_and_lists_are_read_once(world: World) -> None:
    ann, bob = world.browser(), world.browser("bob")
    world.vendor.forms["ann"] = [form("a"), form("c"), form("removed from the app")]
    found = [world.get(ann) for _ in range(3)]
    assert [(each.status_code, names(each), each.json()["checked"]) for each in found] == 3 * [(200, ["a", "c"], True)]
    assert names(world.get(bob, "bob")) == ["a", "b", "c"]
    assert world.vendor.reads == [None, "ann", "bob"]
    assert found[0].json()["items"][0] == {**form("a")._asdict(), "used_at": None}


def test_only_the_person_reads_them(world: World) -> None:
    cai = world.browser("cai")
    assert world.get(cai).status_code == 403
    assert world.served.browser().get(PATH.format("ann")).status_code == 401
    program = {"Authorization": f"Bearer {TOKEN}"}
    assert world.served.browser().get(PATH.format("ann"), headers=program).status_code == 403
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
    used = {each["title"]: each["used_at"] for each in world.get(world.browser()).json()["items"]}
    newest = world.served.rows.queries.last_started(("ours", "ann"))
    assert used == {"a": iso(newest["FORM-a"]), "b": None, "c": None}


def test_a_vendor_that_does_not_answer_is_said_and_not_asked_for_ever(world: World) -> None:
    ann = world.browser()
    world.vendor.broken = {None}
    assert [world.get(ann).status_code for _ in range(8)] == [503] * 6 + [429] * 2
    assert world.vendor.reads == [None] * 6


def test_without_the_persons_own_list_all_are_shown_and_it_says_so(world: World) -> None:
    ann = world.browser()
    world.vendor.broken = {"ann"}
    for _ in range(6):
        answer = world.get(ann)
        assert (names(answer), answer.json()["checked"]) == (["a", "b", "c"], False)
    assert world.vendor.reads == [None, *["ann"] * 4]


@pytest.mark.parametrize("world", [1], indirect=True)
def test_when_the_calls_of_a_day_are_used_up_others_see_all(world: World) -> None:
    assert world.get(world.browser()).json()["checked"]
    assert not world.get(world.browser("bob"), "bob").json()["checked"]
    assert world.vendor.reads == [None, "ann"]


def test_the_last_use_has_an_index(world: World) -> None:
    for number in range(300):
        made = state(f"I-{number}", corp_id="ours", originator=Person(f"user{number % 50}", None), form_uuid="FORM-a")
        world.served.rows.store(made)
    with world.served.database.write() as connection:
        connection.execute(text("ANALYZE"))
    plans = Plans(world.served.database)
    assert world.served.rows.queries.last_started(("ours", "user1")).keys() == {"FORM-a"}
    assert plans
    for sql, plan in plans.items():
        for table in ("entries", "instances"):
            assert f"SCAN {table}\n" not in f"{plan}\n", f"{sql}\n{plan}"
            assert f"Seq Scan on {table} " not in plan, f"{sql}\n{plan}"
