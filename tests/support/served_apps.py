"""Both services' HTTP sides without Kafka, with the things in them that their documents have as examples."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import uvicorn

from deploy.local.ports import free_port
from edge.app import create_app
from edge.settings import EdgeSettings
from edge.testing import SYSTEM_TOKEN, MemoryPublisher, write_credentials
from query_desk import QueryDesk, notification
from schemas.events import Action
from streams.fold.lifecycle import fold
from streams.http import build_http
from streams.live.hub import Hub
from streams.live.routes import events_router
from streams.operations.room import OperationsRoom
from streams.operations.routes import operations_router
from streams.query.access import Access
from streams.query.tokens import TokensFile, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from fastapi import FastAPI

    from schemas.events import TaskEvent
    from streams.live.missed import MissedReader

TOKEN = "a-token-for-all-corps"
CORP, USER, INSTANCE = "ding5d17e3add038d445", "manager02", "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530"


def edge_app(folder: Path) -> FastAPI:
    """The edge, which asks for a bearer token too."""
    write_credentials(folder / "credentials.toml", SYSTEM_TOKEN)
    settings = EdgeSettings.model_validate(
        {
            "kafka_bootstrap_servers": "127.0.0.1:1",
            "schema_registry_url": "http://127.0.0.1:1",
            "credentials_file": folder / "credentials.toml",
            "data_dir": folder / "edge",
            "bearer_tokens": TOKEN,
        }
    )
    return create_app(settings, publisher=MemoryPublisher())


@contextmanager
def streams_app(folder: Path, make_event: Callable[..., TaskEvent], *, streams: int = 0) -> Generator[FastAPI]:
    """A worker that has all partitions, asks for a token, and holds so many event streams."""
    tokens = folder / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "all"\nsha256 = "{digest_of(TOKEN)}"\ncorps = ["*"]\n')
    access = Access(tokens=TokensFile(tokens), rate_per_s=100_000)
    desk = QueryDesk(folder / "worker", access)
    hub = Hub(next_offset=lambda _: 5, most=streams, most_of_person=1)
    room = OperationsRoom(desk.desk, own_url="http://127.0.0.1:8500", edge_urls="", streams=lambda: hub.count)
    routers = [
        *desk.routers,
        events_router(hub, lambda: cast("MissedReader", object()), desk.desk),
        operations_router(room, access),
    ]
    desk.keep(
        fold(None, make_event(Action.CREATED, corp_id=CORP, instance_id=INSTANCE, task_id="T-1", recipient_ids=(USER,)))
    )
    desk.tell([notification(corp=CORP, user=USER, instance_id=INSTANCE)])
    try:
        yield build_http(lambda: {"ready": True}, desk.metrics, routers=routers)
    finally:
        desk.close()


@contextmanager
def serving(http: FastAPI) -> Generator[str]:
    """An app on a free port of this machine, in a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(http, host="127.0.0.1", port=port, log_config=None, proxy_headers=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
