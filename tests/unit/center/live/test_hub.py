"""A subscriber gets every later change of their own, in order and once, or the end of the stream."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from sqlalchemy import insert

from support.live import CORP, EPOCH, commit_changes, purge_changes, renumber, set_epoch
from taskbridge.center.database import Database, DatabaseUnavailable
from taskbridge.center.live import hub as hub_module
from taskbridge.center.live.changes import PART
from taskbridge.center.live.hub import Hub, TooManyOfPerson, TooManyStreams
from taskbridge.center.live.stream import WAITING_MAX, Ending, Stream
from taskbridge.center.live.wire import Place
from taskbridge.center.tables import people

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class Listener:
    """A stream, and what it has been given."""

    def __init__(self, subscription: Stream) -> None:
        self.woken = asyncio.Event()
        self.wakes = 0
        self.subscription = subscription
        self.given: list[dict[str, Any]] = []
        subscription.wake_by(self._wake)

    def _wake(self) -> None:
        self.wakes += 1
        self.woken.set()

    def ids(self) -> list[str]:
        """Of the changes that wait."""
        _, body = self.subscription.take()
        frames = [each.split("\n") for each in body.decode().split("\n\n") if each]
        self.given += [msgspec.json.decode(data.removeprefix("data: ")) for _, _, data in frames]
        return [event_id.removeprefix("id: ") for event_id, _, _ in frames]

    async def next_ids(self, count: int = 1) -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                await self.woken.wait()
                self.woken.clear()
                found += self.ids()
        return found


class Center:
    def __init__(self, database: Database, **more: Any) -> None:
        self.database = database
        set_epoch(database)
        self.hub = Hub(database, most=more.pop("most", 100), most_of_person=more.pop("most_of_person", 1000), **more)

    async def listen(self, user_id: str = "ann", *, corp_id: str = CORP, now: float = 0) -> Listener:
        return Listener(await self.hub.subscribe(corp_id, user_id, now=now))

    def commit(self, user_id: str = "ann", count: int = 1, **more: Any) -> list[str]:
        ids = commit_changes(self.database, user_id, count, **more)
        self.hub.changed([(more.get("corp_id", CORP), user_id)])
        return ids


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", test()))


def test_each_gets_their_own_in_order(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        ann, ann_too, bob = await center.listen(), await center.listen(), await center.listen("bob")

        center.commit("ann", 2)
        center.commit("bob")

        assert await ann.next_ids(2) == await ann_too.next_ids(2) == [f"{EPOCH}-1", f"{EPOCH}-2"]
        assert await bob.next_ids() == [f"{EPOCH}-1"]
        assert [each["notification_id"] for each in ann.given] == [each["notification_id"] for each in ann_too.given]

    run(test)


def test_a_name_with_a_slash_hears_nothing_of_another_corp(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        stranger, ann = await center.listen("x/ann"), await center.listen("ann", corp_id="corp/x")
        center.commit("ann", corp_id="corp/x")
        assert await ann.next_ids() == [f"{EPOCH}-1"]
        assert stranger.ids() == []

    run(test)


def test_a_persons_changes_are_read_once_and_only_while_somebody_listens(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Mapping[Any, int]] = []
    whole = hub_module.changes_of

    def changes_of(database: Database, wanted: Mapping[Any, int]) -> Any:
        read.append(wanted)
        return whole(database, wanted)

    monkeypatch.setattr(hub_module, "changes_of", changes_of)

    async def test() -> None:
        center = Center(database)
        center.commit("nobody listens")
        listeners = [await center.listen() for _ in range(5)]
        center.commit("nobody listens")
        center.commit("ann", 3)
        for each in listeners:
            await each.next_ids(3)
        center.hub.leave(listeners[0].subscription)

    run(test)
    assert read == [{(CORP, "ann"): 0}]


def test_a_wake_from_any_thread_reaches_the_streams(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        ann = await center.listen()
        follower = threading.Thread(target=center.commit)
        follower.start()
        assert await ann.next_ids() == [f"{EPOCH}-1"]
        follower.join()

    run(test)


def test_a_wake_before_the_loop_runs_or_after_its_end_does_nothing(database: Database) -> None:
    center = Center(database)
    center.commit()

    async def test() -> None:
        await center.listen()

    run(test)
    center.commit()


def test_changes_that_are_committed_while_the_place_is_read_are_given_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake comes when the person's place is not known yet: the commit may be before the read, or after it."""
    whole = hub_module.places_now

    async def test() -> None:
        center = Center(database)

        def places_now(*arguments: Any) -> Any:
            center.commit()
            found = whole(*arguments)
            center.commit()
            return found

        monkeypatch.setattr(hub_module, "places_now", places_now)
        ann = await center.listen()
        assert ann.subscription.begins == 1
        assert await ann.next_ids() == [f"{EPOCH}-2"]

    run(test)


