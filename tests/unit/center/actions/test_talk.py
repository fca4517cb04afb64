"""Comments and urging are sent once, within limits, in the name of who may see the request, and as text."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from support.acting import ERP, World, acting, work_or_die
from support.dingtalk import PUNISHMENT, FakeClock
from support.nightly import one_of_each
from support.reconcile import CORP_ID, NOW, assigned, filed, happened
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.actions.store import Action as Row
from taskbridge.center.api.talk import (
    COMMENTS_AN_HOUR,
    URGED_A_DAY,
    URGED_AT_ONCE,
    URGED_BY_PERSON_A_DAY,
    URGED_BY_PERSON_ONE_A_DAY,
)
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.apps import App, Corp
from taskbridge.dingtalk.calls import Calls, Pace
from taskbridge.dingtalk.decisions import YidaApp
from taskbridge.runtime.refusals import BadQuery, Forbidden, NotNow, Unknown
from taskbridge.schemas.events import Action, Person

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskbridge.runtime.database import Database

GATEWAY = 504, "GatewayTimeout"
QPS = 403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
MARKUP = '<script>alert(1)</script><b>好</b> "&amp;" @所有人'
HOURS_4 = 4 * 3600


@asynccontextmanager
async def with_a_task(database: Database) -> AsyncGenerator[World]:
    """The request of u-zhang, which waits for ann."""
    async with acting(database) as world:
        world.assign(("I-1", "11", "ann"))
        yield world


def sent(world: World) -> list[tuple[str, str, str | None]]:
    """Who wrote what, and whom DingTalk notifies."""
    found = [each for each in world.dingtalk.changes if isinstance(each, wire.SaveFormRemark)]
    return [(each.user_id, each.content, each.at_user_id) for each in found]


async def test_a_comment_is_sent_once_as_text_and_is_done_when_the_vendor_accepts_it(database: Database) -> None:
    async with with_a_task(database) as world:
        [comment] = world.comment(f" {MARKUP}\n")
        assert (comment.status, world.comment(MARKUP)) == ("REQUESTED", [comment]), "one is under way"
        await world.work()
        await world.work(pass_s=1)
        assert (sent(world), world.statuses) == ([("ann", MARKUP, None)], [("DONE", "")])
        assert [each.action_id for each in world.comment(MARKUP)] == [comment.action_id], "a second click"
        assert world.trail == [
            ("ann", "comment", f"I-1  {comment.action_id}"),
            ("ann", "action_sent", f"{comment.action_id} SENDING"),
            ("ann", "action_ended", f"{comment.action_id} DONE"),
        ]
        world.clock.pass_s(601)
        [again] = world.comment(MARKUP)
        assert again.action_id != comment.action_id
        assert world.store.shown((CORP_ID, "ann"), now=NOW) == [], "it is no decision"
        assert {each.source for each in world.stored} == {" yida"}, "the release before would send it as a decision"


async def test_a_comment_and_a_decision_of_one_person_are_under_way_together(database: Database) -> None:
    async with with_a_task(database) as world:
        world.comment("why so much?")
        [decision] = world.act("agree", ("I-1", "11"))
        world.comment("ah, I see")
        await world.work()
        assert decision.status == "REQUESTED"
        assert sorted(text for _, text, _ in sent(world)) == ["ah, I see", "why so much?"]
        assert len(world.dingtalk.changes) == 3


async def test_nobody_comments_or_urges_who_may_not(database: Database) -> None:
    async with with_a_task(database) as world:
        world.arrive(assigned("51", "ann", at=NOW, instance_id="other:I-5", source="other", app_type="other"))
        refused: list[tuple[Any, type[Exception]]] = [
            (lambda: world.comment("x", by="stranger"), Unknown),
            (lambda: world.comment("x", instance="I-0"), Unknown),
            (lambda: world.comment("x", instance="other:I-5"), Forbidden),
            (lambda: world.comment(" \n\t"), BadQuery),
            (lambda: world.urge(by="stranger"), Unknown),
            (lambda: world.urge(by="ann"), Forbidden),
        ]
        for attempt, reason in refused:
            with pytest.raises(reason):
                attempt()
        world.happens(happened(Action.COMPLETED, NOW, task_id="11", actor_id="ann"))
        with pytest.raises(Unknown, match="nobody"):
            world.urge(by="u-zhang")
        await world.work()
        assert (world.stored, world.trail, world.dingtalk.changes) == ([], [], [])


async def test_whom_it_does_not_concern_writes_with_their_id_in_the_text(database: Database) -> None:
    async with with_a_task(database) as world:
        world.comment("please answer", by="root", operates=True)
        world.urge("now", by="root", operates=True)
        await world.work()
        assert sorted(sent(world), key=str) == [
            ("manager", "now (root)", "ann"),
            ("manager", "please answer (root)", None),
        ]


async def test_the_originator_urges_whom_it_waits_for_and_not_again_for_hours(database: Database) -> None:
    async with with_a_task(database) as world:
        world.happens(assigned("12", "bob", "u-zhang", at=NOW - 900))
        assert {each.recipient_id for each in world.urge(by="u-zhang")} == {"ann", "bob"}
        await world.work()
        assert sorted(sent(world), key=str) == [
            ("u-zhang", "请尽快处理。", "ann"),
            ("u-zhang", "请尽快处理。", "bob"),
        ]
        # Nobody urges themself.
        assert [each.recipient_id for each in world.urge(by="root", operates=True)] == ["u-zhang"]
        for by, operates in (("u-zhang", False), ("root", True)):
            with pytest.raises(TooManyQueries) as refused:
                world.urge("another text", by=by, operates=operates)
            assert refused.value.retry_after_s == HOURS_4
        world.happens(assigned("13", "cai", at=NOW))
        assert [each.recipient_id for each in world.urge(by="u-zhang")] == ["cai"], "who was not urged yet"
        for _ in range(2):
            await world.work()
        world.clock.pass_s(HOURS_4 + 1)
        assert len(world.urge(by="u-zhang")) == 3


async def test_urging_in_a_loop_ends_after_so_many_in_a_day(database: Database) -> None:
    async with with_a_task(database) as world:
        world.happens(assigned("12", *(f"p{each}" for each in range(20)), at=NOW - 900))
        urged = Counter[str]()
        for _ in range(100):
            try:
                urged.update(each.recipient_id for each in world.urge(by="u-zhang"))
            except TooManyQueries:
                await world.work(pass_s=600)
            assert urged.total() in (0, URGED_AT_ONCE, URGED_A_DAY)
        assert (urged.total(), max(urged.values())) == (URGED_A_DAY, 1)
        world.clock.pass_s(86_400)
        assert len(world.urge(by="u-zhang")) == URGED_AT_ONCE


async def test_the_same_words_of_two_whom_it_does_not_concern_are_two_comments(database: Database) -> None:
    """At another system, whose text has no id of the writer."""
    async with acting(database) as world:
        named: dict[str, Any] = {"instance_id": "erp:7", "source": ERP, "app_type": ERP}
        world.arrive(assigned("T-1", "ann", at=NOW, originator=Person("u-zhang"), **named))
        for by in ("root", "admin"):
            assert world.comment("please answer", by=by, instance="erp:7", operates=True)
        await world.work()
        assert sorted(each.actor_id for each in world.stored) == ["admin", "root"]
        assert {json.loads(body)["data"]["actor_id"] for _, body in world.other.received} == {"admin", "root"}


async def test_words_that_are_still_being_sent_are_refused_and_not_lost_without_a_word(database: Database) -> None:
    async with with_a_task(database) as world:
        [comment] = world.comment("why?")
        assert world.store.advance(comment, status="UNCLEAR", due_at=NOW + 10_000_000)
        world.clock.pass_s(3601)
        with pytest.raises(NotNow):
            world.comment("why?")
        assert len(world.stored) == 1


async def test_one_person_urges_so_many_in_a_day_about_all_requests(sqlite_database: Database) -> None:
    async with acting(sqlite_database) as world:
        world.happens(*(filed(f"I-{number}") for number in range(70)))
        world.assign(*((f"I-{number}", str(1000 + number), "ann") for number in range(22)))
        world.assign(*((f"I-{number}", str(1000 + number), f"p{number}") for number in range(22, 70)))
        urged = Counter[str]()
        for number in range(70):
            with suppress(TooManyQueries):
                urged.update(each.recipient_id for each in world.urge(by="u-zhang", instance=f"I-{number}"))
        assert (urged["ann"], urged.total()) == (URGED_BY_PERSON_ONE_A_DAY, URGED_BY_PERSON_A_DAY)
        assert world.urge(by="root", operates=True, instance="I-69"), "another person"


async def test_what_is_unclear_is_looked_at_when_its_time_has_come_and_not_before(database: Database) -> None:
    """Otherwise a hundred of them would come before every decision that is over."""
    async with with_a_task(database) as world:
        [comment] = world.comment("why?")
        assert world.store.advance(comment, status="UNCLEAR", due_at=NOW + 60_000)
        assert world.store.due(now=NOW) == []
        assert [each.action_id for each in world.store.due(now=NOW + 60_000)] == [comment.action_id]


async def test_urgings_that_are_refused_use_no_more_calls_than_others(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.dingtalk.faults.denied = {wire.SaveFormRemark.path: "Yida.Form.Write"}
        refused = 0
        for _ in range(30):
            try:
                refused += len(world.urge(by="u-zhang"))
            except TooManyQueries:
                break
            await world.work()
        assert refused == world.dingtalk.calls[wire.SaveFormRemark.path] == URGED_A_DAY
        assert "Yida.Form.Write" in world.statuses[0][1]


async def test_a_person_writes_so_many_in_an_hour(database: Database) -> None:
    async with with_a_task(database) as world:
        for number in range(COMMENTS_AN_HOUR):
            world.comment(f"no. {number}")
        with pytest.raises(TooManyQueries):
            world.comment("one more")
        assert world.comment("by another", by="u-zhang")
        world.clock.pass_s(3601)
        assert world.comment("one more")


@pytest.mark.parametrize("comes", ["it was carried out", "it was lost"])
async def test_what_is_not_answered_is_read_back_and_never_sent_again(sqlite_database: Database, comes: str) -> None:
    async with with_a_task(sqlite_database) as world:
        world.comment("first")
        await world.work()  # it has a token now
        if comes == "it was lost":
            world.dingtalk.faults.answers_next.append(GATEWAY)
        else:
            world.dingtalk.faults.lost_answers = 1
        world.urge(by="u-zhang")
        await world.work()
        assert world.statuses[-1] == ("UNCLEAR", "")
        with pytest.raises(TooManyQueries):
            world.urge(by="u-zhang")
        for _ in range(3):
            await world.work(pass_s=61)
        was_sent = comes == "it was carried out"
        assert world.statuses[-1] == (("DONE", "") if was_sent else ("FAILED", "unconfirmed"))
        assert len(sent(world)) == 1 + was_sent
        with pytest.raises(TooManyQueries):
            world.urge(by="u-zhang")


async def test_an_earlier_comment_with_the_same_words_confirms_nothing(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        world.comment("ok")
        for _ in range(2):
            await world.work()
        world.clock.pass_s(700)
        world.dingtalk.faults.answers_next.append(GATEWAY)
        world.comment("ok")
        for _ in range(4):
            await world.work(pass_s=61)
        assert sorted(world.statuses) == [("DONE", ""), ("FAILED", "unconfirmed")]


@pytest.mark.parametrize("received", ["{}", "<p>@Ann&nbsp;</p><p>{}</p>", None])
async def test_after_a_crash_in_an_attempt_nobody_is_urged_twice(database: Database, received: str | None) -> None:
    async with with_a_task(database) as world:
        [urging] = world.urge(by="u-zhang")
        assert world.store.advance(urging, status="SENDING", due_at=NOW + 120_000, attempts=1)
        if received:
            listed = received.format(urging.remark)
            world.dingtalk.remarks.append(wire.Remark(1, "I-1", "u-zhang", listed, NOW, "ann"))
        other = world.replica()
        for _ in range(6):
            world.clock.pass_s(121)
            under_way = await other.step()
            if under_way:
                await asyncio.wait(under_way)
        end = ("DONE", "") if received else ("FAILED", "unconfirmed")
        assert (world.statuses, sent(world)) == ([end], [])


@pytest.mark.parametrize("refused", [QPS, (429, "TooManyRequests"), (400, "InvalidAuthentication")])
async def test_what_a_limit_refused_is_sent_again(sqlite_database: Database, refused: tuple[int, str]) -> None:
    async with with_a_task(sqlite_database) as world:
        world.comment("first")
        await world.work()  # it has a token now
        world.dingtalk.faults.answers_next.append(refused)
        world.comment("second")
        for _ in range(2):
            await world.work(pass_s=3)
        assert [text for _, text, _ in sent(world)] == ["first", "second"]


class Vendor:
    """A gateway that answers a comment with a page, or as told; a token is given."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer, self.calls = answer, 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if wire.SaveFormRemark.path not in request.url.path:
            return httpx2.Response(200, json={"access_token": "a-token", "expires_in": 7200})
        self.calls += 1
        return self.answer


