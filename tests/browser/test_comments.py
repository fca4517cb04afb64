"""Comments in the details: read when they are opened, written once, as text; and those whom it waits for are urged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import DESK, PHONE, open_first_row, serious_findings
from support.browser.fake_task_center import MARKUP, ME

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

AT = "2026-11-30T08:00:00.000Z"


@pytest.fixture
def talking(fake: FakeTaskCenter) -> FakeTaskCenter:
    fake.mode, fake.operator = "sso", False
    theirs = [("1", "0169-han-mei", MARKUP, None), ("2", ME, "预算够吗？\n请确认", "0169-wang-wei")]
    names = "comment_id", "user_id", "text", "notified_id"
    items = [dict(zip(names, each, strict=True)) | {"at": AT} for each in theirs]
    fake.comments |= {"items": items, "reason": None, "may_comment": True, "may_urge": ["0169-wang-wei", "0169-ouyang"]}
    return fake


def open_first(fake: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]) -> tuple[Page, Locator]:
    page = open_page(f"{fake.url}/#created", **look)
    open_first_row(page)
    return page, page.locator(".detail-section").filter(has=page.get_by_role("heading", name=SAID[look is PHONE][0]))


SAID = [
    ("评论", "写评论", "发表评论", "评论：已提交，等待确认…"),
    ("Comments", "Write a comment", "Send comment", "Comment: sent, waiting for confirmation…"),
]
URGED = [
    ("催办 王伟、欧阳静怡", "催办 王伟、欧阳静怡？", "催办", "已经催办过，请几小时后再试。"),
    ("Urge 王伟, 欧阳静怡", "Urge 王伟, 欧阳静怡?", "Urge", "They were urged already. Try again in a few hours."),
]


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
def test_a_comment_is_written_and_its_text_is_text(
    talking: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]
) -> None:
    _, write, send, waits = SAID[look is PHONE]
    page, section = open_first(talking, open_page, look)
    lines = section.locator(".comment")
    expect(lines).to_have_count(2)
    expect(lines.first.locator(".form-text")).to_have_text(MARKUP)
    expect(lines.nth(1)).to_contain_text("@王伟")
    field = section.get_by_role("textbox", name=write)
    # Nothing is sent without words.
    section.get_by_role("button", name=send).click()
    expect(field).to_be_focused()
    assert talking.said == []
    field.fill(f" {MARKUP} ")
    section.get_by_role("button", name=send).click()
    expect(lines).to_have_count(3)
    expect(lines.nth(2).locator(".form-text")).to_have_text(MARKUP)
    expect(lines.nth(2)).to_contain_text(waits)
    expect(field).to_have_value("")
    assert talking.said == [("comment", MARKUP)]
    assert serious_findings(page) == []
    # The system has it: the page looks again by itself.
    talking.comments["said"][0]["status"] = "DONE"
    expect(lines.nth(2)).not_to_contain_text(waits)
    expect(page).not_to_have_title("owned")


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
def test_people_are_urged_after_a_question_and_not_soon_again(
    talking: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]
) -> None:
    name, question, yes, again = URGED[look is PHONE]
    page, section = open_first(talking, open_page, look)
    dialog = page.get_by_role("dialog", name=question)
    section.get_by_role("button", name=name).click()
    expect(dialog).to_be_visible()
    assert serious_findings(page) == []
    # The first focus is on the harmless way.
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    assert talking.said == []
    section.get_by_role("button", name=name).click()
    dialog.get_by_role("button", name=yes).click()
    expect(section.locator(".comment")).to_have_count(4)
    expect(section.locator(".comment").last).to_contain_text("@欧阳静怡")
    section.get_by_role("button", name=name).click()
    dialog.get_by_role("button", name=yes).click()
    expect(section.get_by_role("status")).to_have_text(again)
    assert [action for action, _ in talking.said] == ["urge"]


def test_what_is_typed_stays_while_the_request_changes(talking: FakeTaskCenter, open_page: OpenPage) -> None:
    page, section = open_first(talking, open_page, DESK)
    field = section.get_by_role("textbox", name="写评论")
    field.fill("还没写完")
    item = talking.items[ME, "created"][0]
    item["title"] = "改过的标题"
    talking.change(item)
    expect(page.locator(".detail h2")).to_have_text("改过的标题")
    expect(field).to_have_value("还没写完")
    expect(field).to_be_focused()
    page.locator(".row").nth(1).click()
    expect(section.get_by_role("textbox", name="写评论")).to_have_value("")


def test_nothing_is_shown_where_there_are_none_to_be_had(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    page.locator(".row").first.click()
    expect(page.locator(".detail .technical")).to_be_visible()
    expect(page.get_by_role("heading", name="评论")).to_be_hidden()


def test_while_they_cannot_be_read_the_page_says_so_and_one_may_be_written(
    talking: FakeTaskCenter, open_page: OpenPage
) -> None:
    talking.comments |= {"items": [], "reason": "not-now"}
    _, section = open_first(talking, open_page, DESK)
    expect(section).to_contain_text("暂时无法读取评论，请在审批页面查看。")
    expect(section.get_by_role("button", name="发表评论")).to_be_enabled()
