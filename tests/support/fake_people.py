"""A small company: who they are, what they ask for, and titles that a page must bear."""

# ruff: noqa: RUF001 - Chinese text
from __future__ import annotations

CORP = "ding5d17e3add038d44535c2f4657eb6378f"
ME = "0169-li-lei"

PEOPLE = {
    ME: "李雷",
    "0169-han-mei": "韩梅梅",
    "0169-wang-wei": "王伟",
    "0169-zhang-hong": "张红",
    "0169-ouyang": "欧阳静怡",
    "0169-chen-chen": "陈晨",
    "0169-smith": "Ann-Marie Smith",
}
DEPARTMENTS = {ME: "研发部", "0169-han-mei": "财务部", "0169-smith": "财务部"}
OTHERS = [{"user_id": user, "name": name} for user, name in PEOPLE.items() if user != ME]

APPS = [
    ("APP_RY60OCRF33Z7534", "访客申请"),
    ("APP_FNXK2201QW8810", "费用报销"),
    ("APP_HRLV77A0PP1292", "请假申请"),
    ("APP_PROC55TT3301XX", "采购审批"),
]

MARKUP = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"><b>加粗</b>&amp;'
LONG = (
    "关于二〇二六年第四季度华东大区渠道合作伙伴联合市场推广活动专项经费预算调整及跨部门资源协调的申请"
    "（含附件三份，请财务、法务、市场三个部门会签后返回）"
)
RIGHT_TO_LEFT = "طلب إجازة سنوية ‎(Omar)‎ — تجديد"

# Title, app, originator.
TITLES: list[tuple[str | None, int, int]] = [
    ("张红的1位访客申请", 0, 2),
    ("差旅费报销：上海—深圳，¥3,482.00", 1, 1),
    ("韩梅梅的年假申请（3天）", 2, 0),
    (LONG, 3, 4),
    (MARKUP, 0, 5),
    (RIGHT_TO_LEFT, 2, 5),
    (None, 3, 1),
    ("采购：27英寸显示器 × 12", 3, 3),
    ("Laptop replacement for the Hangzhou office", 3, 5),
    ("欧阳静怡的转正申请", 2, 3),
    ("会议室投影仪维修", 1, 4),
]
