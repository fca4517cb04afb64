"""Generated callbacks: usual ones, and requests that are almost callbacks."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of, task_of
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.decision.decide import Rules, interpret
from taskbridge.edge.request import Received
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.verification.credentials import parse_credentials
from taskbridge.local.company import vendor_sample
from taskbridge.local.simulation import SimulatedApp, Simulation
from taskbridge.schemas.events import AHEAD_MS, ID_NAMESPACE, MAX_ID_CHARACTERS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

    from taskbridge.edge.events import Decided
    from taskbridge.edge.verification.credentials import Credentials


PREVIOUS = "a-previous-token"
RECEIVED_AT = 1_720_000_000_000
FORM = "application/x-www-form-urlencoded"

CREDENTIALS = parse_credentials(
    f"""
    [[apps]]
    app_type = "{APP_TYPE}"
    corp_id = "{CORP_ID}"
    system_tokens = ["{SYSTEM_TOKEN}", "{PREVIOUS}"]
    [[apps]]
    app_type = "APP_1"
    corp_id = "{CORP_ID}"
    system_tokens = ["T1"]
    [[apps]]
    app_type = "APP 2/审批"
    corp_id = "{CORP_ID}"
    system_tokens = ["秘密"]
    """
)
FIGURES = {"id_characters": MAX_ID_CHARACTERS, "ahead_ms": AHEAD_MS, "id_namespace": ID_NAMESPACE.hex()}


class Request(NamedTuple):
    """The input of the native core."""

    action: str
    query: bytes
    content_type: str | None
    body: bytes
    received_at: int = RECEIVED_AT


def decided_by_python(
    request: Request, *, credentials: Credentials = CREDENTIALS, used: list[Any] | None = None
) -> Decided:
    """Raises Rejection where nothing is proven. The token that signed is appended to ``used``."""
    received = Received(
        wire_action=request.action,
        received_at=request.received_at,
        remote_address="192.0.2.1",
        method="POST",
        path=f"/yida/tasks/{request.action}",
        query=request.query,
        headers={} if request.content_type is None else {"content-type": request.content_type},
        body=request.body,
    )
    rules = Rules(max_body_bytes=1 << 20, token_used=([] if used is None else used).append)
    return interpret(received, credentials, rules)


def encoded(action: str, parameters: Mapping[str, str], encoding: str) -> Request:
    """``escaped`` is JSON with every character beyond ASCII escaped, ``spread`` JSON with blanks and ``\\/``."""
    if encoding in ("escaped", "spread"):
        text = json.dumps(parameters, indent=1 if encoding == "spread" else None)
        body = text.replace("/", "\\/").encode() if encoding == "spread" else text.encode()
        return Request(action, b"", "application/json;charset=UTF-8", body)
    if encoding == "lower":  # escapes as some libraries write them
        body = re.sub(r"%..", lambda escape: escape[0].lower(), urlencode(parameters, quote_via=quote))
        return Request(action, b"", None, body.encode())
    if encoding == "both":
        first, *others = parameters.items()
        return Request(action, urlencode([first]).encode(), "application/json", json.dumps(dict(others)).encode())
    made = encode_callback(parameters, encoding)  # type: ignore[arg-type]
    return Request(action, made.query.encode(), made.headers.get("Content-Type"), made.body)


ENCODINGS = ("json", "form", "query", "escaped", "spread", "lower", "both")


def usual() -> Iterator[Request]:
    """The usual callbacks: the core must accept each of these."""
    for action in ACTIONS:
        for encoding in ENCODINGS:
            parameters = parameters_of(action, instance_id="inst-1") | ({"a": "~"} if action == "complete" else {})
            yield encoded(action, _signed(parameters), encoding)
    flat = parameters_of("complete", instance_id="4f5a3f2c-93c4-4f4e-9d0b-6f2f2f8f4c1a")
    for changed in (
        {"dateTime": "1693462062"},
        {"dateTime": "2023-08-31 14:07:42"},
        {"dateTime": "2024-02-29 00:00:00"},
        {"dateTime": "2023-02-28 23:59:59"},
        {"dateTime": ""},
        {"dateTime": str(RECEIVED_AT + AHEAD_MS)},
        {"actualWorkId": "张红 "},
        {"actualWorkId": ""},
        {"taskId": "任务" * 64, "Zeta": "1", "alpha": "2", "_x": "3"},
        {"formInstId": 'inst/1 &=%+"\\\t张'.replace("\t", "")},
        {"showName": "部门审批", "activityId": "node_1", "taskExecuteType": "NORMAL"},
        {"taskExecuteType": "AUTO", "operatorAgentIdList": ""},
        {"taskExecuteType": "FILTERED", "operatorAgentIdList": "u2"},
        {"taskExecuteType": "NORMAL", "operatorAgentIdList": "u2, u3"},
        {"taskExecuteType": " ", "operatorAgentIdList": "u2"},
    ):
        for encoding in ("json", "form", "escaped"):
            yield encoded("complete", _signed(flat | changed), encoding)
    yield encoded("complete", signed(flat, system_token=PREVIOUS), "json")
    other = {"appType": "APP 2/审批", "corpId": CORP_ID, "formInstId": "i", "taskId": "t"}
    yield encoded("cancel", signed(other, system_token="秘密"), "form")
    yield encoded("cc", _signed(flat | {"ccUserIds": "u1,u2 , 张红,u1", "title": "抄送"}), "json")
    extra = {"formInstId": "extra", "taskId": "extra", "title": "extra"}
    yield encoded("create", _signed({"task": json.dumps(task_of("inst-1"))} | extra), "json")
    yield from map(_as_numbers, (encoded("complete", _signed(flat), "json"), encoded("delete", _deleted(), "json")))
    yield from _described()
    yield from (_sample(encoding) for encoding in ENCODINGS)
    simulation = Simulation([SimulatedApp("APP_1", CORP_ID, "T1")], seed=7)
    for number in range(40):
        posting = simulation.next(1_690_000_000_000 + number)
        yield encoded(posting.action, signed(posting.parameters, system_token="T1"), ENCODINGS[number % 2])


def _sample(encoding: str) -> Request:
    """What the vendor's page shows."""
    task = {**vendor_sample(), "appType": APP_TYPE, "corpId": CORP_ID}
    parameters = {"task": json.dumps(task, ensure_ascii=False, indent=1), "dateTime": "2023-08-31 14:07:42"}
    return encoded("create", _signed(parameters), encoding)