COMMENT = Row(
    *("a-1", "ours", "bob", "bob", "I-1", " comment x", "yida", "APP_1", "comment", "", MARKUP, "SENDING", ""),
    attempts=0,
    requested_at=1,
    due_at=None,
)


@pytest.mark.parametrize(
    ("answer", "received", "limits"),
    [
        (httpx2.Response(405, html="<html>blocked</html>"), "UNCLEAR", False),
        (httpx2.Response(200, html="<html>blocked</html>"), "UNCLEAR", False),
        (httpx2.Response(200, html=PUNISHMENT), "UNSENT", True),
        (httpx2.Response(502, html="<html>"), "UNCLEAR", False),
        (httpx2.Response(429, json={}), "UNSENT", False),
        (httpx2.Response(404, json={"code": wire.CODE_NOT_OFFERED}), "REFUSED", False),
        (httpx2.Response(200, json={"result": 7}), "ACCEPTED", False),
    ],
)
async def test_a_page_in_place_of_an_answer_stops_nothing_but_this_comment(
    answer: httpx2.Response, received: str, *, limits: bool
) -> None:
    """A gateway may take what somebody wrote for an attack; only the page for too many calls limits this address."""
    corp, clock = Corp("ours", "key", SecretStr("secret")), FakeClock(NOW)
    app, pace, vendor = App(corp, "APP_1", SecretStr("t"), "manager", ()), Pace(10, clock), Vendor(answer)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(vendor), base_url="http://public") as http:
        system = YidaApp(YidaApi(Calls(http, corp, pace, clock, attempts=2), app, clock))
        assert (await system.send(COMMENT, now=NOW)).received.name == received
    assert (pace.address_limited_ms() > 0, vendor.calls) == (limits, 1)


