"""Instances that callbacks leave open are read once they are quiet, once per change."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from support.dingtalk import FakeClock
from support.reconcile import (
    CORP_ID,
    MINUTE_MS,
    NOW,
    Reconciled,
    Streams,
    assigned,
    company_life,
    fake_api,
    filed,
    happened,
    reconciled,
)
from taskbridge.local.fake_dingtalk import Company
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.repairer import Rules
from taskbridge.reconcile.runs import ReadBack
from taskbridge.schemas.events import Action, Lifecycle, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskbridge.schemas.events import TaskEvent, TaskState

QUIET_MS = 20 * MINUTE_MS
BEGIN = NOW - 60 * MINUTE_MS
# DingTalk knows the outcome of the decision. The callback only reports the decision.
LIFE = [
    filed(at=BEGIN),
    assigned("1", "u-li", at=BEGIN),
    happened(Action.COMPLETED, NOW - 30 * MINUTE_MS, task_id="1", actor_id="u-li", outcome="agree"),
]


def callback_of(event: TaskEvent) -> TaskEvent:
    """The event of its callback, without an outcome."""
    return structs.replace(event, outcome=None, remark=None)


CALLBACKS = [*LIFE[:2], callback_of(LIFE[2])]


class Followed(Reconciled):
    @property
    def read_back(self) -> ReadBack:
        return ReadBack(self.context(self.clock), self.apis, self.budget)

    async def make_pass(self) -> None:
        await self.run(self.clock)

    @property
    def calls(self) -> int:
        return self.budget.used(CORP_ID).month

    @property
    def state(self) -> TaskState:
        return self.streams.instances["I-1"].state


@asynccontextmanager
async def followed(*life: TaskEvent, quiet_ms: int = QUIET_MS, per_day: int = 1000) -> AsyncGenerator[Followed]:
    """DingTalk knows this life. The test decides which callbacks arrive."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    allowance = Allowance(per_second=10, per_day=per_day, per_month=10_000)
    async with fake_api(*life, database=database, allowance=allowance) as found:
        followed = Followed([found.client], found.budget, database, found.dingtalk, found.clock)
        followed.rules = Rules(settle_ms=15 * MINUTE_MS, read_back_ms=quiet_ms)
        yield followed


async def test_an_unknown_outcome_is_read_once() -> None:
    async with followed(*LIFE) as found:
        found.streams.fold(CALLBACKS)
        await found.read_back.run()
        assert found.state.tasks[0].outcome == "agree"
        assert {each.recovered_by for each in found.streams.published} == {"read-back"}
        calls = found.calls
        assert calls == 3
        for _ in range(3):
            found.clock.pass_s(24 * 3600)
            await found.read_back.run()
        assert found.calls == calls, "its own repairs are no change to read"


async def test_consecutive_callbacks_cause_one_read_after_the_last() -> None:
    start = NOW - 18 * MINUTE_MS
    later = [
        assigned("2", "u-wu", at=start),
        happened(Action.COMPLETED, start + 9 * MINUTE_MS, task_id="2", actor_id="u-wu", outcome="disagree"),
    ]
    async with followed(*LIFE, *later) as found:
        found.streams.fold([*CALLBACKS, later[0]])
        await found.read_back.run()
        assert found.calls == 0
        found.streams.fold([callback_of(later[1])])
        await found.read_back.work_for(9 * 60)
        assert found.calls == 0
        await found.read_back.work_for(5 * 60)
        assert found.calls == 3
        assert [each.outcome for each in found.state.tasks] == ["agree", "disagree"]


async def test_an_instance_that_stays_open_is_read_once_until_the_next_callback() -> None:
    # Every task is decided and the instance has not ended. DingTalk knows no more either.
    async with followed(*LIFE) as found:
        found.streams.fold(LIFE)
        for _ in range(2):
            await found.read_back.run()
            await found.catch_up()
        calls = found.calls
        assert 0 < calls <= 3
        found.streams.fold([happened(Action.COPIED, NOW - 25 * MINUTE_MS, recipient_ids=("u-qi",))])
        await found.read_back.run()
        assert found.calls > calls


async def test_nothing_is_read_if_it_is_off_or_nothing_is_open() -> None:
    async with followed(*LIFE, quiet_ms=0) as found:
        found.streams.fold(CALLBACKS)
        before = found.clock.now_ms()
        await found.read_back.work_for(3600)
        assert found.clock.now_ms() - before == 3600_000
        assert found.calls == 0
    async with followed(*LIFE[:2]) as found:
        found.streams.fold(LIFE[:2])
        await found.read_back.run()
        assert found.calls == 0


@pytest.mark.parametrize(("per_day", "calls"), [(6, 3), (13, 9)])
async def test_half_of_the_calls_are_reserved_for_passes(per_day: int, calls: int) -> None:
    lives = [
        each
        for number in range(9)
        for each in (
            filed(f"I-{number}", at=BEGIN),
            assigned("1", "u-li", at=BEGIN, instance_id=f"I-{number}"),
        )
    ]
    async with followed(*lives, per_day=per_day) as found:
        found.streams.fold(
            each for number in range(9) for each in (assigned("1", at=BEGIN, instance_id=f"I-{number}"),)
        )
        await found.read_back.run()
        assert found.calls == calls
        found.clock.pass_s(24 * 3600)
        await found.read_back.run()
        assert found.calls == 2 * calls, "the next day it continues"


