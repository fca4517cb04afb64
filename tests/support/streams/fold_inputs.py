"""Records for tests of the fold: whole, damaged, misplaced, crafted, and written with other versions of the schemas."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import fastavro
import msgspec
from hypothesis import strategies as st

from taskbridge.cli.schemas import versions_folder
from taskbridge.schemas.codec import framed, task_event_codec
from taskbridge.schemas.events import SOURCE_YIDA, Action, Person, TaskEvent
from taskbridge.schemas.registry import schema_text
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.schemas.views import Entry
from taskbridge.streams.tables.store import OFFSET_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.fold.core import Read


OWN_AGAIN, NEWER, OLDER_STATE_ID, FIRST_STATE_ID, THIRD_STATE_ID, FOURTH_STATE_ID, NEVER_SEEN = (
    *(76, 77, 78, 79, 80, 81),
    99,
)
"""Ids of schemas: ours with other words for people, a newer one, an older of states, their first, third, fourth, none.
"""


def newer_event_schema() -> dict[str, Any]:
    """As a later version may be: one more field in front of those that are read, one less, and one more action."""
    schema = json.loads(schema_text("TaskEvent"))
    fields = [each for each in schema["fields"] if each["name"] != "process_name"]
    action = next(each for each in fields if each["name"] == "action")
    action["type"]["symbols"].append("DELEGATED")
    more = {"name": "delegated_to", "type": ["null", "string"], "default": None, "doc": "Who."}
    return {**schema, "fields": [more, *fields]}


STATES_SCHEMA: dict[str, Any] = json.loads(schema_text("TaskState"))


def older_state_schema() -> dict[str, Any]:
    return {**STATES_SCHEMA, "fields": [*STATES_SCHEMA["fields"], {"name": "colour", "type": "string", "default": ""}]}


def published_schema(record: str, version: int) -> str:
    return (versions_folder() / f"{record}.{version}.avsc").read_text("utf-8")


def registry() -> FakeRegistry:
    found = FakeRegistry()
    found.others[FIRST_STATE_ID] = published_schema("TaskState", 1)
    found.others[THIRD_STATE_ID] = published_schema("TaskState", 3)
    found.others[FOURTH_STATE_ID] = published_schema("TaskState", 4)
    found.others[OWN_AGAIN] = schema_text("TaskEvent").replace("One verified callback", "A callback")
    found.others[NEWER] = json.dumps(newer_event_schema())
    found.others[OLDER_STATE_ID] = json.dumps(older_state_schema())
    return found


REGISTRY = registry()
EVENTS = task_event_codec(REGISTRY)
NEWER_SCHEMA = fastavro.parse_schema(newer_event_schema())
OLDER_STATE = fastavro.parse_schema(older_state_schema())
FIRST_STATE, THIRD_STATE, FOURTH_STATE = (
    fastavro.parse_schema(json.loads(published_schema("TaskState", each))) for each in (1, 3, 4)
)

TEXTS = st.sampled_from(("x", "y", "", "王伟", "ä/b c%~\U0001f600", "\x00\x7f", "z" * 40, "长" * 60)) | st.text(
    max_size=5
)
PEOPLE = st.sampled_from(("ann", "bob", "cai", "王伟", "", "d" * 300))
MOMENTS = (
    st.integers(-2, 3)
    | st.integers(1_700_000_000_000, 1_700_000_000_003)
    | st.sampled_from((-62_135_596_800_000, 253_402_300_799_999, 951_782_399_999, 951_868_800_000, -1_234_567_890_123))
    | st.integers(-62_135_596_800_002, 253_402_300_800_002)
    | st.sampled_from((-(1 << 63), (1 << 63) - 1))
)
OPTIONAL = st.none() | TEXTS
FEW = st.lists(PEOPLE, max_size=3).map(tuple)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.sampled_from(("e1", "e2", "é")) | st.uuids().map(str),
    "source": st.sampled_from((SOURCE_YIDA, SOURCE_YIDA, SOURCE_YIDA, "flow able")),
    "action": st.sampled_from([each for each in Action if each is not Action.UNKNOWN] * 4 + [Action.UNKNOWN]),
    "corp_id": st.sampled_from(("corp", "corp", "corp", "corp", "公司")),
    "app_type": st.sampled_from(("APP", "APP", "A p/p")),
    "instance_id": st.sampled_from(("I-1", "I-2", "实例") * 4)
    | st.sampled_from(("", "长" * 128, "长" * 129, "I\x9f", "I\xa0\u200b", OFFSET_KEY.decode())),
    "occurred_at": MOMENTS,
    "received_at": st.just(1_700_000_000_000) | MOMENTS,
    "task_id": st.none() | st.sampled_from(("T-1", "T-2", "T-3", "")),
    "actor_id": st.none() | PEOPLE,
    "recipient_ids": FEW,
    "originator": st.none() | st.builds(Person, PEOPLE, OPTIONAL),
    "title": OPTIONAL,
    "url": OPTIONAL,
    "process_code": OPTIONAL,
    "process_name": OPTIONAL,
    "form_uuid": OPTIONAL,
    "serial_no": OPTIONAL,
    "instance_status": OPTIONAL,
    "approved_result": OPTIONAL,
    "created_at": st.none() | MOMENTS,
    "finished_at": st.none() | MOMENTS,
    "outcome": OPTIONAL,
    "remark": OPTIONAL,
    "step_name": OPTIONAL,
    "step_id": OPTIONAL,
    "decided_by": OPTIONAL,
    "due_at": st.none() | MOMENTS,
    "recovered_by": st.none() | st.sampled_from(("reconcile", "")),
    "form_data": st.dictionaries(
        st.sampled_from(("a", "b", "长", "")) | st.text(max_size=3),
        OPTIONAL | st.sampled_from(("v" * 5000, "长" * 2000)),
        max_size=4,
    ),
    "raw_parameters": st.just({"a": "b"}),
}
EVENT = st.builds(TaskEvent, **FIELDS)
SAME_INSTANCE = st.builds(
    TaskEvent,
    **{
        **FIELDS,
        "action": st.sampled_from([each for each in Action if each is not Action.UNKNOWN]),
        "instance_id": st.just("I"),
        "corp_id": st.just("corp"),
        "source": st.just(SOURCE_YIDA),
        "app_type": st.just("APP"),
        "occurred_at": st.integers(-2, 3),
        "created_at": st.none() | st.integers(-2, 3),
        "finished_at": st.none() | st.integers(-2, 3),
        "due_at": st.none() | st.integers(-2, 3),
        # Of the second, most dates are too far ahead.
        "received_at": st.sampled_from((1, -300_001)),
    },
)
"""Of one instance of one app: nothing is refused, and everything meets."""


@dataclass(frozen=True)
class FakeRecord:
    key: bytes | None
    value: bytes | None
    offset: int = 0
    topic: str = TASK_EVENTS.name
    partition: int = 3
    headers: Sequence[tuple[str, bytes]] = ()


def by_newer_schema(event: TaskEvent, *, delegated: bool) -> bytes:
    body = io.BytesIO()
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__ if name != "process_name"}
    person = event.originator
    fields["originator"] = person and {"user_id": person.user_id, "name": person.name}
    fields["action"] = "DELEGATED" if delegated else event.action.value
    fastavro.schemaless_writer(
        body, NEWER_SCHEMA, {"delegated_to": "x", **fields, "recipient_ids": [*event.recipient_ids]}
    )
    return framed(NEWER, body.getvalue())


@st.composite
def _records(draw: st.DrawFn) -> FakeRecord:
    event = draw(EVENT)
    key: bytes | None = event.instance_id.encode()
    value: bytes | None = EVENTS.encode(event)
    match draw(st.sampled_from(("whole",) * 8 + ("damaged", "damaged", "key", "value", "frame", "newer", "crafted"))):
        case "damaged":
            value = draw(damaged(value))
        case "key":
            key = draw(st.none() | st.just(b"I-2") | st.binary(max_size=3))
        case "value":
            value = draw(st.none() | st.binary(max_size=12))
        case "frame":
            value = framed(draw(st.sampled_from((OWN_AGAIN, NEVER_SEEN))), value[5:])
        case "newer":
            value = by_newer_schema(event, delegated=draw(st.booleans()))
        case "crafted":
            value = crafted(draw, event)
        case _:
            pass
    return FakeRecord(key, value, draw(st.integers(0, 5) | st.integers(0, (1 << 63) - 1)))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(found) - 1) | st.integers(0, min(40, len(found) - 1)))
        found[at] = draw(st.integers(0, 255))
    return bytes(found[: draw(st.none() | st.integers(0, len(found)))])


def crafted(draw: st.DrawFn, event: TaskEvent) -> bytes:
    """Valid Avro that our writers never produce: long numbers, arrays in blocks, unusual unions."""

    def text(value: str, extra: bytes = b"") -> bytes:
        return number(len(value.encode())) + extra + value.encode()

    def number(value: int) -> bytes:
        folded = (value << 1) ^ (value >> 63)
        written = bytearray()
        while folded >= 128:
            written.append(folded & 127 | 128)
            folded >>= 7
        written.append(folded)
        pad = draw(st.sampled_from((0, 0, 0, 0, 1, 8)))
        if pad:
            written[-1] |= 128
            written += b"\x80" * (pad - 1) + draw(st.sampled_from((b"\x00", b"\x00", b"\x01", b"\x02")))
        return bytes(written)

    def optional(value: str | None) -> bytes:
        return b"\x00" if value is None else draw(st.sampled_from((b"\x02", b"\x02", b"\x04", b"\x81"))) + text(value)

    blocks = b"".join(
        number(-1) + number(draw(st.integers(0, 9))) + text(each) if draw(st.booleans()) else number(1) + text(each)
        for each in event.recipient_ids
    )
    empty = draw(st.sampled_from((b"", b"", b"\x80\x00")))
    parts = [
        *(text(each) for each in (event.event_id, event.source)),
        number(draw(st.integers(-2, 6))),
        *(text(each) for each in (event.corp_id, event.app_type, event.instance_id)),
        *(optional(each) for each in (event.task_id, event.actor_id)),
        empty + blocks + b"\x00",
        *(optional(None) for _ in range(1)),
        *(optional(each) for each in (event.title, event.url, None, None, None, None, None, None)),
        b"\x00\x00",
        number(event.occurred_at),
        number(event.received_at),
        *(optional(each) for each in (event.outcome, event.remark, event.step_name, event.step_id, event.decided_by)),
        b"\x00",
        optional(event.recovered_by),
    ]
    field = text(draw(st.sampled_from("ab"))) + optional(draw(OPTIONAL))
    form = draw(st.sampled_from((b"", number(-1) + number(0) + field, number(2) + 2 * field)))
    return framed(1, b"".join(parts) + draw(st.sampled_from((b"", empty + form + b"\x00\x00"))))


def event(**fields: Any) -> TaskEvent:
    given: dict[str, Any] = {
        "source": SOURCE_YIDA,
        "action": Action.CREATED,
        "corp_id": "corp",
        "app_type": "APP",
        "occurred_at": 5,
        "received_at": 10_000,
        **fields,
    }
    return TaskEvent(instance_id="I", **given)


CHUNKS = st.lists(st.lists(_records(), min_size=1, max_size=8), min_size=1, max_size=4)


def by_older_state_schema(stored: bytes) -> bytes:
    """The same instance as a version wrote it whose state has one field more."""
    return _by_state_schema(stored, OLDER_STATE_ID, OLDER_STATE, colour="red")


def by_first_state_schema(stored: bytes, *, schema_id: int = FIRST_STATE_ID) -> bytes:
    """The same instance as the first version wrote it, that knew no source and none of ``DETAILS``."""
    return _with_marks(_by_state_schema(stored, schema_id, FIRST_STATE), 7)


def by_third_state_schema(stored: bytes, *, schema_id: int = THIRD_STATE_ID) -> bytes:
    """The same instance as a version wrote it whose states lacked ``began_at`` and ``assignee_ids``."""
    return _by_state_schema(stored, schema_id, THIRD_STATE)


def _by_state_schema(stored: bytes, schema_id: int, schema: Any, **more: object) -> bytes:
    length, state = int.from_bytes(stored[10:14], "big"), io.BytesIO()
    body = fastavro.schemaless_reader(io.BytesIO(stored[21 : 16 + length]), fastavro.parse_schema(STATES_SCHEMA), None)
    fastavro.schemaless_writer(state, schema, {**cast("dict[str, Any]", body), **more})
    framed_state = framed(schema_id, state.getvalue())
    return stored[:10] + len(framed_state).to_bytes(4, "big") + stored[14:16] + framed_state + stored[16 + length :]


def by_version_without_beginnings(stored: bytes) -> bytes:
    """The same instance as a version wrote it that had fewer marks."""
    return _with_marks(stored, 5)


def by_version_without_recovery(stored: bytes) -> bytes:
    """The same instance as a version wrote it that remembered less of each task."""
    begin, (facts, tasks, *others) = _marks(stored)
    return stored[:begin] + msgspec.msgpack.encode([facts, [each[:3] for each in tasks], *others])


def by_version_without_steps(stored: bytes, *, schema_id: int = FOURTH_STATE_ID) -> bytes:
    """The same instance as a version wrote it that knew no steps."""
    stored = _by_state_schema(stored, schema_id, FOURTH_STATE)
    begin, (facts, tasks, *others) = _marks(stored)
    older = [[*each[:4], [decision[:7] for decision in each[4]]] for each in tasks]
    return stored[:begin] + msgspec.msgpack.encode([facts, older, *others])


def by_version_with_offsets(stored: bytes, offsets: Sequence[int]) -> bytes:
    """The same instance as a version wrote it that remembered the offsets of its last events, each as a distance."""
    written, last = bytearray(), 0
    for offset in offsets:
        rest, last = offset - last, offset
        while rest > 0x7F:
            written.append(rest & 0x7F | 0x80)
            rest >>= 7
        written.append(rest)
    begin, _ = _marks(stored)
    between = begin - int.from_bytes(stored[14:16], "big")
    return stored[:14] + len(written).to_bytes(2, "big") + stored[16:between] + bytes(written) + stored[begin:]


def _with_marks(stored: bytes, count: int) -> bytes:
    begin, marks = _marks(stored)
    return stored[:begin] + msgspec.msgpack.encode(marks[:count])


def _marks(stored: bytes) -> tuple[int, list[Any]]:
    """Where they begin, and what they are."""
    begin = 16 + int.from_bytes(stored[10:14], "big") + int.from_bytes(stored[14:16], "big")
    return begin, msgspec.msgpack.decode(stored[begin:])


def entry_of(notification: TaskNotification) -> Entry:
    """The whole entry that a notification carries, with its times."""
    assert notification.entered_at is not None
    assert notification.updated_at is not None
    return Entry(
        title=notification.title,
        url=notification.url,
        app_type=notification.app_type,
        originator=notification.originator,
        actor_id=notification.actor_id,
        status=notification.status,
        process_name=notification.process_name,
        source=notification.source,
        entered_at=notification.entered_at,
        updated_at=notification.updated_at,
        outcome=notification.outcome,
        remark=notification.remark,
        finished_at=notification.finished_at,
        result=notification.result,
        step_name=notification.step_name,
        step_id=notification.step_id,
        decided_by=notification.decided_by,
        due_at=notification.due_at,
    )


def reading(stored: Mapping[bytes, bytes], *, reads: list[bytes] | None = None) -> Read:
    """A store with these values; the keys that are read are appended to ``reads``."""

    def read(keys: list[bytes]) -> list[bytes | None]:
        if reads is not None:
            reads.extend(keys)
        return list(map(stored.get, keys))

    return read
