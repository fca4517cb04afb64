"""The operator's page: what it shows, what it finds, and whom it lets in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_operations import WEBHOOKS
from support.browser.fake_task_center import ME

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter


def test_problems_come_first(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    expect(page.locator(".notices li")).to_have_text(
        [
            "Edge http://10.0.0.21:8400 is degraded: Kafka did not acknowledge within 1000 ms",
            "212 callbacks wait in an edge’s spool, the oldest for 95 s",
            "Partition 5 is 13 s behind",
            "2 records are on the dead-letter topic",
            "53 rejected callbacks are in quarantine",
        ]
    )


def test_in_chinese_durations_problems_and_actions_are_chinese_and_reasons_next_to_their_codes(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.webhooks = {**WEBHOOKS, "services": [{**WEBHOOKS["services"][0], "problem": "the database was not read yet"}]}
    page = open_page(f"{fake.url}/ops")
    notices = page.locator(".notices li")
    expect(notices.filter(has_text="接收端待补发")).to_have_text("接收端待补发 212 条回调，最早的已等 95 秒")
    expect(notices.filter(has_text="落后")).to_have_text("分区 5 落后 13 秒")
    expect(notices.filter(has_text="已停用")).to_have_text("订阅端点 robot 已停用：对方返回 410 Gone")
    expect(notices.filter(has_text="Webhook 服务")).to_contain_text("：尚未读取数据库")
    expect(page.locator(".panel.webhooks tbody tr").first).to_contain_text("95 秒")
    expect(page.locator(".map td .badge[data-state=notReady]")).to_contain_text("13 秒")
    expect(page.locator(".quarantine .bars dt")).to_contain_text(["签名不符 wrong-sign", "未知应用 unknown-app"])
    expect(page.locator(".quarantine tbody tr").nth(1)).to_contain_text("完成")
    expect(page.locator(".edges .bars dt").nth(1)).to_have_text("签名不符 wrong-sign")
    expect(page.locator(".dead-letters")).to_contain_text("无法解码 undecodable")
    expect(page.locator(".quarantine tbody tr").last).to_contain_text("未知路径 unknown-path")
    expect(page.locator(".quarantine tbody tr").last.locator("td").nth(1)).to_have_text("未知 unknown")
    expect(page.locator(".flow .plot-key")).to_contain_text(["创建", "完成", "撤销", "删除", "抄送"])
    expect(page.locator(".edges .bars").first).to_contain_text("128,734")
    expect(page.locator(".map td .badge")).to_have_count(12)
    # A key is any bytes that a producer wrote.
    expect(page.locator(".dead-letters")).to_contain_text("<b>inst-00007</b>")
    expect(page.locator(".errors")).to_contain_text("<script>alert(1)</script>")
    english = open_page(f"{fake.url}/ops", locale="en-GB")
    expect(english.locator(".quarantine .bars dt").first).to_have_text("wrong-sign")


def test_a_change_of_a_file_that_is_not_in_force_is_among_the_first_things_to_know(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.not_in_force = (
        "the last change is invalid and not in use: API tokens file tokens.toml: line 3: tokens.0: no corps"
    )
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    expect(page.locator(".notices li").filter(has_text=fake.not_in_force)).to_have_text(
        [
            f"Edge http://10.0.0.22:8400 is degraded: credentials: {fake.not_in_force}",
            f"Worker http://10.0.0.11:8510: {fake.not_in_force}",
        ]
    )
    chinese = open_page(f"{fake.url}/ops").locator(".notices li").filter(has_text="最近的修改无效")
    detail = "API tokens file tokens.toml: line 3: tokens.0: no corps"
    expect(chinese.last).to_have_text(f"工作进程 http://10.0.0.11:8510：最近的修改无效，未生效：{detail}")


def test_the_center_shows_its_replicas_and_how_much_of_the_topics_it_has_read(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    expect(page.locator(".replicas")).to_contain_text("Database: PostgreSQL")
    expect(page.locator(".replicas tbody tr").last).to_contain_text("center-1:8500")
    expect(page.locator(".replicas tbody tr").last).to_contain_text("1,635")
    fake.filled = 0.429
    expect(page.locator(".notices li[data-level=warn]").filter(has_text="42%")).to_have_text(
        ["The lists are being read from the topics: 42%"]
    )


def test_one_search_shows_what_happened_to_a_callback(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/ops")
    known = fake.items[ME, "pending"][0]
    field = page.get_by_role("searchbox")
    field.fill(f"  {known['instance_id']} ")
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_contain_text("收到了，实例")
    expect(page.locator(".find-title")).to_have_text(known["title"])
    expect(page.locator(".find-part .step")).to_have_count(3)
    # By name, next to the ids that commands need; by id alone where no name is known.
    expect(page.locator(".find-part tbody tr")).to_contain_text(["李雷 0169-li-lei", "韩梅梅 0169-han-mei"])
    field.fill("inst-rejected")
    page.get_by_role("button", name="查询").click()
    expect(page.locator(".verdict")).to_contain_text("被拒绝并隔离")
    expect(page.locator(".find-part table")).to_contain_text("the digests differ")
    field.fill("<img src=x>")
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_contain_text("没有找到任何记录")
    # The answer has an address that can be passed on.
    page.goto(f"{fake.url}/ops#inst-rejected")
    page.reload()
    expect(page.locator(".verdict")).to_contain_text("被拒绝并隔离")
    # What was typed is there in another language too.
    field.fill("inst-replayed")
    page.get_by_role("button", name="Switch to English").click()
    expect(page.locator(".verdict")).to_contain_text("Received, and replayed")
    expect(field).to_have_value("inst-replayed")


def test_it_shows_missed_callbacks_by_app_and_day_where_reconcile_runs(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    expect(page.locator(".panel.errors")).to_be_attached()
    expect(page.locator(".panel.missed")).to_have_count(0)
    app = {"corp_id": "ding1", "app_type": "APP_PURCHASE"}
    fake.missed = {
        "url": "http://10.0.0.31:8600",
        "reachable": True,
        "last_whole_pass_at": "2026-01-31T08:00:00.000Z",
        "silent": [{**app, "since": "2026-01-31T08:00:00.000Z", "missing": 7}],
        "days": [{**app, "day": "2026-01-31", "missing": 7, "added": 12}],
    }
    expect(page.locator(".panel.missed td")).to_have_text(["2026-01-31", "APP_PURCHASE", "7", "12"])
    expect(page.locator(".notices li").first).to_contain_text("No callback of APP_PURCHASE comes")
    fake.missed = {**fake.missed, "reachable": False, "silent": [], "days": []}
    for part in (".panel.missed", ".notices"):
        expect(page.locator(part)).to_contain_text("Reconcile http://10.0.0.31:8600 cannot be reached")
    fake.missed = {**fake.missed, "reachable": True}
    expect(page.locator(".panel.missed")).to_contain_text("No callback was found missing")


def test_it_shows_webhook_endpoints_where_the_center_knows_their_service(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    expect(page.locator(".panel.errors")).to_be_attached()
    expect(page.locator(".panel.webhooks")).to_have_count(0)
    fake.webhooks = WEBHOOKS
    rows = page.locator(".panel.webhooks > .records tbody tr")
    erp, robot = rows.first, rows.last
    expect(erp.locator("td")).to_have_text(
        [
            *("erpfailing", "https://erp.example/… notification", "41% of the last 100", "2,310", "95 s", "3"),
            "Send a testDeliver again",
        ]
    )
    expect(robot.locator("td").nth(2)).to_have_text("–")
    expect(robot.get_by_role("button", name="Deliver again")).to_have_attribute("aria-disabled", "true")
    expect(page.locator(".webhooks .find-part")).to_contain_text("500 <script>alert(1)</script>")
    away = {"reachable": False, "ready": False, "problem": "it answers 200 and 401", "lag_records": None}
    fake.webhooks = {"services": [{"url": "http://10.0.0.41:8700", **away}], "endpoints": []}
    for part in (".panel.webhooks", ".notices"):
        expect(page.locator(part)).to_contain_text("Webhooks http://10.0.0.41:8700 cannot be reached: it answers 200")


def test_a_button_acts_once_and_keeps_the_focus_while_its_endpoint_changes(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.webhooks = WEBHOOKS
    page = open_page(f"{fake.url}/ops", locale="en-GB")
    button = page.get_by_role("button", name="Send a test: robot")
    fake.delay_s = 1
    button.dblclick()
    said = page.locator(".webhooks-said")
    expect(said).to_have_text("robot: the test was accepted (204)")
    assert fake.queries.count("/v1/ops/webhooks/robot/test?") == 1
    fake.webhooks = {**WEBHOOKS, "endpoints": [WEBHOOKS["endpoints"][1]]}
    expect(page.locator(".panel.webhooks > .records tbody tr")).to_have_count(1)
    expect(button).to_be_focused()
    expect(said).to_have_text("robot: the test was accepted (204)")
    fake.fails = {"/robot/test": 500}
    page.keyboard.press("Enter")
    expect(said).to_have_text("robot: It fails on demand.")


@pytest.mark.parametrize("path", ["/ops", "/waiting"])
def test_another_language_waits_while_the_page_cannot_be_loaded_again(
    fake: FakeTaskCenter, open_page: OpenPage, path: str
) -> None:
    page = open_page(f"{fake.url}{path}")
    button = page.get_by_role("button", name="Switch to English")
    expect(button).to_be_visible()
    page.context.set_offline(True)
    with page.expect_event("requestfailed", lambda request: request.url == f"{fake.url}{path}"):
        button.click()
    expect(page.locator(".panel").first).to_be_visible()
    page.context.set_offline(False)
    button.click()
    expect(page.get_by_role("button", name="切换为中文")).to_be_visible()


def test_a_person_who_is_not_an_operator_needs_an_operators_token(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode, fake.operator = "token", False
    page = open_page(f"{fake.url}/ops")
    page.get_by_label("访问令牌").fill("let-me-in")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("此令牌不能查看此页")
    fake.operator = True
    page.get_by_label("访问令牌").fill("let-me-in")
    page.keyboard.press("Enter")
    expect(page.locator(".panel.flow")).to_be_visible()


def test_an_employee_who_signed_in_is_told_whom_the_page_is_for_and_finds_back(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.mode, fake.operator = "sso", False
    for path, heading in (("/ops", "“运维”只对特定人员开放"), ("/audit", "“审计日志”只对特定人员开放")):
        page = open_page(f"{fake.url}{path}")
        expect(page.get_by_role("heading")).to_have_text(heading)
        expect(page.locator(".sign-in-form p")).to_contain_text("您以“李雷”登录")
        expect(page.get_by_label("访问令牌")).to_have_count(0)
        assert serious_findings(page) == []
        page.get_by_role("link", name="任务中心").click()
        expect(page.locator(".row").first).to_be_visible()


def test_on_a_phone_every_column_can_be_read_and_nothing_is_wider_or_longer(
    fake: FakeTaskCenter, open_page: OpenPage
) -> None:
    fake.webhooks = WEBHOOKS
    phone = {"width": 390, "height": 844}
    page = open_page(f"{fake.url}/ops#inst-rejected", viewport=phone, has_touch=True, is_mobile=True)
    expect(page.locator(".panel.webhooks")).to_be_attached()
    expect(page.locator(".find .find-part")).to_be_attached()
    measured = "(({scrollWidth: w, scrollHeight: h}) => [w, h])(document.documentElement)"
    assert page.evaluate(measured) == [390, 844]
    assert page.locator(".operation").evaluate("(root) => root.scrollWidth - root.clientWidth") == 0
    for kind in ("map", "quarantine", "dead-letters", "errors"):
        table = page.locator(f".panel.{kind} .records")
        assert table.evaluate("table => table.scrollWidth <= table.clientWidth"), kind
    last = page.locator(".quarantine tbody tr").first.locator("td").last
    expect(last).to_be_visible()
    assert last.evaluate("cell => getComputedStyle(cell, '::before').content") == '"来源"'
    english = open_page(f"{fake.url}/ops", viewport=phone, locale="en-GB")
    expect(english.locator(".panel.webhooks")).to_be_attached()
    assert english.evaluate(measured) == [390, 844]
    assert english.locator("h1").evaluate("title => title.scrollWidth <= title.clientWidth")
