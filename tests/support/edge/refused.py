"""Requests that the edge must refuse, each with its answer: run against the app and against the real process."""

from __future__ import annotations

import base64
import gzip
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from support.edge.callbacks import message
from support.edge.fakes import (
    APP_TYPE,
    CORP_ID,
    SOURCE,
    SOURCE_SECRET,
    SYSTEM_TOKEN,
    message_of,
    parameters_of,
    task_of,
)
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.runtime import standard_webhooks
from taskbridge.runtime.standard_webhooks import TOLERANCE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.edge.sender import EncodedCallback


_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TWO_MIB = b" " * (2 << 20)
_TWO_MIB_GZIPPED = gzip.compress(_TWO_MIB)
"""Once: all of these requests are built again for each test that sends one of them."""
_DEEP = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRequest:
    name: str
    status: int
    kind: str
    """The last part of the problem's type."""
    method: str = "POST"
    path: str = "/yida/tasks/complete"
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = field(default=b"", repr=False)
    chunked: bool = False


def bad_requests() -> list[BadRequest]:
    return [*_unverified(), *_wrong_shapes(), *_unreadable(), *_wrong_http()]


def _signed(wire_action: str = "complete", /, **changed: str | None) -> dict[str, str]:
    """A good callback with some parameters changed or, by None, left out, and then signed."""
    parameters: dict[str, str | None] = {**parameters_of(wire_action, instance_id="bad-request"), **changed}
    return signed({key: value for key, value in parameters.items() if value is not None}, system_token=SYSTEM_TOKEN)


def _task(**changed: object) -> str:
    return json.dumps({**task_of("bad-request"), **changed})


def _json(
    name: str, status: int, kind: str, parameters: Mapping[str, str], wire_action: str = "complete"
) -> BadRequest:
    encoded = encode_callback(parameters, "json")
    path = f"/yida/tasks/{wire_action}"
    return BadRequest(name=name, status=status, kind=kind, path=path, headers=encoded.headers, body=encoded.body)


def _unverified() -> list[BadRequest]:
    good = _signed()
    other = "APP_UNKNOWN"
    cases = {
        "wrong sign": {**good, "sign": "0" * 32},
        "sign that is not hex": {**good, "sign": "签名" * 16},
        "no sign": {key: value for key, value in good.items() if key != "sign"},
        "blank sign": {**good, "sign": " "},
        "signed with another token": signed(good, system_token="another"),
        "signed with an empty token": signed(good, system_token=""),
        "changed after signing": {**good, "taskId": "1"},
        "unknown app": _signed(appType=other),
        "unknown app and no sign": {**good, "appType": other, "sign": ""},
        "wrong corp": _signed(corpId="ding-other"),
        "wrong sign and a missing id": {**_signed(formInstId=None), "sign": "0" * 32},
    }
    deleted = {
        "renamed complete as a delete": {**_signed("delete"), "x": ""},
        "delete with an extra key that is signed": _signed("delete", extra="1"),
    }
    return [
        *(_json(name, 401, "unverified", parameters) for name, parameters in cases.items()),
        *(_json(name, 401, "unverified", parameters, "delete") for name, parameters in deleted.items()),
        _json("create of another corp", 401, "unverified", _signed("create", task=_task(corpId="ding-x")), "create"),
        _json("bad task and wrong sign", 401, "unverified", {"task": _task(taskId=[]), "sign": "0" * 32}, "create"),
    ]


def _wrong_shapes() -> list[BadRequest]:
    flat: dict[str, dict[str, str | None]] = {
        "no app": {"appType": None},
        "blank app": {"appType": " "},
        "no corp": {"corpId": None},
        "blank corp": {"corpId": "\t"},
        "no instance": {"formInstId": None},
        "empty instance": {"formInstId": ""},
        "no task id": {"taskId": None},
        "blank task id": {"taskId": "  "},
        "instance with a control character": {"formInstId": "a\x00b"},
        "instance of 129 characters": {"formInstId": "x" * 129},
    }
    tasks: dict[str, str | None] = {
        "no task": None,
        "broken JSON in task": '{"appType": "APP"',
        "a list instead of an object": "[]",
        "a text instead of an object": '"{}"',
        "very deep task": '{"a":' + "[" * _DEEP + "]" * _DEEP + "}",
        "NaN in task": '{"appType": NaN}',
        "app in task that is no text": _task(appType=True),
        "instance in task that is no text": _task(formInstanceId=["a"]),
        "no instance in task": _task(formInstanceId=None),
        "no corp in task": _task(corpId=None, originatorCorpId=""),
    }
    return [
        *(_json(name, 400, "malformed", _signed(**changed)) for name, changed in flat.items()),
        *(_json(name, 400, "malformed", _signed("create", task=task), "create") for name, task in tasks.items()),
        _json("two apps", 400, "malformed", _signed("create", appType="APP_OTHER"), "create"),
        _json("two corps", 400, "malformed", _signed("create", corpId=CORP_ID, task=_task(corpId="x")), "create"),
        _json("cc without an instance", 400, "malformed", _signed("cc", task=_task(formInstanceId=" ")), "cc"),
    ]


