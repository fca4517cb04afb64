"""Exports results of the Python fold for the native core's own test, ``tests/native/fold_vectors.rs``.

``PYTHONPATH=tests uv run python -m support.streams.fold_vectors`` writes ``tests/vectors/fold-vectors.json``, with
bytes in hex.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from support.streams.fold_inputs import EVENTS, REGISTRY, FakeRecord, event, reading
from taskbridge.schemas.cloudevents import NOTIFICATION_TYPES
from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.events import (
    AHEAD_MS,
    FIRST_MS,
    ID_NAMESPACE,
    LAST_MS,
    MAX_ID_CHARACTERS,
    Action,
    Change,
    Person,
    View,
)
from taskbridge.streams.fold.core import MAX_PUBLISHED_BYTES
from taskbridge.streams.fold.instance import FORM_BYTES
from taskbridge.streams.fold.native import RULES
from taskbridge.streams.fold.python import PythonCore
from taskbridge.streams.fold.rejections import Refusal, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.schemas.errors import RecordError
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.core import Folded


PATH = Path(__file__).parents[2] / "vectors" / "fold-vectors.json"

LIVES, CHUNKS, RECORDS = 24, 3, 4
NOW_MS = 1_700_000_000_000
RECEIVED = 1_600_000_000_000

Json = dict[str, Any]


def vectors() -> str:
    states, notifications = task_state_codec(REGISTRY), task_notification_codec(REGISTRY)
    written = {
        **RULES,
        "id_namespace": ID_NAMESPACE.hex(),
        "now_ms": NOW_MS,
        "event_frame": EVENTS.frame().hex(),
        "state_frame": states.frame().hex(),
        "notification_frame": notifications.frame().hex(),
    }
    lives: list[list[Json]] = []
    for life in (*map(by_chance, range(LIVES)), *at_the_bounds()):
        stored: dict[bytes, bytes] = {}
        lives.append([])
        for records, too_large, max_published_bytes, form_fields in life:
            folding = PythonCore(
                events=task_event_head_codec(REGISTRY, with_form=bool(form_fields)),
                states=states,
                notifications=notifications,
                form_fields=form_fields,
                now_ms=lambda: NOW_MS,
                max_published_bytes=max_published_bytes,
            )
            folded = folding.fold([*records], reading(stored), too_large=too_large)
            stored |= folded.stored
            chunk: Json = {
                "too_large": sorted(too_large),
                "max_published_bytes": max_published_bytes,
                "form_fields": sorted(form_fields),
                "records": [[in_hex(each.key), in_hex(each.value), each.offset] for each in records],
            }
            lives[-1].append(chunk | expected(folded, records))
    lines = ",\n".join(json.dumps(chunks, separators=(",", ":"), ensure_ascii=False) for chunks in lives)
    return f'{json.dumps(written)[:-1]}, "lives": [\n{lines}\n]}}\n'


Chunk = tuple[list[FakeRecord], set[int], int, frozenset[str]]
"""Records, offsets of events that are too large, the most bytes of an event's notifications, names of form fields."""


def by_chance(number: int) -> list[Chunk]:
    """A few instances whose events come in any order; some records are damaged, misplaced or of another corp."""
    chance = random.Random(number)
    chunks: list[Chunk] = []
    for chunk in range(CHUNKS):
        records = [record(chance, chunk * RECORDS + at) for at in range(RECORDS)]
        too_large = {chance.randrange(CHUNKS * RECORDS)} if chance.random() < 0.2 else set[int]()
        form_fields = frozenset(chance.choice(("", "", "*", "a")))
        chunks.append((records, too_large, 200 if chance.random() < 0.1 else MAX_PUBLISHED_BYTES, form_fields))
    return chunks


