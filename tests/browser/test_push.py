"""A person turns push messages on, and what the push service gets is shown by the service worker without a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from support.browser.browsing import DESK, PHONE, serious_findings
from support.center_process import without_kafka
from support.center_rows import AnsweringCenter, state
from support.edge.process import wait_until
from support.identity_provider import certified_provider, enter, oidc_settings
from support.live import add_changes
from support.push_service import push_service
from taskbridge.center.access.access import Access
from taskbridge.center.reminders.web_push import decoded, new_key
from taskbridge.center.tables import changes
from taskbridge.local.host import free_port
from taskbridge.runtime.database import now_ms, open_database
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.browser.browsing import OpenPage
    from support.center_process import CenterProcess
    from support.push_service import PushService

CORP = "ding1"
SUBSCRIBED = """
const device = %s;
const subscription = { toJSON: () => device, unsubscribe: async () => { globalThis.subscribed = null; return true; } };
PushManager.prototype.subscribe = async ({ userVisibleOnly, applicationServerKey }) => {
  globalThis.subscribed = userVisibleOnly && [...applicationServerKey];
  return subscription;
};
PushManager.prototype.getSubscription = async () => (globalThis.subscribed ? subscription : null);
Object.defineProperty(Notification, "permission", { get: () => globalThis.granted ? "granted" : "default" });
Notification.requestPermission = async () => { globalThis.granted = true; return "granted"; };
"""
"""Without the vendor's push service, Chromium subscribes nowhere."""
SHOWN = """() => {
  self.shown = [];
  registration.showNotification = async (title, options) => void shown.push([title, options]);
}"""
LOOKS_OFTEN = """
from taskbridge.center.reminders import reminding
reminding._EVERY_S = 0.2
from taskbridge.center.app import main
main()
"""
"""The task center, with a look for reminders five times a second."""


@pytest.fixture
def service() -> Generator[PushService]:
    with push_service() as found:
        yield found


@pytest.fixture
def center(tmp_path: Path) -> Generator[CenterProcess]:
    (tmp_path / "key.pem").write_text(new_key())
    file = tmp_path / "reminders.toml"
    file.write_text(
        'language = "zh"\n[push]\nkey = "file:key.pem"\nsubject = "mailto:it@company.example"\n'
        'titles = ["ding1"]\nallowed_networks = ["127.0.0.0/8"]\n'
    )
    port = free_port()
    environment = oidc_settings(port, tmp_path / "secret", CORP) | {"CENTER_REMINDERS_FILE": str(file)}
    running = without_kafka(tmp_path, _write, code=LOOKS_OFTEN, **environment)
    with running as process, certified_provider(port, process.url):
        yield process


def _write(center: AnsweringCenter) -> None:
    center.know(CORP, PersonRecord("ann", "安然"))


def arrive(center: CenterProcess, title: str) -> None:
    """A new task, as the follower writes it."""
    database, now = open_database(None, center.data_dir), now_ms()
    rows = AnsweringCenter(database, Access(tokens=None))
    rows.store(
        state("I-new", corp_id=CORP, title=title, tasks=(TaskEntry("T-1", Status.PENDING, ("ann",), created_at=now),))
    )
    said = {"view": "pending", "change": "ADDED", "status": "PENDING", "task_id": "T-1", "instance_id": "I-new"}
    with database.write() as connection:
        add_changes(
            connection, database, "ann", corp_id=CORP, instance_id="I-new", data={**said, "entered_at": iso(now)}
        )
        connection.execute(update(changes).values(at=now))
    rows.close()
    database.close()


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
def test_a_push_message_is_shown_by_the_service_worker(
    center: CenterProcess, service: PushService, open_page: OpenPage, look: dict[str, Any]
) -> None:
    given = service.device("phone").given
    page = open_page("about:blank", service_workers="allow", **look)
    subscription = {"endpoint": given["endpoint"], "keys": {"p256dh": given["p256dh"], "auth": given["auth"]}}
    page.add_init_script(SUBSCRIBED % json.dumps(subscription))
    page.goto(center.url)
    page.locator(".sign-in a, a.primary-button").first.click()
    enter(page, "ann")
    expect(page.locator(".who")).to_have_text("安然")
    page.keyboard.press("m")
    turn_on = page.get_by_role("button", name="Notify me of new tasks" if look is PHONE else "开启新任务通知")
    expect(turn_on).to_be_visible()
    assert serious_findings(page) == []
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "push" in answer.url) as answered:
        turn_on.click()
    assert answered.value.status == 204
    key = page.request.get(f"{center.url}/v1/me/push").json()["key"]
    assert bytes(page.evaluate("subscribed")) == decoded(key)

    arrive(center, "访客 <b>")
    wait_until(lambda: len(service.received) == 1, what="the message")
    [(_, content)] = service.received
    assert content == {"title": "您有 1 项新待办", "body": "访客 <b>", "tag": "I-new T-1", "hash": "#pending/I-new"}

    [worker] = page.context.service_workers
    worker.evaluate(SHOWN)
    session = page.context.new_cdp_session(page)
    registrations: list[str] = []

    def registered(event: Any) -> None:
        registrations.extend(each["registrationId"] for each in event["registrations"])

    session.on("ServiceWorker.workerRegistrationUpdated", registered)
    session.send("ServiceWorker.enable")
    for _ in range(600):
        if registrations:
            break
        page.wait_for_timeout(50)
    for count, data in enumerate((json.dumps(content), "of a newer service"), start=1):
        message = {"origin": center.url, "registrationId": registrations[0], "data": data}
        session.send("ServiceWorker.deliverPushMessage", message)
        for _ in range(600):
            if len(worker.evaluate("shown")) == count:
                break
            page.wait_for_timeout(50)
    assert worker.evaluate("shown") == [
        [content["title"], {"body": "访客 <b>", "tag": "I-new T-1", "data": {"hash": "#pending/I-new"}}],
        ["任务中心 · Task center", {"body": "", "tag": "pending", "data": {"hash": "#pending"}}],
    ]

    page.keyboard.press("m")
    turn_off = page.get_by_role("button", name="Turn off notifications" if look is PHONE else "关闭通知")
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as answered:
        turn_off.click()
    assert answered.value.status == 204
    assert page.evaluate("subscribed") is None
