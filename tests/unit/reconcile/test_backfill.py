"""A connector that starts in the middle of a company's life: after the backfill everybody sees complete lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from support.dingtalk import FakeClock
from support.reconcile import APPS, BEGIN, HOUR_MS, Reconciled, Streams, company_life, filed, reconciled
from taskbridge.dingtalk.calls import Later, Spent, Unexpected
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.local.fake_dingtalk import Company
from taskbridge.reconcile.budget import Allowance
from taskbridge.reconcile.runs import estimate

if TYPE_CHECKING:
    from taskbridge.dingtalk.wire import OperationRecord

EVENTS = company_life(5, 240)
END = EVENTS[-1].occurred_at
SINCE = BEGIN - 40 * DAY_MS
"""Some days before the first event."""


def seen(streams: Streams) -> dict[object, object]:
    """All entries without their times, because those of a repair are off by a millisecond."""
    return {
        key: (each.title, each.url, each.status, each.actor_id, each.originator, each.process_name)
        for key, each in streams.lines().items()
    }


async def backfilled(found: Reconciled, clock: FakeClock) -> int:
    """Backfill all apps. Return the number of starts."""
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
async def test_after_the_backfill_all_lists_are_equal_also_with_interruptions(calls_per_day: int) -> None:
    clock, everything = FakeClock(END + HOUR_MS), Streams()
    everything.fold(EVENTS)
    allowance = Allowance(per_second=10, per_day=calls_per_day, per_month=10**6)
    async with reconciled(Company(EVENTS), clock, allowance=allowance) as found:
        # Callbacks arrive from the middle on.
        found.streams.fold(EVENTS[120:])
        starts = await backfilled(found, clock)
        assert (starts > len(APPS)) == (calls_per_day == 60)
        assert seen(found.streams) == seen(everything)
        assert {each.recovered_by for each in found.streams.published} == {"backfill"}
        published = len(found.streams.published)
        assert found.store.cursors.all() == []
        await backfilled(found, clock)
        assert len(found.streams.published) == published, "twice changes nothing"


async def test_the_estimate_matches_the_calls() -> None:
    clock = FakeClock(END + HOUR_MS)
    async with reconciled(Company(EVENTS), clock) as found:
        [api, _] = found.apis
        expected = await estimate(api, clock, since_ms=SINCE)
        before = found.budget.used("ding1").day
        assert before == expected.forms + 1
        await found.backfill(api, clock, SINCE)
        done = found.budget.used("ding1").day - before
        # In addition to the estimate: the list of forms, and the counts of some slices.
        assert expected.list_calls + expected.detail_calls <= done
        assert done <= expected.list_calls + expected.detail_calls + 1 + 3 * expected.forms


async def test_the_cursor_stays_before_an_incomplete_slice() -> None:
    clock = FakeClock(END + HOUR_MS)
    async with reconciled(Company(EVENTS), clock) as found:
        for api in found.apis:
            forms = sorted({each.form_uuid or "" for each in EVENTS if each.app_type == api.app.app_type} - {""})
            api.app = replace(api.app, forms=tuple(forms))
        found.dingtalk.faults.short_pages = True
        report = await found.run(clock)
        assert set(report.problems) == set(APPS)
        assert report.tally.repairs, "the returned rows are repaired all the same"
        assert found.store.cursors.all() == []
        published = len(found.streams.published)
        found.dingtalk.faults.short_pages = False
        assert (await found.run(clock)).is_whole
        assert len(found.streams.published) > published, "the rows that the pages lacked are found"
        assert {clock.now_ms() - HOUR_MS < cursor.until_ms for _, cursor in found.store.cursors.all()} == {True}


async def test_a_day_with_more_rows_than_dingtalk_lists_stops_no_other_form() -> None:
    many = [filed(f"I-{at:03}", BEGIN, form_uuid="FORM-A") for at in range(201)]
    other = filed("I-OTHER", BEGIN, form_uuid="FORM-B")
    clock = FakeClock(BEGIN + HOUR_MS)
    async with reconciled(Company([*many, other]), clock) as found:
        found.dingtalk.search_rows = 100
        report = await found.run(clock)
        assert "cursorExceedFiveThousand" in report.problems[APPS[0]]
        assert "I-OTHER" in {each.instance_id for each in found.streams.published}
        assert [key.form_uuid for key, _ in found.store.cursors.all()] == ["FORM-B"]


async def test_a_used_up_budget_ends_a_pass_until_its_time() -> None:
    clock = FakeClock(END + HOUR_MS)
    allowance = Allowance(per_second=10, per_day=20, per_month=1000)
    async with reconciled(Company(EVENTS), clock, allowance=allowance) as found:
        report = await found.run(clock)
        assert report.retry_at_ms is not None
        assert found.budget.left("ding1") == 0
        with pytest.raises(Spent):
            found.budget.check("ding1")
        published = len(found.streams.published)
        clock.pass_s((report.retry_at_ms - clock.now_ms()) / 1000)
        await found.run(clock)
        assert len(found.streams.published) > published, "it continues after the instances that were read"


async def test_without_outcomes_only_instances_with_losses_are_read() -> None:
    clock = FakeClock(END + HOUR_MS)
    async with reconciled(Company(EVENTS), clock) as found:
        found.rules = replace(found.rules, outcomes=False)
        named = Counter(each.task_id for each in EVENTS)
        opened = next(each for each in reversed(EVENTS) if each.recipient_ids and named[each.task_id] == 1)
        found.streams.fold(each for each in EVENTS if each is not opened)
        report = await found.run(clock)
        lacking = {opened.instance_id}
        assert {each.instance_id for each in found.streams.published if each.task_id} == lacking
        assert report.tally.fetched <= 2, "and an instance that ended after its last callback"


async def test_an_answer_that_is_not_understood_stops_no_other_instance() -> None:
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
        with capture_logs() as logs:
            report = await found.run(clock)
        assert set(report.problems) == {api.app.app_type}
        [logged] = [each for each in logs if each["event"] == "app_not_read"]
        assert (logged["app_type"], logged["problem"]) == (api.app.app_type, report.problems[api.app.app_type])
        known_ids = {each.instance_id for each in Company(EVENTS).instances(at_ms=clock.now_ms())}
        assert known_ids - {each.instance_id for each in found.streams.published} == {odd}
        api.operation_records = read
        assert (await found.run(clock)).is_whole
        assert odd in {each.instance_id for each in found.streams.published}