def record(chance: random.Random, offset: int) -> FakeRecord:
    def some(*values: Any) -> Any:
        return chance.choice(values)

    people = ("ann", "bob", "王伟")
    drawn = event(
        event_id=f"e{chance.randrange(9)}",
        action=some(*Action) if chance.random() < 0.1 else some(*list(Action)[:5]),
        corp_id=some(*["corp"] * 15, "公 司/"),
        app_type=some(*["APP"] * 9, "A p"),
        source=some(*["yida"] * 15, "flow able"),
        occurred_at=RECEIVED + chance.randrange(4),
        received_at=RECEIVED + chance.randrange(2),
        created_at=some(None, None, RECEIVED - 1, RECEIVED + 2),
        task_id=some(None, "T-1", "T-2", "T-3"),
        actor_id=some(None, *people),
        recipient_ids=tuple(chance.sample(people, chance.randrange(3))),
        originator=some(None, None, Person("ann", "Ann"), Person("bob")),
        title=some(None, "a", "t" * 40),
        url=some(None, None, "https://a"),
        process_code=some(None, "P"),
        process_name=some(None, "请假"),
        form_uuid=some(None, "F"),
        serial_no=some(None, "17"),
        instance_status=some(None, "RUNNING", "TERMINATED"),
        approved_result=some(None, "", "agree"),
        finished_at=some(None, None, RECEIVED + 3),
        outcome=some(None, "agree"),
        remark=some(None, "好"),
        step_name=some(None, None, "部门审批"),
        step_id=some(None, None, "n1"),
        decided_by=some(None, None, "PERSON", "AUTOMATIC"),
        due_at=some(None, None, RECEIVED + 9),
        recovered_by=some(None, None, "reconcile"),
        form_data={each: some(None, "", "三") for each in chance.sample("abc", chance.randrange(3))},
    )
    drawn = replace(drawn, instance_id=some("I-1", "I-1", "I-1", "实例"))
    key, value = drawn.instance_id.encode(), EVENTS.encode(drawn)
    match some(*["whole"] * 20, "misplaced", "cut", "nothing", "unframed"):
        case "misplaced":
            return FakeRecord(some(None, b"I-2"), value, offset)
        case "cut":
            return FakeRecord(key, value[: chance.randrange(len(value) // 2)], offset)
        case "nothing":
            return FakeRecord(key, None, offset)
        case "unframed":
            return FakeRecord(key, value[1:], offset)
        case _:
            # Some come again.
            return FakeRecord(key, value, chance.randrange(offset + 1) if chance.random() < 0.1 else offset)


def at_the_bounds() -> Iterator[list[Chunk]]:
    """Values on both sides of each limit and length."""
    edge = "长" * (MAX_ID_CHARACTERS - 1)
    ids = ("", "I", f"{edge}I", f"{edge}II", "I\x1f", "I\x7f", "I\x9f", "I\xa0")
    yield [whole([replace(event(event_id="e"), instance_id=each) for each in ids])]
    for field in ("occurred_at", "created_at", "finished_at", "due_at"):
        for bound in (FIRST_MS, LAST_MS):
            moments = [{field: bound + step, "received_at": bound} for step in (-1, 0, 1)]
            yield [whole([event(event_id="e", originator=Person("ann"), **each) for each in moments])]
        ahead = [{field: RECEIVED + AHEAD_MS + step, "received_at": RECEIVED} for step in (0, 1)]
        yield [whole([event(event_id="e", originator=Person("ann"), **each) for each in ahead])]
    yield [whole([event(event_id="e", received_at=FIRST_MS - 1, occurred_at=FIRST_MS + AHEAD_MS)])]
    for count in (15, 16):
        many = tuple(f"{each}" for each in range(count))
        decided = [event(event_id="d", action=Action.COMPLETED, task_id="T", actor_id=each) for each in many]
        yield [whole([event(event_id="e", recipient_ids=many), *decided], step=1 << count), whole(decided[:1])]
    for length in (31, 32, 127, 128, 255, 256):
        long = event(event_id="e" * length, task_id="T", url="u" * length, recipient_ids=("ann",))
        yield [whole([long]), whole([long])]
    for at in (15, 16):
        by_others = [
            event(event_id=f"o{each}", action=Action.COMPLETED, task_id="T", actor_id=f"{each}") for each in range(at)
        ]
        said = event(event_id="c", action=Action.COMPLETED, task_id="T", actor_id="ann", occurred_at=7, remark="r" * at)
        found = replace(said, event_id="r", occurred_at=4, recovered_by="reconcile", outcome="agree")
        unnamed = replace(said, event_id="n", actor_id=None, occurred_at=9)
        cancelled = replace(said, event_id="x", action=Action.CANCELLED, occurred_at=3, recovered_by="backfill")
        yield [whole([*by_others, said, unnamed, found]), whole([cancelled, replace(cancelled, event_id="y"), said])]
    # One is repeated, the other is the later one of the app and of nothing else.
    yield [whole([event(event_id="e1", recipient_ids=("bob", "ann", "bob")), event(event_id="e2")])]
    forms = ({"b": "x", "a": None}, {"a": "长" * 2730, "b": "x"}, {"c": "y"}, {"b": "2", "a": "z" * (FORM_BYTES - 1)})
    yield [whole([event(event_id=f"{at}", form_data=each) for at, each in enumerate(forms)], form_fields="*")]
    for form in forms:
        yield [whole([event(event_id="e", form_data=form)], form_fields="*")]
    for moment in (
        -33,
        -129,
        -32_769,
        -1,
        0,
        128,
        32_768,
        65_536,
        951_782_399_999,
        951_868_800_000,
        1_709_164_800_000,
        -2_203_891_200_001,
    ):
        yield [whole([event(event_id="e", occurred_at=moment, received_at=moment, originator=Person("ann"))])]


def whole(events: list[TaskEvent], *, step: int = 1, form_fields: str = "") -> Chunk:
    records = [
        FakeRecord(each.instance_id.encode(), EVENTS.encode(each), 7 + step * at) for at, each in enumerate(events)
    ]
    return records, set(), MAX_PUBLISHED_BYTES, frozenset(form_fields)


def expected(folded: Folded, records: list[FakeRecord]) -> Json:
    refusals = [(records.index(cast("FakeRecord", each.record)), refusal_of(each.reason)) for each in folded.rejected]
    return {
        "unread": [at for at, refusal in refusals if refusal is None],
        "refused": [[at, *refusal] for at, refusal in refusals if refusal is not None],
        "stored": [[key.hex(), value.hex()] for key, value in folded.stored.items()],
        "states": [state_of(*each) for each in folded.states],
        "notifications": [notification_of(*each) for each in folded.notifications],
        "actions": [folded.actions.get(each, 0) for each in Action],
        "changes": [[folded.changes.get((view, change), 0) for change in list(Change)[:3]] for view in list(View)[:4]],
        "unpublished": sorted(folded.unpublished),
        "largest": folded.largest,
    }


def refusal_of(reason: RecordError) -> tuple[int, list[str]] | None:
    """Its index and the values in its text; None where the codec could not read the record."""
    for place, refusal in enumerate(Refusal):
        code, words = refusal.value
        found = re.fullmatch(re.escape(words).replace(r"\{\}", "(.*)"), str(reason))
        if isinstance(reason, Refused) and reason.dlq_reason == code and found:
            return place, list(found.groups())
    return None


def state_of(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> list[Any]:
    """Without the value, which is a part of what is stored."""
    return [in_hex(key), value is None, dict(headers)["ce_id"].decode(), *source_and_time(headers)]


def notification_of(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> list[Any]:
    """Without the id, which is a part of the value."""
    change = [kind for _, kind in NOTIFICATION_TYPES.values()].index(dict(headers)["ce_type"])
    return [in_hex(key), in_hex(value), change, *source_and_time(headers)]


def source_and_time(headers: list[tuple[str, bytes]]) -> list[str]:
    return [dict(headers)[name].decode() for name in ("ce_source", "ce_time")]


def in_hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


if __name__ == "__main__":
    PATH.write_text(vectors(), "utf-8")
