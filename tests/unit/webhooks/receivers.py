"""An HTTP receiver for tests, and one attempt at it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from taskbridge.runtime.database import now_ms
from taskbridge.runtime.guard import Guard
from taskbridge.runtime.settings import parse_network
from taskbridge.webhooks.delivery_client import DeliveryClient
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.notifications import entry_of, event_of
from taskbridge.webhooks.operations import example
from taskbridge.webhooks.store import Delivery

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from taskbridge.runtime.settings import Network
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.webhooks.endpoints import Endpoint
    from taskbridge.webhooks.store import Result

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECRET = "whsec_" + "c2VjcmV0" * 6
LOOPBACK = (parse_network("127.0.0.0/8"),)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers as told, and keeps what it got."""

    handler: Handler | None = None
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict[str, str])
    got: list[Request] = field(default_factory=list[Request])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.got.append(
            Request(
                request.method, request.path_qs, {name.lower(): value for name, value in request.headers.items()}, body
            )
        )
        if self.handler is not None:
            return await self.handler(request)
        return web.Response(status=self.status, headers=self.headers, text="said so" if self.status >= 300 else None)


def endpoint_of(folder: Path, url: str, *lines: str) -> Endpoint:
    """The endpoint of a file with these further lines."""
    path = folder / "endpoints.toml"
    given = "\n".join(lines)
    secrets = "" if "format" in given else f'secrets = ["{SECRET}"]'
    path.write_text(f'[[endpoints]]\nname = "erp"\nurl = "{url}"\ncorps = ["corp"]\n{secrets}\n{given}\n')
    return EndpointsFile(path, {}).current.by_name["erp"]


def attempts(
    folder: Path,
    receiver: Receiver,
    *notifications: TaskNotification,
    lines: tuple[str, ...] = (),
    url: str = "http://127.0.0.1:{port}/hook",
    allowed: tuple[Network, ...] = LOOPBACK,
    tls: ssl.SSLContext | None = None,
    ids: dict[str, str] | None = None,
    failed_before: int = 0,
) -> list[Result]:
    """Send these, or an example, to the receiver, one after the other."""

    async def other_id(_corp_id: str, user_id: str, name: str) -> str | None:
        return (ids or {}).get(f"{name}/{user_id}")

    async def run() -> list[Result]:
        async with serving(receiver, tls) as port:
            endpoint = endpoint_of(folder, url.format(port=port), *lines)
            sender = DeliveryClient(endpoint, Guard(allowed), other_id)
            try:
                return [
                    await sender.attempt(delivery_of(endpoint, each, failed_before))
                    for each in notifications or [example(endpoint)]
                ]
            finally:
                await sender.close()

    return asyncio.run(run())


def delivery_of(endpoint: Endpoint, notification: TaskNotification | None = None, failed_before: int = 0) -> Delivery:
    """Of this notification, or of an example."""
    each = notification or example(endpoint)
    return Delivery(1, entry_of(each), each.notification_id, event_of(each), failed_before, now_ms())


@asynccontextmanager
async def serving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """The port at which the receiver listens."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
