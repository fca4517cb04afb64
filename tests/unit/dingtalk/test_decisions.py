"""The apps of Yida as a system of the task center: what its files say, and who acts for whom."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.dingtalk import FaultyDingTalk
from support.sign_in import settings_of
from taskbridge.center.actions.systems import Agent, Systems, systems_of
from taskbridge.dingtalk import organisation
from taskbridge.dingtalk.calls import Refused
from taskbridge.dingtalk.decisions import YidaApps
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.runtime.clock import SystemClock
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

APPS = """
[[corps]]
corp_id = "ours"
app_key = "key"
app_secret = "secret"
user_id = "manager"
corp_token = "corp-secret"

[[apps]]
app_type = "APP_1"
"""
CREDENTIALS = """
[[apps]]
app_type = "APP_1"
system_tokens = ["t"]

[[sources]]
name = "erp"
corp_id = "ours"
secrets = ["whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"]
action_url = "https://erp.example/actions"
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {"apps_file": APPS, "credentials_file": CREDENTIALS}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in found}


async def test_apps_and_other_systems_are_read_from_both_files(files: dict[str, str], tmp_path: Path) -> None:
    systems = systems_of(settings_of(**files))
    assert [each[:3] for each in systems.possible("ours")] == [("yida", "APP_1", True), ("erp", None, False)]
    assert (systems.possible("another"), systems.count) == ([], 2)
    assert systems.of("ours", "yida", "APP_1") is not None
    assert systems.of("ours", "yida", "APP_2") is None
    (tmp_path / "apps_file").write_text(APPS.replace("APP_1", "APP_2"))
    (tmp_path / "credentials_file").write_text(CREDENTIALS.replace("APP_1", "APP_2"))
    for each in systems.files:
        each.reload_if_changed()
    assert systems.of("ours", "yida", "APP_2") is not None
    await systems.close()


def test_two_extensions_for_one_source_are_refused(files: dict[str, str]) -> None:
    both = [YidaApps.of(settings_of(**files)) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="have one source"):
        Systems([each for each in both if each is not None])


def test_yida_is_asked_for_agents_with_the_corp_token(files: dict[str, str]) -> None:
    dingtalk = FaultyDingTalk(Company(), SystemClock(), system_tokens={}, app_key="key", app_secret="secret")
    dingtalk.organisation.corp_token = "corp-secret"
    mine = organisation.Agent("bob", "ann", "Bob", "Ann", "2025-10-22T11:06Z", "soon", "EXECUTE", "[]")
    also_mine = organisation.Agent("ann", "cai")
    others = [organisation.Agent("joann", "cai"), organisation.Agent("bob", "ann", agent_category="START")]
    dingtalk.organisation.agents = [mine, also_mine, *others]

    async def scenario(url: str) -> None:
        systems = systems_of(settings_of(**files, dingtalk_api_url=url))
        assert await systems.agents(("ours", "ann")) == [
            Agent(("bob", "Bob"), ("ann", "Ann"), is_for_all=False, starts_at=1_761_131_160_000, ends_at=None),
            Agent(("ann", None), ("cai", None), is_for_all=True, starts_at=None, ends_at=None),
        ]
        assert await systems.agents(("theirs", "dan")) == []
        dingtalk.organisation.corp_token = "another"
        with pytest.raises(Refused) as refused:
            await systems.agents(("ours", "ann"))
        assert "corp-secret" not in str(refused.value)
        dingtalk.lacks = frozenset({organisation.GetAgentTasks.path})
        assert await systems.agents(("ours", "ann")) == []
        await systems.close()

    with served(dingtalk) as url:
        asyncio.run(scenario(url))
