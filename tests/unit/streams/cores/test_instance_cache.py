"""The cache of instances is bounded, and emptied at every rebalance."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from taskbridge.schemas.events import Action
from taskbridge.streams.cores.core import InstanceCache
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import Shown, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.schemas.events import TaskEvent

    MakeEvent = Callable[..., TaskEvent]


def instances(make_event: MakeEvent, *ids: str) -> dict[bytes, Shown]:
    return {each.encode(): show(fold(None, make_event(Action.CREATED, instance_id=each))) for each in ids}


def found(cache: InstanceCache[Shown], key: bytes, *, generation: int) -> Shown | None:
    [instance] = cache.find([key], lambda missing: [None for _ in missing], generation=generation)
    return instance


def test_a_cached_instance_is_found_in_the_same_generation_only(make_event: MakeEvent) -> None:
    cache = InstanceCache[Shown](10)
    assert found(cache, b"a", generation=1) is None
    cached = instances(make_event, "a")
    cache.add(cached, generation=1)
    assert found(cache, b"a", generation=1) is cached[b"a"]
    assert found(cache, b"a", generation=2) is None
    assert found(cache, b"a", generation=1) is None


def test_only_missing_instances_are_read_and_all_at_once(make_event: MakeEvent) -> None:
    cache = InstanceCache[Shown](10)
    found(cache, b"a", generation=1)
    stored = instances(make_event, "a", "b", "c", "d")
    cache.add({key: stored[key] for key in (b"b", b"d")}, generation=1)
    reads: list[list[bytes]] = []

    def read(missing: list[bytes]) -> list[Shown | None]:
        reads.append(missing)
        return [stored.get(key) for key in missing]

    keys = [b"a", b"b", b"x", b"c", b"d"]
    assert cache.find(keys, read, generation=1) == [stored.get(key) for key in keys]
    assert reads == [[b"a", b"x", b"c"]]


def test_a_chunk_of_an_old_generation_is_not_cached(make_event: MakeEvent) -> None:
    cache = InstanceCache[Shown](10)
    found(cache, b"a", generation=2)
    cache.add(instances(make_event, "a"), generation=1)
    assert found(cache, b"a", generation=2) is None


def test_the_oldest_instances_are_dropped(make_event: MakeEvent) -> None:
    cache = InstanceCache[Shown](4)
    found(cache, b"a", generation=1)
    for ids in (("a", "b"), ("c", "d"), ("a",), ("e",)):
        cache.add(instances(make_event, *ids), generation=1)
    left = {key for key in (b"a", b"b", b"c", b"d", b"e") if found(cache, key, generation=1) is not None}
    assert left == {b"d", b"e"}


def test_there_are_never_more_than_the_limit_and_only_latest_versions_are_found(make_event: MakeEvent) -> None:
    chance = random.Random(7)
    cache = InstanceCache[Shown](10)
    found(cache, b"a", generation=1)
    latest: dict[bytes, Shown] = {}
    for _ in range(300):
        chunk = instances(make_event, *(str(chance.randrange(20)) for _ in range(chance.randrange(9))))
        cache.add(chunk, generation=1)
        latest.update(chunk)
        assert len(cache) <= 10
        for key, shown in latest.items():
            assert found(cache, key, generation=1) in (None, shown)


def test_a_forgotten_instance_is_gone(make_event: MakeEvent) -> None:
    cache = InstanceCache[Shown](4)
    found(cache, b"a", generation=1)
    cache.add(instances(make_event, "a", "b"), generation=1)
    cache.add(instances(make_event, "a", "c"), generation=1)
    cache.forget([b"a", b"b"])
    assert [found(cache, key, generation=1) is None for key in (b"a", b"b", b"c")] == [True, True, False]


def test_a_limit_of_zero_caches_nothing(make_event: MakeEvent) -> None:
    cache = InstanceCache[Shown](0)
    found(cache, b"a", generation=1)
    cache.add(instances(make_event, "a"), generation=1)
    assert len(cache) == 0
