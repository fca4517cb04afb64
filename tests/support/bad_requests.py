"""Requests that the edge must refuse, each with its answer: run against the app and against the real process.

The edge that they are sent to knows ``edge.testing``'s app, and takes bodies of at most 1 MiB.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.testing import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of, task_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TWO_MIB = b" " * (2 << 20)
_TWO_MIB_GZIPPED = gzip.compress(_TWO_MIB)
"""Once: all of these are made anew for each test that sends one of them."""
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
