"""The task center on the real bridge: a callback that Yida posts is on the screen, and nothing is missed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from playwright.sync_api import expect

from support.browser.browsing import portal, put
from support.served_apps import serving
from support.webhooks_process import WebhooksProcess
from taskbridge.cli.callbacks import post_callback
from taskbridge.cli.connection import Connection
from taskbridge.local.bridge import Bridge, BridgeOptions
from taskbridge.local.company import CORP, vendor_sample
from taskbridge.local.demo import APP, write_credentials
from taskbridge.local.host import free_ports
from taskbridge.local.jvm import registry_url
from taskbridge.runtime import standard_webhooks

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


# Without the addresses that may point at another Kafka, and without tokens: the page is opened anonymously.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TASKBRIDGE_KAFKA", "STREAMS_", "EDGE_", "CENTER_"))
}
SOON_MS = 60_000
SECRET = standard_webhooks.new_secret()


@dataclass(frozen=True)
class Task:
    title: str
    instance_id: str
    task_id: str


class Company:
    """A running bridge, and Yida, which posts to it."""

    def __init__(self, bridge: Bridge, token: str, portal_url: str, webhooks: WebhooksProcess) -> None:
        self.bridge, self.portal_url, self.webhooks = bridge, portal_url, webhooks
        self._token = token

    def page_of(self, user: str) -> str:
        return f"{self.bridge.center_url}/?corp_id={CORP}&user_id={user}"

    def create(self, title: str, assignee: str, **more: Any) -> Task:
        task = Task(title, str(uuid.uuid4()), f"TASK-{uuid.uuid4().hex[:8].upper()}")
        body = {
            **vendor_sample(),
            "appType": APP,
            "formInstanceId": task.instance_id,
            "title": title,
            "taskId": task.task_id,
            "actionerId": assignee,
            "url": f"https://yida.example/processDetail?procInsId={task.instance_id}",
            **more,
        }
        self._post("create", {"task": json.dumps(body, ensure_ascii=False)})
        return task

    def complete(self, task: Task, actor: str) -> None:
        self._post("complete", {**self._ids(task), "taskId": task.task_id, "actualWorkId": actor})

    def delete(self, task: Task) -> None:
        self._post("delete", self._ids(task))

    def push(self, system: str, body: dict[str, Any]) -> None:
        """As the other system does that is known by this name: in its own format, signed."""
        content, moment, message_id = json.dumps(body).encode(), str(int(time.time())), f"msg_{uuid.uuid4().hex}"
        proof = {
            standard_webhooks.ID: message_id,
            standard_webhooks.TIMESTAMP: moment,
            standard_webhooks.SIGNATURE: standard_webhooks.sign(message_id, moment, content, secret=SECRET),
        }
        headers = {"Content-Type": "application/json", **proof}
        address = f"{self.bridge.edge_url}/sources/{system}/tasks"
        answer = httpx2.post(address, content=content, headers=headers, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text

    def restart_center(self) -> None:
        """As when the kernel kills it; the supervisor starts it again."""
        pid = self.bridge.pid("center")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def _ids(self, task: Task) -> dict[str, str]:
        return {"appType": APP, "corpId": CORP, "formInstId": task.instance_id}

    def _post(self, action: str, parameters: dict[str, str]) -> None:
        answer = post_callback(self.bridge.edge_url, action, parameters, system_token=self._token, encoding="form")
        assert answer.accepted, answer


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Generator[Company]:
    data_dir = tmp_path_factory.mktemp("bridge")
    edge, center, streams, kafka, registry = free_ports(5)
    credentials = data_dir / "credentials.toml"
    token = write_credentials(credentials)
    with credentials.open("a") as file:
        for system in ("flowable", "todo"):
            file.write(
                f'\n[[sources]]\nname = "{system}"\nformat = "{system}"\ncorp_id = "{CORP}"\nsecrets = ["{SECRET}"]\n'
            )
    options = BridgeOptions(
        data_dir=data_dir,
        edge_port=edge,
        center_port=center,
        streams_port=streams,
        kafka_port=kafka,
        registry_port=registry,
        credentials=credentials,
    )
    with portal(lambda: f"http://127.0.0.1:{center}") as portal_url:
        later = Connection(f"127.0.0.1:{kafka}", registry_url("127.0.0.1", registry), {})
        webhooks = WebhooksProcess(data_dir, later, {}, TEST_RETRIES="2")
        environment = {**ENVIRONMENT, "CENTER_ALLOWED_ORIGINS": portal_url, "CENTER_WEBHOOKS_URLS": webhooks.url}
        bridge = Bridge(options, progress=lambda _: None, environment=environment)
        connection: Connection | None = None
        try:
            connection = bridge.start()
            webhooks.start()
            yield Company(bridge, token, portal_url, webhooks)
        finally:
            webhooks.kill()
            bridge.stop()
            if connection is not None:
                connection.close()


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


def test_a_portal_of_another_origin_is_live(company: Company, open_page: OpenPage, user: str) -> None:
    page = open_page(company.portal_url)
    put(page, {"corp-id": CORP, "user-id": user})
    expect(page.locator("body")).to_have_attribute("data-live", "live", timeout=SOON_MS)
    task = company.create("门户里的申请", user)
    shown(page, task.title)


def test_an_operator_finds_an_endpoint_that_fails_and_delivers_again_once_it_works(
    company: Company, open_page: OpenPage, user: str
) -> None:
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
        company.webhooks.file.write_text(f'[[endpoints]]\nname = "robot"\ncorps = ["{CORP}"]\n{lines}\n')
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
    assert token not in company.webhooks.log_path.read_text()
