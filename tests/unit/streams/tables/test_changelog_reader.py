"""A failure of a changelog's reader reaches all that wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from taskbridge.streams.tables.changelog_reader import ChangelogReader

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future

_SOON_S = 60


class Broken(Exception):
    """The library's, or the disk's."""


class FakeConsumer:
    """Fails at the given call."""

    def __init__(self, *_: object, **__: object) -> None:
        self.fails_at = "consume"

    def _call(self, name: str) -> list[Any]:
        if name == self.fails_at:
            raise Broken(name)
        return []

    def consume(self, _most: int, _timeout_s: float) -> list[Any]:
        return self._call("consume")

    def incremental_assign(self, _partitions: object) -> None:
        self._call("assign")

    def incremental_unassign(self, _partitions: object) -> None:
        self._call("unassign")

    def close(self) -> None:
        self.fails_at = "closed"


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> FakeConsumer:
    fake = FakeConsumer()
    monkeypatch.setattr("taskbridge.streams.tables.changelog_reader.Consumer", lambda *_, **__: fake)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return fake


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def reader(consumer: FakeConsumer, failures: list[str]) -> Generator[ChangelogReader]:
    assert consumer
    reader = ChangelogReader({}, "changelog", cast("Any", None), lambda error: failures.append(str(error)))
    yield reader
    reader.close()


def failure_of(future: Future[None]) -> str:
    return str(future.exception(_SOON_S))


def test_a_restoration_that_cannot_be_read_fails_with_the_cause(reader: ChangelogReader, failures: list[str]) -> None:
    assert failure_of(reader.follow(0, start=0, end=5, standby=False)) == "consume"
    assert failures == ["consume"]
    assert reader.followed == {}


def test_a_partition_that_cannot_be_left_fails_the_command(
    reader: ChangelogReader, consumer: FakeConsumer, failures: list[str]
) -> None:
    consumer.fails_at = "unassign"
    reader.follow(0, start=5, end=5, standby=True).result(_SOON_S)
    assert failure_of(reader.leave_all_but(())) == "unassign"
    assert failures == ["unassign"]


def test_a_cancelled_command_does_not_end_the_reader(
    reader: ChangelogReader, consumer: FakeConsumer, failures: list[str]
) -> None:
    consumer.fails_at = "nowhere"
    for _ in range(50):
        reader.leave_all_but(()).cancel()
    reader.leave_all_but(()).result(_SOON_S)
    assert not failures