def test_more_changes_than_may_wait_reach_a_stream_that_keeps_up(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        ann = await center.listen()
        center.commit("ann", 3 * WAITING_MAX)
        found = await ann.next_ids(3 * WAITING_MAX)
        assert found == [f"{EPOCH}-{seq}" for seq in range(1, 3 * WAITING_MAX + 1)]
        assert PART < WAITING_MAX

    run(test)


def test_a_reader_that_is_too_slow_ends_and_costs_the_others_nothing(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        slow, quick = await center.listen(), await center.listen()
        center.commit("ann", WAITING_MAX + 1)
        assert len(await quick.next_ids(WAITING_MAX + 1)) == WAITING_MAX + 1
        assert slow.subscription.ending is Ending.SLOW
        assert slow.subscription.take() == (0, b""), "it resumes with what it has not seen"
        assert quick.subscription.ending is None
        center.hub.leave(slow.subscription)
        assert center.hub.cut[Ending.SLOW] == 1

    run(test)


def test_a_stream_knows_where_it_begins_and_where_it_is(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        commit_changes(database, "ann", 5)
        ann = await center.listen()
        assert ann.subscription.begins == 5
        assert center.hub.place(ann.subscription) == Place(EPOCH, 5)

        center.commit()
        await ann.woken.wait()
        assert center.hub.place(ann.subscription) is None, "not before it is written"
        ann.ids()
        assert center.hub.place(ann.subscription) == Place(EPOCH, 6)
        assert (await center.listen()).subscription.begins == 6

        ann.subscription.seen(9)
        assert center.hub.place(ann.subscription) == Place(EPOCH, 9), "another replica had read further"

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
        await ann.next_ids(4)
        assert [each["originator"] for each in ann.given] == [
            {"user_id": "bob", "name": "鲍勃"},
            {"user_id": "cai", "name": None},
            {"user_id": "bob", "name": "Bob"},
            None,
        ]

    run(test)


def test_streams_end_when_the_numbering_began_again(database: Database) -> None:
    async def test() -> None:
        center = Center(database, heartbeat_s=0.15)
        ann = await center.listen(now=1e12)  # no heartbeat is due
        running = asyncio.create_task(center.hub.run())
        renumber(database)
        async with asyncio.timeout(10):
            await ann.woken.wait()
        assert ann.subscription.ending is Ending.REBUILT
        center.hub.leave(ann.subscription)
        assert (await center.listen()).subscription.epoch == "e1"
        running.cancel()

    run(test)


@pytest.mark.parametrize("what", ["renumbered", "purged"])
def test_streams_end_rather_than_go_on_after_a_gap(database: Database, what: str) -> None:
    async def test() -> None:
        center = Center(database)
        ann = await center.listen()
        if what == "renumbered":
            renumber(database)
        commit_changes(database, "ann", 3)
        if what == "purged":
            purge_changes(database, "ann", before=3)
        center.hub.changed([(CORP, "ann")])
        async with asyncio.timeout(10):
            await ann.woken.wait()
        assert ann.subscription.ending is Ending.REBUILT

    run(test)


def test_changes_that_could_not_be_read_are_read_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_RETRY_S", 0.01)
    failures = [DatabaseUnavailable("away"), DatabaseUnavailable("away")]
    whole = hub_module.changes_of

    def changes_of(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return whole(*arguments)

    monkeypatch.setattr(hub_module, "changes_of", changes_of)

    async def test() -> None:
        center = Center(database)
        ann = await center.listen()
        center.commit()
        assert await ann.next_ids() == [f"{EPOCH}-1"]

    run(test)
    assert failures == []


def test_a_stream_that_could_not_begin_takes_no_place(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def places_now(*_: Any) -> Any:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(hub_module, "places_now", places_now)

    async def test() -> None:
        center = Center(database, most=1)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await center.listen()
        assert center.hub.count == 0

    run(test)


def test_people_who_come_at_once_share_queries(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = hub_module.places_now

    def places_now(database: Database, people: Any) -> Any:
        read.append(len(people))
        return whole(database, people)

    monkeypatch.setattr(hub_module, "places_now", places_now)

    async def test() -> None:
        center = Center(database, most=1000)
        center.commit("user-7", 3)
        center.commit("a\0b", 2)
        listeners = await asyncio.gather(*(center.listen(f"user-{number % 450}") for number in range(900)))
        assert {each.subscription.person: each.subscription.begins for each in listeners} == {
            (CORP, f"user-{number}"): 3 if number == 7 else 0 for number in range(450)
        }
        assert (await center.listen("a\0b")).subscription.begins == 2

    run(test)
    assert read == [200, 200, 50, 1]


def test_streams_are_bounded_and_places_are_given_back(database: Database) -> None:
    async def test() -> None:
        center = Center(database, most=2)
        ann, _ = await center.listen(), await center.listen()
        with pytest.raises(TooManyStreams):
            await center.listen()

        center.hub.leave(ann.subscription)
        center.hub.leave(ann.subscription)
        await center.listen()
        assert center.hub.count == 2

    run(test)


def test_one_persons_streams_are_limited_regardless_of_others(database: Database) -> None:
    async def test() -> None:
        center = Center(database, most_of_person=2)
        ann, _ = await center.listen(), await center.listen()
        with pytest.raises(TooManyOfPerson):
            await center.listen()
        await center.listen("bob")

        center.hub.leave(ann.subscription)
        await center.listen()

    run(test)


def test_a_stop_ends_all_and_accepts_no_more(database: Database) -> None:
    async def test() -> None:
        center = Center(database)
        listeners = [await center.listen(), await center.listen("bob")]
        center.hub.stop()
        assert {each.subscription.ending for each in listeners} == {Ending.STOPPING}
        assert all(each.wakes for each in listeners)
        with pytest.raises(TooManyStreams):
            await center.listen()

    run(test)


def test_heartbeats_come_in_time_and_not_all_at_once(database: Database) -> None:
    async def test() -> None:
        center = Center(database, most=1000)
        listeners = [await center.listen(now=0) for _ in range(150)]

        most_at_once = 0
        for second in range(1, 17):
            before = sum(each.wakes for each in listeners)
            center.hub.beat(second)
            most_at_once = max(most_at_once, sum(each.wakes for each in listeners) - before)

        assert all(each.subscription.take_beat() for each in listeners)
        assert most_at_once < 15

    run(test)


def test_who_may_listen_no_more_is_ended_at_the_next_heartbeat_and_the_others_go_on(database: Database) -> None:
    async def test() -> None:
        hub, may = Center(database).hub, True
        let_go = await hub.subscribe(CORP, "ann", now=0, may_go_on=lambda now: may and now < 500)
        other = await hub.subscribe(CORP, "ann", now=0)
        hub.beat(100)
        assert let_go.ending is None
        may = False
        hub.beat(101)
        assert let_go.ending is None, "it is not looked at without need"
        hub.beat(200)
        assert (let_go.ending, other.ending) == (Ending.ACCESS, None)
        hub.leave(let_go)
        assert hub.cut[Ending.ACCESS] == 1

    run(test)
