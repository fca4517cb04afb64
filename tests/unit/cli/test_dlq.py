"""A dead letter has the reason of its failure, and is published again as it was received."""

from __future__ import annotations

import time
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Self, cast
from unittest.mock import Mock

from typer.testing import CliRunner

from support.center_records import FakeMessage
from taskbridge.cli import dlq
from taskbridge.cli.connection import Connection
from taskbridge.cli.dlq import summary
from taskbridge.cli.program import app
from taskbridge.schemas.dead_letters import dead_letter_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest
    from confluent_kafka import Message

    from taskbridge.schemas.dead_letters import DeadLetter


def dead_letter(
    letter_id: str, *, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> DeadLetter:
    partition, offset = map(int, letter_id.split("-"))
    record = FakeMessage("dlq", partition, offset, key, value, headers, at=1_700_000_000_123)
    return dead_letter_of(cast("Message", record))


LETTER = dead_letter(
    "3-17",
    key=b"I-1",
    value=b"junk",
    headers=[
        ("ce_id", b"x"),
        ("dlq_reason", b"of an earlier time"),
        ("dlq_replay_of", b"3-9"),
        ("dlq_reason", b"undecodable"),
        ("dlq_detail", b"not in the Confluent wire format"),
        ("dlq_topic", b"taskbridge.task-events.v1"),
        ("dlq_partition", b"3"),
        ("dlq_offset", b"42"),
        ("dlq_at", b"2023-11-14T22:13:20.123Z"),
    ],
)


def test_the_latest_reason_is_reported() -> None:
    assert summary(LETTER) == {
        "id": "3-17",
        "at": "2023-11-14T22:13:20.123Z",
        "reason": "undecodable",
        "key": "I-1",
        "from": "taskbridge.task-events.v1 3-42",
        "detail": "not in the Confluent wire format",
        "replayed_at": None,
    }


def test_only_received_headers_are_published_again() -> None:
    assert LETTER.received_headers == [("ce_id", b"x")]


def parked(monkeypatch: pytest.MonkeyPatch, *letters: DeadLetter, replays: Mapping[str, str] | None = None) -> None:
    def read(_: object, found: dict[str, str]) -> Iterator[DeadLetter]:
        found.update(replays or {})
        return iter(letters)

    monkeypatch.setattr(dlq.RECORDS, "read", read)


class Broker:
    """Records what is published."""

    def __init__(self, *_: object) -> None:
        PUBLISHED.clear()

    @classmethod
    def connect(cls, *_: object) -> Self:
        return cls()

    async def produce(self, topic: str, *, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        PUBLISHED.append((topic, key, value, headers[0]))

    async def close(self) -> None: ...


PUBLISHED: list[tuple[str, bytes, bytes | None, tuple[str, bytes]]] = []


def put_back_before(*_: object) -> set[str]:
    return set()


def test_dead_letters_older_than_the_retention_need_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ms = int(time.time() * 1000)
    days = [29, 31]
    letters = [changed(LETTER, id=f"0-{each}", at_ms=now_ms - each * 86_400_000) for each in days]
    parked(monkeypatch, *letters)
    monkeypatch.setattr(dlq, "_replayed_before", put_back_before)
    monkeypatch.setattr(Connection, "producer", Broker)
    found = [CliRunner().invoke(app, ["dlq", "replay", "--all", *more]) for more in ([], ["--force"])]
    assert [each.exit_code for each in found] == [1, 0]
    assert [[line.split()[:2] for line in each.stdout.splitlines()] for each in found] == [
        [["replayed", "0-29"], ["too-old", "0-31"]],
        [["replayed", "0-29"], ["replayed", "0-31"]],
    ]


def test_replayed_dead_letters_are_marked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [changed(LETTER, id=f"0-{each}", at_ms=int(time.time() * 1000)) for each in range(3)]
    letters.append(changed(letters[0], id="0-3", topic=None))  # of another topic: it stays
    replays = {"0-0": "2026-01-31T08:00:00.000Z"}
    parked(monkeypatch, *letters, replays=replays)
    monkeypatch.setattr(dlq, "_replayed_before", Mock(return_value={"0-0", "0-1"}))
    monkeypatch.setattr(Connection, "producer", Broker)
    assert CliRunner().invoke(app, ["dlq", "replay", "--all"]).exit_code == 0
    assert sorted(PUBLISHED) == [
        ("taskbridge.task-events-dlq.v1", b"I-1", None, ("replay_of", b"0-1")),
        ("taskbridge.task-events-dlq.v1", b"I-1", None, ("replay_of", b"0-2")),
        ("taskbridge.task-events.v1", b"I-1", b"junk", ("dlq_replay_of", b"0-2")),
    ]
    lines = CliRunner().invoke(app, ["dlq", "list"]).stdout.splitlines()
    assert ["replayed at 2026-01-31T08:00:00.000Z" in line for line in lines] == [True, False, False, False]
