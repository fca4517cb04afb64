"""The task center on the real bridge: a callback is on the screen, nothing is missed, and people decide their tasks.

One bridge for all of them: it takes most of the time.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI, Request, Response
from playwright.sync_api import expect

from support.browser.browsing import portal, serious_findings
from support.browser.company import SECRET, at_work
from support.browser.deciding import HAN, LI, OPERATOR, WANG, deciding
from support.browser.fake_task_center import TOKEN
from support.edge.process import wait_until
from support.identity_provider import enter
from support.reconcile import FORM
from support.served_apps import serving
from support.webhooks_process import WebhooksProcess
from taskbridge.cli.connection import Connection
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.organisation import Agent
from taskbridge.local.company import CORP
from taskbridge.local.demo import APP

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Locator, Page
    from playwright.sync_api import Request as BrowserRequest

    from support.browser.browsing import OpenPage
    from support.browser.company import Company, Task
    from support.browser.deciding import Deciding

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SOON_MS = 60_000
SYSTEM = {"extra_http_headers": {"Authorization": f"Bearer {TOKEN}"}}
"""A browser of somebody who has a token for all lists."""


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Deciding, str, WebhooksProcess]]:
    """People who decide in their company, a portal's URL, and webhooks: all that needs the real bridge shares it."""
    folder = tmp_path_factory.mktemp("bridge")
    webhooks = WebhooksProcess(folder, Connection("", "", {}), {}, TEST_RETRIES="2")
    with deciding(folder) as (people, settings), portal(lambda: settings["CENTER_PUBLIC_URL"]) as portal_url:
        settings |= {"CENTER_ALLOWED_ORIGINS": portal_url, "CENTER_WEBHOOKS_URLS": webhooks.url}
        with at_work(folder, systems=("flowable", "todo"), **settings) as company:
            people.works_for(company, folder / "people.csv")
            webhooks.environment["WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS"] = company.connection.bootstrap_servers
            webhooks.environment["WEBHOOKS_SCHEMA_REGISTRY_URL"] = company.connection.registry_url
            webhooks.start()
            try:
                yield people, portal_url, webhooks
            finally:
                webhooks.kill()


@pytest.fixture
def people(bridge: tuple[Deciding, str, WebhooksProcess]) -> Deciding:
    return bridge[0]


@pytest.fixture
def company(people: Deciding) -> Company:
    return people.company


@pytest.fixture
def user() -> str:
    """A person of whom nothing is known yet."""
    return f"user-{uuid.uuid4().hex[:8]}"


def open_live(open_page: OpenPage, company: Company, user: str) -> Page:
    page = open_page(company.page_of(user), **SYSTEM)
    page.set_default_timeout(SOON_MS)
    expect(page.locator(".live")).to_have_attribute("data-state", "live", timeout=SOON_MS)
    expect(page.locator(".task-list .nothing")).to_be_visible(timeout=SOON_MS)
    # From now on everything happens in this document, without a reload.
    page.evaluate("globalThis.notReloaded = true")
    return page


def shown(page: Page, *titles: str) -> None:
    expect(page.locator(".row-title")).to_have_text(list(titles), timeout=SOON_MS)


def counted(page: Page, pending: int, handled: int) -> None:
    tabs = [f"待我处理{pending}", f"我已处理{handled}"]
    expect(page.get_by_role("tab").nth(0)).to_have_text(tabs[0], timeout=SOON_MS)
    expect(page.get_by_role("tab").nth(1)).to_have_text(tabs[1], timeout=SOON_MS)


