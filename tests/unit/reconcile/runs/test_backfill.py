"""A connector that is switched on in a company's life: after its backfill everybody sees what they would have seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from support.reconcile import APPS, BEGIN, HOUR_MS, MINUTE_MS, Reconciled, Streams, company_life, reconciled
from taskbridge.reconcile.dingtalk.errors import Later, Refused, Spent, Unexpected
from taskbridge.reconcile.dingtalk.moments import DAY_MS
from taskbridge.reconcile.dingtalk.wire import GetOperationRecords
from taskbridge.reconcile.kept.budget import Allowance
from taskbridge.reconcile.runs.backfill import estimate
from taskbridge.reconcile.testing.clock import FakeClock
from taskbridge.reconcile.testing.company import Company

if TYPE_CHECKING:
    from taskbridge.reconcile.dingtalk.wire import OperationRecord

EVENTS = company_life(5, 240)
END = EVENTS[-1].occurred_at
SINCE = BEGIN - 40 * DAY_MS
"""Days in which nothing was yet, too."""


def seen(streams: Streams) -> dict[object, object]:
    """Everybody's lines, without their times: those of what is repaired are off by a millisecond."""
    return {
        key: (each.title, each.url, each.status, each.actor_id, each.originator, each.process_name)
        for key, each in streams.lines().items()
    }


async def backfilled(found: Reconciled, clock: FakeClock) -> int:
    """All apps; returns how often it was started."""
    starts = 0
    for api in found.apis:
        while True:
            starts += 1
            try:
                await found.backfill(api, clock, SINCE)
                break
            except Later as error:
                clock.pass_s(max(0, error.retry_at_ms - clock.now_ms()) / 1000)
    return starts


@pytest.mark.parametrize("calls_per_day", [100_000, 60])
def test_after_it_inboxes_are_equal_however_often_it_was_given_up(calls_per_day: int) -> None:
    async def run() -> None:
        clock, everything = FakeClock(END + HOUR_MS), Streams()
        everything.fold(EVENTS)
        allowance = Allowance(per_second=10, per_day=calls_per_day, per_month=10**6)
        async with reconciled(Company(EVENTS), clock, allowance=allowance) as found:
            # From its middle on callbacks came.
            found.streams.fold(EVENTS[120:])
            starts = await backfilled(found, clock)
            assert (starts > len(APPS)) == (calls_per_day == 60)
            assert seen(found.streams) == seen(everything)
            assert {each.recovered_by for each in found.streams.published} == {"backfill"}
            told = len(found.streams.published)
            assert found.kept.cursors.all() == []
            await backfilled(found, clock)
            assert len(found.streams.published) == told, "twice changes nothing"

    asyncio.run(run())


def test_what_it_takes_is_told_before() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            [api, _] = found.apis
            expected = await estimate(api, clock, since_ms=SINCE)
            asked = found.budget.used("ding1").day
            assert asked == expected.forms + 1
            await found.backfill(api, clock, SINCE)
            done = found.budget.used("ding1").day - asked
            # Beside what was told: the list of forms, and how many there are in some days.
            assert expected.list_calls + expected.detail_calls <= done
            assert done <= expected.list_calls + expected.detail_calls + 1 + 3 * expected.forms

    asyncio.run(run())


