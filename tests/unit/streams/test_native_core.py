"""The native core gives byte for byte what the Python implementation gives, for any chunk and whatever is stored."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.codec import framed, task_event_codec, task_event_head_codec, task_notification_codec, task_state_codec
from schemas.errors import RecordError, TaskbridgeError
from schemas.events import SOURCE_YIDA, Action, Person, TaskEvent
from schemas.registry import RegistryUnavailable, schema_text
from schemas.testing import FakeRegistry
from schemas.topics import TASK_EVENTS
from streams.folding import Folded
from streams.native_folding import IS_BUILT, NativeFolding
from streams.python_folding import PythonFolding
from streams.remembered_offsets import MAX_OFFSETS
from streams.store import PartitionNotHeld
from streams.stored_instance import StoreUnreadable, event_offsets, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypothesis.strategies import DataObject

    from streams.folding import Folding
    from streams.lifecycle import Instance

# Without a Rust toolchain the service runs the Python implementation, and there is nothing to compare it with.
pytestmark = pytest.mark.skipif(
    not IS_BUILT and shutil.which("cargo") is None, reason="no native core: there is no Rust toolchain here"
)

OWN_AGAIN, NEWER, OLDER_STATE_ID, NEVER_SEEN = 76, 77, 78, 99
"""Ids of schemas: ours with other words for people, a newer one, an older one of states, and none at all."""


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


def registry() -> FakeRegistry:
    found = FakeRegistry()
    found.others[OWN_AGAIN] = schema_text("TaskEvent").replace("One verified callback", "A callback")
    found.others[NEWER] = json.dumps(newer_event_schema())
    found.others[OLDER_STATE_ID] = json.dumps(older_state_schema())
    return found


REGISTRY = registry()
EVENTS = task_event_codec(REGISTRY)
STATES = task_state_codec(REGISTRY)
NEWER_SCHEMA = fastavro.parse_schema(newer_event_schema())
OLDER_STATE = fastavro.parse_schema(older_state_schema())

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

EVENT = st.builds(
    TaskEvent,
    event_id=st.sampled_from(("e1", "e2", "é")) | st.uuids().map(str),
    source=st.just(SOURCE_YIDA),
    action=st.sampled_from([each for each in Action if each is not Action.UNKNOWN] * 4 + [Action.UNKNOWN]),
    corp_id=st.sampled_from(("corp", "corp", "corp", "corp", "公司")),
    app_type=st.sampled_from(("APP", "APP", "A p/p")),
    instance_id=st.sampled_from(("I-1", "I-2", "实例")),
    occurred_at=MOMENTS,
    received_at=st.just(1),
    task_id=st.none() | st.sampled_from(("T-1", "T-2", "T-3", "")),
    actor_id=st.none() | PEOPLE,
    recipient_ids=FEW,
    originator=st.none() | st.builds(Person, PEOPLE, OPTIONAL),
    title=OPTIONAL,
    url=OPTIONAL,
    process_code=OPTIONAL,
    process_name=OPTIONAL,
    form_uuid=OPTIONAL,
    created_at=st.none() | MOMENTS,
    raw_parameters=st.just({"a": "b"}),
)


SAME_INSTANCE = st.builds(
    replace,
    EVENT.filter(lambda each: each.action is not Action.UNKNOWN),
    instance_id=st.just("I"),
    corp_id=st.just("corp"),
    occurred_at=st.integers(-2, 3),
    created_at=st.none() | st.integers(-2, 3),
)


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
            value = _damaged(value, draw)
        case "key":
            key = draw(st.none() | st.just(b"I-2") | st.binary(max_size=3))
        case "value":
            value = draw(st.none() | st.binary(max_size=12))
        case "frame":
            value = framed(draw(st.sampled_from((OWN_AGAIN, NEVER_SEEN))), value[5:])
        case "newer":
            value = by_newer_schema(event, delegated=draw(st.booleans()))
        case "crafted":
            value = crafted(event, draw)
        case _:
            pass
    return FakeRecord(key, value, draw(st.integers(0, 5) | st.integers(0, (1 << 63) - 1)))


def _damaged(whole: bytes, draw: st.DrawFn) -> bytes:
    damaged = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(damaged) - 1) | st.integers(0, min(40, len(damaged) - 1)))
        damaged[at] = draw(st.integers(0, 255))
    return bytes(damaged[: draw(st.none() | st.integers(0, len(damaged)))])


def crafted(event: TaskEvent, draw: st.DrawFn) -> bytes:
    """What no writer of ours would write and a reader may still take: long numbers, arrays in blocks, odd unions."""

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
    ]
    return framed(1, b"".join(parts) + draw(st.sampled_from((b"", b"\x00\x00"))))


def event(**fields: Any) -> TaskEvent:
    given: dict[str, Any] = {"action": Action.CREATED, "corp_id": "corp", "app_type": "APP", "occurred_at": 5, **fields}
    return TaskEvent(source=SOURCE_YIDA, instance_id="I", received_at=1, **given)


def in_order(instance: Instance) -> bool:
    """Whether all ids stand in their order and once, as every fold leaves them."""
    state, marks = instance.state, instance.marks
    lists = [
        [each.task_id for each in state.tasks],
        [each.user_id for each in state.copied],
        marks.originator_ids,
        marks.assignee_ids,
        *(each.assignee_ids for each in state.tasks),
        *(each.actor_ids for each in marks.tasks),
    ]
    return all(list(each) == sorted(set(each)) for each in lists)


CHUNKS = st.lists(st.lists(_records(), min_size=1, max_size=8), min_size=1, max_size=4)


def folding(kind: type[NativeFolding | PythonFolding], live_instances: int, *, now_ms: int = 0) -> Folding:
    return kind(
        events=task_event_head_codec(REGISTRY),
        states=task_state_codec(REGISTRY),
        notifications=task_notification_codec(REGISTRY),
        live_instances=live_instances,
        now_ms=lambda: now_ms,
    )


def plain(folded: Folded) -> dict[str, Any]:
    return {
        "stored": list(folded.stored.items()),
        "changelog": folded.changelog,
        "states": folded.states,
        "notifications": folded.notifications,
        # Also the words: what the core cannot read, the Python codec says what is wrong with.
        "rejected": [(each.record.offset, type(each.reason), str(each.reason)) for each in folded.rejected],
        "actions": dict(folded.actions),
        "changes": dict(folded.changes),
        "folded": folded.folded,
    }


def by_older_state_schema(stored: bytes) -> bytes:
    """The same instance as a version wrote it whose state has one field more."""
    length, state = int.from_bytes(stored[10:14], "big"), io.BytesIO()
    body = fastavro.schemaless_reader(io.BytesIO(stored[21 : 16 + length]), fastavro.parse_schema(STATES_SCHEMA), None)
    fastavro.schemaless_writer(state, OLDER_STATE, {**cast("dict[str, Any]", body), "colour": "red"})
    framed_state = framed(OLDER_STATE_ID, state.getvalue())
    return stored[:10] + len(framed_state).to_bytes(4, "big") + stored[14:16] + framed_state + stored[16 + length :]


def fold_both(records: Sequence[FakeRecord], stored: dict[bytes, bytes]) -> tuple[Folded | type, Folded | type]:
    """What each comes to, or what it raises."""
    found: list[Folded | type] = []
    for kind in (NativeFolding, PythonFolding):
        try:
            found.append(folding(kind, 0).fold(list(records), stored.get, generation=1))
        except TaskbridgeError as error:
            found.append(type(error))
    return found[0], found[1]


def stored_after(events: Iterable[TaskEvent]) -> dict[bytes, bytes]:
    records: list[Any] = [
        FakeRecord(each.instance_id.encode(), EVENTS.encode(each), at) for at, each in enumerate(events)
    ]
    return folding(PythonFolding, 0).fold(records, lambda _: None, generation=1).stored


@settings(max_examples=150, deadline=None)
@given(chunks=CHUNKS, live=st.sampled_from((0, 1, 100)), now_ms=st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_chunks_come_to_the_same_bytes(chunks: list[list[FakeRecord]], live: int, now_ms: int) -> None:
    native, python = folding(NativeFolding, live, now_ms=now_ms), folding(PythonFolding, live, now_ms=now_ms)
    stored: dict[bytes, bytes] = {}
    for chunk in chunks:
        records: list[Any] = list(chunk)
        ours = native.fold(records, stored.get, generation=1)
        theirs = python.fold(records, stored.get, generation=1)
        assert plain(ours) == plain(theirs)
        stored |= ours.stored
        native.keep(ours, generation=1)
        python.keep(theirs, generation=1)


@settings(max_examples=50, deadline=None)
@given(life=st.data(), repeats=st.integers(1, 3))
def test_whole_lives_come_to_the_same_bytes_in_any_order(life: DataObject, repeats: int) -> None:
    """One instance of one organisation, so that nothing is refused and everything meets."""
    draw = life.draw
    events = draw(st.lists(SAME_INSTANCE, min_size=1, max_size=25))
    order = draw(st.permutations(events * repeats))
    records: list[Any] = [FakeRecord(b"I", EVENTS.encode(each), 7 * at) for at, each in enumerate(order)]
    native, python = folding(NativeFolding, 10), folding(PythonFolding, 10)
    ours, theirs = (each.fold(records, lambda _: None, generation=1) for each in (native, python))
    assert plain(ours) == plain(theirs)
    assert ours.folded == len(records)


def test_large_instances_come_to_the_same_bytes() -> None:
    """Whose lists, texts and numbers need the longest forms of each length."""
    many = tuple(f"{number}" for number in range(66_000))
    large = [event(event_id="1", recipient_ids=many), event(event_id="2" * 300, action=Action.DELETED)]
    wide = [event(event_id="1" * 70_000, originator=Person("ann"), title="长" * 70_000)]
    long = [event(event_id=f"e{n}", task_id=f"T-{n}", recipient_ids=many[: n % 40], url="u" * n) for n in range(300)]
    for events in (large, wide, long):
        records = [FakeRecord(b"I", EVENTS.encode(each), at << 20) for at, each in enumerate(events)]
        ours, theirs = fold_both(records, {})
        assert isinstance(ours, Folded)
        assert isinstance(theirs, Folded)
        assert plain(ours) == plain(theirs)
        assert event_offsets(ours.stored[b"I"]) == tuple(each.offset for each in records)[-MAX_OFFSETS:]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_store_is_unreadable_to_both_or_the_same_to_both(data: DataObject) -> None:
    events = data.draw(st.lists(SAME_INSTANCE, min_size=1, max_size=4))
    stored = {key: _damaged(value, data.draw) for key, value in stored_after(events).items()}
    try:
        instance = unpack(stored[b"I"], STATES)
        event_offsets(stored[b"I"])
    except StoreUnreadable:
        instance = None
    ours, theirs = fold_both([FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)], stored)
    if instance is None:
        assert ours is theirs is StoreUnreadable
    elif instance == unpack(stored_after(events)[b"I"], STATES) or in_order(instance):
        assert not isinstance(ours, type)
        assert not isinstance(theirs, type)
        assert plain(ours) == plain(theirs)
    # Else the damage made an instance that no fold can end in, with its ids out of order: each makes of it what it can.


@settings(max_examples=50, deadline=None)
@given(events=st.lists(SAME_INSTANCE, min_size=1, max_size=6))
def test_a_store_that_another_version_of_the_schema_wrote_is_read_by_that_version(events: list[TaskEvent]) -> None:
    stored = {key: by_older_state_schema(value) for key, value in stored_after(events).items()}
    ours, theirs = fold_both([FakeRecord(b"I", EVENTS.encode(event(event_id="last")), 9)], stored)
    assert not isinstance(ours, type)
    assert not isinstance(theirs, type)
    assert plain(ours) == plain(theirs)


def test_events_of_our_own_schema_under_another_id_need_no_translation_but_the_first() -> None:
    translated: list[bytes | None] = []

    class Counting(NativeFolding):
        def _translate(self, value: bytes | None) -> bytes | RecordError:
            translated.append(value)
            return super()._translate(value)

    native = folding(Counting, 0)
    value = framed(OWN_AGAIN, EVENTS.encode_body(event(event_id="1")))
    for offset in range(3):
        records: list[Any] = [FakeRecord(b"I", value, offset), FakeRecord(b"I", EVENTS.encode(event(event_id="2")))]
        assert native.fold(records, lambda _: None, generation=1).folded == 2
    assert len(translated) == 2


def test_a_registry_that_is_away_is_not_the_records_fault() -> None:
    away = FakeRegistry()
    away.away = True
    native = NativeFolding(
        events=task_event_head_codec(away),
        states=task_state_codec(away),
        notifications=task_notification_codec(away),
        live_instances=0,
    )
    records: list[Any] = [FakeRecord(b"I", framed(NEVER_SEEN, b"x"))]
    with pytest.raises(RegistryUnavailable):
        native.fold(records, lambda _: None, generation=1)


def test_what_the_store_raises_comes_through_and_leaves_no_trace() -> None:
    def gone(key: bytes) -> bytes | None:
        raise PartitionNotHeld(key.decode())

    native = folding(NativeFolding, 10)
    records: list[Any] = [FakeRecord(b"I", EVENTS.encode(event(event_id="1")))]
    with pytest.raises(PartitionNotHeld):
        native.fold(records, gone, generation=1)
    assert native.fold(records, lambda _: None, generation=1).folded == 1


def test_an_instance_in_memory_is_found_in_its_generation_only_and_not_once_it_is_let_go() -> None:
    reads: list[bytes] = []
    native = folding(NativeFolding, 10)
    records: list[Any] = [FakeRecord(b"I", EVENTS.encode(event(event_id="1")))]
    for generation, forgotten in ((1, False), (1, False), (2, False), (2, True), (2, False)):
        if forgotten:
            native.forget([b"I"])
        native.keep(native.fold(records, reads.append, generation=generation), generation=generation)
        reads.append(b"-")
    assert reads == [b"I", b"-", b"-", b"I", b"-", b"I", b"-", b"-"]


def test_the_core_is_built_where_a_toolchain_is() -> None:
    assert IS_BUILT
