"""A dedicated cluster (专属版): calls of Yida go there, with its tokens; a call that it lacks turns off one feature."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from support.dingtalk import FakeClock
from support.reconcile import (
    APP_SECRET,
    APP_TYPE,
    BEGIN,
    CORP_ID,
    HOUR_MS,
    NOW,
    SYSTEM_TOKEN,
    company_life,
    filed,
    losses,
    reconciled,
)
from taskbridge.dingtalk import organisation, wire, workflow
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.apps import App, Corp, Organisation
from taskbridge.dingtalk.calls import Calls, NotOffered, Pace, Refused, Unexpected, Unreachable, Unsent
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.local.fake_dingtalk import Company, FakeCluster, FakeDingTalk, served
from taskbridge.reconcile.repairer import Tally
from taskbridge.reconcile.runs import find_copies
from taskbridge.runtime.bounded_http import open_http
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

APPROVAL = workflow.GetProcessInstance(process_instance_id="P-1")
APPROVAL_CHANGE = wire.TerminateInstance(app_type="", system_token="", user_id="", process_instance_id="")
CLUSTER = Corp(CORP_ID, "key-1", SecretStr(APP_SECRET), yida_url="http://yida.internal", api_url="http://yida.internal")
TOKEN_BY_CORP = wire.GetToken.path


class Both(NamedTuple):
    """An organisation with a cluster of its own; its people are at the public DingTalk."""

    public: FakeDingTalk
    cluster: FakeCluster
    calls: Calls
    yida: YidaApi
    organisation: OrganisationApi
    clock: FakeClock


@asynccontextmanager
async def both(*, app_secret: str = APP_SECRET) -> AsyncGenerator[Both]:
    clock = FakeClock(NOW)
    tokens = {APP_TYPE: SYSTEM_TOKEN}
    public = FakeDingTalk(Company(), clock, system_tokens=tokens, app_key="key-1", app_secret=APP_SECRET)
    cluster = FakeCluster(Company([filed()]), clock, system_tokens=tokens, app_key="key-1", app_secret=APP_SECRET)
    public.organisation.people = {"u-1": organisation.User("u-1", "张红")}
    with ExitStack() as stack:
        public_url, yida_url = (stack.enter_context(served(each.app)) for each in (public, cluster))
        corp = Corp(CORP_ID, "key-1", SecretStr(app_secret), yida_url=yida_url)
        owner = Organisation(corp, cluster.user_id, SecretStr("fake-corp-token"))
        app = App(corp, APP_TYPE, SecretStr(SYSTEM_TOKEN), cluster.user_id, ())
        async with open_http(public_url, timeout_s=30) as http:
            # So long a limit per second that no call waits: time passes by the test alone.
            calls = Calls(http, corp, Pace(1e9, clock), clock, attempts=2)
            yield Both(public, cluster, calls, YidaApi(calls, app, clock), OrganisationApi(calls, owner), clock)


async def test_each_call_goes_to_its_address_with_the_token_of_that_address() -> None:
    async with both() as found:
        assert (await found.yida.instance("I-1")).process_instance_id == "I-1"
        assert [each.name for each in await found.organisation.people(["u-1"])] == ["张红"]
        await found.yida.running_tasks("I-1")
        assert found.cluster.calls == {
            wire.GetAccessToken.path: 1,
            wire.GetInstanceById.path: 1,
            wire.GetRunningTasks.path: 1,
        }
        assert found.public.calls == {TOKEN_BY_CORP: 1, organisation.BatchGetUser.path: 1}


async def test_a_cluster_may_give_tokens_as_the_public_api_does() -> None:
    fake = FakeDingTalk(Company([filed()]), FakeClock(NOW), system_tokens={APP_TYPE: SYSTEM_TOKEN})
    with served(fake.app) as url:
        secret = SecretStr(fake.app_secret)
        corp = Corp(CORP_ID, fake.app_key, secret, yida_url=url, yida_auth_by_corp=True)
        async with open_http("http://127.0.0.1:1", timeout_s=30) as http:
            clock = FakeClock(NOW)
            calls = Calls(http, corp, Pace(10, clock), clock, attempts=2)
            app = App(corp, APP_TYPE, SecretStr(SYSTEM_TOKEN), fake.user_id, ())
            assert await YidaApi(calls, app, clock).instance("I-1")
    assert (fake.calls[TOKEN_BY_CORP], fake.calls[wire.GetAccessToken.path]) == (1, 0)


async def test_a_token_that_the_cluster_refuses_is_renewed_there() -> None:
    async with both() as found:
        await found.yida.instance("I-1")
        found.cluster._tokens.clear()  # pyright: ignore[reportPrivateUsage]
        await found.yida.instance("I-1")
        assert found.cluster.calls[wire.GetAccessToken.path] == 2
        assert found.public.calls == {}


async def test_a_wrong_secret_is_not_in_the_error() -> None:
    async with both(app_secret="another-secret") as found:
        with pytest.raises(Refused) as raised:
            await found.yida.instance("I-1")
    assert "another-secret" not in str(raised.value)


async def test_a_missing_call_is_logged_once_and_not_made_again_for_an_hour() -> None:
    path = wire.GetTaskCopies.path
    async with both() as found:
        logged: list[str] = []
        for pause_s, calls in ((0, 1), (3599, 1), (2, 2)):
            found.clock.pass_s(pause_s)
            with capture_logs() as logs, pytest.raises(NotOffered, match="does not offer"):
                await anext(found.yida.copies("u-1", 0))
            logged += [each["path"] for each in logs if each["event"] == "call_not_offered"]
            assert found.cluster.calls[path] == calls
        assert found.calls.not_offered() == [path]
    assert logged == [path]


async def test_without_lists_instances_and_tasks_are_read_one_by_one() -> None:
    async with both() as found:
        found.cluster.lacks |= {wire.GetInstancesByIdList.path}
        ids = ["I-none", "I-1", *(f"I-none-{number}" for number in range(6))]
        assert [*await found.yida.instances_by_id(ids)] == ["I-1"]
        assert found.cluster.calls[wire.GetInstanceById.path] == len(ids)
        assert await found.yida.running_tasks_of(["I-1"]) == {}


@pytest.mark.parametrize("is_cluster", [False, True])
async def test_a_company_is_repaired_with_the_calls_of_a_cluster_too(*, is_cluster: bool) -> None:
    events = company_life(11, 120)
    dropped, _ = losses(11, events, 0.1)
    clock = FakeClock(BEGIN)
    async with reconciled(Company(events), clock, is_cluster=is_cluster) as found:
        found.streams.fold(each for each in events if each.event_id not in dropped)
        clock.pass_s((events[-1].occurred_at - BEGIN + HOUR_MS) / 1000)
        report = await found.run(clock)
        assert report.is_whole
        assert found.streams.published
        assert not is_cluster or found.dingtalk.calls[wire.GetRunningTaskList.path] == 1
        with pytest.raises(NotOffered) if is_cluster else nullcontext():
            await find_copies(found.context(clock), found.apis[0], ["u-1"], 0, tally=Tally())


class Gateway:
    """What answers in front of a cluster: ``status`` without a code, while no service is behind it."""

    def __init__(self, status: int) -> None:
        self.status, self.calls = status, 0
        self.tokens = httpx2.Response(200, json={"accessToken": "t", "expireIn": 7200})

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == wire.GetAccessToken.path:
            return self.tokens
        self.calls += 1
        return httpx2.Response(self.status, html="<html>nginx</html>")


@asynccontextmanager
async def behind(gateway: Gateway, corp: Corp = CLUSTER, *, pace: Pace | None = None) -> AsyncGenerator[Calls]:
    clock = FakeClock(NOW)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(gateway), base_url="http://public") as http:
        yield Calls(http, corp, pace or Pace(10, clock), clock, attempts=1)


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotOffered), (405, NotOffered), (501, NotOffered), (200, Unexpected)]
)
async def test_a_page_of_the_clusters_gateway_limits_nobody_else(status: int, error: type[Exception]) -> None:
    """At the public API such a page means that this address made too many calls."""
    pace = Pace(10, FakeClock(NOW))
    async with behind(Gateway(status), pace=pace) as calls:
        with pytest.raises(error):
            await calls.get(APPROVAL, workflow.ApprovalAnswer)
        assert pace.address_limited_ms() == 0


async def test_a_gateway_without_its_service_turns_no_call_off() -> None:
    async with behind(gateway := Gateway(404)) as calls:
        for number in (1, 2):
            with pytest.raises(NotOffered):
                await calls.get(APPROVAL, workflow.ApprovalAnswer)
            assert gateway.calls == number
        assert calls.not_offered() == []
        with pytest.raises(Unreachable) as raised:
            await calls.change(APPROVAL_CHANGE)
        assert not isinstance(raised.value, Unsent), "a service behind it may have carried it out"


async def test_a_change_is_never_turned_off() -> None:
    async with both() as found:
        found.cluster.lacks |= {wire.TerminateInstance.path}
        for number in (1, 2):
            with pytest.raises(NotOffered):
                await found.calls.change(APPROVAL_CHANGE, method="PUT")
            assert found.cluster.calls[wire.TerminateInstance.path] == number


@pytest.mark.parametrize("answer", [httpx2.Response(404, html="<html>"), httpx2.Response(200, html="<html>sign in")])
async def test_a_wrong_kind_of_token_is_no_missing_call(answer: httpx2.Response) -> None:
    gateway = Gateway(200)
    gateway.tokens = answer
    async with behind(gateway) as calls:
        with pytest.raises(OperatorError, match="yida_auth" if answer.status_code == 404 else "AccessToken") as raised:
            await calls.get(APPROVAL, workflow.ApprovalAnswer)
        assert not isinstance(raised.value, NotOffered)
        if answer.status_code == 200:
            with pytest.raises(Unsent):
                await calls.change(APPROVAL_CHANGE)
        assert gateway.calls == 0
