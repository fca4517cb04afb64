"""The auditors' page and the decisions of a request at a real task center, with texts that would rather be scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from sqlalchemy import insert

from support.browser.browsing import serious_findings
from support.center_process import without_kafka
from support.center_rows import state
from taskbridge.center.access.audit import (
    ALLOWED,
    ASSISTANT_READ,
    CONFIRMED,
    DECIDED,
    DELETED,
    DISCARDED,
    ERASED,
    EXPORTED,
    FILE_OPENED,
    PROPOSED,
    READ,
    REFUSED,
    SESSIONS_ENDED,
    SIGNED_IN,
    SIGNED_OUT,
    append,
)
from taskbridge.center.access.delegations import ACTED_FOR, DELEGATED, UNDELEGATED
from taskbridge.center.actions.store import ENDED, FAILED, HANDED_TO, SENT, Action
from taskbridge.center.actions.targets import ACTIONS, OF_NO_TASK, REASSIGN
from taskbridge.center.erasure import Erasure
from taskbridge.center.tables import actions
from taskbridge.runtime.database import now_ms
from taskbridge.schemas.events import Person, PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Page

    from support.browser.browsing import OpenPage
    from support.center_process import CenterProcess
    from support.center_rows import AnsweringCenter

CORP = "ding1"
HOSTILE = '<img src=x onerror="globalThis.ran=1"><script>globalThis.ran=1</script>\'${globalThis.ran=1}'
MINUTE_MS = 60_000
BEGAN = 1_780_000_000_000


def write(center: AnsweringCenter) -> None:
    center.know(CORP, PersonRecord("bob", HOSTILE))
    center.know(CORP, PersonRecord("ann", "安然"))
    tasks = (
        TaskEntry("T-2", Status.COMPLETED, ("ann",), "ann", decided_at=BEGAN + 2 * MINUTE_MS, outcome=HOSTILE),
        TaskEntry(
            "T-1", Status.COMPLETED, ("bob",), "bob", decided_at=BEGAN + MINUTE_MS, outcome="agree", remark=HOSTILE
        ),
        TaskEntry("T-3", Status.PENDING, ("ann",)),
    )
    ended = tuple(each for each in tasks if each.status is Status.COMPLETED)
    texts = {"title": HOSTILE, "process_name": HOSTILE, "originator": Person("eve", HOSTILE), "began_at": BEGAN}
    center.store(
        state("I-1", corp_id=CORP, tasks=tasks, **texts),
        state("I-2", corp_id=CORP, tasks=ended, finished_at=BEGAN + 3 * MINUTE_MS, result="disagree", **texts),
    )
    with center.database.write() as connection:
        for who, action, about, address in (
            ((CORP, "ann"), "signed_in", "", "192.0.2.1"),
            ((CORP, "gone"), "read", HOSTILE, HOSTILE),
            *[((CORP, "bob"), "read", (CORP, "ann"), "192.0.2.2")] * 120,
            (HOSTILE, HOSTILE, HOSTILE, ""),
        ):
            append(connection, center.database, who, action, about, address=address)
    Erasure(center.database).erase((CORP, "gone"))


ACTION_ID = "0f" * 16
AUDITED = {
    *(SIGNED_IN, SIGNED_OUT, SESSIONS_ENDED, READ, EXPORTED, FILE_OPENED, DELETED, ERASED),
    *ACTIONS,
    *OF_NO_TASK,
    *(SENT, ENDED, DELEGATED, UNDELEGATED, ACTED_FOR, HANDED_TO, REASSIGN, "webhooks_test", "webhooks_replay"),
    *(ASSISTANT_READ, PROPOSED, CONFIRMED, DISCARDED, DECIDED, REFUSED, ALLOWED),
}


def write_action(center: AnsweringCenter) -> None:
    """One click, and the six entries of it, among others."""
    center.know(CORP, PersonRecord("ann", "安然"))
    center.store(state("I-1", corp_id=CORP, tasks=(TaskEntry("T-1", Status.PENDING, ("ann",)),), title="请假 3 天"))
    keys = ACTION_ID, CORP, "ann", "ann", "I-1", "T-1", "yida", "APP", "agree"
    action = Action(*keys, "", "", FAILED, "", 4, now_ms(), None)
    with center.database.write() as connection:
        connection.execute(insert(actions).values(action._asdict()))
        for what, subject in (
            ("agree", f"I-1 T-1 {ACTION_ID}"),
            *[(SENT, f"{ACTION_ID} SENDING")] * 4,
            (READ, "I-1"),
            (ENDED, f"{ACTION_ID} {FAILED}"),
            (READ, "waiting ding1 APP"),
        ):
            append(connection, center.database, (CORP, "ann"), what, subject, address="192.0.2.1")


def test_an_action_is_one_row_with_the_title_its_attempts_and_its_end(tmp_path: Path, open_page: OpenPage) -> None:
    with without_kafka(tmp_path, write_action) as center:
        page = open_page(f"{center.url}/audit")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.nth(0)).to_contain_text("安然 ann查看他人的任务待办概览：ding1 APP192.0.2.18")
        expect(rows.nth(1)).to_contain_text("安然 ann查看他人的任务请假 3 天192.0.2.16")
        expect(rows.nth(2)).to_contain_text("安然 ann同意 发送 4 次 · 未执行请假 3 天192.0.2.11 … 7")
        expect(page.get_by_role("status")).to_have_text("共 8 条")
        assert ACTION_ID not in page.locator("#page").inner_text()
        offered = page.get_by_label("操作").locator("option").evaluate_all("all => all.map((each) => each.value)")
        assert set(offered) == {"", *AUDITED}
        page.get_by_label("操作").select_option("同意")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("同意 未执行请假 3 天")
        page.get_by_role("button", name="English").click()
        expect(rows).to_contain_text("Agree not carried out请假 3 天")
        page.get_by_label("Action").select_option("Sent an action")
        expect(rows).to_contain_text("Agree sent 4 times · not carried out请假 3 天")
        assert serious_findings(page) == []


def is_only_text(page: Page) -> bool:
    is_markup = page.locator("#page img, #page script").count() > 0
    return not is_markup and page.evaluate("globalThis.ran === undefined")


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Generator[CenterProcess]:
    with without_kafka(tmp_path_factory.mktemp("center"), write) as process:
        yield process


def test_hostile_texts_of_a_request_and_its_decisions_stay_text(center: CenterProcess, open_page: OpenPage) -> None:
    page = open_page(f"{center.url}/?corp_id={CORP}&user_id=ann#handled")
    expect(page.locator(".row-title")).to_have_text([HOSTILE, HOSTILE])
    assert is_only_text(page)
    page.goto(f"{center.url}/?corp_id={CORP}&user_id=ann#handled/I-2")
    detail = page.locator(".detail")
    expect(detail.locator("h2")).to_have_text(HOSTILE)
    expect(detail.locator(".decisions .decision-by")).to_have_text([HOSTILE, "我"])
    expect(detail.locator(".decisions .status")).to_have_text(["已同意", HOSTILE])
    expect(detail.locator(".decisions p")).to_have_text([HOSTILE])
    expect(detail.locator(".decisions time").first).to_have_attribute("datetime", "2026-05-28T20:27:40.000Z")
    expect(detail.locator(".facts").first).to_contain_text("结果已拒绝2026年5月29日")
    assert is_only_text(page)
    assert serious_findings(page) == []
    # Nobody says that this one has ended.
    page.goto(f"{center.url}/?corp_id={CORP}&user_id=ann#pending/I-1")
    expect(detail.locator(".decisions li")).to_have_count(3)
    expect(detail.locator(".facts").first).not_to_contain_text("结果")


def test_the_audit_trail_is_read_filtered_and_downloaded(center: CenterProcess, open_page: OpenPage) -> None:
    page = open_page(f"{center.url}/audit")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(100)
    expect(rows.nth(0)).to_contain_text("删除个人数据已删除的人员 person-")
    expect(rows.nth(0)).to_contain_text("本机")
    expect(rows.nth(1)).to_contain_text(f"令牌 {HOSTILE}{HOSTILE}{HOSTILE}")
    expect(rows.nth(2)).to_contain_text(f"{HOSTILE} bob查看他人的任务安然 {CORP}/ann192.0.2.2122")
    page.get_by_role("button", name="加载更早的条目").click()
    expect(rows).to_have_count(124)
    expect(page.get_by_role("status")).to_have_text("共 124 条")
    expect(rows.nth(122)).to_contain_text("已删除的人员 person-")
    assert is_only_text(page)
    assert serious_findings(page) == []

    # By a person in the list, an action, a day; each is in the address, and in that of the file.
    rows.last.get_by_role("button", name="安然").click()
    expect(rows).to_have_count(100)
    page.get_by_label("操作").select_option("登录")
    expect(rows).to_have_count(1)
    page.get_by_label("日期").fill("2020-01-01")
    expect(page.locator(".nothing-heading")).to_have_text("没有符合条件的条目")
    expect(page).to_have_url(f"{center.url}/audit?person=ding1%2Fann&action=signed_in&day=2020-01-01")
    file = page.get_by_role("link", name="下载 CSV").get_attribute("href")
    assert file is not None
    assert "since=2019-12-31T16%3A00%3A00.000Z&until=2020-01-01T16%3A00%3A00.000Z" in file
    assert page.request.get(f"{center.url}{file}").text().count("\n") == 1
    page.get_by_role("button", name="清除").click()
    expect(rows).to_have_count(100)
    expect(page).to_have_url(f"{center.url}/audit")


def test_the_audit_trail_and_decisions_on_a_phone_in_english(center: CenterProcess, open_page: OpenPage) -> None:
    options = {"viewport": {"width": 390, "height": 780}, "color_scheme": "dark", "locale": "en-US"}
    phone = open_page(f"{center.url}/audit?action=signed_in", **options)
    rows = phone.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(phone.locator("td[data-heading=Who]")).to_have_text("安然 ann")
    assert serious_findings(phone) == []
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    phone.get_by_role("searchbox").fill("ann")
    phone.keyboard.press("Enter")
    assert phone.get_by_role("searchbox").evaluate("field => field.validity.patternMismatch")
    phone.get_by_role("searchbox").fill("ding1/nobody")
    phone.keyboard.press("Enter")
    expect(phone.locator(".nothing-heading")).to_have_text("No entry matches")
    assert serious_findings(phone) == []
    phone.goto(f"{center.url}/?corp_id={CORP}&user_id=ann#handled/I-2")
    expect(phone.locator(".decisions")).to_be_visible()
    assert phone.evaluate("document.querySelector('.detail-body').scrollWidth") == 390
