"""Unsigned requests of a megabyte, each built to cost as much as possible before it is refused.

Nearly all are understood as far as the signature, which is tried in each way in which they can be read.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from support.edge.fakes import APP_TYPE, CORP_ID, SOURCE, SOURCE_SECRET, SYSTEM_TOKEN
from taskbridge.edge.decision.decide import Rules, interpret
from taskbridge.edge.errors import Rejection
from taskbridge.edge.request import Received
from taskbridge.edge.verification.credentials import parse_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SIZE = (1 << 20) - 1024
_JSON, _FORM, _PARTS = "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
_BOTH = "张张"
"""Its UTF-8 is text in GBK as well, so that a label of GBK leaves two ways to read it."""
_NAMED = f'"appType":"{APP_TYPE}","corpId":"{CORP_ID}",'
_CREDENTIALS = parse_credentials(
    f'[[apps]]\napp_type = "{APP_TYPE}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]\n'
    f'[[sources]]\nname = "{SOURCE}"\ncorp_id = "{CORP_ID}"\nsecrets = {json.dumps([SOURCE_SECRET] * 2)}'
)
_SIGNED = '{"sign":"0","n":null,'
"""A null may be signed in two ways."""


@dataclass(frozen=True, kw_only=True)
class Hostile:
    name: str
    body: bytes = field(repr=False)
    content_type: str = _JSON
    query: str = "a=1"
    """Signed or not: that is two ways more."""
    action: str = "complete"
    prefix: str = "/yida"
    reason: str = "wrong-sign"
    """Why it is refused."""

    @property
    def headers(self) -> Mapping[str, str]:
        proof = {"webhook-id": "1", "webhook-timestamp": "0", "webhook-signature": "v1,0"}
        return ({"content-type": self.content_type} if self.content_type else {}) | proof

    def refused(self) -> str | None:
        """The reason that the edge gives."""
        received = Received(
            wire_action=self.action,
            received_at=1,
            remote_address="192.0.2.1",
            method="POST",
            path=f"{self.prefix}/tasks/{self.action}",
            query=self.query.encode(),
            headers=self.headers,
            body=self.body,
        )
        try:
            interpret(received, _CREDENTIALS, Rules(max_body_bytes=1 << 20))
        except Rejection as rejection:
            return rejection.reason
        return None


def _filled(before: str, piece: str, after: str, codec: str = "utf-8", *, size: int = SIZE) -> bytes:
    begin, filling, end = (each.encode(codec) for each in (before, piece, after))
    return begin + filling * ((size - len(begin) - len(end)) // len(filling)) + end


_OBJECTS = {
    "lists": ('"x":[', "[],", "1]", "wrong-sign"),
    "objects": ('"x":[', "{},", "1]", "wrong-sign"),
    "numbers": ('"x":[', "1,", "1]", "wrong-sign"),
    "texts": ('"x":[', '"",', "1]", "wrong-sign"),
    "members": ("", '"a":1,', '"b":1', "wrong-sign"),
    "digits": ('"x":', "1", "", "wrong-sign"),
    "letters": ('"x":"', "x", '"', "wrong-sign"),
    "Chinese": ('"x":"', "张", '"', "wrong-sign"),
    "escapes": ('"x":"', "\\n", '"', "wrong-sign"),
    "half surrogate pairs": ('"x":"', "\\ud800", '"', "json"),
    "the app again and again": ("", '"appType":"x",', _NAMED + '"b":1', "wrong-sign"),
    "an app of a megabyte": ('"appType":"', "x", '"', "bad-appType"),
    "an app that is a list": ('"appType":[', "[],", "1]", "bad-appType"),
    "never closed": ('"x":', "[", "", "json"),
}
"""What an object begins with, is filled with and ends with, and why it is refused."""


def _objects() -> Iterator[Hostile]:
    """As a text in ``task``, as ``task`` itself, and as the whole body."""
    for name, (before, piece, after, reason) in _OBJECTS.items():
        named = "" if "app" in name else _NAMED
        as_text = json.dumps(piece, ensure_ascii=False)[1:-1]
        size = (SIZE - 200) * len(piece.encode()) // len(as_text.encode())
        task = _filled("{" + named + before, piece, after + "}", size=size).decode()
        body = _SIGNED + '"task":' + json.dumps(task, ensure_ascii=False) + "}"
        of_task = "task-json" if reason == "json" else reason
        yield Hostile(name=f"{name} in a task", body=body.encode(), action="create", reason=of_task)
        body = _filled(_SIGNED + '"task":{' + named + before, piece, after + "}}")
        yield Hostile(name=f"{name} as a task", body=body, action="create", reason=reason)
        if name in ("members", "the app again and again"):
            reason = "too-many-parameters"  # noqa: PLW2901 - it is another for the same text
        yield Hostile(
            name=f"{name} as the body", body=_filled(_SIGNED + named + before, piece, after + "}"), reason=reason
        )


def _in_other_sets() -> Iterator[Hostile]:
    flat, end = _SIGNED + _NAMED + '"x":"', '"}'
    for name, piece, codec, label in (
        ("GBK", "张", "gbk", "GBK"),
        ("GBK or UTF-8", _BOTH, "utf-8", "GBK"),
        ("Latin-1 or UTF-8", _BOTH, "utf-8", "ISO-8859-1"),
    ):
        body = _filled(flat, piece, end, codec)
        yield Hostile(name=f"JSON in {name}", body=body, content_type=f"{_JSON}; charset={label}")
        yield Hostile(
            name=f"gzip of JSON in {name}", body=gzip.compress(body), content_type=f"{_JSON}; charset={label}"
        )
        form = f"{_FORM}; charset={label}"
        escaped = quote(piece, encoding=codec)
        yield Hostile(name=f"a form in {name}", body=_form("+" + escaped), content_type=form)
        yield Hostile(name=f"a form in {name}, raw", body=_form("+" + piece, codec), content_type=form)
        parts = f"{_PARTS}; charset={label}"
        yield Hostile(name=f"multipart in {name}", body=_parts(piece, codec), content_type=parts)
    little = flat + _BOTH * 80
    for label in ("GBK", "ISO-8859-1"):
        for kind, body in ((_JSON, _filled(little, "x", end)), (_FORM, _form("x", begin=_BOTH * 80 + "+"))):
            name = f"{kind} that may be {label} or UTF-8 and is letters but for a little"
            yield Hostile(name=name, body=body, content_type=f"{kind}; charset={label}")


def _half_pairs_behind_backslashes() -> Iterator[Hostile]:
    """Half a surrogate pair in the body and one in its task, so that both are repaired, in each way to read them."""
    task = json.dumps("{" + _NAMED + '"x":"张', ensure_ascii=False)[1:-1]
    end = '\\\\ud800\\"}"}'
    for name, half, label in (
        ("", '"\\ud800"', "GBK"),
        (", only in a task", '""', "GBK"),
        ("", '"\\ud800"', "ISO-8859-1"),
    ):
        body = _filled(f'{_SIGNED}"y":{half},"task":"{task}', "\\" * 4, end)
        yield Hostile(
            name=f"gzip of half surrogate pairs behind backslashes{name}, labelled {label}",
            body=gzip.compress(body),
            content_type=f"{_JSON}; charset={label}",
            action="create",
        )


def _form(piece: str, codec: str = "utf-8", *, begin: str = "") -> bytes:
    return _filled(f"sign=0&appType={APP_TYPE}&corpId={CORP_ID}&x={begin}", piece, "", codec)


def _parts(piece: str, codec: str = "utf-8") -> bytes:
    begin = "--b\r\nContent-Disposition: form-data; name="
    flat = "".join(
        f"{begin}{key}\r\n\r\n{each}\r\n" for key, each in (("sign", "0"), ("appType", APP_TYPE), ("corpId", CORP_ID))
    )
    return _filled(f"{flat}{begin}x\r\n\r\n", piece, "\r\n--b--\r\n", codec)


def hostile() -> list[Hostile]:
    """Each names an app that is known, for else it is refused before it is hashed."""
    letters = _filled(_SIGNED + _NAMED + '"x":"', "x", '"}')
    many = "too-many-parameters"
    return [
        *_objects(),
        Hostile(name="JSON as text/plain, no query", body=letters, content_type="text/plain", query=""),
        Hostile(name="JSON without a type", body=letters, content_type=""),
        Hostile(name="gzip of JSON", body=gzip.compress(letters)),
        Hostile(name="letters in a form", body=_form("x"), content_type=_FORM),
        Hostile(name="escapes in a form", body=_form("%41"), content_type=_FORM),
        Hostile(name="Chinese in a form", body=_form("%E5%BC%A0"), content_type=_FORM),
        Hostile(
            name="escapes and equals signs in a form",
            body=_form("=", begin="%41+"),
            content_type=_FORM,
            reason="percent-escape",
        ),
        Hostile(
            name="as many equals signs as a form may have",
            body=_form("%41", begin="+" + "=" * (64 << 10)),
            content_type=_FORM,
        ),
        Hostile(name="pluses in a form", body=_form("+"), content_type=_FORM),
        Hostile(name="pairs in a form", body=_form("&a=1"), content_type=_FORM, reason=many),
        Hostile(name="separators in a form", body=_form("&"), content_type=_FORM, reason=many),
        Hostile(name="letters in parts", body=_parts("x"), content_type=_PARTS),
        Hostile(name="Chinese in parts", body=_parts("张"), content_type=_PARTS),
        Hostile(name="lines in parts", body=_parts("\r\n"), content_type=_PARTS),
        Hostile(name="almost ends of parts", body=_parts("\r\n--"), content_type=_PARTS),
        *_in_other_sets(),
        *_half_pairs_behind_backslashes(),
        *_messages(letters),
    ]


def _messages(letters: bytes) -> Iterator[Hostile]:
    """At the endpoint of other systems, where a body is hashed for each of a source's secrets, and is not looked at."""
    deep = _filled('{"data":', "[", "")
    for name, body in (("letters", letters), ("gzip of letters", gzip.compress(letters)), ("lists", deep)):
        for kind in (_JSON, "application/cloudevents+json"):
            yield Hostile(
                name=f"{name} of another system as {kind}", body=body, content_type=kind, prefix=f"/sources/{SOURCE}"
            )
