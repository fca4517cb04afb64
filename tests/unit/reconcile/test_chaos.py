"""A company that loses callbacks ends with the same lists as one that loses none, under all faults of DingTalk.

The company is simulated in virtual time. DingTalk is a fake over HTTP. ``TASKBRIDGE_COMPANIES`` is the number of runs.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from support.dingtalk import FakeClock
from support.reconcile import BEGIN, GENEROUS, HOUR_MS, Streams, company_life, losses, reconciled
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.local.fake_dingtalk import Company
from taskbridge.reconcile.budget import Allowance
from taskbridge.schemas.events import Action, Lifecycle, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.dingtalk import Faults
    from support.reconcile import Reconciled
    from taskbridge.schemas.events import TaskEntry, TaskEvent
    from taskbridge.schemas.views import Entry, EntryKey

COMPANIES = int(os.environ.get("TASKBRIDGE_COMPANIES", "1"))
SHARE = 0.01
EVENTS = 400
_OFF_MS = 1
"""By docs/adr/0066 the times of a repaired entry are off by at most this, if DingTalk's times are exact."""


def content(line: Entry) -> tuple[object, ...]:
    """All fields of an entry but its times."""
    return (line.title, line.url, line.app_type, line.originator, line.actor_id, line.status, line.process_name)


def assert_same(found: Mapping[tuple[str, EntryKey], Entry], expected: Mapping[tuple[str, EntryKey], Entry]) -> None:
    assert found.keys() == expected.keys()
    for key, line in found.items():
        assert content(line) == content(expected[key])
        assert abs(line.entered_at - expected[key].entered_at) <= _OFF_MS, key
        assert abs(line.updated_at - expected[key].updated_at) <= _OFF_MS, key


def change(faults: Faults, hour: int) -> None:
    """The faults of each day: hours without answers, with rate-limit pages, short pages, slow answers or a lag."""
    faults.is_down = hour % 24 in {5, 6}
    faults.punishes = hour % 24 == 9
    faults.short_lists = hour % 24 in {3, 4, 14}
    faults.short_pages = hour % 24 in {12, 13}
    faults.repeats = hour % 24 in {16, 17}
    faults.lag_ms = HOUR_MS if hour % 24 in {20, 21, 22} else 0
    faults.calls_per_second = 2 if hour % 24 in {1, 2} else 20


async def live(company: Reconciled, clock: FakeClock, events: list[TaskEvent], seed: int, share: float) -> None:
    """The company's life, with a pass every hour and all faults; then days without faults."""
    dropped, late = losses(seed, events, share)
    held: list[TaskEvent] = []
    hour = 0
    for event in events:
        while clock.now_ms() < event.occurred_at:
            clock.pass_s((min(event.occurred_at, BEGIN + (hour + 1) * HOUR_MS) - clock.now_ms() + 1) / 1000)
            if clock.now_ms() >= BEGIN + (hour + 1) * HOUR_MS:
                hour = (clock.now_ms() - BEGIN) // HOUR_MS
                change(company.dingtalk.faults, hour)
                await company.run(clock)
        if event.event_id in late:
            held.append(event)
        elif event.event_id not in dropped:
            company.streams.fold([event])
        if len(held) > 1:
            company.streams.fold([held.pop(0)])
    change(company.dingtalk.faults, 0)
    for at in range(8):
        clock.pass_s(DAY_MS / 2 / 1000)
        await company.run(clock)
        if at == 4:  # the last late callbacks arrive
            company.streams.fold(held)
    # Finished instances are read after a month, and again a day later.
    for days in (31, 1.1, 1.1):
        clock.pass_s(days * DAY_MS / 1000)
        assert (await company.run(clock)).is_whole


@pytest.mark.parametrize("seed", range(COMPANIES))
def test_a_company_that_loses_callbacks_sees_the_same_as_one_that_loses_none(seed: int) -> None:
    asyncio.run(_lives_through_chaos(seed))


async def _lives_through_chaos(seed: int) -> None:
    events = company_life(seed, EVENTS)
    dropped, _ = losses(seed, events, SHARE)
    undisturbed = Streams()
    undisturbed.fold(events)
    clock, company = FakeClock(BEGIN), Company(events)
    # With so few calls, the limit of the day ends some passes early.
    async with reconciled(company, clock, allowance=Allowance(per_second=10, per_day=900, per_month=10**6)) as found:
        await live(found, clock, events, seed, SHARE)
        assert_same(found.streams.lines(), undisturbed.lines())
        exist = {each.instance_id for each in company.instances(at_ms=clock.now_ms())}
        deleted = {
            each for each, instance in found.streams.instances.items() if instance.state.lifecycle is Lifecycle.DELETED
        }
        assert not exist & deleted
        assert len(dropped) > 0
        assert {each.recovered_by for each in found.streams.published} == {"reconcile"}
        # Each repair is counted, once.
        counts = found.store.findings.counts()
        assert sum(each.repairs for each in counts) == len({each.event_id for each in found.streams.published})
        lost = {each.instance_id for each in events if each.event_id in dropped and each.action is not Action.COPIED}
        repaired = {each.instance_id for each in found.streams.published}
        assert lost & (exist | deleted) <= repaired | deleted


def _pending(task: TaskEntry) -> list[str]:
    """The assignees of a pending task. Those of a decided one are not shown, and DingTalk does not return them."""
    return sorted(task.assignee_ids) if task.status is Status.PENDING else []


def test_states_too_are_the_same_as_without_losses() -> None:
    assert asyncio.run(_states(share=0.05)) == asyncio.run(_states(share=0.0))


async def _states(*, share: float) -> dict[str, object]:
    events, clock = company_life(77, 200), FakeClock(BEGIN)
    async with reconciled(Company(events), clock, allowance=GENEROUS) as found:
        await live(found, clock, events, 77, share)
        return {
            each.state.instance_id: (
                each.state.lifecycle,
                each.state.instance_status,
                each.state.approved_result,
                each.state.title,
                each.state.originator,
                sorted(
                    (task.task_id, task.status, task.outcome, task.actor_id, *_pending(task))
                    for task in each.state.tasks
                ),
                sorted(copied.user_id for copied in each.state.copied),
            )
            for each in found.streams.instances.values()
            if each.state.lifecycle is Lifecycle.ACTIVE
        }