async def test_another_system_gets_signed_events_with_the_same_id_until_it_answers(sqlite_database: Database) -> None:
    async with with_a_task(sqlite_database) as world:
        named: dict[str, Any] = {
            "instance_id": "erp:7",
            "source": ERP,
            "app_type": ERP,
            "originator": Person("u-zhang"),
        }
        world.arrive(assigned("T-1", "ann", at=NOW, **named))
        world.other.answers = [Response(status_code=500), JSONResponse({}, 202)]
        [comment] = world.comment(MARKUP, instance="erp:7")
        await world.work()
        await world.work(pass_s=60)
        [urging] = world.urge("=now", by="u-zhang", instance="erp:7")
        await world.work(pass_s=1)
        await world.work(pass_s=1)
        bodies = [(message_id, json.loads(body)) for message_id, body in world.other.received]
        assert [message_id for message_id, _ in bodies] == [comment.action_id] * 2 + [urging.action_id]
        same = {"corp_id": "ding1", "instance_id": "7"}
        assert [(body["type"], body["data"]) for _, body in bodies[1:]] == [
            (
                "task.comment.v1",
                {**same, "action_id": comment.action_id, "actor_id": "ann", "recipient_id": None, "text": MARKUP},
            ),
            (
                "task.urge.v1",
                {**same, "action_id": urging.action_id, "actor_id": "u-zhang", "recipient_id": "ann", "text": "=now"},
            ),
        ]
        assert {each.status for each in world.stored} == {"DONE"}


