"""Formats of vendors, against fakes that follow their documents and refuse what these refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from taskbridge.schemas.events import Change, View
from taskbridge.webhooks.operations import example
from unit.webhooks.receivers import SECRET, Receiver, attempts, endpoint_of

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.schemas.events import TaskNotification

DINGTALK = ('format = "dingtalk-todo"', 'options = {app_key = "key", app_secret = "secret"}')
FEISHU = (
    'format = "feishu-approval"',
    'options = {app_id = "id", app_secret = "secret", approval_code = "CODE"}',
)
FLAT = ('format = "flat-todo"', 'options = {system = "yida", token = "bearer"}')
BASE = "http://127.0.0.1:{port}"


def pending(folder: Path, **changes: Any) -> TaskNotification:
    endpoint = endpoint_of(folder, "https://x.example")
    given: dict[str, Any] = {"recipient_id": "ann", "url": "https://yida.example/1", "title": "请假", **changes}
    return replace(example(endpoint), **given)


class DingTalk:
    """The to-do API: one to-do per ``sourceId``, an access token, and its errors."""

    def __init__(self) -> None:
        self.todos: dict[str, dict[str, Any]] = {}
        self.tokens = 0
        self.valid = "token"
        """The token that is given and accepted."""
        self.invalid: dict[str, Any] = {"code": "InvalidAuthentication"}
        self.invalid_status = 401
        self.token_answer: dict[str, Any] | None = None
        self.token_status = 400

    async def __call__(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - one for each answer
        path, parts = request.path, request.path.split("/")
        if path == "/v1.0/oauth2/corp/token":
            given = await request.json()
            assert given == {"client_id": "key", "client_secret": "secret", "grant_type": "client_credentials"}
            self.tokens += 1
            if self.token_answer is not None:
                return web.json_response(self.token_answer, status=self.token_status)
            return web.json_response({"access_token": self.valid, "expires_in": 7200})
        if request.headers.get("x-acs-dingtalk-access-token") != self.valid:
            return web.json_response(self.invalid, status=self.invalid_status)
        assert parts[:4] == ["", "v1.0", "todo", "users"]
        assert parts[4] == "UNION"
        if request.method == "POST":
            body = await request.json()
            if body["sourceId"] in self.todos:
                return web.json_response({"code": "todo.taskCreate.paramError", "message": "task exist"}, status=400)
            assert body["subject"]
            assert body["executorIds"] == [body["creatorId"]] == ["UNION"]
            self.todos[body["sourceId"]] = body | {"id": f"todo{len(self.todos)}", "done": False}
            return web.json_response(self.todos[body["sourceId"]])
        if request.method == "GET":
            found = self.todos.get(parts[-1])
            if found is None:
                return web.json_response({"code": "paramError", "message": "task not exist"}, status=400)
            return web.json_response({"id": found["id"]})
        [todo] = [each for each in self.todos.values() if each["id"] == parts[-1]]
        todo |= await request.json()
        return web.json_response({"result": True})


def test_a_dingtalk_todo_is_created_once_updated_and_finished(tmp_path: Path) -> None:
    vendor = DingTalk()
    added = pending(tmp_path)
    changes = (
        added,
        added,
        replace(added, change=Change.UPDATED, title="年假"),
        replace(added, change=Change.REMOVED),
    )

    results = attempts(tmp_path, Receiver(vendor), *changes, lines=DINGTALK, url=BASE, ids={"union_id/ann": "UNION"})

    assert [each.delivered for each in results] == [True] * 4, [each.problem for each in results]
    [todo] = vendor.todos.values()
    assert todo["subject"] == "年假"
    assert todo["done"] is True
    assert todo["detailUrl"] == {"appUrl": "https://yida.example/1", "pcUrl": "https://yida.example/1"}
    assert vendor.tokens == 1


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"code": "invalid.client", "message": "无效的clientSecret secret"}),
        (200, {"access_token": None, "expires_in": 7200}),
        (200, {"access_token": "token", "expires_in": None}),
        (200, {"access_token": "token", "expires_in": "soon"}),
    ],
)
def test_without_a_token_the_reason_is_said_without_the_secret(
    tmp_path: Path, status: int, answer: dict[str, Any]
) -> None:
    vendor = DingTalk()
    vendor.token_status, vendor.token_answer = status, answer
    [result] = attempts(
        tmp_path, Receiver(vendor), pending(tmp_path), lines=DINGTALK, url=BASE, ids={"union_id/ann": "UNION"}
    )
    assert not result.delivered
    assert f"no access token: {status}" in result.problem
    assert " secret" not in result.problem


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("change", [Change.ADDED, Change.REMOVED])
def test_a_revoked_token_is_obtained_again_once(tmp_path: Path, status: int, change: Change) -> None:
    vendor = DingTalk()
    vendor.invalid_status = status

    async def revokes(request: web.Request) -> web.StreamResponse:
        answer = await vendor(request)
        vendor.valid = "other" if vendor.todos else "token"
        return answer

    added = pending(tmp_path)
    results = attempts(
        tmp_path,
        Receiver(revokes),
        added,
        replace(added, change=change),
        lines=DINGTALK,
        url=BASE,
        ids={"union_id/ann": "UNION"},
    )

    assert [each.delivered for each in results] == [True, True], [each.problem for each in results]
    assert vendor.tokens == 2


def test_a_token_that_is_refused_again_is_in_no_problem(tmp_path: Path) -> None:
    given: list[str] = []

    async def refuses(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/token"):
            given.append(f"token-{len(given)}-of-the-vendor")
            return web.json_response({"access_token": given[-1], "expires_in": 7200})
        said = dict(request.headers) | {"secret": "app-secret"}
        return web.json_response({"code": "InvalidAuthentication", "message": json.dumps(said)}, status=400)

    lines = DINGTALK[0], DINGTALK[1].replace('"secret"', '"app-secret"')
    [result] = attempts(
        tmp_path, Receiver(refuses), pending(tmp_path), lines=lines, url=BASE, ids={"union_id/ann": "UNION"}
    )

    assert len(given) == 2
    assert "InvalidAuthentication" in result.problem
    for secret in (*given, "app-secret"):
        assert secret not in result.problem


@pytest.mark.parametrize("lines", [DINGTALK, FEISHU, FLAT])
@pytest.mark.parametrize("change", [Change.ADDED, Change.REMOVED])
def test_a_sign_in_page_is_no_success_of_a_vendor(tmp_path: Path, lines: tuple[str, ...], change: Change) -> None:
    async def sign_in(request: web.Request) -> web.StreamResponse:
        if request.path.endswith(("/token", "/internal")):
            fields = {"access_token": "given-token", "expires_in": 7200}
            return web.json_response(fields | {"tenant_access_token": "given-token", "expire": 7200})
        return web.Response(text="<html>Sign in</html>", content_type="text/html")

    ids = {"union_id/ann": "UNION", "feishu_open_id/ann": "ou_1"}
    [result] = attempts(tmp_path, Receiver(sign_in), pending(tmp_path, change=change), lines=lines, url=BASE, ids=ids)

    assert not result.delivered
    assert "<html>Sign in</html>" in result.problem


def test_dingtalk_gets_pending_entries_only(tmp_path: Path) -> None:
    receiver = Receiver(DingTalk())
    [result] = attempts(tmp_path, receiver, pending(tmp_path, view=View.CREATED), lines=DINGTALK, url=BASE)
    assert result.delivered
    assert receiver.got == []


def test_feishu_gets_the_instance_with_the_task(tmp_path: Path) -> None:
    instances: list[dict[str, Any]] = []

    async def feishu(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.path.endswith("tenant_access_token/internal"):
            return web.json_response({"code": 0, "tenant_access_token": "token", "expire": 7200})
        if request.headers["authorization"] != "Bearer token":
            return web.json_response({"code": 99991663, "msg": "token invalid"}, status=400)
        for name in ("approval_code", "instance_id", "status", "links", "start_time", "end_time", "update_time"):
            if name not in body:
                return web.json_response({"code": 1390001, "msg": f"{name} is required"}, status=400)
        instances.append(body)
        return web.json_response({"code": 0, "msg": "success", "data": {}})

    added = pending(tmp_path)
    changes = added, replace(added, change=Change.REMOVED), replace(added, view=View.HANDLED, outcome="AGREE")

    results = attempts(tmp_path, Receiver(feishu), *changes, lines=FEISHU, url=BASE, ids={"feishu_open_id/ann": "ou_1"})

    assert [each.delivered for each in results] == [True] * 3, [each.problem for each in results]
    assert [each["task_list"][0]["status"] for each in instances] == ["PENDING", "DONE", "APPROVED"]
    ids = {each["task_list"][0]["task_id"] for each in instances} | {each["instance_id"] for each in instances}
    assert len(ids) == 2
    assert instances[0]["i18n_resources"][0]["texts"] == [{"key": "@i18n@title", "value": "请假"}]


def test_feishus_refusal_is_a_failure_although_the_status_is_200(tmp_path: Path) -> None:
    async def refuses(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("internal"):
            return web.json_response({"code": 0, "tenant_access_token": "token", "expire": 7200})
        return web.json_response({"code": 1390014, "msg": "Do not synchronize"})

    [result] = attempts(
        tmp_path, Receiver(refuses), pending(tmp_path), lines=FEISHU, url=BASE, ids={"feishu_open_id/ann": "ou_1"}
    )
    assert not result.delivered
    assert "Feishu refuses it" in result.problem


def test_the_flat_todo_reads_back_as_the_edge_reads_one(tmp_path: Path) -> None:
    from taskbridge.edge.decision.formats import read_todo  # noqa: PLC0415 - the counterpart

    async def accepts(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"syscode": "yida", "operResult": "1", "message": ""})

    receiver = Receiver(accepts)
    added = pending(tmp_path)
    changes = (
        added,
        replace(added, change=Change.REMOVED),
        replace(added, view=View.COPIED),
        replace(added, view=View.CREATED),
    )

    results = attempts(tmp_path, receiver, *changes, lines=FLAT)

    assert all(each.delivered for each in results)
    bodies = [json.loads(each.body) for each in receiver.got]
    assert [each["isremark"] for each in bodies] == ["0", "2", "8"]
    assert receiver.got[0].headers["authorization"] == "Bearer bearer"
    action, fields = read_todo(bodies[0])
    assert action == "CREATED"
    assert fields["recipient_ids"] == ["ann"]
    assert fields["title"] == "请假"


@pytest.mark.parametrize("said", [{"operResult": "0"}, {"operResult": 0}, {"success": False}])
def test_a_flat_todo_that_the_receiver_refuses_is_a_failure(tmp_path: Path, said: dict[str, Any]) -> None:
    async def refuses(_request: web.Request) -> web.StreamResponse:
        return web.json_response({**said, "message": "unknown person"})

    [result] = attempts(tmp_path, Receiver(refuses), pending(tmp_path), lines=FLAT)
    assert not result.delivered
    assert "unknown person" in result.problem


def test_a_template_makes_the_body(tmp_path: Path) -> None:
    receiver = Receiver()
    (tmp_path / "robot.j2").write_text(
        '{"msgtype": "text", "text": {"content": {{ (title ~ " · " ~ status) | tojson }}}}'
    )
    lines = ('format = "template"', f'secrets = ["{SECRET}"]', 'options = {template = "file:robot.j2"}')

    [result] = attempts(tmp_path, receiver, pending(tmp_path, title='a "quoted" title'), lines=lines)

    assert result.delivered, result.problem
    assert json.loads(receiver.got[0].body)["text"] == {"content": 'a "quoted" title · PENDING'}
