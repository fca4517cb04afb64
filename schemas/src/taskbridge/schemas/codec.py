"""Records ⇄ Avro in the Confluent wire format: a zero byte, four bytes of schema id, the Avro body."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import fastavro
import msgspec

from taskbridge.schemas import events
from taskbridge.schemas.compiled_avro import compile_reader
from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import (
    Form,
    FormData,
    PersonRecord,
    QuarantinedCallback,
    TaskEvent,
    TaskNotification,
    TaskState,
)
from taskbridge.schemas.registry import Registry, RegistryUnavailable, SchemaRef, UnknownSchema
from taskbridge.schemas.topics import (
    CALLBACKS_QUARANTINE,
    FORM_DATA,
    FORMS,
    PEOPLE,
    TASK_EVENTS,
    TASK_NOTIFICATIONS,
    TASK_STATES,
)

if TYPE_CHECKING:
    from taskbridge.schemas.topics import Topic

R = TypeVar("R", TaskEvent, TaskState, TaskNotification, QuarantinedCallback, PersonRecord, Form, FormData)

_FRAME_BYTES = 5

Reader = Callable[[bytes, int], Any]


class Undecodable(RecordError):
    """The bytes are not a record of this topic's schema."""

    dlq_reason = DlqReason.UNDECODABLE


class Bodies(Generic[R]):
    """Encodes and decodes the records of one topic without the frame, and so without a registry."""

    def __init__(self, topic: Topic, record: type[R], *, before: str | None = None) -> None:
        """With ``before``, records are read up to that field. The other fields get their defaults."""
        self.schema = SchemaRef.of(topic)
        self.schema_key = self.schema.key
        self._record = record
        self._own, self._read_own, self._write = _compiled(self.schema.text, record, before)

    def encode_body(self, record: R) -> bytes:
        """The record as ``Codec.encode`` encodes it, without the frame."""
        return self._write(record)


class Codec(Bodies[R]):
    """Encodes and decodes the records of one topic. The registry gets a request only for an unknown schema id."""

    def __init__(self, topic: Topic, record: type[R], registry: Registry, *, before: str | None = None) -> None:
        super().__init__(topic, record, before=before)
        self._registry = registry
        self._frame: bytes | None = None
        self._readers: dict[bytes, Reader] = {}

    def encode(self, record: R) -> bytes:
        """The record in the Confluent wire format; raises RegistryUnavailable as ``frame``."""
        return self.frame() + self._write(record)

    def frame(self) -> bytes:
        """The five bytes before the body of each record of ``encode``; RegistryUnavailable if the id is not known."""
        if self._frame is None:
            self._frame = framed(self._registry.id_of(self.schema), b"")
        return self._frame

    def own_frames(self) -> list[bytes]:
        """The frames that ``decode`` has read whose schema is the same as ours."""
        return [frame for frame, read in self._readers.items() if read is self._read_own]

    def decode(self, value: bytes | None) -> R:
        """The record, written with this schema or any compatible version of it.

        Raises Undecodable if the value is no such record, or RegistryUnavailable if its schema must be read first.
        """
        if value is None:
            raise Undecodable("the record has no value")
        try:
            frame = value[:_FRAME_BYTES]
            read = self._readers.get(frame)
            if read is None:
                read = self._readers[frame] = self._reader_of(frame)
            return read(value, _FRAME_BYTES)
        except (RegistryUnavailable, Undecodable):
            raise
        except Exception as error:
            # Damaged bytes raise EOFError, IndexError, ValueError, OverflowError and others.
            raise Undecodable(f"not a readable record: {type(error).__name__}: {error}") from error

    def _reader_of(self, frame: bytes) -> Reader:
        if len(frame) < _FRAME_BYTES or frame[0] != 0:
            raise Undecodable("not in the Confluent wire format")
        schema_id = int.from_bytes(frame[1:], "big")
        try:
            text = self._registry.text_of(schema_id)
        except UnknownSchema as error:
            raise Undecodable(f"its schema, id {schema_id}, is not known: {error}") from error
        written = _plain(json.loads(text))
        if written == self._own:
            return self._read_own
        writer, reader = fastavro.parse_schema(written), fastavro.parse_schema(self._own)

        def read(value: bytes, position: int) -> R:
            body = io.BytesIO(value)
            body.seek(position)
            return msgspec.convert(fastavro.schemaless_reader(body, writer, reader), self._record)

        return read


def framed(schema_id: int, body: bytes) -> bytes:
    """An Avro body in the Confluent wire format."""
    return b"\x00" + schema_id.to_bytes(4, "big") + body


task_event_codec = partial(Codec[TaskEvent], TASK_EVENTS, TaskEvent)
task_state_codec = partial(Codec[TaskState], TASK_STATES, TaskState)
task_notification_codec = partial(Codec[TaskNotification], TASK_NOTIFICATIONS, TaskNotification)
quarantined_callback_codec = partial(Codec[QuarantinedCallback], CALLBACKS_QUARANTINE, QuarantinedCallback)
person_codec = partial(Codec[PersonRecord], PEOPLE, PersonRecord)
form_codec = partial(Codec[Form], FORMS, Form)
form_data_codec = partial(Codec[FormData], FORM_DATA, FormData)
task_event_bodies = partial(Bodies[TaskEvent], TASK_EVENTS, TaskEvent)


def task_event_head_codec(registry: Registry, *, with_form: bool = False) -> Codec[TaskEvent]:
    """Reads events without ``raw_parameters`` and, by default, ``form_data``, which come last and no fold needs."""
    return Codec(TASK_EVENTS, TaskEvent, registry, before="raw_parameters" if with_form else "form_data")


@lru_cache(maxsize=64)  # compiling is slow, and many codecs of one process are for the same schema
def _compiled(text: str, record: type[Any], before: str | None) -> tuple[Any, Reader, Callable[[Any], bytes]]:
    """The schema, its reader and its writer."""
    own = _plain(json.loads(text))
    read = compile_reader(own, {**vars(events), own["name"]: record}, before=before)
    parsed = fastavro.parse_schema(own)

    def write(given: Any) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, msgspec.to_builtins(given, builtin_types=[bytes]))
        return body.getvalue()

    return own, read, write


def _plain(schema: Any) -> Any:
    """The schema without documentation, and with times as numbers."""
    if isinstance(schema, dict):
        members = cast("dict[str, Any]", schema)
        return {key: _plain(value) for key, value in members.items() if key not in ("doc", "logicalType")}
    return [_plain(each) for each in cast("list[Any]", schema)] if isinstance(schema, list) else schema
