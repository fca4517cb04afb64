"""Due times in the list, and the filter for overdue tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from support.browser.fake_task_center import ME

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


def test_rows_say_in_words_what_is_overdue_or_due_soon_and_the_list_can_be_narrowed_to_it(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    passed = (-1, 2, 100)
    for item, hours in zip(fake.items[ME, "pending"], passed, strict=False):
        item["due_at"] = (fake.now + timedelta(hours=hours)).isoformat()
    page = open_page(fake.page_of(), locale="en", timezone_id="Asia/Shanghai")
    soon = fake.now + timedelta(hours=2 + 8)
    expect(page.locator(".row .status")).to_have_text(["Overdue", f"Due {soon:%H:%M}"])
    with page.expect_request(lambda request: "overdue=true" in request.url):
        page.get_by_role("button", name="Overdue").click()
    expect(page.locator(".row")).to_have_count(1)
    late = (fake.now - timedelta(minutes=5)).isoformat()
    fake.add("Another late one", due_at=late)
    fake.add("In time", due_at=(fake.now + timedelta(hours=3)).isoformat())
    fake.add("Late again", due_at=late)
    expect(page.locator(".row-title")).to_have_text(
        ["Late again", "Another late one", fake.items[ME, "pending"][3]["title"]]
    )
    page.locator(".row").first.click()
    expect(page.locator(".facts .status")).to_have_text("Overdue")
    page.get_by_role("tab", name="Handled").click()
    expect(page.locator(".row")).to_have_count(50)
    expect(page.get_by_role("button", name="Overdue")).to_be_hidden()
    page.get_by_role("tab", name="Pending").click()
    expect(page.locator(".row")).to_have_count(14)
