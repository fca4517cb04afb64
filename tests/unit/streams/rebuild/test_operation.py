"""The workers' positions as a rebuild reads them, and whose producers it fences once they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from faust.types import TP

from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.rebuild import operation as rebuild_operation
from taskbridge.streams.rebuild.operation import Workers, known_source
from taskbridge.streams.table_versions import VERSION_TOPIC, instances_changelog
from taskbridge.streams.transactions.offsets import TopicDescription
from taskbridge.streams.transactions.positions import Committed

if TYPE_CHECKING:
    from collections.abc import Collection

    import pytest

    from taskbridge.streams.transactions.offsets import Offsets


class Positions:
    """Positions as Kafka returns them: the next answer at each request, until the last."""

    def __init__(self, *answers: dict[TP, Committed], members: list[dict[str, str]] | None = None) -> None:
        self._answers = list(answers)
        self._members = members or []

    def members(self, group: str) -> dict[str, str]:
        assert group == APP_ID
        return self._members.pop(0)

    def partitions(self, topic: str) -> list[int]:
        return sorted({tp.partition for tp in self._answers[0] if tp.topic == topic})

    def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, Committed]:
        assert group == APP_ID
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return {tp: answer[tp] for tp in partitions}


def workers(positions: Positions, claimed: list[str]) -> Workers:
    return Workers(
        cast("Offsets", positions),
        claim=claimed.append,
        report=lambda _: None,
    )


def test_a_position_counts_once_no_open_transaction_can_move_it() -> None:
    first, second, third = (TP(TASK_EVENTS.name, number) for number in range(3))
    before = {
        first: Committed(5, "ann", is_stable=False),
        second: Committed(7, "bob", is_stable=True),
        third: Committed(-1, None, is_stable=True),
    }
    later = {**before, first: Committed(6, "ann", is_stable=True), second: Committed(9, "bob", is_stable=False)}
    assert workers(Positions(before, before, later), []).positions() == {0: 6, 1: 7}


def test_the_producers_of_all_owners_are_fenced_when_all_workers_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [{"ann": "here", "bob": "there"}, {"bob": "there"}, {}]
    monkeypatch.setattr(rebuild_operation, "_LOOK_S", 0)
    claimed: list[str] = []
    positions = {
        TP(TASK_EVENTS.name, 0): Committed(5, "ann", is_stable=True),
        TP(TASK_EVENTS.name, 1): Committed(5, "ann", is_stable=False),
        TP(TASK_EVENTS.name, 2): Committed(-1, "", is_stable=True),
        TP(TASK_EVENTS.name, 3): Committed(3, "bob", is_stable=True),
    }
    workers(Positions(positions, members=there), claimed).wait_until_gone()
    assert sorted(claimed) == ["ann", "bob"]
    assert not there


def test_a_new_topic_that_a_broker_does_not_know_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_operation, "_LOOK_S", 0)
    changelog = instances_changelog(2).name
    later = {name: TopicDescription(f"id of {name}", 4) for name in (TASK_EVENTS.name, VERSION_TOPIC.name, changelog)}
    answers = [{name: each for name, each in later.items() if name != changelog}, later]

    class Brokers:
        def topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
            found = answers.pop(0)
            return {name: found[name] for name in names if name in found}

    found = known_source(cast("Offsets", Brokers()), 4, 2)
    assert (found.changelog, found.lineage.changelog_id, answers) == (changelog, f"id of {changelog}", [])
