"""A person confirms what an assistant proposes, with the request before their eyes; an operator refuses a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import serious_findings
from support.browser.fake_task_center import MARKUP, ME

if TYPE_CHECKING:
    from support.browser.browsing import OpenPage
    from support.browser.fake_task_center import FakeTaskCenter

DESK: dict[str, Any] = {"locale": "zh-CN", "viewport": {"width": 1360, "height": 860}}
PHONE: dict[str, Any] = {"locale": "en", "viewport": {"width": 390, "height": 780}, "color_scheme": "dark"}
LOOKS = pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
AT = "2026-01-30T08:00:00.000Z"


def proposal(fake: FakeTaskCenter, **given: Any) -> dict[str, Any]:
    instance = fake.items[ME, "pending"][0]["instance_id"]
    return {
        "proposal_id": "P-1",
        "client": MARKUP,
        "instance_id": instance,
        "task_id": "7",
        "title": MARKUP,
        "action": "agree",
        "remark": MARKUP,
        "changed": False,
        "proposed_at": AT,
        "expires_at": AT,
        "status": "OPEN",
        "action_status": None,
        "detail": None,
        **given,
    }


@LOOKS
def test_a_person_confirms_once_and_sees_what_becomes_of_it(
    fake: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]
) -> None:
    fake.mode, fake.operator = "sso", False
    fake.proposal = proposal(fake)
    changed = [{"field": "amount", "before": "200", "user_id": None, "at": AT}]
    fake.current = {"form": {"amount": MARKUP}, "changed": changed, "to_come": [], "digest": "d-1"}
    confirm, done = ("Confirm: Agree", "The decision was carried out.") if look is PHONE else ("确认同意", "已执行。")
    page = open_page(f"{fake.url}/proposals/P-1", **look)
    panel = page.locator(".panel.proposal")
    expect(panel.locator("p b")).to_have_text(MARKUP)
    expect(panel.locator(".form-values").first).to_be_visible()
    expect(panel.locator(".facts")).to_contain_text(MARKUP)
    expect(panel.locator(".form-changes ins")).to_have_text(MARKUP)
    assert serious_findings(page) == []
    assert fake.acted == []
    panel.get_by_role("button", name=confirm).click()
    expect(panel.get_by_role("status")).to_have_text(done)
    expect(panel.get_by_role("button")).to_have_count(0)
    assert fake.acted == [{"decision": "confirm", "seen_form": "d-1"}]


@pytest.mark.parametrize(
    "given", [{"changed": True}, {"status": "EXPIRED"}, {"status": "REFUSED", "detail": "changed"}]
)
def test_what_cannot_be_confirmed_has_no_button(
    fake: FakeTaskCenter, open_page: OpenPage, given: dict[str, Any]
) -> None:
    fake.mode, fake.operator = "sso", False
    fake.proposal = proposal(fake, **given)
    page = open_page(f"{fake.url}/proposals/P-1", **PHONE)
    expect(page.locator(".panel.proposal [data-bad]")).to_contain_text(
        "changed" if "EXPIRED" not in given.values() else "expired"
    )
    expect(page.locator(".panel.proposal button")).to_have_count(0)


@LOOKS
def test_an_operator_refuses_a_client(fake: FakeTaskCenter, open_page: OpenPage, look: dict[str, Any]) -> None:
    fake.mode = "sso"
    fake.assistants = [{"client": MARKUP, "people": 3, "used_at": AT, "refused": False}]
    refuse, allow = ("Refuse", "Allow again") if look is PHONE else ("禁用", "重新启用")
    page = open_page(f"{fake.url}/ops", **look)
    panel = page.locator(".panel.assistants")
    expect(panel.locator("tbody th")).to_have_text(MARKUP)
    assert serious_findings(page) == []
    panel.get_by_role("button", name=refuse).click()
    expect(panel.get_by_role("button", name=allow)).to_be_visible()
    assert fake.assistants[0]["refused"]


def test_without_assistants_there_is_no_panel(fake: FakeTaskCenter, open_page: OpenPage) -> None:
    fake.mode = "sso"
    page = open_page(f"{fake.url}/ops", **DESK)
    expect(page.locator(".panel.leavers")).to_be_visible()
    expect(page.locator(".panel.assistants")).to_be_hidden()
