"""Retries, the budget of calls, errors by who acts next, and secrets that are never shown."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import traceback
from typing import TYPE_CHECKING

import pytest

from support.reconcile import APP_SECRET, NOW, SYSTEM_TOKEN, asked, filed
from taskbridge.reconcile.clock import DAY_MS, day_start_ms
from taskbridge.reconcile.dingtalk import wire
from taskbridge.reconcile.dingtalk.calls import (
    AddressLimited,
    Allowance,
    Refused,
    Spent,
    TooFast,
    Unexpected,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.reconcile import Asked

QPS = 403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
ANY = 1000


def test_after_the_limit_per_second_each_retry_counts_as_a_call() -> None:
    async def ask() -> None:
        async with asked(filed()) as there:
            await there.api.instance("I-1")
            there.dingtalk.faults.answers_next.extend([QPS, QPS])
            before = there.clock.now_ms()
            await there.api.instance("I-1")
            assert there.clock.now_ms() - before >= 3000
            assert there.budget.used("ding1") == (4, 4)

    asyncio.run(ask())


def test_after_the_last_attempt_the_error_has_the_time_of_the_next_retry() -> None:
    async def ask() -> None:
        async with asked(filed()) as there:
            await there.api.instance("I-1")
            there.dingtalk.faults.is_down = True
            with pytest.raises(Unreachable, match="503") as raised:
                await there.api.instance("I-1")
            assert raised.value.retry_at_ms > there.clock.now_ms()
            assert there.budget.used("ding1").day == 4
            there.dingtalk.faults.is_down = False
            there.dingtalk.faults.answers_next.extend([QPS] * 3)
            with pytest.raises(TooFast):
                await there.api.instance("I-1")

    asyncio.run(ask())


@pytest.mark.parametrize("refused", [(500, "unclassifiedError"), (504, ""), (429, "")])
def test_a_fault_of_dingtalk_is_retried(refused: tuple[int, str]) -> None:
    async def ask() -> None:
        async with asked(filed()) as there:
            await there.api.instance("I-1")
            there.dingtalk.faults.answers_next.append(refused)
            assert await there.api.instance("I-1")

    asyncio.run(ask())


def test_the_page_for_a_limited_address_stops_all_calls_for_five_minutes() -> None:
    async def ask() -> None:
        async with asked(filed()) as there:
            there.dingtalk.faults.punishes = True
            with pytest.raises(AddressLimited):
                await there.api.instance("I-1")
            there.dingtalk.faults.punishes = False
            there.clock.pass_s(299)
            calls_before = sum(there.dingtalk.calls.values())
            with pytest.raises(AddressLimited):
                await there.api.instance("I-1")
            assert sum(there.dingtalk.calls.values()) == calls_before
            there.clock.pass_s(2)
            assert await there.api.instance("I-1")

    asyncio.run(ask())


def test_the_quota_of_the_month_stops_all_calls_until_the_next_one_across_restarts() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)

    async def ask() -> None:
        async with asked(filed(), database=database) as there:
            there.dingtalk.faults.calls_per_month = 1
            await there.api.instance("I-1")
            with pytest.raises(Spent) as raised:
                await there.api.instance("I-1")
            assert raised.value.retry_at_ms == day_start_ms("2026-10-01")
        async with asked(filed(), database=database) as again:
            with pytest.raises(Spent, match="ApiCountLimitForOrg"):
                await again.api.instance("I-1")
            assert again.dingtalk.calls[wire.GetInstanceById.path] == 0
            again.clock.pass_s((day_start_ms("2026-10-01") - NOW) / 1000)
            assert await again.api.instance("I-1")

    asyncio.run(ask())


def test_the_allowance_is_never_exceeded_and_survives_restarts() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    allowance = Allowance(per_second=10, per_day=3, per_month=5)

    async def spend(there: Asked, calls: int) -> int:
        for made in range(calls):
            try:
                await there.api.instance("I-1")
            except Spent:
                return made
        return calls

    async def ask() -> None:
        async with asked(filed(), allowance=allowance, database=database) as there:
            assert await spend(there, 2) == 2
        async with asked(filed(), allowance=allowance, database=database) as there:
            assert there.budget.left("ding1") == 1
            assert await spend(there, ANY) == 1
            there.clock.pass_s(DAY_MS / 1000)
            assert await spend(there, ANY) == 2, "and then the month is used up"
            with pytest.raises(Spent, match="PER_MONTH") as raised:
                there.budget.check("ding1")
            assert raised.value.retry_at_ms == day_start_ms("2026-10-01")

    asyncio.run(ask())


def test_calls_are_spaced_by_the_limit_per_second() -> None:
    async def ask() -> None:
        async with asked(filed(), allowance=Allowance(per_second=4, per_day=ANY, per_month=ANY)) as there:
            before = there.clock.now_ms()
            for _ in range(8):
                await there.api.instance("I-1")
            assert there.clock.now_ms() - before == 2000, "a token and eight calls"

    asyncio.run(ask())


def test_a_token_is_reused_renewed_in_time_and_renewed_once_when_refused() -> None:
    async def ask() -> None:
        async with asked(filed()) as there:
            for _ in range(3):
                await there.api.instance("I-1")
            assert there.dingtalk.calls[wire.GetAccessToken.path] == 1
            there.clock.pass_s(7200 - 200)
            await there.api.instance("I-1")
            assert there.dingtalk.calls[wire.GetAccessToken.path] == 2
            there.dingtalk.revoke_tokens()
            await there.api.instance("I-1")
            assert there.dingtalk.calls[wire.GetAccessToken.path] == 3
            there.dingtalk.faults.answers_next.extend([(400, "InvalidAuthentication")] * 3)
            with pytest.raises(Refused):
                await there.api.instance("I-1")

    asyncio.run(ask())


def broken_token(there: Asked) -> None:
    there.dingtalk.system_tokens["APP_1"] = "another"


def broken_secret(there: Asked) -> None:
    there.dingtalk.app_secret = "another"


def punished(there: Asked) -> None:
    there.dingtalk.faults.punishes = True


def down(there: Asked) -> None:
    there.dingtalk.faults.is_down = True


def no_permission(there: Asked) -> None:
    there.dingtalk.faults.answers_next.append((403, "Forbidden.AccessDenied.AccessTokenPermissionDenied"))


@pytest.mark.parametrize(
    ("breaks", "error"),
    [
        (broken_token, Refused),
        (broken_secret, Refused),
        (no_permission, Refused),
        (punished, AddressLimited),
        (down, Unreachable),
    ],
)
def test_no_secret_is_in_an_error_a_trace_a_repr_or_a_log(
    breaks: Callable[[Asked], None], error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def ask() -> str:
        async with asked(filed()) as there:
            if breaks is not broken_secret:
                await there.api.instance("I-1")
            breaks(there)
            with pytest.raises(error) as raised:
                await there.api.instance("I-1")
            return "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(there.api.app)

    shown = asyncio.run(ask()) + caplog.text
    assert "instancesInfos" in shown or "limits this address" in shown or "accessToken" in shown
    assert SYSTEM_TOKEN not in shown
    assert APP_SECRET not in shown


def test_the_repr_of_a_request_has_no_secret() -> None:
    request = wire.GetRunningTasks(app_type="APP_1", system_token=SYSTEM_TOKEN, user_id="u", process_instance_id="I-1")
    shown = repr([request, wire.GetAccessToken("key", APP_SECRET), wire.AccessToken("a-token", 7200)])
    assert [each for each in (SYSTEM_TOKEN, APP_SECRET, "a-token") if each in shown] == []


def test_an_answer_that_is_not_understood_is_an_error() -> None:
    async def ask() -> None:
        async with asked(filed()) as there:
            await there.api.running_tasks("I-1")
            there.dingtalk.faults.answers_next.append((200, "a problem that is none"))
            with pytest.raises(Unexpected, match="RunningTaskList"):
                await there.api.running_tasks("I-1")

    asyncio.run(ask())