def test_a_task_comes_is_handled_and_is_deleted_before_our_eyes(
    company: Company, open_page: OpenPage, user: str
) -> None:
    page = open_live(open_page, company, user)
    task = company.create("王伟的访客申请", user)
    shown(page, task.title)  # of two with the same time of creation, the one that comes later is above
    other = company.create("会议室预订", user)
    shown(page, other.title, task.title)
    counted(page, 2, 0)
    page.locator(".row").nth(1).click()
    expect(page.locator(".detail h2")).to_have_text(task.title)
    expect(page.locator(".open-page")).to_have_attribute(
        "href", f"https://yida.example/processDetail?procInsId={task.instance_id}"
    )
    # The form as the vendor's own sample fills it in.
    expect(page.locator(".form-values").first).to_contain_text("numberField_l4s57vma")
    company.complete(task, user)
    shown(page, other.title)
    counted(page, 1, 1)
    expect(page.locator(".detail .step")).to_have_count(2, timeout=SOON_MS)
    page.keyboard.press("2")
    shown(page, task.title)
    page.locator(".row").click()
    expect(page.locator(".detail h2")).to_have_text(task.title)
    company.delete(task)
    expect(page.locator(".task-list .nothing")).to_be_visible(timeout=SOON_MS)
    counted(page, 1, 0)
    expect(page.locator(".detail")).to_contain_text("任务已不存在", timeout=SOON_MS)
    assert page.evaluate("globalThis.notReloaded") is True


def test_tasks_of_three_systems_are_in_one_inbox(company: Company, open_page: OpenPage, user: str) -> None:
    page = open_live(open_page, company, user)
    ours = company.create("宜搭的访客申请", user)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    flowables = {"id": "8", "name": "Approve the leave", "taskDefinitionKey": "approve", "assignee": user}
    flowables |= {"processInstanceId": f"P-{user}", "processDefinitionId": "leave:1:4", "timestamp": at}
    company.push("flowable", {"type": "TASK_CREATED", "data": flowables})
    pushed = {"syscode": "oa", "flowid": f"F-{user}", "requestname": "差旅报销", "workflowname": "差旅报销流程"}
    pushed |= {"nodename": "直属领导", "creator": "10029460", "receiver": user, "pcurl": "https://oa.example/flow/1"}
    pushed["receivets"] = str(int(time.time() * 1000))
    company.push("todo", {**pushed, "isremark": "0", "viewtype": "0"})
    counted(page, 3, 0)
    systems = page.locator(".source-filter")
    expect(systems.locator("option")).to_have_text(["全部系统", "flowable", "todo", "宜搭"])
    for system, title in {"flowable": "Approve the leave", "todo": "差旅报销", "yida": ours.title}.items():
        systems.select_option(system)
        shown(page, title)
    # Each is handled where it came from.
    company.push("flowable", {"type": "TASK_COMPLETED", "data": flowables})
    company.push("todo", {**pushed, "isremark": "2"})
    company.complete(ours, user)
    counted(page, 0, 3)
    systems.select_option("")
    page.keyboard.press("2")
    expect(page.locator(".row-title")).to_have_count(3, timeout=SOON_MS)


