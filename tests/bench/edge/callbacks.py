"""The callbacks that are sent: thousands of different ones, signed, in the two shapes that matter most.

A complete is JSON of some 230 bytes; a create is a form of some 1.5 KB, whose ``task`` has the shape of the vendor's
sample.
"""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from taskbridge.edge.sender import signed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APP_TYPE = "APP_RY60OCRF33Z7534"
CORP_ID = "ding5d17e3add038d445"
SYSTEM_TOKEN = "BENCHTOKEN0123456789ABCDEF012345"

COUNT = 5000
_SEED = 20230831
_FIRST_MS = 1_693_462_062_502
_NAMES = ("张红", "李强", "王芳", "陈明", "赵敏")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of callback, with its bodies in memory and, one a line, in a file."""

    name: str
    content_type: str
    bodies: list[bytes]
    forged: bytes
    """One that another token signed: no server may accept it."""
    path: Path

    @property
    def url_path(self) -> str:
        return f"/yida/tasks/{self.name}"

    @property
    def mean_bytes(self) -> int:
        return round(sum(map(len, self.bodies)) / len(self.bodies))


def make_kinds(folder: Path) -> list[Kind]:
    """Both kinds, the same bodies at every run."""
    return [
        _written(folder, "complete", "application/json", _complete, _json),
        _written(folder, "create", "application/x-www-form-urlencoded", _create, _form),
    ]


def _written(
    folder: Path,
    name: str,
    content_type: str,
    make: Callable[[random.Random, int], dict[str, str]],
    encode: Callable[[dict[str, str]], bytes],
) -> Kind:
    chance = random.Random(_SEED)
    bodies = [encode(signed(make(chance, number), system_token=SYSTEM_TOKEN)) for number in range(COUNT)]
    path = folder / f"{name}.bodies"
    path.write_bytes(b"\n".join(bodies) + b"\n")
    forged = encode(signed(make(chance, COUNT), system_token="NOT" + SYSTEM_TOKEN))
    return Kind(name, content_type, bodies, forged, path)


def _complete(chance: random.Random, number: int) -> dict[str, str]:
    return {
        "appType": APP_TYPE,
        "corpId": CORP_ID,
        "taskId": str(chance.randrange(10**9, 10**10)),
        "actualWorkId": _person(chance),
        "formInstId": _uuid(chance),
        "dateTime": str(_FIRST_MS + number),
    }


def _create(chance: random.Random, number: int) -> dict[str, str]:
    name, visitors = chance.choice(_NAMES), chance.randrange(1, 90)
    table = [{"textField_l4s57vmc": f"visitor {visitors}", "numberField_li9yr6gs": str(number)}]
    task = {
        "actionerId": [_person(chance)],
        "appType": APP_TYPE,
        "createTime": _FIRST_MS + number,
        "dataMap": {
            "cascadeDateField_l4sbkqco": None,
            "numberField_l4s57vma": str(visitors),
            "imageField_llyrklcy": "**",
            "textareaField_l4s57vmf": "",
            "tableField_l4s57vmb": json.dumps(table, separators=(",", ":")),
        },
        "dataType": "pinst",
        "finishTime": None,
        "formInstanceId": _uuid(chance),
        "formUuid": "FORM-MT866EA1X3N9W79GDQM2HB400M413OS76A2GL51",
        "modifiedTime": _FIRST_MS + number,
        "originatorAvatar": "https://static.dingtalk.com/media/lALPDfJ6d8zhRL_NAbjNAbg_440_440.png",
        "originatorCorpId": CORP_ID,
        "originatorDisplayName": name,
        "originatorId": _person(chance),
        "processApprovedResult": "",
        "processCode": "TPROC--9BC6687125N9XAJ8873I0864QY122BZ96A2GL1",
        "processInstanceStatus": "RUNNING",
        "serialNo": "",
        "taskId": str(chance.randrange(10**9, 10**10)),
        "title": f"{name}的{visitors}位访客申请",
        "url": f"https://www.aliwork.com/{APP_TYPE}/processDetail?procInsId={number}",
        "version": 10,
    }
    return {
        "task": json.dumps(task, ensure_ascii=False, separators=(",", ":")),
        "dateTime": str(_FIRST_MS + number),
    }


def _json(parameters: dict[str, str]) -> bytes:
    return json.dumps(parameters, separators=(",", ":")).encode()


def _form(parameters: dict[str, str]) -> bytes:
    return urlencode(parameters).encode()


def _person(chance: random.Random) -> str:
    return f"{chance.randrange(10**13):014}"


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
