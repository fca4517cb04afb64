"""What people do every day: mark tasks, search all views, take a list along, be told of new tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from support.browser.fake_task_center import ME

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


NOTIFIED = """
Object.defineProperty(Notification, "permission", { get: () => globalThis.granted ? "granted" : "default" });
Notification.requestPermission = async () => { globalThis.granted = true; return "granted"; };
globalThis.notified = [];
const worker = ServiceWorkerRegistration.prototype;
worker.showNotification = (title, { body, data }) => notified.push([title, body, data.hash]);
"""
"""A headless Chromium has no notifications."""


def titles(page: Page, group: str) -> list[str]:
    return page.get_by_role("group", name=group).locator(".row-title").all_text_contents()


def test_tasks_are_unread_until_opened_pinned_on_top_and_hidden_until_tomorrow(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(fake.page_of())
    unread, pending = page.locator(".row.unread"), fake.items[ME, "pending"]
    expect(unread).to_have_count(11)
    for _ in range(3):
        page.keyboard.press("j")
        page.wait_for_function("() => !document.querySelector('.row[aria-selected=true]').matches('.unread')")
    expect(unread).to_have_count(8)
    weight = "row => getComputedStyle(row.querySelector('.row-title')).fontWeight"
    assert [page.locator(".row").nth(index).evaluate(weight) for index in (0, 3)] == ["400", "600"]
    page.keyboard.press("u")
    expect(unread).to_have_count(9)

    page.keyboard.press("p")
    expect(page.get_by_role("group", name="置顶").locator(".row-title")).to_have_text([pending[2]["title"]])
    page.keyboard.press("ArrowUp")
    page.locator(".row").nth(1).click()
    page.get_by_role("button", name="明天再看（H）").click()
    expect(page.locator(".list-note")).to_contain_text("1 条任务已设为稍后再看")
    expect(page.locator(".row")).to_have_count(10)
    page.get_by_role("button", name="显示", exact=True).click()
    assert titles(page, "稍后再看") == [pending[0]["title"]]
    midnight = fake.marks[ME, "pending", pending[0]["instance_id"], pending[0]["task_id"]]["hidden_until"]
    assert timedelta() < datetime.fromisoformat(midnight) - datetime.now(UTC) <= timedelta(days=1)

    # They are there the next time, and a pinned one is first wherever it is in its list. A change makes it unread.
    page.reload()
    expect(page.locator(".row")).to_have_count(10)
    assert titles(page, "置顶") == [pending[2]["title"]]
    expect(unread).to_have_count(9)
    page.get_by_role("tab", name="我已处理").click()
    expect(page.locator(".row")).to_have_count(50)
    last = fake.items[ME, "handled"][-1]
    fake.marks[ME, "handled", last["instance_id"], last["task_id"]] = {"pinned": True}
    page.keyboard.press("r")
    expect(page.locator(".row-title").first).to_have_text(last["title"])
    page.keyboard.press("1")
    expect(page.locator(".row")).to_have_count(10)
    expect(unread).to_have_count(9)
    fake.change(pending[1], title="改过的申请")
    expect(page.locator(".row.unread .row-title", has_text="改过的申请")).to_be_visible()

    # Marked in another browser meanwhile: it is seen when this one is looked at again.
    fake.marks[ME, "pending", pending[3]["instance_id"], pending[3]["task_id"]] = {"pinned": True}
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("group", name="置顶").locator(".row-title")).to_have_count(2)
    expect(page.locator(".row")).to_have_count(10)

    fake.fails = {"/marks": 500}
    page.locator(".row").nth(5).click()
    expect(page.locator(".task-list > [role=status]")).to_have_text("标记未能保存，请重试。")
    # An operator sees what somebody else has to do, and not what they marked.
    fake.mode = "sso"
    page.goto(fake.page_of("0169-han-mei"))
    expect(page.locator(".task-list .nothing")).to_be_visible()
    assert not [each for each in fake.queries if "han-mei" in each and "mark" in each]


def test_a_search_finds_in_all_views_and_each_can_be_shown_in_full(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(fake.page_of(more="#created"), locale="en-GB")
    expect(page.locator(".row")).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("访客申请")
    groups = page.get_by_role("group")
    expect(page.get_by_role("group", name="Pending").get_by_role("option")).to_have_count(2)
    assert titles(page, "Created") == ["李雷的访客申请"]
    handled = page.get_by_role("group", name="Handled").get_by_role("option")
    expect(handled).to_have_count(6)
    expect(handled.last).to_have_text("Show all in “Handled”")
    assert [each for each in groups.evaluate_all("all => all.map(each => each.ariaLabel)") if each] == [
        *("Created", "Pending", "Handled", "Copied")
    ]
    # All by the keyboard: a task of another view, then all of that view.
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(page.locator(".detail h2")).to_have_text("访客申请 第1号")
    expect(page.locator(".detail-left")).to_have_count(0)
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Handled")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("searchbox")).to_have_value("访客申请")
    expect(page.get_by_role("group", name="Handled").get_by_role("option").nth(40)).to_be_attached()
    page.get_by_role("group", name="Handled").get_by_text("Load more").click()
    expect(page.get_by_role("group", name="Handled").get_by_role("option").nth(80)).to_be_attached()


def test_a_list_is_exported_printed_and_new_tasks_are_notified(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode = "sso"
    page = open_page("about:blank", service_workers="allow")
    page.add_init_script(NOTIFIED)
    page.goto(fake.url)
    expect(page.locator(".row")).to_have_count(11)
    page.keyboard.press("m")
    expect(page.get_by_role("button", name="将已显示的全部标为已读")).to_be_focused()
    page.keyboard.press("ArrowDown")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "待我处理.csv"
    [exported] = [each for each in fake.queries if "/tasks.csv?" in each]
    assert exported.endswith("language=zh-CN&time_zone=Asia%2FShanghai")
    assert "请假" in download.value.path().read_text("utf-8-sig") or "申请" in download.value.path().read_text(
        "utf-8-sig"
    )

    page.emulate_media(media="print")
    shown = "selectors => selectors.map(each => document.querySelector(each).checkVisibility())"
    assert page.evaluate(shown, [".row", ".tab[aria-selected=true]", ".detail", ".search", ".page-tools"]) == [
        *(True, True, False, False, False)
    ]
    page.emulate_media(media="screen")

    page.keyboard.press("m")
    page.get_by_role("button", name="开启新任务通知").click()
    page.wait_for_function("() => localStorage.getItem('taskbridge.notifications') === 'on'")
    fake.add("看得见的申请")
    expect(page.locator(".row-title").first).to_have_text("看得见的申请")
    # Somebody looks at the page, and then elsewhere.
    page.evaluate("document.hasFocus = () => false")
    item = fake.add("看不见的申请", originator="0169-han-mei")
    page.wait_for_function("() => notified.length > 0")
    assert page.evaluate("notified") == [
        ["看不见的申请", f"韩梅梅 · {item['process_name']}", f"#pending/{item['instance_id']}"]
    ]

    # What was chosen follows the person into another browser.
    page.get_by_role("button", name="Switch to English").click()
    with page.expect_response(lambda answer: "light" in (answer.request.post_data or "")):
        page.get_by_role("button", name="Appearance: as the system").click()
    expect(page.get_by_role("button", name="Appearance: light")).to_be_visible()
    assert fake.preferences == {"language": "en", "theme": "light", "notifications": True}
    other = open_page(fake.url, color_scheme="dark")
    expect(other.get_by_role("tab").first).to_have_text("Pending13")
    expect(other.get_by_role("button", name="Appearance: light")).to_be_visible()
