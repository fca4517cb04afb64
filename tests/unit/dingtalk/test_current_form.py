"""A form of Yida as it is now, who changed it, and the steps to come: what DingTalk says, within the calls of a day."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from support.dingtalk import FakeClock, FaultyDingTalk
from support.reconcile import NOW
from taskbridge.center.actions.systems import Away, FormRead, LoggedChange, Step
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.apps import App, Apps, Corp
from taskbridge.dingtalk.calls import Refused, Spent
from taskbridge.dingtalk.current_form import logged_changes, steps_after
from taskbridge.dingtalk.decisions import YidaApps
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.schemas.events import SOURCE_YIDA, Action, Person, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskbridge.center.actions.systems import FormReader

FORM = "FORM-1"
PREVIEW = [
    wire.PreviewedStep("a-start", "提交", "ann", "安"),
    wire.PreviewedStep("a-boss", "主管审批", "bob", "鲍勃"),
    wire.PreviewedStep("a-money", "财务审批", "cai", "蔡"),
    wire.PreviewedStep("a-money", "财务审批", "dan", None),
    wire.PreviewedStep("a-end", None),
]


class Yida:
    """An instance of ann, at the step of bob."""

    def __init__(self, url: str, dingtalk: FaultyDingTalk, clock: FakeClock, *, per_day: int) -> None:
        corp = Corp("ours", "key", SecretStr("secret"))
        self._apps = Apps((), (App(corp, "APP_1", SecretStr("the-token"), "manager", ()),))
        self.systems = YidaApps(lambda: self._apps, url, clock=clock, form_calls_per_day=per_day)
        self.dingtalk, self.clock = dingtalk, clock
        dingtalk.previews[FORM] = PREVIEW
        dingtalk.company.happened(
            TaskEvent(
                *("e-1", SOURCE_YIDA, Action.CREATED, "ours", "APP_1", "I-1"),
                task_id="1",
                step_id="a-boss",
                recipient_ids=("bob",),
                originator=Person("ann", "Ann"),
                form_uuid=FORM,
                occurred_at=NOW - 1,
                received_at=NOW - 1,
                form_data={"amount": "200", "why": "train"},
            )
        )

    @property
    def reader(self) -> FormReader:
        found = self.systems.form_reader("ours", "APP_1")
        assert found is not None
        return found

    async def read(self) -> FormRead:
        found = await self.reader.read("I-1")
        assert found is not None
        return found

    def calls(self) -> dict[str, int]:
        return {path: count for path, count in self.dingtalk.calls.items() if "/oauth2/" not in path}


def with_yida(
    scenario: Callable[[Yida], Awaitable[None]], kind: type[FaultyDingTalk] = FaultyDingTalk, *, per_day: int = 100
) -> None:
    clock = FakeClock(NOW)
    dingtalk = kind(Company(), clock, system_tokens={"APP_1": "the-token"}, app_key="key", app_secret="secret")

    async def run(url: str) -> None:
        yida = Yida(url, dingtalk, clock, per_day=per_day)
        await scenario(yida)
        await yida.systems.close()

    with served(dingtalk) as url:
        asyncio.run(run(url))


def test_the_newest_values_and_who_changed_them() -> None:
    async def scenario(yida: Yida) -> None:
        yida.dingtalk.change_form("I-1", "han", amount="2000")
        yida.clock.pass_s(60)
        yida.dingtalk.change_form("I-1", "li", amount="20000")
        read = await yida.read()
        assert (read.values, read.is_running) == ({"amount": "20000", "why": "train"}, True)
        minute = NOW + 60_000 - (NOW % 60_000)
        assert await yida.reader.changes("I-1", read, ["amount", "why"]) == {"amount": LoggedChange("li", minute)}
        assert yida.calls() == {wire.GetInstanceById.path: 1, wire.ListOperationLogs.path: 1}
        assert await yida.reader.read("I-0") is None

    with_yida(scenario)


def test_the_steps_after_the_present_one_come_with_their_people() -> None:
    async def scenario(yida: Yida) -> None:
        read, to_come = await yida.read(), [Step("财务审批", [("cai", "蔡"), ("dan", None)])]
        assert await yida.reader.steps("I-1", read, ["a-boss"]) == to_come
        assert yida.calls()[wire.PreviewPublishedProcess.path] == 1
        assert wire.GetRunningTasks.path not in yida.calls()
        # No callback named the step: DingTalk is asked where it is.
        assert await yida.reader.steps("I-1", read, []) == to_come
        assert yida.calls()[wire.GetRunningTasks.path] == 1
        assert await yida.reader.steps("I-1", read, ["of an older process"]) == []

    with_yida(scenario)


def test_a_day_has_so_many_calls_and_decisions_do_not_need_them() -> None:
    async def scenario(yida: Yida) -> None:
        for _ in range(2):
            await yida.read()
        with pytest.raises(Away, match="the 2 calls of a day for forms are used up"):
            await yida.read()
        assert yida.calls() == {wire.GetInstanceById.path: 2}
        with pytest.raises(Spent):
            await yida.reader.steps("I-1", FormRead({}, is_running=True, about=_instance()), ["a-boss"])
        assert yida.systems.system("ours", "APP_1", _allowed) is not None
        yida.clock.pass_s(86_400)
        await yida.read()

    with_yida(scenario, per_day=2)


def test_without_calls_and_for_other_apps_nothing_is_read() -> None:
    async def scenario(yida: Yida) -> None:
        assert yida.systems.form_reader("ours", "APP_1") is None

    with_yida(scenario, per_day=0)

    async def others(yida: Yida) -> None:
        assert yida.systems.form_reader("ours", "APP_2") is None
        assert yida.systems.form_reader("theirs", "APP_1") is None

    with_yida(others)


@pytest.mark.parametrize(
    ("fault", "error"), [("is_down", Away), ("punishes", Away), ("calls_per_month", Away), ("denied", Refused)]
)
def test_a_failure_says_whether_it_passes(fault: str, error: type[Exception]) -> None:
    async def scenario(yida: Yida) -> None:
        values = {"calls_per_month": 0, "denied": {wire.GetInstanceById.path: "Yida.Process.Read"}}
        setattr(yida.dingtalk.faults, fault, values.get(fault, True))
        with pytest.raises(error):
            await yida.read()

    with_yida(scenario)


class Lacking(FaultyDingTalk):
    """One without the calls for logs and previews."""

    lacks = frozenset({wire.ListOperationLogs.path, wire.PreviewPublishedProcess.path})


def test_what_a_cluster_lacks_is_left_out_and_asked_for_once_an_hour() -> None:
    async def scenario(yida: Yida) -> None:
        read = await yida.read()
        for _ in range(3):
            assert await yida.reader.changes("I-1", read, ["amount"]) == {}
            assert await yida.reader.steps("I-1", read, ["a-boss"]) == []
        assert yida.calls()[wire.ListOperationLogs.path] == yida.calls()[wire.PreviewPublishedProcess.path] == 1

    with_yida(scenario, Lacking)


@pytest.mark.parametrize(
    "logged",
    [
        *(None, "amount", 7, [], {}, [None, "amount", 7, ["amount"]], {"amount": {}}),
        [{"operator": {"userId": 7}, "operateTime": "soon", "x": "amount"}],
        [{"amount": [[[[[["amount"]]]]]], "operator": ["li"], "operateTime": None}],
    ],
    ids=str,
)
def test_records_in_another_shape_name_nobody(logged: Any) -> None:
    assert {*logged_changes(logged, ["amount"]).values()} <= {LoggedChange(None, None)}


@pytest.mark.parametrize(
    ("record", "change"),
    [
        ({"operatorUserId": "li", "operateTimeGMT": "2026-11-30T08:00Z", "amount": 1}, ("li", 1_796_025_600_000)),
        ({"operator": {"userId": "li"}, "gmtCreate": 1_796_025_600_000, "f": "amount"}, ("li", 1_796_025_600_000)),
        ({"creator": "", "modifier": "li", "content": {"list": [{"fieldId": "amount"}]}}, ("li", None)),
    ],
    ids=str,
)
def test_records_are_read_in_several_shapes(record: dict[str, Any], change: tuple[str, int | None]) -> None:
    assert logged_changes([record], ["amount", "why"]) == {"amount": LoggedChange(*change)}
    assert logged_changes(record, ["amount"]) == {"amount": LoggedChange(*change)}


def test_of_parallel_steps_only_what_is_after_all_of_them_is_to_come() -> None:
    assert steps_after(PREVIEW, ["a-start", "a-money"]) == []
    assert (
        len(steps_after([PREVIEW[0], *(wire.PreviewedStep(None, f"{each}") for each in range(999))], ["a-start"]))
        == 100
    )
    assert [each.name for each in steps_after(PREVIEW, ["a-start"])] == ["主管审批", "财务审批"]


def _instance() -> wire.Instance:
    return wire.Instance("I-1", form_uuid=FORM, originator=wire.Member("ann"))


async def _allowed() -> bool:
    return True
