"""What changed since the start is seen before a decision, and where the request stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import DESK, PHONE, open_first_row, serious_findings
from support.browser.fake_task_center import MARKUP, ME

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

AT = "2026-11-30T08:00:00.000Z"


@pytest.fixture
def deciding(fake: FakeTaskCenter) -> FakeTaskCenter:
    """One where the person decides, and forms are read."""
    fake.mode, fake.operator = "sso", False
    fake.possible = [{"source": "yida", "app_type": None, "numeric_task_ids": True, "actions": ["agree"]}]
    for number, item in enumerate(fake.items[ME, "pending"]):
        item["task_id"] = str(71_001 + number)
    fake.labels = {"amount": "金额"}
    changed = [{"field": "amount", "before": "200", "user_id": "0169-wang-wei", "at": AT}]
    to_come: list[dict[str, Any]] = [
        {"name": "财务审批", "user_ids": ["0169-han-mei"]},
        {"name": MARKUP, "user_ids": []},
    ]
    fake.current = {"form": {"amount": MARKUP}, "changed": changed, "to_come": to_come, "digest": "d-1"}
    return fake


@pytest.mark.parametrize("look", [DESK, PHONE], ids=str)
def test_a_changed_amount_is_seen_before_the_decision_and_so_are_the_steps(
    deciding: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]
) -> None:
    page = open_page(f"{deciding.url}/#pending", **look)
    english = look is PHONE
    open_first_row(page)
    changes = page.locator(".form-changes")
    expect(changes.locator("h3")).to_have_text("Changed since the start" if english else "提交后有修改")
    expect(changes.locator("li bdi").first).to_have_text("金额")
    expect(changes.locator("del")).to_have_text("200")
    expect(changes.locator("ins")).to_have_text(MARKUP)
    expect(changes.locator("li")).to_contain_text("by 王伟" if english else "由王伟修改")
    expect(page.locator(".form-changed")).to_have_text("changed" if english else "已修改")
    expect(page.locator(".form-age")).to_contain_text("As of" if english else "内容截至")
    # What changed comes before the place where it is decided.
    assert page.evaluate(
        "document.querySelector('.form-changes').compareDocumentPosition(document.querySelector('.deciding')) & 4"
    )
    stands = page.locator(".decisions li")
    expect(stands).to_have_count(3)
    now = page.locator(".decisions [aria-current=step]")
    expect(now.locator("b").first).to_have_text("you" if english else "我")
    expect(now).to_contain_text("since" if english else "自")
    expect(stands.nth(1)).to_contain_text("财务审批")
    expect(stands.nth(1).locator(".chip")).to_have_text("韩梅梅")
    expect(stands.nth(2).locator("bdi").first).to_have_text(MARKUP)
    direction = page.locator(".decisions").evaluate("each => getComputedStyle(each).flexDirection")
    assert direction == ("column" if english else "row")
    assert serious_findings(page) == []
    page.locator(".detail").get_by_role("button", name="Agree" if english else "同意", exact=True).click()
    expect(page.locator(".detail .deciding .deciding-said[role=status]")).not_to_be_empty()
    assert [each["seen_form"] for each in deciding.acted[0]["items"]] == ["d-1"]


def test_a_refused_decision_shows_the_change_and_is_made_again(deciding: FakeTaskCenter, open_page: OpenPage) -> None:
    changed, (item, *_) = deciding.current, deciding.items[ME, "pending"]
    deciding.current = {"form": {"amount": "200"}, "digest": "d-0"}
    deciding.refused = {item["instance_id"]: "changed"}
    page = open_page(f"{deciding.url}/#pending", **DESK)
    open_first_row(page)
    expect(page.locator(".form-age")).to_contain_text("内容截至")
    expect(page.locator(".form-changes")).to_have_count(0)
    deciding.current = changed
    agree = page.locator(".detail").get_by_role("button", name="同意", exact=True)
    agree.click()
    expect(page.locator(".detail .deciding .deciding-said[role=status]")).to_contain_text("申请在显示之后有变动")
    expect(page.locator(".form-changes del")).to_have_text("200")
    assert any(each.endswith("/form?outdated=d-0") for each in deciding.queries)
    deciding.refused = {}
    agree.click()
    expect(agree).to_have_count(0)
    assert [each["items"][0]["seen_form"] for each in deciding.acted] == ["d-0", "d-1"]


@pytest.mark.parametrize("reason", ["no credentials", "it fails"])
def test_where_the_form_is_not_read_its_values_are_dated(
    deciding: FakeTaskCenter, open_page: OpenPage, reason: str
) -> None:
    if reason == "it fails":
        deciding.fails["/form"] = 503
    else:
        deciding.current = None
    page = open_page(f"{deciding.url}/#pending", **DESK)
    open_first_row(page)
    expect(page.locator(".form-age")).to_contain_text("推送时的状态，之后可能有修改")
    page.locator(".detail").get_by_role("button", name="同意", exact=True).click()
    expect(page.locator(".detail .deciding .deciding-said[role=status]")).not_to_be_empty()
    assert [each["seen_form"] for each in deciding.acted[0]["items"]] == [""]
