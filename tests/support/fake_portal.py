"""A portal of another origin, with a policy of its own, and our list in it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from fake_task_center import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from playwright.sync_api import Page


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
                if (name === "live") document.body.dataset.live = event.detail.state;
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


def put(page: Page, attributes: dict[str, str]) -> None:
    page.evaluate(
        """(attributes) => {
          const made = document.createElement("taskbridge-tasks");
          for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
          document.querySelector("main").append(made);
        }""",
        attributes,
    )