def test_an_instance_that_has_just_changed_is_left_to_its_callbacks() -> None:
    async def run() -> None:
        clock = FakeClock(END + MINUTE_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            for api in found.apis:
                await found.backfill(api, clock, SINCE)
            assert EVENTS[-1].instance_id not in {each.instance_id for each in found.streams.published}

    asyncio.run(run())


def test_the_cursor_stays_where_a_window_was_not_read_whole() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            for api in found.apis:
                forms = sorted({each.form_uuid or "" for each in EVENTS if each.app_type == api.app.app_type} - {""})
                api.app = replace(api.app, forms=tuple(forms))
            found.dingtalk.weather.short_pages = True
            report = await found.run(clock)
            assert set(report.problems) == set(APPS)
            assert report.tally.repairs, "what came is mended all the same"
            assert found.kept.cursors.all() == []
            told = len(found.streams.published)
            found.dingtalk.weather.short_pages = False
            assert (await found.run(clock)).is_whole
            assert len(found.streams.published) > told, "what was missing on the pages is found"
            assert {clock.now_ms() - HOUR_MS < cursor.until_ms for _, cursor in found.kept.cursors.all()} == {True}

    asyncio.run(run())


def test_calls_that_are_spent_end_a_pass_until_their_time() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        allowance = Allowance(per_second=10, per_day=20, per_month=1000)
        async with reconciled(Company(EVENTS), clock, allowance=allowance) as found:
            report = await found.run(clock)
            assert report.retry_at_ms is not None
            assert found.budget.left("ding1") == 0
            with pytest.raises(Spent):
                found.budget.check("ding1")
            told = len(found.streams.published)
            clock.pass_s((report.retry_at_ms - clock.now_ms()) / 1000)
            await found.run(clock)
            assert len(found.streams.published) > told, "it goes on behind what was asked for"

    asyncio.run(run())


def test_what_has_not_changed_costs_no_call_of_its_own() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            found.streams.fold(EVENTS)
            first = await found.run(clock)
            assert first.tally.asked > 0
            before = found.budget.used("ding1").day
            again = await found.run(clock)
            assert (again.tally.asked, again.tally.repairs.total()) == (0, 0)
            forms = {each.form_uuid for each in EVENTS} - {None}
            assert found.budget.used("ding1").day - before == len(APPS) + len(forms)

    asyncio.run(run())


def test_without_outcomes_only_what_was_lost_is_asked_for() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            found.rules = replace(found.rules, outcomes=False)
            named = Counter(each.task_id for each in EVENTS)
            opened = next(each for each in reversed(EVENTS) if each.recipient_ids and named[each.task_id] == 1)
            found.streams.fold(each for each in EVENTS if each is not opened)
            report = await found.run(clock)
            lacking = {opened.instance_id}
            assert {each.instance_id for each in found.streams.published if each.task_id} == lacking
            assert report.tally.asked <= 2, "and an instance whose end came after its last callback"

    asyncio.run(run())


def test_an_app_that_is_listed_with_another_organisation_is_left_alone_and_told() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            found.streams.fold(EVENTS[::2])
            for api in found.apis:
                api.app = replace(api.app, corp=replace(api.app.corp, corp_id="ding-mistyped"))
            report = await found.run(clock)
            assert set(report.problems) == set(APPS)
            assert all("fix the apps file" in each for each in report.problems.values())
            for api in found.apis:
                with pytest.raises(Refused):
                    await found.backfill(api, clock, SINCE)
            assert found.streams.published == []
            assert not found.dingtalk.calls[GetOperationRecords.path]

    asyncio.run(run())


def test_an_answer_about_one_instance_that_nobody_understands_keeps_no_other_from_being_mended() -> None:
    async def run() -> None:
        clock = FakeClock(END + HOUR_MS)
        async with reconciled(Company(EVENTS), clock) as found:
            api = found.apis[0]
            read = api.operation_records
            known = [*Company(EVENTS).instances(at_ms=END)]
            odd = next(each.instance_id for each in known if each.app_type == api.app.app_type)

            async def misread(instance_id: str) -> list[OperationRecord]:
                if instance_id == odd:
                    raise Unexpected("no records")
                return await read(instance_id)

            api.operation_records = misread  # pyright: ignore[reportAttributeAccessIssue] - for this test
            with capture_logs() as said:
                report = await found.run(clock)
            assert set(report.problems) == {api.app.app_type}
            [told] = [each for each in said if each["event"] == "app_not_read"]
            assert (told["app_type"], told["problem"]) == (api.app.app_type, report.problems[api.app.app_type])
            there = {each.instance_id for each in Company(EVENTS).instances(at_ms=clock.now_ms())}
            assert there - {each.instance_id for each in found.streams.published} == {odd}
            api.operation_records = read
            assert (await found.run(clock)).is_whole
            assert odd in {each.instance_id for each in found.streams.published}

    asyncio.run(run())
