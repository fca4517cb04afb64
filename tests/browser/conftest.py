"""A browser for all tests, a fake service for each, and pages that must not complain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from support.browser.browsing import Watched, chromium, new_context
from support.browser.fake_task_center import FakeTaskCenter, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from playwright.sync_api import Browser, BrowserContext, Page

# The cores are shared: the default of five seconds is too short.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """One per module: Playwright's event loop runs in this thread, and no other loop could run meanwhile."""
    with chromium() as running:
        yield running


@pytest.fixture
def fake() -> Generator[FakeTaskCenter]:
    """A company's task center, with a person's day in it."""
    made = FakeTaskCenter()
    made.fill()
    with serving(made):
        yield made


@pytest.fixture(name="open_page")
def open_page_fixture(browser: Browser) -> Generator[Callable[..., Page]]:
    """Opens an address in a fresh profile. At the end no page may have reported an error of a script or its policy."""
    contexts: list[BrowserContext] = []
    watched: list[Watched] = []

    def open_page(url: str, **options: Any) -> Page:
        context = new_context(browser, **options)
        contexts.append(context)
        watched.append(Watched(context.new_page()))
        watched[-1].page.goto(url)
        return watched[-1].page

    yield open_page
    for context in contexts:
        context.close()
    assert [complaint for page in watched for complaint in page.complaints] == []