def _described() -> Iterator[Request]:
    """Tasks in the shapes that Yida's pages and its sibling interfaces show."""
    task = dict(task_of("inst-1"))
    nested: dict[str, Any] = {
        "a": [1, 2.50, {"b": 'x\n"\\\u0001/'}, []],
        "c": {},
        "张": "\U0001f600",
        "d": True,
        "e": None,
    }
    for changed in (
        {"actionerId": None, "taskId": None, "url": None},
        {"actionerId": "u1", "actionerIds": ["u2", 3, None, " u1 "], "taskId": 2199132092},
        {"actionerId": "u1, u2", "originatorId": None, "title": " "},
        {"corpId": None, "createTime": "2023-08-31 14:07:42", "finishTime": 1693462062},
        {"dataMap": json.dumps(nested), "title": "\U0001f600 \u2028 \x7f é"},
        {"dataMap": nested, "url": "http://h:8080?x=1#y 中".replace(" ", "")},
        {"dataMap": None, "formInstanceId": None, "processInstanceId": "p-1", "serialNo": 7},
        {"title": "\x1c", "serialNo": "\x1f", "url": "\u3000"},
        {"showName": "部门审批", "activityId": 7, "taskExecuteType": "NORMAL", "operatorAgentIdList": ["u2"]},
        {"dataMap": {f"textField_{number}": "值" * 40 for number in range(60)}},
    ):
        for ensure_ascii in (False, True):
            text = json.dumps(task | changed, ensure_ascii=ensure_ascii)
            yield encoded("create", _signed({"task": text, "dateTime": "1693462062502"}), "json")
            yield encoded("cc", _signed({"task": text, "ccUserIds": "c1"}), "form")


