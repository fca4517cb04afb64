"""A real Chromium with an eye on everything that it complains about, and a portal of another origin."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from prerequisites import NPM
from support import needs, toolchains
from support.browser.fake_task_center import TOKEN
from support.receivers import running
from taskbridge.local.host import locked

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage


DESK: dict[str, Any] = {"locale": "zh-CN", "viewport": {"width": 1360, "height": 860}}
PHONE: dict[str, Any] = {"locale": "en", "viewport": {"width": 390, "height": 780}, "color_scheme": "dark"}
"""Options of a page: with one of these each, both sizes, languages and color schemes are seen."""

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
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>{own}</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""
_REPORT_VIOLATIONS = """
globalThis.addEventListener('securitypolicyviolation', (event) =>
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@contextmanager
def chromium() -> Generator[Browser]:
    """The headless Chromium of this machine (the headless build needs half the CPU time), or npm's."""
    path, environment = needs.program("chromium"), dict[str, str]()
    if path == NPM:
        path, environment = _from_npm()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=_FLAGS, env={**os.environ, **environment}
        )
        try:
            yield browser
        finally:
            browser.close()


def _from_npm() -> tuple[str, Mapping[str, str]]:
    """A headless Chromium, and its environment: fetched and unpacked once, for all processes."""
    with locked(
        toolchains.npm_folder("chromium").with_suffix(".lock"), progress=print, waiting_for="waiting for Chromium"
    ):
        try:
            folder = toolchains.npm_installed("chromium", "--fetch-retries=1", "--fetch-retry-mintimeout=1000")
        except (subprocess.SubprocessError, OSError):
            needs.leave_out("chromium", "npm's could not be fetched, and this machine has none")
        unpacked = folder / "unpacked"
        if not unpacked.exists():
            part = Path(tempfile.mkdtemp(dir=folder))
            subprocess.run(
                [toolchains.NODE, "unpack.mjs"], cwd=folder, env={**os.environ, "TMPDIR": str(part)}, check=True
            )
            (part / "fonts.conf").write_text(_FONTS.format(own=unpacked / "fonts"), "utf-8")
            part.rename(unpacked)
    libraries = str(unpacked / "al2023" / "lib")
    return str(unpacked / "chromium"), {"LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(unpacked / "fonts.conf")}


@dataclass
class Watched:
    """A page whose complaints are recorded: errors of scripts, of the console, of the content security policy."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    allowed: tuple[str, ...] = (
        *("Failed to load resource", "net::ERR_", "blocked by CORS policy"),
        *("Service Worker registration blocked by Playwright", "cross-world service worker resource mismatch"),
    )
    """Chromium's messages about answers that a test provokes: a 401, a broken connection. Playwright's, see below. The
    last one comes on a busy machine, where a service worker takes over a page that is still loading."""

    def __post_init__(self) -> None:
        self.page.add_init_script(_REPORT_VIOLATIONS)
        self.page.on("pageerror", lambda error: self.complaints.append(f"pageerror: {error}"))
        self.page.on("console", self._on_console)
        self.page.set_default_timeout(20_000)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(word in message.text for word in self.allowed):
            self.complaints.append(f"{message.type}: {message.text}")


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A fresh browser profile: Chinese, on a desktop, unless ``options`` say otherwise."""
    given: dict[str, Any] = {
        "locale": "zh-CN",
        "timezone_id": "Asia/Shanghai",
        "viewport": {"width": 1360, "height": 860},
        # It would load all files once more, in each test.
        "service_workers": "block",
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


@contextmanager
def portal(fake_url: Callable[[], str]) -> Generator[str]:
    """A third party's page. Its styles are loud; its policy allows our service only for scripts and requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            ours = fake_url()
            policy = f"default-src 'none'; script-src {ours} 'nonce-x'; connect-src {ours}; style-src 'nonce-x'"
            self.send_header("Content-Security-Policy", f"{policy}; img-src data:")
            self.end_headers()
            page = f"""<!doctype html><html lang="zh"><title>门户</title><link rel="icon" href="data:,">
            <style nonce="x">html {{ font-size: 10px }} * {{ color: red; font-size: 40px }}</style>
            <script nonce="x">window.giveToken = async () => "{TOKEN}"; window.events = [];
            for (const name of ["select", "counts", "live", "error"])
              addEventListener(`taskbridge-${{name}}`, (event) => {{
                events.push([name, event.detail]);
                if (name === "select") event.preventDefault();
                if (name === "live") document.body.dataset.live = event.detail.state;
              }});
            </script>
            <script type="module" src="{ours}/assets/taskbridge-tasks.js"></script>
            <main><h1>门户</h1></main></html>"""
            self.wfile.write(page.encode())

        def log_message(self, *args: object, **named: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def put(page: Page, attributes: dict[str, str]) -> None:
    page.evaluate(
        """(attributes) => {
          const made = document.createElement("taskbridge-tasks");
          for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
          document.querySelector("main").append(made);
        }""",
        attributes,
    )


def open_first_row(page: Page) -> None:
    """Open the detail of the first entry once the page is live: its list is read again then, which may undo a click."""
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    page.locator(".row").first.click()
