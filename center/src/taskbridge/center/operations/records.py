"""What the operator's page shows from the database: flow, records set aside, replicas, and one instance's callbacks.

Every method blocks, and raises ``DatabaseUnavailable`` if the database does not answer.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, quote_plus

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, select, tuple_

from taskbridge.center.api.models import EventsOut
from taskbridge.center.api.queries import HISTORY_MAX, find_state, shown_events, shown_history, shown_instance
from taskbridge.center.tables import DEAD_LETTER, QUARANTINED, changes, entries, events, instances, replicas, set_aside
from taskbridge.runtime.database import Database, Upsert, clean
from taskbridge.runtime.follow.tables import skipped
from taskbridge.runtime.refusals import Unknown
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import Action
from taskbridge.schemas.json_forms import to_json
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskbridge.center.access.access import Caller
    from taskbridge.center.api.models import EventOut

LATEST = 50
MINUTES = 60
ACTIONS = tuple(action.value for action in Action if action is not Action.UNKNOWN)
REPORTING_S = 60
"""A replica whose row is older does not run, or does not reach the database."""
FORGOTTEN_S = 600

_MINUTE_MS = 60_000
_NOTIFICATIONS_MAX = 200
_SEARCHED_MAX, _SEARCHED_CHARACTERS, _SEARCH_S = 50_000, 64 << 20, 2.0
"""What a search reads at most of each kind of record that was set aside, the newest first: senders of rejected requests
decide how many and how long they are."""
_SEARCHED_PART = 200
_LATEST_AT = (1 << 63) - 1
_PEOPLE_MAX = 200
"""Whose changes are searched for one instance."""
_SHOWN = ("recipient_id", "view", "change", "status", "occurred_at", "notification_id", "task_id")

_MINUTE = events.c.received_at // _MINUTE_MS
_FLOW = (
    select(_MINUTE, events.c.action, func.count())
    .where(events.c.received_at >= bindparam("since"))
    .group_by(_MINUTE, events.c.action)
)
# The record of a replay whose entry is not here has no reason.
_ENTRIES = set_aside.c.reason != ""
_COUNTS = (
    select(set_aside.c.kind, set_aside.c.reason, func.count())
    .where(_ENTRIES, set_aside.c.replayed_at.is_(None))
    .group_by(set_aside.c.kind, set_aside.c.reason)
)
_LATEST = (
    select(set_aside.c.summary, set_aside.c.replayed_at)
    .where(_ENTRIES, set_aside.c.kind == bindparam("kind"))
    .order_by(set_aside.c.at.desc())
    .limit(LATEST)
)
_OLDER = (
    select(*(set_aside.c[each] for each in ("at", "entry_id", "reason", "search", "summary", "replayed_at")))
    .where(
        set_aside.c.kind == bindparam("kind"),
        # As an index condition in both databases; the other one is for entries of the same millisecond.
        set_aside.c.at <= bindparam("at"),
        tuple_(set_aside.c.at, set_aside.c.entry_id) < tuple_(bindparam("at"), bindparam("entry_id")),
    )
    .order_by(set_aside.c.at.desc(), set_aside.c.entry_id.desc())
    .limit(bindparam("part"))
)
_PUT_REPLICA = Upsert(replicas)
_SKIPPED = select(skipped).order_by(skipped.c.at.desc()).limit(LATEST)
_CORP = (
    select(events.c.corp_id)
    .where(events.c.instance_id == bindparam("instance_id"))
    .order_by(events.c.received_at.desc())
)
_ENTRY_USERS = (
    select(entries.c.user_id)
    .join(instances, entries.c.instance == instances.c.id)
    .where(instances.c.instance_id == bindparam("instance_id"))
)
_CHANGES = select(changes.c.data).where(
    changes.c.corp_id == bindparam("corp_id"),
    changes.c.user_id.in_(bindparam("user_ids", expanding=True)),
    changes.c.instance_id == bindparam("instance_id"),
)


class _KnownHistory(EventsOut):
    """Of an instance that has no state."""

    complete: bool


class Records:
    """Queries for operators: they see every corp."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def overview(self, now_ms: int) -> dict[str, Any]:
        """The parts of the overview that are in the database; ``errors`` are the records that could not be read."""
        with self._database.read() as connection:
            counts: dict[str, Counter[str]] = {QUARANTINED: Counter(), DEAD_LETTER: Counter()}
            for kind, reason, count in connection.execute(_COUNTS):
                counts[kind][reason] = count
            return {
                "flow": _flow(connection, now_ms),
                "quarantine": _set_aside(connection, QUARANTINED, counts[QUARANTINED]),
                "dead_letters": _set_aside(connection, DEAD_LETTER, counts[DEAD_LETTER]),
                "errors": [_skipped_error(row) for row in connection.execute(_SKIPPED).mappings()],
                "shares": {
                    name: (at, msgspec.json.decode(share)) for name, at, share in connection.execute(select(replicas))
                },
            }

    def report(self, replica: str, share: Mapping[str, Any], now_ms: int) -> None:
        """Store what other replicas show of this one, and forget those that have been gone for long."""
        with self._database.write() as connection:
            self._database.put(connection, _PUT_REPLICA, [(replica, now_ms, to_json(share))])
            connection.execute(delete(replicas).where(replicas.c.at < now_ms - FORGOTTEN_S * 1000))

    def leave(self, replica: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(replicas).where(replicas.c.replica == replica))

    def callbacks(self, instance_id: str, caller: Caller, now_ms: int) -> dict[str, Any]:
        stored_id = clean(instance_id)
        with self._database.read() as connection:
            try:
                known = find_state(connection, instance_id, caller)
            except Unknown:
                state, (corp_id, history) = None, _history_of_deleted(connection, stored_id)
            else:
                state, corp_id = shown_instance(connection, known), known.corp_id
                history = shown_history(connection, known)
            listed: Sequence[EventOut] = () if history is None else history["events"]
            named = {user for each in listed for user in (each["actor_id"], *each["recipient_ids"]) if user is not None}
            users = set(connection.execute(_ENTRY_USERS, {"instance_id": stored_id}).scalars())
            notifications = [] if history is None else _notifications(connection, corp_id, users | named, stored_id)
            forms = mentions(stored_id)
            quarantined = _search(connection, QUARANTINED, lambda text: any(each in text for each in forms))
            dead_letters = _search(connection, DEAD_LETTER, lambda text: text == stored_id)
            return {
                "instance_id": instance_id,
                "state": state,
                "deleted": state is None and any(each["action"] == Action.DELETED for each in listed),
                "history": history,
                "quarantined": quarantined.found,
                "dead_letters": dead_letters.found,
                "notifications": notifications,
                "people": len(users | {each["recipient_id"] for each in notifications}),
                "searched": _searched(quarantined, dead_letters, now_ms),
            }