async def test_a_recent_change_in_dingtalk_is_read_after_the_settle_time() -> None:
    decided = happened(Action.COMPLETED, NOW - 5 * MINUTE_MS, task_id="1", actor_id="u-li", outcome="agree")
    async with followed(*LIFE[:2], decided) as found:
        found.streams.fold([filed(at=BEGIN), assigned("1", at=BEGIN)])
        await found.read_back.run()
        assert (found.calls, found.streams.published) == (1, [])
        await found.read_back.work_for(19 * 60)
        assert found.calls == 1
        await found.read_back.work_for(3 * 60)
        assert found.state.tasks[0].outcome == "agree"


async def test_a_missing_instance_is_left_to_passes_and_stops_no_other() -> None:
    async with followed(*LIFE) as found:
        found.streams.fold([filed("I-0", at=BEGIN - MINUTE_MS), assigned("9", at=BEGIN - MINUTE_MS, instance_id="I-0")])
        found.streams.fold(CALLBACKS)
        await found.read_back.run()
        assert found.state.tasks[0].outcome == "agree"
        calls = found.calls
        await found.read_back.run()
        assert found.calls == calls


async def test_a_pass_reads_an_outcome_after_half_a_day_without_a_change_or_at_the_end() -> None:
    end = filed(at=NOW - 29 * MINUTE_MS, event_id="end", instance_status="COMPLETED", approved_result="agree")
    async with followed(*LIFE) as found:
        found.streams.fold(CALLBACKS)
        await found.make_pass()
        assert (found.calls, found.state.tasks[0].outcome) == (2, None)
        found.clock.pass_s(24 * 3600)
        await found.make_pass()
        assert found.state.tasks[0].outcome == "agree"
    async with followed(*LIFE, end) as found:
        found.streams.fold(CALLBACKS)
        await found.make_pass()
        assert (found.calls, found.state.tasks[0].outcome) == (3, "agree")
    async with followed(*LIFE) as found:
        found.streams.fold(CALLBACKS[2:])
        await found.make_pass()
        assert (found.state.title, found.state.tasks[0].outcome) == ("Request I-1", None)
        found.clock.pass_s(24 * 3600)
        await found.make_pass()
        assert found.state.tasks[0].outcome == "agree", "what was repaired meanwhile does not hide it"


async def test_a_company_with_read_backs_sees_its_callbacks_and_dingtalks_outcomes() -> None:
    events = company_life(21, 150)
    clock, expected = FakeClock(events[0].occurred_at), Streams()
    expected.fold(events)
    async with reconciled(Company(events), clock) as found:
        rules = Rules(settle_ms=15 * MINUTE_MS, read_back_ms=QUIET_MS)
        read_back = ReadBack(found.context(clock, rules), found.apis, found.budget)
        for event in events:
            await read_back.work_for((event.occurred_at - clock.now_ms()) / 1000)
            found.streams.fold([callback_of(event) if event.action is Action.COMPLETED else event])
        await read_back.work_for(3600)
        assert {each.recovered_by for each in found.streams.published} == {"read-back"}
        lines = found.streams.lines()
        assert lines.keys() == expected.lines().keys()
        for key, line in expected.lines().items():
            assert (lines[key].status, lines[key].actor_id) == (line.status, line.actor_id)
        outcomes = {
            task.outcome
            for each in found.streams.instances.values()
            for task in each.state.tasks
            if task.status is Status.COMPLETED and each.state.lifecycle is not Lifecycle.DELETED
        }
        assert None not in outcomes
        assert {each.missing for each in found.store.callbacks.all()} == {0}


FINISHED_AT = NOW - 30 * MINUTE_MS
END = filed(
    at=FINISHED_AT, event_id="end", instance_status="COMPLETED", approved_result="agree", finished_at=FINISHED_AT
)


async def test_a_pass_first_reads_an_instance_that_ended_with_a_pending_task() -> None:
    """Its completion was lost: people see a task that nobody can decide. The calls are enough for nothing else."""
    others = [filed(f"J-{number}", at=BEGIN) for number in range(5)]
    async with followed(*LIFE, END, *others, per_day=2) as found:
        found.streams.fold([*LIFE[:2], END, filed("I-0", at=BEGIN - MINUTE_MS)])
        found.streams.fold([assigned("9", "u-li", at=BEGIN - MINUTE_MS, instance_id="I-0")])
        assert found.state.tasks[0].status is Status.PENDING
        await found.make_pass()
        assert (found.state.tasks[0].status, found.state.tasks[0].outcome) == (Status.COMPLETED, "agree")
        assert found.calls == 2


async def test_an_instance_that_dingtalk_cannot_read_stops_no_other_read_back_for_long() -> None:
    async with followed(*LIFE) as found:
        found.streams.fold([structs.replace(each, instance_id="I-0") for each in CALLBACKS])
        found.streams.fold(CALLBACKS)
        found.dingtalk.faults.broken.add("I-0")
        for _ in range(2):
            await found.read_back.run()
        assert found.state.tasks[0].outcome == "agree"