def test_an_operator_finds_an_endpoint_that_fails_and_delivers_again_once_it_works(
    bridge: tuple[Deciding, str, WebhooksProcess], open_page: OpenPage, user: str
) -> None:
    people, _, webhooks = bridge
    company = people.company
    token, works, got = "robots-access-token", threading.Event(), list[str]()
    receiver = FastAPI()

    @receiver.post("/robot/send")
    async def receive(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        if not works.is_set():
            return Response("closed for repair", 503)
        got.append((await request.json())["data"]["title"])
        return Response(status_code=204)

    with serving(receiver) as url:
        lines = f'url = "{url}/robot/send?access_token={token}"\nsecrets = ["{SECRET}"]\npeople = ["{user}"]'
        webhooks.file.write_text(f'[[endpoints]]\nname = "robot"\ncorps = ["{CORP}"]\n{lines}\n')
        page = open_page(f"{company.bridge.center_url}/ops", locale="en-GB", **SYSTEM)
        row, said = page.locator(".webhooks > .records tbody tr"), page.locator(".webhooks-said")
        test = page.get_by_role("button", name="Send a test: robot")
        expect(row).to_contain_text("enabled", timeout=SOON_MS)

        task = company.create("要通知机器人的申请", user)
        given_up = row.locator("td").nth(5)
        expect(given_up).to_have_text("1", timeout=SOON_MS)
        expect(row).to_contain_text("failing")
        expect(row).to_contain_text("0% of the last 3")
        expect(page.locator(".webhooks .find-part")).to_contain_text("503 closed for repair")
        test.click()
        expect(said).to_have_text("robot: the test failed: 503 closed for repair")

        works.set()
        test.click()
        expect(said).to_have_text("robot: the test was accepted (204)")
        page.get_by_role("button", name="Deliver again: robot").click()
        expect(said).to_have_text("robot: 1 to be delivered again")
        expect(given_up).to_have_text("0")
        expect(row).to_contain_text("enabled", timeout=SOON_MS)
        expect(page.locator(".webhooks .find-part")).to_have_count(0, timeout=SOON_MS)
        assert got == ["Test of taskbridge webhooks", task.title]
        assert token not in page.content()
    assert token not in webhooks.log_path.read_text()


def signed_in(page: Page, user: str, *, link: str) -> Page:
    page.set_default_timeout(SOON_MS)
    page.get_by_role("link", name=link).click()
    enter(page, user)
    return page


def listed(page: Page, *tasks: Task) -> None:
    """These alone, in any order: they are of one time."""
    expect(page.locator(".row")).to_have_count(len(tasks), timeout=SOON_MS)
    for each in tasks:
        expect(row(page, each)).to_be_visible()


def row(page: Page, task: Task) -> Locator:
    return page.locator(".row", has_text=task.title)


def choose(page: Page, task: Task) -> None:
    row(page, task).click()
    expect(page.locator(".detail h2")).to_have_text(task.title)


def press(page: Page, name: str) -> None:
    page.locator(".detail").get_by_role("button", name=name, exact=True).click()


def test_a_decision_leaves_the_list_when_its_callback_comes_and_what_fails_is_explained(
    people: Deciding, open_page: OpenPage
) -> None:
    first, second, third = [people.create(f"第{number}个申请", WANG) for number in (1, 2, 3)]
    page = signed_in(open_page(people.company.bridge.center_url), WANG, link="登录")
    listed(page, first, second, third)
    said, remark = (
        page.locator(".detail .deciding .deciding-said[role=status]"),
        page.get_by_role("textbox", name="意见"),
    )

    # By the keyboard; a refusal needs a reason. It leaves the list when the callback comes, not before.
    choose(page, third)
    expect(remark).to_be_visible()
    page.keyboard.press("a")
    expect(remark).to_be_focused()
    assert serious_findings(page) == []
    press(page, "拒绝")
    expect(remark).to_have_js_property("validationMessage", "请填写原因。")
    remark.fill("预算不足")
    press(page, "拒绝")
    expect(said).to_have_text("拒绝：已提交，等待确认…")
    assert people.sent(1)[-1] == (WANG, wire.DISAGREED, "预算不足")
    expect(page.locator(".row")).to_have_count(3)
    people.confirm()
    listed(page, first, second)

    # Somebody else was faster.
    people.decided_elsewhere(second)
    choose(page, second)
    press(page, "同意")
    expect(said).to_have_text("同意：未执行。任务不存在或已被处理 (failure.task.notExistOrFinished)")

    # No answer: nobody knows. The callback then says that it was carried out.
    people.dingtalk.faults.lost_answers = 1
    choose(page, first)
    press(page, "同意")
    expect(said).to_have_text("同意：对方系统没有应答，正在核实是否已执行…")
    people.confirm()
    listed(page, second)

    # Away: nothing is sent until it can be reached again.
    fourth = people.create("第4个申请", WANG)
    choose(page, fourth)
    before = len(people.dingtalk.changes)
    with people.away():
        press(page, "转交")
        page.locator(".deciding .people button", has_text="李雷").click()
        page.get_by_role("dialog", name="转交给 李雷？").get_by_role("button", name="转交").click()
        expect(said).to_have_text("转交：对方系统暂时无法连接或繁忙，尚未发送，将自动重试…")
        assert serious_findings(page) == []
    expect(said).to_have_text("转交：已提交，等待确认…")
    wait_until(lambda: len(people.dingtalk.changes) > before)
    people.confirm()
    listed(page, second)


def test_while_dingtalk_is_slow_people_go_on_with_other_tasks(people: Deciding, open_page: OpenPage) -> None:
    first, second = [people.create(f"第{number}个慢申请", HAN) for number in (1, 2)]
    before = len(people.dingtalk.changes)
    page = signed_in(open_page(people.company.bridge.center_url), HAN, link="登录")
    said, buttons = (
        page.locator(".detail .deciding .deciding-said[role=status]"),
        page.locator(".detail .deciding-buttons button"),
    )
    listed(page, first, second)
    with people.slow():
        choose(page, first)
        press(page, "同意")
        people.held(1)
        expect(said).to_have_text("同意：已提交，等待确认…")
        expect(buttons).to_have_count(0)
        choose(page, second)
        page.get_by_role("textbox", name="意见").fill("预算不足")
        press(page, "拒绝")
        people.held(2)
        page.reload()
        listed(page, first, second)
        for task, text in ((first, "同意：已提交，等待确认…"), (second, "拒绝：已提交，等待确认…")):
            choose(page, task)
            expect(said).to_have_text(text)
        expect(buttons).to_have_count(0)
        assert len(people.dingtalk.changes) == before
    assert sorted(people.sent(before + 2)[-2:]) == [(HAN, wire.AGREED, "同意"), (HAN, wire.DISAGREED, "预算不足")]
    people.confirm()
    expect(page.locator(".task-list .nothing")).to_be_visible(timeout=SOON_MS)


def test_a_comment_is_written_at_the_desk_and_its_writer_is_urged_from_a_phone(
    people: Deciding, open_page: OpenPage
) -> None:
    task = people.create("有评论的申请", WANG, by=HAN)
    desk = signed_in(open_page(people.company.bridge.center_url), WANG, link="登录")
    choose(desk, task)
    desk.get_by_role("textbox", name="写评论").fill("<b>预算够吗？</b>")
    press(desk, "发表评论")
    written = desk.locator(".comment")
    expect(written).to_contain_text("<b>预算够吗？</b>")
    expect(written.locator(".deciding-said")).to_have_count(0, timeout=SOON_MS)

    look = {"viewport": {"width": 390, "height": 780}, "color_scheme": "dark", "locale": "en-US"}
    phone = signed_in(open_page(f"{people.company.bridge.center_url}/#created", **look), HAN, link="Sign in")
    phone.get_by_role("tab").nth(2).click()
    choose(phone, task)
    expect(phone.locator(".comment").first).to_contain_text("<b>预算够吗？</b>")
    phone.get_by_role("button", name="Urge").click()
    phone.get_by_role("dialog").get_by_role("button", name="Urge").click()
    expect(phone.locator(".comment")).to_have_count(2)
    expect(phone.locator(".comment .deciding-said")).to_have_count(0, timeout=SOON_MS)
    assert [(each.creator, each.content, each.at_user_id) for each in people.dingtalk.remarks] == [
        (WANG, "<b>预算够吗？</b>", None),
        (HAN, "请尽快处理。", WANG),
    ]
    assert serious_findings(phone) == []


def is_of_a_file(request: BrowserRequest) -> bool:
    return request.url.startswith("https://files.yida.example/")


def test_an_attachment_opens_at_the_vendors_temporary_address(people: Deciding, open_page: OpenPage) -> None:
    file = f"/ossFileHandle?appType={APP}&fileName={APP}_bWFuYWdlcg$$.pdf&instId=&type=download"
    values = [{"name": "合同.pdf", "size": 48_213, "downloadUrl": file, "previewUrl": file, "url": file, "ext": "pdf"}]
    task = people.create("带附件的申请", WANG, attachmentField_1=json.dumps(values))
    url, before = people.company.bridge.center_url, people.dingtalk.calls[wire.GetOpenUrl.path]
    phone = {"viewport": {"width": 390, "height": 780}, "locale": "en-US"}
    for look, link in ((phone, "Sign in"), ({}, "登录")):
        page = signed_in(open_page(url, **look), WANG, link=link)
        choose(page, task)
        expect(page.locator(".files li")).to_have_text("合同.pdf47 KiB", timeout=SOON_MS)
        assert people.dingtalk.calls[wire.GetOpenUrl.path] == before
        # Playwright shows where a redirect leads, and cannot answer in its place.
        with page.context.expect_event("request", is_of_a_file) as requested, page.expect_popup():
            page.get_by_role("link", name="合同.pdf").click()
        assert people.dingtalk.is_open(requested.value.url)
        assert people.dingtalk.opened[-1] == (f"https://www.aliwork.com{file}", WANG)
        before += 1
        assert people.dingtalk.calls[wire.GetOpenUrl.path] == before
    # Where DingTalk refuses, the person reads it, in the tab that the click opened.
    people.dingtalk.faults.denied = {wire.GetOpenUrl.path: "Yida.Attachment.Read"}
    try:
        with page.expect_popup() as opened:
            page.get_by_role("link", name="合同.pdf").click()
        expect(opened.value.locator("h1")).to_have_text("文件未打开 · File not opened")
        assert serious_findings(opened.value) == []
    finally:
        people.dingtalk.faults.denied = {}
    people.confirm()


def test_an_amount_that_changes_before_the_decision_is_seen_and_the_steps_too(
    people: Deciding, open_page: OpenPage
) -> None:
    task = people.create("会变的申请", WANG, amount="200")
    here, later = (
        wire.PreviewedStep(f"node-{task.task_id}", "主管"),
        wire.PreviewedStep("node-x", "财务审批", HAN, "韩梅"),
    )
    people.dingtalk.previews[FORM] = [here, later]
    page = signed_in(open_page(people.company.bridge.center_url), WANG, link="登录")
    said = page.locator(".detail .deciding .deciding-said[role=status]")
    choose(page, task)
    expect(page.locator(".form-age")).to_contain_text("内容截至", timeout=SOON_MS)
    expect(page.locator(".decisions li")).to_have_count(2)
    expect(page.locator(".decisions li").nth(1)).to_contain_text("财务审批韩梅")
    before = len(people.dingtalk.changes)
    people.dingtalk.change_form(task.instance_id, LI, amount="20000")
    press(page, "同意")
    expect(said).to_contain_text("申请在显示之后有变动", timeout=SOON_MS)
    expect(page.locator(".form-changes del")).to_have_text("200", timeout=SOON_MS)
    expect(page.locator(".form-changes ins")).to_have_text("20000")
    expect(page.locator(".form-changes li")).to_contain_text("由李雷修改")
    assert len(people.dingtalk.changes) == before
    press(page, "同意")
    people.sent(before + 1)
    people.confirm()
    expect(row(page, task)).to_have_count(0, timeout=SOON_MS)


@pytest.mark.nightly
@pytest.mark.timeout(480)
def test_forty_tasks_of_a_leaver_are_handed_over_with_a_kill_in_between(
    people: Deciding, open_page: OpenPage, user: str
) -> None:
    """At the desk, and what the kill left behind from a phone: each task once. A lease lasts two minutes."""
    for number in range(40):
        people.create(f"离职申请 {number}", user)
    before, url = len(people.dingtalk.changes), f"{people.company.bridge.center_url}/ops"

    def redirected() -> Counter[int]:
        done = people.dingtalk.changes[before:]
        return Counter(each.task_id for each in done if isinstance(each, wire.RedirectTask))

    def hand_over(page: Page, start: str, choose: str, again: str) -> Locator:
        panel = page.locator(".panel.leavers")
        panel.get_by_role("button", name=start).click()
        page.locator(".leavers-typed input").fill(user)
        page.locator(".leavers-typed").get_by_role("button", name=choose).click()
        panel.get_by_role("button", name=again).click()
        page.get_by_role("dialog").locator(".people button", has_text="韩梅").click()
        page.get_by_role("dialog").get_by_role("button", name=again, exact=True).click()
        return panel.locator(".leavers-progress")

    counts = f"{people.company.bridge.center_url}/v1/corps/{CORP}/users/{user}/counts"
    desk = signed_in(open_page(url), OPERATOR, link="登录")
    wait_until(lambda: desk.request.get(counts).json()["pending"] == 40)
    progress = hand_over(desk, "选择离职人员", "选择", "转交")
    wait_until(lambda: len(redirected()) >= 5)
    people.company.restart_center()
    # The page goes on by itself.
    expect(progress).to_contain_text("处理中 0 项", timeout=240_000)
    people.confirm()

    phone = signed_in(open_page(url, viewport={"width": 390, "height": 780}, locale="en-US"), OPERATOR, link="Sign in")
    left = 40 - len(redirected())
    wait_until(lambda: phone.request.get(counts).json()["pending"] == left)
    assert left > 0, "the kill was in between"
    progress = hand_over(phone, "Choose who leaves", "Choose", "Hand over")
    wait_until(lambda: len(redirected()) == 40)
    people.confirm()
    expect(progress).to_have_text("Handed over: 40. Under way: 0. Failed: 0. Decided meanwhile: 0.", timeout=SOON_MS)
    assert set(redirected().values()) == {1}


def test_a_delegate_decides_on_behalf_of_a_person(people: Deciding, open_page: OpenPage) -> None:
    task = people.create("王伟要处理的申请", WANG)
    url = people.company.bridge.center_url
    page = signed_in(open_page(url), WANG, link="登录")
    expect(row(page, task)).to_be_visible()
    page.locator(".list-menu-button").click()
    people.dingtalk.organisation.agents = [Agent(LI, WANG, "李雷", "王伟", "2026-11-01T00:00Z", "2026-11-30T00:00Z")]
    page.get_by_role("button", name="委托我的任务…").click()
    dialog = page.get_by_role("dialog", name="委托我的任务…")
    dialog.get_by_role("button", name="委托", exact=True).click()
    expect(dialog.get_by_role("status").last).to_have_text("请先选择一个人。")
    dialog.locator(".people button", has_text="李雷").click()
    expect(dialog.get_by_role("region", name="宜搭中的代理")).to_contain_text("李雷 代您处理 · ")
    assert serious_findings(page) == []
    dialog.get_by_role("button", name="委托", exact=True).click()
    own = dialog.locator(".delegations").first.locator("li")
    expect(own).to_contain_text("李雷")

    before = len(people.dingtalk.changes)
    look = {"viewport": {"width": 390, "height": 780}, "locale": "en-US"}
    phone = signed_in(open_page(url, **look), LI, link="Sign in")
    requested: list[str] = []
    phone.on("request", lambda request: requested.append(request.url))
    phone.get_by_role("button", name="For others").click()
    others = phone.get_by_role("dialog", name="For others")
    mine = others.locator(".several li", has_text=task.title)
    expect(mine.locator(".status")).to_have_text("for 王伟")
    assert serious_findings(phone) == []
    mine.get_by_role("button", name="Details").click()
    expect(phone.locator(".detail h2")).to_have_text(task.title)
    phone.get_by_role("button", name="Back to the list").click()
    phone.get_by_role("button", name="For others").click()
    mine.get_by_role("checkbox").check()
    others.get_by_role("button", name="Agree").click()
    expect(mine.locator(".deciding-said")).to_have_text("Agree: sent, waiting for confirmation…")
    assert people.sent(before + 1)[-1] == (WANG, wire.AGREED, "同意 (li 代办)")
    people.confirm()
    expect(mine).to_have_count(0)

    # What was opened is marked as read in one's own list only.
    assert not [each for each in requested if each.endswith("/marks")]

    # After its end nothing is seen.
    dialog.get_by_role("button", name="结束委托: 李雷").click()
    expect(own).to_have_text("您没有委托任何任务。")
    assert phone.request.get(f"{url}/v1/corps/{CORP}/users/{LI}/delegated-tasks").json() == {"items": []}
