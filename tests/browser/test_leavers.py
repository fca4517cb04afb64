"""The operator's page hands over the tasks of a person who leaves: seen before, confirmed, and followed to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import ME

if TYPE_CHECKING:
    from playwright.sync_api import Route

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

WEI, HONG = "0169-wang-wei", "0169-zhang-hong"
WORDS = {
    "en-GB": (
        ("Choose who leaves", "Who leaves?", "Who gets the tasks?", "Hand over"),
        "Hand over 40 tasks of 王伟 to 张红?",
        ("only on its approval page", "Handed over: 40. Under way: 0. Failed: 0. Decided meanwhile: 0."),
    ),
    "zh-CN": (
        ("选择离职人员", "谁离职？", "转交给谁？", "转交"),
        "把 王伟 的 40 项待办转交给 张红？",
        ("只能在审批页面处理", "已转交 40 项，处理中 0 项，失败 0 项，其间已被处理 0 项。"),
    ),
}


@pytest.mark.parametrize(("locale", "width"), [("en-GB", 390), ("zh-CN", 1280)])
def test_forty_tasks_are_handed_over_after_a_look_at_them(
    fake: FakeTaskCenter, open_page: OpenPage, locale: str, width: int
) -> None:
    (start, who, to, hand_over), question, (elsewhere, done) = WORDS[locale]
    fake.mode = "sso"
    process = {"app_type": "APP_1", "source": "yida", "is_possible": True}
    fake.left[WEI] = [
        {**process, "process_name": "<b>报销</b>", "pending": 33},
        {**process, "process_name": None, "pending": 7},
        {**process, "process_name": "旧流程", "pending": 2, "is_possible": False},
    ]
    page = open_page(f"{fake.url}/ops", locale=locale, viewport={"width": width, "height": 780})
    panel = page.locator(".panel.leavers")
    panel.get_by_role("button", name=start).click()
    page.get_by_role("dialog", name=who).locator(".people button", has_text="王伟").click()
    expect(panel.locator("tbody tr")).to_have_count(3)
    expect(panel.locator("tbody tr").first).to_contain_text("<b>报销</b>")
    expect(panel.locator("tbody tr").last).to_contain_text(elsewhere)
    assert serious_findings(page) == []
    panel.get_by_role("button", name=hand_over).click()
    people = page.get_by_role("dialog", name=to).locator(".people button")
    expect(people.filter(has_text="张红")).to_be_visible()
    expect(people.filter(has_text="王伟")).to_have_count(0)
    people.filter(has_text="张红").click()
    sure = page.get_by_role("dialog", name=question)
    expect(sure).to_be_visible()
    # The first focus is on the harmless way.
    page.keyboard.press("Enter")
    expect(sure).to_be_hidden()
    assert fake.acted == []
    panel.get_by_role("button", name=hand_over).click()
    people.filter(has_text="张红").click()
    sure.get_by_role("button", name=hand_over, exact=True).click()
    expect(panel.locator(".leavers-progress")).to_have_text(done)
    expect(panel.get_by_role("button", name=hand_over)).to_have_count(0)
    assert fake.acted == [{"action": "reassign", "of": WEI, "recipient_id": HONG}]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_only_an_operator_who_signed_in_hands_over(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/ops")
    expect(page.locator(".panel.find")).to_be_visible()
    expect(page.locator(".panel.leavers")).to_have_count(0)
    assert ME not in fake.left


PROCESS = {"app_type": "APP_1", "source": "yida", "is_possible": True}


def test_somebody_who_is_not_listed_any_more_is_typed_and_a_failed_answer_is_asked_again(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.mode, fake.leaving_fails = "sso", 1
    fake.left["gone"] = [{**PROCESS, "process_name": "报销", "pending": 203}]
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    panel = page.locator(".panel.leavers")
    panel.get_by_role("button", name="Choose who leaves").click()
    dialog = page.get_by_role("dialog", name="Who leaves?")
    dialog.get_by_label("not listed any more").fill(" gone ")
    dialog.get_by_role("button", name="Choose", exact=True).click()
    expect(panel.locator("tbody tr")).to_have_count(1)
    assert fake.leaving_fails == 0
    expect(panel.locator(".deciding-said")).to_have_text("")
    panel.get_by_role("button", name="Hand over").click()
    to = page.get_by_role("dialog", name="Who gets the tasks?")
    expect(to.locator(".leavers-typed")).to_have_count(0)
    to.locator(".people button", has_text="张红").click()
    expect(page.get_by_role("dialog", name="Hand over 200 tasks of gone to 张红?")).to_be_visible()


def test_an_answer_about_another_person_is_not_shown(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode = "sso"
    fake.left |= {WEI: [{**PROCESS, "process_name": "报销", "pending": 3}], "gone": []}
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    held: list[Route] = []
    page.route(
        "**/hand-over", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    panel = page.locator(".panel.leavers")
    panel.get_by_role("button", name="Choose who leaves").click()
    page.get_by_role("dialog", name="Who leaves?").locator(".people button", has_text="王伟").click()
    panel.get_by_role("button", name="Hand over").click()
    page.get_by_role("dialog", name="Who gets the tasks?").locator(".people button", has_text="张红").click()
    with page.expect_request(lambda request: request.method == "POST" and "hand-over" in request.url):
        page.get_by_role("dialog", name="Hand over 3 tasks").get_by_role("button", name="Hand over").click()
    panel.get_by_role("button", name="Choose who leaves").click()
    dialog = page.get_by_role("dialog", name="Who leaves?")
    dialog.get_by_label("not listed any more").fill("gone")
    dialog.get_by_role("button", name="Choose", exact=True).click()
    expect(panel).to_contain_text("Pending tasks of gone")
    with page.expect_response("**/hand-over"):
        held.pop().continue_()
    expect(panel).to_contain_text("Pending tasks of gone")
    expect(panel).not_to_contain_text("Requested for")
    assert [each["of"] for each in fake.acted] == [WEI]
