"""A real Chromium, and an eye on everything that it complains about."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage

OpenPage = Callable[..., Page]
"""Opens an address, in a profile with these options."""

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_TELL_VIOLATIONS = """
globalThis.addEventListener('securitypolicyviolation', (event) =>
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@contextmanager
def chromium() -> Generator[Browser]:
    """Debian's Chromium, without a window: where it is there, the build that has none and takes half the CPU time."""
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert path is not None, "there is no Chromium: apt-get install chromium-headless-shell"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page whose complaints are kept: errors of scripts, of the console, of the content security policy."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    allowed: tuple[str, ...] = ("Failed to load resource", "net::ERR_", "blocked by CORS policy")
    """Chromium's own words on answers that a test asked for: a 401, a broken connection."""

    def __post_init__(self) -> None:
        self.page.add_init_script(_TELL_VIOLATIONS)
        self.page.on("pageerror", lambda error: self.complaints.append(f"pageerror: {error}"))
        self.page.on("console", self._on_console)
        self.page.set_default_timeout(20_000)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(word in message.text for word in self.allowed):
            self.complaints.append(f"{message.type}: {message.text}")


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A fresh browser profile: Chinese, on a desk, unless told otherwise."""
    given: dict[str, Any] = {
        "locale": "zh-CN",
        "timezone_id": "Asia/Shanghai",
        "viewport": {"width": 1360, "height": 860},
        **options,
    }
    return browser.new_context(**given)


def serious_findings(page: Page) -> list[str]:
    """What axe finds serious or critical on the page as it is now."""
    # Through the debugger: the page's policy would let in neither a script tag nor an eval.
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": Axe().axe_script})
    axe = {"expression": "axe.run(document, {resultTypes: ['violations']})"}
    answer = cast("Any", session.send("Runtime.evaluate", {**axe, "awaitPromise": True, "returnByValue": True}))
    session.detach()
    return [
        f"{found['id']} ({found['impact']}): {node['html'][:160]} {node['failureSummary'][:200]}"
        for found in answer["result"]["value"]["violations"]
        if found["impact"] in {"serious", "critical"}
        for node in found["nodes"]
    ]