@pytest.mark.parametrize("seed", one_of_each(range(4), lambda _: "a seed"))
async def test_under_faults_and_kills_nothing_is_said_twice_and_nothing_is_lost_without_a_word(
    database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    async with acting(database) as world:
        world.happens(*(filed(f"I-{each}") for each in range(12)))
        world.assign(*((f"I-{each}", str(1000 + each), "ann") for each in range(12)))
        for number in range(12):
            world.comment(f"no. {number}", instance=f"I-{number}", by="ann")
            world.urge(by="u-zhang", instance=f"I-{number}")
        while any(each.due_at for each in world.stored):
            faults = world.dingtalk.faults
            faults.is_down, faults.lost_answers = chance.random() < 0.1, int(chance.random() < 0.2)
            if chance.random() < 0.3:
                faults.answers_next.append(chance.choice([GATEWAY, QPS]))
            world.clock.pass_s(chance.choice([0.1, 1, 30, 130]))
            await work_or_die(world, chance)
        written = Counter(
            (each.form_instance_id, each.at_user_id)
            for each in world.dingtalk.changes
            if isinstance(each, wire.SaveFormRemark)
        )
        assert set(written.values()) <= {1}
        for each in world.stored:
            was_sent = (each.instance_id, each.recipient_id or None) in written
            assert each.status in (("DONE", "FAILED") if was_sent else ("FAILED", "REFUSED")), each
