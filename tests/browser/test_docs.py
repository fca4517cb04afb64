"""The services' ``/docs`` on a machine without the internet: everything it shows with comes from the service itself."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from support.served_apps import edge_app, serving
from taskbridge.center.metrics import Metrics
from taskbridge.center.server import build_http

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Request

    from support.browser.browsing import OpenPage


@pytest.mark.parametrize("service", ["edge", "center"])
def test_docs_show_every_route_without_the_internet(tmp_path: Path, open_page: OpenPage, service: str) -> None:
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    with serving(edge_app(tmp_path) if service == "edge" else build_http(ready, Metrics())) as url:
        page = open_page(f"{url}/healthz")
        requested: list[str] = []

        def note(request: Request) -> None:
            requested.append(request.url)

        page.on("request", note)
        page.goto(f"{url}/docs")
        # A policy that is broken, and a script that fails, are complaints that fail the test at its end.
        page.locator("[data-path='/readyz']").click()
        expect(page.get_by_role("button", name="Try it out")).to_be_visible()
        assert {urlsplit(each).netloc for each in requested if not each.startswith("data:")} == {urlsplit(url).netloc}
