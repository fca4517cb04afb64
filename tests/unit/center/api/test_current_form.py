"""The form as it is now is read for who sees the request, once for several readers, and within limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from support.center_rows import state
from support.sign_in import Served, signing_in, tokens_file
from taskbridge.center.actions import systems
from taskbridge.center.actions.seen_form import digest_of
from taskbridge.center.actions.systems import Away, FormRead, LoggedChange, Step
from taskbridge.center.api import current_form as module
from taskbridge.runtime.database import now_ms
from taskbridge.runtime.tokens import new_token
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Action, Person, Status, TaskEntry, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from taskbridge.runtime.database import Database

THEIRS = new_token()
PATH = "/v1/instances/I-1/form"
START = {"amount": "200", "why": "train"}


class Reader:
    """What reads forms: it records what it is asked."""

    def __init__(self) -> None:
        self.values: dict[str, str | None] | None = dict(START)
        self.calls_per_day = 500
        self.problem: OperatorError | None = None
        self.optional_problem: OperatorError | None = None
        self.is_silent = False
        self.is_running = True
        self.meanwhile: Callable[[], object] | None = None
        self.asked: list[Any] = []

    async def read(self, instance_id: str) -> FormRead | None:
        self.asked.append(instance_id)
        if self.meanwhile is not None:
            await asyncio.to_thread(self.meanwhile)
        if self.is_silent:
            await asyncio.Event().wait()
        if self.problem:
            raise self.problem
        return None if self.values is None else FormRead(dict(self.values), self.is_running)

    async def changes(self, instance_id: str, read: FormRead, fields: Sequence[str]) -> dict[str, LoggedChange]:  # noqa: ARG002 - as FormReader
        self.asked.append(("changes", *fields))
        if self.optional_problem:
            raise self.optional_problem
        return {"amount": LoggedChange("cai", 1_000)}

    async def steps(self, instance_id: str, read: FormRead, here: Sequence[str]) -> list[Step]:  # noqa: ARG002 - as FormReader
        self.asked.append(("steps", *here))
        if self.optional_problem:
            raise self.optional_problem
        return [Step("<b>财务", [("dan", "丹"), ("cai", "C.")])]


class World:
    """Ann's request, which waits for Bob; Cai is an operator."""

    def __init__(self, served: Served) -> None:
        self.served, self.browser, self.reader = served, served.signed_in, Reader()
        served.rows.read_form = self.reader
        task = TaskEntry("T-1", Status.PENDING, ("bob",), step_id="a-boss")
        served.rows.store(state("I-1", corp_id="ours", originator=Person("ann", "Ann"), tasks=(task,)))
        event = TaskEvent(
            *("e-1", SOURCE_YIDA, Action.CREATED, "ours", "APP", "I-1"),
            occurred_at=1_000,
            received_at=1_000,
            form_data=START,
        )
        served.rows.store_events(event)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Generator[World]:
    tokens = tokens_file(tmp_path, theirs=THEIRS)
    with signing_in(database, tmp_path, operators="ours/cai", api_tokens_file=tokens) as (served, _):
        yield World(served)


@pytest.fixture
def nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_S", 0.0)


def test_what_changed_since_the_start_is_named_with_who_and_when(world: World) -> None:
    world.reader.values = {"amount": "20000", "why": "train", "extra": None}
    answer = world.browser("ann").get(PATH)
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["form"] == world.reader.values
    assert found["digest"] == digest_of(world.reader.values)
    assert found["changed"] == [
        {"field": "amount", "before": "200", "user_id": "cai", "at": "1970-01-01T00:00:01.000Z"}
    ]
    assert found["to_come"] == [{"name": "<b>财务", "user_ids": ["dan", "cai"]}]
    assert found["people"] == [{"user_id": "cai", "name": "Cai"}, {"user_id": "dan", "name": "丹"}]
    assert world.reader.asked == ["I-1", ("changes", "amount"), ("steps", "a-boss")]


def test_several_readers_cost_the_calls_of_one_and_nothing_else_costs_any(world: World) -> None:
    browsers = [world.browser(user) for user in ("ann", "bob", "cai")]
    for each in browsers:
        assert each.get("/v1/instances/I-1/history").json()["reads_form"]
        assert each.get("/v1/instances/I-1").status_code == 200
    browsers[0].get("/v1/corps/ours/users/ann/tasks?view=created")
    assert world.reader.asked == []
    answers = [each.get(PATH) for each in browsers for _ in range(2)]
    assert {each.status_code for each in answers} == {200}
    # Without a change nobody is asked who made it.
    assert world.reader.asked == ["I-1", ("steps", "a-boss")]


