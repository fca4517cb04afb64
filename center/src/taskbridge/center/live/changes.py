"""Reads people's changes as frames, and learns of new ones.

A person's changes are numbered without gaps, and numbers become visible in their order: the row of the person's
counter is locked until the transaction that took a number ends. So "all after n" is complete whenever it is read.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import text

from taskbridge.center.live.wire import StreamPosition, notification_frame
from taskbridge.center.reminders.due import NO_RULES, DueRules
from taskbridge.center.tables import CHANGES_CHANNEL, Person
from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads
from taskbridge.runtime.follow.tables import EPOCH
from taskbridge.schemas.cloudevents import optional_iso
from taskbridge.schemas.events import View
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Mapping, Sequence


log = structlog.get_logger(__name__)

PART = 128
"""Changes of one person per read."""
_PENDING = View.PENDING.lower()
_AT_ONCE = 100
"""People per read: those after them do not wait for thousands."""
_ANSWER_S = 10.0
_RETRY_S = 1.0
_CHECK_S = 1.0
"""After so much silence the connection is tested."""

# For SQLite (True) and PostgreSQL: any number of people in a list as JSON. ``seq`` is NULL where nothing follows.
_WANTED = {
    True: "SELECT json_extract(value, '$[0]') AS corp_id, json_extract(value, '$[1]') AS user_id,"
    " json_extract(value, '$[2]') AS after_seq FROM json_each(:wanted)",
    False: "SELECT value ->> 0 AS corp_id, value ->> 1 AS user_id, CAST(value ->> 2 AS BIGINT) AS after_seq"
    " FROM json_array_elements(:wanted)",
}
_CHANGES = """
SELECT wanted.corp_id, wanted.user_id, after_seq, about.value, last_seq, seq, people.name, data
FROM ({}) AS wanted JOIN about ON about.name = '{}'
LEFT JOIN change_counters AS counter ON counter.corp_id = wanted.corp_id AND counter.user_id = wanted.user_id
LEFT JOIN changes ON changes.corp_id = wanted.corp_id AND changes.user_id = wanted.user_id
    AND seq > after_seq AND seq <= after_seq + {}
LEFT JOIN people ON people.corp_id = wanted.corp_id AND people.user_id = unnamed_originator
ORDER BY seq
"""
READ_CHANGES = {is_sqlite: text(_CHANGES.format(wanted, EPOCH, PART)) for is_sqlite, wanted in _WANTED.items()}
_decode_people = msgspec.json.Decoder(list[Person]).decode

ChangesQuery = tuple[str, str, int | None]
"""Corp id and user id, as stored: their changes after a number, or with None only their latest place."""


class Part(NamedTuple):
    """The first changes after a number, as they are written to streams."""

    latest: StreamPosition
    """The person's last change."""
    frames: list[bytes]
    """At most ``PART``. None, although the latest is another: changes after the number are no longer stored."""


def read_changes(
    database: Database, wanted: Collection[ChangesQuery], due: DueRules = NO_RULES
) -> dict[ChangesQuery, Part]:
    """Read for many streams at once, with due times by these rules."""
    with database.read() as connection:
        given = {"wanted": msgspec.json.encode(list(wanted)).decode()}
        rows = connection.execute(READ_CHANGES[database.is_sqlite], given).all()
    found: dict[ChangesQuery, Part] = {}
    for corp_id, user_id, after, epoch, last_seq, seq, name, data in rows:
        part = found.setdefault((corp_id, user_id, after), Part(StreamPosition(epoch, last_seq or 0), []))
        if seq is not None and seq == after + len(part.frames) + 1:
            shown = data if name is None and not due else _completed(data, name, due)
            part.frames.append(notification_frame(StreamPosition(epoch, seq), shown))
    return found


def _completed(data: bytes, name: str | None, due: DueRules) -> bytes:
    """With the present name of an originator whom the sender named by an id only, and when a pending task is due."""
    found = msgspec.json.decode(data)
    if name is not None:
        found["originator"]["name"] = name
    if due and found["view"] == _PENDING and _may_be_due(found):
        entered_at = round(datetime.fromisoformat(found["entered_at"]).timestamp() * 1000)
        due_at = due.due_at(found["app_type"], found["process_name"], entered_at, None)
        found["due_at"] = optional_iso(due_at)
    return to_json(found)


def _may_be_due(task: dict[str, Any]) -> bool:
    """Whether the rules count: its source does not say it, and its instance has not ended."""
    is_open = task.get("due_at") is None and task.get("finished_at") is None
    return is_open and task.get("entered_at") is not None


@dataclass(slots=True, eq=False)
class _Request:
    wanted: ChangesQuery
    answer: Part | DatabaseUnavailable | None = None


class Reader:
    """Reads in one thread, and so on one connection: requests that wait for it are one query."""

    def __init__(self, database: Database, due_rules: Callable[[], DueRules] = lambda: NO_RULES) -> None:
        self._database, self._due_rules = database, due_rules
        self._thread = Threads(1, answer_s=_ANSWER_S)
        self._turn = asyncio.Lock()
        self._waiting: list[_Request] = []

    async def read(self, wanted: ChangesQuery) -> Part:
        """What was committed before this call, and perhaps more. Raises DatabaseUnavailable."""
        request = _Request(wanted)
        self._waiting.append(request)
        async with self._turn:
            if request.answer is None:
                await asyncio.sleep(0)  # streams that were woken together share the query
                await self._answer(self._waiting[:_AT_ONCE])
        if not isinstance(request.answer, Part):
            raise DatabaseUnavailable(str(request.answer))
        return request.answer

    async def _answer(self, batch: Sequence[_Request]) -> None:
        """Requests of cancelled calls, too."""
        wanted = {each.wanted for each in batch}
        found: Mapping[ChangesQuery, Part | DatabaseUnavailable]
        try:
            found = await self._thread.run(read_changes, self._database, wanted, self._due_rules())
        except DatabaseUnavailable as error:
            log.warning("changes_not_read", problem=str(error))
            found = dict.fromkeys(wanted, error)
        for each in batch:
            each.answer = found[each.wanted]
        self._waiting = [each for each in self._waiting if each.answer is None]

    def close(self) -> None:
        """Wait for a query that still runs: it would leave its connection open."""
        self._thread.close(wait=True)


def listen_for_changes(
    database: Database, changed: Callable[[list[Person]], None], lost: Callable[[], None], stopped: threading.Event
) -> None:
    """Receive from PostgreSQL whose changes any replica has committed, on a connection of its own, until stopped.

    Blocks. ``lost`` is called after each new connection: before it, notifications may have been missed.
    """
    while not stopped.is_set():
        try:
            pooled = database.engine.raw_connection()
            connection: Any = pooled.driver_connection
            pooled.detach()  # it does not go back to the pool
            with connection:
                connection.autocommit = True
                connection.execute(f"LISTEN {CHANGES_CHANNEL}")
                lost()
                while not stopped.is_set():
                    for each in connection.notifies(timeout=_CHECK_S):
                        changed(_decode_people(each.payload))
                    connection.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - of two libraries and the network: it is tried again
            log.warning("listening_interrupted", problem=str(error).partition("\n")[0])
            stopped.wait(_RETRY_S)
