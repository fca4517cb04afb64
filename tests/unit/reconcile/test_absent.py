"""A form or an instance that DingTalk does not have stops nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.reconcile import APP_TYPE, CORP_ID, FORM, HOUR_MS, NOW, FakeApi, Streams, assigned, fake_api, filed
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.calls import Absent
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.repairer import Context, Rules
from taskbridge.reconcile.runs import Backfill, Passes, estimate
from taskbridge.reconcile.store import Store
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

GONE = "FORM-GONE"
BEGIN = NOW - 3 * HOUR_MS


class Checked:
    """The app of these forms, and what reconcile finds of it."""

    def __init__(self, fake: FakeApi, database: sqlite3.Connection, forms: tuple[str, ...]) -> None:
        self.fake, self.streams, self.store = fake, Streams(), Store(database)
        self.api = YidaApi(fake.calls, replace(fake.client.app, forms=forms), fake.clock)

    async def catch_up(self) -> None:
        for each in self.streams.changed:
            self.store.states.store(self.streams.instances[each].state)
        self.streams.changed.clear()
        self.store.states.current_ms = self.fake.clock.now_ms()

    @property
    def context(self) -> Context:
        return Context(self.store, self.streams, self.fake.clock, Rules(settle_ms=HOUR_MS), self.catch_up)

    @property
    def passes(self) -> Passes:
        return Passes(self.context, [self.api])


@asynccontextmanager
async def checked(forms: tuple[str, ...] = (GONE, FORM)) -> AsyncGenerator[Checked]:
    database = sqlite3.connect(":memory:", isolation_level=None)
    async with fake_api(filed("I-1", at=BEGIN), filed("I-2", at=BEGIN), database=database) as fake:
        fake.dingtalk.faults.absent.add(GONE)
        yield Checked(fake, database, forms)


async def test_a_form_that_does_not_exist_stops_no_other_form_and_is_reported() -> None:
    async with checked() as found:
        report = await found.passes.run()
        assert {each.instance_id for each in found.streams.published} == {"I-1", "I-2"}
        assert GONE in report.problems[APP_TYPE]
        assert report.retry_at_ms is None, "no earlier pass would find more"
        assert [key.form_uuid for key, _ in found.store.cursors.all()] == [FORM]


async def test_an_app_that_does_not_exist_is_reported() -> None:
    async with checked(()) as found:
        await found.fake.client.forms()
        found.fake.dingtalk.faults.answers_next.append((400, "invalidState.form.pageInstanceNotFound"))
        report = await found.passes.run()
        assert "pageInstanceNotFound" in report.problems[APP_TYPE]


async def test_a_missing_id_does_not_hide_the_others_of_its_call() -> None:
    async with checked((FORM,)) as found:
        found.streams.fold(assigned("1", "u-li", at=BEGIN, instance_id=each) for each in ("I-0", "I-1", "I-2"))
        found.fake.clock.pass_s(2 * DAY_MS / 1000)
        found.fake.dingtalk.faults.absent.add("I-0")
        assert (await found.passes.run()).is_whole
        assert [instance_id for _, _, instance_id, _ in found.store.absences.all()] == ["I-0"]
        found.fake.clock.pass_s(1.1 * DAY_MS / 1000)
        await found.passes.run()
        [deleted] = [each for each in found.streams.published if each.action is Action.DELETED]
        assert (deleted.instance_id, deleted.corp_id) == ("I-0", CORP_ID)


async def test_a_backfill_imports_the_other_forms_and_then_names_the_one_that_does_not_exist() -> None:
    async with checked() as found:
        await found.catch_up()
        assert (await estimate(found.api, found.fake.clock, since_ms=BEGIN)).instances == 2
        with pytest.raises(Absent, match=GONE):
            await Backfill(found.context, found.api, on_progress=lambda _: None).run(BEGIN)
        assert {each.instance_id for each in found.streams.published} == {"I-1", "I-2"}