def _unreadable() -> list[BadRequest]:
    good = _signed()
    text = json.dumps(good)

    def malformed(name: str, headers: Mapping[str, str], body: bytes, query: str = "") -> BadRequest:
        return BadRequest(name=name, status=400, kind="malformed", headers=headers, body=body, query=query)

    multipart = encode_callback(good, "multipart")
    file_part = multipart.body.replace(b'name="taskId"', b'name="taskId"; filename="a.txt"')
    return [
        malformed("nothing at all", {}, b""),
        malformed("broken JSON", _JSON, text[:-1].encode()),
        malformed("JSON and more", _JSON, text.encode() + b"{}"),
        malformed("a JSON list", _JSON, b"[]"),
        malformed("very deep JSON", _JSON, b'{"a":' + b"[" * _DEEP + b"]" * _DEEP + b"}"),
        malformed("very deep JSON, never closed", _JSON, b'{"a":' * _DEEP),
        malformed("Infinity", _JSON, text.replace('"2199132092"', "-Infinity").encode()),
        malformed("key twice in JSON", _JSON, text.replace("{", '{"taskId": "1", ', 1).encode()),
        malformed("key twice ignoring case", _JSON, text.replace("{", '{"TASKID": "1", ', 1).encode()),
        malformed("key twice in a form", _FORM, urlencode([*good.items(), ("taskId", "1")]).encode()),
        malformed("key in query and body", _JSON, text.encode(), "taskId=2199132092"),
        malformed("key in query and body ignoring case", _JSON, text.encode(), "TaskID=1"),
        malformed("invalid UTF-8 in JSON", _JSON, text.encode().replace(b"2199132092", b"\xff\xfe")),
        malformed("invalid UTF-8 in a form", _FORM, urlencode(good).encode() + b"&x=\xc3\x28"),
        malformed("invalid UTF-8 in an escape", _FORM, urlencode(good).encode() + b"&x=%c3%28"),
        malformed("invalid UTF-8 in the query", _JSON, text.encode(), "x=%ff"),
        malformed("broken percent escape", _FORM, urlencode(good).encode() + b"&x=%zz"),
        malformed("too many parameters", _FORM, urlencode({f"k{n}": "" for n in range(300)}).encode()),
        malformed("too many members", _JSON, json.dumps({f"k{n}": "" for n in range(257)}).encode()),
        malformed("a million separators", _FORM, b"&" * 1_000_000),
        malformed("multipart without its end", multipart.headers, multipart.body[:-6]),
        malformed("a file among the parts", multipart.headers, file_part),
    ]


def _wrong_http() -> list[BadRequest]:
    body = json.dumps(_signed()).encode()

    def large(name: str, *, chunked: bool) -> BadRequest:
        return BadRequest(name=name, status=413, kind="too-large", headers=_JSON, body=_TWO_MIB, chunked=chunked)

    def unsupported(name: str, content_type: str, wrong: bytes, **more: str) -> BadRequest:
        headers = {"Content-Type": content_type, **more}
        return BadRequest(name=name, status=415, kind="unsupported-type", headers=headers, body=wrong)

    def unknown(name: str, path: str) -> BadRequest:
        return BadRequest(name=name, status=404, kind="unknown-path", path=path, headers=_JSON, body=body)

    query = "x=" + quote(APP_TYPE)
    return [
        large("2 MiB with Content-Length", chunked=False),
        large("2 MiB without Content-Length", chunked=True),
        BadRequest(
            name="gzip that unpacks to 2 MiB",
            status=413,
            kind="too-large",
            headers=_JSON,
            body=_TWO_MIB_GZIPPED,
        ),
        BadRequest(name="half a gzip", status=400, kind="malformed", headers=_JSON, body=gzip.compress(body)[:-9]),
        unsupported("plain text", "text/plain", b"hello"),
        unsupported("XML", "application/xml", b'<task sign="0"/>'),
        unsupported("another character set", "application/json; charset=utf-16", body.decode().encode("utf-16")),
        unsupported("packed otherwise", "application/json", bytes(range(128, 256)), **{"Content-Encoding": "br"}),
        BadRequest(name="wrong method", status=405, kind="", method="GET", query=query),
        BadRequest(name="another wrong method", status=405, kind="", method="PUT", headers=_JSON, body=body),
        unknown("unknown action", "/yida/tasks/approve"),
        unknown("no action", "/yida/tasks/"),
        unknown("another version of the path", "/yida/v2/complete"),
    ]


