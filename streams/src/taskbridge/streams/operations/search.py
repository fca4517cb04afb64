"""Looks for one instance wherever a callback of it may have ended. Blocking, and bounded in records and time."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from taskbridge.runtime.quarantined import quarantined_summary
from taskbridge.schemas.cloudevents import headers_of, iso
from taskbridge.schemas.dead_letters import dead_letter_of, without_replays
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS_DLQ, TASK_NOTIFICATIONS
from taskbridge.streams.api.json_forms import notification_json
from taskbridge.streams.operations.parked import newest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.dead_letters import DeadLetter
    from taskbridge.schemas.events import QuarantinedCallback, TaskNotification
    from taskbridge.streams.api.owners import Owners
    from taskbridge.streams.operations.parked import Reading

NOTIFICATIONS = 200
_RECORDS = 5000
"""Of each partition that is searched, the newest."""
_EACH_S = 3.0
_SUBJECT = "ce_subject"
_MARGIN_MS = 60_000


@dataclass(slots=True)
class Findings:
    """The records that were found in addition to the state, and how much was searched."""

    quarantined: list[dict[str, Any]]
    dead_letters: list[dict[str, Any]]
    notifications: list[dict[str, Any]]
    quarantine_records: int
    dead_letter_records: int
    since_ms: int

    def shown(self) -> dict[str, Any]:
        return {
            "quarantined": self.quarantined,
            "dead_letters": self.dead_letters,
            "notifications": self.notifications,
            "searched": {
                "quarantine_records": self.quarantine_records,
                "dead_letter_records": self.dead_letter_records,
                "since": iso(self.since_ms),
            },
        }


def mentions(instance_id: str) -> list[bytes]:
    """The forms of an id in a request: as it is, percent-encoded in two ways, and escaped as in JSON."""
    forms = {instance_id, quote(instance_id, safe=""), quote_plus(instance_id), json.dumps(instance_id)[1:-1]}
    return [each.encode() for each in sorted(forms)]


def dead_letter_summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "at": letter.parked_at,
        "reason": letter.reason,
        "detail": letter.detail,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": None if letter.key is None else letter.key.decode("utf-8", "replace"),
        "replayed_at": None,
    }


@dataclass(eq=False)
class Search:
    """Reads the topics themselves: what was never understood is in no table."""

    reading: Reading
    owners: Owners
    quarantined: Codec[QuarantinedCallback]
    notifications: Codec[TaskNotification]

    def find(self, instance_id: str, state: Mapping[str, Any] | None, history: Mapping[str, Any] | None) -> Findings:
        """State and history as they are shown: they may come from another worker.

        Raises:
            KafkaException, TimeoutError, Unreadable: Kafka does not answer.
        """
        found = Findings([], [], [], 0, 0, time.time_ns() // 1_000_000)
        self._search_quarantine(instance_id, found)
        self._search_dead_letters(instance_id, found)
        if state is not None:
            self._search_notifications(state, first_event_ms(history), found)
        return found

    def _search_quarantine(self, instance_id: str, found: Findings) -> None:
        topic, forms, replays = CALLBACKS_QUARANTINE.name, mentions(instance_id), dict[str, str]()
        starts, ends = newest(self.reading.offsets, topic, _RECORDS)
        if sum(ends[each] - start for each, start in starts.items()) < _RECORDS:
            # All that there is will be read: then it goes back as far as the topic does.
            found.since_ms -= int(CALLBACKS_QUARANTINE.settings["retention.ms"])
        for message in without_replays(self.reading.between(topic, starts, ends, within_s=_EACH_S), replays):
            found.quarantine_records += 1
            found.since_ms = min(found.since_ms, message.timestamp()[1])
            value = message.value() or b""
            if any(form in value for form in forms):
                try:
                    entry = self.quarantined.decode(value)
                except RecordError:
                    continue
                if any(form in entry.body or form in entry.query.encode() for form in forms):
                    found.quarantined.append({**quarantined_summary(entry), "detail": f"{entry.method} {entry.path}"})
        found.quarantined.sort(key=lambda each: each["received_at"])
        _add_replays(found.quarantined, replays)

    def _search_dead_letters(self, instance_id: str, found: Findings) -> None:
        topic, key, replays = TASK_EVENTS_DLQ.name, instance_id.encode(), dict[str, str]()
        starts, ends = newest(self.reading.offsets, topic, _RECORDS)
        for message in without_replays(self.reading.between(topic, starts, ends, within_s=_EACH_S), replays):
            found.dead_letter_records += 1
            if message.key() == key:
                found.dead_letters.append(dead_letter_summary(dead_letter_of(message)))
        _add_replays(found.dead_letters, replays)

    def _search_notifications(self, state: Mapping[str, Any], first_ms: int | None, found: Findings) -> None:
        topic, subject = TASK_NOTIFICATIONS.name, str(state["instance_id"]).encode()
        offsets = self.reading.offsets
        partitions = {self.owners.partition(notification_key(state["corp_id"], each)) for each in people_of(state)}
        bounds = offsets.bounds(topic, partitions)
        starts = {partition: bound.first for partition, bound in bounds.items()}
        if first_ms is not None:
            since = offsets.since(topic, partitions, max(0, first_ms - _MARGIN_MS))
            starts = {each: since[each] if since[each] >= 0 else bounds[each].end for each in partitions}
        ends = {partition: bound.end for partition, bound in bounds.items()}
        latest: deque[TaskNotification] = deque(maxlen=NOTIFICATIONS)
        for message in self.reading.between(topic, starts, ends, within_s=_EACH_S):
            # By the header: nearly all of them are about something else, and need not be decoded.
            if (_SUBJECT, subject) in headers_of(message):
                try:
                    latest.append(self.notifications.decode(message.value()))
                except RecordError:
                    continue
        in_order = sorted(latest, key=lambda each: each.occurred_at, reverse=True)
        found.notifications += [
            {name: value for name, value in notification_json(each).items() if name in _SHOWN} for each in in_order
        ]


def _add_replays(found: list[dict[str, Any]], replays: Mapping[str, str]) -> None:
    for each in found:
        each["replayed_at"] = replays.get(each["id"])


_SHOWN = ("recipient_id", "view", "change", "status", "occurred_at", "notification_id", "task_id")


def people_of(state: Mapping[str, Any]) -> set[str]:
    """Everybody whom a notification of this instance may have been for."""
    people: set[str | None] = {None if state["originator"] is None else state["originator"]["user_id"]}
    for task in state["tasks"]:
        people |= {*task["assignee_ids"], task["actor_id"]}
    people |= {each["user_id"] for each in state["copied"]}
    return {each for each in people if each is not None}


def first_event_ms(history: Mapping[str, Any] | None) -> int | None:
    """When the first event was received; None where the history does not go back to it."""
    if history is None or not history["complete"] or not history["events"]:
        return None
    first = min(each["received_at"] for each in history["events"])
    return round(datetime.fromisoformat(first).timestamp() * 1000)
