"""The simulated company: its people, and the forms and processes of its apps, as plain values."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.schemas.events import Form

if TYPE_CHECKING:
    from collections.abc import Mapping


CORP = "ding5d17e3add038d44535c2f4657eb6378f"
"""The corp of the demo and of simulated apps without one in the credentials."""


class Employee(NamedTuple):
    user_id: str
    name: str
    department: str
    is_head: bool = False


_NAMES: Mapping[str, tuple[str, ...]] = {
    # The head of each department comes first.
    "管理部": ("李雷", "周敏", "吴刚", "郑文"),
    "财务部": ("陈静", "赵磊", "孙丽", "钱进", "林芳"),
    "人力资源部": ("杨洋", "黄琳", "徐峰", "马俊"),
    "法务部": ("胡斌", "郭勇", "何芸"),
    "研发部": ("张伟", "刘洋", "王芳", "李娜", "张敏", "高峰", "罗丹", "梁宇", "宋佳", "唐悦"),
    "销售部": ("许婷", "韩冰", "冯涛", "邓凯", "曹莉", "彭博"),
    "行政部": ("韩梅梅", "王伟", "曾志", "肖云"),
}

_KNOWN_IDS = {"李雷": "0169-li-lei", "韩梅梅": "0169-han-mei", "王伟": "0169-wang-wei"}
"""The people of the demo's story are employees too."""

EMPLOYEES: tuple[Employee, ...] = (
    Employee("01690741902689", "张红", "研发部"),
    *(
        Employee(_KNOWN_IDS.get(name, f"0169{department:02d}{number:04d}"), name, title, number == 0)
        for department, (title, names) in enumerate(_NAMES.items(), 1)
        for number, name in enumerate(names)
    ),
)


def busiest() -> Employee:
    """The head of the largest department, who decides on its requests."""
    sizes = Counter(each.department for each in EMPLOYEES)
    return max((each for each in EMPLOYEES if each.is_head), key=lambda each: sizes[each.department])


DEPARTMENT_FIELD = "employeeField_department"
"""The applicant's department, on every form."""


class Approval(NamedTuple):
    """One step: approval by the applicant's head, or by any one of some members of a department."""

    name: str
    department: str | None = None
    assignees: int = 1


class Process(NamedTuple):
    """A form, and the approvals of a request."""

    name: str
    code: str
    title: str
    form: Mapping[str, tuple[str, ...]]
    """Field → its possible values."""
    steps: tuple[Approval, ...]
    copied_to: str | None = None
    """The department whose members receive a copy at the end."""

    @property
    def form_uuid(self) -> str:
        return f"FORM-{self.code}"


_BY_HEAD = Approval("部门负责人审批")

PROCESSES: tuple[Process, ...] = (
    Process(
        "请假申请",
        "LEAVE",
        "{name}的请假申请（{selectField_leave_type}{numberField_days}天）",
        {
            "selectField_leave_type": ("年假", "病假", "事假", "婚假", "调休"),
            "numberField_days": ("0.5", "1", "2", "3", "5", "10"),
            "textareaField_reason": ("家中有事", "身体不适，需要就医", "与家人出游", "", "搬家"),
        },
        (_BY_HEAD,),
        "人力资源部",
    ),
    Process(
        "出差申请",
        "TRAVEL",
        "{name}的出差申请（{textField_city}）",
        {
            "textField_city": ("上海", "深圳", "成都", "西安", "武汉", "杭州"),
            "selectField_transport": ("高铁", "飞机", "自驾"),
            "numberField_budget": ("1800", "3200", "4500", "8000"),
            "textareaField_purpose": ("客户拜访", "项目验收", "行业展会", "技术交流"),
        },
        (_BY_HEAD, Approval("财务复核", "财务部", 2)),
        "行政部",
    ),
    Process(
        "采购申请",
        "PURCHASE",
        "采购申请：{textField_item} × {numberField_count}",
        {
            "textField_item": ("笔记本电脑", "显示器", "办公椅", "服务器内存", "打印纸"),
            "numberField_count": ("1", "2", "5", "10", "40"),
            "numberField_amount": ("1280.00", "6999.00", "15200.00", "88000.00"),
            "selectField_supplier": ("联想", "戴尔", "得力", "京东企业购"),
        },
        (_BY_HEAD, Approval("行政询价", "行政部", 2), Approval("财务审批", "财务部", 3)),
    ),
    Process(
        "合同审批",
        "CONTRACT",
        "合同审批：{textField_partner}·{selectField_kind}",
        {
            "textField_partner": ("华东科技有限公司", "蓝海传媒", "<星辰>软件", "远大物流", "O'Neill & Partners"),
            "selectField_kind": ("销售合同", "框架协议", "保密协议", "租赁合同"),
            "numberField_amount": ("0", "50000", "320000", "1500000"),
            "dateField_signed": ("2026-03-01", "2026-04-15", "2026-06-30"),
        },
        (_BY_HEAD, Approval("法务审核", "法务部", 2), Approval("财务会签", "财务部"), Approval("总经理审批", "管理部")),
        "法务部",
    ),
    Process(
        "入职办理",
        "ONBOARDING",
        "入职办理：{textField_newcomer}（{selectField_position}）",
        {
            "textField_newcomer": ("陆雯", "沈浩", "顾佳", "江楠", "石磊"),
            "selectField_position": ("前端工程师", "销售经理", "会计", "测试工程师"),
            "dateField_entry": ("2026-02-09", "2026-03-02", "2026-03-16"),
        },
        (Approval("人事确认", "人力资源部", 2), Approval("准备设备", "行政部", 3), Approval("开通账号", "研发部", 2)),
        "管理部",
    ),
)

_LABELS: Mapping[str, str] = {
    "selectField_leave_type": "请假类型",
    "numberField_days": "天数",
    "textareaField_reason": "请假事由",
    "textField_city": "目的地",
    "selectField_transport": "交通方式",
    "numberField_budget": "预算（元）",
    "textareaField_purpose": "出差事由",
    "textField_item": "物品",
    "numberField_count": "数量",
    "numberField_amount": "金额（元）",
    "selectField_supplier": "供应商",
    "textField_partner": "合同方",
    "selectField_kind": "合同类型",
    "dateField_signed": "签订日期",
    "textField_newcomer": "新员工",
    "selectField_position": "职位",
    "dateField_entry": "入职日期",
    DEPARTMENT_FIELD: "部门",
}
"""Field → its label."""

FORMS = tuple(
    Form(each.form_uuid, each.name, {name: _LABELS[name] for name in (*each.form, DEPARTMENT_FIELD)})
    for each in PROCESSES
)

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


def vendor_sample() -> dict[str, Any]:
    """The ``task`` of the vendor's page, with the missing comma after ``instValue``."""
    return json.loads(files("taskbridge.local").joinpath("vendor-sample.json").read_text("utf-8"))
