"""An operator hands over all tasks of a person who leaves: each once, all of them audited, also across a kill."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import delete, select

from support.acting import World, acting, older_replica
from support.center_rows import state
from support.reconcile import APP_TYPE, CORP_ID, NOW, filed
from support.sign_in import SAME_SITE, Served, sign_in, signing_in
from taskbridge.center.access.access import Caller
from taskbridge.center.access.audit import pseudonym_of
from taskbridge.center.actions import store
from taskbridge.center.actions.conclusions import is_carried_out
from taskbridge.center.actions.targets import Endpoint
from taskbridge.center.tables import actions, audit
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.apps import Apps
from taskbridge.dingtalk.calls import always
from taskbridge.dingtalk.decisions import YidaApp, YidaApps, read_reassigned
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.runtime.refusals import BadQuery
from taskbridge.schemas.events import SOURCE_YIDA, PersonRecord, Status, TaskEntry, TaskState

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import httpx2

    from taskbridge.center.actions.store import Action
    from taskbridge.runtime.database import Database

LEAVER = CORP_ID, "leo"
OPERATOR = Caller("sso", corp_id=CORP_ID, user_id="oda", corps=("*",))
UNCLEAR_ONE = store.Action(
    *("x", CORP_ID, "leo", "oda", "I", "1", "yida", APP_TYPE, "reassign", "nia", "", "UNCLEAR", "", 1), NOW, NOW
)
PATH = "/v1/ops/corps/{}/users/{}/hand-over"
BODY = {"recipient_id": "cai"}


def begin(world: World, tasks: int) -> None:
    for each in ("leo", "nia", "oda"):
        world.rows.know(CORP_ID, PersonRecord(each))
    world.assign(*((f"I-{each}", str(2000 + each), "leo") for each in range(tasks)))


def reassign(world: World, to: str = "nia", by: str = "oda") -> list[Action]:
    operator, now = replace(OPERATOR, user_id=by), world.clock.now_ms()
    wanted = world.store.to_reassign(operator, LEAVER, to, "", world.systems, now=now)
    return world.store.reassign(operator, wanted, world.systems, address="192.0.2.1", now=now)


def redirected(world: World) -> list[wire.RedirectTask]:
    return [each for each in world.dingtalk.changes if isinstance(each, wire.RedirectTask)]


def handed(world: World) -> dict[str, int]:
    return world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms()).handed


def staying(world: World) -> dict[str, int]:
    return world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms()).staying


def pending(world: World) -> int:
    return sum(each.pending for each in world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms()).processes)


async def test_forty_tasks_are_handed_over_once_each_with_a_kill_in_between(database: Database) -> None:
    async with acting(database) as world:
        begin(world, 40)
        assert pending(world) == 40
        assert len(reassign(world)) == 40
        under_way = await world.dispatcher.step()
        while len(redirected(world)) < 10:  # noqa: ASYNC110 - the fake is in another thread
            await asyncio.sleep(0)
        # As a kill: nothing more is recorded. What is on its way may arrive.
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        assert reassign(world) == [], "all are under way"
        world.dispatcher = world.replica()
        for _ in range(12):
            await world.work(pass_s=60)
            world.deliver()
        # Those that died before they left: the operator does it again.
        assert handed(world).keys() <= {"DONE", "FAILED"}
        left = pending(world)
        assert len(reassign(world)) == left == handed(world).get("REQUESTED", 0)
        for _ in range(3):
            await world.work(pass_s=60)
            world.deliver()
        assert handed(world) == {"DONE": 40}
        assert pending(world) == 0
        sent = Counter((each.process_instance_id, each.task_id) for each in redirected(world))
        assert (len(sent), set(sent.values())) == (40, {1})
        assert {(each.by_manager, each.user_id, each.now_action_executor_id) for each in redirected(world)} == {
            ("y", "manager", "nia")
        }
        assert {each.remark for each in redirected(world)} == {"转交 (oda 代办)"}
        trail = Counter((who, what) for who, what, _ in world.trail)
        assert trail["oda", "reassign"] == trail["oda", "acted_for"] == trail["oda", "action_ended"] == 40 + left


async def test_what_the_leaver_decided_meanwhile_is_not_handed_over(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 2)
        [first] = world.act("agree", ("I-0", "2000"), by="leo")
        assert [each.instance_id for each in reassign(world)] == ["I-1"], "the other one is under way"
        for _ in range(4):
            await world.work(pass_s=60)
            world.deliver()
        assert handed(world) == {"DONE": 1}
        assert first.action == "agree"


async def test_a_lost_answer_is_read_back_and_nothing_is_sent_again(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        world.dingtalk.faults.lost_answers = 1
        reassign(world)
        for _ in range(3):
            await world.work(pass_s=60)
        assert handed(world) == {"DONE": 1}
        assert len(redirected(world)) == 1


async def test_a_recipient_who_is_not_another_known_person_is_refused(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        # Nor does an operator hand anything over to themself.
        for to in ("leo", "unknown", "oda"):
            with pytest.raises(BadQuery):
                reassign(world, to)
        assert not world.stored


async def test_more_than_one_request_may_record_comes_with_the_next(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REASSIGNED_MOST", 3)
    async with acting(sqlite_database) as world:
        begin(world, 5)
        assert [len(reassign(world)) for _ in range(3)] == [3, 2, 0]


async def test_tasks_without_a_system_stay_and_are_shown(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 2)
        world.apps = Apps((), ())
        assert reassign(world) == []
        [found] = world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms()).processes
        assert (found.pending, found.is_possible) == (2, False)


@pytest.fixture
def served(sqlite_database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Generator[Served]:
    operators = {"operators": "ours/ann"} if getattr(request, "param", True) else {"operators": "ours/cai"}
    with signing_in(sqlite_database, tmp_path, **operators) as (found, _):
        yield found


def test_an_operator_previews_and_hands_over(served: Served) -> None:
    browser = served.signed_in()
    before = browser.get(PATH.format("ours", "bob")).json()
    assert [(each["pending"], each["is_possible"]) for each in before["processes"]] == [(1, False)]
    assert before["handed"] == {}
    answer = browser.post(PATH.format("ours", "bob"), json=BODY, headers=SAME_SITE)
    assert answer.status_code == 200
    assert served.wakes == [None]


def refusal(answer: httpx2.Response) -> int:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code


@pytest.mark.parametrize("served", [False], indirect=True)
def test_an_employee_neither_sees_nor_hands_over(served: Served) -> None:
    browser = served.signed_in()
    for user in ("ann", "bob"):
        assert refusal(browser.get(PATH.format("ours", user))) == 403
        assert refusal(browser.post(PATH.format("ours", user), json=BODY, headers=SAME_SITE)) == 403
    wrong = {"action": "reassign", "items": [{"instance_id": "I-ann", "task_id": "T-1"}], "recipient_id": "bob"}
    answer = browser.post("/v1/corps/ours/users/ann/actions", json=wrong, headers=SAME_SITE)
    assert refusal(answer) == 400, "it is no action of a person"


def test_not_in_another_corp_nor_from_another_site_nor_without_a_recipient(served: Served) -> None:
    browser = served.browser()
    assert refusal(browser.get(PATH.format("ours", "bob"))) == 401
    sign_in(browser)
    assert refusal(browser.post(PATH.format("theirs", "dan"), json=BODY, headers=SAME_SITE)) == 403
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert refusal(browser.post(PATH.format("ours", "bob"), json=BODY, headers=foreign)) == 403
    # The last two: to the person who leaves, and to the operator.
    for body in (
        {},
        {"recipient_id": ""},
        {**BODY, "remark": "x" * 1001},
        *({"recipient_id": to} for to in ("bob", "ann")),
    ):
        assert refusal(browser.post(PATH.format("ours", "bob"), json=body, headers=SAME_SITE)) == 400, body
    assert served.wakes == []


async def test_what_the_leaver_hands_over_themself_is_never_ours(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        reassign(world)
        [action] = world.stored
        # Killed after it was recorded as being sent, before the call left.
        world.store.advance(action, status="SENDING", due_at=world.clock.now_ms() + 120_000, attempts=1)
        leavers = YidaApps(lambda: world.apps, world.urls[0], clock=world.clock).system(CORP_ID, APP_TYPE, always)
        assert leavers is not None
        await leavers.send(action._replace(action="hand_over", actor_id="leo", recipient_id="kim"), now=NOW)
        world.deliver()
        for _ in range(3):
            await world.work(pass_s=130)
        assert handed(world) == {"OVERTAKEN": 1}


async def test_a_replica_of_the_release_before_sends_no_hand_over(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        reassign(world)
        await asyncio.gather(*await older_replica(world).step())
        assert (handed(world), world.dingtalk.changes) == ({"FAILED": 1}, [])
        world.clock.pass_s(1)
        assert len(reassign(world)) == 1
        await world.work()
        assert (handed(world), len(redirected(world))) == ({"ACCEPTED": 1}, 1)


async def test_what_waits_for_its_callback_is_counted_and_not_handed_over_again(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        reassign(world)
        for _ in range(12):
            await world.work(pass_s=30)  # the callback does not come
        assert handed(world) == {"DONE": 1}
        assert (reassign(world, "oda", by="nia"), len(redirected(world))) == ([], 1)
        assert staying(world) == {"handed-over": 1}


async def test_what_the_leaver_decides_is_counted_as_under_way(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 2)
        world.act("agree", ("I-0", "2000"), by="leo")
        assert staying(world) == {"under-way": 1}
        assert len(reassign(world)) == 1
        assert staying(world) == {"under-way": 2}


def test_other_writers_wait_for_a_part_of_many_tasks_only(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with signing_in(sqlite_database, tmp_path, operators="ours/ann") as (served, _):
        served.endpoints["ours", SOURCE_YIDA] = Endpoint("http://127.0.0.1:1/actions", b"key")
        for at in range(60):
            tasks = (TaskEntry(str(at), Status.PENDING, ("bob",)),)
            served.rows.store(state(f"I-{at}", corp_id="ours", tasks=tasks))
        counts: list[int] = []
        record = store.Actions.reassign

        def counted(*given: Any, **options: Any) -> list[Action]:
            counts.append(len(given[2]))
            return record(*given, **options)

        monkeypatch.setattr(store.Actions, "reassign", counted)
        browser = served.signed_in()
        assert browser.post(PATH.format("ours", "bob"), json=BODY, headers=SAME_SITE).json()["recorded"] == sum(counts)
        assert (sum(counts), max(counts)) == (60, 25)


async def test_a_recipient_who_had_the_task_before_proves_nothing() -> None:
    class Api:
        async def running_tasks(self, _: str) -> list[wire.RunningTask]:
            since = {"nia": NOW - DAY_MS, "kim": NOW}
            return [wire.RunningTask(task_id="1", actual_actioner_id=who, create_time=at) for who, at in since.items()]

        async def operation_records(self, _: str) -> list[wire.OperationRecord]:
            return [record("1", "leo", wire.FORWARD)]

    assert await YidaApp(cast("Any", Api())).read_back(UNCLEAR_ONE) == "OVERTAKEN"


def test_the_recipients_own_decision_is_not_one_of_others() -> None:
    manager, nia = record("1", "manager", wire.FORWARD), record("1", "nia", "同意")
    accepted = UNCLEAR_ONE._replace(status="ACCEPTED")
    assert [read_reassigned(each, [], [manager, nia]) for each in (accepted, UNCLEAR_ONE)] == ["DONE", "DONE"]
    # Without a yes, the recipient may have had the task too.
    assert [read_reassigned(each, [], [nia]) for each in (accepted, UNCLEAR_ONE)] == ["DONE", None]
    task = TaskEntry("1", Status.COMPLETED, ("leo", "nia"), actor_id="nia", outcome="AGREE", decided_at=NOW + 1000)
    found = TaskState("I", CORP_ID, APP_TYPE, updated_at=NOW, revision=3, tasks=(task,), finished_at=NOW + 1000)
    assert [is_carried_out(each, found) for each in (accepted, UNCLEAR_ONE)] == [True, None]


def record(task: str, operator: str, word: str, at: int = NOW) -> wire.OperationRecord:
    return wire.OperationRecord(task_id=task, operator_user_id=operator, action=word, operate_time=at)


@pytest.mark.parametrize(
    ("holder", "since", "records", "found"),
    [
        ("nia", NOW, [record("1", "manager", wire.FORWARD)], "DONE"),
        ("kim", NOW, [record("1", "manager", wire.FORWARD), record("2", "nia", "同意")], "DONE"),
        ("nia", NOW, [], "DONE"),
        ("nia", NOW, [record("1", "leo", wire.FORWARD), record("2", "kim", "同意")], "OVERTAKEN"),
        ("nia", NOW, [record("1", "leo", "同意")], "OVERTAKEN"),
        ("nia", NOW, [record("1", "kim", "同意")], "OVERTAKEN"),
        ("nia", NOW - DAY_MS, [record("1", "leo", wire.FORWARD)], "OVERTAKEN"),
        ("nia", NOW - DAY_MS, [record("1", "manager", wire.FORWARD)], None),
        ("kim", NOW, [record("1", "manager", wire.FORWARD)], None),
        ("kim", NOW, [], "OVERTAKEN"),
    ],
)
def test_a_read_back_is_done_only_if_it_reached_the_recipient(
    holder: str, since: int, records: list[wire.OperationRecord], found: str | None
) -> None:
    running = [wire.RunningTask(task_id="3", actual_actioner_id=holder, create_time=since)]
    assert read_reassigned(UNCLEAR_ONE, running, records) == found


def test_a_task_that_the_recipient_gets_later_proves_nothing_after_the_leavers_own_hand_over() -> None:

    def carried_out(actor: str, status: store.ActionStatus = "UNCLEAR", later: str = "nia") -> bool | None:
        ours = TaskEntry("1", Status.COMPLETED, ("leo",), actor_id=actor, outcome=wire.FORWARD, decided_at=NOW)
        tasks = ours, TaskEntry("3", Status.PENDING, (later,), created_at=NOW + 5000)
        state = TaskState("I", CORP_ID, APP_TYPE, updated_at=NOW, revision=3, tasks=tasks)
        return is_carried_out(UNCLEAR_ONE._replace(status=status), state)

    assert (carried_out("manager"), carried_out("leo")) == (True, None)
    # Yida said yes to it, so the leaver cannot have done it, under any name that is recorded.
    assert carried_out("leo", "ACCEPTED", later="kim") is True
    [records, accepted] = [record("1", "leo", wire.FORWARD)], UNCLEAR_ONE._replace(status="ACCEPTED")
    assert (read_reassigned(accepted, [], records), read_reassigned(UNCLEAR_ONE, [], records)) == ("DONE", "OVERTAKEN")


async def test_what_can_never_go_holds_up_nothing_and_is_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REASSIGNED_MOST", 3)
    async with acting(database) as world:
        begin(world, 0)
        world.assign(*((f"A-{each}", f"x{each}", "leo") for each in range(3)))
        world.assign(("B-0", "1000", "leo"), ("B-1", "1001", "leo"))
        world.happens(*(filed(each, NOW, instance_status="COMPLETED", finished_at=NOW) for each in ("B-0", "B-1")))
        world.assign(*((f"I-{each}", str(2000 + each), "leo") for each in range(2)))
        found = world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms())
        assert found.staying == {"not-numeric": 3, "ended": 2}
        assert [each.instance_id for each in reassign(world)] == ["I-0", "I-1"]
        assert reassign(world) == []


async def test_what_was_refused_comes_last(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "REASSIGNED_MOST", 3)
    async with acting(database) as world:
        begin(world, 5)
        world.dingtalk.faults.answers_next.extend([(400, "failure.task.noPermission")] * 3)
        presses: list[list[str]] = []
        for _ in range(2):
            presses.append([each.instance_id for each in reassign(world)])
            await world.work(pass_s=1)
        assert presses == [["I-0", "I-1", "I-2"], ["I-3", "I-4", "I-0"]]
        assert handed(world) == {"ACCEPTED": 3, "REFUSED": 2}, "the latest of each task"


async def test_what_is_refused_too_often_is_counted_and_not_sent(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        world.dingtalk.faults.answers_next.extend([(400, "failure.task.noPermission")] * 5)
        for _ in range(5):
            assert len(reassign(world)) == 1
            await world.work(pass_s=1)
        assert reassign(world) == []
        found = world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms())
        assert (found.staying, found.handed) == ({"too-often": 1}, {"REFUSED": 1})


async def test_what_a_changed_form_refused_is_counted_as_it_is_sent(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 1)
        for _ in range(5):
            world.act("agree", ("I-0", "2000"), by="leo", form="as it was")
            await world.work(pass_s=1)
        assert world.statuses == [("REFUSED", "changed")] * 5
        assert world.store.leaving(LEAVER, world.systems, now=world.clock.now_ms()).staying == {}
        assert len(reassign(world)) == 1


async def test_two_operators_hand_each_task_over_once(database: Database) -> None:
    async with acting(database) as world:
        begin(world, 60)
        for each in ("obo", "kim"):
            world.rows.know(CORP_ID, PersonRecord(each))
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(reassign, world, *each) for each in (("nia", "oda"), ("kim", "obo"))]
            found = [each.result() for each in both]
        assert sum(map(len, found)) == 60
        for _ in range(4):
            await world.work(pass_s=2)
        sent = Counter(each.process_instance_id for each in redirected(world))
        assert (len(sent), set(sent.values())) == (60, {1})


async def test_the_audit_trail_says_to_whom(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 2)
        reassign(world)
        assert reassign(world) == []
        with world.database.read() as connection:
            nia = pseudonym_of(connection, (CORP_ID, "nia"))
        assert [each for each in world.trail if each[1] == store.HANDED_TO] == [("oda", store.HANDED_TO, nia)]


async def test_the_operators_own_decisions_stay_shown(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        begin(world, 200)
        world.assign(("O-1", "9001", "oda"))
        world.act("agree", ("O-1", "9001"), by="oda")
        world.clock.pass_s(1)
        assert len(reassign(world)) == 200
        shown = world.store.shown((CORP_ID, "oda"), now=world.clock.now_ms())
        assert [each.action for each in shown] == ["agree"]
        assert len(world.store.shown(LEAVER, now=world.clock.now_ms())) == 200


def test_who_asks_is_recorded_also_if_nothing_is_handed_over(served: Served) -> None:
    browser = served.signed_in()
    answer = browser.post(PATH.format("ours", "bob"), json=BODY, headers=SAME_SITE).json()
    assert (answer["recorded"], answer["staying"]) == (0, {"not-possible": 1})
    with served.database.read() as connection:
        bob = pseudonym_of(connection, ("ours", "bob"))
        assert connection.execute(select(audit.c.action).where(audit.c.subject == bob)).all() == [("read",)]


def test_the_audit_trail_shows_auditors_which_tasks(sqlite_database: Database, tmp_path: Path) -> None:
    with signing_in(sqlite_database, tmp_path, operators="ours/ann", auditors="ours/ann") as (served, _):
        served.endpoints["ours", SOURCE_YIDA] = Endpoint("http://127.0.0.1:1/actions", b"key")
        served.rows.store(state("I-7", corp_id="ours", tasks=(TaskEntry("7", Status.PENDING, ("bob",)),)))
        browser = served.signed_in()
        assert browser.post(PATH.format("ours", "bob"), json=BODY, headers=SAME_SITE).json()["recorded"] == 1
        [found] = browser.get("/v1/audit?action=reassign").json()["items"]
        keys = "decision", "status", "instance_id", "task_id"
        assert [found[each] for each in keys] == ["reassign", "REQUESTED", "I-7", "7"]
        with served.database.write() as connection:
            connection.execute(delete(actions))
        [found] = browser.get("/v1/audit?action=reassign").json()["items"]
        assert [found[each] for each in keys] == ["reassign", None, "I-7", "7"], "also after a month"
