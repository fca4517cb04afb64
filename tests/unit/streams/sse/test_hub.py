"""A subscriber gets every later notification of their own, in order and once, or the end of the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from taskbridge.streams.sse import hub as hub_module
from taskbridge.streams.sse.hub import Hub, NotFollowed, TooManyOfPerson, TooManyStreams
from taskbridge.streams.sse.subscription import WAITING_MAX, Ending, Subscription
from taskbridge.streams.sse.wire import Place

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification


class Listener:
    def __init__(self, hub: Hub, user_id: str = "ann", *, partition: int = 0, now: float = 0) -> None:
        self.woken = 0
        self.subscription: Subscription = hub.subscribe("corp", user_id, partition, now=now)
        self.subscription.wake_by(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def ids(self) -> list[str]:
        _, body = self.subscription.take()
        return [line.removeprefix("id: ") for line in body.decode().split("\n") if line.startswith("id: ")]


def make_hub(*, most: int = 100, most_of_person: int = 1000, next_offset: int | None = 5) -> Hub:
    return Hub(next_offset=lambda _: next_offset, most=most, most_of_person=most_of_person)


def tell(hub: Hub, notification: TaskNotification, *offsets: int, user_id: str = "ann", partition: int = 0) -> None:
    told = [(offset, replace(notification, recipient_id=user_id)) for offset in offsets]
    hub.told(partition, (offsets[0], offsets[-1] + 1), told)


def test_each_gets_their_own_in_order(notification: TaskNotification) -> None:
    hub = make_hub()
    ann, ann_too, bob = Listener(hub), Listener(hub), Listener(hub, "bob")

    tell(hub, notification, 5, 6)
    tell(hub, notification, 7, user_id="bob")

    assert ann.ids() == ann_too.ids() == ["0-6", "0-7"]
    assert bob.ids() == ["0-8"]
    assert (ann.woken, bob.woken) == (2, 1)


def test_a_name_with_a_slash_hears_nothing_of_another_corp(notification: TaskNotification) -> None:
    hub = make_hub()
    stranger = Listener(hub, "x/ann")

    hub.told(0, (5, 6), [(5, replace(notification, corp_id="corp/x"))])

    assert stranger.ids() == []


def test_a_notification_is_encoded_once_however_many_listen(
    notification: TaskNotification, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, encoded = make_hub(), list[int]()

    def encode(_partition: int, offset: int, _notification: TaskNotification, _names: object) -> bytes:
        encoded.append(offset)
        return b""

    monkeypatch.setattr(hub_module, "notification_frame", encode)
    listeners = [Listener(hub) for _ in range(5)]

    tell(hub, notification, 5)
    tell(hub, notification, 6, user_id="nobody listens")

    assert encoded == [5]
    assert all(each.subscription.has_waiting for each in listeners)


def test_what_is_told_again_after_a_rebalance_is_given_once(notification: TaskNotification) -> None:
    hub = make_hub()
    ann = Listener(hub)
    tell(hub, notification, 5, 6)
    tell(hub, notification, 5, 6, 7)
    assert ann.ids() == ["0-6", "0-7", "0-8"]

    tell(hub, notification, 6, 7, 8)
    assert ann.ids() == ["0-9"]


def test_what_was_read_from_kafka_is_not_given_again(notification: TaskNotification) -> None:
    hub = make_hub()
    ann = Listener(hub)
    tell(hub, notification, 5, 6)
    ann.subscription.seen(6)
    assert ann.ids() == ["0-7"]


def test_a_reader_that_is_too_slow_ends_and_costs_the_others_nothing(notification: TaskNotification) -> None:
    hub = make_hub()
    slow, quick = Listener(hub), Listener(hub)

    received = 0
    for offset in range(5, 5 + WAITING_MAX + 1):
        tell(hub, notification, offset)
        received += len(quick.ids())

    assert slow.subscription.ending is Ending.SLOW
    assert slow.subscription.take() == (0, b""), "it resumes with what it has not seen"
    assert quick.subscription.ending is None
    assert received == WAITING_MAX + 1
    hub.leave(slow.subscription)
    assert hub.cut[Ending.SLOW] == 1


def test_a_stream_knows_where_it_begins_and_where_it_is(notification: TaskNotification) -> None:
    applied = 5
    hub = Hub(next_offset=lambda _: applied, most=10, most_of_person=10)
    ann = Listener(hub)
    assert ann.subscription.begins == 5
    assert hub.place(ann.subscription) == Place(0, 5)

    hub.told(0, (5, 9), [(8, replace(notification, recipient_id="bob"))])
    applied = 9
    assert hub.place(ann.subscription) == Place(0, 9), "others' notifications count as seen"
    assert Listener(hub).subscription.begins == 9

    tell(hub, notification, 9)
    assert hub.place(ann.subscription) is None, "not before it is written"


def test_what_could_not_be_applied_is_given_once_more_when_it_is_told_again(notification: TaskNotification) -> None:
    """A query for the list in between did not contain it."""
    hub = make_hub()
    ann, slow, bob = Listener(hub), Listener(hub), Listener(hub, partition=1)
    tell(hub, notification, 5, 6)
    tell(hub, notification, 5, 6, partition=1)
    assert ann.ids() == bob.ids() == ["0-6", "0-7"]

    hub.comes_again(0, 6)
    assert slow.ids() == ["0-6"], "a list has it first"
    tell(hub, notification, 6, 7)
    tell(hub, notification, 6, 7, partition=1)
    assert ann.ids() == slow.ids() == ["0-7", "0-8"]
    assert bob.ids() == ["0-8"]


def test_a_place_lies_behind_what_was_told_here_and_nothing_else() -> None:
    """A partition that went, unseen, and came back: another worker told what its store has by now."""
    applied = 5
    hub = Hub(next_offset=lambda _: applied, most=10, most_of_person=10)
    ann = Listener(hub)
    applied = 9
    assert hub.place(ann.subscription) == Place(0, 5)


@pytest.mark.parametrize("seen_by", ["what is told next", "a heartbeat", "another stream"])
def test_streams_of_a_partition_that_went_and_came_back_unseen_end(
    notification: TaskNotification, seen_by: str
) -> None:
    applied = {0: 5, 1: 5}
    hub = Hub(next_offset=applied.get, most=10, most_of_person=10)
    ann, bob = Listener(hub), Listener(hub, "bob", partition=1)
    hub.told(1, (5, 6), [(5, replace(notification, recipient_id="bob"))])
    applied |= {0: 9, 1: 6}

    if seen_by == "what is told next":
        hub.told(0, (9, 10), [(9, notification)])
    elif seen_by == "a heartbeat":
        hub.beat(100)
    else:
        assert Listener(hub).subscription.ending is None

    assert ann.subscription.ending is Ending.MOVED
    assert ann.ids() == [], "it comes back for what it has not seen"
    assert (bob.subscription.ending, bob.ids()) == (None, ["1-6"])


def test_streams_of_a_partition_that_went_end() -> None:
    hub = make_hub()
    ann, bob = Listener(hub), Listener(hub, "bob", partition=1)

    hub.assigned({0})
    hub.assigned({0, 1})

    assert (ann.subscription.ending, bob.subscription.ending) == (None, Ending.MOVED)


def test_a_partition_that_is_not_read_here_is_refused() -> None:
    with pytest.raises(NotFollowed):
        Listener(make_hub(next_offset=None))


def test_streams_are_bounded_and_places_are_given_back() -> None:
    hub = make_hub(most=2)
    ann, _ = Listener(hub), Listener(hub)
    with pytest.raises(TooManyStreams):
        Listener(hub)

    hub.leave(ann.subscription)
    hub.leave(ann.subscription)
    Listener(hub)
    assert hub.count == 2


def test_one_persons_streams_are_limited_regardless_of_others() -> None:
    hub = make_hub(most_of_person=2)
    ann, _ = Listener(hub), Listener(hub)
    with pytest.raises(TooManyOfPerson):
        Listener(hub)
    Listener(hub, "bob")

    hub.leave(ann.subscription)
    Listener(hub)


def test_a_stop_ends_all_and_takes_no_more() -> None:
    hub = make_hub()
    listeners = [Listener(hub), Listener(hub, "bob")]
    hub.stop()
    assert {each.subscription.ending for each in listeners} == {Ending.STOPPING}
    assert all(each.woken for each in listeners)
    with pytest.raises(TooManyStreams):
        Listener(hub)


def test_heartbeats_come_in_time_and_not_all_at_once() -> None:
    hub = make_hub(most=1000)
    listeners = [Listener(hub, now=0) for _ in range(150)]

    most_at_once = 0
    for second in range(1, 17):
        before = sum(each.woken for each in listeners)
        hub.beat(second)
        most_at_once = max(most_at_once, sum(each.woken for each in listeners) - before)

    assert all(each.subscription.take_beat() for each in listeners)
    assert most_at_once < 15


def test_who_may_listen_no_more_is_ended_at_the_next_heartbeat_and_the_others_go_on() -> None:
    hub, may = make_hub(), True
    let_go = hub.subscribe("corp", "ann", 0, now=0, may_go_on=lambda now: may and now < 500)
    other = Listener(hub)
    hub.beat(100)
    assert let_go.ending is None
    may = False
    hub.beat(101)
    assert let_go.ending is None, "it is not looked at without need"
    hub.beat(200)
    assert (let_go.ending, other.subscription.ending) == (Ending.ACCESS, None)
    hub.leave(let_go)
    assert hub.cut[Ending.ACCESS] == 1


def test_a_stream_that_is_passed_on_takes_the_place_of_two() -> None:
    hub = make_hub(most=5)
    first, second = hub.pass_on(), hub.pass_on()
    with pytest.raises(TooManyStreams):
        hub.pass_on()
    Listener(hub)
    with pytest.raises(TooManyStreams):
        Listener(hub)
    first()
    first()
    assert hub.forwarded == 1, "given back once only"
    Listener(hub)
    Listener(hub)
    with pytest.raises(TooManyStreams):
        Listener(hub)
    second()
    assert hub.forwarded == 0
    hub.stop()
    with pytest.raises(TooManyStreams):
        hub.pass_on()