def left() -> Iterator[Request]:
    """Requests left to Python: each has one property that the core does not accept, though Python may."""
    flat = parameters_of("complete", instance_id="inst-1")
    for changed in (
        *({key: value} for key in ("formInstId", "taskId", "actualWorkId") for value in ("a\x01", "x" * 129, "\x9f")),
        *({"actualWorkId": each} for each in ("a,b", '["u"]', " {}")),
        *({"taskExecuteType": each} for each in ("ROBOT", "auto")),
        *({"operatorAgentIdList": each} for each in ("[]", '[{"userId":"u2"}]')),
        *({"dateTime": each} for each in ("0123456789", "0000000000000", "2023-02-29 00:00:00", "2100-02-29 00:00:00")),
        *(
            {"dateTime": each}
            for each in ("2023-08-31T14:07:42", "2023-08-31 24:00:00", str(RECEIVED_AT + AHEAD_MS + 1))
        ),
        *({key: "1"} for key in ("__signature", "APPTYPE", "Sign", "é")),
        *({"appType": each} for each in ("", "APP_9")),
        *({"corpId": each} for each in ("", "ding-other")),
        {"taskId": " "},
        {f"k{number}": "" for number in range(256)},
        {"long": "x" * (64 << 10)},
    ):
        yield encoded("complete", _signed(flat | changed), "json")
    yield encoded("complete", signed(flat, system_token="wrong"), "form")
    yield encoded("complete", _signed(flat) | {"sign": ""}, "json")
    yield encoded("delete", _signed(parameters_of("delete", instance_id="inst-1") | {"x": ""}), "json")
    yield encoded("complete", _signed(flat), "multipart")
    plain = encoded("complete", _signed(flat), "json")
    yield plain._replace(body=gzip.compress(plain.body, mtime=0))
    yield plain._replace(body=plain.body + b"x")
    yield plain._replace(body=b"[" + plain.body + b"]")
    yield plain._replace(query=b"x=%4")
    yield plain._replace(query=b"x=1")
    yield from (plain._replace(content_type=each) for each in ("text/plain", "application/json; charset=GBK"))
    yield encoded("complete", _signed(flat), "query")._replace(content_type="application/json", body=b'{"x":')
    for value, written, instead in (
        ("007", '"007"', "007"),
        ("1.0", '"1.0"', "1.0"),
        ("a\nb", "a\\nb", "a\nb"),
        ("\U00010400", "\U00010400", "\\ud800\\ue000"),
        ("?", '"?"', '"\\ud800"'),
        ("x", '"x": "x"', '"x": "x", "x": "x"'),
        ("\ufffd", "%EF%BF%BD", "%FF"),
        ("\ufffd", "%EF%BF%BD", "\ufffd"),
        ("%", "%25", "%"),
    ):
        request = encoded("complete", _signed(flat | {"x": value}), "form" if "%" in written else "json")
        assert written.encode() in request.body
        yield request._replace(body=request.body.replace(written.encode(), instead.encode()))
    yield from _left_of_tasks()


def _left_of_tasks() -> Iterator[Request]:
    task = dict(task_of("inst-1"))
    odd: dict[str, tuple[Any, ...]] = {
        "url": ("http://h/ x", "http://h:x/", "HTTP://h/", "javascript:x", "http://张/", "http://"),
        "actionerId": (True, {"userId": "u"}, ["a\x01"], '["u"]', [["u"]]),
        "originatorId": (["u"], "a,b"),
        "dataMap": (True, [], "[]", "{", 1),
        "title": ([], {}, True),
        "taskId": ([], True),
    }
    for changed in (
        *({key: each} for key, values in odd.items() for each in values),
        {"createTime": "2999-01-01 00:00:00"},
        {"deep": json.loads("[" * 40 + "]" * 40)},
        {"appType": "APP_1"},
    ):
        yield encoded("create", _signed({"task": json.dumps(task | changed)}), "json")
    for text in (
        '{"title":"a","title":"b",',
        '{"dataMap":{"a":{"b":1,"b":2}},',
        '{"title":"\x01",',
        '{"n":01,',
        "{",
        "\ufeff{",
    ):
        whole = text + json.dumps({key: each for key, each in task.items() if f'"{key}"' not in text})[1:]
        yield encoded("create", _signed({"task": whole if text != "{" else ""}), "json")
    for key, other in (("corpId", "ding-other"), ("appType", "APP_1")):
        yield encoded("create", _signed({"task": json.dumps(task), key: other}), "form")
        yield encoded("create", _signed({"task": json.dumps(task | {key: other}), key: str(task[key])}), "form")


def _as_numbers(request: Request) -> Request:
    """A client that writes numbers as numbers, and nothing as null."""
    body = request.body.replace(b'"1693462062502"', b"1693462062502")
    return request._replace(body=body[:-1] + b', "nothing": null}' if request.action == "complete" else body)


def _deleted() -> dict[str, str]:
    return _signed(parameters_of("delete", instance_id="inst-2"))


def _signed(parameters: Mapping[str, str]) -> dict[str, str]:
    return signed(parameters, system_token=SYSTEM_TOKEN)


