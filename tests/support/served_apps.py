"""Both services' HTTP sides without Kafka, with the things in them that their documents have as examples."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from support.center_rows import AnsweringCenter, fill, state
from support.edge.fakes import SOURCE_SECRET, SYSTEM_TOKEN, MemoryPublisher, write_credentials
from taskbridge.center.app import Center
from taskbridge.center.migrations import FOLDER
from taskbridge.center.settings import CenterSettings
from taskbridge.edge.app import EdgeApp, create_app
from taskbridge.edge.server.protocol import EdgeProtocol
from taskbridge.edge.settings import EdgeSettings
from taskbridge.local.host import free_port
from taskbridge.runtime.database import open_database
from taskbridge.runtime.migrations import migrate
from taskbridge.runtime.tokens import digest_of
from taskbridge.schemas.events import Status, TaskEntry
from taskbridge.schemas.topics import PEOPLE, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Generator

    from fastapi import FastAPI

_CONFIG = Path(__file__).with_name("schemathesis.toml")
TOKEN = "a-token-for-all-corps"
CORP, USER, INSTANCE = "ding5d17e3add038d445", "manager02", "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530"


def edge_app(folder: Path, *, bearer: str = TOKEN) -> FastAPI:
    """The edge, which also needs the bearer token if one is given."""
    write_credentials(folder / "credentials.toml", SYSTEM_TOKEN, secrets=(SOURCE_SECRET,))
    settings = EdgeSettings.model_validate(
        {
            "kafka_bootstrap_servers": "127.0.0.1:1",
            "schema_registry_url": "http://127.0.0.1:1",
            "credentials_file": folder / "credentials.toml",
            "data_dir": folder / "edge",
            **({"bearer_tokens": bearer} if bearer else {}),
        }
    )
    return create_app(settings, publisher=MemoryPublisher())


@contextmanager
def center_app(folder: Path, *, is_open: bool) -> Generator[FastAPI]:
    """A task center on SQLite, which needs a token unless it is open, and accepts no event streams."""
    tokens = folder / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "all"\nsha256 = "{digest_of(TOKEN)}"\ncorps = ["*"]\n')
    given: dict[str, Any] = {} if is_open else {"api_tokens_file": tokens}
    settings = CenterSettings(
        kafka_bootstrap_servers="127.0.0.1:1",
        schema_registry_url="http://127.0.0.1:1",
        data_dir=folder / "center",
        query_rate_per_s=100_000,
        mcp=True,
        **given,
    )
    database = open_database(None, settings.data_dir)
    migrate(database, FOLDER)
    center = Center(settings, database)
    center.hub.most = 0
    rows = AnsweringCenter(database, center.access)
    rows.store(state(INSTANCE, corp_id=CORP, tasks=(TaskEntry("T-1", Status.PENDING, (USER,)),)))
    for each in (TASK_STATES, PEOPLE):
        fill(database, each.name, read=1, of=1)
    asyncio.run(center.filling.look())
    try:
        yield center.http()
    finally:
        rows.close()
        database.close()


@contextmanager
def serving(http: FastAPI) -> Generator[str]:
    """An app on a free port of this machine, in a thread."""
    port = free_port()
    options: dict[str, Any] = {"http": EdgeProtocol} if isinstance(http, EdgeApp) else {}
    server = uvicorn.Server(
        uvicorn.Config(http, host="127.0.0.1", port=port, log_config=None, proxy_headers=False, **options)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def differences(url: str, folder: Path, *, token: str) -> str:
    """What schemathesis finds different between the service at ``url`` and its OpenAPI document; empty for nothing.

    It tries ``TASKBRIDGE_SCHEMATHESIS_EXAMPLES`` requests of each kind for each route.
    """
    found = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG), "run"),
            *(f"{url}/openapi.json", "--seed", "1", "--no-color"),
            *("--max-examples", os.environ.get("TASKBRIDGE_SCHEMATHESIS_EXAMPLES", "5")),
            *("--header", f"Authorization: Bearer {token}"),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    return found.stdout if found.returncode else ""
