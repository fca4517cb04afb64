"""How a person decides on the page: nothing by one slip, and what became of it is on the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import ME

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

ACTIONS = ["agree", "refuse", "return", "hand_over", "withdraw"]
PHONE = {"width": 390, "height": 780}


@pytest.fixture
def deciding(fake: FakeTaskCenter) -> FakeTaskCenter:
    """One where the person decides, with task ids as DingTalk has them."""
    fake.mode, fake.operator = "sso", False
    fake.possible = [{"source": "yida", "app_type": None, "actions": ACTIONS}]
    for number, item in enumerate(fake.items[ME, "pending"]):
        item["task_id"] = str(71_001 + number)
    return fake


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
    expect(page.locator(".detail .deciding-said[role=status]")).to_have_text("转交：已提交，等待确认…")
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
    expect(page.locator(".detail .deciding-said[role=status]")).to_have_text("撤回：已提交，等待确认…")
    assert acted(deciding)[1:] == [("withdraw", None)]
