"""axe finds nothing serious: on every state of every page, light on a desk and dark on a phone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_operations import WEBHOOKS
from support.browser.fake_task_center import CORP, ME

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


DESK = {"width": 1360, "height": 860}
PHONE = {"width": 390, "height": 780}


@pytest.mark.parametrize(
    ("theme", "viewport"), [("light", DESK), ("dark", PHONE)], ids=["light on a desk", "dark on a phone"]
)
def test_the_pages_in_every_state(
    fake: FakeTaskCenter, open_page: OpenPage, theme: str, viewport: dict[str, int]
) -> None:
    options = {"color_scheme": theme, "viewport": viewport, "reduced_motion": "reduce"}
    findings: dict[str, list[str]] = {}

    def look(state: str, page: Page) -> None:
        findings[state] = serious_findings(page)

    for item, due_at in zip(fake.items[ME, "pending"], (fake.now, fake.now + timedelta(hours=2)), strict=False):
        item["due_at"] = due_at.isoformat()
    page = open_page(fake.page_of(), **options)
    expect(page.locator(".row")).to_have_count(11)
    look("list", page)
    page.locator(".row").nth(4).click()
    expect(page.locator("ol.timeline")).to_be_visible()
    page.locator(".technical summary").click()
    look("detail", page)
    fake.break_streams(refuse=True)
    expect(page.locator(".live")).to_have_attribute("data-state", "waiting")
    fake.complete(fake.items[ME, "pending"][4])
    fake.streams_refused = False
    look("reconnecting", page)
    page = open_page(fake.page_of(more="#created"), **options)
    expect(page.locator(".row")).to_have_count(4)
    page.keyboard.press("?")
    look("created and help", page)
    for locale in ("zh-CN", "en-GB"):
        look_at_an_everyday_list(fake, open_page(fake.page_of(), locale=locale, **options), look, locale)
    page = open_page(fake.page_of("nobody"), **options)
    expect(page.locator(".task-list .nothing")).to_contain_text("都处理完了")
    look("empty", page)
    page = open_page(fake.url, **options)
    expect(page.get_by_label("用户 ID")).to_be_visible()
    look("sign in", page)
    fake.webhooks = WEBHOOKS
    page = open_page(f"{fake.url}/ops#inst-rejected", **options)
    expect(page.locator(".panel.webhooks")).to_be_visible()
    expect(page.locator(".verdict")).to_be_visible()
    look("operation", page)
    page = open_page(f"{fake.url}/waiting?corp_id={CORP}", **options)
    expect(page.locator(".panel .status")).to_have_count(2)
    look("waiting", page)
    fake.fails = {"/tasks": 500, "/overview": 500}
    page = open_page(fake.page_of(), **options)
    expect(page.get_by_role("alert")).to_be_visible()
    look("error", page)
    assert {state: found for state, found in findings.items() if found} == {}


def look_at_an_everyday_list(
    fake: FakeTaskCenter, page: Page, look: Callable[[str, Page], None], language: str
) -> None:
    """With tasks that are pinned and hidden, the menu, and a search of all views."""
    expect(page.locator(".row")).to_have_count(10)
    for key in ("j", "p", "ArrowDown", "h"):
        page.keyboard.press(key)
    expect(page.locator(".row")).to_have_count(9)
    page.locator(".list-note button").click()
    expect(page.locator(".row")).to_have_count(10)
    page.keyboard.press("m")
    expect(page.locator("#list-menu button").first).to_be_focused()
    look(f"pinned, hidden and menu in {language}", page)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("申请")
    expect(page.locator(".more-row")).to_have_count(1)
    look(f"search of all views in {language}", page)
    fake.marks.clear()
