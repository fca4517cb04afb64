"""When the service makes passes: neither a restart nor a failure of other work adds one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from support.dingtalk import FakeClock, FaultyDingTalk
from support.reconcile import (
    APP_SECRET,
    APP_TYPE,
    HOUR_MS,
    NOW,
    SYSTEM_TOKEN,
    Streams,
    assigned,
    filed,
    happened,
    settings_in,
)
from taskbridge.cli import reconcile_runs
from taskbridge.dingtalk import wire
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.reconcile import app, assembly
from taskbridge.reconcile.app import Service
from taskbridge.reconcile.assembly import Reconciler, open_calls, open_data
from taskbridge.reconcile.repairer import Context, Rules
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.reconcile.settings import ReconcileSettings
    from taskbridge.schemas.events import TaskEvent

HOUR_S, DAY_S = 3600, 86_400
BEGIN = NOW - 2 * HOUR_MS
LIFE = [filed(at=BEGIN), assigned("1", "u-li", at=BEGIN)]
DECISION = happened(Action.COMPLETED, NOW + 60_000, task_id="1", actor_id="u-li", outcome="agree")


class Stopped(Exception):
    pass


class LimitedClock(FakeClock):
    """Raises ``Stopped`` when its time is over."""

    until_s = 0.0

    async def sleep(self, seconds: float) -> None:
        left = self.until_s - self.monotonic_s()
        await super().sleep(min(seconds, left))
        if seconds >= left:
            raise Stopped


class Outbox(Streams):
    """Kafka: the streams of a company, which may be away."""

    is_away: Callable[[], bool] = staticmethod(lambda: False)

    async def publish(self, events: Sequence[TaskEvent]) -> None:
        if self.is_away():
            raise OperatorError("Kafka does not accept the event")
        await super().publish(events)


def never() -> bool:
    return False


@dataclass
class World:
    """DingTalk over HTTP, Kafka, and the data folder of reconcile, which outlives each service."""

    settings: ReconcileSettings
    clock: LimitedClock
    dingtalk: FaultyDingTalk
    streams: Outbox = field(default_factory=Outbox)
    kafka_is_away: Callable[[], bool] = never

    @property
    def passes(self) -> int:
        return self.dingtalk.calls[wire.GetFormListInApp.path]

    @property
    def counted(self) -> int:
        return sum(count for path, count in self.dingtalk.calls.items() if path != wire.GetToken.path)

    async def serve(self, seconds: float) -> Service:
        """Run the service for so long, then end it as a kill does."""
        self.clock.until_s = self.clock.monotonic_s() + seconds
        with open_data(self.settings, self.clock) as data:
            service = Service(self.settings, data)
            with pytest.raises(Stopped):
                await service.work()
            return service

    @asynccontextmanager
    async def open_reconciler(
        self, settings: ReconcileSettings, data: LocalData, *, on_call: Callable[[str, str], None] | None = None
    ) -> AsyncGenerator[Reconciler]:
        async def catch_up() -> None:
            if self.kafka_is_away():
                raise OperatorError("Kafka does not answer")
            for each in self.streams.changed:
                data.store.states.store(self.streams.instances[each].state)
            self.streams.changed.clear()
            data.store.states.current_ms = self.clock.now_ms()

        rules = Rules(settle_ms=60_000, read_back_ms=int(settings.read_back_quiet * 1000))
        async with open_calls(settings, data, on_call=on_call) as calls:
            yield Reconciler(data, calls, Context(data.store, self.streams, self.clock, rules, catch_up), None)


@asynccontextmanager
async def world(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> AsyncGenerator[World]:
    clock = LimitedClock(NOW)
    monkeypatch.setattr(assembly, "CALL_ATTEMPTS", 1)
    dingtalk = FaultyDingTalk(
        Company(LIFE), clock, system_tokens={APP_TYPE: SYSTEM_TOKEN}, app_key="key-1", app_secret=APP_SECRET
    )
    with served(dingtalk) as url:
        settings = settings_in(folder, api_url=url, calls_per_day=1000, **more)
        with settings.apps_file.open("a") as file:
            file.write(f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_token = "{SYSTEM_TOKEN}"\n')
        found = World(settings, clock, dingtalk)
        for each in (app, reconcile_runs):
            monkeypatch.setattr(each, "open_reconciler", found.open_reconciler)
        yield found


async def test_a_restart_makes_no_pass_before_the_next_one_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as found:
        for _ in range(23):
            service = await found.serve(HOUR_S)
            assert service.problem is None, "the last pass was complete"
        assert found.passes == 1
        await found.serve(2 * HOUR_S)
        assert found.passes == 2


async def test_after_incomplete_passes_a_restart_continues_the_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def passes_in_a_day(folder: Path, restarts: int) -> int:
        async with world(folder, monkeypatch) as found:
            found.dingtalk.faults.is_down = True
            for _ in range(restarts):
                assert "down" in str((await found.serve(DAY_S / restarts)).problem)
            # A pass ends with its first call.
            return found.dingtalk.calls[wire.GetToken.path]

    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "restarted").mkdir()
    undisturbed = await passes_in_a_day(tmp_path / "undisturbed", 1)
    assert undisturbed == 11, "after 1, 2, 4 minutes …"
    assert await passes_in_a_day(tmp_path / "restarted", 24) == undisturbed


async def test_a_pass_that_made_no_call_is_tried_again_every_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as found:
        found.kafka_is_away = lambda: found.clock.now_ms() < NOW + HOUR_MS
        service = await found.serve(HOUR_S - 60)
        assert (found.counted, service.problem) == (0, "Kafka does not answer")
        service = await found.serve(120)
        assert (found.passes, service.problem) == (1, None)


async def test_a_repair_that_kafka_refuses_costs_the_read_back_one_reading_in_each_quiet_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, read_back_quiet=HOUR_S) as found:
        found.dingtalk.company.happened(DECISION)
        found.streams.fold(LIFE)
        await found.serve(600)
        calls = found.counted
        found.streams.fold([structs.replace(DECISION, outcome=None)])
        found.streams.is_away = lambda: True
        await found.serve(6 * HOUR_S)
        assert 0 < found.counted - calls <= 3 * 7


async def test_a_wall_clock_that_was_wrong_delays_no_pass_beyond_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as found:
        found.clock.set_by_s(400 * DAY_S)
        await found.serve(HOUR_S)
        found.clock.set_by_s(-400 * DAY_S)
        await found.serve(DAY_S + HOUR_S)
        assert found.passes == 2


async def test_a_pass_by_the_command_is_made_instead_of_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator corrects what DingTalk refuses, and sees at once whether that was all."""
    async with world(tmp_path, monkeypatch) as found:

        def load_settings(*_: object) -> ReconcileSettings:
            return found.settings

        monkeypatch.setattr(reconcile_runs, "load_settings", load_settings)
        monkeypatch.setattr(reconcile_runs, "open_data", partial(open_data, clock=found.clock))
        found.dingtalk.faults.denied[wire.GetFormListInApp.path] = "qyapi_yida"
        assert "qyapi_yida" in str((await found.serve(HOUR_S)).problem)
        found.dingtalk.faults.denied.clear()
        found.clock.until_s += HOUR_S
        done = await asyncio.to_thread(reconcile_runs.one_pass, {})
        assert done["problems"] == {}
        passes = found.passes
        assert (await found.serve(HOUR_S)).problem is None
        assert found.passes == passes
