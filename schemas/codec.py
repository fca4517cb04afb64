"""Dataclass ⇄ Avro in the Confluent wire format: a zero byte, four bytes of schema id, the Avro body."""

from __future__ import annotations

import io
import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import fastavro
from confluent_kafka.schema_registry import Schema, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.errors import RecordError
from schemas.events import (
    Action,
    Change,
    CopiedEntry,
    Lifecycle,
    Person,
    QuarantinedCallback,
    Status,
    TaskEntry,
    TaskEvent,
    TaskNotification,
    TaskState,
    View,
)
from schemas.registry import RegistryUnavailable, SchemaRef, UnknownSchema
from schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.registry import Registry
    from schemas.topics import Topic

R = TypeVar("R", TaskEvent, TaskState, TaskNotification, QuarantinedCallback)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_AS_THEY_ARE = frozenset((str, int, bytes, dict, type(None)))


class Undecodable(RecordError):
    """The bytes are not a record that this topic's schema can read."""


class Codec(Generic[R]):
    """Encodes and decodes the records of one topic. The registry is asked only for schema ids never seen before."""

    def __init__(self, topic: Topic, from_dict: Callable[[dict[str, Any]], R], registry: Registry) -> None:
        assert topic.record is not None
        self.schema = SchemaRef.of(topic)
        self.schema_key = self.schema.key
        text = self.schema.text
        self._from_dict = from_dict
        self._registry = registry
        self._parsed = fastavro.parse_schema(json.loads(text))
        self._id: int | None = None
        self._context = SerializationContext(topic.name, MessageField.VALUE)
        # Its constructor is made by a function, which the type checker does not follow.
        deserializer: Any = AvroDeserializer
        self._deserialize = deserializer(registry, text, conf={"subject.name.strategy": topic_subject_name_strategy})

    def encode(self, record: R) -> bytes:
        """The record in the Confluent wire format.

        Raises:
            RegistryUnavailable: the schema's id is not known yet and the registry does not answer.
        """
        if self._id is None:
            registered = self._registry.lookup_schema(self.schema.subject, Schema(self.schema.text, "AVRO"))
            assert registered.schema_id is not None
            self._id = registered.schema_id
        return framed(self._id, self.encode_body(record))

    def encode_body(self, record: R) -> bytes:
        """What ``encode`` gives, without the frame: needs no registry, now or ever."""
        # Not by Confluent's serializer: what it decides anew for each record costs as much as the writing.
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._parsed, _plain(record))
        return body.getvalue()

    def decode(self, value: bytes | None) -> R:
        """The record that was written by this schema or any compatible version of it.

        Raises:
            Undecodable: not in the wire format, of an unknown schema, or damaged.
            RegistryUnavailable: written by a schema not seen before, and the registry does not answer.
        """
        if value is None:
            raise Undecodable("the record has no value")
        try:
            return self._from_dict(cast("dict[str, Any]", self._deserialize(value, self._context)))
        except UnknownSchema as error:
            raise Undecodable(str(error)) from error
        except RegistryUnavailable:
            raise
        except Exception as error:
            # Damaged bytes surface as anything: EOFError, IndexError, ValueError, OverflowError and more.
            raise Undecodable(f"not a readable record: {type(error).__name__}: {error}") from error


def framed(schema_id: int, body: bytes) -> bytes:
    """An Avro body in the Confluent wire format."""
    return b"\x00" + schema_id.to_bytes(4, "big") + body


def task_event_codec(registry: Registry) -> Codec[TaskEvent]:
    return Codec(TASK_EVENTS, _task_event, registry)


def task_state_codec(registry: Registry) -> Codec[TaskState]:
    return Codec(TASK_STATES, _task_state, registry)


def task_notification_codec(registry: Registry) -> Codec[TaskNotification]:
    return Codec(TASK_NOTIFICATIONS, _task_notification, registry)


def quarantined_callback_codec(registry: Registry) -> Codec[QuarantinedCallback]:
    return Codec(CALLBACKS_QUARANTINE, _quarantined_callback, registry)


@cache
def _reader(of: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The names of a dataclass's fields, and what reads them all at once."""
    names = tuple(each.name for each in fields(of))
    return names, attrgetter(*names)


def _plain(record: Any) -> dict[str, Any]:
    """Dataclasses as dicts, all the way down, which is what the Avro writer takes."""
    names, read = _reader(record.__class__)
    return {
        name: value if type(value) in _AS_THEY_ARE else _plain_value(value)
        for name, value in zip(names, read(record), strict=True)
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, str):  # a member of an enum
        return value
    if isinstance(value, tuple):
        return [_plain_value(each) for each in cast("tuple[Any, ...]", value)]
    return _plain(value) if is_dataclass(value) else value


def _millis(value: datetime) -> int:
    return (value - _EPOCH) // _MILLISECOND


def _millis_or_none(value: datetime | None) -> int | None:
    return None if value is None else _millis(value)


def _person(value: dict[str, Any] | None) -> Person | None:
    return None if value is None else Person(**value)


# Each takes the dict that was just read, which nobody else holds, and turns its values into ours in place.


def _task_event(value: dict[str, Any]) -> TaskEvent:
    value["action"] = Action(value["action"])
    value["recipient_ids"] = tuple(value["recipient_ids"])
    value["originator"] = _person(value["originator"])
    value["created_at"] = _millis_or_none(value["created_at"])
    value["finished_at"] = _millis_or_none(value["finished_at"])
    value["occurred_at"] = _millis(value["occurred_at"])
    value["received_at"] = _millis(value["received_at"])
    return TaskEvent(**value)


def _task_entry(value: dict[str, Any]) -> TaskEntry:
    value["status"] = Status(value["status"])
    value["assignee_ids"] = tuple(value["assignee_ids"])
    value["created_at"] = _millis_or_none(value["created_at"])
    value["decided_at"] = _millis_or_none(value["decided_at"])
    return TaskEntry(**value)


def _task_state(value: dict[str, Any]) -> TaskState:
    value["originator"] = _person(value["originator"])
    value["lifecycle"] = Lifecycle(value["lifecycle"])
    value["tasks"] = tuple(_task_entry(each) for each in value["tasks"])
    value["copied"] = tuple(CopiedEntry(each["user_id"], _millis(each["at"])) for each in value["copied"])
    value["updated_at"] = _millis(value["updated_at"])
    return TaskState(**value)


def _task_notification(value: dict[str, Any]) -> TaskNotification:
    value["view"] = View(value["view"])
    value["change"] = Change(value["change"])
    value["originator"] = _person(value["originator"])
    value["status"] = Status(value["status"])
    value["occurred_at"] = _millis(value["occurred_at"])
    return TaskNotification(**value)


def _quarantined_callback(value: dict[str, Any]) -> QuarantinedCallback:
    value["received_at"] = _millis(value["received_at"])
    return QuarantinedCallback(**value)
