"""An app without callbacks: DingTalk lists changes, and no callback arrives for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from msgspec import structs

from support.dingtalk import FakeClock
from support.nightly import one_of_each
from support.reconcile import APPS, BEGIN, HOUR_MS, MINUTE_MS, Reconciled, company_life, losses, reconciled
from taskbridge.local.fake_dingtalk import Company
from taskbridge.reconcile.runs import ReadBack
from taskbridge.reconcile.states import StatesBehind
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskbridge.dingtalk.wire import Form
    from taskbridge.schemas.events import TaskEvent

EVENTS = company_life(11, 300)
DEATH = EVENTS[150].occurred_at
ENOUGH = 3
"""The threshold of the alert ReconcileAppSilent."""


async def most_missing(found: Reconciled, clock: FakeClock, arrives: Callable[[TaskEvent], bool]) -> dict[str, int]:
    """The most missing callbacks of each app after any pass, one per hour. ``arrives`` selects the callbacks."""
    most = dict.fromkeys(APPS, 0)
    waiting = [*EVENTS]
    while waiting:
        clock.pass_s(HOUR_MS / 1000)
        while waiting and waiting[0].occurred_at <= clock.now_ms():
            event = waiting.pop(0)
            if arrives(event):
                found.streams.fold([event])
        await found.run(clock)
        for each in found.store.callbacks.all():
            most[each.app_type] = max(most[each.app_type], each.missing)
    return most


async def test_only_the_app_whose_callbacks_stopped_is_silent_until_the_next_callback() -> None:
    clock = FakeClock(BEGIN)
    async with reconciled(Company(EVENTS), clock) as found:
        dead, alive = APPS
        last = max(each.occurred_at for each in EVENTS if each.app_type == dead and each.occurred_at <= DEATH)
        most = await most_missing(found, clock, lambda each: each.app_type == alive or each.occurred_at <= DEATH)
        assert most[dead] > ENOUGH
        assert most[alive] == 0
        silence = {each.app_type: each for each in found.store.callbacks.all()}[dead]
        assert silence.since_ms == last, "a repair does not count as a callback"
        # A new connector: the next callback is for a change that DingTalk has not listed yet.
        late = next(each for each in reversed(EVENTS) if each.app_type == dead)
        found.streams.fold([late])
        await found.catch_up()
        assert {each.missing for each in found.store.callbacks.all()} == {0}


async def test_an_app_without_any_callback_is_silent_from_its_first_check() -> None:
    clock = FakeClock(BEGIN)
    async with reconciled(Company(EVENTS), clock) as found:
        await found.run(clock)
        assert [each.missing for each in found.store.callbacks.all()] == [0, 0]
        most = await most_missing(found, clock, lambda _: False)
        assert min(most.values()) > ENOUGH


@pytest.mark.parametrize("seed", one_of_each(range(3), lambda _: "a seed"))
async def test_an_app_that_loses_some_callbacks_is_not_silent(seed: int) -> None:
    clock = FakeClock(BEGIN)
    dropped, _ = losses(seed, EVENTS, 0.03)
    async with reconciled(Company(EVENTS), clock) as found:
        most = await most_missing(found, clock, lambda each: each.event_id not in dropped)
        assert found.streams.published, "some were missed"
        assert max(most.values()) < ENOUGH


async def test_a_backfill_counts_no_missing_callback() -> None:
    clock = FakeClock(EVENTS[-1].occurred_at + HOUR_MS)
    async with reconciled(Company(EVENTS), clock) as found:
        for api in found.apis:
            found.store.callbacks.watch(api.app.corp_id, api.app.app_type, now_ms=BEGIN)
            await found.backfill(api, clock, BEGIN)
        assert found.streams.published
        assert {each.missing for each in found.store.callbacks.all()} == {0}


async def test_a_repair_that_kafka_refuses_sixty_times_hides_no_callbacks() -> None:
    clock = FakeClock(EVENTS[-1].occurred_at + HOUR_MS)
    async with reconciled(Company(EVENTS), clock) as found:
        found.streams.fold(EVENTS[::2])
        with patch.object(found.streams, "publish", side_effect=OperatorError("Kafka is away")) as refused:
            for _ in range(62):
                with pytest.raises(OperatorError, match="Kafka is away"):
                    await found.run(clock)
        # Two ended with a pending task: they come first, but not again at once.
        [repaired] = {each.instance_id for call in refused.call_args_list[2:] for each in call.args[0]}
        await found.run(clock)
        await found.catch_up()
        state, callbacks = found.streams.instances[repaired].state, found.store.callbacks
        assert not callbacks.update(state), "a repair does not count as a callback"
        assert callbacks.update(structs.replace(state, revision=state.revision + 1))


async def test_callbacks_during_a_long_pass_do_not_count_as_lost() -> None:
    """The pass compares with the states at its start."""
    clock, waiting = FakeClock(EVENTS[100].occurred_at), [*EVENTS]
    async with reconciled(Company(EVENTS), clock) as found:

        def arrive() -> None:
            while waiting and waiting[0].occurred_at <= clock.now_ms():
                found.streams.fold([waiting.pop(0)])

        for api in found.apis:

            async def slowly(forms: Callable[[], Awaitable[list[Form]]] = api.forms) -> list[Form]:
                clock.pass_s(46 * 60)
                arrive()
                return await forms()

            api.forms = slowly  # pyright: ignore[reportAttributeAccessIssue] - for this test
        arrive()
        for _ in range(3):
            report = await found.run(clock)
            assert report.tally.unsettled
            assert [each for each in found.store.findings.counts() if each.is_lost] == []
            settled_ms = found.store.states.current_ms - found.rules.settle_ms
            assert all(cursor.until_ms <= settled_ms for _, cursor in found.store.cursors.all())
        assert {each.missing for each in found.store.callbacks.all()} == {0}


async def test_dingtalk_gets_no_call_while_the_workers_are_behind() -> None:
    clock = FakeClock(EVENTS[-1].occurred_at + HOUR_MS)
    async with reconciled(Company(EVENTS), clock) as found:
        with patch.object(found, "catch_up", side_effect=StatesBehind("some wait")):
            with pytest.raises(StatesBehind, match="some wait"):
                await found.run(clock)
            context = found.context(clock, replace(found.rules, read_back_ms=MINUTE_MS))
            await ReadBack(context, found.apis, found.budget).work_for(3600)
        assert not found.dingtalk.calls
        assert found.store.findings.last_pass_ms(whole=False) is None
