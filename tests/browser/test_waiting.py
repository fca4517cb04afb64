"""The page of what waits: organisations and apps to choose from, and links to people's tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import APPS, CORP, ME

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


def test_organisations_and_apps_are_chosen_and_nobody_types_an_id(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/waiting")
    assert page.locator("input").count() == 0
    processes = page.locator(".panel").nth(1).locator("tbody tr")
    expect(processes).to_have_count(4)
    corps, apps = page.get_by_label("企业 ID"), page.get_by_label("应用")
    expect(corps.locator("option")).to_have_text([CORP, "ding0000another"])
    items = fake.items[ME, "pending"]
    app = items[0]["app_type"]
    names = {each["process_name"] for each in items if each["app_type"] == app}
    assert set(apps.locator(f"option[value={app}]").inner_text().split("、")) <= names
    apps.select_option(app)
    expect(processes).to_have_count(len(names))
    expect(page).to_have_url(f"{fake.url}/waiting?corp_id={CORP}&app_type={app}")
    assert apps.input_value() == app
    apps.select_option("全部应用")
    expect(processes).to_have_count(4)
    corps.select_option("ding0000another")
    expect(page.locator(".panel-none")).to_have_text(2 * ["没有待处理的任务。"])
    assert serious_findings(page) == []


def test_a_wrong_organisation_in_the_address_is_said_and_others_can_be_chosen(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(f"{fake.url}/waiting?corp_id=ding-typo")
    expect(page.locator(".nothing-heading")).to_have_text("没有这个企业的任务")
    page.get_by_label("企业 ID").select_option(CORP)
    expect(page.locator(".panel").nth(1).locator("tbody tr")).to_have_count(4)


def test_an_owner_sees_what_waits_in_the_app_and_goes_into_a_process(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode, fake.operator = "sso", False
    fake.owned_apps = [APPS[0][0], APPS[1][0]]
    fake.items[ME, "pending"][0]["due_at"] = fake.now.isoformat()
    page = open_page(fake.url, locale="en")
    page.locator(".who").click()
    page.get_by_role("button", name="Waiting").click()
    expect(page.get_by_role("group", name="By process").locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("App").locator("option")).to_have_count(2)
    expect(page.get_by_label("Organisation (corpId)")).to_have_count(0)
    processes, people = page.locator(".panel table").all()
    expect(people.get_by_role("link")).to_have_count(0)
    expect(processes.locator("tbody tr")).to_have_text(re.compile("访客申请21"))
    expect(people.locator("tbody tr")).to_have_text(re.compile("李雷21"))
    page.locator("select[name=app_type]").select_option(APPS[1][0])
    expect(people.locator("tbody tr")).to_have_text(re.compile("李雷20"))
    page.get_by_role("button", name="费用报销").click()
    expect(page).to_have_url(re.compile(f"app_type={APPS[1][0]}&process_name="))
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


def test_on_a_phone_each_number_has_its_column_s_name(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/waiting?corp_id={CORP}", viewport={"width": 390, "height": 844})
    first = page.locator(".records td").first
    expect(first).to_be_visible()
    assert first.evaluate("cell => getComputedStyle(cell, '::before').content") == '"待处理"'
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("link", name="李雷").click()
    expect(page.locator(".row").first).to_be_visible()
    expect(page).to_have_url(f"{fake.url}/?corp_id={CORP}&user_id={ME}#pending")
