"""A person who will be away delegates at Yida too, and sees what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import DESK, PHONE, serious_findings

if TYPE_CHECKING:
    from playwright.sync_api import Route

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

HOSTILE = '<img src=x onerror="document.title=1">'
WORDS = {
    "en": ("Delegate my tasks…", "At Yida too", "Delegate", "being written to Yida…", "at Yida too", "not at Yida: "),
    "zh-CN": ("委托我的任务…", "同时在宜搭设置代理", "委托", "正在写入宜搭…", "宜搭已同步", "未写入宜搭："),
}


@pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])
def test_a_delegation_is_written_to_yida_and_what_yida_says_is_shown(
    fake: FakeTaskCenter, open_page: OpenPage, options: dict[str, Any]
) -> None:
    title, too, add, busy, done, refused = WORDS[options["locale"]]
    fake.mode = "sso"
    fake.possible = [{"source": "yida", "app_type": None, "numeric_task_ids": False, "actions": ["agree"]}]
    fake.at_yida = {"status": "DONE", "detail": None}
    page = open_page(f"{fake.url}/#pending", **options)
    page.locator(".list-menu-button").click()
    page.get_by_role("button", name=title).click()
    dialog = page.get_by_role("dialog", name=title)
    box = dialog.get_by_label(too)
    expect(box).not_to_be_checked()
    assert serious_findings(page) == []
    dialog.get_by_role("combobox").select_option(index=1)
    expect(box).to_be_disabled()
    dialog.get_by_role("combobox").select_option(index=0)
    dialog.locator(".people button").first.click()
    box.check()
    dialog.get_by_role("button", name=add, exact=True).click()
    rows = dialog.locator(".delegation")
    expect(rows.first).to_contain_text(busy)
    expect(rows.first).to_contain_text(done)
    expect(box).not_to_be_checked()
    fake.at_yida = {"status": "REFUSED", "detail": HOSTILE}
    dialog.locator(".people button").first.click()
    box.check()
    dialog.get_by_role("button", name=add, exact=True).click()
    expect(rows.nth(1)).to_contain_text(f"{refused}{HOSTILE}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_change_that_fails_does_not_stop_what_is_shown(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode = "sso"
    fake.possible = [{"source": "yida", "app_type": None, "numeric_task_ids": False, "actions": ["agree"]}]
    fake.at_yida = {"status": "SENDING", "detail": None}
    page = open_page(f"{fake.url}/#pending", locale="en-GB")
    page.locator(".list-menu-button").click()
    page.get_by_role("button", name="Delegate my tasks…").click()
    dialog = page.get_by_role("dialog", name="Delegate my tasks…")
    dialog.locator(".people button").first.click()
    dialog.get_by_label("At Yida too").check()
    held: list[Route] = []
    page.route("**/delegations", lambda each: held.append(each) if each.request.method == "GET" else each.continue_())
    page.route("**/delegations/*", lambda each: each.fulfill(status=503))
    with page.expect_request(lambda each: each.method == "GET" and each.url.endswith("/delegations")):
        dialog.get_by_role("button", name="Delegate", exact=True).click()
    with page.expect_response(lambda each: each.request.method == "DELETE"):
        dialog.get_by_role("button", name="End:").click()
    fake.at_yida = {"status": "DONE", "detail": None}
    page.unroute("**/delegations")
    held.pop().continue_()
    expect(dialog.locator(".delegation").first).to_contain_text("at Yida too")


def test_without_the_organisations_consent_nothing_is_offered(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode = "sso"
    fake.possible = [{"source": "yida", "app_type": None, "numeric_task_ids": False, "actions": ["agree"]}]
    page = open_page(f"{fake.url}/#pending", locale="en-GB")
    page.locator(".list-menu-button").click()
    page.get_by_role("button", name="Delegate my tasks…").click()
    dialog = page.get_by_role("dialog", name="Delegate my tasks…")
    dialog.locator(".people button").first.click()
    expect(dialog.get_by_label("At Yida too")).to_be_hidden()
    dialog.get_by_role("button", name="Delegate", exact=True).click()
    expect(dialog.locator(".delegation")).to_have_count(1)
    assert [each["at_yida"] for each in fake.delegations] == [None]