def _history_of_deleted(connection: Connection, stored_id: str) -> tuple[str, _KnownHistory | None]:
    """The corp and the events of an instance that has no state; None where there are no events."""
    corp_id = connection.execute(_CORP, {"instance_id": stored_id}).scalar()
    if corp_id is None:
        return "", None
    found, shown = shown_events(connection, stored_id, corp_id)
    return corp_id, {**shown, "complete": len(found) < HISTORY_MAX}


def mentions(instance_id: str) -> list[str]:
    """The forms of an id in a request: as it is, percent-encoded in two ways, and escaped as in JSON."""
    return sorted({instance_id, quote(instance_id, safe=""), quote_plus(instance_id), json.dumps(instance_id)[1:-1]})


def _flow(connection: Connection, now_ms: int) -> dict[str, Any]:
    """Events received in each of the last sixty minutes, by action, the present minute last."""
    last = now_ms // _MINUTE_MS
    minutes = range(last - MINUTES + 1, last + 1)
    counts = {
        (minute, action): count
        for minute, action, count in connection.execute(_FLOW, {"since": minutes[0] * _MINUTE_MS})
    }
    return {
        "minutes": [iso(minute * _MINUTE_MS) for minute in minutes],
        "actions": {action: [counts.get((minute, action), 0) for minute in minutes] for action in ACTIONS},
    }


