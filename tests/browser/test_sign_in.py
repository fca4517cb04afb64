"""People sign in at a certified provider, in a real browser, and out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.center_process import without_kafka
from support.center_rows import state
from support.edge.process import wait_until
from support.identity_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    DingTalkSignIn,
    certified_provider,
    enter,
    oidc_settings,
)
from taskbridge.local.host import free_port
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.center_process import CenterProcess
    from support.center_rows import AnsweringCenter

CORP = "ding1"


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Generator[CenterProcess]:
    """One whose people sign in at a certified provider."""
    folder, port = tmp_path_factory.mktemp("oidc"), free_port()
    environment = oidc_settings(port, folder / "secret", CORP)
    environment |= {"CENTER_OPERATOR_GROUPS": "operators", "CENTER_AUDITOR_GROUPS": "operators"}
    with without_kafka(folder, _write, **environment) as process, certified_provider(port, process.url):
        yield process


def _write(center: AnsweringCenter) -> None:
    for user, name in (("ann", "安然"), ("bob", "王伟"), ("olga", "Olga")):
        center.know(CORP, PersonRecord(user, name))
        tasks = (TaskEntry("T-1", Status.PENDING, (user,)),)
        center.store(state(f"I-{user}", corp_id=CORP, title=f"{name}的申请", tasks=tasks))


def rows(page: Page, *titles: str) -> None:
    expect(page.locator(".row-title")).to_have_text(list(titles))


def test_an_employee_signs_in_sees_their_tasks_and_signs_out_on_all_devices(
    center: CenterProcess, open_page: OpenPage
) -> None:
    page = open_page(f"{center.url}/#pending/I-ann")
    link = page.get_by_role("link", name="登录")
    expect(link).to_be_focused()
    assert serious_findings(page) == []
    link.click()
    enter(page, "ann")
    rows(page, "安然的申请")
    expect(page).to_have_url(f"{center.url}/#pending/I-ann")
    expect(page.locator(".detail h2")).to_have_text("安然的申请")
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    assert page.evaluate("document.cookie") == ""
    expect(page.locator(".who")).to_have_text("安然")
    assert page.request.get(f"{center.url}/v1/corps/{CORP}/users/bob/counts").status == 403

    phone = open_page(center.url, viewport={"width": 390, "height": 780}, color_scheme="dark", locale="en-US")
    assert serious_findings(phone) == []
    phone.get_by_role("link", name="Sign in").click()
    enter(phone, "ann")
    rows(phone, "安然的申请")
    phone.locator(".who").click()
    expect(phone.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
    assert serious_findings(phone) == []
    phone.get_by_role("button", name="Sign out on all devices").click()
    # The provider asks whether to end its own session too.
    phone.locator("button[name=logout]").click()
    expect(phone.get_by_role("link", name="Sign in")).to_be_visible()

    # The desk's open stream ends, and its page offers to sign in.
    expect(page.get_by_role("link", name="登录")).to_be_visible()


def test_the_last_lists_are_there_offline_for_the_person_who_is_signed_in_only(
    center: CenterProcess, open_page: OpenPage
) -> None:
    page = open_page(center.url, service_workers="allow")
    stored = """async () => (await Promise.all((await caches.keys()).map(async (name) =>
        (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname)))).flat()"""

    def lists() -> list[str]:
        """Of whom there are lists in the browser: one name for each."""
        return [each.split("/")[5] for each in page.evaluate(stored) if each.endswith("/tasks")]

    def has_lists(expected: list[str]) -> None:
        for _ in range(1200):
            if lists() == expected:
                break
            page.wait_for_timeout(50)
        assert lists() == expected

    def leave() -> None:
        page.locator(".who").click()
        page.get_by_role("button", name="退出登录", exact=True).click()
        page.locator("button[name=logout]").click()
        expect(page.get_by_role("link", name="登录")).to_be_visible()

    for user, title in (("ann", "安然的申请"), ("bob", "王伟的申请")):
        page.get_by_role("link", name="登录").click()
        enter(page, user)
        rows(page, title)
        expect(page.locator(".live")).to_have_attribute("data-state", "live")
        # The service worker answers for the page once it has all files of it.
        has_lists(4 * [user])
        page.context.set_offline(True)
        page.reload()
        rows(page, title)
        expect(page.locator(".as-of")).to_contain_text("离线，数据截至")
        assert serious_findings(page) == []
        page.get_by_role("tab", name="我已处理").click()
        expect(page.locator(".list-state .nothing-heading")).to_have_text("还没有处理过任务")
        expect(page.locator(".as-of")).to_be_visible()
        page.get_by_role("searchbox").fill(title)
        expect(page.locator(".list-state [role=alert]")).to_be_visible()
        page.context.set_offline(False)
        page.get_by_role("searchbox").fill("")
        page.get_by_role("tab", name="待我处理").click()
        expect(page.locator(".as-of")).to_be_hidden()
        leave()
        has_lists([])
    # Nobody is signed in: there is nothing to show.
    page.context.set_offline(True)
    page.reload()
    expect(page.get_by_role("alert")).to_be_visible()


@pytest.mark.parametrize("leaves", ["signs out", "signs out of a page without its worker", "somebody else signs in"])
def test_the_next_person_at_a_device_sees_nothing_of_the_last_one_offline(
    center: CenterProcess, open_page: OpenPage, leaves: str
) -> None:
    page = open_page(center.url, service_workers="allow")
    page.get_by_role("link", name="登录").click()
    enter(page, "ann")
    stored = """async () => (await (await caches.open("taskbridge-lists")).keys()).length"""
    lists = stored.replace(".length", '.filter(({ url }) => url.includes("/tasks?")).length')
    rows(page, "安然的申请")
    wait_until(lambda: page.evaluate(lists) == 4)
    if leaves == "somebody else signs in":
        # The session has ended without a word. The service is away before it says who it is now.
        page.goto("about:blank")
        page.context.clear_cookies()
        page.goto(f"{center.url}/sign-in?return_to=/")
        expect(page.locator("input[name=login]")).to_be_visible()
    else:
        if leaves == "signs out of a page without its worker":
            with page.expect_navigation():
                page.context.new_cdp_session(page).send("Page.reload", {"ignoreCache": True})
            rows(page, "安然的申请")
            assert page.evaluate("navigator.serviceWorker.controller") is None
        page.locator(".who").click()
        page.get_by_role("button", name="退出登录", exact=True).click()
        # They leave before the provider leads back.
        expect(page.locator("button[name=logout]")).to_be_visible()
    page.context.set_offline(True)
    page.goto(center.url)
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate(stored) == 0


def test_inside_dingtalk_people_are_signed_in_without_a_word(tmp_path: Path, open_page: OpenPage) -> None:
    """The vendor's library is a fake: the real one answers inside DingTalk only."""
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    with DingTalkSignIn(corp_id=CORP, owner=CORP).running() as dingtalk:
        environment = {
            "CENTER_DINGTALK_CLIENT_ID": CLIENT_ID,
            "CENTER_DINGTALK_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
            "CENTER_CORP_ID": CORP,
            "CENTER_DINGTALK_API_URL": dingtalk.url,
        }
        library = (
            f"globalThis.dd = {{ requestAuthCode: ({{ success }}) => success({{ code: '{dingtalk.new_code()}' }}) }}"
        )
        with without_kafka(tmp_path, _write, **environment) as center:
            page = open_page("about:blank", user_agent="Mozilla/5.0 DingTalk(7.6.0)")
            page.route(
                "https://g.alicdn.com/**", lambda route: route.fulfill(body=library, content_type="text/javascript")
            )
            page.goto(center.url)
            rows(page, "安然的申请")
            assert dingtalk.codes == set()
            # Where the library cannot be loaded, DingTalk's sign-in page is opened, here at once.
            page.unroute_all()
            page.route("https://g.alicdn.com/**", lambda route: route.abort())
            page.context.clear_cookies()
            page.goto(center.url)
            rows(page, "安然的申请")


