"""A fake of DingTalk's Stream mode: opens connections, pushes events over them, and keeps what is not acknowledged.

Nothing of it was observed at DingTalk. It follows the vendor's description of the protocol; where that leaves something
open, it does what is worst for the client.
"""

from __future__ import annotations

import json
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from aiohttp import WSMsgType, web

from taskbridge.dingtalk import wire, workflow
from taskbridge.local.host import LOOPBACK

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Mapping

_CONNECT = "/connect"
_OK = 200
_PROCESSES = 2
"""Of a page, so that tests need several."""
_LONGEST_MS = 120 * 24 * 3600 * 1000


class Listed(NamedTuple):
    """An approval as it is now."""

    process_code: str
    created_ms: int
    read: workflow.Approval


class FakeGateway:
    """Serves one application. Events that it pushed and that were not acknowledged are in ``unacknowledged``."""

    def __init__(self, *, app_key: str = "dingfakekey", app_secret: str = "fake-app-secret") -> None:  # noqa: S107
        self.app_key, self.app_secret = app_key, app_secret
        self.unacknowledged: dict[str, dict[str, Any]] = {}
        """The frames by their event's id."""
        self.answers: list[dict[str, Any]] = []
        """What clients answered, of system messages too."""
        self.opened = 0
        """How many connections were asked for."""
        self.approvals: dict[str, list[workflow.ApprovalTask]] = {}
        """The tasks of approvals, by instance id; others are unknown."""
        self.listed: dict[str, Listed] = {}
        """Approvals that can be listed and read, by instance id."""
        self.calls: list[str] = []
        """The paths that were called, but for tokens and connections."""
        self.refuses: set[str] = set()
        """Paths that lack a permission."""
        self.absent: set[str] = set()
        """Approvals of which it says that there are none."""
        self.is_away = False
        """Whether it opens no connection, and loses what is pushed."""
        self._tickets: set[str] = set()
        self._sockets: list[web.WebSocketResponse] = []
        self._transports: list[asyncio.Transport] = []
        self._url = ""

    @property
    def is_connected(self) -> bool:
        return bool(self._sockets)

    @asynccontextmanager
    async def serving(self, host: str = LOOPBACK) -> AsyncGenerator[str]:
        """Serve on a free port, in this event loop; yields the URL of the API."""
        app = web.Application()
        app.add_routes(
            [
                web.post(workflow.OpenConnection.path, self._open),
                web.get(_CONNECT, self._connect),
                web.post("/v1.0/oauth2/{corp}/token", self._token),
                web.get(workflow.GetProcessInstance.path, self._approval),
                web.get(workflow.ListProcesses.path, self._processes),
                web.post(workflow.ListProcessInstanceIds.path, self._ids),
                web.post(wire.GetAccessToken.path, self._access_token),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        self._url = f"{host}:{runner.addresses[0][1]}"
        try:
            yield f"http://{self._url}"
        finally:
            self.cut()
            await runner.cleanup()

    async def push(self, event_type: str, data: Mapping[str, Any], *, event_id: str | None = None) -> str:
        """Push an event now if somebody is connected; else it waits for ``send_again``. Returns its id."""
        event_id = event_id or secrets.token_hex(16)
        if self.is_away:
            return event_id
        headers = {
            "topic": "*",
            "contentType": "application/json",
            "eventType": event_type,
            "eventId": event_id,
            "eventCorpId": data.get("corpId"),
        }
        text = json.dumps({name: value for name, value in data.items() if name != "corpId"})
        self.unacknowledged[event_id] = {"specVersion": "1.0", "type": "EVENT", "headers": headers, "data": text}
        await self._send(event_id)
        return event_id

    async def send_again(self) -> None:
        """Push every event that is not acknowledged, with other ids of the messages and another time."""
        for event_id in list(self.unacknowledged):
            await self._send(event_id)

    async def system(self, topic: str, data: str = "{}") -> None:
        headers = {"topic": topic, "messageId": secrets.token_hex(8), "contentType": "application/json"}
        await self._sockets[-1].send_json({"type": "SYSTEM", "headers": headers, "data": data})

    def cut(self) -> None:
        """Cut all connections, without a word."""
        self._sockets.clear()
        while self._transports:
            self._transports.pop().abort()

    async def _send(self, event_id: str) -> None:
        if self._sockets:
            frame = self.unacknowledged[event_id]
            frame["headers"] |= {"messageId": f"{event_id}.{secrets.token_hex(4)}", "time": secrets.randbelow(10**12)}
            await self._sockets[-1].send_json(frame)

    async def _open(self, request: web.Request) -> web.Response:
        self.opened += 1
        given = await request.json()
        if self.is_away:
            return web.json_response({"code": "ServiceUnavailable", "message": ""}, status=503)
        if (given["clientId"], given["clientSecret"]) != (self.app_key, self.app_secret):
            message = f"clientSecret {given['clientSecret']} 不合法"
            return web.json_response({"code": "authFailed", "message": message}, status=401)
        if given["subscriptions"] != [{"topic": "*", "type": "EVENT"}]:
            return web.json_response({"code": "invalidSubscription", "message": ""}, status=400)
        ticket = f"{secrets.token_hex(8)}+/="
        self._tickets.add(ticket)
        return web.json_response({"endpoint": f"ws://{self._url}{_CONNECT}", "ticket": ticket})

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=401)
        self._tickets.remove(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        if request.transport is not None:
            self._transports.append(request.transport)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._answered(json.loads(message.data))
        finally:
            if socket in self._sockets:
                self._sockets.remove(socket)
        return socket

    def _answered(self, answer: dict[str, Any]) -> None:
        self.answers.append(answer)
        event_id = answer["headers"]["messageId"].partition(".")[0]
        if answer["code"] == _OK and json.loads(answer["data"]).get("status") == "SUCCESS":
            self.unacknowledged.pop(event_id, None)

    async def _token(self, _request: web.Request) -> web.Response:
        return web.json_response({"access_token": "token", "expires_in": 7200})

    async def _access_token(self, _request: web.Request) -> web.Response:
        return web.json_response({"accessToken": "token", "expireIn": 7200})

    async def _processes(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        codes = sorted({each.process_code for each in self.listed.values()})
        start = int(request.query["nextToken"])
        page = {"processList": [{"processCode": each, "name": "审批"} for each in codes[start : start + _PROCESSES]]}
        more = {"nextToken": start + _PROCESSES} if len(codes) > start + _PROCESSES else {}
        return web.json_response({"result": page | more})

    async def _ids(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        given = await request.json()
        found = [
            instance_id
            for instance_id, each in self.listed.items()
            if each.process_code == given["processCode"]
            and given["startTime"] <= each.created_ms <= given["endTime"]
            and each.read.status in given.get("statuses", [each.read.status])
        ]
        start, most = given["nextToken"], given["maxResults"]
        if most > workflow.IDS_PER_PAGE or given["endTime"] - given["startTime"] > _LONGEST_MS:
            return web.json_response({"code": "invalidParameter", "message": "maxResults"}, status=400)
        page = {"list": found[start : start + most], "nextToken": str(start + most) if found[start + most :] else ""}
        return web.json_response({"result": page})

    def _refused(self, request: web.Request) -> web.Response | None:
        self.calls.append(request.path)
        if request.path not in self.refuses:
            return None
        return web.json_response({"code": wire.CODE_PERMISSION, "message": "Workflow.Instance.Read"}, status=403)

    async def _approval(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        instance_id = request.query["processInstanceId"]
        if instance_id in self.absent:
            return web.json_response({"code": min(wire.CODE_ABSENT), "message": ""}, status=400)
        listed = self.listed.get(instance_id)
        if listed is not None:
            return web.json_response({"result": msgspec.to_builtins(listed.read)})
        tasks = self.approvals.get(instance_id)
        if tasks is None:
            return web.json_response({"code": wire.CODE_PERMISSION, "message": "Workflow.Instance.Read"}, status=403)
        rows = [{"taskId": each.task_id, "status": each.status} for each in tasks]
        return web.json_response({"result": {"tasks": rows}})
