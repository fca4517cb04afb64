"""The page as its reader sees it: views, search, filter, pages, details, keyboard, languages, sizes."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Route, expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import CORP, LONG, MARKUP, ME, RIGHT_TO_LEFT, VIEWS, history
from support.edge.process import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

PHONE = {"width": 390, "height": 780}
TYPES = """(field, texts) => {
  for (const text of texts) {
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
}"""


def rows(page: Page) -> list[str]:
    return page.locator(".row-title").all_text_contents()


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def is_current(page: Page, title: str) -> None:
    expect(page.locator(".row[aria-selected=true] .row-title")).to_have_text(title)


def test_four_views_show_their_items_and_counts(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    expect(page.get_by_role("tab")).to_have_text(["待我处理11", "我已处理1k", "我创建的4", "抄送我的3"])
    expect(page.locator(".row")).to_have_count(11)
    tab(page, "我创建的")
    expect(page.locator(".row .status")).to_have_text(["进行中", "已撤销", "已完成", "待处理"])
    tab(page, "抄送我的")
    expect(page.locator(".row-title").first).to_have_text("韩梅梅的周报")
    expect(page).to_have_url(re.compile("#copied$"))
    tab(page, "我已处理")
    expect(page.locator(".row")).to_have_count(50)
    expect(page).to_have_title("(11) 我已处理 · 任务中心")


def test_every_kind_of_title_is_shown_as_the_text_that_it_is(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    expect(page.locator(".row")).to_have_count(11)
    shown = rows(page)
    assert MARKUP in shown
    assert LONG in shown
    assert RIGHT_TO_LEFT in shown
    assert "无标题" in shown
    page.locator(".row").filter(has_text="<script>").click()
    expect(page.locator(".detail h2")).to_have_text(MARKUP)
    # Values of the form and keys of Kafka's records are as little markup as titles are.
    expect(page.locator(".form-values").first).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#page img, #page script, #page bdi b").count() == 0
    expect(page).to_have_title(re.compile("任务中心"))


def test_an_address_that_is_not_plain_http_is_no_link(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    item = fake.add("坏链接", url="javascript:alert(1)")
    page = open_page(fake.page_of(more=f"#pending/{item['instance_id']}"))
    expect(page.locator(".detail")).to_contain_text("此任务没有可用的审批链接")
    assert page.locator(".detail a").count() == 0


def test_the_approval_page_opens_in_another_tab_without_access_to_ours(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    item = fake.items[ME, "pending"][0]
    page = open_page(fake.page_of(more=f"#pending/{item['instance_id']}"))
    link = page.locator(".open-page")
    expect(link).to_have_attribute("href", item["url"])
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(link).to_have_attribute("target", "_blank")
    # The date is the instance's, and not that of its first task.
    began = history(item)["events"][0]["occurred_at"]
    assert began < item["created_at"]
    for place in (".timeline time", ".detail-by time"):
        expect(page.locator(place).first).to_have_attribute("datetime", began)


def test_search_waits_until_typing_ends_and_sends_one_request_for_each_view(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(fake.page_of())
    expect(page.locator(".row")).to_have_count(11)
    # In one turn of the page: on a slow machine there would be a pause between two keys.
    page.get_by_role("searchbox").evaluate(TYPES, ["显", "显示", "显示器"])
    expect(page.locator(".row")).to_have_count(1)

    def searches() -> list[str]:
        return [query for query in fake.queries if "/tasks" in query and "q=" in query and "cursor=" not in query]

    wait_until(lambda: len(searches()) >= len(VIEWS))
    assert sorted(query.partition("view=")[2].partition("&")[0] for query in searches()) == sorted(VIEWS)
    page.get_by_role("searchbox").fill("没有这样的任务")
    expect(page.locator(".nothing-heading")).to_have_text(["没有符合条件的任务", "选择一条任务查看详情"])
    page.get_by_role("button", name="清除筛选").click()
    expect(page.locator(".row")).to_have_count(11)


def test_a_search_goes_on_until_something_is_found_or_all_was_looked_at(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(fake.page_of(more="#handled"))
    expect(page.locator(".row")).to_have_count(50)
    page.get_by_role("searchbox").fill("第95")
    # Among the first three hundred, and then far behind.
    expect(page.locator(".row")).to_have_count(11)
    page.get_by_role("searchbox").fill("第999号")
    expect(page.locator(".row-title")).to_have_text(["请假申请 第999号"])
    page.get_by_role("searchbox").fill("没有")
    expect(page.locator(".task-list .nothing")).to_contain_text("没有符合条件的任务")


def test_rows_and_the_filter_name_apps_by_their_processes(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    nameless = fake.add("没有流程名称的请假申请", app_type="APP_HRLV77A0PP1292", process_name=None)
    page = open_page(fake.page_of())
    rows_of_apps = page.locator(".row")
    # A row names its own process, and guesses none.
    expect(rows_of_apps.first.locator(".row-title")).to_have_text(nameless["title"])
    expect(rows_of_apps.first.locator(".row-process")).to_have_count(0)
    expect(page.locator(".row-process").first).to_have_text(re.compile("申请|报销|审批"))
    assert "APP_" not in "".join(page.locator(".row-more").all_inner_texts())
    options = page.locator(".app-filter option")
    expect(options).to_have_text(["全部应用", "采购审批", "访客申请", "费用报销", "请假申请"])
    # Unknown until now; its name comes with the notification.
    fake.add("差旅", app_type="APP_NEW", process_name="差旅申请")
    expect(page.locator(".row-process").first).to_have_text("差旅申请")
    expect(options).to_contain_text(["差旅申请"])
    page.get_by_role("combobox").select_option("APP_HRLV77A0PP1292")
    expect(rows_of_apps.locator(".row-title")).to_have_text(
        [nameless["title"], "韩梅梅的年假申请（3天）", RIGHT_TO_LEFT, "欧阳静怡的转正申请"]
    )


def test_many_items_come_page_by_page_and_each_once(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    del fake.items[ME, "handled"][220:]
    page = open_page(fake.page_of(more="#handled"))
    expect(page.locator(".row")).to_have_count(50)
    page.locator(".rows").focus()
    for _ in range(3000):
        page.keyboard.press("PageDown")
        if page.locator(".row").count() == 220:
            break
        page.wait_for_timeout(20)
    expect(page.locator(".row")).to_have_count(220)
    assert len(set(rows(page))) == 220
    expect(page.locator(".list-foot")).to_have_text("共 220 条，已全部显示")
    # Loading took the keyboard nowhere.
    assert page.evaluate("document.activeElement.role") == "listbox"


def test_details_show_the_assignee_the_history_and_the_form(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of(more="#handled"))
    page.locator(".row").first.click()
    detail = page.locator(".detail")
    expect(detail.locator("h2")).to_have_text("访客申请 第1号")
    expect(detail.locator(".step-said")).to_have_text(
        ["韩梅梅 发起", "提交给 我、韩梅梅", "抄送给 王伟", "我 处理完成"]
    )
    expect(detail.locator(".step-late")).to_have_text("延迟 95 秒收到")
    expect(detail.locator(".form-values").first).to_contain_text("王伟、韩梅梅")
    expect(detail.locator("table")).to_contain_text("显示器")
    detail.get_by_text("显示 2 个空字段").click()
    expect(detail).to_contain_text("cascadeDateField_l4sbkqco")


def test_a_handled_request_that_waits_for_others_is_pending_and_shows_the_decision(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    waiting, refused = fake.items[ME, "handled"][:2]
    waiting.update(waits_for=["0169-han-mei", "0169-wang-wei"], outcome="agree")
    refused["outcome"] = "disagree"
    page = open_page(fake.page_of(more=f"#handled/{waiting['instance_id']}"))
    facts = page.locator(".facts").first
    expect(page.locator(".detail-tags .status")).to_have_text("待处理")
    expect(facts.locator(".chip")).to_have_text(["韩梅梅", "王伟", "王伟"])
    expect(facts).to_contain_text("我的处理已同意")
    # Without a result only the decision is known, and the row shows that.
    page.locator(".row").nth(1).click()
    expect(page.locator(".detail h2")).to_have_text(refused["title"])
    expect(page.locator(".row[aria-selected=true] .status")).to_have_text("已拒绝")
    expect(page.locator(".detail-tags .status")).to_have_text("已拒绝")


def test_steps_and_who_decided_are_shown_in_the_list_the_details_and_the_history(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    step = {"step_name": "部门负责人审批", "status": "COMPLETED"}
    for by in ("AUTOMATIC", "DELEGATE", "PERSON", "toString"):
        fake.add(f"By {by}", view="handled", decided_by=by, **step)
    page = open_page(fake.page_of(more="#handled"), locale="en")
    for by, said in (
        ("AUTOMATIC", ["automatically"]),
        ("DELEGATE", ["by a delegate"]),
        ("PERSON", []),
        ("toString", []),
    ):
        row = page.locator(".row").filter(has_text=f"By {by}")
        expect(row.locator(".row-process").nth(1)).to_have_text("部门负责人审批")
        row.click()
        expect(page.locator(".detail-head h2")).to_have_text(f"By {by}")
        expect(page.locator(".facts dd").first).to_have_text("部门负责人审批")
        for place in (".decisions", ".timeline"):
            expect(page.locator(f"{place} bdi.faint")).to_have_text(["部门负责人审批", *said])


def test_people_and_fields_have_the_names_of_the_service_or_their_ids(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    # No line that this browser loads was started by any of them.
    item = fake.items[ME, "created"][-1]
    fake.names = {"0169-han-mei": "韩美美"}
    fake.labels = {
        "numberField_l4s57vma": "<b>金额</b>",
        "tableField_l4s57vmb": "明细",
        "物品": "品名",
        "cascadeDateField_l4sbkqco": "起止日期",
        "toString": "nothing that is there",
    }
    page = open_page(fake.page_of(more=f"#created/{item['instance_id']}"))
    detail = page.locator(".detail")
    expect(detail.locator(".facts").first.locator(".chip")).to_have_text(["我", "韩美美", "0169-wang-wei"])
    expect(detail.locator(".step-said")).to_have_text(["我 发起", "提交给 我、韩美美", "抄送给 0169-wang-wei"])
    expect(detail.locator("h3").last).to_have_text("表单内容 · 采购申请")
    names = detail.locator(".form-values").first.locator("> dt")
    expect(names).to_have_text(
        ["申请事由", "textField_l4s57vm9", "<b>金额</b>", "employeeField_l5", "明细", "radioField_l6"]
    )
    expect(names.nth(2)).to_have_attribute("title", "numberField_l4s57vma")
    expect(detail.locator("table th")).to_have_text(["品名", "数量", "单价"])
    detail.get_by_text("显示 2 个空字段").click()
    expect(detail).to_contain_text("起止日期")


def test_the_keyboard_does_it_all(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    expect(page.locator(".row")).to_have_count(11)
    for key in ("j", "j", "ArrowDown", "k"):
        page.keyboard.press(key)
    is_current(page, "差旅费报销：上海—深圳，¥3,482.00")
    expect(page.locator(".detail h2")).to_have_text("差旅费报销：上海—深圳，¥3,482.00")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "detail-body"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.role") == "listbox"
    page.keyboard.press("3")
    expect(page.get_by_role("tab", name="我创建的")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("/")
    page.keyboard.type("访客")
    expect(page.get_by_role("group", name="我创建的").get_by_role("option")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".row")).to_have_count(4)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("tab", name="我创建的").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="抄送我的")).to_be_focused()
    expect(page.locator(".row")).to_have_count(3)


def test_the_language_is_the_browsers_until_another_is_chosen(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of(), locale="en-GB")
    expect(page.get_by_role("tab").first).to_have_text("Pending11")
    page.locator(".row").first.click()
    expect(page.locator(".detail h2")).to_have_text("张红的1位访客申请")
    page.get_by_role("searchbox").fill("访客")
    found = page.get_by_role("group", name="Pending").get_by_role("option")
    expect(found).to_have_count(2)
    page.get_by_role("button", name="切换为中文").click()
    expect(page.get_by_role("tab").first).to_have_text("待我处理11")
    expect(page.locator(".detail .facts").first).to_contain_text("当前处理人")
    expect(page.get_by_role("searchbox")).to_have_value("访客")
    expect(page.get_by_role("group", name="待我处理").get_by_role("option")).to_have_count(2)
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(page.get_by_role("tab").first).to_have_text("待我处理11")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_dark_is_the_systems_until_light_is_chosen(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of(), color_scheme="dark")
    paper = "getComputedStyle(document.querySelector('.task-list')).backgroundColor"
    expect(page.locator(".row")).to_have_count(11)
    assert page.evaluate(paper) == "rgb(22, 25, 31)"
    page.get_by_role("button", name="外观：跟随系统").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.reload()
    expect(page.get_by_role("button", name="外观：浅色")).to_be_visible()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"


def test_on_a_phone_the_details_replace_the_list_and_back_returns(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of(), viewport=PHONE, has_touch=True)
    page.locator(".row").first.tap()
    expect(page.locator(".detail h2")).to_be_visible()
    expect(page.get_by_role("listbox")).to_be_hidden()
    page.go_back()
    expect(page.get_by_role("listbox")).to_be_visible()
    page.locator(".row").nth(1).tap()
    page.get_by_role("button", name="返回列表").tap()
    expect(page.get_by_role("listbox")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_on_a_phone_the_head_fits_and_names_the_person(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.names["0169-smith"] = "Ann-Marie Smith of the Hangzhou office"
    for user, name in (
        (ME, "李雷"),
        ("0169-smith", fake.names["0169-smith"]),
        ("0169-nobody-knows", "0169-nobody-knows"),
    ):
        for locale in ("en-GB", "zh-CN"):
            page = open_page(fake.page_of(user), viewport=PHONE, locale=locale)
            chip = page.locator(".who bdi")
            expect(chip).to_have_text(name)
            for state in ("live", "waiting"):
                fake.streams_refused = state == "waiting"
                if fake.streams_refused:
                    fake.break_streams(refuse=True)
                expect(page.locator(".live")).to_have_attribute("data-state", state)
                assert page.evaluate("document.documentElement.scrollWidth") == 390, (name, locale, state)
                # Two Chinese characters, or enough letters of an id to identify the person.
                assert chip.evaluate("chip => chip.getBoundingClientRect().width") >= 25, (name, locale, state)
            fake.streams_refused = False


def test_loading_is_shown(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page, held, is_over = open_page("about:blank"), list[Route](), threading.Event()
    page.route("**/tasks?*", lambda route: route.continue_() if is_over.is_set() else held.append(route))
    page.goto(fake.page_of())
    expect(page.locator(".loading")).to_be_visible()
    is_over.set()
    for each in held:
        each.continue_()
    expect(page.locator(".row")).to_have_count(11)
    expect(page.locator(".loading")).to_have_count(0)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (503, "服务正在恢复数据"),
        pytest.param(403, "没有权限查看", marks=pytest.mark.nightly),
        pytest.param(429, "请求太频繁", marks=pytest.mark.nightly),
        pytest.param(500, "服务返回了错误（500）", marks=pytest.mark.nightly),
    ],
)
def test_an_error_says_what_to_do_and_has_a_button_to_retry(
    fake: FakeTaskCenter, open_page: OpenPage, status: int, text: str
) -> None:
    fake.fails = {"/tasks": status}
    # An event stream that opens late loads the list.
    fake.streams_refused = True
    page = open_page(fake.page_of())
    expect(page.get_by_role("alert")).to_contain_text(text)
    fake.fails = {}
    page.get_by_role("button", name="重试").click()
    expect(page.locator(".row")).to_have_count(11)


def test_an_answer_that_is_no_list_is_a_failure_and_what_came_meanwhile_counts(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(fake.page_of())
    expect(page.locator(".row")).to_have_count(11)
    # A proxy's, perhaps.
    page.route("**/tasks?*", lambda route: route.fulfill(json={"message": "ok"}), times=1)
    with page.expect_response("**/tasks?*"):
        page.keyboard.press("r")
    fake.add("新到的申请")
    expect(page.locator(".row")).to_have_count(12)


def test_lists_that_are_being_filled_show_their_progress_and_then_appear(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.filled = 0.25
    page = open_page(fake.page_of())
    expect(page.locator(".list-state")).to_contain_text("正在读取列表：25%")
    fake.filled = 0.9999
    expect(page.locator(".list-state")).to_contain_text("99%")
    fake.filled = None
    expect(page.locator(".row")).to_have_count(11)
    expect(page.locator(".tab-count").first).to_have_text("11")
    english = open_page(fake.page_of(), locale="en-GB")
    fake.filled = 0.5
    english.get_by_role("tab", name="Copied").click()
    expect(english.locator(".list-state")).to_contain_text("The lists are being read: 50%")


def test_the_person_is_requested_and_remembered(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.names = {}
    page = open_page(fake.url)
    page.get_by_label("企业 ID").fill(CORP)
    # Nobody was imported who could be searched for.
    expect(page.get_by_role("searchbox")).to_have_count(0)
    page.get_by_label("用户 ID").fill(ME)
    page.get_by_role("button", name="继续").click()
    expect(page.locator(".row")).to_have_count(11)
    page.reload()
    expect(page.locator(".row")).to_have_count(11)
    page.get_by_role("button", name="切换用户").click()
    expect(page.get_by_label("用户 ID")).to_be_visible()


def test_a_token_is_requested_and_ends_with_the_tab(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode, fake.corps = "token", [CORP]
    page = open_page(fake.url)
    page.get_by_label("访问令牌").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("令牌无效，请检查后重试。")
    page.get_by_label("访问令牌").fill("let-me-in")
    page.keyboard.press("Enter")
    expect(page.get_by_label("企业 ID")).to_have_value(CORP)
    page.get_by_label("用户 ID").fill(ME)
    page.keyboard.press("Enter")
    expect(page.locator(".row")).to_have_count(11)
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    page.reload()
    expect(page.locator(".row")).to_have_count(11)


def test_whose_list_it_is_can_be_searched_for_by_name_department_or_id(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(fake.url)
    field, found = page.get_by_role("searchbox", name="按姓名、部门或 ID 查找"), page.locator(".people button")
    expect(found).to_have_count(7)
    for sought, names in {"wang": ["王伟"], "财务": ["韩梅梅", "Ann-Marie Smith"], "李雷": ["李雷"]}.items():
        field.fill(sought)
        expect(found.locator("bdi:first-child")).to_have_text(names)
    field.fill("没有这个人")
    expect(page.locator(".people-found")).to_have_text("没有找到")
    expect(found).to_have_count(0)
    # The ids can still be typed.
    expect(page.get_by_label("用户 ID")).to_be_visible()
    # One is picked by the keyboard.
    field.fill("李")
    expect(found).to_have_count(1)
    page.keyboard.press("ArrowDown")
    expect(found).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(field).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(found).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".row")).to_have_count(11)
    page.reload()
    expect(page.locator(".row")).to_have_count(11)
    expect(page.locator(".who bdi")).to_have_text("李雷")


def test_back_leads_to_what_was_looked_at_before(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of())
    titles = [fake.items[ME, "pending"][number]["title"] for number in (0, 1)]
    page.locator(".row").first.click()
    expect(page.locator(".detail h2")).to_have_text(titles[0])
    # Not each row that the cursor passes is a place of its own.
    page.keyboard.press("j")
    expect(page.locator(".detail h2")).to_have_text(titles[1])
    page.get_by_role("tab", name="我创建的").click()
    page.locator(".row").nth(2).click()
    expect(page.locator(".detail h2")).to_have_text("李雷的费用报销")
    page.go_back()
    expect(page.locator(".detail")).to_contain_text("选择一条任务查看详情")
    expect(page.get_by_role("tab", name="我创建的")).to_have_attribute("aria-selected", "true")
    page.go_back()
    is_current(page, titles[1])
    expect(page.locator(".detail h2")).to_have_text(titles[1])
    page.go_back()
    expect(page.locator(".detail")).to_contain_text("选择一条任务查看详情")
    page.go_forward()
    is_current(page, titles[1])
    page.go_back()
    page.keyboard.press("3")
    expect(page.get_by_role("tab", name="我创建的")).to_have_attribute("aria-selected", "true")
    # An address without a view is that of the first one.
    page.go_back()
    expect(page.get_by_role("tab", name="待我处理")).to_have_attribute("aria-selected", "true")


def test_a_request_may_be_returned_to_an_earlier_step(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    item = fake.items[ME, "pending"][0]
    done = {"status": "COMPLETED", "assignee_ids": ["a"], "actor_id": "a", "outcome": None, "remark": None}
    item["earlier"] = [
        {
            **done,
            "task_id": "2",
            "step_id": "node-2",
            "step_name": "财务审批",
            "decided_at": "2026-11-02T00:00:00.000Z",
        },
        {**done, "task_id": "1", "step_id": "node-1", "step_name": None, "decided_at": "2026-11-01T00:00:00.000Z"},
        {**done, "task_id": "0", "step_id": None, "step_name": None, "decided_at": "2026-11-01T00:00:00.000Z"},
    ]
    item["task_id"] = "71001"
    fake.possible = [{"source": "yida", "app_type": None, "numeric_task_ids": True, "actions": ["agree", "return"]}]
    page = open_page(fake.page_of())
    page.locator(".row").first.click()
    to = page.get_by_label("退回到")
    expect(to.locator("option")).to_have_text(["发起人", "node-1", "财务审批"])
    assert serious_findings(page) == []
    to.select_option("财务审批")
    page.get_by_role("textbox", name="意见").fill("请补发票")
    page.get_by_role("button", name="退回", exact=True).click()
    page.wait_for_function("() => document.querySelector('.deciding-remark').value === ''")
    assert [(each["action"], each["recipient_id"]) for each in fake.acted] == [("return", "node-2")]
    # Where there is none, it goes to the originator.
    page.locator(".row").nth(1).click()
    expect(page.locator(".detail h2")).to_have_text(fake.items[ME, "pending"][1]["title"])
    expect(to).to_be_hidden()