_STRUCTURED, _BINARY = "application/cloudevents+json", "application/json"
OTHER_SECRET = "whsec_" + base64.b64encode(b"a secret that is known to nobody").decode()


def bad_messages() -> list[BadRequest]:
    return [*_unverified_messages(), *_misshapen_messages(), *_unreadable_messages(), *_wrong_http_messages()]


def _path(wire_action: str = "complete", source: str = SOURCE) -> str:
    return f"/sources/{source}/tasks/{wire_action}"


def _bad(name: str, status: int, kind: str, sent: EncodedCallback, **more: Any) -> BadRequest:
    request: dict[str, Any] = {"path": _path(), "headers": sent.headers, "body": sent.body, **more}
    return BadRequest(name=f"source: {name}", status=status, kind=kind, **request)


def _raw(body: bytes, content_type: str = _STRUCTURED, **attributes: str) -> dict[str, Any]:
    """Any bytes, with a valid signature."""
    timestamp = str(int(time.time()))
    signature = standard_webhooks.signature("msg_raw", timestamp, body, key=standard_webhooks.key_of(SOURCE_SECRET))
    proof = {
        standard_webhooks.ID: "msg_raw",
        standard_webhooks.TIMESTAMP: timestamp,
        standard_webhooks.SIGNATURE: signature,
    }
    headers = {"Content-Type": content_type, **proof, **{f"ce-{name}": each for name, each in attributes.items()}}
    return {"headers": headers, "body": body}


def _event(**changed: Any) -> bytes:
    """The text of a good event with some members changed or, by None, left out."""
    good = json.loads(message().body)
    return json.dumps({name: each for name, each in {**good, **changed}.items() if each is not None}).encode()


def _data(wire_action: str = "complete", **changed: Any) -> EncodedCallback:
    fields = {**message_of(wire_action, instance_id="I-bad"), **changed}
    return message(wire_action, {name: each for name, each in fields.items() if each is not None}, message_id="msg_bad")


def _without(sent: EncodedCallback, name: str) -> Mapping[str, str]:
    return {key: each for key, each in sent.headers.items() if key != name}


def _unverified_messages() -> list[BadRequest]:
    good = message()

    def bad(name: str, sent: EncodedCallback, **more: Any) -> BadRequest:
        return _bad(name, 401, "unverified", sent, **more)

    def claims(name: str, header: str, value: str) -> BadRequest:
        return bad(name, good, headers={**good.headers, header: value})

    signature = good.headers[standard_webhooks.SIGNATURE]
    return [
        bad("signed with another secret", message(secret=OTHER_SECRET)),
        bad("five minutes and more ago", message(ago_s=TOLERANCE_S + 2)),
        # A minute more than needed: on a busy machine it may be sent long after it was made.
        bad("five minutes and more ahead", message(ago_s=-TOLERANCE_S - 60)),
        bad("another system", good, path=_path(source="other")),
        bad("a system of a name that none can have", good, path=_path(source="{}")),
        bad("yida, by this path", good, path=_path(source="yida")),
        bad("another corp", _data(corp_id="ding-other")),
        bad("another corp, by a number", _data(corp_id=1)),
        bad("changed after signing", good, body=good.body.replace(b"T-1", b"T-2")),
        bad("nothing of it signed", good, headers={"Content-Type": _STRUCTURED}),
        bad("not signed and not JSON", good, headers={"Content-Type": "text/plain"}, body=b"hello"),
        *(bad(f"no {name}", good, headers=_without(good, name)) for name in good.headers if name.startswith("webhook")),
        claims("another id", standard_webhooks.ID, "msg_2"),
        claims("blank id", standard_webhooks.ID, ""),
        claims(
            "another timestamp", standard_webhooks.TIMESTAMP, str(int(good.headers[standard_webhooks.TIMESTAMP]) - 1)
        ),
        claims(
            "timestamp in milliseconds", standard_webhooks.TIMESTAMP, good.headers[standard_webhooks.TIMESTAMP] + "000"
        ),
        claims("timestamp that is no number", standard_webhooks.TIMESTAMP, "today"),
        claims("timestamp of a million digits", standard_webhooks.TIMESTAMP, "9" * 10_000),
        claims("no version", standard_webhooks.SIGNATURE, signature.removeprefix("v1,")),
        claims("another version", standard_webhooks.SIGNATURE, signature.replace("v1,", "v1a,")),
        claims("hex", standard_webhooks.SIGNATURE, "v1," + base64.b64decode(signature[3:]).hex()),
        claims("half a signature", standard_webhooks.SIGNATURE, signature[:20]),
        claims("an empty signature", standard_webhooks.SIGNATURE, "v1,"),
        claims("a thousand signatures", standard_webhooks.SIGNATURE, "v1,AAAA " * 1000 + signature),
    ]


