"""Retries, the budget of calls, errors by who acts next, and secrets that are never shown."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import traceback
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import httpx2
import pytest
from pydantic import SecretStr

from support.dingtalk import FakeClock
from support.reconcile import APP_SECRET, NOW, SYSTEM_TOKEN, fake_api, filed
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import Days, YidaApi
from taskbridge.dingtalk.apps import App, Corp, Organisation
from taskbridge.dingtalk.calls import (
    Absent,
    AddressLimited,
    Calls,
    Pace,
    Refused,
    Spent,
    TooFast,
    Unexpected,
    Unreachable,
    Unsent,
)
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.dingtalk.times import DAY_MS, day_start_ms
from taskbridge.reconcile.budget import Allowance, Budget
from taskbridge.runtime.bounded_http import MAX_ANSWER_BYTES, open_http

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from support.reconcile import FakeApi

QPS = 403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
ANY = 1000


@asynccontextmanager
async def calls_to(
    *responses: httpx2.Response | Exception, env: str | None = None, allowance: Allowance | None = None
) -> AsyncGenerator[tuple[Calls, FakeClock, list[httpx2.Request]]]:
    """Calls that get these answers, the last one again and again; the clock, and what was sent."""
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == wire.GetToken.path.format(corp_id="ding1"):
            return httpx2.Response(200, json={"access_token": "a-token", "expires_in": 7200})
        sent.append(request)
        found = responses[min(len(sent), len(responses)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    clock, corp = FakeClock(NOW), Corp("ding1", "key-1", SecretStr(APP_SECRET), env)
    database = sqlite3.connect(":memory:", isolation_level=None)
    pace = Pace(10, clock) if allowance is None else Budget(database, allowance, clock)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="https://dingtalk") as http:
        yield Calls(http, corp, pace, clock, attempts=3), clock, sent


_TASK = {"app_type": "APP_1", "system_token": "t", "user_id": "u", "process_instance_id": "I-1"}


@pytest.mark.parametrize(
    ("code", "counted"),
    [
        (QPS, 0),
        ((403, "Forbidden.AccessDenied.QpsLimitForApi"), 0),
        ((500, "unclassifiedError"), 2),
        ((504, ""), 2),
        ((429, ""), 0),
    ],
)
async def test_retries_count_as_dingtalk_counts_them(code: tuple[int, str], counted: int) -> None:
    """A call that a limit refused is none; one that may have been carried out is."""
    async with fake_api(filed()) as fake:
        await fake.client.instance("I-1")
        fake.dingtalk.faults.answers_next.extend([code, code])
        before = fake.clock.now_ms()
        await fake.client.instance("I-1")
        assert fake.clock.now_ms() - before >= 3000
        assert fake.budget.used("ding1") == (2 + counted, 2 + counted)


@pytest.mark.parametrize(
    ("fault", "error", "counted"),
    [(httpx2.ConnectError("away"), Unsent, False), (httpx2.ReadTimeout("no answer in time"), Unreachable, True)],
)
async def test_a_call_that_does_not_reach_dingtalk_does_not_count(
    fault: Exception, error: type[Exception], *, counted: bool
) -> None:
    """Each attempt does, from when DingTalk may have got it: with three a day, none is left for the next call."""
    async with calls_to(fault, allowance=Allowance(10, 3, ANY)) as (calls, _, _):
        for expected in (error, Spent if counted else error):
            with pytest.raises(expected):
                await calls.get(wire.GetOperationRecords(**_TASK), wire.OperationRecordList)


@pytest.mark.parametrize(
    ("request_", "method", "name"),
    [
        (wire.GetOperationRecords(**_TASK), "GET", "env"),
        (wire.RedirectTask(**_TASK, task_id=1, now_action_executor_id="u-li", remark=""), "POST", "env"),
        (wire.TerminateInstance(**_TASK), "PUT", "env"),
        (wire.GetFormListInApp(app_type="APP_1", system_token="t", user_id="u", form_types="process"), "GET", None),
    ],
)
@pytest.mark.parametrize("env", ["sgp_vpc", None])
async def test_the_site_of_the_corp_is_sent_by_calls_that_have_a_field_for_it(
    request_: wire.Request, method: str, name: str | None, env: str | None
) -> None:
    """In the query or the body, where the call has its other fields."""
    async with calls_to(httpx2.Response(200), env=env) as (calls, _, sent):
        await (calls.get(request_, object) if method == "GET" else calls.change(request_, method=method))
    [request] = sent
    fields = json.loads(request.content) if request.content else dict(request.url.params)
    assert fields["userId"] == "u"
    assert {fields.get(each) for each in ("env", "envProfile")} == {None, env if name else None}
    assert name is None or fields.get(name) == env


async def test_after_the_last_attempt_the_error_has_the_time_of_the_next_retry() -> None:
    async with fake_api(filed()) as fake:
        await fake.client.instance("I-1")
        fake.dingtalk.faults.is_down = True
        with pytest.raises(Unreachable, match="503") as raised:
            await fake.client.instance("I-1")
        assert raised.value.retry_at_ms > fake.clock.now_ms()
        assert fake.budget.used("ding1").day == 4
        fake.dingtalk.faults.is_down = False
        fake.dingtalk.faults.answers_next.extend([QPS] * 3)
        with pytest.raises(TooFast):
            await fake.client.instance("I-1")


async def test_the_page_for_a_limited_address_stops_all_calls_for_five_minutes() -> None:
    async with fake_api(filed()) as fake:
        fake.dingtalk.faults.punishes = True
        with pytest.raises(AddressLimited):
            await fake.client.instance("I-1")
        fake.dingtalk.faults.punishes = False
        fake.clock.pass_s(299)
        calls_before = sum(fake.dingtalk.calls.values())
        with pytest.raises(AddressLimited):
            await fake.client.instance("I-1")
        assert sum(fake.dingtalk.calls.values()) == calls_before
        fake.clock.pass_s(2)
        assert await fake.client.instance("I-1")


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_the_page_of_a_gateway_says_nothing_of_a_change(status: int) -> None:
    """It may have been carried out, so nobody may send it again without looking."""
    page = httpx2.Response(status, html="<html><center>nginx</center></html>")
    async with calls_to(page) as (calls, _, sent):
        with pytest.raises(Unreachable) as raised:
            await calls.change(wire.TerminateInstance(**_TASK), method="PUT")
        assert not isinstance(raised.value, Unsent)
        assert len(sent) == 1


async def test_the_page_of_a_gateway_stops_no_other_call() -> None:
    page, found = httpx2.Response(502, html="<html></html>"), httpx2.Response(200, json={"result": []})
    async with calls_to(page, found) as (calls, _, sent):
        assert await calls.get(wire.GetOperationRecords(**_TASK), wire.OperationRecordList)
        assert len(sent) == 2


@pytest.mark.parametrize(
    "request_",
    [
        wire.PreviewPublishedProcess(
            app_type="APP_1", system_token="t", user_id="u", form_uuid="F", form_data_json='{"a": "<script>"}'
        ),
        wire.SaveFormRemark(
            app_type="APP_1", system_token="t", user_id="u", form_instance_id="I-1", content="<script>"
        ),
    ],
    ids=["preview", "remark"],
)
async def test_a_page_against_what_somebody_wrote_does_not_count_as_the_address_limit(request_: wire.Request) -> None:
    """A gateway takes a value for an attack: the calls of all corps go on."""
    page, found = httpx2.Response(405, html="<html>blocked</html>"), httpx2.Response(200, json={"result": []})
    async with calls_to(page, found) as (calls, _, sent):
        with pytest.raises(Unexpected):
            await calls.post(request_, object)
        assert await calls.get(wire.GetOperationRecords(**_TASK), wire.OperationRecordList)
        assert len(sent) == 2


async def test_no_call_is_repeated_before_the_time_that_the_answer_names() -> None:
    busy = httpx2.Response(429, headers={"Retry-After": "90"}, json={})
    async with calls_to(busy) as (calls, clock, sent):
        with pytest.raises(TooFast) as raised:
            await calls.get(wire.GetOperationRecords(**_TASK), wire.OperationRecordList)
        assert (raised.value.retry_at_ms - clock.now_ms(), len(sent)) == (90_000, 1)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"code": "invalidState.form.dataDoesNotExistOrIsDeleted", "message": None, "requestid": None}, Absent),
        ({"code": wire.CODE_MONTH, "message": {"zh": "quota"}}, Spent),
        ({"code": None, "message": "none"}, Refused),
        ([], Refused),
    ],
)
async def test_a_refusal_with_other_types_is_understood_by_its_code(fields: object, error: type[Exception]) -> None:
    async with calls_to(httpx2.Response(400, json=fields)) as (calls, _, _):
        with pytest.raises(error):
            await calls.get(wire.GetOperationRecords(**_TASK), wire.OperationRecordList)


@pytest.mark.parametrize("rows", [[], [{"appType": "APP_1"}] * 100], ids=["none", "the same"])
async def test_pages_that_bring_nothing_new_end_a_list(rows: list[object]) -> None:
    """Otherwise a wrong count would use up all calls of the month."""
    answer = httpx2.Response(200, json={"data": rows, "totalCount": 3000, "pageNumber": 1})
    async with calls_to(answer) as (calls, _, sent):
        organisation = Organisation(Corp("ding1", "key-1", SecretStr(APP_SECRET)), "manager", SecretStr("t"))
        with pytest.raises(Unexpected, match=f"returned {min(len(rows), 1)} of"):
            await OrganisationApi(calls, organisation).applications()
        assert len(sent) <= 2


async def test_an_empty_page_ends_a_query_that_is_then_not_complete() -> None:
    answer = httpx2.Response(200, json={"data": [], "totalCount": 3000, "pageNumber": 1})
    async with calls_to(answer) as (calls, clock, sent):
        app = App(Corp("ding1", "key-1", SecretStr(APP_SECRET)), "APP_1", SecretStr("t"), "manager", ())
        days = Days("2026-09-21", "2026-09-21")
        with pytest.raises(Unreachable, match="returned 0 of 3000"):
            [rows async for rows in YidaApi(calls, app, clock).instances("FORM-1", days)]
        assert len(sent) == 1


async def test_the_quota_of_the_month_stops_all_calls_until_the_next_one_across_restarts() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    async with fake_api(filed(), database=database) as fake:
        fake.dingtalk.faults.calls_per_month = 1
        await fake.client.instance("I-1")
        with pytest.raises(Spent) as raised:
            await fake.client.instance("I-1")
        assert raised.value.retry_at_ms == day_start_ms("2026-10-01")
    async with fake_api(filed(), database=database) as again:
        with pytest.raises(Spent, match="ApiCountLimitForOrg"):
            await again.client.instance("I-1")
        assert again.dingtalk.calls[wire.GetInstanceById.path] == 0
        again.clock.pass_s((day_start_ms("2026-10-01") - NOW) / 1000)
        assert await again.client.instance("I-1")


async def test_the_allowance_is_never_exceeded_and_survives_restarts() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    allowance = Allowance(per_second=10, per_day=3, per_month=5)

    async def spend(fake: FakeApi, calls: int) -> int:
        for made in range(calls):
            try:
                await fake.client.instance("I-1")
            except Spent:
                return made
        return calls

    async with fake_api(filed(), allowance=allowance, database=database) as fake:
        assert await spend(fake, 2) == 2
    async with fake_api(filed(), allowance=allowance, database=database) as fake:
        assert fake.budget.left("ding1") == 1
        assert await spend(fake, ANY) == 1
        fake.clock.pass_s(DAY_MS / 1000)
        assert await spend(fake, ANY) == 2, "and then the month is used up"
        with pytest.raises(Spent, match="PER_MONTH") as raised:
            fake.budget.check("ding1")
        assert raised.value.retry_at_ms == day_start_ms("2026-10-01")


async def test_calls_are_spaced_by_the_limit_per_second() -> None:
    async with fake_api(filed(), allowance=Allowance(per_second=4, per_day=ANY, per_month=ANY)) as fake:
        before = fake.clock.now_ms()
        for _ in range(8):
            await fake.client.instance("I-1")
        assert fake.clock.now_ms() - before == 2000, "a token and eight calls"


async def test_a_token_is_reused_renewed_in_time_and_renewed_once_when_refused() -> None:
    async with fake_api(filed()) as fake:
        for _ in range(3):
            await fake.client.instance("I-1")
        assert fake.dingtalk.calls[wire.GetToken.path] == 1
        fake.clock.pass_s(7200 - 200)
        await fake.client.instance("I-1")
        assert fake.dingtalk.calls[wire.GetToken.path] == 2
        fake.dingtalk.revoke_tokens()
        await fake.client.instance("I-1")
        assert fake.dingtalk.calls[wire.GetToken.path] == 3
        fake.dingtalk.faults.answers_next.extend([(400, "InvalidAuthentication")] * 3)
        with pytest.raises(Refused):
            await fake.client.instance("I-1")


def broken_token(fake: FakeApi) -> None:
    fake.dingtalk.system_tokens["APP_1"] = "another"


def broken_secret(fake: FakeApi) -> None:
    fake.dingtalk.app_secret = "another"


def punished(fake: FakeApi) -> None:
    fake.dingtalk.faults.punishes = True


def down(fake: FakeApi) -> None:
    fake.dingtalk.faults.is_down = True


def no_permission(fake: FakeApi) -> None:
    fake.dingtalk.faults.answers_next.append((403, "Forbidden.AccessDenied.AccessTokenPermissionDenied"))


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
    breaks: Callable[[FakeApi], None], error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> str:
        async with fake_api(filed()) as fake:
            if breaks is not broken_secret:
                await fake.client.instance("I-1")
            breaks(fake)
            with pytest.raises(error) as raised:
                await fake.client.instance("I-1")
            return "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(fake.client.app)

    shown = asyncio.run(scenario()) + caplog.text
    assert "instancesInfos" in shown or "limits this address" in shown or "/v1.0/oauth2/ding1/token" in shown
    assert SYSTEM_TOKEN not in shown
    assert APP_SECRET not in shown


def test_the_repr_of_a_request_has_no_secret() -> None:
    request = wire.GetRunningTasks(app_type="APP_1", system_token=SYSTEM_TOKEN, user_id="u", process_instance_id="I-1")
    shown = repr([request, wire.GetToken("key", APP_SECRET), wire.Token("a-token", 7200)])
    assert [each for each in (SYSTEM_TOKEN, APP_SECRET, "a-token") if each in shown] == []


async def test_an_answer_that_is_not_understood_is_an_error() -> None:
    async with fake_api(filed()) as fake:
        await fake.client.running_tasks("I-1")
        fake.dingtalk.faults.answers_next.append((200, "a problem that is none"))
        with pytest.raises(Unexpected, match="RunningTaskList"):
            await fake.client.running_tasks("I-1")


async def test_an_answer_that_is_too_large_is_an_error() -> None:
    async with fake_api(filed("I-1", form_data={"field": "x" * (MAX_ANSWER_BYTES + 1)})) as fake:
        with pytest.raises(Unexpected, match="more than"):
            await fake.client.instance("I-1")


async def test_a_limit_of_this_address_stops_the_calls_of_all_corps() -> None:
    async with fake_api(filed()) as fake, open_http("http://127.0.0.1:9", timeout_s=5) as http:
        fake.dingtalk.faults.punishes = True
        with pytest.raises(AddressLimited):
            await fake.client.instance("I-1")
        other = Calls(http, Corp("ding2", "key-2", SecretStr("s")), fake.budget, fake.clock, attempts=1)
        with pytest.raises(AddressLimited) as raised:
            await other.get(wire.GetRunningTasks(**_TASK), wire.RunningTaskList)
        assert 0 < raised.value.retry_at_ms - fake.clock.now_ms() <= 300_000
        assert fake.budget.used("ding2").month == 0


async def test_an_error_in_place_of_people_is_no_empty_list() -> None:
    async with calls_to(httpx2.Response(200, json={"code": "busy", "message": "later"})) as (calls, _, _):
        organisation = Organisation(Corp("ding1", "key-1", SecretStr(APP_SECRET)), "manager", None)
        with pytest.raises(Unexpected, match="UserList"):
            await OrganisationApi(calls, organisation).people(["u-li"])


async def test_no_value_of_a_form_is_taken_for_the_page_of_a_limited_address() -> None:
    """Anybody could stop all calls for five minutes, and again by each answer that has the values."""
    values = {"text_1": "punish", "text_2": "x5", "text_3": '{"punish":"x5"}'}
    async with fake_api(filed(form_data=values)) as fake:
        assert (await fake.client.instance("I-1")).data == values


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\uD83Db\ude00", "\ufffdb\ufffd"),
        (rb"\ud83d\ude00\ude00\ud83d\ud83d\ude00", "😀\ufffd\ufffd😀"),
        (rb"\\ud83d\\\ud83d", "\\ud83d\\\ufffd"),
        (b"a\xed\xa0\xbd", "a\ufffd\ufffd\ufffd"),
    ],
)
async def test_half_a_character_hides_no_answer(sent: bytes, text: str) -> None:
    content = b'{"result":[{"processInstanceId":"I-1","data":{"text_1":"' + sent + b'"}}]}'
    request = wire.GetInstancesByIdList(app_type="APP_1", system_token="t", user_id="u", process_instance_ids="I-1")
    async with calls_to(httpx2.Response(200, content=content)) as (calls, _, _):
        [found] = (await calls.get(request, wire.InstanceList)).result
        assert found.data == {"text_1": text}


async def test_a_number_beyond_all_bounds_is_an_answer_that_is_not_understood() -> None:
    content = b'{"result":[{"processInstanceId":"I-1","data":{"number_1":1e9999999999999999999}}]}'
    request = wire.GetInstancesByIdList(app_type="APP_1", system_token="t", user_id="u", process_instance_ids="I-1")
    async with calls_to(httpx2.Response(200, content=content)) as (calls, _, _):
        calls._float_hook = Decimal  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Unexpected, match="InstanceList"):
            await calls.get(request, wire.InstanceList)
