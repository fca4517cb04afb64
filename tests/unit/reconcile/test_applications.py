"""Apps and tokens follow DingTalk's list, across restarts. Old tokens stay for a day, nothing is removed silently."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import structlog
from pydantic import SecretStr

from support.reconcile import APP_TYPE, CORP_ID, SYSTEM_TOKEN, FakeApi, fake_api
from taskbridge.dingtalk.apps import Organisation
from taskbridge.dingtalk.calls import Refused, Unexpected
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.reconcile.applications import AppSync, AppTokens, Report
from taskbridge.reconcile.credentials_file import CredentialsText
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

DAY_S = 86_400
CORP_TOKEN = "fake-corp-token"
ENTRY = f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]\n'


@dataclass
class Synced:
    api: FakeApi
    path: Path
    database: sqlite3.Connection
    corp_token: str = CORP_TOKEN

    async def run(self, *, dry_run: bool = False) -> list[tuple[str, str]]:
        return [(each.change, each.app_type) for each in (await self.report(dry_run=dry_run)).changes]

    async def report(self, *, dry_run: bool = False) -> Report:
        """As after a restart: everything is opened again."""
        client = self.api.client
        organisation = Organisation(client.app.corp, client.app.user_id, SecretStr(self.corp_token))
        tokens = AppTokens(self.database)
        sync = AppSync(self.path, tokens, self.api.clock)
        return await sync.run(OrganisationApi(self.api.calls, organisation), dry_run=dry_run)

    @property
    def listed(self) -> dict[str, str]:
        return self.api.dingtalk.system_tokens

    def accepted(self, app_type: str = APP_TYPE) -> list[str]:
        """What the edge accepts, as it reads the file."""
        apps = CredentialsFile(self.path).current.apps(app_type)
        return [token.secret.get_secret_value() for app in apps for token in app.tokens]


@asynccontextmanager
async def synced(path: Path, text: str = ENTRY) -> AsyncGenerator[Synced]:
    credentials = path / "credentials.toml"
    credentials.write_text(text)
    async with fake_api() as api:
        yield Synced(api, credentials, sqlite3.connect(":memory:", isolation_level=None))


async def test_a_new_app_is_accepted_with_its_corp(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        found.listed["APP_2"] = "token-2"
        assert await found.run() == [("added", "APP_2")]
        assert (found.accepted(), found.accepted("APP_2")) == ([SYSTEM_TOKEN], ["token-2"])
        assert CredentialsFile(found.path).current.apps("APP_2")[0].corp_id == CORP_ID
        assert await found.run() == []
        assert AppTokens(found.database).to_replay() == {"APP_2"}


async def test_a_renewed_token_is_accepted_next_to_the_old_one_for_a_day(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        await found.run()
        found.listed[APP_TYPE] = "renewed"
        found.api.clock.pass_s(3600)
        assert await found.run() == [("renewed", APP_TYPE)]
        found.api.clock.pass_s(DAY_S - 1)
        assert await found.run() == []
        assert found.accepted() == ["renewed", SYSTEM_TOKEN]
        found.api.clock.pass_s(1)
        assert await found.run() == [("old-token-dropped", APP_TYPE)]
        assert found.accepted() == ["renewed"]


async def test_the_day_begins_when_the_file_has_the_new_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with synced(tmp_path) as found:
        await found.run()
        found.listed[APP_TYPE] = "renewed"
        with monkeypatch.context() as full:
            full.setattr("os.fchmod", _no_space)
            with pytest.raises(OperatorError, match="the old file stays"):
                await found.run()
        assert found.accepted() == [SYSTEM_TOKEN]
        found.api.clock.pass_s(2 * DAY_S)
        assert await found.run() == [("renewed", APP_TYPE)]
        assert found.accepted() == ["renewed", SYSTEM_TOKEN]


async def test_tokens_that_a_person_wrote_stay(tmp_path: Path) -> None:
    text = f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["mine"]\nsystem_token_files = ["token"]\n'
    (tmp_path / "token").write_text(f"{SYSTEM_TOKEN}\n")
    async with synced(tmp_path, text) as found:
        assert await found.run() == []
        found.listed[APP_TYPE] = "renewed"
        assert await found.run() == [("renewed", APP_TYPE)]
        found.api.clock.pass_s(9 * DAY_S)
        assert await found.run() == []
        assert found.accepted() == ["renewed", "mine", SYSTEM_TOKEN]


async def test_a_token_that_comes_back_is_not_dropped(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        await found.run()
        for token in ("renewed", SYSTEM_TOKEN):
            found.listed[APP_TYPE] = token
            await found.run()
        found.api.clock.pass_s(DAY_S)
        assert await found.run() == [("old-token-dropped", APP_TYPE)]
        assert found.accepted() == [SYSTEM_TOKEN]


async def test_a_removed_app_is_reported_each_time_and_stays(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        found.listed["APP_2"] = "token-2"
        await found.run()
        del found.listed["APP_2"]
        for _ in range(2):
            with structlog.testing.capture_logs() as logs:
                assert await found.run() == [("absent", "APP_2")]
            assert [(each["event"], each["log_level"]) for each in logs] == [("app_absent", "warning")]
        assert found.accepted("APP_2") == ["token-2"]
        [(_, report)] = AppTokens(found.database).last()
        assert (report.listed, report.of("absent")) == (1, ["APP_2"])


class Killed(BaseException):
    """The process ends here."""


def _killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("at", ["replace", "record"])
async def test_after_a_kill_around_the_replacement_callbacks_are_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Before or after the file has the new app, the renewed token or the app that came back."""
    place = {"replace": CredentialsText, "record": AppTokens}[at]
    async with synced(tmp_path) as found:
        found.listed["APP_BACK"] = "token-3"
        await found.run()
        AppTokens(found.database).replayed(AppTokens(found.database).to_replay())
        found.path.write_text(ENTRY)
        found.listed.update({"APP_2": "token-2", APP_TYPE: "renewed"})
        with monkeypatch.context() as dying:
            dying.setattr(place, at, _killed)
            with pytest.raises(Killed):
                await found.run()
        await found.run()
        assert [found.accepted(each) for each in ("APP_2", APP_TYPE, "APP_BACK")] == [
            ["token-2"],
            ["renewed", SYSTEM_TOKEN],
            ["token-3"],
        ]
        assert AppTokens(found.database).to_replay() == {"APP_2", APP_TYPE, "APP_BACK"}


