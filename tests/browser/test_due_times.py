"""Due times in the list, the filter for overdue tasks, and what waits in an organisation."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from support.browser.fake_task_center import APPS, CORP, ME

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
    page.get_by_role("button", name="Overdue").click()
    expect(page.locator(".row")).to_have_count(1)
    assert any("overdue=true" in each for each in fake.queries)
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


def test_an_owner_sees_what_waits_in_the_app_and_goes_into_a_process(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode, fake.operator = "sso", False
    fake.owned_apps = [APPS[0][0], APPS[1][0]]
    fake.items[ME, "pending"][0]["due_at"] = fake.now.isoformat()
    page = open_page(fake.url, locale="en")
    page.locator(".who").click()
    page.get_by_role("button", name="Waiting").click()
    expect(page.get_by_role("group", name="By process").locator("tbody tr")).to_have_count(1)
    processes, people = page.locator(".panel table").all()
    expect(processes.locator("tbody tr")).to_have_text(re.compile("访客申请21"))
    expect(people.locator("tbody tr")).to_have_text(re.compile("李雷21"))
    page.locator("select[name=app_type]").select_option(APPS[1][0])
    expect(people.locator("tbody tr")).to_have_text(re.compile("李雷20"))
    page.get_by_role("button", name="费用报销").click()
    assert f"app_type={APPS[1][0]}&process_name=" in page.url
    page.get_by_role("button", name="All processes").click()
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="按人员")).to_be_visible()


def test_an_operator_chooses_the_organisation_and_a_refusal_is_said(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/ops", locale="en", viewport={"width": 390, "height": 780})
    page.get_by_role("link", name="Waiting").click()
    refusal = {"type": "urn:taskbridge:problem:forbidden", "title": "Forbidden", "status": 403}
    page.route("**/v1/corps/*/waiting*", lambda route: route.fulfill(status=403, json=refusal))
    page.get_by_label("Organisation (corpId)").select_option("ding0000another")
    expect(page.get_by_role("alert")).to_contain_text("Not allowed")
    page.unroute_all()
    page.get_by_label("Organisation (corpId)").select_option(CORP)
    expect(page.locator(".panel table").first.locator("tbody tr")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