_PIECES = (
    *(
        "",
        " ",
        "\x1c",
        "\x85",
        "\u3000",
        "\x00",
        "\x7f",
        "\u200b",
        "İ",
        "\u017f",
        "null",
        "[",
        "{}",
        '["u"]',
        "a,b",
        "0",
        "-1",
    ),
    *("1.0", "1e3", "true", "9" * 19, "x" * 129, "1693462062502 ", "99999999999999", "2023-13-01 00:00:00", "%", "+"),
    *("2023-08-31T14:07:42", "2023/8/31", "0000000000000", "0123456789", "2999-01-01 00:00:00", "1900000000"),
    *("http://h", "https://h:x/", "http://", "HTTP://h/", "http://h:/", "http://[::1]/", "http://张/", "javascript:x"),
    *("http://h/ x", "\u2028", "\ud800", "\U0001f600", "é", '"', "\\", "\n"),
)
_VALUES: tuple[Any, ...] = (
    *_PIECES,
    None,
    True,
    1,
    1.5,
    [],
    {},
    ["u", None, 1],
    [[]],
    {"userId": "u"},
    {"a": {"a": 1}},
    ["a,b", " c "],
)
_KEYS = (
    *(
        "appType",
        "corpId",
        "formInstId",
        "taskId",
        "actualWorkId",
        "dateTime",
        "task",
        "sign",
        "__signature",
        "APPTYPE",
    ),
    *(
        "x",
        "",
        "é",
        "Sign",
        "title",
        "url",
        "taskUrl",
        "actionerId",
        "actionerIds",
        "ccUserIds",
        "originatorId",
        "dataMap",
    ),
    *("originatorDisplayName", "originatorCorpId", "createTime", "finishTime", "processCode", "formInstanceId", "a b"),
)
_TYPES = ("application/json", FORM, None, "", "text/plain", "application/json; charset=utf-8", f"{FORM};charset=UTF-8")
_ODD_TYPES = (
    *_TYPES,
    "application/json;charset=GBK",
    "multipart/form-data; boundary=b",
    "x",
    f"{FORM}; charset=latin1",
)


def almost(chance: random.Random) -> Request:
    """A callback that is signed as it should be, and in which something is unusual, or not as it should be."""
    action = chance.choice([*ACTIONS])
    parameters: dict[str, Any] = dict(parameters_of(action, instance_id="inst-1"))
    if action == "cc" and chance.random() < 0.5:
        parameters = dict(parameters_of("complete", instance_id="inst-1"))
    if "task" in parameters:
        task: dict[str, Any] = dict(task_of("inst-1"))
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            _change(task, chance)
        text = json.dumps(task, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, None, 1)))
        parameters["task"] = _struck(text, chance) if chance.random() < 0.1 else text
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        _change(parameters, chance)
    if chance.random() < 0.3:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(-(1 << 31), 1 << 33))
        parameters["dateTime"] = f"{moment:%Y-%m-%d %H:%M:%S}"
    plain = {key: _signed_text(value) for key, value in parameters.items() if value is not None}
    try:
        parameters["sign"] = signed(plain, system_token=chance.choice((SYSTEM_TOKEN, SYSTEM_TOKEN, PREVIOUS, "x")))[
            "sign"
        ]
    except UnicodeEncodeError:  # half a surrogate pair, which cannot be signed
        parameters["sign"] = "0" * 32
    if chance.random() < 0.3:
        parameters["sign"] = chance.choice((parameters["sign"].upper(), f" {parameters['sign']}"))
    return _sent(action, parameters, chance)


def _sent(action: str, parameters: dict[str, Any], chance: random.Random) -> Request:
    items = list(parameters.items())
    chance.shuffle(items)
    query: dict[str, Any] = {}
    if chance.random() < 0.2:
        query = dict(items[: (cut := chance.randrange(len(items) + 1))])
        items = items[cut:]
    label = chance.choice(_ODD_TYPES if chance.random() < 0.2 else _TYPES)
    if chance.random() < 0.5:
        text = json.dumps(dict(items), ensure_ascii=chance.random() < 0.5)
        body = text.encode("utf-8", "surrogatepass")
    else:
        body = _form(dict(items)).encode()
    if chance.random() < 0.15 and body:
        at = chance.randrange(len(body))
        body = (
            body[:at]
            + chance.choice((b"", b"\x00", b"\xff", b'"', b"\\", b"%", b"&", b"=", b" ", b"{"))
            + body[at + 1 :]
        )
    return Request(action, _form(query).encode(), label, body)


def _form(parameters: Mapping[str, Any]) -> str:
    return "&".join(
        f"{quote(key)}={quote(_signed_text(value).encode('utf-8', 'surrogatepass'))}"
        for key, value in parameters.items()
        if value is not None
    )


def _change(members: dict[str, Any], chance: random.Random) -> None:
    key = chance.choice([*members, *_KEYS])
    if chance.random() < 0.2:
        members.pop(key, None)
    elif chance.random() < 0.3 and isinstance(members.get(key), str):
        members[key] = _struck(members[key], chance)
    else:
        members[key] = chance.choice(_VALUES)


def _struck(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(_PIECES) + text[at + chance.randrange(2) :]


def _signed_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
