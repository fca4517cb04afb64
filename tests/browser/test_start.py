"""A person finds a form by app, by a word or among those used last, and opens it at Yida."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import APPS, LONG, MARKUP

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

DESK: dict[str, Any] = {"locale": "zh-CN", "viewport": {"width": 1360, "height": 860}}
PHONE: dict[str, Any] = {"locale": "en", "viewport": {"width": 390, "height": 780}, "color_scheme": "dark"}


def form(app: int, number: int, title: str, english: str | None = None, used_at: str | None = None) -> dict[str, Any]:
    app_type = APPS[app][0]
    return {
        "app_type": app_type,
        "app_name": ("行政", None, "人事")[app],
        "form_uuid": f"FORM-{number}",
        "title": title,
        "title_en": english,
        "url": f"https://yida.example/{app_type}/submission/FORM-{number}",
        "used_at": used_at,
    }


@pytest.fixture(autouse=True)
def with_forms(fake: FakeTaskCenter) -> None:
    fake.mode, fake.operator = "sso", False
    items = [
        form(0, 1, "访客申请", "Visitors", "2026-01-02T08:00:00.000Z"),
        form(0, 2, "用车申请", "Company car"),
        form(1, 3, "费用报销", "Expenses", "2026-01-30T08:00:00.000Z"),
        form(2, 4, "请假申请", "Leave"),
        form(2, 5, MARKUP),
        form(2, 6, LONG),
    ]
    fake.start_forms = {"items": items, "complete": True}


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
def test_a_form_is_found_and_opened_at_yida(fake: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]) -> None:
    is_english = look is PHONE
    page = open_page(fake.url, **look)
    page.get_by_role("link", name="Start" if is_english else "发起", exact=True).click()
    headings = page.locator(".panels h2")
    expect(headings).to_have_count(4)
    expect(headings.first).to_have_text("Last used" if is_english else "最近使用")
    assert {*headings.all_text_contents()[1:]} == {APPS[1][0], "人事", "行政"}
    latest = page.locator(".panels section").first.get_by_role("link")
    expect(latest).to_have_text(["Expenses", "Visitors"] if is_english else ["费用报销", "访客申请"])
    expect(page.get_by_role("link", name=MARKUP)).to_have_text(MARKUP)
    assert serious_findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    # What was typed is looked for in both languages, and in the name of the app.
    field = page.get_by_role("searchbox")
    field.fill("行政")
    expect(headings).to_have_count(2)
    field.fill("用车")
    expect(page.locator(".panels").get_by_role("link")).to_have_text(["Company car" if is_english else "用车申请"])
    link = page.locator(".panels").get_by_role("link")
    expect(link).to_have_attribute("href", f"https://yida.example/{APPS[0][0]}/submission/FORM-2")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    page.context.route("https://yida.example/**", lambda route: route.fulfill(body="the form"))
    with page.expect_popup() as opened:
        link.click()
    expect(opened.value.locator("body")).to_have_text("the form")
    field.fill("nothing like it")
    expect(page.get_by_role("status")).to_have_text("No form has these words." if is_english else "没有匹配的表单。")
    page.get_by_role("link", name="Task center" if is_english else "任务中心").click()
    expect(page.locator(".row")).to_have_count(11)


def test_where_dingtalk_does_not_answer_or_lists_none_the_page_says_so(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.fails["/forms"] = 503
    page = open_page(f"{fake.url}/start")
    expect(page.get_by_role("alert")).to_be_visible()
    fake.fails.clear()
    fake.start_forms = {"items": [], "complete": True}
    page.get_by_role("button", name="重试").click()
    expect(page.locator(".nothing-heading")).to_have_text("没有可发起的表单")
    expect(page.get_by_role("searchbox")).to_have_count(0)
    expect(page.get_by_text("能否发起以宜搭打开时的提示为准。")).to_have_count(0)
    fake.start_forms = {"items": [form(0, 1, "访客申请")], "complete": False}
    page.reload()
    expect(page.get_by_text("能否发起以宜搭打开时的提示为准。")).to_be_visible()
    expect(page.get_by_text("部分表单未能列出，请在宜搭中查找，或稍后再看。")).to_be_visible()
    # Without credentials for the vendor there is no link, and no request.
    fake.start_forms = None
    page.goto(fake.url)
    expect(page.locator(".row").first).to_be_visible()
    expect(page.get_by_role("link", name="发起", exact=True)).to_have_count(0)
    before = len([each for each in fake.queries if "/forms" in each])
    page.goto(f"{fake.url}/start")
    expect(page.locator(".nothing-heading")).to_be_visible()
    assert len([each for each in fake.queries if "/forms" in each]) == before
