"""Forms that people start are listed by app, with links into Yida, within calls of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from support.dingtalk import FakeClock, FaultyDingTalk
from support.reconcile import NOW
from taskbridge.center.actions.systems import Away, Busy, StartForm
from taskbridge.dingtalk import decisions, organisation, wire
from taskbridge.dingtalk import start as module
from taskbridge.dingtalk.apps import App, Apps, Corp, Organisation
from taskbridge.dingtalk.calls import Absent, NotOffered, Refused
from taskbridge.dingtalk.daily import DailyPace
from taskbridge.dingtalk.decisions import YidaApps
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.runtime.database import DatabaseUnavailable
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Action, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskbridge.dingtalk.start import YidaStart

LIST, NAMES = wire.GetFormListInApp.path, organisation.ListApplication.path


class Yida:
    def __init__(self, url: str, dingtalk: FaultyDingTalk, clock: FakeClock, *, forms: tuple[str, ...]) -> None:
        self.dingtalk, self.clock = dingtalk, clock
        corp = Corp("ours", "key", SecretStr("secret"))
        self.owner = Organisation(corp, "manager", SecretStr("corp-secret"))
        given = (("APP_1", "t", forms), ("APP_2", "rotated", ()))
        self.apps = Apps((self.owner,), tuple(App(corp, a, SecretStr(t), "manager", each) for a, t, each in given))
        self.systems = YidaApps(lambda: self.apps, url, clock=clock)

    @property
    def start(self) -> YidaStart:
        found = self.systems.start("ours")
        assert found is not None
        return found

    def calls(self) -> int:
        return self.dingtalk.calls[LIST] + self.dingtalk.calls[NAMES]


def with_yida(scenario: Callable[[Yida], Awaitable[None]], *, forms: tuple[str, ...] = ()) -> None:
    clock, company = FakeClock(NOW), Company()
    for form, name in (("FORM-1", "访客申请"), ("FORM-2", "用车")):
        its = (form, SOURCE_YIDA, Action.CREATED, "ours", "APP_1", f"I-{form}")
        made = TaskEvent(*its, form_uuid=form, process_name=name, occurred_at=NOW, received_at=NOW)
        company.happened(made)
    tokens = {"APP_1": "t", "APP_2": "t"}
    dingtalk = FaultyDingTalk(company, clock, system_tokens=tokens, app_key="key", app_secret="secret")
    dingtalk.organisation.corp_token = "corp-secret"
    dingtalk.organisation.app_names = {"APP_1": "行政"}

    async def run(url: str) -> None:
        yida = Yida(url, dingtalk, clock, forms=forms)
        await scenario(yida)
        await yida.systems.close()

    with served(dingtalk) as url:
        asyncio.run(run(url))


def test_forms_are_listed_by_app_with_links_into_yida(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://www.aliwork.com/APP_1/submission/FORM-"

    async def scenario(yida: Yida) -> None:
        assert yida.start.app_types == ("APP_1", "APP_2")
        first, second = StartForm("FORM-1", "访客申请", None, f"{url}1"), StartForm("FORM-2", "用车", None, f"{url}2")
        # All of them, though the apps file names one for reconcile.
        assert await yida.start.forms("APP_1") == ([first, second], True)
        assert (await yida.start.names())["APP_1"] == "行政"
        assert yida.calls() == 2
        assert yida.systems.start("theirs") is None
        with pytest.raises(Refused):
            await yida.start.forms("APP_2")
        monkeypatch.setattr(module, "_FORMS_MOST", 1)
        assert await yida.start.forms("APP_1") == ([first], False)

    with_yida(scenario, forms=("FORM-2",))


def test_what_dingtalk_lacks_or_does_not_have_is_no_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(yida: Yida) -> None:
        assert [(each.form_uuid, each.title) for each in yida.start.named("APP_1")] == [("FORM-2", None)]
        yida.dingtalk.lacks = frozenset({LIST, NAMES})
        for call in (yida.start.forms("APP_1"), yida.start.names()):
            with pytest.raises(NotOffered):
                await call
        calls = yida.calls()
        with pytest.raises(NotOffered):
            await yida.start.forms("APP_1")
        assert yida.calls() == calls
        assert yida.start.has_names
        yida.apps = Apps((), yida.apps.apps)
        assert not yida.start.has_names
        monkeypatch.setattr(module.YidaApi, "startable", absent)
        with pytest.raises(OperatorError, match="no such app"):
            await yida.start.forms("APP_1")

    with_yida(scenario, forms=("FORM-2",))


async def absent(*_: object) -> None:
    raise Absent("no such app")


def test_a_list_with_fewer_forms_than_dingtalk_counts_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.FormList, "total_count", 3)

    async def scenario(yida: Yida) -> None:
        forms, are_all = await yida.start.forms("APP_1")
        assert (len(forms), are_all) == (2, False)

    with_yida(scenario)


@pytest.mark.parametrize("fault", ["is_down", "punishes"])
def test_a_dingtalk_that_does_not_answer_passes(fault: str) -> None:
    async def scenario(yida: Yida) -> None:
        setattr(yida.dingtalk.faults, fault, True)
        with pytest.raises(Away):
            await yida.start.forms("APP_1")
        with pytest.raises(Away):
            await yida.start.names()

    with_yida(scenario)


def test_a_corp_has_so_many_calls_in_a_day_and_decisions_and_files_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decisions, "_START_A_DAY", 3)

    async def scenario(yida: Yida) -> None:
        for _ in range(3):
            await yida.start.forms("APP_1")
        with pytest.raises(Away, match="the 3 calls of a day for start are used up"):
            await yida.start.forms("APP_1")
        assert yida.calls() == 3
        read = yida.systems.comments("ours", "APP_1")
        assert read is not None
        assert await read("FORM-1", "I-FORM-1") == []
        yida.clock.pass_s(86_400)
        await yida.start.forms("APP_1")

    with_yida(scenario)


def test_lists_that_failed_have_calls_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_START_A_DAY", 3)
    monkeypatch.setattr(decisions, "_START_AGAIN_A_DAY", 2)

    async def scenario(yida: Yida) -> None:
        for _ in range(2):
            with pytest.raises(Refused):
                await yida.start.forms("APP_2", again=True)
        with pytest.raises(Busy, match="the 2 calls of a day for start again are used up"):
            await yida.start.names(again=True)
        for _ in range(3):
            await yida.start.forms("APP_1")
        with pytest.raises(Busy):
            await yida.start.names()
        assert yida.calls() == 5

    with_yida(scenario)


def test_calls_are_counted_by_what_all_replicas_share_before_they_are_made() -> None:
    counted: list[tuple[str, str, str, int]] = []
    answers: list[bool | OperatorError] = [True, False, DatabaseUnavailable("away")]

    async def count(corp_id: str, purpose: str, day: str, most: int) -> bool:
        counted.append((corp_id, purpose, day, most))
        answer = answers.pop(0)
        if isinstance(answer, OperatorError):
            raise answer
        return answer

    async def scenario(yida: Yida) -> None:
        yida.systems.count_by(count)
        await yida.start.forms("APP_1")
        for _ in range(2):
            with pytest.raises(Away):
                await yida.start.forms("APP_1")
        assert yida.calls() == 1
        assert counted == [("ours", "start", counted[0][2], 40)] * 3
        # What DingTalk does not count is not counted here twice.
        answers.append(True)
        yida.dingtalk.faults.is_down = True
        with pytest.raises(Away):
            await yida.start.forms("APP_1")

    with_yida(scenario)


async def test_a_call_that_did_not_count_is_made_later_without_being_counted_again() -> None:
    clock, counted = FakeClock(NOW), list[str]()

    async def count(corp_id: str, *_: object) -> bool:
        counted.append(corp_id)
        return True

    pace = DailyPace("start", lambda _: 1, lambda: count, clock, decisions.Pace(10, clock))
    await pace.acquire("ours")
    pace.give_back("ours")
    await pace.acquire("theirs")
    await pace.acquire("ours")
    assert counted == ["ours", "theirs"]
    await pace.acquire("ours")
    pace.give_back("ours")
    clock.pass_s(86_400)
    await pace.acquire("ours")
    assert counted == ["ours", "theirs", "ours", "ours"], "another day begins from nothing"


def test_many_apps_can_each_be_listed_once_in_a_day_and_a_cluster_has_more() -> None:
    corp = Corp("ours", "key", SecretStr("secret"))
    cluster = Corp("theirs", "key", SecretStr("secret"), yida_url="http://yida.internal")
    apps = [App(corp, f"APP_{each}", SecretStr("t"), "manager", ()) for each in range(99)]
    found = Apps((), (*apps, App(cluster, "APP", SecretStr("t"), "manager", ())))
    systems = YidaApps(lambda: found, "http://127.0.0.1:1", clock=FakeClock(NOW))
    assert (systems.start_a_day("ours"), systems.start_a_day("theirs")) == (100, 1600)
    assert (systems.start_again_a_day("ours"), systems.start_again_a_day("theirs")) == (24, 960)
    assert (systems.comments_a_day("ours"), systems.comments_a_day("theirs")) == (500, 20_000)
