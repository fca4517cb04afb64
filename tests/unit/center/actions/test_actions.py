"""What people decide is sent once, confirmed by its callback or read back, and nothing is lost without a word."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from starlette.responses import Response

from support.acting import ERP, World, acting, work_or_die
from support.dingtalk import FakeClock
from support.nightly import one_of_each
from support.reconcile import APP_TYPE, CORP_ID, NOW, assigned, filed, happened
from taskbridge.center.actions.seen_form import digest_of
from taskbridge.center.tables import FOLLOWED
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.apps import Apps
from taskbridge.runtime.follow.positions import rebuild
from taskbridge.schemas.events import SOURCE_YIDA, Action, Person, PersonRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from taskbridge.runtime.database import Database

GATEWAY = 504, "GatewayTimeout"
QPS = 403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"


@asynccontextmanager
async def with_a_task(database: Database) -> AsyncGenerator[World]:
    async with acting(database) as world:
        world.assign(("I-1", "11", "ann"))
        yield world


def executed_requests(world: World) -> list[wire.ExecuteTask]:
    return [each for each in world.dingtalk.changes if isinstance(each, wire.ExecuteTask)]


def executed(world: World) -> list[tuple[Any, ...]]:
    return [(each.user_id, each.task_id, each.out_result, each.remark) for each in executed_requests(world)]


async def test_an_app_that_is_removed_while_a_decision_is_claimed_ends_it_as_not_sent(database: Database) -> None:
    async with with_a_task(database) as world:
        world.act("agree", ("I-1", "11"))
        advance = world.store.advance

        def advance_and_remove(*given: Any, **changes: Any) -> Any:
            world.apps = Apps((), ())
            return advance(*given, **changes)

        world.store.advance = advance_and_remove  # what a reload does in between
        await world.work()
        assert (world.statuses, executed(world)) == ([("FAILED", "unsent")], [])


async def test_a_decision_is_sent_once_in_the_persons_name_and_its_callback_confirms_it(database: Database) -> None:
    async with with_a_task(database) as world:
        [first] = world.act("agree", ("I-1", "11"), remark="好的")
        assert (first.status, world.act("refuse", ("I-1", "11"))) == ("REQUESTED", [first]), "one is under way"
        await world.work()
        assert world.statuses == [("ACCEPTED", "")]
        assert (await world.work(pass_s=5), world.statuses) == (None, [("ACCEPTED", "")])
        world.deliver()
        await world.work()
        assert executed(world) == [("ann", 11, "AGREE", "好的")]
        assert (world.statuses, world.ended) == ([("DONE", "")], ["DONE"])
        its_id = first.action_id
        assert world.trail == [
            ("ann", "agree", f"I-1 11 {its_id}"),
            ("ann", "action_sent", f"{its_id} SENDING"),
            ("ann", "action_ended", f"{its_id} DONE"),
        ]


async def test_what_may_not_be_done_is_refused_with_a_reason_and_nothing_is_sent(database: Database) -> None:
    async with with_a_task(database) as world:
        world.assign(("I-2", "not-a-number", "ann"), ("I-3", "31", "bob"))
        world.happens(filed("I-4", originator=Person("ann", "Ann")))
        world.arrive(assigned("51", "ann", at=NOW, instance_id="other:I-5", source="other", app_type="other"))
        world.assign(("I-6", "61", "ann"))
        world.happens(filed("I-6", NOW, originator=Person("ann"), instance_status="COMPLETED", finished_at=NOW))
        world.rows.know("ding1", PersonRecord("bob", "Bob"))
        refused = [
            ("agree", ("I-6", "61"), "", "ended"),
            ("withdraw", ("I-6", ""), "", "ended"),
            ("agree", ("I-3", "31"), "", "not-pending"),
            ("agree", ("I-1", "12"), "", "not-pending"),
            ("agree", ("nothing", "11"), "", "not-pending"),
            ("agree", ("I-4", ""), "", "not-pending"),
            ("withdraw", ("I-1", ""), "", "not-pending"),
            ("withdraw", ("I-4", ""), "", "not-pending"),
            ("agree", ("I-2", "not-a-number"), "", "not-numeric"),
            ("agree", ("other:I-5", "51"), "", "not-possible"),
            ("hand_over", ("I-1", "11"), "nobody", "no-recipient"),
            ("hand_over", ("I-1", "11"), "ann", "no-recipient"),
        ]
        for action, task, to, reason in refused:
            [found] = world.act(action, task, to=to)
            assert (found.status, found.detail, found.action_id) == ("REFUSED", reason, ""), (action, task)
        await world.work()
        assert (world.stored, world.trail, world.dingtalk.changes) == ([], [], [])


async def test_a_decision_on_a_request_that_changed_after_it_was_seen_is_refused(database: Database) -> None:
    async with with_a_task(database) as world:
        seen = world.revision_of("I-1")
        world.happens(replace(assigned("11", "ann", at=NOW), title="20,000 instead of 200"))
        [changed] = world.act("agree", ("I-1", "11"), seen=seen)
        assert (changed.status, changed.detail, world.stored) == ("REFUSED", "changed", [])
        [seen_again] = world.act("agree", ("I-1", "11"), seen=world.revision_of("I-1"))
        assert seen_again.status == "REQUESTED"


async def shown_form(world: World, instance_id: str) -> str:
    """The digest of what a page would show now."""
    reader = world.systems.form_reader(CORP_ID, SOURCE_YIDA, APP_TYPE)
    assert reader is not None
    read = await reader.read(instance_id)
    assert read is not None
    return digest_of(read.values)


@pytest.mark.parametrize("action", ["agree", "refuse", "hand_over", "return"])
async def test_a_decision_on_a_form_that_changed_after_it_was_seen_is_refused_and_may_be_made_again(
    database: Database, action: str
) -> None:
    async with acting(database) as world:
        world.happens(replace(assigned("11", "ann", at=NOW - 1000, instance_id="I-1"), form_data={"amount": "200"}))
        world.happens(filed("I-1", NOW - 2000, originator=Person("u-zhang")))
        world.rows.know(CORP_ID, PersonRecord("bob", "Bob"))
        to = "bob" if action == "hand_over" else ""
        seen = await shown_form(world, "I-1")
        # No callback says that somebody changed it: the revision is the same.
        world.dingtalk.change_form("I-1", "u-zhang", amount="20000")
        world.act(action, ("I-1", "11"), to=to, form=seen, seen=world.revision_of("I-1"))
        await world.work()
        assert (world.statuses, world.dingtalk.changes) == ([("REFUSED", "changed")], [])
        world.act(action, ("I-1", "11"), to=to, form=await shown_form(world, "I-1"))
        await world.work()
        assert world.statuses == [("REFUSED", "changed"), ("ACCEPTED", "")]
        assert len(world.dingtalk.changes) == 1
        assert [what for _, what, _ in world.trail] == [action, "action_sent", "action_ended", action, "action_sent"]


async def test_while_the_form_cannot_be_compared_nothing_is_sent(database: Database) -> None:
    async with with_a_task(database) as world:
        seen = await shown_form(world, "I-1")
        world.act("agree", ("I-1", "11"), form=seen)
        world.dingtalk.faults.broken = {"I-1"}
        await world.work()
        assert (world.statuses, world.dingtalk.changes) == ([("REQUESTED", "unsent")], [])
        world.dingtalk.faults.broken = set()
        await world.work(pass_s=10)
        assert (world.statuses, executed(world)) == ([("ACCEPTED", "")], [("ann", 11, "AGREE", "ok")])


async def test_one_withdraws_ones_own_request_also_if_its_form_changed(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.act("withdraw", ("I-1", ""), by="u-zhang", form="another")
        await world.work()
        assert world.statuses == [("ACCEPTED", "")]


async def test_several_at_once_end_each_in_its_own_manner(database: Database) -> None:
    async with with_a_task(database) as world:
        world.assign(("I-2", "21", "ann"), ("I-3", "31", "ann"))
        world.act("refuse", ("I-1", "11"), ("I-2", "21"), ("I-3", "31"), remark="")
        # Somebody else decided a second ago, and the callback has not come yet.
        world.dingtalk.company.happened(happened(Action.CANCELLED, NOW, instance_id="I-2", task_id="21", actor_id="x"))
        world.dingtalk.company.happened(happened(Action.DELETED, NOW, instance_id="I-3"))
        await world.work()
        assert world.statuses == [
            ("ACCEPTED", ""),
            ("REFUSED", "任务不存在或已被处理 (failure.task.notExistOrFinished)"),
            ("REFUSED", ""),
        ]
        assert executed(world) == [("ann", 11, "DISAGREE", "拒绝")], "a remark is required there"


async def test_a_request_is_returned_to_its_originator(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.act("return", ("I-1", "11"), remark="金额有误")
        await world.work()
        [returned] = world.dingtalk.changes
        assert isinstance(returned, wire.RestartInstance)
        assert (returned.user_id, returned.task_id, returned.remark) == ("ann", "11", "金额有误")
        world.deliver()
        await world.work()
        assert world.statuses == [("DONE", "")]
        [again] = world.act("agree", ("I-1", "111"), by="u-zhang")
        assert again.status == "REQUESTED", "the originator has it now"


async def test_a_request_is_returned_to_an_earlier_step(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.happens(
            assigned("10", "bob", at=NOW - 3000),
            happened(Action.COMPLETED, NOW - 2000, task_id="10", actor_id="bob"),
        )
        world.act("return", ("I-1", "11"), to="node-99")
        await world.work()
        assert world.statuses == [("REFUSED", "节点不存在 (failure.process.restartError)")]
        world.act("return", ("I-1", "11"), to="node-10")
        await world.work()
        [returned] = world.dingtalk.changes
        assert isinstance(returned, wire.RestartInstance)
        assert (returned.current_activity_id, returned.target_activity_id) == ("node-11", "node-10")
        world.deliver()
        [again] = world.act("agree", ("I-1", "111"), by="bob")
        assert again.status == "REQUESTED", "who decided there has it again"


async def test_what_has_no_known_steps_is_not_returned(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.arrive(assigned("21", "ann", at=NOW, instance_id="I-2"))
        world.act("return", ("I-2", "21"))
        world.dingtalk.faults.is_down = True
        await world.work()
        assert world.statuses == [("REQUESTED", "unsent")], "only steps were to be read: nothing was sent"
        world.dingtalk.faults.is_down = False
        await world.work(pass_s=60)
        assert world.statuses == [("REFUSED", "")]


async def test_tasks_are_handed_over_and_requests_withdrawn(database: Database) -> None:
    async with with_a_task(database) as world:
        world.rows.know("ding1", PersonRecord("bob", "Bob"))
        world.happens(filed("I-2", NOW - 2000, originator=Person("ann", "Ann")))
        world.assign(("I-2", "21", "cai"))
        world.act("hand_over", ("I-1", "11"), to="bob")
        [withdrawn] = world.act("withdraw", ("I-2", ""), by="u-zhang")
        assert withdrawn.status == "REQUESTED"
        await world.work()
        world.deliver()
        await world.work()
        assert {type(each) for each in world.dingtalk.changes} == {wire.RedirectTask, wire.TerminateInstance}
        assert world.statuses == [("DONE", ""), ("DONE", "")]
        [again] = world.act("agree", ("I-1", "110"), by="bob")
        assert again.status == "REQUESTED", "the task is the colleague's now"


@pytest.mark.parametrize("comes", ["callback", "nothing"])
async def test_an_answer_that_was_lost_is_read_back_and_nothing_is_sent_again(
    sqlite_database: Database, comes: str
) -> None:
    async with with_a_task(sqlite_database) as world:
        world.dingtalk.faults.lost_answers = 1
        world.act("agree", ("I-1", "11"))
        await world.work()
        assert world.statuses == [("UNCLEAR", "")]
        if comes == "callback":
            world.deliver()
        await world.work(pass_s=11)
        assert (world.statuses, len(executed(world))) == ([("DONE", "")], 1)


async def test_a_decision_that_was_lost_on_the_way_is_reported_and_may_be_repeated(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.assign(("I-0", "10", "ann"))
        world.act("agree", ("I-0", "10"))
        await world.work()  # it has a token now
        world.deliver()
        await world.work()
        world.dingtalk.faults.answers_next.append(GATEWAY)
        world.act("agree", ("I-1", "11"))
        await world.work()
        for _ in range(3):
            assert world.statuses[1] == ("UNCLEAR", "")
            await world.work(pass_s=61)
        assert world.statuses[1] == ("FAILED", "unconfirmed")
        [again] = world.act("agree", ("I-1", "11"))
        await world.work()
        assert (again.status, len(executed(world))) == ("REQUESTED", 2)


async def test_a_callback_that_does_not_come_is_read_back(database: Database) -> None:
    async with with_a_task(database) as world:
        world.act("agree", ("I-1", "11"))
        await world.work()
        await world.work(pass_s=59)
        assert (world.statuses, world.dingtalk.calls[wire.GetRunningTasks.path]) == ([("ACCEPTED", "")], 0)
        await world.work(pass_s=2)
        assert world.statuses == [("DONE", "")]


async def test_what_somebody_else_decided_first_is_overtaken(database: Database) -> None:
    async with with_a_task(database) as world:
        world.dingtalk.faults.lost_answers = 1
        world.act("agree", ("I-1", "11"))
        await world.work()
        world.arrive(happened(Action.COMPLETED, NOW, task_id="11", actor_id="bob"))
        await world.work()
        assert world.statuses == [("OVERTAKEN", "")]


@pytest.mark.parametrize("by", ["ann", "bob"])
async def test_a_decision_that_was_never_sent_is_not_done_by_what_happens_at_the_source(
    sqlite_database: Database, by: str
) -> None:
    async with with_a_task(sqlite_database) as world:
        world.urls = "http://127.0.0.1:9", world.urls[1]
        world.dispatcher = world.replica()
        world.rows.know("ding1", PersonRecord("bob", "Bob"))
        world.assign(("I-2", "21", "ann"), ("I-3", "31", "ann"))
        world.act("agree", ("I-1", "11"))
        world.act("hand_over", ("I-2", "21"), to="bob")
        world.act("withdraw", ("I-3", ""), by="u-zhang")
        await world.work()
        assert set(world.statuses) == {("REQUESTED", "unsent")}
        # On the approval page.
        for instance, task in (("I-1", "11"), ("I-2", "21"), ("I-3", "31")):
            ended = {"instance_status": "COMPLETED", "finished_at": NOW}
            world.arrive(happened(Action.COMPLETED, NOW, instance_id=instance, task_id=task, actor_id=by))
            world.arrive(filed(instance, NOW, event_id=f"end of {instance}", **ended))
        await world.work(pass_s=5)
        assert world.statuses == [("OVERTAKEN", "")] * 3


async def test_a_withdrawal_is_not_done_by_an_approval(database: Database) -> None:
    async with with_a_task(database) as world:
        world.assign(("I-0", "10", "ann"), ("I-2", "21", "ann"))
        world.act("agree", ("I-0", "10"))
        await world.work()  # it has a token now
        world.deliver()
        await world.work()
        world.dingtalk.faults.answers_next.extend([GATEWAY, GATEWAY])
        world.act("withdraw", ("I-1", ""), ("I-2", ""), by="u-zhang")
        await world.work()
        # No task of the first one is pending until its next step begins.
        world.arrive(happened(Action.COMPLETED, NOW, task_id="11", actor_id="ann"))
        world.arrive(happened(Action.CANCELLED, NOW, instance_id="I-2", task_id="21", actor_id="u-zhang"))
        await world.work()
        assert [each for each, _ in world.statuses] == ["DONE", "UNCLEAR", "DONE"]
        world.arrive(filed("I-1", NOW, event_id="end", instance_status="COMPLETED", approved_result="agree"))
        await world.work()
        assert [each for each, _ in world.statuses] == ["DONE", "OVERTAKEN", "DONE"]


async def test_a_decision_is_not_done_by_another_one_of_the_same_person(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.rows.know("ding1", PersonRecord("bob", "Bob"))
        for number, (action, outcome) in enumerate(
            [("agree", "disagree"), ("agree", "agree"), ("return", "同意"), ("hand_over", "agree"), ("refuse", None)]
        ):
            task = str(20 + number)
            world.assign((f"I-{task}", task, "ann"))
            world.dingtalk.faults.lost_answers = 1
            world.act(action, (f"I-{task}", task), to="bob" if action == "hand_over" else "")
            await world.work()
            decided = {"task_id": task, "actor_id": "ann", "outcome": outcome}
            world.arrive(happened(Action.COMPLETED, NOW, instance_id=f"I-{task}", **decided))
            await world.work()
        assert [each for each, _ in world.statuses] == ["OVERTAKEN", "DONE", "OVERTAKEN", "OVERTAKEN", "DONE"]


@pytest.mark.parametrize("ends", ["the colleague has it", "the request is cancelled", "it is approved"])
async def test_a_hand_over_is_done_when_the_colleague_has_the_task(sqlite_database: Database, ends: str) -> None:
    async with with_a_task(sqlite_database) as world:
        world.rows.know("ding1", PersonRecord("bob", "Bob"))
        named = {"instance_id": "erp:7", "source": ERP, "app_type": ERP}
        world.act("hand_over", of_erp(world), to="bob")
        await world.work()
        decided = Action.CANCELLED if ends == "the request is cancelled" else Action.COMPLETED
        world.arrive(happened(decided, NOW, task_id="T-1", actor_id="ann", **named))
        await world.work()
        if decided is Action.COMPLETED:
            assert world.statuses == [("ACCEPTED", "")], "nobody says yet what she decided"
        if ends == "the colleague has it":
            world.arrive(assigned("T-2", "bob", at=NOW, **named))
        elif ends == "it is approved":
            world.arrive(filed(at=NOW, event_id="end", finished_at=NOW, approved_result="yes", **named))
        await world.work()
        assert world.statuses == [("DONE" if ends == "the colleague has it" else "OVERTAKEN", "")]


@pytest.mark.parametrize("refused", [QPS, (400, "InvalidAuthentication")])
async def test_what_dingtalk_has_not_looked_at_is_sent_again(
    sqlite_database: Database, refused: tuple[int, str]
) -> None:
    async with with_a_task(sqlite_database) as world:
        world.assign(("I-0", "10", "ann"))
        world.act("agree", ("I-0", "10"))
        await world.work()  # it has a token now
        world.dingtalk.faults.answers_next.append(refused)
        world.act("agree", ("I-1", "11"))
        for _ in range(2):
            await world.work(pass_s=3)
        assert ([each for each, _ in world.statuses], len(executed(world))) == (["ACCEPTED"] * 2, 2)


async def test_while_dingtalk_is_away_it_is_tried_for_ten_minutes_and_then_reported(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.urls = "http://127.0.0.1:9", world.urls[1]
        back, world.dispatcher = world.dispatcher, world.replica()
        world.assign(("I-2", "21", "ann"))
        world.act("agree", ("I-1", "11"))
        for _ in range(11):
            await world.work()
            assert world.statuses == [("REQUESTED", "unsent")]
            world.clock.pass_s(60)
        await world.work()
        assert world.statuses == [("FAILED", "unsent")]
        world.act("agree", ("I-2", "21"))
        await world.work()
        world.dispatcher = back
        await world.work(pass_s=60)
        assert (world.statuses[1][0], executed(world)) == ("ACCEPTED", [("ann", 21, "AGREE", "ok")])


async def test_after_a_crash_in_an_attempt_it_is_read_back_before_anything_else(database: Database) -> None:
    async with with_a_task(database) as world:
        world.assign(("I-2", "21", "ann"))
        world.act("agree", ("I-1", "11"), ("I-2", "21"))
        for each, received in zip(world.stored, (True, False), strict=True):
            sending = world.store.advance(each, status="SENDING", due_at=NOW + 120_000, attempts=1)
            assert sending is not None
            if received:
                world.dingtalk.company.happened(
                    happened(Action.COMPLETED, NOW, instance_id=each.instance_id, task_id="11", actor_id="ann")
                )
        await world.work()
        assert [each for each, _ in world.statuses] == ["SENDING", "SENDING"], "another replica may work on it"
        for _ in range(3):
            await world.work(pass_s=121)
        assert (world.statuses, executed(world)) == ([("DONE", ""), ("FAILED", "unconfirmed")], [])


async def test_after_a_crash_it_is_read_back_as_often_as_without_attempts_before(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.dingtalk.faults.is_down = True
        world.act("agree", ("I-1", "11"))
        for _ in range(3):
            await world.work(pass_s=60)
        [unsent] = world.stored
        assert (unsent.status, unsent.attempts) == ("REQUESTED", 3)
        world.store.advance(unsent, status="SENDING", due_at=world.clock.now_ms() + 120_000, attempts=4)
        world.dingtalk.faults.is_down = False
        for _ in range(2):
            await world.work(pass_s=121)
            assert world.statuses == [("UNCLEAR", "")]
        await world.work(pass_s=121)
        assert world.statuses == [("FAILED", "unconfirmed")]


async def test_of_two_replicas_one_sends(database: Database) -> None:
    async with with_a_task(database) as world:
        other = world.replica()
        world.assign(*((f"M-{each}", str(each), "ann") for each in range(20)))
        world.act("agree", *((f"M-{each}", str(each)) for each in range(20)))
        ours, theirs = await asyncio.gather(world.dispatcher.step(), other.step())
        await asyncio.gather(*ours, *theirs)
        assert sorted(task for _, task, _, _ in executed(world)) == [*range(20)]


class Pausing(FakeClock):
    """Pauses where a call waits for its turn."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self.goes_on, self.waits = clock, asyncio.Event(), asyncio.Event()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002 - as FakeClock
        self.waits.set()
        await self.goes_on.wait()


