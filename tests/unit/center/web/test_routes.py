"""The pages' files over HTTP: what is served, how long it is kept, and what the headers forbid."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskbridge.center.web.routes import let_portals_in, pages_router, read_assets
from taskbridge.runtime.problems import answer_with_problems
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@pytest.fixture
def client() -> TestClient:
    return TestClient(_http())


def _http(origins: str = "") -> ASGIApp:
    http = FastAPI()
    answer_with_problems(http)
    http.include_router(pages_router())
    return let_portals_in(http, origins)


@pytest.mark.parametrize("path", ["/", "/ops", "/audit", "/waiting", "/start"])
def test_a_page_forbids_everything_but_its_own_files(client: TestClient, path: str) -> None:
    answer = client.get(path)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == ("service-worker" if path == "/" else "'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


def test_the_page_is_an_app_whose_service_worker_may_only_query_the_service(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "worker-src 'self'" in policy
    assert "manifest-src 'self'" in policy
    worker = client.get("/service-worker.js")
    assert worker.headers["content-type"] == "text/javascript; charset=utf-8"
    assert worker.headers["cache-control"] == "no-cache"
    assert worker.headers["content-security-policy"] == "default-src 'none'; connect-src 'self'"
    manifest = client.get("/assets/manifest.webmanifest")
    assert manifest.headers["content-type"] == "application/manifest+json"
    icons = [each["src"] for each in manifest.json()["icons"]]
    assert [client.get(f"/assets/{each}").status_code for each in icons] == [200] * 4


@pytest.mark.parametrize("path", ["/", "/ops", "/audit", "/waiting", "/start"])
def test_every_file_that_a_page_names_is_there_and_kept_for_ever(client: TestClient, path: str) -> None:
    named = re.findall(r'(?:href|src)="([^"]+)"', client.get(path).text)
    assert named
    for name in named:
        answer = client.get(name)
        assert answer.status_code == 200, name
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_files_are_compressed_for_those_who_can_read_it(client: TestClient) -> None:
    part = read_assets()[0]["dom.js"]
    assert gzip.decompress(part.compressed) == part.content
    plain = client.get("/assets/dom.js", headers={"Accept-Encoding": "identity"})
    assert plain.content == part.content
    assert "content-encoding" not in plain.headers
    packed = client.get("/assets/dom.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.content == part.content


@pytest.mark.parametrize(
    "name", ["..%2froutes.py", "%2e%2e/__init__.py", "index.html", "nothing.js", "", "..%5croutes.py", "x/y/dom.js"]
)
def test_only_known_names_are_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/assets/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("origins", ["*", "https://*.example", "portal.example", "https://a.example/tasks", "null"])
def test_what_is_no_origin_stops_the_start(origins: str) -> None:
    with pytest.raises(ConfigurationError, match="CENTER_ALLOWED_ORIGINS"):
        let_portals_in(FastAPI(), origins)
