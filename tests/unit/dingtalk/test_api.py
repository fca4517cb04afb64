"""The API of one app, over HTTP against the fake: every instance is found, once or more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.reconcile import FORM, MINUTE_MS, NOW, assigned, fake_api, filed, happened
from taskbridge.dingtalk import api as api_module
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import Days
from taskbridge.dingtalk.calls import Absent, TooMuch, Unreachable
from taskbridge.dingtalk.times import DAY_MS, day_of, span_of
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from support.reconcile import FakeApi
    from taskbridge.schemas.events import TaskEvent

DAY_S = 86_400
WEEK = Days(day_of(NOW - 7 * DAY_MS), day_of(NOW))


async def listed(fake: FakeApi, days: Days = WEEK) -> list[str]:
    return [each.process_instance_id async for rows in fake.client.instances(FORM, days) for each in rows]


async def test_all_pages_of_a_query_are_read() -> None:
    async with fake_api(*(filed(f"I-{n:03}", NOW - n * MINUTE_MS) for n in range(250))) as fake:
        assert sorted(await listed(fake)) == [f"I-{n:03}" for n in range(250)]
        assert fake.dingtalk.calls[wire.GetInstances.path] == 3


async def test_rows_that_come_twice_hide_no_others() -> None:
    async with fake_api(*(filed(f"I-{n:03}", NOW - n * MINUTE_MS) for n in range(200))) as fake:
        fake.dingtalk.faults.repeats = True
        found = await listed(fake)
        assert (len(found), len({*found})) == (202, 200)


async def test_pages_that_lack_a_row_are_returned_before_the_error() -> None:
    async with fake_api(*(filed(f"I-{n:03}", NOW - n * MINUTE_MS) for n in range(150))) as fake:
        fake.dingtalk.faults.short_pages = True
        pages = fake.client.instances(FORM, WEEK)
        assert [len(await anext(pages)) for _ in range(2)] == [99, 49]
        with pytest.raises(Unreachable, match="DingTalk returned 148 of 150 instances"):
            await anext(pages)


async def test_rows_that_disappear_during_a_read_hide_no_others() -> None:
    """After a deletion later rows move up, onto the page that was read already."""
    async with fake_api(*(filed(f"I-{n:03}", NOW - (250 - n) * MINUTE_MS) for n in range(250))) as fake:
        found = list[str]()
        async for rows in fake.client.instances(FORM, WEEK):
            found += (each.process_instance_id for each in rows)
            for gone in {100: ("I-007",), 200: ("I-008", "I-009")}.get(len(found), ()):
                fake.company.happened(happened(Action.DELETED, NOW, instance_id=gone))
        assert sorted({*found}) == [f"I-{n:03}" for n in range(250)]
        assert fake.dingtalk.calls[wire.GetInstances.path] == 3 + 2 * 2, "two calls more each time"


async def test_rows_that_disappear_on_every_page_end_the_read() -> None:
    async with fake_api(*(filed(f"I-{n:03}", NOW - (250 - n) * MINUTE_MS) for n in range(250))) as fake:
        pages = fake.client.instances(FORM, WEEK)
        for _ in range(6):
            gone = (await anext(pages))[0].process_instance_id
            fake.company.happened(happened(Action.DELETED, NOW, instance_id=gone))
        with pytest.raises(Unreachable, match="rows disappeared while they were read"):
            await anext(pages)
        assert fake.dingtalk.calls[wire.GetInstances.path] == 12


async def test_more_rows_than_a_query_returns_are_read_by_fewer_days_and_then_by_creation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_module.wire, "QUERY_ROWS", 100)
    ended = {"instance_status": wire.COMPLETED, "approved_result": wire.AGREE}
    lives = [filed(f"I-{n:03}", NOW - n % 3 * DAY_MS) for n in range(290)]
    lives += [filed(f"I-{n:03}", NOW - DAY_MS + MINUTE_MS, event_id=f"end {n}", **ended) for n in range(1, 180, 3)]
    lives += [filed(f"J-{n:03}", NOW - DAY_MS) for n in range(60)]
    async with fake_api(*lives) as fake:
        assert len({*await listed(fake)}) == 350


async def test_an_instance_its_tasks_and_its_records_are_read() -> None:
    lives = [
        filed(),
        assigned("T-1", "u-li", "u-wang", at=NOW - 50 * MINUTE_MS),
        happened(Action.COMPLETED, NOW - 40 * MINUTE_MS, task_id="T-1", actor_id="u-li", remark="fine"),
        assigned("T-2", "u-chen", at=NOW - 39 * MINUTE_MS),
    ]
    async with fake_api(*lives) as fake:
        found = await fake.client.instance("I-1")
        assert (found.title, found.instance_status, found.approved_result) == ("Request I-1", wire.RUNNING, None)
        assert span_of(found.modified_time) == (NOW - 40 * MINUTE_MS + 40_000, NOW - 39 * MINUTE_MS + 40_000)
        [running] = await fake.client.running_tasks("I-1")
        assert (running.task_id, running.actual_actioner_id) == ("T-2", "u-chen")
        records = [
            (each.task_id, each.action_exit, each.operator_user_id, each.remark)
            for each in await fake.client.operation_records("I-1")
        ]
        assert records == [
            ("null", "submit", "u-zhang", ""),
            ("T-1", "agree", "u-li", "fine"),
            ("T-2", "doing", "u-chen", None),
        ]


async def test_a_missing_instance_is_absent() -> None:
    lives = [filed("I-1"), filed("I-2"), happened(Action.DELETED, NOW - MINUTE_MS, instance_id="I-2")]
    async with fake_api(*lives) as fake:
        with pytest.raises(Absent):
            await fake.client.instance("I-2")
        assert [*await fake.client.instances_by_id(["I-1", "I-2", "I-3"])] == ["I-1"]


async def test_many_ids_are_read_in_batches() -> None:
    async with fake_api(*(filed(f"I-{n:03}", NOW) for n in range(120))) as fake:
        found = await fake.client.instances_by_id([f"I-{n:03}" for n in range(120)] * 2)
        assert len(found) == 120
        assert fake.dingtalk.calls[wire.GetInstancesByIdList.path] == 3


async def test_a_recent_change_is_not_in_a_query_by_time_yet() -> None:
    async with fake_api(filed(at=NOW - MINUTE_MS)) as fake:
        fake.dingtalk.faults.lag_ms = 2 * MINUTE_MS
        assert await listed(fake) == []
        assert (await fake.client.instance("I-1")).process_instance_id == "I-1"
        fake.clock.pass_s(60)
        assert await listed(fake) == ["I-1"]


async def test_a_query_that_dingtalk_ends_after_5000_rows_is_read_by_fewer_days(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_module.wire, "SEARCH_ROWS", 100)
    lives = [filed(f"I-{n:03}", NOW - n % 4 * DAY_MS) for n in range(160)]
    async with fake_api(*lives) as fake:
        fake.dingtalk.search_rows = 100
        assert len({*await listed(fake)}) == 160
        calls = fake.dingtalk.calls[wire.GetInstances.path]
        assert len({*await listed(fake)}) == 160
        again = fake.dingtalk.calls[wire.GetInstances.path] - calls
        assert again == calls - 1, "the limit is known, so no page is refused"


@pytest.mark.parametrize("is_process", [True, False])
async def test_of_more_rows_of_one_day_the_oldest_and_the_newest_come_before_the_error(
    monkeypatch: pytest.MonkeyPatch, *, is_process: bool
) -> None:
    monkeypatch.setattr(api_module.wire, "SEARCH_ROWS", 100)
    younger = [filed(f"J-{n:03}", NOW + DAY_MS) for n in range(60)]
    older = [filed(f"I-{n:03}", NOW + n) for n in range(150)]
    edited = [filed(f"I-{n:03}", NOW + DAY_MS, event_id=f"edit {n}", created_at=NOW + n) for n in range(150)]
    async with fake_api(*younger, *older, *edited) as fake:
        fake.clock.pass_s(DAY_S)
        fake.dingtalk.search_rows = 100
        fake.dingtalk.ordinary_forms |= set() if is_process else {FORM}
        came = set[str]()

        async def read() -> None:
            async for rows in fake.client.instances(FORM, Days("2026-09-22", "2026-09-22"), is_process=is_process):
                came.update(each.process_instance_id for each in rows)

        await read()
        assert len(came) == 60 + 150
        for n in range(150, 300):
            fake.company.happened(filed(f"I-{n:03}", NOW + DAY_MS, created_at=NOW + n))
        came.clear()
        with pytest.raises(TooMuch, match="200 of 300 instances"):
            await read()
        assert len(came) == 60 + 200


def lives_of(count: int) -> list[TaskEvent]:
    return [
        event
        for n in range(count)
        for event in (filed(f"I-{n:03}"), assigned(f"T-{n}", "u-li", "u-wang", at=NOW, instance_id=f"I-{n:03}"))
    ]


@pytest.mark.parametrize(("ids_per_call", "calls"), [(50, 3), (25, 3 + 3 + 1), (10, 15 + 15 + 3)])
async def test_open_tasks_of_several_instances_are_read_by_as_few_calls_as_dingtalk_accepts(
    ids_per_call: int, calls: int
) -> None:
    ids = [f"I-{n:03}" for n in range(115)]
    async with fake_api(*lives_of(115)) as fake:
        fake.dingtalk.ids_per_call = ids_per_call
        found = await fake.client.running_tasks_of(ids)
        assert [*found] == ids
        for each in ids[::50]:
            assert {(task.task_id, task.actual_actioner_id, task.active_time) for task in found[each]} == {
                (task.task_id, task.actual_actioner_id, task.active_time)
                for task in await fake.client.running_tasks(each)
            }
        assert fake.dingtalk.calls[wire.GetRunningTaskList.path] == calls


async def test_ids_that_are_all_refused_cost_few_calls_and_hide_none_that_exist_in_other_lists() -> None:
    async with fake_api(*lives_of(60)) as fake:
        gone = [f"gone-{n}" for n in range(150)]
        assert await fake.client.instances_by_id(gone) == {}
        assert fake.dingtalk.calls[wire.GetInstancesByIdList.path] < 40
        found = await fake.client.instances_by_id([*(f"I-{n:03}" for n in range(50)), *gone, "I-050"])
        assert [*found] == [*(f"I-{n:03}" for n in range(50)), "I-050"]


async def test_a_missing_instance_and_an_unclear_answer_hide_no_open_task_for_good() -> None:
    gone = happened(Action.DELETED, NOW, instance_id="I-003")
    async with fake_api(*lives_of(8), gone) as fake:
        found = await fake.client.running_tasks_of([f"I-{n:03}" for n in range(8)])
        assert sorted(found) == [f"I-{n:03}" for n in range(8) if n != 3]
        fake.dingtalk.faults.answers_next.append((200, "no list"))
        assert await fake.client.running_tasks_of(["I-001"]) == {}
        fake.dingtalk.faults.answers_next.append((403, "Forbidden.AccessDenied.AccessTokenPermissionDenied"))
        assert await fake.client.running_tasks_of(["I-001"]) == {}
        fake.dingtalk.faults.is_down = True
        with pytest.raises(Unreachable):
            await fake.client.running_tasks_of(["I-001"])
