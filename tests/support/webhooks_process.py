"""The webhooks service as a real process that tests may kill, and receivers that misbehave."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from support.edge.process import LOAD_FAST
from support.forked import ForkedService
from taskbridge.local.host import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from taskbridge.cli.connection import Connection

SECRET = "whsec_" + "c2VjcmV0" * 6
ATTEMPT_S = 1.0
_QUICK = (
    "import os; from taskbridge.webhooks import delivery_client, dispatcher, schedule, store;"
    " schedule.DELAYS_S = (0.1,) * int(os.environ.get('TEST_RETRIES', '200'));"
    f" delivery_client.ATTEMPT_S = {ATTEMPT_S}; store.CLAIM_MS = 3000; dispatcher._PROBE_S = 0.2"
)
"""What takes seconds to days in production, so that a test sees all of it."""
_CODE = f"{LOAD_FAST}; {_QUICK}; from taskbridge.webhooks.app import main; main()"


class WebhooksProcess(ForkedService):
    """One replica, with a port and a data folder that stay the same over its restarts."""

    def __init__(
        self,
        folder: Path,
        connection: Connection,
        endpoints: Mapping[str, str],
        *,
        corp: str = "corp",
        **environment: str,
    ) -> None:
        """``endpoints``: URLs by name, each with further lines of the file after a line feed."""
        environment = {"WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8", **environment}
        super().__init__("webhooks", _CODE, folder, connection, **environment)
        self.file = folder / f"endpoints-{self.port}.toml"
        self.file.write_text("\n".join(_endpoint(name, given, corp) for name, given in endpoints.items()))
        self.environment["WEBHOOKS_ENDPOINTS_FILE"] = str(self.file)


def _endpoint(name: str, given: str, corp: str) -> str:
    url, _, more = given.partition("\n")
    return f'[[endpoints]]\nname = "{name}"\nurl = "{url}"\nsecrets = ["{SECRET}"]\ncorps = ["{corp}"]\n{more}\n'


@dataclass
class Received:
    """What one endpoint has applied: the first arrival of each id, in order, and the lists that come of them."""

    ids: list[str] = field(default_factory=list[str])
    entries: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    lists: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict[tuple[str, ...], dict[str, Any]])
    _seen: set[str] = field(default_factory=set[str])

    def apply(self, webhook_id: str, data: Mapping[str, Any]) -> None:
        """As every receiver should: a repeat changes nothing."""
        if webhook_id in self._seen:
            return
        self._seen.add(webhook_id)
        key = ("corp_id", "recipient_id", "view", "instance_id", "task_id")
        entry = tuple(data[name] or "" for name in key)
        self.ids.append(webhook_id)
        self.entries.append(entry)
        if data["change"] == "REMOVED":
            self.lists.pop(entry, None)
        else:
            self.lists[entry] = dict(data)


class Receivers:
    """An HTTP server with any number of endpoints by path; ``/moody`` misbehaves until it is told to stop."""

    def __init__(self, seed: int) -> None:
        self.received: dict[str, Received] = {}
        self.is_moody = True
        self._chance = random.Random(seed)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = free_port()

    def url(self, name: str) -> str:
        return f"http://{LOOPBACK}:{self.port}/{name}"

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/{name}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, LOOPBACK, self.port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await request.read()
        if name.startswith("moody") and self.is_moody and (answer := await self._moody(request)) is not None:
            return answer
        self._apply(name, request, body)
        if name.startswith("moody") and self.is_moody and self._chance.random() < 0.05:
            await asyncio.sleep(2 * ATTEMPT_S)  # it has done the work, and says so too late
        return web.Response(status=204)

    def _apply(self, name: str, request: web.Request, body: bytes) -> None:
        self.received.setdefault(name, Received()).apply(request.headers["webhook-id"], json.loads(body)["data"])

    async def _moody(self, request: web.Request) -> web.StreamResponse | None:
        match self._chance.choices(["well", "500", "429", "nothing", "half"], [60, 15, 10, 5, 10])[0]:
            case "500":
                return web.Response(status=500)
            case "429":
                return web.Response(status=429, headers={"retry-after": str(self._chance.randrange(2))})
            case "nothing":
                await asyncio.sleep(2 * ATTEMPT_S)
                return web.Response(status=204)  # nobody reads it any more
            case "half":
                response = web.StreamResponse(status=200, headers={"content-length": "100"})
                await response.prepare(request)
                await response.write(b"x")
                assert request.transport is not None
                request.transport.close()
                return response
            case _:
                return None
