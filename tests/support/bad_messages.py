"""Requests of another system that the edge must refuse, each with its answer, signed when they are asked for.

The edge that they are sent to knows ``edge.testing``'s source, and takes bodies of at most 1 MiB.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from typing import TYPE_CHECKING, Any

from bad_requests import BadRequest
from posted import message
from taskbridge.edge.testing import SOURCE, SOURCE_SECRET, message_of
from taskbridge.edge.verification import webhooks
from taskbridge.edge.verification.webhooks import TOLERANCE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.edge.sender import EncodedCallback

_STRUCTURED, _JSON = "application/cloudevents+json", "application/json"
_TWO_MIB = b" " * (2 << 20)
_TWO_MIB_GZIPPED = gzip.compress(_TWO_MIB)
"""Once: all of these are made anew for each test that sends one of them."""
_DEEP = 100_000
OTHER_SECRET = "whsec_" + base64.b64encode(b"a secret that nobody was told of").decode()


def bad_messages() -> list[BadRequest]:
    return [*_unverified(), *_misshapen(), *_unreadable(), *_wrong_http()]


def _path(wire_action: str = "complete", source: str = SOURCE) -> str:
    return f"/sources/{source}/tasks/{wire_action}"


def _bad(name: str, status: int, kind: str, sent: EncodedCallback, **more: Any) -> BadRequest:
    request: dict[str, Any] = {"path": _path(), "headers": sent.headers, "body": sent.body, **more}
    return BadRequest(name=f"source: {name}", status=status, kind=kind, **request)


def _raw(body: bytes, content_type: str = _STRUCTURED, **attributes: str) -> dict[str, Any]:
    """Any bytes, signed all the same."""
    timestamp = str(int(time.time()))
    signature = webhooks.sign("msg_raw", timestamp, body, secret=SOURCE_SECRET)
    proof = {webhooks.ID: "msg_raw", webhooks.TIMESTAMP: timestamp, webhooks.SIGNATURE: signature}
    headers = {"Content-Type": content_type, **proof, **{f"ce-{name}": each for name, each in attributes.items()}}
    return {"headers": headers, "body": body}


def _event(**changed: Any) -> bytes:
    """The text of a good event with some members changed or, by None, left out."""
    good = json.loads(message().body)
    return json.dumps({name: each for name, each in {**good, **changed}.items() if each is not None}).encode()


def _data(wire_action: str = "complete", **changed: Any) -> EncodedCallback:
    told = {**message_of(wire_action, instance_id="I-bad"), **changed}
    return message(wire_action, {name: each for name, each in told.items() if each is not None}, message_id="msg_bad")


def _without(sent: EncodedCallback, name: str) -> Mapping[str, str]:
    return {key: each for key, each in sent.headers.items() if key != name}


def _unverified() -> list[BadRequest]:
    good = message()

    def bad(name: str, sent: EncodedCallback, **more: Any) -> BadRequest:
        return _bad(name, 401, "unverified", sent, **more)

    def claims(name: str, header: str, value: str) -> BadRequest:
        return bad(name, good, headers={**good.headers, header: value})

    signature = good.headers[webhooks.SIGNATURE]
    return [
        bad("signed with another secret", message(secret=OTHER_SECRET)),
        bad("five minutes and more ago", message(ago_s=TOLERANCE_S + 2)),
        bad("five minutes and more ahead", message(ago_s=-TOLERANCE_S - 5)),
        bad("another system", good, path=_path(source="other")),
        bad("a system of a name that none can have", good, path=_path(source="{}")),
        bad("yida, by this door", good, path=_path(source="yida")),
        bad("another corp", _data(corp_id="ding-other")),
        bad("another corp, by a number", _data(corp_id=1)),
        bad("changed after signing", good, body=good.body.replace(b"T-1", b"T-2")),
        bad("nothing of it signed", good, headers={"Content-Type": _STRUCTURED}),
        bad("not signed and not JSON", good, headers={"Content-Type": "text/plain"}, body=b"hello"),
        *(bad(f"no {name}", good, headers=_without(good, name)) for name in good.headers if name.startswith("webhook")),
        claims("another id", webhooks.ID, "msg_2"),
        claims("blank id", webhooks.ID, ""),
        claims("another timestamp", webhooks.TIMESTAMP, str(int(good.headers[webhooks.TIMESTAMP]) - 1)),
        claims("timestamp in milliseconds", webhooks.TIMESTAMP, good.headers[webhooks.TIMESTAMP] + "000"),
        claims("timestamp that is no number", webhooks.TIMESTAMP, "today"),
        claims("timestamp of a million digits", webhooks.TIMESTAMP, "9" * 10_000),
        claims("no version", webhooks.SIGNATURE, signature.removeprefix("v1,")),
        claims("another version", webhooks.SIGNATURE, signature.replace("v1,", "v1a,")),
        claims("hex", webhooks.SIGNATURE, "v1," + base64.b64decode(signature[3:]).hex()),
        claims("half a signature", webhooks.SIGNATURE, signature[:20]),
        claims("an empty signature", webhooks.SIGNATURE, "v1,"),
        claims("a thousand signatures", webhooks.SIGNATURE, "v1,AAAA " * 1000 + signature),
    ]


def _misshapen() -> list[BadRequest]:
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


def _unreadable() -> list[BadRequest]:
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
        bad("neither attributes in the body nor in headers", data, _JSON),
        bad("binary without a type", data, _JSON, **{**attributes, "type": ""}),
        bad("binary of an older version", data, _JSON, **{**attributes, "specversion": "0.3"}),
        bad("binary with a list", b"[]", _JSON, **attributes),
        bad("binary with a member twice", data.replace(b"{", b'{"task_id": "T-2", ', 1), _JSON, **attributes),
        _bad("half a gzip", 400, "malformed", good, body=gzip.compress(good.body)[:-9]),
    ]


def _wrong_http() -> list[BadRequest]:
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