def _set_aside(connection: Connection, kind: str, reasons: Counter[str]) -> dict[str, Any]:
    """Counts of the entries that were not replayed, and the latest of all."""
    latest = connection.execute(_LATEST, {"kind": kind})
    return {
        "total": reasons.total(),
        "reasons": dict(reasons.most_common()),
        "latest": [_summary(summary, replayed_at) for summary, replayed_at in latest],
    }


def _summary(summary: bytes, replayed_at: str | None) -> dict[str, Any]:
    return {**msgspec.json.decode(summary), "replayed_at": replayed_at}


def _skipped_error(row: RowMapping) -> dict[str, Any]:
    where = f"topic {row['topic']}, partition {row['partition']}, offset {row['offset']}, key {row['key']}"
    message = f"record_skipped: {where}: {row['reason']}"
    return {"at": iso(row["at"]), "worker": "center", "level": "ERROR", "message": message, "times": 1}


class _Search(NamedTuple):
    found: list[dict[str, Any]]
    """The oldest first."""
    records: int
    """How many were read."""
    oldest: int | None
    """When the last one came, if older ones were not searched."""


def _search(connection: Connection, kind: str, is_named: Callable[[str], bool]) -> _Search:
    """Look through the newest entries of a kind, until there are enough, or too many, too long or too slow ones."""
    found: list[dict[str, Any]] = []
    records, characters, end = 0, 0, time.monotonic() + _SEARCH_S
    place: dict[str, Any] = {"at": _LATEST_AT, "entry_id": ""}
    while True:
        part = connection.execute(_OLDER, {"kind": kind, "part": _SEARCHED_PART, **place}).all()
        for each in part:
            if each.reason:  # the record of a replay whose entry is not here has none
                records += 1
                characters += len(each.search)
                if is_named(each.search):
                    found.append(_summary(each.summary, each.replayed_at))
        if len(part) < _SEARCHED_PART:
            return _Search(found[LATEST - 1 :: -1], records, None)
        place = {"at": part[-1].at, "entry_id": part[-1].entry_id}
        is_enough = len(found) >= LATEST or records >= _SEARCHED_MAX or characters >= _SEARCHED_CHARACTERS
        if is_enough or time.monotonic() >= end:
            return _Search(found[LATEST - 1 :: -1], records, place["at"])


def _notifications(connection: Connection, corp_id: str, users: set[str], instance_id: str) -> list[dict[str, Any]]:
    """The latest changes of these people's entries of the instance."""
    user_ids = [clean(each) for each in sorted(users)[:_PEOPLE_MAX]]
    rows = connection.execute(_CHANGES, {"corp_id": corp_id, "user_ids": user_ids, "instance_id": instance_id})
    found = [msgspec.json.decode(data) for (data,) in rows]
    latest = sorted(found, key=lambda each: each["occurred_at"], reverse=True)[:_NOTIFICATIONS_MAX]
    return [{name: each.get(name) for name in _SHOWN} for each in latest]


def _searched(quarantined: _Search, dead_letters: _Search, now_ms: int) -> dict[str, Any]:
    oldest = [each.oldest for each in (quarantined, dead_letters) if each.oldest is not None]
    return {
        "quarantine_records": quarantined.records,
        "dead_letter_records": dead_letters.records,
        "since": iso(max(oldest, default=now_ms - int(CALLBACKS_QUARANTINE.settings["retention.ms"]))),
        # False: there are older ones, which were not searched.
        "complete": not oldest,
    }
