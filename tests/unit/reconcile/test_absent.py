"""A form or an instance that DingTalk does not have stops nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.reconcile import APP_TYPE, CORP_ID, FORM, HOUR_MS, NOW, Reconciled, assigned, fake_api, filed
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.calls import Absent
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.repairer import Rules
from taskbridge.reconcile.runs import estimate
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

GONE = "FORM-GONE"
BEGIN = NOW - 3 * HOUR_MS


@asynccontextmanager
async def checked(forms: tuple[str, ...] = (GONE, FORM)) -> AsyncGenerator[Reconciled]:
    database = sqlite3.connect(":memory:", isolation_level=None)
    async with fake_api(filed("I-1", at=BEGIN), filed("I-2", at=BEGIN), database=database) as fake:
        fake.dingtalk.faults.absent.add(GONE)
        api = YidaApi(fake.calls, replace(fake.client.app, forms=forms), fake.clock)
        found = Reconciled([api], fake.budget, database, fake.dingtalk, fake.clock)
        found.rules = Rules(settle_ms=HOUR_MS)
        yield found


async def test_a_form_that_does_not_exist_stops_no_other_form_and_is_reported() -> None:
    async with checked() as found:
        report = await found.run(found.clock)
        assert {each.instance_id for each in found.streams.published} == {"I-1", "I-2"}
        assert GONE in report.problems[APP_TYPE]
        assert report.retry_at_ms is None, "no earlier pass would find more"
        assert [key.form_uuid for key, _ in found.store.cursors.all()] == [FORM]


async def test_a_form_that_does_not_exist_costs_one_call_a_day_also_after_restarts() -> None:
    async with checked((GONE,)) as found:
        calls = found.dingtalk.calls
        for _ in range(3):
            assert GONE in (await found.run(found.clock)).problems[APP_TYPE]
        assert calls[wire.GetInstances.path] == 1
        found.clock.pass_s(DAY_MS / 1000)
        await found.run(found.clock)
        assert calls[wire.GetInstances.path] == 2
        found.dingtalk.faults.absent.clear()
        found.clock.pass_s(DAY_MS / 1000)
        assert (await found.run(found.clock)).is_whole


async def test_an_app_that_does_not_exist_is_reported() -> None:
    async with checked(()) as found:
        await found.apis[0].forms()
        found.dingtalk.faults.answers_next.append((400, "invalidState.form.pageInstanceNotFound"))
        report = await found.run(found.clock)
        assert "pageInstanceNotFound" in report.problems[APP_TYPE]


async def test_a_missing_id_does_not_hide_the_others_of_its_call() -> None:
    async with checked((FORM,)) as found:
        found.streams.fold(assigned("1", "u-li", at=BEGIN, instance_id=each) for each in ("I-0", "I-1", "I-2"))
        found.clock.pass_s(2 * DAY_MS / 1000)
        found.dingtalk.faults.absent.add("I-0")
        assert (await found.run(found.clock)).is_whole
        assert [instance_id for _, _, instance_id, _ in found.store.absences.all()] == ["I-0"]
        found.clock.pass_s(1.1 * DAY_MS / 1000)
        await found.run(found.clock)
        [deleted] = [each for each in found.streams.published if each.action is Action.DELETED]
        assert (deleted.instance_id, deleted.corp_id) == ("I-0", CORP_ID)


async def test_a_backfill_imports_the_other_forms_and_then_names_the_one_that_does_not_exist() -> None:
    async with checked() as found:
        await found.catch_up()
        assert (await estimate(found.apis[0], found.clock, since_ms=BEGIN)).instances == 2
        with pytest.raises(Absent, match=GONE):
            await found.backfill(found.apis[0], found.clock, BEGIN)
        assert {each.instance_id for each in found.streams.published} == {"I-1", "I-2"}
