"""The event streams of a worker without Kafka, with a route that sends a notification: for ``many_streams``.

python -m tests.bench.live.holding <port> <seconds between heartbeats>
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

from taskbridge.runtime.process import allow_open_files
from taskbridge.schemas.events import Change, Status, TaskNotification, View
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.forwarding import Forwarding
from taskbridge.streams.api.owners import Owners
from taskbridge.streams.api.resolver import OwnerResolver
from taskbridge.streams.http import build_http, listen, make_server
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.sse.routes import events_router

CORP = "ding5d17e3add038d44535c2f4657eb6378f"

_PARTITIONS = 12
_FILES = 100_000


async def serve(port: int, heartbeat_s: float) -> None:
    hub = Hub(next_offset=lambda _: 1, most=100_000, most_of_person=100_000, heartbeat_s=heartbeat_s)
    owners = Owners("http://127.0.0.1")
    owners.join(partitions=_PARTITIONS, distribution=dict, actives=lambda: range(_PARTITIONS), changelog="inbox")
    access, reader = Access(tokens=None, rate_per_s=100_000), cast("Any", object())
    router = events_router(hub, lambda: reader, OwnerResolver(access, owners, Forwarding(None)))
    http = build_http(lambda: {"ready": True}, Metrics(), routers=[router])

    async def send(user_id: str, offset: int) -> dict[str, int]:
        hub.told(0, (1, offset + 1), [(offset, _notification(user_id))])
        return {"streams": hub.count}

    http.add_api_route("/send/{user_id}/{offset}", send, methods=["POST"])
    beating = asyncio.create_task(_beat(hub, heartbeat_s))
    await make_server(http).serve([listen("127.0.0.1", port)])
    beating.cancel()


async def _beat(hub: Hub, heartbeat_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(heartbeat_s / 15)
        hub.beat(loop.time())


def _notification(user_id: str) -> TaskNotification:
    return TaskNotification(
        notification_id="0b9f6d6e-5f0e-5e11-8b1c-0a3c2d1e4f50",
        corp_id=CORP,
        recipient_id=user_id,
        view=View.PENDING,
        change=Change.ADDED,
        instance_id="65ab8549-aa06-486a-b5b7-8abe845303a5",
        task_id="TASK-1",
        title="张红的1位访客申请",
        url="https://yida.example/APP/processDetail?procInsId=65ab8549",
        app_type="APP_RY60OCRF33Z7534",
        originator=None,
        actor_id=None,
        status=Status.PENDING,
        occurred_at=1_769_846_400_000,
        event_id="0b9f6d6e-5f0e-5e11-8b1c-0a3c2d1e4f51",
    )


if __name__ == "__main__":
    allow_open_files(_FILES)
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
