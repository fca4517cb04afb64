"""The Python peer of the edge: the same work as one bare ASGI app, as fast as it can be made by hand.

uvicorn on uvloop and httptools, msgspec for JSON, percent escapes undone in C, a writer compiled from the Avro schema,
delivery reports fetched by the loop, each answer written at once: the parts that the edge found to be the fastest. No
framework, no logs, no metrics, no spool, no replay window, one way to read a request and few limits: what remains is
what this work costs in Python at least.
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import os
import time
from binascii import a2b_qp
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from tests.bench.avro_writer import compile_writer
from tests.bench.streams.kafka_streams_format import without_logical_types
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskbridge.runtime.producer import AsyncProducer
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.events import SOURCE_YIDA, Action, Person, TaskEvent, event_id_for

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

_ACTIONS = {"/yida/tasks/create": "create", "/yida/tasks/complete": "complete"}
_MAX_BODY_BYTES = 1 << 20
_MAX_ID_CHARACTERS = 128
_MS_DIGITS = 13
_JSON = b"application/json"
_LOWER = methodcaller("lower")
_QUOTED = bytes(range(256)).replace(b"%", b"=").replace(b"+", b" ")
"""A percent escape is one of quoted-printable then, which the standard library undoes in C."""

Call = dict[str, Any]


class _Malformed(Exception):
    pass


class _Unverified(Exception):
    pass


class _Task(msgspec.Struct, gc=False):
    """The members of a create's ``task`` that an event uses."""

    appType: str  # noqa: N815 - Yida's names
    formInstanceId: str  # noqa: N815
    corpId: str | None = None  # noqa: N815
    originatorCorpId: str | None = None  # noqa: N815
    taskId: str | None = None  # noqa: N815
    actionerId: list[str] | str | None = None  # noqa: N815
    originatorId: str | None = None  # noqa: N815
    originatorDisplayName: str | None = None  # noqa: N815
    title: str | None = None
    url: str | None = None
    processCode: str | None = None  # noqa: N815
    processName: str | None = None  # noqa: N815
    formUuid: str | None = None  # noqa: N815
    serialNo: str | None = None  # noqa: N815
    processInstanceStatus: str | None = None  # noqa: N815
    processApprovedResult: str | None = None  # noqa: N815
    createTime: int | None = None  # noqa: N815
    finishTime: int | None = None  # noqa: N815
    dataMap: dict[str, Any] = {}  # noqa: N815


_parameters_of = msgspec.json.Decoder(dict[str, str]).decode
_task_of = msgspec.json.Decoder(_Task).decode


