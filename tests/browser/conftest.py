"""A browser for all tests, a fake service for each, and pages that must not complain."""

from __future__ import annotations

import asyncio
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


@pytest.fixture(scope="session")
def started() -> Generator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """The browser of this process, and the event loop of Playwright, which waits in this thread."""
    with chromium() as running:
        loop = asyncio.get_running_loop()
        _run(None)
        try:
            yield running, loop
        finally:
            _run(loop)
    _run(None)


@pytest.fixture(scope="module")
def browser(started: tuple[Browser, asyncio.AbstractEventLoop]) -> Generator[Browser]:
    """The same for all modules. Between them Playwright's loop does not count as running: others may run then."""
    running, loop = started
    _run(loop)
    try:
        yield running
    finally:
        _run(None)


def _run(loop: asyncio.AbstractEventLoop | None) -> None:
    asyncio._set_running_loop(loop)


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
