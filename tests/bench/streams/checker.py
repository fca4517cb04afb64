"""The reference, and the check of a contender's output against it; a number counts only after this check."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import fastavro
import msgspec
from tests.bench.command import NotCounted
from tests.bench.streams.kafka_streams_format import without_logical_types

from taskbridge.schemas.events import Change, Lifecycle, View, notification_id_for
from taskbridge.schemas.registry import schema_text
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.schemas.events import TaskEvent, TaskState
    from taskbridge.schemas.views import Entry
    from taskbridge.streams.fold.instance import Instance


LineTuple = tuple[str, str, "View", str, "str | None"]
"""Corp, person, view, instance, task: what identifies a line among all views."""

EntryTuple = tuple[Any, ...]
"""The fields of a line: title, url, app type, originator, actor, status, when it entered the view and last moved."""


@dataclass(slots=True)
class Reference:
    """Fed with the events in the order in which they are produced, which is each partition's order."""

    instances: dict[bytes, Instance] = field(default_factory=dict[bytes, "Instance"])
    ids: set[str] = field(default_factory=set[str])
    notified: list[int] = field(default_factory=lambda: [0])
    """Notifications after so many events."""
    _states: dict[bytes, dict[str, Any] | None] | None = None
    _lines: dict[LineTuple, EntryTuple] | None = None

    @property
    def events(self) -> int:
        return len(self.notified) - 1

    def apply(self, key: bytes, event: TaskEvent) -> None:
        self._states = self._lines = None
        before = self.instances.get(key)
        after = self.instances[key] = fold(before, event)
        found = notifications(before, after, event)
        self.ids.update(each.notification_id for each in found)
        self.notified.append(self.notified[-1] + len(found))

    def states(self) -> dict[bytes, dict[str, Any] | None]:
        """The last state of each instance, its revision aside; None where it is deleted."""
        if self._states is None:  # called in every round
            self._states = {key: _state(each.state) for key, each in self.instances.items()}
        return self._states

    def lines(self) -> dict[LineTuple, EntryTuple]:
        """Every line that a user sees in the end."""
        if self._lines is None:
            self._lines = {
                (each.state.corp_id, key.user_id, key.view, each.state.instance_id, key.task_id): _right_entry(entry)
                for each in self.instances.values()
                for key, entry in views(each.state).items()
            }
        return self._lines

    def events_behind(self, share: float) -> int:
        """How many events come after the one whose notifications complete this share of all."""
        enough = self.notified[-1] * share
        return self.events - next(count for count, notified in enumerate(self.notified) if notified >= enough)


def _state(state: TaskState) -> dict[str, Any] | None:
    if state.lifecycle is Lifecycle.DELETED:
        return None
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))  # plain lists, as Avro gives them back
    del found["revision"]
    return found


def _right_entry(entry: Entry) -> EntryTuple:
    person = None if entry.originator is None else (entry.originator.user_id, entry.originator.name)
    facts = (entry.title, entry.url, entry.app_type, person, entry.actor_id, entry.status)
    return (*facts, entry.entered_at, entry.updated_at)


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