@pytest.mark.parametrize("late_s", [95, 121])
async def test_a_call_whose_turn_comes_after_its_lease_is_not_made(database: Database, late_s: int) -> None:
    async with with_a_task(database) as world:
        slow_clock = Pausing(world.clock)
        slow = world.replica(slow_clock)
        world.act("agree", ("I-1", "11"))
        [sending] = await slow.step()
        waiting = asyncio.create_task(slow_clock.waits.wait())
        await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), sending
        world.clock.pass_s(late_s)
        for _ in range(4):
            await world.work()
            if late_s > 120:
                world.clock.pass_s(61)
        # Of an attempt that was claimed nobody knows: the person decides again.
        assert world.statuses == [("FAILED", "unconfirmed") if late_s > 120 else ("SENDING", "")]
        [refusal] = world.act("refuse", ("I-1", "11"))
        assert refusal.action == ("refuse" if late_s > 120 else "agree")
        slow_clock.goes_on.set()
        await asyncio.wait([sending])
        assert executed(world) == [], "the other replica has it"
        await world.work(pass_s=4)
        result = "DISAGREE" if late_s > 120 else "AGREE"
        assert executed(world) == [("ann", 11, result, "ok")]


async def test_a_colleagues_decision_does_not_wait_for_hundreds_of_another_person(database: Database) -> None:
    async with with_a_task(database) as world:
        many = [(f"M-{each}", str(1000 + each)) for each in range(200)]
        world.assign(*((*each, "ann") for each in many), ("I-2", "21", "bob"))
        world.act("return", *many)
        world.clock.pass_s(1)
        world.act("agree", ("I-2", "21"), by="bob")
        paused = Pausing(world.clock)
        sender = world.replica(paused)
        under_way = await sender.step()
        assert len(under_way) == 26
        paused.goes_on.set()
        await asyncio.wait(under_way)
        assert executed(world) == [("bob", 21, "AGREE", "ok")]


