"""People decide tasks in a real browser, on the real bridge, and see each time what became of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner

from support.browser.browsing import serious_findings
from support.browser.company import Company, Task, at_work
from support.dingtalk import FaultyDingTalk
from support.edge.process import wait_until
from support.identity_provider import certified_provider, enter, oidc_settings
from support.reconcile import assigned, happened
from taskbridge.cli.program import app
from taskbridge.local.company import CORP
from taskbridge.local.demo import APP
from taskbridge.local.fake_dingtalk import Company as FakeCompany
from taskbridge.local.fake_dingtalk import served
from taskbridge.local.host import free_ports
from taskbridge.runtime.dingtalk import wire
from taskbridge.runtime.dingtalk.clock import SystemClock
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from support.browser.browsing import OpenPage
    from taskbridge.schemas.events import TaskEvent

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SOON_MS = 60_000
WANG, LI = "wang", "li"
APPS = f"""
[[corps]]
corp_id = "{CORP}"
app_key = "key"
app_secret = "secret"
user_id = "manager"

[[apps]]
app_type = "{APP}"
"""


class Deciding:
    """A company whose people sign in and decide, and its DingTalk, whose callbacks come on request."""

    def __init__(self, company: Company, dingtalk: FaultyDingTalk, changes: list[TaskEvent]) -> None:
        self.company, self.dingtalk, self._changes = company, dingtalk, changes
        dingtalk.system_tokens[APP] = company.token

    def create(self, title: str, assignee: str) -> Task:
        task = self.company.create(title, assignee)
        ids = {"instance_id": task.instance_id, "app_type": APP, "corp_id": CORP}
        self.dingtalk.company.happened(assigned(task.task_id, assignee, at=1, **ids))
        return task

    def decided_elsewhere(self, task: Task) -> None:
        """A second ago: its callback has not come yet."""
        event = happened(Action.COMPLETED, 2, instance_id=task.instance_id, task_id=task.task_id, actor_id="x")
        self.dingtalk.company.happened(event)

    def confirm(self) -> None:
        """Yida's callbacks of what was carried out."""
        while self._changes:
            event = self._changes.pop(0)
            assert event.task_id is not None
            self.company.complete(Task("", event.instance_id, event.task_id), event.actor_id or "")

    def sent(self, count: int) -> list[tuple[str, str, str]]:
        """Who decided what with which remark, once there are so many."""
        wait_until(lambda: len(self.dingtalk.changes) >= count)
        decisions = [each for each in self.dingtalk.changes if isinstance(each, wire.ExecuteTask)]
        return [(each.user_id, each.out_result, each.remark) for each in decisions]


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Generator[Deciding]:
    folder = tmp_path_factory.mktemp("deciding")
    center, provider = free_ports(2)
    (folder / "apps.toml").write_text(APPS)
    changes: list[TaskEvent] = []
    dingtalk = FaultyDingTalk(
        FakeCompany(), SystemClock(), system_tokens={}, app_key="key", app_secret="secret", on_change=changes.append
    )
    settings = oidc_settings(provider, folder / "secret", CORP)
    url = f"http://127.0.0.1:{center}"
    settings |= {"CENTER_PORT": str(center), "CENTER_PUBLIC_URL": url, "CENTER_APPS_FILE": str(folder / "apps.toml")}
    with served(dingtalk) as dingtalk_url, certified_provider(provider, url):
        settings["CENTER_DINGTALK_API_URL"] = dingtalk_url
        with at_work(folder, **settings) as company:
            import_people(company, folder / "people.csv")
            yield Deciding(company, dingtalk, changes)


def import_people(company: Company, file: Path) -> None:
    file.write_text(f"user_id,name\n{WANG},王伟\n{LI},李雷\n")
    where = ["--bootstrap-servers", company.connection.bootstrap_servers]
    where += ["--registry-url", company.connection.registry_url]
    arguments = ["people", "import", str(file), "--corp", CORP, *where]
    # In a thread: the one of the browser has an event loop.
    with ThreadPoolExecutor(1) as threads:
        imported = threads.submit(CliRunner().invoke, app, arguments).result()
    assert imported.exit_code == 0, imported.output


def signed_in(page: Page, user: str, *, link: str) -> Page:
    page.set_default_timeout(SOON_MS)
    page.get_by_role("link", name=link).click()
    enter(page, user)
    return page


