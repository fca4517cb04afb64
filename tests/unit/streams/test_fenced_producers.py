"""A worker claims what it is given, keeps what it has, and writes for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.fenced_producers import FencedProducers
from streams.store import PartitionNotHeld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.bulk_producer import BulkProducer


class FakeProducer:
    def __init__(self, config: Mapping[str, object], claims: list[str]) -> None:
        self.transactional_id = str(config["transactional.id"])
        self._claims = claims

    def claim(self) -> None:
        self._claims.append(self.transactional_id)


def fenced(claims: list[str]) -> FencedProducers:
    def make(config: Mapping[str, object]) -> BulkProducer:
        return cast("BulkProducer", FakeProducer(config, claims))

    return FencedProducers({}, prefix="app", make=make)


def id_of(producers: FencedProducers, partition: int) -> str:
    return cast("Any", producers.of(partition)).transactional_id


def test_only_what_is_new_is_claimed_and_what_is_kept_stays_the_same_producer() -> None:
    claims: list[str] = []
    producers = fenced(claims)
    producers.claim({0, 1})
    kept = producers.of(1)
    producers.claim({1, 2})
    assert sorted(claims) == ["app-0", "app-1", "app-2"]
    assert producers.of(1) is kept
    assert id_of(producers, 2) == "app-2"


def test_without_fencing_nothing_is_claimed() -> None:
    made: list[Mapping[str, object]] = []

    def make(config: Mapping[str, object]) -> BulkProducer:
        made.append(config)
        return cast("BulkProducer", object())

    FencedProducers({"acks": "all"}, prefix="app", fencing=False, make=make).claim({0, 1})
    assert made == [{"acks": "all"}, {"acks": "all"}]


def test_a_partition_that_went_is_not_written_for_and_is_claimed_again_when_it_comes_back() -> None:
    claims: list[str] = []
    producers = fenced(claims)
    producers.claim({0})
    producers.claim({1})
    with pytest.raises(PartitionNotHeld):
        producers.of(0)
    producers.claim({0, 1})
    assert sorted(claims) == ["app-0", "app-0", "app-1"]
