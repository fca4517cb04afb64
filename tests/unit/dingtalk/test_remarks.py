"""Comments at Yida are read for several people in one call, and a failure of one instance is that of no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from support.dingtalk import FakeClock, FaultyDingTalk
from support.reconcile import APP_SECRET, APP_TYPE, CORP_ID, FORM, NOW, SYSTEM_TOKEN, filed
from taskbridge.center.actions.systems import Away, Busy, Comment
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.apps import App, Apps, Corp
from taskbridge.dingtalk.calls import Refused
from taskbridge.dingtalk.decisions import YidaApps
from taskbridge.dingtalk.remarks import Remarks
from taskbridge.local.fake_dingtalk import Company, served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

LIST = wire.ListFormRemarks.path


class Yida:
    def __init__(self, dingtalk: FaultyDingTalk, url: str, clock: FakeClock) -> None:
        self.dingtalk, self.corp = dingtalk, Corp(CORP_ID, "key-1", SecretStr(APP_SECRET))
        apps = Apps((), (App(self.corp, APP_TYPE, SecretStr(SYSTEM_TOKEN), "manager", ()),))
        self.apps = YidaApps(lambda: apps, url, clock=clock)

    async def read(self, instance_id: str) -> Sequence[Comment] | None:
        read = self.apps.comments(CORP_ID, APP_TYPE)
        assert read is not None
        return await read(FORM, instance_id)


def at_yida(scenario: Callable[[Yida], Awaitable[None]]) -> None:
    clock = FakeClock(NOW)
    company = Company(filed(f"I-{number}") for number in range(80))
    tokens = {APP_TYPE: SYSTEM_TOKEN}
    dingtalk = FaultyDingTalk(company, clock, system_tokens=tokens, app_key="key-1", app_secret=APP_SECRET)
    for number in range(3):
        remark = wire.Remark(number, "I-1", "bob", f"no. {number}", NOW + number * 1000, "ann" if number else None)
        dingtalk.remarks.append(remark)
    dingtalk.remarks.append(wire.Remark(9, "I-2", None, None, "not a time"))

    async def run(url: str) -> None:
        yida = Yida(dingtalk, url, clock)
        await scenario(yida)
        await yida.apps.close()

    with served(dingtalk) as url:
        asyncio.run(run(url))


def test_comments_come_oldest_first_with_what_is_known_of_them() -> None:
    async def scenario(yida: Yida) -> None:
        assert await yida.read("I-1") == [
            Comment("0", "bob", "no. 0", NOW, None),
            Comment("1", "bob", "no. 1", NOW + 1000, "ann"),
            Comment("2", "bob", "no. 2", NOW + 2000, "ann"),
        ]
        assert await yida.read("I-2") == [Comment("9", "", "", 0, None)]
        assert await yida.read("I-3") == []
        assert yida.apps.comments(CORP_ID, "ANOTHER") is None
        assert yida.apps.comments("another", APP_TYPE) is None

    at_yida(scenario)


def test_what_is_opened_at_the_same_time_is_one_call_for_fifty() -> None:
    async def scenario(yida: Yida) -> None:
        found = await asyncio.gather(*(yida.read(f"I-{number}") for number in range(50)), yida.read("I-1"))
        assert [len(each or ()) for each in found] == [0, 3, 1, *[0] * 47, 3]
        assert yida.dingtalk.calls[LIST] == 1
        await asyncio.gather(*(yida.read(f"I-{number}") for number in range(80)))
        assert yida.dingtalk.calls[LIST] == 3

    at_yida(scenario)


def test_a_corp_that_does_not_answer_holds_up_no_other_and_nobody_waits_for_it() -> None:
    class Api:
        def __init__(self, corp_id: str) -> None:
            self.app = App(Corp(corp_id, "key-1", SecretStr(APP_SECRET)), APP_TYPE, SecretStr("t"), "manager", ())
            self.answers = asyncio.Event()

        async def remarks(self, _form: str, _ids: Sequence[str]) -> list[wire.Remark]:
            await self.answers.wait()
            return []

    async def scenario() -> None:
        remarks, silent, other = Remarks(), Api("silent"), Api("other")

        async def read(api: Any, form: str) -> Sequence[wire.Remark]:
            return await remarks.of(api, form, "I-1")

        waiting = [asyncio.create_task(read(silent, f"FORM-{number}")) for number in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await read(silent, "FORM-5")
        other.answers.set()
        assert await read(other, "FORM-1") == []
        silent.answers.set()
        assert await asyncio.gather(*waiting) == [[]] * 4
        assert await read(silent, "FORM-5") == []

    asyncio.run(scenario())


def test_an_instance_that_is_gone_takes_no_other_with_it() -> None:
    async def scenario(yida: Yida) -> None:
        gone, there = await asyncio.gather(yida.read("I-999"), yida.read("I-1"))
        assert (gone, len(there or ())) == ([], 3)

    at_yida(scenario)


def test_who_goes_leaves_the_others_their_call() -> None:
    async def scenario(yida: Yida) -> None:
        first, second = asyncio.create_task(yida.read("I-1")), asyncio.create_task(yida.read("I-1"))
        await asyncio.sleep(0)
        first.cancel()
        assert len(await second or ()) == 3
        with pytest.raises(asyncio.CancelledError):
            await first

    at_yida(scenario)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("is_down", Away),
        ("punishes", Away),
        ("denied", Refused),
        ("lacks", None),
        (429, Away),
        ("calls_per_month", Away),
    ],
)
def test_a_failure_is_one_call_and_says_whether_it_passes(fault: str | int, error: type[Exception] | None) -> None:
    async def scenario(yida: Yida) -> None:
        await yida.read("I-3")
        before, faults = yida.dingtalk.calls[LIST], yida.dingtalk.faults
        if fault == "lacks":
            yida.dingtalk.lacks = frozenset({LIST})
        elif fault == 429:
            faults.answers_next.append((429, "TooManyRequests"))
        else:
            setattr(
                faults, str(fault), {"denied": {LIST: "Yida.Form.Read"}, "calls_per_month": 0}.get(str(fault), True)
            )
        if error is None:
            assert await yida.read("I-1") is None
            assert await yida.read("I-1") is None, "not called again for an hour"
        else:
            with pytest.raises(error):
                await yida.read("I-1")
        assert yida.dingtalk.calls[LIST] - before == (fault != "punishes")

    at_yida(scenario)
