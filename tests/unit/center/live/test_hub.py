"""A stream gives every change of its person after its place, in order and once, or a reset; and ends where it must."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import insert, text

from support.live import CORP, EPOCH, StreamClient, commit_changes, purge_changes, renumber, set_epoch
from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.live import changes
from taskbridge.center.live.changes import PART
from taskbridge.center.live.hub import Hub
from taskbridge.center.live.wire import StreamPosition
from taskbridge.center.reminders.due import DueRules, Rule
from taskbridge.center.tables import people
from taskbridge.runtime.database import Database, DatabaseUnavailable
from taskbridge.runtime.refusals import NotNow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from taskbridge.center.live.changes import ChangesQuery, Part


class Center(Hub):
    def __init__(self, database: Database, *, most: int = 1000, most_of_person: int = 1000, **more: Any) -> None:
        set_epoch(database)
        super().__init__(database, most, most_of_person, **more)

    async def listen(self, *given: Any, **more: Any) -> StreamClient:
        return await StreamClient().open(self, *given, **more)

    def commit(self, user_id: str = "ann", count: int = 1, **more: Any) -> None:
        commit_changes(self.database, user_id, count, **more)
        self.changed([(more.get("corp_id", CORP), user_id)])


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", test()))


def test_each_gets_their_own_in_order(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        ann, ann_too, bob = await center.listen(), await center.listen(), await center.listen("bob")
        center.commit("ann", 2)
        center.commit("bob")
        await ann.until_numbers(1, 2)
        await ann_too.until_numbers(1, 2)
        await bob.until_numbers(1)
        assert ann.data == ann_too.data
        assert (center.count, center.sent) == (3, 5)
        await ann.close()
        assert center.count == 2

    run(test)


def test_a_new_stream_gets_its_place_at_once_and_then_what_comes(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        commit_changes(database, "ann", 4)
        ann = await center.listen()
        await ann.until_place(StreamPosition(EPOCH, 4))
        assert ann.body.startswith(b"retry: ")
        center.commit("ann", 2)
        await ann.until_numbers(5, 6)

    run(test)


def test_a_name_with_a_slash_hears_nothing_of_another_corp(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        stranger, ann = await center.listen("x/ann"), await center.listen("ann", corp_id="corp/x")
        center.commit("ann", corp_id="corp/x")
        await ann.until_numbers(1)
        await stranger.until_numbers()

    run(test)


def test_missed_changes_come_first_in_parts_and_once(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        commit_changes(database, "ann", 2 * PART + 5)
        ann = await center.listen("ann", StreamPosition(EPOCH, 3), meanwhile=lambda: center.commit("ann", 2))
        await ann.until_numbers(*range(4, 2 * PART + 8))
        assert center.sent == 2 * PART + 4

    run(test)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (StreamPosition(EPOCH, 1), b"no longer stored"),
        (StreamPosition(EPOCH, 900), b"rebuilt"),
        (StreamPosition("3", 1), b"rebuilt"),
    ],
    ids=["purged", "from the future", "of another epoch"],
)
def test_changes_that_can_no_longer_be_sent_are_reported(
    database: Database, after: StreamPosition, reason: bytes
) -> None:
    async def test() -> None:
        center = Center(database)
        commit_changes(database, "ann", 5)
        purge_changes(database, "ann", before=4)
        ann = await center.listen("ann", after)
        await ann.until_place(StreamPosition(EPOCH, 5))
        assert (ann.resets, reason in ann.body) == (1, True)
        center.commit()
        await ann.until_numbers(6)

    run(test)


def test_a_change_that_is_gone_between_others_is_reported(database: Database) -> None:
    """Retention goes by the time of a change, which is not in the order of the numbers."""

    async def test() -> None:
        center = Center(database)
        commit_changes(database, "ann", 5)
        with database.write() as connection:
            connection.execute(text("DELETE FROM changes WHERE seq = 3"))
        ann = await center.listen("ann", StreamPosition(EPOCH, 0))
        await ann.until_place(StreamPosition(EPOCH, 5))
        await ann.until_numbers(1, 2)
        assert ann.resets == 1

    run(test)


@pytest.mark.parametrize("changed", [False, True], ids=["idle", "with changes"])
def test_a_stream_of_lists_that_are_rebuilt_is_reset_and_goes_on(database: Database, *, changed: bool) -> None:
    async def test() -> None:
        center = Center(database, heartbeat_s=0.15)
        center.commit("ann", 2)
        ann = await center.listen(now=1e12)  # no heartbeat is due
        running = asyncio.create_task(center.run())
        renumber(database)
        if changed:
            center.commit("ann", 3)
        await ann.until_place(StreamPosition("e1", 3 if changed else 0))
        assert ann.resets == 1
        center.commit()
        await ann.until_numbers(4 if changed else 1, epoch="e1")
        running.cancel()

    run(test)


def test_the_originator_whom_the_sender_did_not_name_gets_the_present_name(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            insert(people),
            [
                {"corp_id": corp, "user_id": "bob", "name": name, "search": "", "partition": 0}
                for corp, name in ((CORP, "鲍勃"), ("other", "Eve"))
            ],
        )
    originators = [
        {"user_id": "bob", "name": None},
        {"user_id": "cai", "name": None},
        {"user_id": "bob", "name": "Bob"},
        None,
    ]

    async def test() -> None:
        center = Center(database)
        ann = await center.listen()
        for each in originators:
            center.commit(data={"title": '"name":null', "originator": each})
        await ann.until_numbers(1, 2, 3, 4)
        assert [each["originator"] for each in ann.data] == [
            {"user_id": "bob", "name": "鲍勃"},
            {"user_id": "cai", "name": None},
            {"user_id": "bob", "name": "Bob"},
            None,
        ]

    run(test)


def test_a_pending_task_comes_with_its_due_time_by_the_source_or_the_rules_in_force(sqlite_database: Database) -> None:
    rules = DueRules(None, [Rule("APP", "Leave", 60_000)])
    entry = {"view": "pending", "app_type": "APP", "process_name": "Leave", "entered_at": "2026-01-31T08:00:00.000Z"}

    async def test() -> None:
        center = Center(sqlite_database, due_rules=lambda: rules)
        ann = await center.listen()
        stated = "2026-02-28T08:00:00.000Z"
        ended = {"finished_at": stated}
        for changed in (
            {},
            {"view": "handled"},
            {"process_name": None},
            {"entered_at": None},
            ended,
            {"due_at": stated},
        ):
            center.commit(data=entry | changed)
        await ann.until_numbers(1, 2, 3, 4, 5, 6)
        times = ["2026-01-31T08:01:00.000Z", None, None, None, None, stated]
        assert [each.get("due_at") for each in ann.data] == times

    run(test)


class Reads:
    """What is read from the database, and what happens before and after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wanted: list[Collection[ChangesQuery]] = []
        self.failing = False
        self.may_read = threading.Event()
        self.may_read.set()
        self.after: list[Callable[[], object]] = []
        self._read = changes.read_changes
        monkeypatch.setattr(changes, "read_changes", self)

    def __call__(self, database: Database, wanted: Collection[ChangesQuery], *due: Any) -> dict[ChangesQuery, Part]:
        self.wanted.append(wanted)
        assert self.may_read.wait(60)
        if self.failing:
            raise DatabaseUnavailable("away")
        found = self._read(database, wanted, *due)
        while self.after:
            self.after.pop()()
        return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def test_changes_that_are_committed_during_a_read_are_given_once(sqlite_database: Database, reads: Reads) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        reads.after.append(center.commit)
        ann = await center.listen()
        await ann.until_numbers(1)
        reads.after.append(center.commit)
        center.commit()
        await ann.until_numbers(1, 2, 3)

    run(test)


