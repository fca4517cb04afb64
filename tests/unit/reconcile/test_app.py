"""The service: when it makes its next pass, and how it follows apps. An outage must not use up the day's calls."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from support.dingtalk import FakeClock
from support.reconcile import CORP_ID, settings_in
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.reconcile.app import Service, pause_s
from taskbridge.reconcile.assembly import open_calls, open_data, open_form_reader
from taskbridge.reconcile.status import status_of
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection
    from pathlib import Path

    from taskbridge.reconcile.assembly import CallsOf, LocalData
    from taskbridge.reconcile.settings import ReconcileSettings

NOW, DAY_S, HOUR_S = 1_790_000_000_000, 86_400, 3600


def test_while_dingtalk_does_not_answer_the_pause_doubles() -> None:
    pauses = [pause_s(NOW + 60_000, now_ms=NOW, failures=each, every_s=DAY_S) for each in range(1, 21)]
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pause_s(0, now_ms=0, failures=100_000, every_s=DAY_S) == DAY_S


async def test_values_of_forms_are_not_read_unless_a_setting_says_so(tmp_path: Path) -> None:
    for more, works in (({}, 2), ({"form_wait_seconds": 10}, 3)):
        settings = settings_in(tmp_path, **more)
        with open_data(settings, FakeClock(NOW)) as data:
            started = await Service(settings, data).start()
            assert len(started) == works
            for each in started:
                each.close()


async def test_a_missing_key_of_hashes_stops_only_the_values_of_forms(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, form_wait_seconds=10, hash_key_file=tmp_path / "absent")
    with open_data(settings, FakeClock(NOW)) as data:
        assert Service(settings, data).problem == "no pass has completed yet"
        with pytest.raises(ConfigurationError, match="RECONCILE_HASH_KEY_FILE"):
            async with open_form_reader(settings, data):
                pass


@dataclass
class Following:
    service: Service
    data: LocalData
    dingtalk: FakeDingTalk
    calls: CallsOf
    settings: ReconcileSettings
    replayed: list[list[str]] = field(default_factory=list[list[str]])
    kafka_is_away: bool = False

    def replay(self, app_types: Collection[str]) -> int:
        if self.kafka_is_away:
            raise OperatorError("Kafka does not answer")
        self.replayed.append(sorted(app_types))
        return 1

    async def sync(self) -> list[str]:
        """The problems afterwards."""
        await self.service.sync_apps(self.calls)
        return [each["problem"] for each in status_of(self.data)["problems"]]


@asynccontextmanager
async def following(folder: Path, credentials: str | None = "") -> AsyncGenerator[Following]:
    clock = FakeClock(NOW)
    dingtalk = FakeDingTalk(Company(), clock, system_tokens={"APP_1": "token-1"}, app_key="key-1", app_secret="s")
    (folder / "credentials.toml").write_text(credentials or "")
    with served(dingtalk.app) as url:
        file = None if credentials is None else folder / "credentials.toml"
        settings = settings_in(folder, api_url=url, credentials_file=file)
        dingtalk.app_secret = "the-app-secret-of-ding1"
        with open_data(settings, clock) as data:
            async with open_calls(settings, data) as calls:
                found = Following(Service(settings, data), data, dingtalk, calls, settings)
                found.service = Service(settings, data, found.replay)
                yield found


async def test_a_new_app_is_followed_and_its_rejected_callbacks_are_replayed_once(tmp_path: Path) -> None:
    async with following(tmp_path) as found:
        assert found.data.apps == ()
        for _ in range(2):
            assert await found.sync() == []
        assert found.replayed == [["APP_1"]]
        assert [each.app_type for each in found.data.apps] == ["APP_1"], "passes have it too"
        found.dingtalk.system_tokens["APP_1"] = "token-2"
        await found.sync()
        assert found.replayed == [["APP_1"]] * 2
        [app] = found.data.apps
        assert app.system_token.get_secret_value() == "token-2"
        shown = generate_latest(found.service.metrics.registry).decode()
        assert f'taskbridge_reconcile_apps{{corp_id="{CORP_ID}",state="listed"}} 1.0' in shown


async def test_a_failed_replay_is_reported_and_repeated(tmp_path: Path) -> None:
    async with following(tmp_path) as found:
        found.kafka_is_away = True
        assert await found.sync() == ["Kafka does not answer"]
        assert CredentialsFile(tmp_path / "credentials.toml").current.count == 1
        found.kafka_is_away = False
        assert await found.sync() == []
        assert found.replayed == [["APP_1"]]


async def test_without_a_replay_the_callbacks_wait_for_a_process_that_has_one(tmp_path: Path) -> None:
    async with following(tmp_path) as found:
        await Service(found.settings, found.data).sync_apps(found.calls)
        assert await found.sync() == []
        assert found.replayed == [["APP_1"]]


async def test_problems_are_reported_until_they_are_over(tmp_path: Path) -> None:
    async with following(tmp_path) as found:
        found.dingtalk.organisation.missing_permissions.add("Yida.App.Read")
        [problem] = await found.sync()
        assert "needs the permission Yida.App.Read" in problem
        found.dingtalk.organisation.missing_permissions.clear()
        (tmp_path / "credentials.toml").write_text("[[apps")
        [problem] = await found.sync()
        assert "not TOML" in problem
        (tmp_path / "credentials.toml").write_text("")
        assert await found.sync() == []


async def test_without_a_credentials_file_the_setting_is_named(tmp_path: Path) -> None:
    async with following(tmp_path, credentials=None) as found:
        [problem] = await found.sync()
        assert problem.startswith("RECONCILE_CREDENTIALS_FILE is required")
