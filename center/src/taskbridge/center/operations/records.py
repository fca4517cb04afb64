"""What the operator's page shows from the database: flow, records set aside, replicas, and one instance's callbacks.

Every method blocks, and raises ``DatabaseUnavailable`` if the database does not answer.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, or_, select

from taskbridge.center.api.queries import HISTORY_MAX, contains, find_state, shown_events, shown_history, shown_instance
from taskbridge.center.tables import DEAD_LETTER, QUARANTINED, changes, entries, events, instances, replicas, set_aside
from taskbridge.runtime.database import Database, clean
from taskbridge.runtime.follow.tables import skipped
from taskbridge.runtime.refusals import Unknown
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import Action
from taskbridge.schemas.json_forms import to_json
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.center.access.access import Caller

LATEST = 50
MINUTES = 60
ACTIONS = tuple(action.value for action in Action if action is not Action.UNKNOWN)
REPORTING_S = 60
"""A replica whose row is older does not run, or does not reach the database."""
FORGOTTEN_S = 600

_MINUTE_MS = 60_000
_NOTIFICATIONS_MAX = 200
_SEARCHED_MAX = 50_000
"""Of each kind of record that was set aside, the newest."""
_PEOPLE_MAX = 200
"""Whose changes are searched for one instance."""
_SHOWN = ("recipient_id", "view", "change", "status", "occurred_at", "notification_id", "task_id")

_MINUTE = events.c.received_at // _MINUTE_MS
_FLOW = (
    select(_MINUTE, events.c.action, func.count())
    .where(events.c.received_at >= bindparam("since"))
    .group_by(_MINUTE, events.c.action)
)
# A mark of a replay whose entry is not here has no reason.
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
        row = {"replica": replica, "at": now_ms, "share": to_json(share)}
        statement = self._database.insert(replicas).values(row)
        statement = statement.on_conflict_do_update(index_elements=["replica"], set_=row)
        with self._database.write() as connection:
            connection.execute(statement)
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
            listed: list[dict[str, Any]] = [] if history is None else history["events"]
            named = {user for each in listed for user in (each["actor_id"], *each["recipient_ids"]) if user is not None}
            users = set(connection.execute(_ENTRY_USERS, {"instance_id": stored_id}).scalars())
            notifications = [] if history is None else _notifications(connection, corp_id, users | named, stored_id)
            return {
                "instance_id": instance_id,
                "state": state,
                "deleted": state is None and any(each["action"] == Action.DELETED for each in listed),
                "history": history,
                "quarantined": _named(connection, QUARANTINED, mentions(stored_id), whole=False),
                "dead_letters": _named(connection, DEAD_LETTER, [stored_id], whole=True),
                "notifications": notifications,
                "people": len(users | {each["recipient_id"] for each in notifications}),
                "searched": _searched(connection, now_ms),
            }


def _history_of_deleted(connection: Connection, stored_id: str) -> tuple[str, dict[str, Any] | None]:
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


def _named(connection: Connection, kind: str, forms: list[str], *, whole: bool) -> list[dict[str, Any]]:
    """The entries whose text contains, or with ``whole`` is, one of these forms; the oldest first."""
    newest = select(set_aside).where(_ENTRIES, set_aside.c.kind == kind)
    newest = newest.order_by(set_aside.c.at.desc()).limit(_SEARCHED_MAX).subquery()
    matches = [newest.c.search == form if whole else contains(newest.c.search, form) for form in forms]
    rows = connection.execute(
        select(newest.c.summary, newest.c.replayed_at).where(or_(*matches)).order_by(newest.c.at).limit(LATEST)
    )
    return [_summary(summary, replayed_at) for summary, replayed_at in rows]


def _notifications(connection: Connection, corp_id: str, users: set[str], instance_id: str) -> list[dict[str, Any]]:
    """The latest changes of these people's entries of the instance."""
    user_ids = [clean(each) for each in sorted(users)[:_PEOPLE_MAX]]
    rows = connection.execute(_CHANGES, {"corp_id": corp_id, "user_ids": user_ids, "instance_id": instance_id})
    found = [msgspec.json.decode(data) for (data,) in rows]
    latest = sorted(found, key=lambda each: each["occurred_at"], reverse=True)[:_NOTIFICATIONS_MAX]
    return [{name: each.get(name) for name in _SHOWN} for each in latest]


def _searched(connection: Connection, now_ms: int) -> dict[str, Any]:
    counts = dict(
        connection.execute(select(set_aside.c.kind, func.count()).where(_ENTRIES).group_by(set_aside.c.kind)).all()
    )
    return {
        "quarantine_records": min(counts.get(QUARANTINED, 0), _SEARCHED_MAX),
        "dead_letter_records": min(counts.get(DEAD_LETTER, 0), _SEARCHED_MAX),
        "since": iso(now_ms - int(CALLBACKS_QUARANTINE.settings["retention.ms"])),
    }