def _misshapen_messages() -> list[BadRequest]:
    shapes: dict[str, dict[str, Any]] = {
        "no app": {"app_type": None},
        "blank app": {"app_type": " "},
        "no instance": {"instance_id": None},
        "an instance that is a list": {"instance_id": ["I-1"]},
        "an instance that is an object": {"instance_id": {"id": "I-1"}},
        "an instance with a control character": {"instance_id": "a\x00b"},
        "an instance that is too long with the system's name": {"instance_id": "x" * (128 - len(SOURCE))},
        "no task": {"task_id": None},
        "a task that is true": {"task_id": True},
    }
    events: dict[str, dict[str, Any]] = {
        "no specversion": {"specversion": None},
        "an older specversion": {"specversion": "0.3"},
        "no id": {"id": None},
        "no source": {"source": None},
        "blank type": {"type": " "},
        "no data": {"data": None},
        "data that is a list": {"data": []},
        "data that is a text": {"data": "hello"},
        "data twice": {"data_base64": "e30="},
        "data that is not base64": {"data": None, "data_base64": "?"},
        "data of bytes that are no text": {"data": None, "data_base64": "//8="},
    }
    return [
        *(_bad(name, 400, "malformed", _data(**changed)) for name, changed in shapes.items()),
        *(_bad(name, 400, "malformed", message(), **_raw(_event(**changed))) for name, changed in events.items()),
    ]


def _unreadable_messages() -> list[BadRequest]:
    good = message()
    data = json.dumps(message_of("complete", instance_id="I-bad")).encode()
    attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}

    def bad(name: str, body: bytes, content_type: str = _STRUCTURED, **binary: str) -> BadRequest:
        return _bad(name, 400, "malformed", good, **_raw(body, content_type, **binary))

    return [
        bad("nothing", b""),
        bad("broken JSON", good.body[:-1]),
        bad("a list", b"[]"),
        bad("never closed", b'{"a":' * _DEEP),
        bad("member twice", _event().replace(b"{", b'{"id": "2", ', 1)),
        bad("data's member twice", _event().replace(b'{"app_type"', b'{"task_id": "T-2", "app_type"')),
        bad("too many members", json.dumps({f"k{n}": "" for n in range(257)}).encode()),
        bad("not UTF-8", _event().replace(b"leave", b"\xff\xfe")),
        bad("neither attributes in the body nor in headers", data, _BINARY),
        bad("binary without a type", data, _BINARY, **{**attributes, "type": ""}),
        bad("binary of an older version", data, _BINARY, **{**attributes, "specversion": "0.3"}),
        bad("binary with a list", b"[]", _BINARY, **attributes),
        bad("binary with a member twice", data.replace(b"{", b'{"task_id": "T-2", ', 1), _BINARY, **attributes),
        _bad("half a gzip", 400, "malformed", good, body=gzip.compress(good.body)[:-9]),
    ]


def _wrong_http_messages() -> list[BadRequest]:
    good = message()

    def large(name: str, **more: Any) -> BadRequest:
        return _bad(name, 413, "too-large", good, **more)

    def unsupported(name: str, content_type: str, body: bytes = b"[]") -> BadRequest:
        return _bad(name, 415, "unsupported-type", good, **_raw(body, content_type))

    def unknown(name: str, path: str) -> BadRequest:
        return _bad(name, 404, "unknown-path", good, path=path)

    return [
        large("2 MiB with Content-Length", body=_TWO_MIB),
        large("2 MiB without Content-Length", body=_TWO_MIB, chunked=True),
        large("gzip that unpacks to 2 MiB", body=_TWO_MIB_GZIPPED),
        unsupported("a batch", "application/cloudevents-batch+json", b"[" + good.body + b"]"),
        unsupported("a form", "application/x-www-form-urlencoded", b"a=1"),
        unsupported("XML", "application/cloudevents+xml", b"<event/>"),
        unsupported("plain text", "text/plain", good.body),
        unsupported("no type", "", good.body),
        _bad("wrong method", 405, "", good, method="PUT"),
        unknown("unknown action", _path("approve")),
        unknown("no action", _path("")),
        unknown("no system", "/sources/tasks/create"),
        unknown("another path below", _path("complete/now")),
    ]
