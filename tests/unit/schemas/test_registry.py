"""A known id stays known, for exactly its schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.registry import Registry, RegistryUnavailable, SchemaRef, UnknownSchema
from taskbridge.schemas.registry_client import RegistryClient

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "http://127.0.0.1:9"


def test_a_restart_without_the_registry_uses_the_ids_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    known = [SchemaRef.of(topic).key for topic in topics.ALL if topic.record is not None]
    path.write_text(json.dumps({key: number for number, key in enumerate(known, 1)}))
    registry = Registry(NOBODY, ids_path=path)
    assert registry.knows(topics.ALL)
    assert registry.text_of(1)
    assert task_event_codec(registry)  # makes no request


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "b"}'])
def test_a_damaged_ids_file_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ids.json"
    path.write_text(content)
    assert not Registry(NOBODY, ids_path=path).knows(topics.ALL)


def test_the_id_of_another_schema_text_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    subject = topics.TASK_EVENTS.subject
    path.write_text(json.dumps({f"{subject}#{'0' * 64}": 7}))
    assert not Registry(NOBODY, ids_path=path).knows([topics.TASK_EVENTS])


def test_no_answer_raises_registry_unavailable() -> None:
    registry = Registry(NOBODY)
    with pytest.raises(RegistryUnavailable):
        registry.register([topics.TASK_EVENTS])
    with pytest.raises(RegistryUnavailable):
        registry.text_of(5)


@pytest.mark.parametrize(
    ("url", "checked"),
    [(NOBODY, False), ("https://127.0.0.1:9", True), (f"{NOBODY},https://127.0.0.1:9", True)],
)
def test_certificates_are_checked_wherever_there_is_tls(url: str, *, checked: bool) -> None:
    client: Any = RegistryClient(url, {})
    assert client._rest_client.verify.check_hostname is checked


class Answering:
    """An HTTP server with the same answer to every request."""

    def __init__(self, status: int, body: str, content_type: str = "application/json") -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                self.rfile.read(length)
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_PUT = do_GET  # noqa: N815 - the library's names

            def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self.url

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


NO_API = (404, '{"detail":"RESTEASY003210","status":404}')


def test_ids_that_cannot_be_stored_are_known_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be here")
    with Answering(200, '{"id": 5, "compatibility": "FULL_TRANSITIVE"}') as url:
        registry = Registry(url, ids_path=blocked / "ids.json")
        registry.register([topics.TASK_EVENTS])
        assert registry.known_id(SchemaRef.of(topics.TASK_EVENTS)) == 5
        assert registry.learn_id(SchemaRef("another", '"string"')) == 5
    assert registry.save() == "File exists"
    blocked.unlink()
    assert registry.save() is None
    assert Registry(NOBODY, ids_path=blocked / "ids.json").knows([topics.TASK_EVENTS])


@pytest.mark.parametrize("answer", [NO_API, (404, ""), (404, "<html>", "text/html"), (200, "<html>", "text/html")])
def test_a_url_without_a_registry_is_named_with_the_action(answer: tuple[int, str]) -> None:
    with Answering(*answer) as url:
        for ask in (lambda: Registry(url).register([topics.TASK_EVENTS]), lambda: Registry(url).text_of(5)):
            with pytest.raises(RegistryUnavailable, match=re.escape(url)) as caught:
                ask()
            assert "None" not in str(caught.value)
            assert "\n" not in str(caught.value)
            assert "/apis/ccompat/v7" in str(caught.value) or answer[0] == 200


@pytest.mark.parametrize("status", [401, 403, 408, 429])
def test_a_registry_that_denies_access_makes_no_schema_unknown(status: int) -> None:
    with Answering(status, '{"message": "no"}') as url, pytest.raises(RegistryUnavailable, match="no"):
        Registry(url).text_of(5)


def test_invalid_properties_are_a_configuration_error() -> None:
    for wrong in ("no.such.property", "ssl.ca.location"):
        with pytest.raises(ConfigurationError, match=r"schema\.registry"):
            Registry(NOBODY, properties={f"schema.registry.{wrong}": "/nowhere"}).text_of(5)


def test_only_the_answer_of_a_registry_makes_a_schema_unknown() -> None:
    with Answering(404, '{"error_code": 40403, "message": "Schema not found"}') as url, pytest.raises(UnknownSchema):
        Registry(url).text_of(5)


def test_the_client_is_imported_at_the_first_request() -> None:
    """The import takes a second of CPU, which would delay the restart of a service."""
    script = "import taskbridge.edge.app, sys; sys.exit('confluent_kafka.schema_registry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
