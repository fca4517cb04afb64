"""The list in a portal of another origin, with a policy of its own."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from fake_people import CORP, ME
from fake_task_center import TOKEN, FakeTaskCenter, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from playwright.sync_api import Page

    from browsing import OpenPage

Embedded = tuple[FakeTaskCenter, str]


@contextmanager
def portal(fake_url: Callable[[], str], *, component: bool = True) -> Generator[str]:
    """Somebody else's page. Its styles are loud; its policy allows our service for scripts and requests, no more."""

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
            <script nonce="x">window.giveToken = async () => "{TOKEN}"; window.told = [];
            for (const name of ["select", "counts", "live", "error"])
              addEventListener(`taskbridge-${{name}}`, (event) => {{
                told.push([name, event.detail]);
                if (name === "select") event.preventDefault();
              }});
            </script>
            {f'<script type="module" src="{fake_url()}/assets/taskbridge-tasks.js"></script>' if component else ""}
            <main><h1>门户</h1></main></html>"""
            self.wfile.write(page.encode())

        def log_message(self, *args: object, **named: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(name="embedded")
def embedded_fixture() -> Generator[tuple[FakeTaskCenter, str]]:
    """A fake that lets a portal in, and the portal's address."""
    fake = FakeTaskCenter()
    fake.fill()
    with portal(lambda: fake.url) as url:
        fake.allowed_origins = url
        with serving(fake):
            yield fake, url


def put(page: Page, attributes: dict[str, str]) -> None:
    page.evaluate(
        """(attributes) => {
          const made = document.createElement("taskbridge-tasks");
          for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
          document.querySelector("main").append(made);
        }""",
        attributes,
    )


PERSON = {"corp-id": CORP, "user-id": ME}


def test_it_is_live_in_a_portal_of_another_origin_and_keeps_its_looks(embedded: Embedded, open_page: OpenPage) -> None:
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
    assert {name for name, _ in page.evaluate("told")} == {"counts", "live"}


def test_a_choice_is_told_and_a_portal_may_take_it_over(embedded: Embedded, open_page: OpenPage) -> None:
    fake, url = embedded
    page = open_page(url)
    put(page, {**PERSON, "view": "created", "lang": "en"})
    expect(page.get_by_role("tab", name="Created")).to_have_attribute("aria-selected", "true")
    page.locator(".row").first.click()
    told = [detail for name, detail in page.evaluate("told") if name == "select"]
    assert [detail["item"]["instance_id"] for detail in told] == [fake.items[ME, "created"][0]["instance_id"]]
    assert len(page.context.pages) == 1


def test_only_the_views_that_were_asked_for_are_there_and_attributes_may_change(
    embedded: Embedded, open_page: OpenPage
) -> None:
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
    assert "error" in {name for name, _ in page.evaluate("told")}


def test_an_origin_that_is_not_allowed_reads_nothing(open_page: OpenPage) -> None:
    fake = FakeTaskCenter()
    fake.fill()
    with serving(fake), portal(lambda: fake.url, component=False) as url:
        page = open_page(url)
        answer = page.evaluate(
            "(url) => fetch(url).then(() => 'read', () => 'refused')", f"{fake.url}/v1/corps/{CORP}/users/{ME}/counts"
        )
        assert answer == "refused"