def test_values_that_are_known_to_be_old_are_read_again_by_all(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    old = ann.get(PATH).json()["digest"]
    world.reader.values = {"amount": "20000"}
    assert bob.get(PATH).json()["digest"] == old
    new = bob.get(f"{PATH}?outdated={old}").json()["digest"]
    assert new != old
    assert ann.get(PATH).json()["digest"] == new
    assert ann.get(f"{PATH}?outdated={old}").json()["digest"] == new
    assert world.reader.asked.count("I-1") == 2


def test_nobody_else_has_it_read(world: World) -> None:
    world.served.rows.store(state("I-9", corp_id="ours", tasks=(TaskEntry("T-9", Status.PENDING, ("bob",)),)))
    ann = world.browser("ann")
    answers = {
        "not signed in": (world.served.browser().get(PATH), 401),
        "another corp": (world.served.browser().get(PATH, headers={"Authorization": f"Bearer {THEIRS}"}), 404),
        "no such instance": (ann.get(PATH.replace("I-1", "I-0")), 404),
        "another person's": (ann.get(PATH.replace("I-1", "I-9")), 404),
        "from a page elsewhere": (ann.get(PATH, headers={"Sec-Fetch-Site": "cross-site"}), 403),
        "too long": (ann.get(f"{PATH}?outdated={'x' * 65}"), 400),
    }
    assert {name: answer.status_code for name, (answer, _) in answers.items()} == {
        name: status for name, (_, status) in answers.items()
    }
    world.served.rows.read_form = None
    assert ann.get(PATH).status_code == 404, "an app without credentials"
    assert not ann.get("/v1/instances/I-1/history").json()["reads_form"]
    assert world.reader.asked == []


def test_who_names_the_newest_as_old_has_it_read_once_more_and_no_more(world: World) -> None:
    ann = world.browser("ann")
    newest = ann.get(PATH).json()["digest"]
    for _ in range(10):
        assert ann.get(f"{PATH}?outdated={newest}").json()["digest"] == newest
    assert world.reader.asked.count("I-1") == 2


@pytest.mark.usefixtures("nothing_is_stored")
def test_a_person_has_a_share_of_the_calls_of_a_day_and_leaves_the_others_theirs(world: World) -> None:
    ann, bob = world.browser("ann"), world.browser("bob")
    world.reader.values = {"amount": "1", "why": "train"}
    world.reader.calls_per_day = 300
    answers = [ann.get(PATH).status_code for _ in range(60)]
    calls = [each if isinstance(each, str) else each[0] for each in world.reader.asked]
    # Who changed it and the steps to come are of the same values: they are read once.
    assert (answers.count(200), set(answers), len(calls)) == (28, {200, 429}, 30)
    assert bob.get(PATH).status_code == 200
    world.reader.calls_per_day = 10
    assert [bob.get(PATH).status_code for _ in range(30)].count(200) == 20


def test_steps_that_could_not_be_read_are_soon_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = world.browser("ann")
    world.reader.optional_problem = OperatorError("no")
    for _ in range(2):
        assert ann.get(PATH).json()["to_come"] == []
    assert world.reader.asked.count(("steps", "a-boss")) == 1
    world.reader.optional_problem = None
    monkeypatch.setattr(module, "_READ_S", 0.0)
    for _ in range(2):
        assert ann.get(PATH).json()["to_come"] != []
    assert world.reader.asked.count(("steps", "a-boss")) == 2


def test_before_its_events_are_read_nothing_is_compared_with_them(world: World) -> None:
    now = now_ms()
    world.served.rows.store(state("I-2", corp_id="ours", originator=Person("ann", "Ann"), updated_at=now))
    answer = world.browser("ann").get(PATH.replace("I-1", "I-2"))
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:taskbridge:problem:events-behind")
    assert world.reader.asked == []


@pytest.mark.usefixtures("nothing_is_stored")
def test_a_caller_has_so_many_read_in_an_hour(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OF_CALLER", 2)
    with signing_in(database, tmp_path) as (served, _):
        world = World(served)
        ann, bob = world.browser("ann"), world.browser("bob")
        assert [ann.get(PATH).status_code for _ in range(3)] == [200, 200, 429]
        assert bob.get(PATH).status_code == 200
        assert world.reader.asked.count("I-1") == 3


def test_a_system_that_fails_says_whether_it_passes_and_no_failure_is_stored(world: World) -> None:
    ann = world.browser("ann")
    for problem, retry in ((Away("away"), "60"), (OperatorError("Yida.Process.Read"), None)):
        world.reader.problem = problem
        with capture_logs() as logs:
            answer = ann.get(PATH)
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, retry)
        assert "Yida" not in answer.text
        assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["form_not_read"]
    world.reader.problem, world.reader.values = None, None
    assert ann.get(PATH).status_code == 404


def test_without_logs_and_steps_the_values_are_shown(world: World) -> None:
    world.reader.values, world.reader.optional_problem = {"amount": "1"}, OperatorError("no")
    found = world.browser("ann").get(PATH).json()
    assert (found["form"], found["to_come"]) == ({"amount": "1"}, [])
    assert [each["field"] for each in found["changed"]] == ["amount", "why"]
    assert {each["user_id"] for each in found["changed"]} == {None}


def test_what_has_ended_has_no_steps_to_come(world: World) -> None:
    world.reader.is_running = False
    assert world.browser("ann").get(PATH).json()["to_come"] == []
    assert world.reader.asked == ["I-1"]


def test_a_read_ends_though_the_system_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems.answered, "__defaults__", (0.01,))
    world.reader.is_silent = True
    # Nor does it occupy one of the places.
    assert [world.browser("ann").get(PATH).status_code for _ in range(10)] == [503] * 10


def test_few_are_read_at_once_and_the_next_is_told_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    with signing_in(database, tmp_path, operators="ours/cai") as (served, _):
        world = World(served)
        world.served.rows.store(state("I-2", corp_id="ours", originator=Person("ann", "Ann")))
        ann, answers = world.browser("ann"), list[Any]()
        bob = world.browser("cai")
        world.reader.meanwhile = lambda: answers.append(bob.get(PATH.replace("I-1", "I-2")))
        assert ann.get(PATH).status_code == 200
        assert [(each.status_code, each.headers["retry-after"]) for each in answers] == [(503, "2")]