def test_an_operator_by_group_opens_the_operators_page_and_anybodys_list(
    center: CenterProcess, open_page: OpenPage
) -> None:
    page = open_page(f"{center.url}/ops")
    page.get_by_role("link", name="登录").click()
    enter(page, "olga")
    expect(page.locator(".panels")).to_be_visible()
    expect(page).to_have_url(f"{center.url}/ops")
    page.goto(center.url)
    rows(page, "Olga的申请")
    page.locator(".who").click()
    page.get_by_role("button", name="查看其他人的任务").click()
    page.locator(".people-picker input").fill("王伟")
    page.locator(".people button", has_text="王伟").click()
    rows(page, "王伟的申请")
    expect(page.locator(".who")).to_have_text("王伟")
    page.locator(".who").click()
    page.get_by_role("button", name="返回我的任务").click()
    rows(page, "Olga的申请")
    # The same group are auditors, who see that.
    page.locator(".who").click()
    page.get_by_role("button", name="审计日志").click()
    page.get_by_role("searchbox").fill("bob")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_contain_text(["Olga olga查看他人的任务王伟 ding1/bob"])
    expect(page).to_have_url(f"{center.url}/audit?person=ding1%2Fbob")


def test_somebody_whom_nobody_imported_is_told_so(center: CenterProcess, open_page: OpenPage) -> None:
    page = open_page(center.url)
    page.get_by_role("link", name="登录").click()
    enter(page, "stranger")
    expect(page.get_by_role("heading")).to_have_text("无法登录 · Not signed in")
    expect(page.locator("[lang=en]")).to_contain_text("You are signed in, but no person has your id")
    assert serious_findings(page) == []
    assert page.request.get(f"{center.url}/v1/me").status == 401
