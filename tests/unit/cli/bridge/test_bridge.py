"""What the bridge asks of its services: whether they are ready, and of the edge, whether only a restart helps."""

from __future__ import annotations

import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from taskbridge.cli.bridge.bridge import Bridge, BridgeOptions
from taskbridge.cli.bridge.probes import answers_ready, broken_spool
from taskbridge.edge.delivery.publisher import SPOOL_IS_BROKEN
from taskbridge.runtime.http.identity import RUN_VARIABLE, identity

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path


@contextmanager
def answering(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Generator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the overridden signature

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_broken_spool_is_a_problem_with_its_cause() -> None:
    said = {"ready": False, "spool": f"{SPOOL_IS_BROKEN}: disk I/O error"}
    with answering(503, json.dumps(said).encode()) as url:
        assert broken_spool(url)() == "its spool is broken: disk I/O error"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"ready": true, "spool": "ok"}'),
        (503, b'{"ready": false, "spool": "full: no room"}'),
        (503, b'{"ready": false}'),
        (503, b"[]"),
        (502, b"<html>"),
    ],
)
def test_anything_else_is_none(status: int, body: bytes) -> None:
    with answering(status, body) as url:
        assert broken_spool(url)() is None


def test_an_edge_that_does_not_answer_has_no_broken_spool() -> None:
    assert broken_spool("http://127.0.0.1:9")() is None


def test_only_the_service_that_was_started_is_ready() -> None:
    ours = identity("streams", {RUN_VARIABLE: "1f"})
    for headers, ready in (
        (ours, True),
        (identity("edge", {RUN_VARIABLE: "1f"}), False),
        (identity("streams", {RUN_VARIABLE: "of another"}), False),
        (identity("streams", {}), False),
        ({}, False),
    ):
        with answering(200, b"{}", headers) as url:
            assert answers_ready(url, ours)() is ready, headers
    with answering(503, b"{}", ours) as url:
        assert not answers_ready(url, ours)()
    assert not answers_ready("http://127.0.0.1:9", ours)()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:2"),
        ({"EDGE_OPERATOR_PORT": "9100"}, "http://127.0.0.1:9100"),
        ({"EDGE_OPERATOR_PORT": "9100", "EDGE_OPERATOR_HOST": "0.0.0.0"}, "http://127.0.0.1:9100"),  # noqa: S104
        ({"EDGE_OPERATOR_PORT": "9100", "EDGE_OPERATOR_HOST": "10.0.0.5"}, "http://10.0.0.5:9100"),
    ],
)
def test_the_details_are_asked_for_where_the_edge_tells_them(tmp_path: Path, given: dict[str, str], url: str) -> None:
    options = BridgeOptions(data_dir=tmp_path, edge_port=2, streams_port=3, kafka_port=4, registry_port=5)
    assert Bridge(options, progress=lambda _: None, environment=given).operator_url == url


def test_asking_again_and_again_prepares_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b'{"ready": true, "spool": "ok"}') as url:
        ready, broken = answers_ready(url, {}), broken_spool(url)
        monkeypatch.setattr(ssl, "SSLContext", None)  # what it costs to make one is what up used to take at rest
        assert [ready(), ready()] == [True, True]
        assert [broken(), broken()] == [None, None]