def shown(page: Page, *tasks: Task) -> None:
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
    deciding: Deciding, open_page: OpenPage
) -> None:
    first, second, third = [deciding.create(f"第{number}个申请", WANG) for number in (1, 2, 3)]
    page = signed_in(open_page(deciding.company.bridge.center_url), WANG, link="登录")
    shown(page, first, second, third)
    said, remark = page.locator(".detail .deciding-said[role=status]"), page.get_by_role("textbox", name="意见")

    # By the keyboard; a refusal needs a reason. It leaves the list when the callback comes, not before.
    choose(page, third)
    expect(remark).to_be_visible()
    page.keyboard.press("a")
    expect(remark).to_be_focused()
    assert serious_findings(page) == []
    press(page, "拒绝")
    expect(page.locator(".detail .deciding-label [role=alert]")).to_have_text("请填写原因。")
    remark.fill("预算不足")
    press(page, "拒绝")
    expect(said).to_have_text("拒绝：已提交，等待确认…")
    assert deciding.sent(1)[-1] == (WANG, wire.DISAGREED, "预算不足")
    expect(page.locator(".row")).to_have_count(3)
    deciding.confirm()
    shown(page, first, second)

    # Somebody else was faster.
    deciding.decided_elsewhere(second)
    choose(page, second)
    press(page, "同意")
    expect(said).to_have_text("同意：未执行。任务不存在或已被处理")

    # No answer: nobody knows. The callback then says that it was carried out.
    deciding.dingtalk.faults.lost_answers = 1
    choose(page, first)
    press(page, "同意")
    expect(said).to_have_text("同意：对方系统没有应答，正在核实是否已执行…")
    deciding.confirm()
    shown(page, second)

    # Too many calls: it waits for its turn.
    fourth = deciding.create("第4个申请", WANG)
    deciding.dingtalk.faults.answers_next.append((403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"))
    choose(page, fourth)
    before = len(deciding.dingtalk.changes)
    press(page, "转交")
    page.locator(".deciding .people button", has_text="李雷").click()
    expect(said).to_have_text("转交：已提交，等待确认…")
    wait_until(lambda: len(deciding.dingtalk.changes) > before)
    deciding.confirm()
    shown(page, second)


def test_several_are_decided_at_once_on_a_phone(deciding: Deciding, open_page: OpenPage) -> None:
    tasks = [deciding.create(f"Request {number}", LI) for number in (1, 2, 3)]
    before = len(deciding.dingtalk.changes)
    look = {"viewport": {"width": 390, "height": 780}, "color_scheme": "dark", "locale": "en-US"}
    phone = signed_in(open_page(deciding.company.bridge.center_url, **look), LI, link="Sign in")
    phone.get_by_role("button", name="Several at once").click()
    dialog = phone.get_by_role("dialog", name="Several at once")
    dialog.get_by_role("button", name="Agree").click()
    expect(dialog.locator("> .deciding-said")).to_have_text("Choose some tasks first.")
    for each in tasks[:2]:
        dialog.get_by_role("checkbox", name=each.title).check()
    dialog.get_by_role("textbox", name="Remark").fill("fine")
    assert serious_findings(phone) == []
    dialog.get_by_role("button", name="Agree").click()
    expect(dialog.locator(".several-said")).to_have_text(["Agree: sent, waiting for confirmation…"] * 2)
    assert deciding.sent(before + 2)[-2:] == [(LI, wire.AGREED, "fine")] * 2
    deciding.confirm()
    expect(dialog.locator(".several li")).to_have_count(1)
    expect(dialog.locator(".several")).to_contain_text(tasks[2].title)


def test_a_delegate_decides_on_behalf_of_a_person(deciding: Deciding, open_page: OpenPage) -> None:
    task = deciding.create("王伟要处理的申请", WANG)
    url = deciding.company.bridge.center_url
    page = signed_in(open_page(url), WANG, link="登录")
    expect(row(page, task)).to_be_visible()
    page.locator(".list-menu-button").click()
    page.get_by_role("button", name="委托我的任务…").click()
    dialog = page.get_by_role("dialog", name="委托我的任务…")
    dialog.get_by_role("button", name="委托", exact=True).click()
    expect(dialog.get_by_role("status").last).to_have_text("请先选择一个人。")
    dialog.locator(".people button", has_text="李雷").click()
    assert serious_findings(page) == []
    dialog.get_by_role("button", name="委托", exact=True).click()
    expect(dialog.locator(".delegations li")).to_contain_text("李雷")

    before = len(deciding.dingtalk.changes)
    look = {"viewport": {"width": 390, "height": 780}, "locale": "en-US"}
    phone = signed_in(open_page(url, **look), LI, link="Sign in")
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
    expect(mine.locator(".several-said")).to_have_text("Agree: sent, waiting for confirmation…")
    assert deciding.sent(before + 1)[-1] == (WANG, wire.AGREED, "同意 (li 代办)")
    deciding.confirm()
    expect(mine).to_have_count(0)

    # After its end nothing is seen.
    dialog.get_by_role("button", name="结束委托: 李雷").click()
    expect(dialog.locator(".delegations li")).to_have_text("您没有委托任何任务。")
    assert phone.request.get(f"{url}/v1/corps/{CORP}/users/{LI}/delegated-tasks").json() == {"items": []}
