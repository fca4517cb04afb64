"""A dead letter has a declared reason, which never changes. A mark of a replay is different from every entry."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import taskbridge.schemas
import taskbridge.streams
from taskbridge.schemas.dead_letters import (
    DeadLetter,
    DlqReason,
    dead_letter_headers,
    replay_headers,
    replay_of,
    without_replays,
)
from taskbridge.schemas.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
AT_MS, AT = 1_769_846_400_000, "2026-01-31T08:00:00.000Z"


def record_errors(error: type[RecordError]) -> Iterator[type[RecordError]]:
    for each in error.__subclasses__():
        if each.__module__.startswith("taskbridge."):
            yield each
        yield from record_errors(each)


def test_each_record_error_declares_a_reason_and_each_reason_has_an_error() -> None:
    for package in (taskbridge.schemas, taskbridge.streams):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    assert {each.dlq_reason for each in record_errors(RecordError)} == set(DlqReason)


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
    letter = DeadLetter(id="0-0", at_ms=0, key=None, value=None, headers=[("ce_id", b"x"), *added])
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (DlqReason.TOO_LARGE, "t", 3, 42)
    assert letter.parked_at == "1970-01-01T00:00:00.000Z"
    assert letter.detail == "x" * 1000
    assert not letter.was_left
    assert letter.received_headers == [("ce_id", b"x")]


class Message:
    def __init__(self, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self._value, self._headers = value, headers

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


def test_a_mark_names_the_replayed_entry_and_the_time() -> None:
    assert replay_of(Message(None, replay_headers("3-17", AT_MS))) == ("3-17", AT)


def test_no_entry_is_read_as_a_mark() -> None:
    mark = replay_headers("3-17", AT_MS)
    # A dead letter has all headers that were received, possibly these, and its own.
    for entry in (Message(b"", mark), Message(None, []), Message(None, [*mark, ("dlq_reason", b"undecodable")])):
        assert replay_of(entry) is None


def test_entries_come_without_marks_and_the_first_replay_counts() -> None:
    entry = Message(b"entry", [])
    replays: dict[str, str] = {}
    marks = [Message(None, replay_headers("1", AT_MS + each)) for each in (0, 1)]
    assert list(without_replays([*marks, entry], replays)) == [entry]
    assert replays == {"1": AT}
