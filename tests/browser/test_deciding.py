"""How a person decides on the page: nothing by one slip, and what became of it is on the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import ME

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

ACTIONS = ["agree", "refuse", "return", "hand_over", "withdraw"]


@pytest.fixture
def deciding(fake: FakeTaskCenter) -> FakeTaskCenter:
    """One where the person decides, with task ids as DingTalk has them."""
    fake.mode, fake.operator = "sso", False
    fake.possible = [{"source": "yida", "app_type": None, "numeric_task_ids": True, "actions": ACTIONS}]
    for number, item in enumerate(fake.items[ME, "pending"]):
        item["task_id"] = str(71_001 + number)
    return fake


def said(page: Page) -> Locator:
    return page.locator(".detail .deciding .deciding-said[role=status]")


def press(page: Page, name: str) -> None:
    page.locator(".detail").get_by_role("button", name=name, exact=True).click()


def acted(fake: FakeTaskCenter) -> list[tuple[Any, ...]]:
    return [(each["action"], each["recipient_id"]) for each in fake.acted]


@pytest.mark.parametrize("by_key", [False, True])
def test_nothing_is_handed_over_or_withdrawn_by_one_click(
    deciding: FakeTaskCenter, open_page: OpenPage, *, by_key: bool
) -> None:
    page = open_page(f"{deciding.url}/#pending")
    dialog = page.get_by_role("dialog", name="转交给 王伟？")
    page.locator(".row").first.click()
    title = page.locator(".detail h2").inner_text()
    press(page, "转交")
    people = page.locator(".deciding .people button")
    # Nobody hands a task over to themself.
    expect(people.filter(has_text="王伟")).to_be_visible()
    expect(people.filter(has_text="李雷")).to_have_count(0)
    people.filter(has_text="王伟").click()
    expect(dialog).to_contain_text(title)
    assert serious_findings(page) == []
    if by_key:
        page.keyboard.press("Escape")
    else:
        dialog.get_by_role("button", name="取消").click()
    expect(dialog).to_be_hidden()
    assert acted(deciding) == []
    people.filter(has_text="王伟").click()
    dialog.get_by_role("button", name="转交").click()
    expect(said(page)).to_have_text("转交：已提交，等待确认…")
    assert acted(deciding) == [("hand_over", "0169-wang-wei")]

    page.get_by_role("tab", name="我创建的").click()
    page.locator(".row", has_text="李雷的访客申请").click()
    press(page, "撤回")
    dialog = page.get_by_role("dialog", name="撤回这个申请？")
    expect(dialog).to_contain_text("李雷的访客申请")
    # The first focus is on the harmless way: Enter twice withdraws nothing.
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    assert len(deciding.acted) == 1
    press(page, "撤回")
    dialog.get_by_role("button", name="撤回").click()
    expect(said(page)).to_have_text("撤回：已提交，等待确认…")
    assert acted(deciding)[1:] == [("withdraw", None)]


def test_what_was_decided_is_marked_as_sent_and_counted_out(deciding: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{deciding.url}/#pending")
    pending, row = page.locator("#tb-tab-pending"), page.locator(".row").first
    item = deciding.items[ME, "pending"][0]
    row.click()
    press(page, "同意")
    expect(row.locator(".status")).to_have_text("已提交")
    expect(pending).to_have_text("待我处理10")
    expect(page).to_have_title("(10) 待我处理 · 任务中心")
    expect(page.locator(".row")).to_have_count(11)
    page.reload()
    expect(row.locator(".status")).to_have_text("已提交")
    expect(pending).to_have_text("待我处理10")
    # Its callback comes: it is in neither number, also while the action is still shown as under way.
    deciding.complete(item)
    expect(page.locator(".row")).to_have_count(10)
    expect(pending).to_have_text("待我处理10")
    # Not carried out: it waits again.
    deciding.refused[deciding.items[ME, "pending"][0]["instance_id"]] = "not-possible"
    row.click()
    press(page, "同意")
    expect(said(page)).to_have_text("同意：未执行。只能在审批页面处理。")
    expect(row.locator(".status")).to_have_count(0)
    expect(pending).to_have_text("待我处理10")


def test_a_task_that_was_decided_meanwhile_is_not_offered_again(deciding: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{deciding.url}/#pending")
    buttons = page.locator(".detail .deciding-buttons button")
    page.locator(".row").first.click()
    expect(buttons).to_have_count(4)
    deciding.complete(deciding.items[ME, "pending"][0])
    expect(page.locator(".detail-left")).to_be_visible()
    expect(page.locator(".detail-tags .status")).to_have_text("已完成")
    expect(buttons).to_have_count(0)
    expect(page.locator(".detail .deciding textarea")).to_be_hidden()


def test_ones_own_requests_say_whom_they_wait_for(deciding: FakeTaskCenter, open_page: OpenPage) -> None:
    created = deciding.items[ME, "created"]
    created[3]["waits_for"] = ["0169-wang-wei", "0169-han-mei", "0169-ouyang"]
    created[0]["waits_for"] = ["0169-han-mei"]
    page = open_page(f"{deciding.url}/#created")
    more = page.locator(".row-more")
    expect(more).to_have_text(["等待 韩梅梅 处理·采购审批", "请假申请", "费用报销", "等待 王伟 等 3 人处理·访客申请"])
    expect(page.locator(".row .avatar").first).to_have_text("梅梅")
    # It goes on to somebody else.
    created[0]["waits_for"] = ["0169-ouyang"]
    deciding.change(created[0])
    expect(more.first).to_have_text("等待 欧阳静怡 处理·采购审批")


def test_the_sum_of_several_is_that_of_the_results(deciding: FakeTaskCenter, open_page: OpenPage) -> None:
    pending = deciding.items[ME, "pending"]
    pending[1]["task_id"] = "PROC-1"
    pending[2]["source"] = "flowable"
    pending[3]["finished_at"] = pending[3]["updated_at"]
    for each in pending[4:6]:
        deciding.refused[each["instance_id"]] = "changed"
    page = open_page(f"{deciding.url}/#pending", locale="en")
    page.get_by_role("button", name="Several at once").click()
    dialog = page.get_by_role("dialog", name="Several at once")
    lines = dialog.locator(".several li")
    # Those that cannot be decided here are shown too, and why.
    expect(lines).to_have_count(11)
    expect(lines.nth(1)).to_contain_text("DingTalk does not know this task by its ID")
    expect(lines.nth(2)).to_contain_text("This can only be done on the approval page.")
    expect(lines.nth(3)).to_contain_text("The process has ended at its source.")
    expect(dialog.get_by_role("checkbox", disabled=True)).to_have_count(3)
    assert serious_findings(page) == []
    for number in (4, 5, 6):
        lines.nth(number).get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Agree").click()
    total = dialog.locator("> .deciding-said")
    expect(total).to_have_text("Sent: 1 task. Each leaves the list when it is confirmed. Not carried out: 2 tasks.")
    # The other system refuses the third one later.
    deciding.actions[0].update(status="REFUSED", detail="No such task.")
    expect(total).to_have_text("Not carried out: 3 tasks.")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"task_id": "PROC-1"}, "钉钉无法按该任务的 ID 找到它，请在审批页面处理。"),
        ({"source": "flowable"}, "只能在审批页面处理。"),
        ({"finished_at": "2026-11-30T08:00:00.000Z"}, "流程已在来源系统中结束，正在核实该任务的处理结果。"),
    ],
)
def test_where_nothing_can_be_decided_the_page_says_why(
    deciding: FakeTaskCenter, open_page: OpenPage, change: dict[str, Any], text: str
) -> None:
    item = deciding.items[ME, "pending"][0]
    item.update(change, due_at="2026-11-29T08:00:00.000Z" if "finished_at" not in change else None, result="agree")
    page = open_page(f"{deciding.url}/#pending/{item['instance_id']}")
    expect(said(page)).to_have_text(text)
    expect(page.locator(".deciding button")).to_have_count(0)
    expect(page.get_by_role("textbox", name="意见")).to_be_hidden()
    if "finished_at" in change:
        ended = ["流程已结束，核实中"]
        expect(page.locator(".row").first.locator(".status")).to_have_text(ended)
        expect(page.locator(".detail-tags .status")).to_have_text(ended)
        # The sender's word in ours, as elsewhere.
        expect(page.locator(".facts").first).to_contain_text("结果已同意")
    assert serious_findings(page) == []


def test_a_decision_is_about_the_request_that_was_shown(deciding: FakeTaskCenter, open_page: OpenPage) -> None:
    item = deciding.items[ME, "pending"][0]
    deciding.refused[item["instance_id"]] = "changed"
    page = open_page(f"{deciding.url}/#pending/{item['instance_id']}")
    press(page, "同意")
    expect(said(page)).to_have_text("同意：未执行。申请在显示之后有变动，请重新查看后再处理。")
    assert [each["seen_revision"] for each in deciding.acted[0]["items"]] == [3]


def test_a_delegation_is_to_somebody_else_and_the_next_one_begins_empty(
    deciding: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(f"{deciding.url}/#pending")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/actions", hold, times=1)
    page.reload()
    page.locator(".list-menu-button").click()
    delegate = page.get_by_role("button", name="委托我的任务…")
    expect(delegate).to_be_hidden()
    # What the person may do is known while the menu is open: it shows in it.
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    delegate.click()
    dialog = page.get_by_role("dialog", name="委托我的任务…")
    people = dialog.locator(".people button")
    expect(people.filter(has_text="韩梅梅")).to_be_visible()
    expect(people.filter(has_text="李雷")).to_have_count(0)
    people.filter(has_text="韩梅梅").click()
    dialog.get_by_role("combobox").select_option("访客申请")
    dialog.get_by_role("button", name="委托", exact=True).click()
    expect(dialog.locator(".delegations").first).to_contain_text("0169-han-mei · ")
    expect(dialog.locator(".delegations").first).to_contain_text("访客申请")
    expect(dialog.locator(".delegate")).to_be_empty()
    assert dialog.get_by_role("combobox").input_value() == ""
    dialog.get_by_role("button", name="委托", exact=True).click()
    expect(dialog.get_by_role("status").last).to_have_text("请先选择一个人。")
    assert len(deciding.delegations) == 1
