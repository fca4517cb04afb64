"""A dead letter has a declared reason, which never changes. A mark of a replay is different from every entry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from support.center_records import FakeMessage
from taskbridge.schemas.dead_letters import (
    DlqReason,
    dead_letter_headers,
    dead_letter_of,
    replay_headers,
    replay_of,
    without_replays,
)

if TYPE_CHECKING:
    from confluent_kafka import Message

    from taskbridge.schemas.cloudevents import Header

ROOT = Path(__file__).parents[3]
AT_MS, AT = 1_769_846_400_000, "2026-01-31T08:00:00.000Z"


def record(value: bytes | None, headers: list[Header]) -> Message:
    return cast("Message", FakeMessage("dlq", 0, 0, None, value, headers))


def test_the_reasons_on_the_topic_never_change() -> None:
    assert sorted(DlqReason) == [
        "another-app",
        "another-corp",
        "misplaced-key",
        "outside-contract",
        "too-large",
        "undecodable",
        "unknown-action",
    ]


def test_the_runbook_explains_every_reason() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    section = runbook.split("\n## StreamsDeadLetters\n")[1].split("\n## ")[0]
    assert [each for each in DlqReason if f"`{each}`" not in section] == []


def test_the_written_headers_are_read_back() -> None:
    added = dead_letter_headers(DlqReason.TOO_LARGE, "x" * 2000, topic="t", partition=3, offset=42, now_ms=0)
    letter = dead_letter_of(record(None, [("ce_id", b"x"), *added]))
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (DlqReason.TOO_LARGE, "t", 3, 42)
    assert letter.parked_at == "1970-01-01T00:00:00.000Z"
    assert letter.detail == "x" * 1000
    assert not letter.was_left
    assert letter.received_headers == [("ce_id", b"x")]


def test_a_mark_names_the_replayed_entry_and_the_time() -> None:
    assert replay_of(record(None, replay_headers("3-17", AT_MS))) == ("3-17", AT)


def test_no_entry_is_read_as_a_mark() -> None:
    mark = replay_headers("3-17", AT_MS)
    # A dead letter has all headers that were received, possibly these, and its own.
    for entry in (record(b"", mark), record(None, []), record(None, [*mark, ("dlq_reason", b"undecodable")])):
        assert replay_of(entry) is None


def test_entries_come_without_marks_and_the_first_replay_counts() -> None:
    entry = record(b"entry", [])
    replays: dict[str, str] = {}
    marks = [record(None, replay_headers("1", AT_MS + each)) for each in (0, 1)]
    assert list(without_replays([*marks, entry], replays)) == [entry]
    assert replays == {"1": AT}
