"""DingTalk's approvals over the fake of its Stream mode, into the real edge with a publisher in memory."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import httpx2
import pytest
from pydantic import SecretStr

from support.approvals import INSTANCE_ID, Waiting, approvals, instance_event, task_event, until
from support.edge.fakes import CORP_ID, SOURCE
from support.lists import lists_of
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.dingtalk.approvals.stream import Stream
from taskbridge.dingtalk.apps import Corp
from taskbridge.dingtalk.calls import Calls, Pace
from taskbridge.dingtalk.workflow import ApprovalTask
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.events import View

if TYPE_CHECKING:
    from pathlib import Path


LIFE = [
    instance_event("start"),
    task_event("start", taskId=1, staffId="a"),
    task_event("start", taskId=2, staffId="b"),
    task_event("comment", taskId=2, staffId="b"),
    task_event("finish", taskId=1, staffId="a", result="agree", remark="好"),
    task_event("cancel", taskId=2, staffId="b"),
    task_event("start", taskId=3, staffId="c"),
    task_event("finish", taskId=3, staffId="c", result="redirect"),
    task_event("start", taskId=4, staffId="d"),
]
LISTS = {
    *(("manager75", View.CREATED, None), ("a", View.HANDLED, "1"), ("c", View.HANDLED, "3")),
    ("d", View.PENDING, "4"),
}


async def test_an_approval_is_in_the_lists_in_any_order_and_with_any_repetition(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        shuffled = [*enumerate(LIFE), *enumerate(LIFE)]
        random.Random(1).shuffle(shuffled)
        for number, each in shuffled:
            await found.gateway.push(*each, event_id=f"e-{number}")
        await until(lambda: len(found.statuses) == len(shuffled))
        assert set(found.statuses) == {"SUCCESS"}
        assert lists_of(found.publisher.published) == LISTS
        assert {(each.source, each.corp_id, each.instance_id) for each in found.publisher.published} == {
            (SOURCE, CORP_ID, f"{SOURCE}:{INSTANCE_ID}")
        }
        # A repeated event is the same event: all but the comment.
        assert len({each.event_id for each in found.publisher.published}) == len(LIFE) - 1
        assert found.outcomes() == {
            ("bpms_instance_change", "stored"): 2,
            ("bpms_task_change", "stored"): 14,
            ("bpms_task_change", "ignored"): 2,
        }
        assert not found.publisher.quarantined


async def test_an_event_is_acknowledged_only_after_the_edge_has_stored_it(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.line.opens.clear()
        event_id = await found.gateway.push(*task_event("start"))
        await until(lambda: found.line.requests)
        assert not found.gateway.answers
        assert event_id in found.gateway.unacknowledged
        found.line.opens.set()
        await until(lambda: not found.gateway.unacknowledged)
        [answer] = found.gateway.answers
        assert (answer["code"], answer["message"]) == (200, "OK")
        assert answer["headers"]["contentType"] == "application/json"
        assert answer["headers"]["messageId"].startswith(event_id)


@pytest.mark.parametrize("fault", ["edge away", "edge full"])
async def test_what_the_edge_does_not_store_comes_later_and_is_stored_once(tmp_path: Path, fault: str) -> None:
    async with approvals(tmp_path) as found:
        found.line.is_down = fault == "edge away"
        found.publisher.away = "disk full" if fault == "edge full" else None
        await found.gateway.push(*task_event("start"))
        await until(lambda: found.statuses)
        assert found.statuses == ["LATER"]
        assert found.service.readiness()["ready"] is False
        assert ("503" if fault == "edge full" else "ConnectError") in found.service.readiness()["edge"]
        found.line.is_down, found.publisher.away = False, None
        await found.gateway.send_again()
        await until(lambda: not found.gateway.unacknowledged)
        assert [each.task_id for each in found.publisher.published] == ["811165"]
        assert found.service.readiness() == {
            "ready": True,
            "dingtalk": "connected",
            "edge": "ok",
            "missed": "not listed yet",
        }
        assert found.outcomes() == {("bpms_task_change", "later"): 1, ("bpms_task_change", "stored"): 1}


async def test_a_connection_that_is_cut_before_the_acknowledgement_gets_the_event_again(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.line.opens.clear()
        await found.gateway.push(*task_event("start"))
        await until(lambda: found.line.requests)
        found.gateway.cut()
        found.line.opens.set()
        await until(lambda: found.gateway.is_connected and found.gateway.opened == 2)
        assert found.gateway.unacknowledged
        await found.gateway.send_again()
        await until(lambda: not found.gateway.unacknowledged)
        first, second = found.line.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.content == second.content
        assert len({each.event_id for each in found.publisher.published}) == 1


async def test_a_stop_finishes_what_is_in_work(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.line.opens.clear()
        await found.gateway.push(*task_event("start"))
        await until(lambda: found.line.requests)
        stopping = asyncio.create_task(found.stop())
        await until(lambda: found.running is not None and found.running.cancelling())
        found.line.opens.set()
        await stopping
        await until(lambda: not found.gateway.unacknowledged)
        assert found.statuses == ["SUCCESS"]


async def test_pings_are_answered_and_a_disconnect_opens_another_connection(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        await found.gateway.system("ping", '{"opaque": "123"}')
        await until(lambda: found.gateway.answers)
        assert found.gateway.answers[0]["data"] == '{"opaque": "123"}'
        await found.gateway.system("disconnect", '{"reason": "connection is expired"}')
        await until(lambda: found.gateway.is_connected and found.gateway.opened == 2)
        assert found.clock.slept == [1.0]


async def test_too_many_events_in_work_are_to_come_later(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        found.line.opens.clear()
        for each in range(101):
            await found.gateway.push(*task_event("start", taskId=each))
        await until(lambda: found.statuses)
        assert found.statuses == ["LATER"]
        found.line.opens.set()
        await until(lambda: len(found.gateway.unacknowledged) == 1)


@pytest.mark.parametrize(
    "given",
    [
        task_event("finish", taskId=None),
        task_event("start", processCode=None),
        instance_event("start", processInstanceId="x" * 300),
    ],
    ids=["no task", "no process", "long id"],
)
async def test_an_event_that_the_edge_finds_malformed_is_given_up_and_in_quarantine(
    tmp_path: Path, given: tuple[str, dict[str, object]]
) -> None:
    async with approvals(tmp_path) as found:
        await found.gateway.push(*given)
        await until(lambda: found.statuses)
        assert found.statuses == ["SUCCESS"], "DingTalk would send it for ever"
        assert [outcome for _, outcome in found.outcomes()] == ["refused"]
        assert len(found.publisher.quarantined) == 1
        assert found.service.readiness()["ready"] is True


async def test_an_event_that_is_too_large_for_the_edge_is_given_up(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        await found.gateway.push(*task_event("start", note="x" * (1 << 20)))
        await until(lambda: found.statuses)
        assert found.statuses == ["SUCCESS"], "DingTalk would send it for ever"
        assert [outcome for _, outcome in found.outcomes()] == ["refused"]


async def test_an_event_that_is_not_understood_is_not_acknowledged_and_others_are(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        event_id = await found.gateway.push(*task_event("start"), event_id="good")
        found.gateway.unacknowledged["bad"] = {**found.gateway.unacknowledged[event_id], "data": "[1"}
        await found.gateway.send_again()
        await until(lambda: "LATER" in found.statuses and "good" not in found.gateway.unacknowledged)
        assert found.gateway.unacknowledged.keys() == {"bad"}


async def test_tasks_that_an_end_leaves_open_are_cancelled(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        for each in (*LIFE, task_event("start", taskId=5, staffId="e")):
            await found.gateway.push(*each)
        found.gateway.approvals[INSTANCE_ID] = [
            *(ApprovalTask(1, "COMPLETED"), ApprovalTask(2, "CANCELED"), ApprovalTask(3, "COMPLETED")),
            *(ApprovalTask(4, "TERMINATED"), ApprovalTask(5, "RUNNING")),
        ]
        await found.gateway.push(*instance_event("terminate"))
        await until(lambda: not found.gateway.unacknowledged)
        assert lists_of(found.publisher.published) == {each for each in LISTS if each[1] is not View.PENDING}


async def test_remarks_are_left_out_unless_they_are_wanted(tmp_path: Path) -> None:
    async with approvals(tmp_path, remarks=False) as found:
        await found.gateway.push(*task_event("finish", result="agree", remark="private"))
        await until(lambda: not found.gateway.unacknowledged)
        [event] = found.publisher.published
        assert (event.outcome, event.remark) == ("agree", None)
        assert "private" not in str(event)


async def test_a_refused_secret_is_not_shown_and_tried_again_more_and_more_rarely(tmp_path: Path) -> None:
    async with approvals(tmp_path, app_secret="wrong-secret") as found:
        await until(lambda: found.gateway.opened > 8)
        assert found.clock.slept[:8] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
        details = found.service.readiness()
        assert details["ready"] is False
        assert "APPROVALS_APP_KEY" in details["dingtalk"]
        assert "wrong-secret" not in json.dumps(details)


LONG_SECRET = "the-secret-that-dingtalk-repeats"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (httpx2.Response(200, json={"endpoint": "ws://dingtalk.example/c", "ticket": "the-ticket"}), "not encrypted"),
        (httpx2.Response(401, json={"code": "no", "message": "x" * 190 + LONG_SECRET}), "APPROVALS_APP_KEY"),
        (httpx2.Response(200, json={"endpoint": None, "ticket": "the-ticket"}), "is not a valid Connection"),
        (httpx2.Response(200, html="<html>the-ticket</html>"), "limits this address"),
        (httpx2.Response(503, html="<html>the-ticket</html>"), "503"),
    ],
    ids=["not encrypted", "a long message", "a null", "a page", "a gateway's page"],
)
async def test_without_a_good_address_the_reason_is_said_without_a_secret(
    answer: httpx2.Response, problem: str
) -> None:
    async def accept(_event: object) -> bool:
        return True

    clock = Waiting()
    transport = httpx2.MockTransport(lambda _request: answer)
    async with httpx2.AsyncClient(base_url="https://dingtalk.example", transport=transport) as http:
        corp = Corp("", "key", SecretStr(LONG_SECRET))
        calls = Calls(http, corp, Pace(10, clock), clock, attempts=1)
        stream = Stream(calls, clock, accept=accept)
        running = asyncio.create_task(stream.run())
        await until(lambda: len(clock.slept) > 1)
        running.cancel()
    assert stream.problem is not None
    assert problem in stream.problem
    assert [each for each in ("the-ticket", LONG_SECRET[:9]) if each in stream.problem] == []


async def test_the_health_side_shows_the_connection(tmp_path: Path) -> None:
    async with approvals(tmp_path) as found:
        [connected] = [
            each.value
            for family in found.service.registry.collect()
            for each in family.samples
            if each.name == "taskbridge_approvals_connected"
        ]
        assert connected == 1
        transport = httpx2.ASGITransport(app=found.service.http())
        async with httpx2.AsyncClient(transport=transport, base_url="http://approvals") as http:
            statuses = [(await http.get(path)).status_code for path in ("/healthz", "/readyz", "/metrics")]
        assert statuses == [200, 200, 200]


def test_a_secret_of_the_wrong_shape_is_one_line_without_it() -> None:
    given = {
        "APPROVALS_APP_KEY": "key",
        "APPROVALS_APP_SECRET": "secret-1",
        "APPROVALS_EDGE_URL": "http://edge",
        "APPROVALS_SOURCE_SECRET": "not-a-secret",
    }
    with pytest.raises(ConfigurationError, match=r"APPROVALS_SOURCE_SECRET: .*whsec_") as raised:
        load_settings(ApprovalsSettings, given)
    assert "not-a-secret" not in str(raised.value)
