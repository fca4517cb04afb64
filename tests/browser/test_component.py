"""The list in a portal of another origin, with a policy of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from support.browser.browsing import portal, put
from support.browser.fake_task_center import CORP, ME, FakeTaskCenter, serving

if TYPE_CHECKING:
    from collections.abc import Generator

    from support.browser.browsing import OpenPage

Embedded = tuple[FakeTaskCenter, str]


@pytest.fixture(name="embedded")
def embedded_fixture() -> Generator[tuple[FakeTaskCenter, str]]:
    """A fake that lets a portal in, and the portal's address."""
    fake = FakeTaskCenter()
    fake.fill()
    with portal(lambda: fake.url) as url:
        fake.allowed_origins = url
        with serving(fake):
            yield fake, url


PERSON = {"corp-id": CORP, "user-id": ME}


def test_it_is_live_in_a_portal_of_another_origin_with_its_own_style(embedded: Embedded, open_page: OpenPage) -> None:
    fake, url = embedded
    page = open_page(url)
    put(page, PERSON)
    expect(page.locator(".row")).to_have_count(11)
    fake.add("新到的")
    expect(page.locator(".row-title").first).to_have_text("新到的")
    assert (
        page.evaluate(
            "getComputedStyle(document.querySelector('taskbridge-tasks').shadowRoot.querySelector('.row-title')).fontSize"
        )
        == "14px"
    )
    assert {name for name, _ in page.evaluate("events")} == {"counts", "live"}


def test_a_selection_fires_an_event_that_a_portal_may_handle(embedded: Embedded, open_page: OpenPage) -> None:
    fake, url = embedded
    page = open_page(url)
    put(page, {**PERSON, "view": "created", "lang": "en"})
    expect(page.get_by_role("tab", name="Created")).to_have_attribute("aria-selected", "true")
    page.locator(".row").first.click()
    selected = [detail for name, detail in page.evaluate("events") if name == "select"]
    assert [detail["item"]["instance_id"] for detail in selected] == [fake.items[ME, "created"][0]["instance_id"]]
    assert len(page.context.pages) == 1


def test_only_the_requested_views_are_shown_and_attributes_may_change(embedded: Embedded, open_page: OpenPage) -> None:
    _, url = embedded
    page = open_page(url)
    put(page, {**PERSON, "views": "pending,copied"})
    expect(page.get_by_role("tab")).to_have_count(2)
    page.evaluate("document.querySelector('taskbridge-tasks').setAttribute('view', 'copied')")
    expect(page.locator(".row")).to_have_count(3)
    page.evaluate("document.querySelector('taskbridge-tasks').setAttribute('user-id', 'nobody')")
    expect(page.locator(".nothing")).to_be_visible()


def test_a_token_comes_from_the_portal(embedded: Embedded, open_page: OpenPage) -> None:
    fake, url = embedded
    fake.mode = "token"
    page = open_page(url)
    put(page, PERSON)
    expect(page.get_by_role("alert")).to_contain_text("访问令牌无效")
    page.evaluate("document.querySelector('taskbridge-tasks').setAttribute('token-provider', 'giveToken')")
    expect(page.locator(".row")).to_have_count(11)
    assert "error" in {name for name, _ in page.evaluate("events")}


def test_all_tabs_fit_on_a_phone_with_any_size_of_a_rem(embedded: Embedded, open_page: OpenPage) -> None:
    _, url = embedded
    page = open_page(url, viewport={"width": 390, "height": 780})
    put(page, PERSON)
    expect(page.get_by_role("tab").last).to_have_text("抄送我的3")
    assert page.locator(".tabs").evaluate("tabs => tabs.scrollWidth <= tabs.clientWidth")