async def test_while_the_lists_are_read_again_nothing_is_concluded_from_them(database: Database) -> None:
    async with with_a_task(database) as world:
        world.act("agree", ("I-1", "11"))
        await world.work()
        rebuild(database, FOLLOWED)
        await world.work()
        assert world.statuses == [("ACCEPTED", "")]


async def test_a_delegate_decides_on_behalf_within_the_delegation_only(database: Database) -> None:
    async with with_a_task(database) as world:
        for user in ("ann", "bob", "cai"):
            world.rows.know("ding1", PersonRecord(user, user.title()))
        world.assign(("I-2", "21", "ann"), ("I-3", "31", "ann"), ("I-4", "41", "cai"))
        # An hour from now, for a day.
        world.delegate("ann", "bob", hours=(1, 25), app_type="APP_1")
        world.delegate("ann", "cai", hours=(0, 25), app_type="ANOTHER")
        refused = "REFUSED", "not-delegated"
        [early] = world.act("agree", ("I-1", "11"), by="bob", of="ann")
        assert (early.status, early.detail) == refused
        world.clock.pass_s(3600)
        [action] = world.act("agree", ("I-1", "11"), by="bob", of="ann")
        assert (action.status, action.user_id, action.actor_id) == ("REQUESTED", "ann", "bob")
        for by, of, what, task in (
            ("cai", "ann", "agree", ("I-2", "21")),
            ("bob", "cai", "agree", ("I-4", "41")),
            ("bob", "ann", "agree", ("I-4", "41")),
            ("bob", "ann", "withdraw", ("I-2", "")),
        ):
            [found] = world.act(what, task, by=by, of=of)
            assert (found.status, found.detail, found.source) == (*refused, ""), (by, what)
        await world.work()
        world.clock.pass_s(24 * 3600)
        [late] = world.act("agree", ("I-2", "21"), by="bob", of="ann")
        assert (late.status, late.detail) == refused
        assert executed(world) == [("ann", 11, "AGREE", "ok (bob 代办)")], "the vendor knows the person only"
        assert [(who, what) for who, what, _ in world.trail] == [
            *[("ann", "delegated")] * 2,
            *(("bob", each) for each in ("acted_for", "agree", "action_sent")),
        ]
        assert [each.action_id for each in world.store.shown(("ding1", "bob"), now=NOW)] == [action.action_id]
        assert [each.action_id for each in world.store.shown(("ding1", "ann"), now=NOW)] == [action.action_id]