def test_the_read_of_changes_uses_indexes(sqlite_database: Database) -> None:
    with sqlite_database.read() as connection:
        query = f"EXPLAIN QUERY PLAN {changes.READ_CHANGES[True]}"
        plan = [row.detail for row in connection.execute(text(query), {"wanted": '[["corp", "ann", 1]]'})]
    assert [each for each in plan if each.startswith("SCAN")] == ["SCAN json_each VIRTUAL TABLE INDEX 1:"]
    assert any("changes" in each and "seq>? AND seq<?" in each for each in plan)


def test_a_client_that_goes_during_a_read_takes_nothing_from_the_others(
    sqlite_database: Database, reads: Reads
) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        ann, bob, cai = [await center.listen(each) for each in ("ann", "bob", "cai")]
        for each in (ann, bob, cai):
            await each.until_place(StreamPosition(EPOCH, 0))
        reads.wanted.clear()
        reads.may_read.clear()
        center.commit("ann")
        await ann.until(lambda: reads.wanted)
        center.commit("bob")
        center.commit("cai")
        await ann.close()
        reads.may_read.set()
        await bob.until_numbers(1)
        await cai.until_numbers(1)

    run(test)


def test_a_database_that_does_not_answer_is_not_waited_for(
    sqlite_database: Database, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        reads.may_read.clear()
        with monkeypatch.context() as changed:
            changed.setattr(changes, "_ANSWER_S", 0.05)
            with pytest.raises(DatabaseUnavailable):
                await center.listen()
        reads.may_read.set()
        await (await center.listen()).until_place(StreamPosition(EPOCH, 0))

    run(test)


def test_while_the_database_is_away_heartbeats_go_on_and_afterwards_nothing_is_missing(
    sqlite_database: Database, reads: Reads
) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        ann = await center.listen()
        await ann.until_place(StreamPosition(EPOCH, 0))
        reads.wanted.clear()
        reads.failing = True
        center.commit()
        await ann.until(lambda: reads.wanted)
        center.beat(1000)
        await ann.until(lambda: ann.heartbeats == 2)
        reads.failing = False
        # The read that fails may still be under way. The hub repeats it each second.
        await ann.until(lambda: ann.data or center.beat(1001))
        await ann.until_numbers(1)

    run(test)


def test_a_slow_reader_costs_the_others_nothing_and_gets_everything_later(sqlite_database: Database) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        slow, quick = await center.listen(), await center.listen()
        await slow.until_place(StreamPosition(EPOCH, 0))
        slow.reads.clear()
        numbers = range(1, 5 * PART + 1)
        center.commit("ann", len(numbers))
        await quick.until_numbers(*numbers)
        at = slow.stream.at
        assert at is not None
        assert at.seq <= PART, "the rest waits in the database"
        slow.reads.set()
        await slow.until_numbers(*numbers)

    run(test)


def test_streams_are_bounded_and_places_are_given_back(sqlite_database: Database) -> None:
    async def test() -> None:
        center = Center(sqlite_database, most=3, most_of_person=2)
        ann, _ = await center.listen(), await center.listen()
        with pytest.raises(TooManyQueries):
            await center.listen()
        await center.listen("bob")
        with pytest.raises(NotNow):
            await center.listen("cai")
        await ann.close()
        await center.listen()
        assert center.count == 3

    run(test)


def test_a_stop_ends_all_properly_and_accepts_no_more(sqlite_database: Database) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        clients = [await center.listen(), await center.listen("bob")]
        center.stop()
        await asyncio.gather(*(each.task for each in clients))
        assert all(each.complete and b": closed: stopping\n\n" in each.body for each in clients)
        assert (center.count, center.cut["stopping"]) == (0, 2)
        with pytest.raises(NotNow):
            await center.listen()

    run(test)


def test_heartbeats_come_in_time_and_not_all_at_once(sqlite_database: Database) -> None:
    async def test() -> None:
        center = Center(sqlite_database)
        clients = [await center.listen() for _ in range(150)]
        for each in clients:
            await each.until_place(StreamPosition(EPOCH, 0))
        due = [sum(each.stream.due <= second for each in clients) for second in range(16)]
        assert max(later - earlier for earlier, later in itertools.pairwise(due)) < 15
        center.beat(15)
        for each in clients:
            await each.until(lambda each=each: each.heartbeats == 2)

    run(test)


def test_a_check_ends_streams_that_may_not_go_on_before_their_heartbeat(sqlite_database: Database) -> None:
    async def test() -> None:
        center, may = Center(sqlite_database), True

        def may_go_on(_now: float) -> bool:
            return may

        let_go, other = await center.listen(may_go_on=may_go_on), await center.listen()
        center.check()
        may = False
        center.check()
        await let_go.task
        assert (let_go.complete, other.complete) == (True, False)

    run(test)


def test_who_may_listen_no_more_is_ended_at_the_next_heartbeat_and_the_others_go_on(sqlite_database: Database) -> None:
    async def test() -> None:
        center, may = Center(sqlite_database), True

        def may_go_on(_now: float) -> bool:
            return may

        let_go = await center.listen(may_go_on=may_go_on)
        other = await center.listen()
        center.beat(100)
        may = False
        center.beat(101)
        assert let_go.stream.ending is None, "it is not looked at without need"
        center.beat(200)
        await let_go.task
        assert (let_go.complete, other.complete, center.cut["access"]) == (True, False, 1)
        assert b": closed: access\n\n" in let_go.body

    run(test)
