"""Devices where people turned push messages on: a row each, which ends with its session."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, delete, select, tuple_

from taskbridge.center.reminders.web_push import Device
from taskbridge.center.tables import Person, push_devices, sessions
from taskbridge.runtime.database import Database, Upsert, clean, in_key_order, now_ms
from taskbridge.runtime.tokens import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_OF_PERSON = 10
"""Devices that get a message: the newest."""
_PERSON = push_devices.c.corp_id, push_devices.c.user_id
_PUT = Upsert(push_devices, key=["endpoint_sha256"])


class Devices:
    def __init__(self, database: Database, lives: Callable[[int], ColumnElement[bool]]) -> None:
        """``lives`` tells of a session whether it goes on at this time."""
        self._database, self._lives = database, lives

    def put(self, person: Person, device: Device) -> None:
        """Instead of the one before. A browser whose last person did not sign out is this person's from now on."""
        endpoint_sha256 = digest_of(device.endpoint)
        same = (push_devices.c.token_sha256 == device.token_sha256) | (
            push_devices.c.endpoint_sha256 == endpoint_sha256
        )
        corp_id, user_id = map(clean, person)
        with self._database.write() as connection:
            # First, as by what ends a session: a row of a session that has just ended would be of nobody. Tabs of one
            # session take turns.
            its = select(sessions.c.user_id).where(sessions.c.token_sha256 == device.token_sha256)
            if connection.execute(its.with_for_update(key_share=True)).first() is None:
                return
            connection.execute(delete(push_devices).where(in_key_order(push_devices, same)))
            row = {
                **device._asdict(),
                "corp_id": corp_id,
                "user_id": user_id,
                "endpoint_sha256": endpoint_sha256,
                "at": now_ms(),
            }
            # Another session may have put the same browser's meanwhile.
            self._database.put(connection, _PUT, [tuple(row[each.name] for each in push_devices.columns)])

    def remove(self, token_sha256: str, endpoint: str | None = None) -> None:
        """The session's device; if an ``endpoint`` is given, only this one."""
        its = push_devices.c.token_sha256 == token_sha256
        if endpoint is not None:
            its &= push_devices.c.endpoint_sha256 == digest_of(endpoint)
        with self._database.write() as connection:
            connection.execute(delete(push_devices).where(its))

    def forget(self, device: Device) -> None:
        """A push service does not know it any more. The session may have another one by now."""
        self.remove(device.token_sha256, device.endpoint)

    def of(self, connection: Connection, people: Collection[Person], now: int) -> dict[Person, list[Device]]:
        """Those of these people whose sessions go on."""
        found: dict[Person, list[Device]] = defaultdict(list)
        columns = (push_devices.c[name] for name in Device._fields)
        its = push_devices.join(sessions, sessions.c.token_sha256 == push_devices.c.token_sha256)
        query = select(*_PERSON, *columns).select_from(its).where(tuple_(*_PERSON).in_(people), self._lives(now))
        for row in connection.execute(query.order_by(push_devices.c.at.desc())) if people else ():
            if len(mine := found[row.corp_id, row.user_id]) < _OF_PERSON:
                mine.append(Device(*(getattr(row, name) for name in Device._fields)))
        return found
