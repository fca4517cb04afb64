"""For tests of live updates: commits changes of people's lists as the follower does, and is a stream's client."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert

from taskbridge.center.tables import change_counters, changes
from taskbridge.runtime.follow.tables import about

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from taskbridge.center.live.hub import Hub
    from taskbridge.center.live.wire import StreamPosition
    from taskbridge.runtime.database import Database

EPOCH = "e0"
CORP = "corp"

_numbers = itertools.count()


def set_epoch(database: Database, epoch: str = EPOCH) -> None:
    """As at the first start."""
    with database.write() as connection:
        _put_epoch(connection, epoch)


def _put_epoch(connection: Connection, epoch: str) -> None:
    connection.execute(delete(about).where(about.c.name == "epoch"))
    connection.execute(insert(about).values(name="epoch", value=epoch))


def add_changes(
    connection: Connection,
    database: Database,
    user_id: str,
    count: int = 1,
    *,
    corp_id: str = CORP,
    instance_id: str = "I-1",
    data: Mapping[str, Any] | None = None,
) -> list[str]:
    """In a transaction of the caller's; returns the notifications' ids."""
    user_id = user_id.replace("\0", "\ufffd")
    counter = database.insert(change_counters).values(corp_id=corp_id, user_id=user_id, last_seq=count)
    counter = counter.on_conflict_do_update(
        index_elements=["corp_id", "user_id"], set_={"last_seq": change_counters.c.last_seq + count}
    )
    last = connection.execute(counter.returning(change_counters.c.last_seq)).scalar_one()
    ids = [f"{user_id}-{next(_numbers)}" for _ in range(count)]
    originator = (data or {}).get("originator") or {"name": ""}
    rows = [
        {
            "corp_id": corp_id,
            "user_id": user_id,
            "seq": last - count + 1 + at,
            "at": 0,
            "instance_id": instance_id,
            "unnamed_originator": originator["user_id"] if originator["name"] is None else None,
            "data": msgspec.json.encode({"notification_id": each, **(data or {})}),
        }
        for at, each in enumerate(ids)
    ]
    connection.execute(insert(changes), rows)
    return ids


def commit_changes(database: Database, user_id: str, count: int = 1, **more: Any) -> list[str]:
    """As one transaction, without waking anybody."""
    with database.write() as connection:
        return add_changes(connection, database, user_id, count, **more)


def purge_changes(database: Database, user_id: str, *, before: int) -> None:
    """As retention does."""
    with database.write() as connection:
        connection.execute(delete(changes).where(changes.c.user_id == user_id, changes.c.seq < before))


def renumber(database: Database, epoch: str = "e1") -> None:
    """As when lists are dropped, which is one transaction: a stream never reads the old epoch without its changes."""
    with database.write() as connection:
        connection.execute(delete(changes))
        connection.execute(delete(change_counters))
        _put_epoch(connection, epoch)


class StreamClient:
    """The ASGI connection of a stream; its client may stop reading."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._gone = asyncio.Event()

    async def open(
        self,
        hub: Hub,
        user_id: str = "ann",
        after: StreamPosition | None = None,
        *,
        corp_id: str = CORP,
        now: float = 0,
        may_go_on: Callable[[float], bool] = lambda _: True,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> StreamClient:
        """``meanwhile`` happens between the subscription and the first frame."""
        self.stream = await hub.subscribe(corp_id, user_id, after, now=now, may_go_on=may_go_on)
        meanwhile()
        self.task = asyncio.create_task(self.stream.run(self._receive, self._send))
        return self

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.body += message["body"]
        if not message["more_body"]:
            self.complete = True
            self._gone.set()

    async def until(self, expected: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not expected():  # noqa: ASYNC110 - of many objects, whose only event is the writer's
                await asyncio.sleep(0.002)

    async def until_place(self, place: StreamPosition) -> None:
        """Until a heartbeat has its id."""
        await self.until(lambda: f": alive\nid: {place.event_id}\n\n".encode() in self.body)

    async def until_numbers(self, *numbers: int, epoch: str = EPOCH) -> None:
        """Until so many changes have come, which must be these."""
        expected = [f"{epoch}-{each}" for each in numbers]
        await self.until(lambda: len(self._notifications()) >= len(expected))
        assert [event_id.removeprefix("id: ") for event_id, _, _ in self._notifications()] == expected

    async def close(self) -> None:
        self._gone.set()
        await self.task

    @property
    def data(self) -> list[Any]:
        """Of the changes that have come."""
        return [msgspec.json.decode(data.removeprefix("data: ")) for _, _, data in self._notifications()]

    @property
    def resets(self) -> int:
        return self.body.count(b"event: reset\n")

    @property
    def heartbeats(self) -> int:
        return self.body.count(b": alive\n")

    def _notifications(self) -> list[list[str]]:
        return [each.split("\n") for each in self.body.decode().split("\n\n") if "event: notification" in each]
