"""Files of a form in the details: names and sizes, which one click opens, and nothing before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import DESK, PHONE, serious_findings
from support.browser.fake_task_center import MARKUP, ME, TOKEN

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


def value(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "downloadUrl": f"/ossFileHandle?fileName={len(name)}", **more}


@pytest.fixture
def with_files(fake: FakeTaskCenter) -> FakeTaskCenter:
    lines = [{"textField_a": "一", "imageField_b": json.dumps([value("发票.jpg", size=482)])}, {"textField_a": "二"}]
    fake.form = {
        "attachmentField_1": json.dumps([value("合同 v2.pdf", size=48_213), value(MARKUP)]),
        "tableField_2": json.dumps(lines),
    }
    return fake


@pytest.mark.parametrize(("look", "by_key"), [(DESK, False), (DESK, True), (PHONE, False)], ids=str)
def test_a_file_opens_in_another_tab_by_one_click(
    with_files: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any], *, by_key: bool
) -> None:
    page = open_page(with_files.page_of(), **look)
    page.locator(".row").first.click()
    link = page.get_by_role("link", name="合同 v2.pdf")
    expect(page.locator(".files li").first).to_have_text("合同 v2.pdf47 KiB")
    expect(link).to_have_attribute("title", "Open in a new tab" if look is PHONE else "在新标签页打开")
    # A name is text, and the values' addresses are nowhere.
    expect(page.locator(".files li").nth(1)).to_have_text(MARKUP)
    assert "ossFileHandle" not in page.content()
    assert serious_findings(page) == []
    assert with_files.opened == []
    with page.expect_popup() as opened:
        if by_key:
            link.focus()
            page.keyboard.press("Enter")
        else:
            link.click()
    expect(opened.value.locator("body")).to_have_text("the file")
    assert opened.value.evaluate("opener === null && document.referrer === ''")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="发票.jpg").click()
    expect(opened.value.locator("body")).to_have_text("the file")
    instance = with_files.items[ME, "pending"][0]["instance_id"]
    assert with_files.opened == [(instance, "attachmentField_1", 0), (instance, "tableField_2/0/imageField_b", 0)]


@pytest.mark.parametrize("reason", ["no credentials", "a program's token"])
def test_where_files_do_not_open_here_their_names_are_no_links(
    with_files: FakeTaskCenter, open_page: OpenPage, reason: str
) -> None:
    if reason == "no credentials":
        with_files.opens_files = False
    else:
        with_files.mode = "token"
    page = open_page(with_files.page_of())
    if reason != "no credentials":
        page.get_by_label("访问令牌").fill(TOKEN)
        page.keyboard.press("Enter")
    page.locator(".row").first.click()
    expect(page.locator(".files li").first).to_have_text("合同 v2.pdf47 KiB")
    expect(page.locator(".files a")).to_have_count(0)
