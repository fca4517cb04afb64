"""A work notification is one call of DingTalk's older API; what may have arrived is not sent again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from support.dingtalk import FaultyDingTalk
from support.sign_in import settings_of
from taskbridge.center.actions.systems import Answer, Received, systems_of
from taskbridge.center.reminders.messages import Notice
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.work import SendWorkNotification
from taskbridge.local.fake_dingtalk import Company, served
from taskbridge.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

APPS = """
[[corps]]
corp_id = "ours"
app_key = "key"
app_secret = "secret"
user_id = "manager"
agent_id = 4711

[[corps]]
corp_id = "theirs"
app_key = "key"
app_secret = "secret"
user_id = "manager"

[[apps]]
app_type = "APP_1"
corp_id = "ours"
system_token = "t"
"""
NOTICE = Notice(
    "ours",
    ["ann", "bob"],
    "You have new tasks",
    "You have new tasks (01-05 10:05)",
    "Open",
    "https://t.example/#pending",
)
CARD = {
    "msgtype": "action_card",
    "action_card": {
        "title": "You have new tasks",
        "markdown": "You have new tasks (01-05 10:05)",
        "single_title": "Open",
        "single_url": "https://t.example/#pending",
    },
}


def answers(app: ASGIApp, folder: Path, *notices: Notice) -> list[Answer]:
    """Of a DingTalk."""
    (folder / "apps.toml").write_text(APPS)

    async def scenario(url: str) -> list[Answer]:
        systems = systems_of(settings_of(apps_file=str(folder / "apps.toml"), dingtalk_api_url=url))
        found = [await systems.notify(each) for each in notices]
        await systems.close()
        return found

    with served(app) as url:
        return asyncio.run(scenario(url))


def faulty() -> FaultyDingTalk:
    return FaultyDingTalk(Company(), SystemClock(), system_tokens={}, app_key="key", app_secret="secret")


def test_a_notice_is_one_call_for_all_its_people(tmp_path: Path) -> None:
    dingtalk = faulty()
    text_only = NOTICE._replace(url=None, user_ids=["ann"])
    assert answers(dingtalk, tmp_path, NOTICE, text_only) == [Answer(Received.ACCEPTED)] * 2
    text = {"msgtype": "text", "text": {"content": NOTICE.text}}
    assert dingtalk.notified == {"ann": [CARD, text], "bob": [CARD]}
    assert dingtalk.calls[SendWorkNotification.path] == 2


def test_a_corp_without_an_agent_id_is_named(tmp_path: Path) -> None:
    (answer,) = answers(faulty(), tmp_path, NOTICE._replace(corp_id="theirs"))
    assert answer == Answer(Received.REFUSED, "no application of theirs can notify: see agent_id in the apps file")


@pytest.mark.parametrize(
    ("status", "code", "received"),
    [
        (403, "Forbidden.AccessDenied.QpsLimitForApi", Received.UNSENT),
        (403, wire.CODE_PERMISSION, Received.REFUSED),
        (503, "ServiceUnavailable", Received.UNCLEAR),
    ],
)
def test_what_dingtalk_refuses_says_whether_it_may_be_repeated(
    tmp_path: Path, status: int, code: str, received: Received
) -> None:
    dingtalk = faulty()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == SendWorkNotification.path:
            dingtalk.faults.answers_next.append((status, code))
        await dingtalk(scope, receive, send)

    (answer,) = answers(app, tmp_path, NOTICE)
    assert answer.received is received
    assert "access_token=" not in answer.detail
    assert dingtalk.notified == {}


def test_a_token_that_ended_is_renewed_once(tmp_path: Path) -> None:
    dingtalk, seen = faulty(), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == SendWorkNotification.path and not seen:
            seen.append(scope["path"])
            dingtalk.revoke_tokens()
        await dingtalk(scope, receive, send)

    assert answers(app, tmp_path, NOTICE) == [Answer(Received.ACCEPTED)]
    assert dingtalk.calls[SendWorkNotification.path] == 2


@pytest.mark.parametrize(
    ("answer", "received"),
    [
        (lambda: HTMLResponse("<html>"), Received.UNSENT),
        (lambda: Response("no json"), Received.UNCLEAR),
        (lambda: JSONResponse({"errcode": 0}, 504), Received.UNCLEAR),
        (lambda: Response(status_code=429), Received.UNSENT),
        (lambda: JSONResponse({"errcode": 33012, "errmsg": "无效的USERID"}), Received.REFUSED),
        (lambda: JSONResponse({}, 404), Received.REFUSED),
    ],
)
def test_an_answer_of_a_gateway_is_not_taken_for_one_of_dingtalk(
    tmp_path: Path, answer: Callable[[], Response], received: Received
) -> None:
    dingtalk = faulty()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found: Any = answer() if scope["path"] == SendWorkNotification.path else dingtalk
        await found(scope, receive, send)

    (found,) = answers(app, tmp_path, NOTICE)
    assert found.received is received


def test_calls_of_a_day_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.dingtalk.decisions._NOTICES_A_DAY", 2)
    dingtalk = faulty()
    found = answers(dingtalk, tmp_path, NOTICE, NOTICE, NOTICE)
    assert [each.received for each in found] == [Received.ACCEPTED, Received.ACCEPTED, Received.UNSENT]
    assert dingtalk.calls[SendWorkNotification.path] == 2


def test_a_dingtalk_that_is_away_has_not_got_it(tmp_path: Path) -> None:
    (tmp_path / "apps.toml").write_text(APPS)

    async def scenario() -> Answer:
        systems = systems_of(settings_of(apps_file=str(tmp_path / "apps.toml"), dingtalk_api_url="http://127.0.0.1:1"))
        try:
            return await systems.notify(NOTICE)
        finally:
            await systems.close()

    assert asyncio.run(scenario()).received is Received.UNSENT
