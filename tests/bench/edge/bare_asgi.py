"""The Python peer of the edge: the same work as one bare ASGI app, on the same server, by the most direct code.

No framework, no logs, no metrics, no spool: what remains is what this work costs in Python at least, written plainly.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import os
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, quote, urlsplit

import fastavro
import uvicorn
from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from confluent_kafka import KafkaError, Message

_ACTIONS = {"/yida/tasks/create": "create", "/yida/tasks/complete": "complete"}
_WORDS = {"create": "CREATED", "complete": "COMPLETED"}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:taskbridge:v1")
_MAX_BODY_BYTES = 1 << 20
_MAX_ID_CHARACTERS = 128
_MS_DIGITS = 13

Call = dict[str, Any]


class _Malformed(Exception):
    pass


class _Unverified(Exception):
    pass


class BareApp:
    """One ASGI callable."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._topic = environment["PEER_TOPIC"]
        self._bootstrap_servers = environment["PEER_BOOTSTRAP_SERVERS"]
        self._tokens = {environment["PEER_APP_TYPE"]: environment["PEER_SYSTEM_TOKEN"]}
        self._prefix = b"\x00" + int(environment["PEER_SCHEMA_ID"]).to_bytes(4, "big")
        schema = json.loads(Path(environment["PEER_SCHEMA_FILE"]).read_text("utf-8"))
        self._schema = fastavro.parse_schema(schema)
        self._reports: list[tuple[asyncio.Future[None], KafkaError | None]] = []

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
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _MAX_BODY_BYTES:
                await _answer(send, 413, b'{"success":false}')
                return
            if not message.get("more_body", False):
                break
        try:
            event = self._event(action, _parameters(scope, body), received_at)
            await self._produce(event)
        except _Unverified:
            await _answer(send, 401, b'{"success":false}')
        except (_Malformed, ValueError, KeyError):
            await _answer(send, 400, b'{"success":false}')
        else:
            answer = {"success": True, "eventId": event["event_id"], "durability": "kafka"}
            await _answer(send, 200, json.dumps(answer).encode())

    async def _live(self, receive: Callable[[], Awaitable[Call]], send: Callable[[Call], Awaitable[None]]) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 2,
            }
        )
        threading.Thread(target=self._poll, daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _produce(self, event: dict[str, Any]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()

        def report(error: KafkaError | None, _message: Message) -> None:
            self._reports.append((future, error))

        value = io.BytesIO()
        value.write(self._prefix)
        fastavro.schemaless_writer(value, self._schema, event)
        self._producer.produce(
            self._topic,
            key=event["instance_id"].encode(),
            value=value.getvalue(),
            headers=_headers(event),
            on_delivery=report,
        )
        return future

    def _poll(self) -> None:
        while True:
            self._producer.poll(0.1)
            if self._reports:
                reports, self._reports = self._reports, []
                self._loop.call_soon_threadsafe(_resolve, reports)

    def _event(self, action: str, parameters: dict[str, str], received_at: int) -> dict[str, Any]:
        task: dict[str, Any] = json.loads(parameters["task"]) if action == "create" else {}
        app_type = task["appType"] if task else parameters["appType"]
        token = self._tokens.get(app_type)
        signed = "".join(parameters[key] for key in sorted(parameters, key=str.lower) if key != "sign")
        digest = hashlib.md5(f"{signed}{token}".encode(), usedforsecurity=False).hexdigest()
        if token is None or not hmac.compare_digest(digest, parameters.get("sign", "").lower()):
            raise _Unverified
        event: dict[str, Any] = {
            "event_id": _event_id(action, parameters),
            "source": "yida",
            "action": _WORDS[action],
            "app_type": app_type,
            "occurred_at": _moment(parameters.get("dateTime")) or received_at,
            "received_at": received_at,
            "raw_parameters": parameters,
        }
        if task:
            return event | _described(task)
        return event | {
            "corp_id": _id(parameters["corpId"]),
            "instance_id": _id(parameters["formInstId"]),
            "task_id": _id(parameters["taskId"]),
            "actor_id": parameters.get("actualWorkId") or None,
        }


def _parameters(scope: Call, body: bytes) -> dict[str, str]:
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    pairs: list[tuple[str, str]] = []
    if scope["query_string"]:
        pairs = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
    if content_type.startswith(b"application/json"):
        pairs += json.loads(body, object_pairs_hook=list)
    else:
        pairs += parse_qsl(body.decode(), keep_blank_values=True)
    parameters = dict(pairs)
    if len({key.lower() for key in parameters}) < len(pairs):
        raise _Malformed
    return parameters


def _described(task: dict[str, Any]) -> dict[str, Any]:
    originator_id = task.get("originatorId")
    return {
        "corp_id": _id(task.get("corpId") or task.get("originatorCorpId") or ""),
        "instance_id": _id(task["formInstanceId"]),
        "task_id": task.get("taskId") or None,
        "recipient_ids": _ids(task.get("actionerId")),
        "originator": originator_id and {"user_id": originator_id, "name": task.get("originatorDisplayName") or None},
        "title": task.get("title") or None,
        "url": _web_address(task.get("url")),
        "process_code": task.get("processCode") or None,
        "process_name": task.get("processName") or None,
        "form_uuid": task.get("formUuid") or None,
        "serial_no": task.get("serialNo") or None,
        "instance_status": task.get("processInstanceStatus") or None,
        "approved_result": task.get("processApprovedResult") or None,
        "created_at": task.get("createTime"),
        "finished_at": task.get("finishTime"),
        "form_data": {
            key: value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in task.get("dataMap", {}).items()
        },
    }


def _headers(event: dict[str, Any]) -> list[tuple[str, str | bytes | None]]:
    seconds, milliseconds = divmod(event["occurred_at"], 1000)
    at = datetime.fromtimestamp(seconds, UTC)
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event["event_id"].encode()),
        ("ce_type", f"taskbridge.task.{event['action'].lower()}.v1".encode()),
        ("ce_source", f"/yida/{quote(event['corp_id'])}/{quote(event['app_type'])}".encode()),
        ("ce_subject", event["instance_id"].encode()),
        ("ce_time", f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z".encode()),
        ("content-type", b"application/avro"),
    ]


def _event_id(action: str, parameters: dict[str, str]) -> str:
    parts = ["yida", action]
    for key in sorted(parameters):
        if key != "sign":
            parts += (key, parameters[key])
    return str(uuid.uuid5(_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))


def _id(value: str) -> str:
    if not value.strip() or len(value) > _MAX_ID_CHARACTERS or not value.isprintable():
        raise _Malformed
    return value


def _ids(value: Any) -> list[str]:
    if value is None:
        return []
    return cast("list[str]", value) if isinstance(value, list) else value.split(",")


def _moment(value: str | None) -> int | None:
    return int(value) if value and len(value) == _MS_DIGITS and value.isdigit() else None


def _web_address(value: str | None) -> str | None:
    if not value:
        return None
    parts = urlsplit(value)
    return value if parts.scheme in ("http", "https") and parts.hostname else None


def _resolve(reports: list[tuple[asyncio.Future[None], KafkaError | None]]) -> None:
    for future, error in reports:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(_Malformed(str(error)))


async def _answer(send: Callable[[Call], Awaitable[None]], status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        BareApp(dict(os.environ)),
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
