"""Live updates of an open page: the stream, its breaks, and the parts that must not move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from support.browser.fake_task_center import MARKUP, ME

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


def live(page: Page) -> None:
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    expect(page.locator(".row")).not_to_have_count(0)


def test_a_new_task_slides_in_and_the_counts_move(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    live(page)
    fake.add(MARKUP)
    expect(page.locator(".row")).to_have_count(12)
    expect(page.locator(".row-title").first).to_have_text(MARKUP)
    expect(page.get_by_role("tab").first).to_have_text("待我处理12")
    expect(page.locator(".task-list [role=status]")).to_have_text(f"新任务：{MARKUP}")
    expect(page).to_have_title("(12) 待我处理 · 任务中心")


def test_the_selected_task_stays_put_while_others_come_and_when_it_goes(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(fake.page_of())
    live(page)
    item = fake.items[ME, "pending"][1]
    page.locator(".row").nth(1).click()
    expect(page.locator(".detail h2")).to_have_text(item["title"])
    for number in range(3):
        fake.add(f"新申请 {number}")
    expect(page.locator(".row")).to_have_count(14)
    expect(page.locator(".row[aria-selected=true] .row-title")).to_have_text(item["title"])
    fake.complete(item)
    expect(page.locator(".row[aria-selected=true]")).to_have_count(0)
    expect(page.locator(".detail h2")).to_have_text(item["title"])
    expect(page.locator(".detail-tags .status")).to_have_text("已完成")
    expect(page.locator(".detail")).to_contain_text("此任务已不在当前列表中")
    # The keyboard goes on from where the row was.
    page.keyboard.press("j")
    expect(page.locator(".row").nth(4)).to_have_attribute("aria-selected", "true")


def test_a_broken_stream_goes_on_where_it_ended_and_misses_nothing(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    live(page)
    fake.add("断线之前")
    expect(page.locator(".row")).to_have_count(12)
    fake.break_streams(refuse=True)
    expect(page.locator(".live")).to_have_attribute("data-state", "waiting")
    expect(page.locator(".live")).to_have_text("连接中断，正在重连")
    fake.add("断线之中")
    fake.complete(fake.items[ME, "pending"][3])
    fake.streams_refused = False
    expect(page.locator(".row-title").first).to_have_text("断线之中")
    expect(page.locator(".row")).to_have_count(12)
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    assert fake.last_event_ids == [None, "0-0"]


def test_a_network_that_was_away_is_back_without_waiting(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    live(page)
    page.context.set_offline(True)
    fake.break_streams()
    expect(page.locator(".live")).to_have_text("网络已断开")
    fake.add("离线时到的")
    page.context.set_offline(False)
    expect(page.locator(".row-title").first).to_have_text("离线时到的")
    expect(page.locator(".live")).to_have_text("实时更新中")


def test_a_stream_that_cannot_be_resumed_is_read_again(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    live(page)
    before = len([query for query in fake.queries if "/tasks?" in query])
    fake.reset_streams()
    expect(page.locator(".row")).to_have_count(11)
    page.wait_for_function("true")
    fake.add("之后")
    expect(page.locator(".row-title").first).to_have_text("之后")
    assert len([query for query in fake.queries if "/tasks?" in query]) > before


def test_what_does_not_match_the_search_is_counted_and_not_shown(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    live(page)
    page.get_by_role("searchbox").fill("显示器")
    expect(page.locator(".row")).to_have_count(1)
    fake.add("打印纸")
    fake.add("再买一台显示器")
    expect(page.locator(".row")).to_have_count(2)
    expect(page.get_by_role("tab").first).to_have_text("待我处理13")
