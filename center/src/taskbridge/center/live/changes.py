"""Reads people's changes as frames, and learns of them. Every function blocks and raises DatabaseUnavailable.

A person's changes are numbered without gaps, and numbers become visible in their order: the row of the person's
counter is locked until the transaction that took a number ends. So "all after n" is complete whenever it is read.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import bindparam, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from taskbridge.center.api.json_forms import to_json
from taskbridge.center.api.queries import names_of
from taskbridge.center.follow.positions import SELECT_EPOCH, epoch
from taskbridge.center.live.wire import Place, notification_frame
from taskbridge.center.tables import CHANGES_CHANNEL, Person, change_counters, changes, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from taskbridge.center.database import Database

log = structlog.get_logger(__name__)

PART = 128
"""Changes per read: fewer than may wait for a stream, so that a burst does not end streams that keep up."""

_AFTER = (
    # In the same statement: numbers and their epoch are of one state of the database.
    select(SELECT_EPOCH.scalar_subquery(), changes.c.seq, changes.c.data)
    .where(
        changes.c.corp_id == bindparam("corp_id"),
        changes.c.user_id == bindparam("user_id"),
        changes.c.seq > bindparam("after"),
        changes.c.seq <= bindparam("until"),
    )
    .order_by(changes.c.seq)
    .limit(PART)
)
_COUNTER = change_counters.c.corp_id, change_counters.c.user_id
_NUMBERS = select(*_COUNTER, change_counters.c.last_seq).where(
    tuple_(*_COUNTER).in_(bindparam("people", expanding=True))
)
_RETRY_S = 1.0
_CHECK_S = 1.0
"""After so much silence the connection is tested."""
_decode_people = msgspec.json.Decoder(list[Person]).decode
_NO_END = 2**62
_UNNAMED = b'"name":null'


class ChangeFrame(NamedTuple):
    """A change as it is written to streams."""

    place: Place
    frame: bytes


def epoch_of(database: Database) -> str:
    with database.read() as connection:
        return epoch(connection)


def places_now(database: Database, people: Sequence[Person]) -> dict[Person, Place]:
    """Each person's latest change."""
    stored = {_stored(person): person for person in people}
    with database.read() as connection:
        # First: numbers of a later epoch would be too small, which is noticed; those of an earlier one too large.
        at = epoch(connection)
        rows = connection.execute(_NUMBERS, {"people": list(stored)})
        numbers = {(corp_id, user_id): last_seq for corp_id, user_id, last_seq in rows}
    return {person: Place(at, numbers.get(key, 0)) for key, person in stored.items()}


def changes_of(database: Database, wanted: Mapping[Person, int]) -> dict[Person, list[ChangeFrame]]:
    """The changes of each of these people after the given number, at most ``PART`` of each."""
    with database.read() as connection:
        return {person: _read(connection, person, after, _NO_END) for person, after in wanted.items()}


def changes_between(database: Database, person: Person, after: int, until: int) -> list[ChangeFrame]:
    """The first of the changes numbered above ``after``, up to ``until``: at most ``PART``."""
    with database.read() as connection:
        return _read(connection, person, after, until)


def _read(connection: Connection, person: Person, after: int, until: int) -> list[ChangeFrame]:
    rows = connection.execute(_AFTER, {**_parameters(person), "after": after, "until": until}).all()
    found = _with_names(connection, person[0], [row.data for row in rows])
    places = [Place(str(epoch), seq) for epoch, seq, _ in rows]
    return [ChangeFrame(place, notification_frame(place, data)) for place, data in zip(places, found, strict=True)]


def _with_names(connection: Connection, corp_id: str, found: Sequence[bytes]) -> Iterable[bytes]:
    """With the present name of each originator whom the sender named by an id only."""
    unnamed = {at: msgspec.json.decode(data) for at, data in enumerate(found) if _UNNAMED in data}
    originators = {at: each["originator"] for at, each in unnamed.items() if _lacks_name(each.get("originator"))}
    if not originators:
        return found
    names = names_of(connection, corp_id, {clean(each["user_id"]) for each in originators.values()})
    completed = list(found)
    for at, originator in originators.items():
        originator["name"] = names.get(clean(originator["user_id"]))
        completed[at] = to_json(unnamed[at])
    return completed


def _lacks_name(originator: Any) -> bool:
    return originator is not None and originator["name"] is None


def _parameters(person: Person) -> dict[str, str]:
    corp_id, user_id = _stored(person)
    return {"corp_id": corp_id, "user_id": user_id}


def _stored(person: Person) -> Person:
    """As ids are stored."""
    return clean(person[0]), clean(person[1])


class Listening:
    """Receives from PostgreSQL whose changes any replica has committed, on a connection and in a thread of its own.

    Begins at once. ``lost`` is called after each new connection: before it, notifications may have been missed.
    """

    def __init__(self, database: Database, changed: Callable[[list[Person]], None], lost: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed
        self._lost = lost
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; the thread ends within seconds."""
        self._stopped.set()

    def _run(self) -> None:
        dialect = self._database.engine.dialect
        assert dialect.dbapi is not None
        failures = (SQLAlchemyError, dialect.dbapi.Error, OSError)
        while not self._stopped.is_set():
            try:
                self._listen()
            except failures as error:
                log.warning("listening_interrupted", problem=str(error).partition("\n")[0])
                self._stopped.wait(_RETRY_S)

    def _listen(self) -> None:
        pooled = self._database.engine.raw_connection()
        connection = pooled.driver_connection
        assert connection is not None
        pooled.detach()  # it does not go back to the pool
        try:
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANGES_CHANNEL}")
            self._lost()
            while not self._stopped.is_set():
                for each in connection.notifies(timeout=_CHECK_S):
                    self._changed(_decode_people(each.payload))
                    if self._stopped.is_set():
                        return
                connection.execute("SELECT 1")
        finally:
            connection.close()