def of_erp(world: World) -> tuple[str, str]:
    world.arrive(assigned("T-1", "ann", at=NOW, instance_id="erp:7", source=ERP, app_type=ERP))
    return "erp:7", "T-1"


async def test_another_system_gets_a_signed_request_with_the_same_id_until_it_answers(
    sqlite_database: Database,
) -> None:
    async with with_a_task(sqlite_database) as world:
        world.other.answers = [Response(status_code=500), Response(status_code=429)]
        [action] = world.act("refuse", of_erp(world), remark="=no")
        for _ in range(3):
            await world.work(pass_s=60)
        assert [each for each, _ in world.other.received] == [action.action_id] * 3
        body = json.loads(world.other.received[0][1])
        assert body["type"] == "task.action.v1"
        assert body["data"] == {
            "action_id": action.action_id,
            "action": "refuse",
            "corp_id": "ding1",
            "instance_id": "7",
            "task_id": "T-1",
            "user_id": "ann",
            "actor_id": "ann",
            "recipient_id": None,
            "remark": "=no",
        }
        assert world.stored[0].status == "ACCEPTED"


@pytest.mark.parametrize("again", ["refuse", "agree"])
async def test_what_was_not_confirmed_is_requested_again_with_the_same_id(database: Database, again: str) -> None:
    async with with_a_task(database) as world:
        world.other.answers = [Response(status_code=504)] * 30
        task = of_erp(world)
        [first] = world.act("refuse", task)
        for _ in range(12):
            await world.work(pass_s=60)
        assert world.statuses == [("FAILED", "unconfirmed")]
        world.other.answers.clear()
        [second] = world.act(again, task, remark="once more")
        assert world.act("agree", task) == [second], "one is under way"
        await world.work()
        ids = [message_id for message_id, _ in world.other.received]
        assert (set(ids[:-1]), ids[-1] == first.action_id) == ({first.action_id}, again == "refuse")
        assert json.loads(world.other.received[-1][1])["data"]["remark"] == "once more"
        world.arrive(
            happened(
                Action.COMPLETED, NOW, task_id="T-1", actor_id="ann", instance_id="erp:7", source=ERP, app_type=ERP
            )
        )
        await world.work()
        assert world.stored[-1].status == "DONE"
        requests = [(what, subject) for _, what, subject in world.trail if what in ("refuse", "agree")]
        assert requests == [
            ("refuse", f"erp:7 T-1 {first.action_id}"),
            (again, f"erp:7 T-1 {second.action_id}"),
        ], "both are on record"


