"""Callbacks that Yida signed are accepted in any encoding of a client; the same bytes with another sign never are."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from support.edge.fakes import SYSTEM_TOKEN, parameters_of, task_of
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.schemas.events import event_id_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.edge.client import EdgeClient
    from support.edge.fakes import MemoryPublisher

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True)
class Genuine:
    """A callback as a client's library sends it, and what Yida signed."""

    name: str
    parameters: Mapping[str, str]
    body: bytes = b""
    query: str = ""
    action: str = "complete"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def sign(action: str = "complete", **changed: str) -> dict[str, str]:
    return signed({**parameters_of(action, instance_id="inst-1"), **changed}, system_token=SYSTEM_TOKEN)


def labelled(name: str, content_type: str | None, body: bytes, parameters: Mapping[str, str], **more: str) -> Genuine:
    label = {} if content_type is None else {"Content-Type": content_type}
    return Genuine(name=name, parameters=parameters, body=body, headers={**label, **more})


def genuine() -> list[Genuine]:
    plain = sign()
    named = sign(actualWorkId="张红")
    as_json, as_form = json.dumps(plain).encode(), urlencode(plain).encode()
    multipart = encode_callback(named, "multipart")
    task = json.dumps({**task_of("inst-1"), "title": "张红的1位访客申请"}, ensure_ascii=False)
    created = sign("create", task=task)
    chinese = json.dumps(named, ensure_ascii=False)
    cut = sign("create", task=json.dumps({**task_of("inst-1"), "title": "cut ?"}))
    with_half = json.dumps(cut).replace("cut ?", "cut \\ud83d")
    within = sign("create", task=json.dumps({**task_of("inst-1"), "title": "cut \ud83d"}))
    plus = sign(actualWorkId="a+b")
    nothing = sign(actualWorkId="null", taskId="a+b")
    types = (
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "text/json",
        "application/xml",
        "*/*",
    )
    labels = ("ISO-8859-1", "gbk", "US-ASCII", "utf-16", "x-nonsense")
    return [
        *(labelled(f"JSON as {each}", each, as_json, plain) for each in (*types, FORM, None, "multipart/form-data")),
        *(labelled(f"a form as {each}", each, as_form, plain) for each in (*types, "application/json", None)),
        labelled("multipart as a form", FORM, multipart.body, named),
        labelled("multipart without a boundary in its label", "multipart/form-data", multipart.body, named),
        *(labelled(f"ASCII as {each}", f"application/json; charset={each}", as_json, plain) for each in labels),
        *(labelled(f"a form as {each}", f"{FORM}; charset={each}", as_form, plain) for each in labels),
        labelled("GBK", "application/json;charset=GBK", chinese.encode("gbk"), named),
        labelled("GB2312", "application/json;charset=gb2312", chinese.encode("gb2312"), named),
        labelled("GB18030", "application/json;charset=GB18030", chinese.encode("gb18030"), named),
        labelled("UTF-8 as GBK", "application/json;charset=GBK", chinese.encode(), named),
        labelled("UTF-8 as ISO-8859-1", "application/json;charset=ISO-8859-1", chinese.encode(), named),
        labelled("a form in GBK", f"{FORM};charset=GBK", urlencode(named, encoding="gbk").encode(), named),
        labelled(
            "ISO-8859-1",
            "application/json;charset=ISO-8859-1",
            json.dumps(sign(actualWorkId="café"), ensure_ascii=False).encode("latin-1"),
            sign(actualWorkId="café"),
        ),
        labelled("a byte-order mark", "application/json", b"\xef\xbb\xbf" + as_json, plain),
        labelled("a byte-order mark before a form", FORM, b"\xef\xbb\xbf" + as_form, plain),
        Genuine(
            name="a byte-order mark before the task",
            action="create",
            parameters=sign("create", task="\ufeff" + task),
            body=json.dumps(sign("create", task="\ufeff" + task)).encode(),
        ),
        Genuine(name="half a surrogate pair", action="create", parameters=cut, body=with_half.encode()),
        Genuine(
            name="half a surrogate pair in the task's own JSON",
            action="create",
            parameters=within,
            body=json.dumps(within).encode(),
        ),
        labelled("gzip", "application/json", gzip.compress(as_json), plain, **{"Content-Encoding": "gzip"}),
        labelled("gzip without its label", "application/json", gzip.compress(as_json), plain),
        labelled("gzip in its label only", "application/json", as_json, plain, **{"Content-Encoding": "gzip"}),
        labelled("Content-Encoding: UTF-8", "application/json", as_json, plain, **{"Content-Encoding": "UTF-8"}),
        Genuine(name="an unsigned parameter in the query", parameters=plain, query="source=yida", body=as_json),
        Genuine(name="an unsigned body", parameters=plain, query=urlencode(plain), body=b'{"source": "yida"}'),
        Genuine(name="an empty object as body", parameters=plain, query=urlencode(plain), body=b"{}"),
        Genuine(name="a literal plus in the query", parameters=plus, query=urlencode(plus).replace("%2B", "+")),
        Genuine(
            name="a literal plus in a form",
            parameters=plus,
            body=urlencode(plus).replace("%2B", "+").encode(),
            headers={"Content-Type": FORM},
        ),
        Genuine(
            name="a literal plus, and a null that was signed as a text",
            parameters=nothing,
            query=f"taskId=a+b&dateTime={nothing['dateTime']}",
            body=json.dumps(
                {
                    key: None if value == "null" else value
                    for key, value in nothing.items()
                    if key not in ("taskId", "dateTime")
                }
            ).encode(),
        ),
        Genuine(
            name="raw UTF-8 in a query that a proxy escaped",
            parameters=named,
            query=quote(urlencode(named), safe="=&%"),
        ),
        Genuine(
            name="a create in GBK",
            action="create",
            parameters=created,
            body=json.dumps(created, ensure_ascii=False).encode("gbk"),
            headers={"Content-Type": "application/json; charset=gbk"},
        ),
    ]


GENUINE = genuine()


def post(client: EdgeClient, each: Genuine, **headers: str) -> Any:
    path = f"/yida/tasks/{each.action}" + (f"?{each.query}" if each.query else "")
    return client.post(path, content=each.body, headers={**each.headers, **headers})


def test_they_have_names_of_their_own() -> None:
    assert len({each.name for each in GENUINE}) == len(GENUINE)


@pytest.mark.parametrize("each", GENUINE, ids=lambda each: each.name)
def test_what_is_genuine_is_accepted(client: EdgeClient, publisher: MemoryPublisher, each: Genuine) -> None:
    answer = post(client, each)
    assert answer.status_code == 200, answer.text
    (event,) = publisher.published
    assert event.raw_parameters == each.parameters
    assert event.event_id == event_id_for("yida", each.action, each.parameters)
    assert event.instance_id == "inst-1"


@pytest.mark.parametrize("each", GENUINE, ids=lambda each: each.name)
def test_the_same_with_another_sign_is_not(client: EdgeClient, publisher: MemoryPublisher, each: Genuine) -> None:
    real = each.parameters["sign"].encode()
    body = gzip.decompress(each.body) if each.body.startswith(b"\x1f\x8b") else each.body
    body = body.replace(real, real[::-1])
    if each.body.startswith(b"\x1f\x8b"):
        body = gzip.compress(body)
    query = each.query.replace(real.decode(), real[::-1].decode())
    assert post(client, replace(each, body=body, query=query)).status_code == 401
    assert publisher.published == []
