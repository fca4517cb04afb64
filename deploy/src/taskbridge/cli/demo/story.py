"""The demo's input: the vendor's documented sample and the other documented shapes, as the life of three requests."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from taskbridge.schemas.events import Form

if TYPE_CHECKING:
    from taskbridge.edge.sender import Encoding

APP = "APP_RY60OCRF33Z7534***"
CORP = "ding5d17e3add038d44535c2f4657eb6378f"

PEOPLE = {
    "01690741902689": "张红 (originator)",
    "0169-li-lei": "李雷 (department head)",
    "0169-han-mei": "韩梅梅 (security desk)",
    "0169-wang-wei": "王伟 (reception)",
}
VISITORS = Form(
    "FORM-MT866EA1X3N9W79GDQM2HB400M413OS76A2GL51",
    "访客申请",
    {
        "cascadeDateField_l4sbkqco": "来访时间",
        "imageField_llyrklcy": "照片",
        "numberField_l4s57vma": "访客人数",
        "selectField_l523dlqi": "来访地点",
        "tableField_l4s57vmb": "访客",
        "textField_l4s57vm9": "来访单位",
        "textField_l4s57vmc": "姓名",
        "textField_l4s57vmd": "电话",
        "textareaField_l4s57vmf": "来访事由",
    },
)
"""The sample's form, with invented labels."""
_ZHANG, _LI, _HAN, _WANG = PEOPLE


@dataclass(frozen=True, slots=True)
class Step:
    """One callback, and its meaning for people."""

    says: str
    action: str
    encoding: Encoding
    parameters: dict[str, str]


def vendor_sample() -> dict[str, Any]:
    """The ``task`` of the vendor's page, with the missing comma after ``instValue``."""
    return json.loads(files("taskbridge.cli.demo").joinpath("vendor-sample.json").read_text("utf-8"))


def story() -> list[Step]:
    """A request that is approved, one that is withdrawn, one that is deleted. Ids are new each time."""
    approved, withdrawn, deleted = (str(uuid.uuid4()) for _ in range(3))
    first, second, third = (f"TASK-{uuid.uuid4().hex[:8].upper()}" for _ in range(3))
    return [
        Step(
            "张红 files a visitor request (the vendor's sample)", "create", "form", _task(approved, "张红的1位访客申请")
        ),
        Step(
            "it waits for 李雷's approval",
            "create",
            "json",
            _task(approved, "张红的1位访客申请", taskId=first, actionerId=_LI, url=_page(approved)),
        ),
        Step("李雷 approves", "complete", "form", _decision(approved, first, _LI)),
        Step("韩梅梅 is copied in", "cc", "multipart", _task(approved, "张红的1位访客申请", actionerIds=[_HAN])),
        Step("张红 files another", "create", "form", _task(withdrawn, "张红的3位访客申请")),
        Step(
            "it waits for 李雷 or 王伟",
            "create",
            "form",
            _task(withdrawn, "张红的3位访客申请", taskId=second, actionerId=[_LI, _WANG], url=_page(withdrawn)),
        ),
        Step("张红 withdraws it", "cancel", "query", _decision(withdrawn, second, _ZHANG)),
        Step(
            "张红 files a third by mistake",
            "create",
            "json",
            _task(deleted, "测试, 请忽略", taskId=third, actionerId=_WANG),
        ),
        Step("and deletes it", "delete", "form", {"appType": APP, "corpId": CORP, "formInstId": deleted}),
    ]


def _task(instance_id: str, title: str, **more: Any) -> dict[str, str]:
    task = {**vendor_sample(), "appType": APP, "formInstanceId": instance_id, "title": title, **more}
    return {"task": json.dumps(task, ensure_ascii=False)}


def _decision(instance_id: str, task_id: str, actor_id: str) -> dict[str, str]:
    return {
        "appType": APP,
        "corpId": CORP,
        "formInstId": instance_id,
        "taskId": task_id,
        "actualWorkId": actor_id,
    }


def _page(instance_id: str) -> str:
    return f"https://yida.example/{APP.rstrip('*')}/processDetail?procInsId={instance_id}"
