"""What is parked says why in declared words, which stay as they are whatever classes are called."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import taskbridge.schemas
import taskbridge.streams
from taskbridge.schemas.dead_letters import DeadLetter, DlqReason, dead_letter_headers
from taskbridge.schemas.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]


def parked_for(error: type[RecordError]) -> Iterator[type[RecordError]]:
    for each in error.__subclasses__():
        if each.__module__.startswith("taskbridge."):
            yield each
        yield from parked_for(each)


def test_each_error_that_a_record_is_parked_for_declares_its_reason_and_no_reason_is_without_one() -> None:
    for package in (taskbridge.schemas, taskbridge.streams):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    assert {each.dlq_reason for each in parked_for(RecordError)} == set(DlqReason)


def test_the_words_stay_as_they_are_on_the_topic() -> None:
    assert sorted(DlqReason) == [
        "another-app",
        "another-corp",
        "misplaced-key",
        "misplaced-notification",
        "outside-contract",
        "too-large",
        "undecodable",
        "unknown-action",
        "unknown-view",
    ]


def test_the_runbook_explains_every_reason() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    section = runbook.split("\n## StreamsDeadLetters\n")[1].split("\n## ")[0]
    assert [each for each in DlqReason if f"`{each}`" not in section] == []


def test_what_is_written_is_what_is_read() -> None:
    added = dead_letter_headers(DlqReason.TOO_LARGE, "x" * 2000, topic="t", partition=3, offset=42, now_ms=0)
    letter = DeadLetter(id="0-0", at_ms=0, key=None, value=None, headers=[("ce_id", b"x"), *added])
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (DlqReason.TOO_LARGE, "t", 3, 42)
    assert letter.parked_at == "1970-01-01T00:00:00.000Z"
    assert letter.detail == "x" * 1000
    assert not letter.was_left
    assert letter.received_headers == [("ce_id", b"x")]
