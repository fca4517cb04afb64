"""The task center on the real bridge: a callback that Yida posts is on the screen, and nothing is missed."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI, Request, Response
from playwright.sync_api import expect

from support.browser.browsing import portal, put
from support.browser.company import SECRET, at_work
from support.served_apps import serving
from support.webhooks_process import WebhooksProcess
from taskbridge.cli.connection import Connection
from taskbridge.local.company import CORP
from taskbridge.local.host import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.browser.company import Company

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


SOON_MS = 60_000


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Company, str, WebhooksProcess]]:
    """The company, a portal's URL, and webhooks."""
    folder, center = tmp_path_factory.mktemp("bridge"), free_port()
    webhooks = WebhooksProcess(folder, Connection("", "", {}), {}, TEST_RETRIES="2")
    with portal(lambda: f"http://127.0.0.1:{center}") as portal_url:
        settings = {"CENTER_ALLOWED_ORIGINS": portal_url, "CENTER_WEBHOOKS_URLS": webhooks.url}
        with at_work(folder, systems=("flowable", "todo"), CENTER_PORT=str(center), **settings) as company:
            webhooks.environment["WEBHOOKS_KAFKA_BOOTSTRAP_SERVERS"] = company.connection.bootstrap_servers
            webhooks.environment["WEBHOOKS_SCHEMA_REGISTRY_URL"] = company.connection.registry_url
            webhooks.start()
            try:
                yield company, portal_url, webhooks
            finally:
                webhooks.kill()


@pytest.fixture
def company(bridge: tuple[Company, str, WebhooksProcess]) -> Company:
    return bridge[0]


@pytest.fixture
def user() -> str:
    """A person of whom nothing is known yet."""
    return f"user-{uuid.uuid4().hex[:8]}"


def open_live(open_page: OpenPage, company: Company, user: str) -> Page:
    page = open_page(company.page_of(user))
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


def test_a_restart_of_the_service_misses_nothing(company: Company, open_page: OpenPage, user: str) -> None:
    page = open_live(open_page, company, user)
    before = company.create("重启之前", user)
    shown(page, before.title)
    company.restart_center()
    expect(page.locator(".live")).not_to_have_attribute("data-state", "live", timeout=SOON_MS)
    during = company.create("重启之中", user)
    company.complete(before, user)
    shown(page, during.title)
    counted(page, 1, 1)
    expect(page.locator(".live")).to_have_attribute("data-state", "live", timeout=SOON_MS)
    after = company.create("重启之后", user)
    shown(page, after.title, during.title)
    assert page.evaluate("globalThis.notReloaded") is True


def test_a_portal_of_another_origin_is_live(
    bridge: tuple[Company, str, WebhooksProcess], open_page: OpenPage, user: str
) -> None:
    company, portal_url, _ = bridge
    page = open_page(portal_url)
    put(page, {"corp-id": CORP, "user-id": user})
    expect(page.locator("body")).to_have_attribute("data-live", "live", timeout=SOON_MS)
    task = company.create("门户里的申请", user)
    shown(page, task.title)


def test_an_operator_finds_an_endpoint_that_fails_and_delivers_again_once_it_works(
    bridge: tuple[Company, str, WebhooksProcess], open_page: OpenPage, user: str
) -> None:
    company, _, webhooks = bridge
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
        page = open_page(f"{company.bridge.center_url}/ops", locale="en-GB")
        row, said = page.locator(".webhooks > .records tbody tr"), page.locator(".webhooks-said")
        test = page.get_by_role("button", name="Send a test to robot")
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
        page.get_by_role("button", name="Deliver again what was given up for robot").click()
        expect(said).to_have_text("robot: 1 to be delivered again")
        expect(given_up).to_have_text("0")
        expect(row).to_contain_text("enabled", timeout=SOON_MS)
        expect(page.locator(".webhooks .find-part")).to_have_count(0, timeout=SOON_MS)
        assert got == ["Test of taskbridge webhooks", task.title]
        assert token not in page.content()
    assert token not in webhooks.log_path.read_text()
