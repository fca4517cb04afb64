"""Which of several sources of an instance a rebuild uses, and what it reads from workers' stores."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import pytest
import rocksdict

from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.events import Action, Lifecycle
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.fold.instance import EARLIEST, LATEST, fold
from taskbridge.streams.fold.stored_instance import are_events_lost, pack
from taskbridge.streams.positions import POSITION_KEY, Bounds, RecordedPosition, write_position
from taskbridge.streams.rebuild.copies import Copy, Located
from taskbridge.streams.rebuild.new_version import complete_from
from taskbridge.streams.rebuild.sources import LocalStores, Source, Sources, StoreInUse, stores_in
from taskbridge.streams.tables.store import OFFSET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

NOW_MS = 1_900_000_000_000
HOUR_MS = 60 * 60 * 1000
STATES = task_state_codec(cast("Any", FakeRegistry()))
KEY = b"I-1"


class World:
    """A changelog, stores and published states, filled by each test."""

    def __init__(self, folder: Path) -> None:
        self.changelog: Any = Copy(folder / "changelog")
        self.changelog.positions, self.end = {}, 10
        self.changelog.reached = self._reached
        self.stores = LocalStores(folder / "stores", retention_days=0)
        self.published: Any = Copy(folder / "published")
        self.bounds = {0: Bounds(0, 100)}

    def _reached(self, _partition: int) -> int:
        return self.end

    def left(self, *, offset: int = 9, changelog_id: str = "changelog", events: RecordedPosition | None = None) -> None:
        self.stores.positions[0] = cast("Any", type("At", (), {"offset": offset, "changelog_id": changelog_id}))
        self.stores.reached[0] = events or RecordedPosition("events", 50)

    def sources(self, *, is_lost: bool = False, is_sound: bool = True) -> Sources:
        return Sources(
            None if is_lost else self.changelog,
            "changelog",
            self.stores,
            self.published,
            is_sound=is_sound and not is_lost,
            states=STATES,
            events_id="events",
            bounds=self.bounds,
            partitions=1,
        )

    def close(self) -> None:
        for each in (self.changelog, self.stores, self.published):
            each.close()


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    found = World(tmp_path)
    yield found
    found.close()


@pytest.fixture
def history(make_event: Callable[..., TaskEvent]) -> list[Instance]:
    """The instance after one event, after two, and so on; the last one deletes it."""
    events = [
        make_event(Action.CREATED, title="first", recipient_ids=("ann",), task_id="T-1", occurred_at=1_000),
        make_event(Action.CREATED, title="second", recipient_ids=("bob",), task_id="T-2", occurred_at=2_000),
        make_event(Action.COMPLETED, task_id="T-1", actor_id="ann", occurred_at=3_000),
        make_event(Action.DELETED, occurred_at=4_000),
    ]
    return [reduce(fold, events[1:count], fold(None, events[0])) for count in range(1, 5)]


def stored(instance: Instance, *, events_lost: bool = False) -> Located:
    return Located(0, pack(STATES.encode(instance.state), instance, now_ms=NOW_MS, events_lost=events_lost))


def chosen(sources: Sources, key: bytes = KEY) -> tuple[Source, int] | None:
    """The chosen source, and the revision of its state."""
    found = sources.of(key)
    return None if found is None else (found.source, found.shown.instance.state.revision)


def test_the_source_that_was_written_further_wins(world: World, history: list[Instance]) -> None:
    first, second, *_ = history
    world.changelog.write({KEY: stored(second)})
    world.stores.write({KEY: stored(first)})
    world.left()
    assert chosen(world.sources()) == (Source.CHANGELOG, second.state.revision)
    # The changelog has lost its end.
    world.end = 9
    assert chosen(world.sources()) == (Source.STORE, first.state.revision)
    # It is another one by now, or there is none.
    world.end = 100
    world.left(changelog_id="before")
    assert chosen(world.sources()) == (Source.STORE, first.state.revision)
    world.left()
    assert chosen(world.sources(is_lost=True)) == (Source.STORE, first.state.revision)


def test_an_instance_missing_from_a_complete_changelog_is_not_read_from_a_store(
    world: World, history: list[Instance]
) -> None:
    world.stores.write({KEY: stored(history[0])})
    world.left()
    assert chosen(world.sources()) is None
    assert chosen(world.sources(is_sound=False)) == (Source.STORE, history[0].state.revision)


def test_an_unreadable_or_misplaced_value_is_read_from_the_next_source(world: World, history: list[Instance]) -> None:
    world.stores.write({KEY: stored(history[0])})
    world.left()
    for damaged in (Located(0, b"\x03 damaged"), Located(0, b"")):
        world.changelog.write({KEY: damaged})
        assert chosen(world.sources()) == (Source.STORE, history[0].state.revision)
    world.changelog.write({b"I-2": stored(history[1])})
    assert chosen(world.sources(), b"I-2") is None
    world.stores.write({KEY: Located(0, b"damaged as well")})
    world.published.write({KEY: Located(0, STATES.encode(history[0].state))})
    assert chosen(world.sources()) == (Source.PUBLISHED, history[0].state.revision)


def test_a_store_that_misses_events_gives_way_to_a_newer_published_state(world: World, history: list[Instance]) -> None:
    first, second, _, deleted = history
    world.stores.write({KEY: stored(first), b"I-2": stored(deleted)})
    world.published.write({KEY: Located(0, STATES.encode(second.state))})
    world.left()
    sources = world.sources(is_lost=True)
    assert chosen(sources) == (Source.STORE, first.state.revision)
    world.bounds[0] = Bounds(51, 100)
    assert chosen(sources) == (Source.PUBLISHED, second.state.revision)
    world.published.write({KEY: Located(0, STATES.encode(first.state))})
    assert chosen(sources) == (Source.STORE, first.state.revision), "it has more than the same published state"
    # Deleted in between, for others are published.
    world.published.write({KEY: None, b"other": Located(0, STATES.encode(first.state))})
    assert chosen(sources) is None
    # Nothing is published at all: that is lost too, and says nothing.
    world.published.write({b"other": None})
    assert chosen(sources) == (Source.STORE, first.state.revision)


def test_only_a_store_has_an_old_deletion(world: World, history: list[Instance]) -> None:
    deleted = history[-1]
    world.stores.write({KEY: stored(deleted)})
    world.published.write({b"other": Located(0, STATES.encode(history[0].state))})
    world.left(events=RecordedPosition("events", 0))
    world.bounds[0] = Bounds(51, 100)
    found = world.sources(is_lost=True).of(KEY)
    assert found is not None
    assert found.shown.instance.state.lifecycle is Lifecycle.DELETED


@pytest.mark.parametrize(
    ("position", "is_certain"),
    [
        (RecordedPosition("events", 70), True),
        (RecordedPosition("another topic", 70), False),
        (RecordedPosition("events", 70, after_loss=True), False),
        (RecordedPosition("events", 101), False),
        (None, False),
    ],
    ids=["nothing-lost", "topic-lost", "lost-long-ago", "end-lost", "not-known"],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_all_events_are_there_only_if_kafka_has_certainly_lost_none(
    world: World, history: list[Instance], position: RecordedPosition | None, *, is_certain: bool, is_lost: bool
) -> None:
    value, written = stored(history[0]), b"unreadable" if position is None else write_position(position)
    if is_lost:
        world.stores.write({KEY: value})
        world.left()
        world.stores.reached[0] = position
    else:
        world.changelog.write({KEY: value})
        world.changelog.positions[0] = written
    sources = world.sources(is_lost=is_lost)
    found = sources.of(KEY)
    assert found is not None
    assert found.source is (Source.STORE if is_lost else Source.CHANGELOG)
    assert sources.has_all_events(found, complete_from=999) is is_certain
    assert not sources.has_all_events(found, complete_from=1_000), "its first event may be deleted"
    # It says so from then on.
    assert are_events_lost(sources.on_target_partition(found).value) is not is_certain


def test_a_loss_on_any_partition_counts(world: World, history: list[Instance]) -> None:
    """Before the number of partitions grew, events of the instance may have been there."""
    world.changelog.write({KEY: stored(history[0])})
    world.bounds[1] = Bounds(0, 100)
    world.changelog.positions[0] = write_position(RecordedPosition("events", 70))
    for offset, is_certain in ((100, True), (101, False)):
        world.changelog.positions[1] = write_position(RecordedPosition("events", offset))
        sources = world.sources()
        found = sources.of(KEY)
        assert found is not None
        assert sources.has_all_events(found, complete_from=0) is is_certain


def test_an_instance_whose_events_were_lost_earlier_never_has_all(world: World, history: list[Instance]) -> None:
    world.changelog.write({KEY: stored(history[0], events_lost=True)})
    world.changelog.positions[0] = write_position(RecordedPosition("events", 70))
    sources = world.sources()
    found = sources.of(KEY)
    assert found is not None
    assert not sources.has_all_events(found, complete_from=0)
    assert are_events_lost(sources.on_target_partition(found).value)


def test_a_published_state_alone_never_has_all_events(world: World, history: list[Instance]) -> None:
    world.published.write({KEY: Located(0, STATES.encode(history[0].state))})
    world.changelog.positions[0] = write_position(RecordedPosition("events", 70))
    sources = world.sources()
    found = sources.of(KEY)
    assert found is not None
    assert not sources.has_all_events(found, complete_from=0)


class Events:
    """The events topic: the time of each record, by partition and offset."""

    def __init__(self, records: dict[int, dict[int, int]]) -> None:
        self._records = records

    def read(self, _topic: str, starts: dict[int, int], ends: dict[int, int]) -> Generator[list[Any]]:
        for partition, start in starts.items():
            for offset, at in self._records[partition].items():
                if start <= offset < ends[partition]:
                    yield []
                    yield [cast("Any", FakeMessage(partition, at))]


class FakeMessage:
    def __init__(self, partition: int, at: int) -> None:
        self._partition, self._at = partition, at

    def partition(self) -> int:
        return self._partition

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({0: Bounds(0, 9), 1: Bounds(0, 0)}, EARLIEST),
        ({0: Bounds(3, 9), 1: Bounds(0, 0)}, 1_000 + HOUR_MS),
        ({0: Bounds(3, 9), 1: Bounds(5, 9)}, 7_000 + HOUR_MS),
        ({0: Bounds(3, 9), 1: Bounds(9, 9)}, LATEST),
        ({0: Bounds(7, 9), 1: Bounds(5, 9)}, LATEST),
    ],
    ids=["nothing-deleted", "one-cut", "the-later-of-two", "all-of-one-deleted", "only-markers-left"],
)
def test_events_are_complete_from_the_first_record_on_that_is_left_anywhere(
    bounds: dict[int, Bounds], found: int
) -> None:
    events = Events({0: {4: 1_000, 6: 500}, 1: {5: 7_000, 6: 100}})
    assert complete_from(cast("Any", events), bounds) == found


def store_on_disk(path: Path, values: dict[bytes, bytes], *, offset: int, changelog_id: str = "changelog") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    db: Any = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    for key, value in values.items():
        db.put(key, value)
    db.put(OFFSET_KEY, f"{offset} {changelog_id} {NOW_MS}".encode())
    db.put(POSITION_KEY, write_position(RecordedPosition("events", offset * 2)))
    return db


def read(stores: LocalStores, folder: Path, *, needed: bool = True, named: tuple[str, ...] = ()) -> list[str]:
    lines: list[str] = []

    def tick(_done: int, _total: int) -> None:
        pass

    stores.read(folder, 2, changelogs=named, needed=needed, report=lines.append, tick=tick)
    return lines


def test_the_most_recent_of_several_workers_stores_wins(world: World, history: list[Instance], tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    value = {name: stored(each).value for name, each in zip(("old", "new", "only-old"), history, strict=False)}
    further = store_on_disk(folder / "a/v1/tables/instances-v2-3.db", {KEY: value["new"]}, offset=20)
    behind = {KEY: value["old"], b"only-old": value["only-old"]}
    behind_db = store_on_disk(folder / "b/v1/tables/instances-v2-3.db", behind, offset=10)
    other = store_on_disk(folder / "a/v1/tables/instances-v2-4.db", {b"x": value["old"]}, offset=9, changelog_id="gone")
    version = store_on_disk(folder / "a/v1/tables/instances-3.db", {b"y": value["old"]}, offset=9)
    for db in (further, behind_db, other, version):
        db.close()
    assert [partition for _, partition in stores_in(folder, 2)] == [3, 4, 3]
    assert [partition for _, partition in stores_in(folder / "a", 2)] == [3, 4]
    lines = read(world.stores, folder, named=("changelog",))
    assert world.stores.get(KEY) == Located(3, value["new"])
    assert world.stores.get(b"only-old") == Located(3, value["only-old"])
    assert world.stores.get(b"x") is None
    assert world.stores.get(b"y") is None
    assert (world.stores.positions[3].offset, world.stores.reached[3]) == (20, RecordedPosition("events", 40))
    assert "a replaced changelog" in lines[0]
    assert lines[1].startswith("read 2 local stores")


def test_a_store_in_use_is_skipped_or_refused_if_it_is_needed(
    world: World, history: list[Instance], tmp_path: Path
) -> None:
    path = tmp_path / "worker/v1/tables/instances-v2-3.db"
    db = store_on_disk(path, {KEY: stored(history[0]).value}, offset=1)
    with pytest.raises(StoreInUse, match="stop that worker"):
        read(world.stores, tmp_path / "worker")
    assert read(world.stores, tmp_path / "worker", needed=False) == [f"skipping {path}: a worker uses it"]
    db.close()
    assert not world.stores.positions
    lines = read(world.stores, tmp_path / "elsewhere")
    assert lines == [f"no local stores of version 2 in {tmp_path / 'elsewhere'}: check STREAMS_DATA_DIR"]


def test_the_readable_part_of_a_damaged_store_is_used_without_its_position(
    world: World, history: list[Instance], tmp_path: Path
) -> None:
    path = tmp_path / "worker/v1/tables/instances-v2-3.db"
    db = store_on_disk(path, {b"%06d" % at: stored(history[0]).value for at in range(3_000)}, offset=1)
    db.flush()
    db.close()
    [largest] = sorted(path.glob("*.sst"), key=lambda each: each.stat().st_size)[-1:]
    damaged = bytearray(largest.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 4096] = bytes(4096)
    largest.write_bytes(damaged)
    lines = read(world.stores, tmp_path / "worker")
    assert "is damaged" in lines[0]
    assert world.stores.get(b"%06d" % 0) is not None
    assert not world.stores.positions
