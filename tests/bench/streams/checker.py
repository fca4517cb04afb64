"""Compares what a contender wrote with the reference; a number counts only behind this check."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import fastavro
from tests.bench.errors import NotCounted
from tests.bench.streams.peers.job import without_logical_types

from taskbridge.schemas.events import Change, View, notification_id_for
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.streams.reference import EntryTuple, LineTuple, Reference

_FRAME = 5


class Notified(NamedTuple):
    """A record of a topic of notifications."""

    key: bytes
    value: bytes
    ce_id: bytes | None
    """Of its headers."""


class Decoder:
    """Records in the Confluent wire format as plain dicts, times in milliseconds; only schemas of this checkout."""

    def __init__(self, record: str, schema_id: int) -> None:
        self._schema: Any = fastavro.parse_schema(without_logical_types(json.loads(schema_text(record))))
        self._frame = b"\x00" + schema_id.to_bytes(4, "big")

    def decode(self, value: bytes) -> dict[str, Any]:
        if value[:_FRAME] != self._frame:
            raise NotCounted("a record is not framed with its schema's id")
        body = io.BytesIO(value)
        body.seek(_FRAME)
        found = cast("dict[str, Any]", fastavro.schemaless_reader(body, self._schema, None))
        if body.read(1):
            raise NotCounted("a record has bytes behind its end")
        return found


def check_states(reference: Reference, last: Mapping[bytes, bytes | None], decoder: Decoder) -> None:
    """Prove that the last state of each instance is the reference's, its revision aside; a tombstone if deleted.

    Raises:
        NotCounted: one is missing, differs, or is of no instance at all.
    """
    expected = reference.states()
    for key, state in expected.items():
        if key not in last:
            raise NotCounted(f"instance {key.decode()} has no state")
        value = last[key]
        found = None if value is None else decoder.decode(value)
        if found is not None:
            del found["revision"]
        if found != state:
            raise NotCounted(f"the state of {key.decode()} is {found}, and should be {state}")
    if unknown := last.keys() - expected.keys():
        raise NotCounted(f"{len(unknown)} states of instances that no event names")


def check_notifications(reference: Reference, records: Iterable[Notified], decoder: Decoder) -> int:
    """Prove that the notifications, folded as they arrive, come to the reference's views; returns how many there are.

    Each must have its person's key, and the id that follows from it in its record and header. As a set,
    the ids must be those of the reference, event by event: none missing, none extra. Repeats are no fault:
    at-least-once may bring them.

    Raises:
        NotCounted: something is missing, differs, or is too much.
    """
    lines: dict[LineTuple, EntryTuple] = {}
    ids: set[str] = set()
    count = 0
    for notified in records:
        found = decoder.decode(notified.value)
        ids.add(_id(found, notified))
        line = (found["corp_id"], found["recipient_id"], View(found["view"]), found["instance_id"], found["task_id"])
        if found["change"] == Change.REMOVED:
            lines.pop(line, None)
        else:
            lines[line] = _entry(found)
        count += 1
    if missing := reference.ids - ids:
        raise NotCounted(f"{len(missing)} notifications are missing")
    if unknown := ids - reference.ids:
        raise NotCounted(f"{len(unknown)} notifications that no event makes")
    _compare(reference.lines(), lines)
    return count


def _id(found: dict[str, Any], notified: Notified) -> str:
    notification_id: str = found["notification_id"]
    expected = notification_id_for(
        found["event_id"], found["recipient_id"], found["view"], found["task_id"], found["change"]
    )
    if notification_id != expected or notified.ce_id != expected.encode():
        raise NotCounted(f"a notification has the id {notification_id} and the header {notified.ce_id}, not {expected}")
    if notified.key != f"{found['corp_id']}/{found['recipient_id']}".encode():
        raise NotCounted(f"a notification to {found['recipient_id']} has the key {notified.key}")
    return notification_id


def _compare(expected: dict[LineTuple, EntryTuple], lines: dict[LineTuple, EntryTuple]) -> None:
    if expected == lines:
        return
    if missing := expected.keys() - lines.keys():
        raise NotCounted(f"{len(missing)} lines are missing from views, as {missing.pop()}")
    if unknown := lines.keys() - expected.keys():
        raise NotCounted(f"{len(unknown)} lines too many are in views, such as {unknown.pop()}")
    line = next(line for line, entry in expected.items() if lines[line] != entry)
    raise NotCounted(f"the line {line} is {lines[line]}, and should be {expected[line]}")


def _entry(found: dict[str, Any]) -> EntryTuple:
    person = found["originator"]
    person = None if person is None else (person["user_id"], person["name"])
    facts = (found["title"], found["url"], found["app_type"], person, found["actor_id"], found["status"])
    return (*facts, found["entered_at"], found["updated_at"])