async def test_of_two_syncs_at_once_one_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command and the service: the second one has read the file before the first one replaces it."""
    async with synced(tmp_path) as found:
        found.listed["APP_2"] = "token-2"
        check = CredentialsText._check_unchanged  # pyright: ignore[reportPrivateUsage]

        def late(self: CredentialsText, path: Path) -> None:
            found.path.write_text(f'{ENTRY}\n[[apps]]\napp_type = "APP_3"\nsystem_tokens = ["token-3"]\n')
            check(self, path)

        with monkeypatch.context() as other:
            other.setattr(CredentialsText, "_check_unchanged", late)
            with pytest.raises(OperatorError, match="was changed meanwhile: try again"):
                await found.run()
        assert await found.run() == [("added", "APP_2"), ("absent", "APP_3")]
        assert [found.accepted(each) for each in ("APP_2", "APP_3")] == [["token-2"], ["token-3"]]
        assert AppTokens(found.database).to_replay() == {"APP_2"}


async def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        found.listed["APP_2"] = "token-2"
        assert await found.run(dry_run=True) == [("added", "APP_2")]
        assert found.path.read_text() == ENTRY
        assert (AppTokens(found.database).last(), AppTokens(found.database).to_replay()) == ([], set())


async def test_a_missing_permission_or_a_wrong_corp_token_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with synced(tmp_path) as found:
        found.api.dingtalk.organisation.missing_permissions.add("Yida.App.Read")
        with pytest.raises(Refused, match=r"needs the permission Yida\.App\.Read"):
            await found.run()
        found.api.dingtalk.organisation.missing_permissions.clear()
        found.corp_token = "another"
        with pytest.raises(Refused, match="corp token must be right") as raised:
            await found.run()
        assert "接入密钥不匹配:…" in str(raised.value), "DingTalk repeats the proof, which is a secret"
        assert found.path.read_text() == ENTRY


async def test_without_tokens_in_the_list_the_edition_is_named(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        found.api.dingtalk.organisation.gives_system_tokens = False
        with pytest.raises(Unexpected, match="dedicated edition"):
            await found.run()
        assert found.path.read_text() == ENTRY


async def test_no_secret_is_shown(tmp_path: Path) -> None:
    async with synced(tmp_path) as found:
        found.listed[APP_TYPE] = "the-renewed-token"
        with structlog.testing.capture_logs() as logs:
            report = await found.report()
        stored = [*found.database.iterdump()]
        shown = f"{report!r} {logs} {stored}"
        secrets = (SYSTEM_TOKEN, "the-renewed-token", CORP_TOKEN, "the-app-secret")
        assert [each for each in secrets if each in shown] == []


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
