"""Changes of approvals without an event are found and stored: after a time without a connection, and in time."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from support.approvals import (
    BEGAN,
    ENDED,
    INSTANCE_ID,
    PROCESS,
    Approvals,
    approvals,
    instance_event,
    task_event,
    until,
)
from support.fake_gateway import Listed
from support.lists import lists_of
from taskbridge.dingtalk import workflow
from taskbridge.dingtalk.approvals.mapping import Event, change_of, events_of
from taskbridge.dingtalk.approvals.missed import Missed
from taskbridge.dingtalk.calls import Refused, Unexpected, Unreachable
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.dingtalk.workflow import Approval, ApprovalTask
from taskbridge.runtime import standard_webhooks
from taskbridge.schemas.cloudevents import rfc3339
from taskbridge.schemas.events import View
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold

if TYPE_CHECKING:
    from pathlib import Path

DAY_S, MINUTE_MS = 24 * 3600, 60_000


@pytest.fixture(autouse=True)
def edge_of_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of these tests is ahead of the edge's, which would refuse the signatures."""

    def is_timely(_timestamp: str, *, received_at: int) -> bool:
        return received_at > 0

    monkeypatch.setattr(standard_webhooks, "is_timely", is_timely)


def task(task_id: int, user_id: str, status: str = "RUNNING", result: str = "NONE") -> ApprovalTask:
    ended = ENDED if status == "COMPLETED" else None
    return ApprovalTask(task_id, status, user_id, create_time=BEGAN, finish_time=ended, result=result)


def listed(
    found: Approvals, *tasks: ApprovalTask, status: str = "RUNNING", result: str | None = None, age_s: float = 0
) -> Listed:
    """The approval of the tests, in this state at DingTalk."""
    read = Approval(
        [*tasks],
        title="考勤-测试",
        business_id="20260038",
        originator_user_id="manager75",
        create_time=BEGAN,
        finish_time=None if status == "RUNNING" else ENDED,
        status=status,
        result=result,
    )
    return Listed(PROCESS, found.clock.now_ms() - int(age_s * 1000), read)


def missed(found: Approvals) -> dict[str, float]:
    return {
        each.labels["type"]: each.value
        for family in found.service.registry.collect()
        for each in family.samples
        if each.name == "taskbridge_approvals_missed_total"
    }


async def lost(found: Approvals, *changes: tuple[str, dict[str, Any]]) -> None:
    """Ten minutes without a connection, in which this happens."""
    found.gateway.is_away = True
    found.gateway.cut()
    for each in changes:
        await found.gateway.push(*each)
    found.clock.ahead_s += 600


async def connects(found: Approvals) -> None:
    opened = found.gateway.opened
    found.gateway.is_away = False
    await until(lambda: found.gateway.is_connected and found.gateway.opened > opened)
    await until(lambda: found.service.stream.problem is None)