class BareApp:
    """One ASGI callable."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._topic = environment["PEER_TOPIC"]
        self._bootstrap_servers = environment["PEER_BOOTSTRAP_SERVERS"]
        self._tokens = {environment["PEER_APP_TYPE"]: environment["PEER_SYSTEM_TOKEN"].encode()}
        self._frame = b"\x00" + int(environment["PEER_SCHEMA_ID"]).to_bytes(4, "big")
        schema = json.loads(Path(environment["PEER_SCHEMA_FILE"]).read_text("utf-8"))
        self._write = compile_writer(without_logical_types(schema))

    async def __call__(
        self,
        scope: Call,
        receive: Callable[[], Awaitable[Call]],
        send: Callable[[Call], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        action = _ACTIONS.get(scope["path"])
        if action is None:
            await _answer(send, 200 if scope["path"] == "/healthz" else 404, b"{}")
            return
        received_at = time.time_ns() // 1_000_000
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body", False):
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _MAX_BODY_BYTES:
                await _answer(send, 413, b'{"success":false}')
                return
        try:
            event = self._event(action, _parameters(scope, body), received_at)
            await self._producer.produce(
                self._topic,
                key=event.instance_id.encode(),
                value=self._frame + self._write(event),
                headers=event_headers(event),
            )
        except _Unverified:
            await _answer(send, 401, b'{"success":false}')
        except (_Malformed, msgspec.MsgspecError, ValueError, KeyError):
            await _answer(send, 400, b'{"success":false}')
        else:
            answer = f'{{"success":true,"eventId":"{event.event_id}","durability":"kafka"}}'
            await _answer(send, 200, answer.encode())

    async def _live(self, receive: Callable[[], Awaitable[Call]], send: Callable[[Call], Awaitable[None]]) -> None:
        await receive()
        self._producer = AsyncProducer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "none",
                "linger.ms": 0,
            }
        )
        # What was built by now is looked at no more.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._producer.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _event(self, action: str, parameters: dict[str, str], received_at: int) -> TaskEvent:
        task = _task_of(parameters["task"]) if action == "create" else None
        app_type = parameters["appType"] if task is None else task.appType
        token = self._tokens.get(app_type)
        signed = "".join([parameters[key] for key in sorted(parameters, key=_LOWER) if key != "sign"])
        digest = hashlib.md5(signed.encode() + (token or b""), usedforsecurity=False).hexdigest()
        if token is None or not hmac.compare_digest(digest, parameters.get("sign", "").lower()):
            raise _Unverified
        occurred_at = _moment(parameters.get("dateTime")) or received_at
        event_id = event_id_for(SOURCE_YIDA, action, parameters)
        if task is None:
            return TaskEvent(
                event_id=event_id,
                source=SOURCE_YIDA,
                action=Action.COMPLETED,
                corp_id=_id(parameters["corpId"]),
                app_type=app_type,
                instance_id=_id(parameters["formInstId"]),
                occurred_at=occurred_at,
                received_at=received_at,
                task_id=_id(parameters["taskId"]),
                actor_id=parameters.get("actualWorkId") or None,
                raw_parameters=parameters,
            )
        people = task.actionerId or ()
        return TaskEvent(
            event_id=event_id,
            source=SOURCE_YIDA,
            action=Action.CREATED,
            corp_id=_id(task.corpId or task.originatorCorpId or ""),
            app_type=app_type,
            instance_id=_id(task.formInstanceId),
            occurred_at=occurred_at,
            received_at=received_at,
            task_id=task.taskId or None,
            recipient_ids=tuple(people.split(",") if isinstance(people, str) else people),
            originator=Person(task.originatorId, task.originatorDisplayName or None) if task.originatorId else None,
            title=task.title or None,
            url=_web_address(task.url),
            process_code=task.processCode or None,
            process_name=task.processName or None,
            form_uuid=task.formUuid or None,
            serial_no=task.serialNo or None,
            instance_status=task.processInstanceStatus or None,
            approved_result=task.processApprovedResult or None,
            created_at=task.createTime,
            finished_at=task.finishTime,
            form_data={key: _text(value) for key, value in task.dataMap.items()},
            raw_parameters=parameters,
        )


class OneWrite(HttpToolsProtocol):
    """uvicorn writes the head of an answer, then its body: here both leave by one system call."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Joining(transport))  # type: ignore[arg-type]


class _Joining:
    """A transport that holds the head of an answer until its body comes, which it always does here."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._held is None and data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._held = data
            return
        self._transport.write((self._held or b"") + data)
        self._held = None

    def close(self) -> None:
        if self._held is not None:
            self._transport.write(self._held)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _parameters(scope: Call, body: bytes) -> dict[str, str]:
    content_type = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
            break
    encoded: bytes = scope["query_string"]
    if content_type.startswith(_JSON):
        parameters = _parameters_of(body)
        if not encoded:
            return parameters
    else:
        parameters, encoded = {}, b"&".join(filter(None, (encoded, body)))
    for pair in encoded.split(b"&"):
        key, _, value = pair.partition(b"=")
        name = _unescaped(key)
        if name in parameters:
            raise _Malformed
        parameters[name] = _unescaped(value)
    return parameters


def _unescaped(encoded: bytes) -> str:
    return a2b_qp(encoded.replace(b"=", b"=3D").translate(_QUOTED)).decode()


def _id(value: str) -> str:
    if not value.strip() or len(value) > _MAX_ID_CHARACTERS or not value.isprintable():
        raise _Malformed
    return value


def _moment(value: str | None) -> int | None:
    return int(value) if value and len(value) == _MS_DIGITS and value.isdigit() else None


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _web_address(value: str | None) -> str | None:
    """With a scheme of the web, and a host behind it."""
    if not value or not value.startswith(("http://", "https://")):
        return None
    return None if value.partition("://")[2][:1] in ("", "/", "?", "#", ":") else value


async def _answer(send: Callable[[Call], Awaitable[None]], status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        BareApp(dict(os.environ)),
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        loop="uvloop",
        http=OneWrite,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