async def test_what_was_not_confirmed_is_done_if_its_event_comes_before_it_is_sent_again(
    sqlite_database: Database,
) -> None:
    async with with_a_task(sqlite_database) as world:
        world.other.answers = [Response(status_code=504)] * 30
        task = of_erp(world)
        world.act("refuse", task)
        for _ in range(12):
            await world.work(pass_s=60)
        world.act("refuse", task)
        await world.work()
        named = {"task_id": "T-1", "actor_id": "ann", "instance_id": "erp:7", "source": ERP, "app_type": ERP}
        world.arrive(happened(Action.COMPLETED, NOW, **named))
        await world.work(pass_s=60)
        assert [each for each, _ in world.statuses] == ["DONE"]


async def test_a_form_that_changes_often_stops_no_decision_for_long(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        for _ in range(20):
            [action] = world.act("agree", ("I-1", "11"), form="another")
            assert action.status == "REQUESTED"
            await world.work(pass_s=1)
        assert set(world.statuses) == {("REFUSED", "changed")}
        # Each comparison costs a call.
        assert [each.detail for each in world.act("agree", ("I-1", "11"), form="another")] == ["too-often"]
        world.clock.pass_s(3600)
        world.act("agree", ("I-1", "11"), form=await shown_form(world, "I-1"))
        await world.work()
        assert world.statuses[-1] == ("ACCEPTED", "")


async def test_what_is_refused_again_and_again_uses_no_more_calls(database: Database) -> None:
    async with with_a_task(database) as world:
        for _ in range(5):
            [action] = world.act("return", ("I-1", "11"), to="no-such-step")
            assert action.status == "REQUESTED"
            await world.work(pass_s=60)
        calls = world.dingtalk.calls.total()
        [refused] = world.act("return", ("I-1", "11"))
        await world.work()
        assert (refused.status, refused.detail) == ("REFUSED", "too-often")
        assert world.dingtalk.calls.total() == calls
        world.clock.pass_s(3600)
        [later] = world.act("agree", ("I-1", "11"))
        await world.work()
        assert (later.status, len(executed(world))) == ("REQUESTED", 1)


async def test_ended_actions_are_deleted_after_a_month(database: Database) -> None:
    async with with_a_task(database) as world:
        world.act("agree", ("I-1", "11"))
        await world.work()
        world.deliver()
        await world.work()
        assert len(world.store.shown(("ding1", "ann"), now=world.clock.now_ms())) == 1
        world.clock.pass_s(2 * 86_400)
        world.store.purge(now=world.clock.now_ms())
        assert (world.store.shown(("ding1", "ann"), now=world.clock.now_ms()), len(world.stored)) == ([], 1)
        world.store.purge(now=world.clock.now_ms() + 30 * 86_400_000)
        assert world.stored == []


def check_ends(world: World, tasks: Sequence[tuple[str, str, str]]) -> None:
    """Each decision was carried out once at most, its person knows of its end, and the audit trail has every one."""
    sent = Counter((each.process_instance_id, each.user_id) for each in executed_requests(world))
    assert sent.keys() <= {(instance, person) for instance, _, person in tasks}
    assert set(sent.values()) <= {1}
    trail = Counter((subject.split()[0], what) for _, what, subject in world.trail)
    ends = {each.instance_id: each for each in world.stored}
    for instance, _, person in tasks:
        end = ends[instance]
        was_sent = (instance, person) in sent
        assert end.status in (("DONE", "FAILED") if was_sent else ("FAILED", "REFUSED")), end
        assert trail[end.action_id, "action_ended"] == 1
        assert trail[end.action_id, "action_sent"] >= was_sent, "sent, and not recorded"


def disturb(world: World, chance: random.Random) -> None:
    faults = world.dingtalk.faults
    faults.is_down = chance.random() < 0.1
    faults.lost_answers = int(chance.random() < 0.2)
    if chance.random() < 0.3:
        faults.answers_next.append(chance.choice([GATEWAY, QPS]))
    world.clock.pass_s(chance.choice([0.1, 1, 30, 130]))


@pytest.mark.parametrize("seed", one_of_each(range(4), lambda _: "a seed"))
async def test_under_faults_and_kills_no_decision_is_sent_twice_and_none_is_lost_without_a_word(
    database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    tasks = [(f"I-{each}", str(1000 + each), chance.choice(["ann", "bob"])) for each in range(20)]

    async with with_a_task(database) as world:
        world.assign(*tasks)
        left = list(tasks)
        while left or any(each.due_at for each in world.stored):
            for instance, task, person in [left.pop() for _ in range(min(len(left), chance.randrange(3)))]:
                world.act(chance.choice(["agree", "refuse"]), (instance, task), by=person)
            disturb(world, chance)
            await work_or_die(world, chance)
            if chance.random() < 0.5:
                world.deliver()
        world.deliver()
        check_ends(world, tasks)