async def test_nothing_of_ten_silent_minutes_is_lost(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        await found.service.missed.step()
        for each in (instance_event("start"), task_event("start", taskId=1, staffId="a")):
            await found.gateway.push(*each)
        await until(lambda: not found.gateway.unacknowledged)
        await lost(
            found,
            task_event("finish", taskId=1, staffId="a", result="agree"),
            task_event("start", taskId=2, staffId="b"),
            task_event("finish", taskId=2, staffId="b", result="redirect"),
            task_event("start", taskId=3, staffId="c"),
            instance_event("start", processInstanceId="another"),
            task_event("start", processInstanceId="another", taskId=9, staffId="d"),
        )
        found.gateway.listed[INSTANCE_ID] = listed(
            found, task(1, "a", "COMPLETED", "AGREE"), task(2, "b", "COMPLETED", "REDIRECTED"), task(3, "c")
        )
        found.gateway.listed["another"] = listed(found, task(9, "d"), age_s=300)
        await connects(found)
        assert found.service.missed.unread == 1
        await found.service.missed.step()
        by_instance = {
            name: [each for each in found.publisher.published if each.instance_id.endswith(name)]
            for name in (INSTANCE_ID, "another")
        }
        assert lists_of(by_instance[INSTANCE_ID]) == {
            ("manager75", View.CREATED, None),
            *(("a", View.HANDLED, "1"), ("b", View.HANDLED, "2"), ("c", View.PENDING, "3")),
        }
        assert lists_of(by_instance["another"]) == {("manager75", View.CREATED, None), ("d", View.PENDING, "9")}
        # Only what no event brought: all six of them.
        assert missed(found) == {"bpms_task_change": 5.0, "bpms_instance_change": 1.0}
        assert {each.outcome for each in by_instance[INSTANCE_ID] if each.task_id == "2"} == {None, "redirect"}
        assert found.service.readiness()["missed"] == "none"
        # Nothing is missing any more, and nothing is read for it.
        calls = len(found.gateway.calls)
        await found.service.missed.step()
        assert len(found.gateway.calls) == calls
        assert sum(missed(found).values()) == 6


async def test_what_a_connection_loses_without_a_word_is_found_by_the_hour_and_the_day(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed[INSTANCE_ID] = listed(found)
        await found.service.missed.step()
        found.gateway.listed[INSTANCE_ID] = listed(found, task(1, "a"))
        found.gateway.listed["another"] = listed(found, task(9, "d"))
        found.clock.ahead_s += 3600
        await found.service.missed.step()
        assert {each.task_id for each in found.publisher.published if each.task_id} == {"9"}
        found.clock.ahead_s += DAY_S
        await found.service.missed.step()
        assert {each.task_id for each in found.publisher.published if each.task_id} == {"9", "1"}


async def test_a_start_finds_the_approvals_of_a_week_and_older_ones_that_are_open(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        ended = [task(1, "a", "COMPLETED", "AGREE")]
        given = {
            "week": listed(found, *ended, status="COMPLETED", result="agree", age_s=6 * DAY_S),
            "open": listed(found, task(2, "b"), age_s=60 * DAY_S),
            "old": listed(found, *ended, status="COMPLETED", result="agree", age_s=8 * DAY_S),
        }
        others = {f"other-{each}": given["week"]._replace(process_code=f"P-{each}") for each in range(4)}
        many = {f"many-{each}": given["week"] for each in range(45)}
        found.gateway.listed = {**given, **others, **many}
        await found.service.missed.step()
        read = {each.instance_id.partition(":")[2] for each in found.publisher.published}
        assert read == {"week", "open", *others, *many}
        assert found.service.missed.unread == 0


@pytest.mark.parametrize(
    ("status", "result", "ending"), [("TERMINATED", None, "TERMINATED"), ("COMPLETED", "REFUSE", "COMPLETED")]
)
async def test_an_end_that_was_missed_cancels_what_it_leaves_open(
    tmp_path: Path, status: str, result: str | None, ending: str
) -> None:
    async with approvals(tmp_path) as found:
        tasks = task(1, "a", "COMPLETED", "REFUSE"), task(2, "b", "CANCELED"), task(3, "c", "RUNNING")
        found.gateway.listed[INSTANCE_ID] = listed(found, *tasks, status=status, result=result)
        await found.service.missed.step()
        assert lists_of(found.publisher.published) == {("manager75", View.CREATED, None), ("a", View.HANDLED, "1")}
        assert found.publisher.published[-1].instance_status == ending
        assert not found.publisher.quarantined


async def test_another_start_posts_the_same_events_and_not_others(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed[INSTANCE_ID] = listed(found, task(1, "a", "COMPLETED", "AGREE"), task(3, "c"))
        await found.service.missed.step()
        first = {each.event_id for each in found.publisher.published}
        before = found.service.missed
        another = Missed(before._calls, before._budget, found.clock, post=before._post)
        await another.step()
        assert len(found.publisher.published) == 2 * len(first)
        assert {each.event_id for each in found.publisher.published} == first


async def test_an_edge_that_is_away_gets_it_later_and_once(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed[INSTANCE_ID] = listed(found, task(1, "a"))
        found.line.is_down = True
        assert await found.service.missed.step() == 0
        assert found.service.missed.unread == 1
        assert "edge" in found.service.readiness()["missed"]
        found.line.is_down = False
        await found.service.missed.step()
        assert [each.task_id for each in found.publisher.published] == [None, "1"]


async def test_a_connection_lost_while_an_approval_is_read_has_it_read_again(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed[INSTANCE_ID] = listed(found, task(1, "a"))
        post = found.service.missed._post

        async def reconnecting(event: Event) -> bool:
            found.service.missed.connected()
            return await post(event)

        found.service.missed._post = reconnecting
        await found.service.missed.step()
        assert found.service.missed.unread == 1


async def test_the_calls_of_a_day_are_bounded_and_the_rest_is_read_on_the_next(tmp_path: Path) -> None:
    async with approvals(tmp_path, calls_per_day=10) as found:
        found.gateway.listed = {f"i-{each}": listed(found, task(each, "a")) for each in range(12)}
        wait_s = await found.service.missed.step()
        assert len(found.gateway.calls) == 10
        assert (wait_s, found.service.missed.unread) == (3600, 5)
        assert "APPROVALS_CALLS_PER_DAY" in found.service.readiness()["missed"]
        assert found.service.readiness()["ready"] is True
        found.clock.ahead_s += DAY_S
        await found.service.missed.step()
        assert {each.task_id for each in found.publisher.published if each.task_id} == {*map(str, range(12))}


@pytest.mark.parametrize("path", [workflow.ListProcesses.path, workflow.ListProcessInstanceIds.path])
async def test_without_the_permission_events_come_all_the_same_and_the_reason_is_shown(
    tmp_path: Path, path: str
) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed[INSTANCE_ID] = listed(found, task(1, "a"))
        found.gateway.refuses.add(path)
        assert await found.service.missed.step() == 3600
        assert "Workflow.Instance.Read" in found.service.readiness()["missed"]
        await found.gateway.push(*task_event("start"))
        await until(lambda: not found.gateway.unacknowledged)
        assert found.service.readiness()["ready"] is True


async def test_one_approval_that_cannot_be_read_holds_up_no_other_and_stays_unread(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        await found.gateway.push(*task_event("start", processInstanceId="gone"))
        await until(lambda: not found.gateway.unacknowledged)
        found.gateway.listed[INSTANCE_ID] = listed(found, task(1, "a"))
        await found.service.missed.step()
        assert [each.task_id for each in found.publisher.published] == ["811165", None, "1"]
        assert found.service.missed.unread == 1
        assert "Workflow.Instance.Read" in found.service.readiness()["missed"]
        reads = found.gateway.calls.count(workflow.GetProcessInstance.path)
        await found.service.missed.step()
        assert found.gateway.calls.count(workflow.GetProcessInstance.path) == reads
        found.gateway.listed["gone"] = listed(found, task(811165, "0805"))
        found.clock.ahead_s += DAY_S
        await found.service.missed.step()
        assert (found.service.missed.unread, found.service.readiness()["missed"]) == (0, "none")


async def test_without_the_permission_to_read_nothing_counts_as_read_and_one_line_says_so(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed = {f"i-{each}": listed(found, task(each, "a")) for each in range(3)}
        found.gateway.refuses.add(workflow.GetProcessInstance.path)
        with capture_logs() as logs:
            await found.service.missed.step()
        assert [(each["event"], each["unread"]) for each in logs if each["log_level"] == "warning"] == [
            ("missed_approvals_not_read", 3)
        ]
        assert "Workflow.Instance.Read" in found.service.readiness()["missed"]


@pytest.mark.parametrize("is_process", [True, False])
@pytest.mark.parametrize("fault", [Refused("no"), Unexpected("no"), Unreachable("fault", retry_at_ms=0)])
async def test_what_fails_for_ever_holds_up_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_process: bool, fault: Exception
) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed = {f"i-{n}": listed(found, task(n, "a"))._replace(process_code=f"P-{n}") for n in range(3)}
        calls = found.service.missed._calls
        get, post = calls.get, calls.post

        async def some(request: Any, answer: Any, **more: Any) -> Any:
            if getattr(request, "process_instance_id", "") == "i-0" or (is_process and _code_of(request) == "P-0"):
                raise fault
            return await (post if _code_of(request) else get)(request, answer, **more)

        monkeypatch.setattr(calls, "get", some)
        monkeypatch.setattr(calls, "post", some)
        for _ in range(3):
            await found.service.missed.step()
        assert {each.task_id for each in found.publisher.published if each.task_id} == {"1", "2"}
        assert found.service.readiness()["missed"] == str(fault)
        found.gateway.listed["i-1"] = listed(found, task(1, "a"), task(11, "a"))
        found.gateway.listed["another"] = listed(found, task(12, "a"), age_s=-DAY_S)._replace(process_code="P-2")
        for _ in range(3):
            found.clock.ahead_s += DAY_S
            await found.service.missed.step()
            found.clock.ahead_s += 600
            await found.service.missed.step()
        assert {each.task_id for each in found.publisher.published if each.task_id} == {"1", "2", "11", "12"}


def _code_of(request: Any) -> str:
    return getattr(request, "process_code", "")


async def test_an_approval_that_ended_before_it_was_read_is_read(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        await found.service.missed.step()
        for each in (instance_event("start"), task_event("start", taskId=1, staffId="a")):
            await found.gateway.push(*each)
        await until(lambda: not found.gateway.unacknowledged)
        await lost(found, task_event("finish", taskId=1, staffId="a", result="agree"))
        await connects(found)
        await found.gateway.push(*instance_event("finish", result="agree"))
        await until(lambda: not found.gateway.unacknowledged)
        assert found.service.missed.unread == 1
        tasks = [task(1, "a", "COMPLETED", "AGREE")]
        found.gateway.listed[INSTANCE_ID] = listed(found, *tasks, status="COMPLETED", result="agree")
        await found.service.missed.step()
        assert missed(found) == {"bpms_task_change": 1.0}
        assert lists_of(found.publisher.published) == {("manager75", View.CREATED, None), ("a", View.HANDLED, "1")}
        assert found.service.missed.unread == 0


async def test_approvals_that_ended_or_are_gone_are_forgotten(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.gateway.listed = {each: listed(found, task(1, "a")) for each in ("absent", "deleted")}
        await found.service.missed.step()
        await found.gateway.push(*instance_event("finish", result="agree"))
        await found.gateway.push(*instance_event("delete", processInstanceId="deleted"))
        await until(lambda: not found.gateway.unacknowledged)
        found.gateway.listed.clear()
        found.gateway.absent.add("absent")
        found.gateway.listed[INSTANCE_ID] = listed(found, status="COMPLETED", result="agree", age_s=8 * DAY_S)
        for _ in range(5):
            found.clock.ahead_s += DAY_S
            found.service.missed.connected()
            await found.service.missed.step()
        assert not found.service.missed._known
        reads = found.gateway.calls.count(workflow.GetProcessInstance.path)
        found.clock.ahead_s += DAY_S
        await found.service.missed.step()
        assert found.gateway.calls.count(workflow.GetProcessInstance.path) == reads


async def test_an_approval_that_is_refused_is_given_up_after_a_hundred_days(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        await found.gateway.push(*task_event("start", processInstanceId="gone"))
        await until(lambda: not found.gateway.unacknowledged)
        for _ in range(102):
            await found.service.missed.step()
            found.clock.ahead_s += DAY_S
        assert not found.service.missed._known
        assert found.service.readiness()["missed"] == "none"


async def test_few_calls_are_enough_to_read_each_approval_in_the_end(tmp_path: Path) -> None:
    async with approvals(tmp_path, calls_per_day=80) as found:
        found.gateway.listed = {
            f"i-{n}": listed(found, task(n, "a"))._replace(process_code=f"P-{n:02}") for n in range(60)
        }
        many = {f"many-{n}": listed(found, task(n + 60, "a"))._replace(process_code="P-30") for n in range(400)}
        found.gateway.listed |= many
        for _ in range(12):
            await found.service.missed.step()
            found.clock.ahead_s += DAY_S
        assert {each.task_id for each in found.publisher.published if each.task_id} == {*map(str, range(460))}
        assert found.service.missed.unread == 0


async def test_an_idle_day_leaves_half_of_the_calls_for_a_connection_that_is_lost(tmp_path: Path) -> None:
    async with approvals(tmp_path, calls_per_day=96) as found:
        given = {f"i-{n}": listed(found, task(n, "a"))._replace(process_code=f"P-{n}") for n in range(5)}
        found.gateway.listed = given
        await found.service.missed.step()
        calls = len(found.gateway.calls)
        for _ in range(72):
            found.clock.ahead_s += 3600
            await found.service.missed.step()
            assert found.service.readiness()["missed"] == "none"
        used = found.gateway.calls[calls:]
        assert len(used) <= 3 * 48 + 9
        # All that is due has its turn.
        assert used.count(workflow.GetProcessInstance.path) >= 10
        assert used.count(workflow.ListProcessInstanceIds.path) >= 72


async def test_calls_that_are_too_few_for_a_look_at_everything_are_named(tmp_path: Path) -> None:
    async with approvals(tmp_path, calls_per_day=48) as found:
        found.gateway.listed = {f"i-{n}": listed(found, task(n, "a")) for n in range(80)}
        for _ in range(24 * 6):
            await found.service.missed.step()
            found.clock.ahead_s += 3600
        assert "APPROVALS_CALLS_PER_DAY is too low" in found.service.readiness()["missed"]
        assert found.service.missed.unread == 0


async def test_what_was_known_by_events_keeps_its_exact_times_after_a_restart(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        began, ended = BEGAN // MINUTE_MS * MINUTE_MS + 34_567, BEGAN // MINUTE_MS * MINUTE_MS + 45_678
        for each in (
            instance_event("start", createTime=began),
            task_event("start", taskId=1, staffId="a", createTime=began),
            task_event("finish", taskId=1, staffId="a", result="agree", createTime=began, finishTime=ended + DAY_MS),
            task_event("start", taskId=2, staffId="b", createTime=ended + DAY_MS),
        ):
            await found.gateway.push(*each)
        await until(lambda: not found.gateway.unacknowledged)
        before = _entries(found)
        created, later = "2022-12-14T02:11Z", "2022-12-15T02:11Z"
        tasks = [
            ApprovalTask(1, "COMPLETED", "a", create_time=created, finish_time=later, result="AGREE"),
            ApprovalTask(2, "RUNNING", "b", create_time=later),
        ]
        read = Approval(tasks, "考勤-测试", "20260038", "manager75", create_time=created, status="RUNNING")
        found.gateway.listed[INSTANCE_ID] = Listed(PROCESS, found.clock.now_ms(), read)
        missed = found.service.missed
        await Missed(missed._calls, missed._budget, found.clock, post=missed._post).step()
        assert len(found.publisher.published) == 8
        assert _entries(found) == before


def _entries(found: Approvals) -> object:
    state = None
    for each in found.publisher.published:
        state = fold(state, each)
    assert state is not None
    return views(state.state)


async def test_a_beginning_is_read_after_its_minute(tmp_path: Path) -> None:
    """It would be newer than an end within this minute, and the approval would never end."""
    async with approvals(tmp_path) as found:
        this_minute = rfc3339(found.clock.now_ms() + MINUTE_MS)[:16] + "Z"
        read = Approval([task(1, "a")], originator_user_id="m", create_time=this_minute, status="RUNNING")
        found.gateway.listed[INSTANCE_ID] = Listed(PROCESS, found.clock.now_ms(), read)
        await found.service.missed.step()
        assert [each.task_id for each in found.publisher.published] == ["1"]
        assert found.service.missed.unread == 1
        found.clock.ahead_s += 3600
        await found.service.missed.step()
        assert [each.task_id for each in found.publisher.published] == ["1", None]
        assert found.service.missed.unread == 0


async def test_each_connection_begins_a_pass(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        running = asyncio.create_task(found.service.missed.run())
        await until(lambda: found.service.missed.problem is None)
        # A service that starts again and again makes no call.
        assert found.clock.slept[0] == 300.0
        passes = len(found.gateway.calls)
        await lost(found)
        await connects(found)
        await until(lambda: len(found.gateway.calls) > passes)
        assert 300.0 in found.clock.slept
        running.cancel()


def test_what_is_read_has_the_changes_of_its_events() -> None:
    read = Approval([task(1, "a", "COMPLETED", "AGREE")], create_time="2026-04-27T08:26Z", status="COMPLETED")
    found = [*events_of("i", PROCESS, read)]
    assert [change_of(each) for each in found] == [("1", "start"), ("1", "finish"), ("", "finish")]
    assert found[-1].data["createTime"] == 1_777_278_360_000 + MINUTE_MS - 1
    assert len({each.event_id for each in found}) == 3
    assert "finishTime" not in found[-1].data
