"""What passes cost in calls of DingTalk's API, and that no cheaper call makes them miss or close something.

docs/how-to/find-what-was-missed.md quotes the figures of ten days: ``TASKBRIDGE_DAYS=10``.
"""

from __future__ import annotations

import os

import pytest

from support.dingtalk import FakeClock
from support.reconcile import BEGIN, HOUR_MS, Streams, company_life, losses, reconciled
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.local.fake_dingtalk import Company
from taskbridge.reconcile.assembly import allowance_of
from taskbridge.reconcile.repairer import Tally
from taskbridge.reconcile.repairs import Kind
from taskbridge.reconcile.runs import find_copies
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.events import Action, Lifecycle

MOST = 1600
"""Calls for a thousand changed instances, with outcomes, by one pass a day."""
DAYS = int(os.environ.get("TASKBRIDGE_DAYS", "2"))
CALLS = {2: [21, 3, 0, 75], 10: [77, 8, 1, 352]}
"""By days: for lists, for the open tasks of several instances and of one, and for records."""


async def test_a_thousand_changed_instances_cost_few_calls_and_nothing_is_missed() -> None:
    events = company_life(9, 240 * DAYS, step_ms=DAY_MS // 240)
    dropped, _ = losses(9, events, 0.01)
    undisturbed, clock = Streams(), FakeClock(BEGIN)
    undisturbed.fold(events)
    async with reconciled(Company(events), clock) as found:
        for day in range(DAYS + 1):
            clock.pass_s((BEGIN + (day + 1) * DAY_MS - clock.now_ms()) / 1000)
            arrived = (each for each in events if (each.occurred_at - BEGIN) // DAY_MS == day)
            found.streams.fold(each for each in arrived if each.event_id not in dropped)
            assert (await found.run(clock)).is_whole
        made = found.dingtalk.calls
        lists = made[wire.GetFormListInApp.path] + made[wire.GetInstances.path]
        read = (wire.GetRunningTaskList, wire.GetRunningTasks, wire.GetOperationRecords)
        assert [lists, *(made[each.path] for each in read)] == CALLS[DAYS]
        assert sum(CALLS[DAYS]) * 1000 <= MOST * len({each.instance_id for each in events})
        assert found.streams.lines().keys() == undisturbed.lines().keys()
        states = [each.state for each in found.streams.instances.values()]
        outcomes = {
            task.outcome
            for state in states
            if state.lifecycle is Lifecycle.ACTIVE and state.finished_at is not None
            for task in state.tasks
        }
        assert None not in outcomes


async def test_an_answer_for_several_instances_that_lacks_tasks_closes_none() -> None:
    events = company_life(9, 240)
    clock = FakeClock(events[-1].occurred_at + 25 * HOUR_MS)
    async with reconciled(Company(events), clock) as found:
        found.streams.fold(events)
        found.dingtalk.faults.short_lists = True
        report = await found.run(clock)
        assert report.is_whole
        assert report.tally.fetched > found.dingtalk.calls[wire.GetRunningTasks.path] > 0
        assert Kind.CLOSED not in {kind for _, kind in report.tally.repairs}
        undisturbed = Streams()
        undisturbed.fold(events)
        assert found.streams.lines().keys() == undisturbed.lines().keys()


async def test_copies_that_never_arrived_are_found_by_person_for_a_call_each() -> None:
    events = company_life(9, 240)
    undisturbed, clock = Streams(), FakeClock(events[-1].occurred_at + HOUR_MS)
    undisturbed.fold(events)
    async with reconciled(Company(events), clock) as found:
        [api, _] = found.apis
        ours = [each for each in events if each.app_type == api.app.app_type]
        found.streams.fold(each for each in ours if each.action is not Action.COPIED)
        await found.catch_up()
        people = found.store.states.people(api.app.corp_id, api.app.app_type)
        everybody = {user_id for each in ours if each.action is Action.COPIED for user_id in each.recipient_ids}
        context, tally = found.context(clock), Tally()
        await find_copies(context, api, sorted({*people, *everybody}), BEGIN - DAY_MS, tally=tally)
        assert found.dingtalk.calls == {wire.GetToken.path: 1, wire.GetTaskCopies.path: len({*people, *everybody})}
        assert tally.repairs[api.app.app_type, Kind.COPY] > 0
        published = len(found.streams.published)
        await found.catch_up()
        await find_copies(context, api, people, BEGIN - DAY_MS, tally=tally)
        assert len(found.streams.published) == published
        # The real callbacks change nobody's lists any more.
        lines = found.streams.lines()
        found.streams.fold(each for each in ours if each.action is Action.COPIED)
        assert found.streams.lines() == lines
        assert lines.keys() == {key for key in undisturbed.lines() if key[0] in {each.instance_id for each in ours}}


@pytest.mark.parametrize(
    ("given", "allowance"),
    [
        ({}, (10, 250, 2500)),
        ({"CALLS_PER_MONTH": "100000"}, (10, 10_000, 100_000)),
        ({"CALLS_PER_DAY": "40"}, (10, 40, 2500)),
    ],
)
def test_the_default_budget_is_half_of_what_the_standard_edition_includes(
    given: dict[str, str], allowance: tuple[float, int, int]
) -> None:
    required = {
        "APPS_FILE": "apps.toml",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "SCHEMA_REGISTRY_URL": "http://r:8081",
    }
    environment = {f"RECONCILE_{name}": value for name, value in {**required, **given}.items()}
    assert allowance_of(load_settings(ReconcileSettings, environment)) == allowance
