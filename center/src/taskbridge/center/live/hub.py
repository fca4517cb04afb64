"""Hands each notification that has just come to the streams of its person. Does no I/O: one loop, no locks.

A subscription knows where it began: all notifications from there on reach it, in order and once, or it is told that it
ended; what could not be applied comes once more. What came before is the reader's business (``streams.sse.missed``).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import OperatorError
from taskbridge.center.api.json_forms import nobody
from taskbridge.center.live.subscription import Ending, Subscription
from taskbridge.center.live.wire import Place, notification_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.center.api.json_forms import Names

NOTHING: Mapping[int, Callable[[], None]] = {}
HEARTBEAT_S = 15.0
_BEATS = 15
"""So many times within a heartbeat it is looked whose time has come."""

FORWARDED_PLACES = 2
"""Of a stream that another worker has: its client's connection, and the one to that worker."""

_GOLDEN = 0.618
"""Multiples of it spread evenly over an interval, however many there are."""


class TooManyStreams(OperatorError):
    """There are as many event streams here as there may be: try again later."""


class TooManyOfPerson(OperatorError):
    """Somebody has as many event streams as one person may have: close some, or try again later."""


class NotFollowed(OperatorError):
    """The partition of this person is on its way to another worker: try again in a moment."""


@dataclass(eq=False)
class Hub:
    """All streams of one worker."""

    next_offset: Callable[[int], int | None]
    """Returns the next notification to be sent of a partition; None if that is not known."""
    most: int
    """Bounds all connections, those to other workers too."""
    most_of_person: int
    """Bounds the streams of one person: nobody uses up the places of the others."""
    heartbeat_s: float = HEARTBEAT_S
    names: Names = nobody

    def __post_init__(self) -> None:
        # By both ids: joined as in a record's key, one with a slash could look like another two.
        self._of_person: dict[tuple[str, str], list[Subscription]] = {}
        self._reached: dict[int, int] = {}
        """By partition, the offset up to which its streams were sent everything."""
        self.count = 0
        self.forwarded = 0
        """Streams that other workers have and this one passes on."""
        self.sent = 0
        self.cut: Counter[Ending] = Counter()
        self.stopping = False

    def subscribe(
        self,
        corp_id: str,
        user_id: str,
        partition: int,
        *,
        now: float,
        may_go_on: Callable[[float], bool] = lambda _: True,
    ) -> Subscription:
        """From now on, every notification of this person, as long as ``may_go_on`` is true, at each heartbeat.

        Raises:
            TooManyStreams: this worker holds as many as it may, or is about to stop.
            TooManyOfPerson: others are free to come.
            NotFollowed: this worker does not read the partition.
        """
        self._check_room(1)
        if len(self._of_person.get((corp_id, user_id), ())) >= self.most_of_person:
            raise TooManyOfPerson(str(TooManyOfPerson.__doc__))
        begins = self.next_offset(partition)
        if begins is None:
            raise NotFollowed(str(NotFollowed.__doc__))
        self._go_on(partition, begins, begins)
        # Those that came at once do not beat at once.
        due = now + self.heartbeat_s * (self.count * _GOLDEN % 1)
        found = Subscription((corp_id, user_id), partition, begins, due, may_go_on)
        self._of_person.setdefault(found.person, []).append(found)
        self.count += 1
        return found

    def pass_on(self) -> Callable[[], None]:
        """Reserve the places of a stream that another worker has; the returned function frees them, once only.

        Raises:
            TooManyStreams: as above.
        """
        self._check_room(FORWARDED_PLACES)
        self.forwarded += 1
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self.forwarded -= 1

        return give_back

    def _check_room(self, places: int) -> None:
        taken = self.count + FORWARDED_PLACES * self.forwarded
        if self.stopping or taken + places > self.most:
            raise TooManyStreams(str(TooManyStreams.__doc__))

    def leave(self, subscription: Subscription) -> None:
        """Forget a stream. A second call does nothing."""
        of_person = self._of_person.get(subscription.person, [])
        if subscription in of_person:
            of_person.remove(subscription)
            self.count -= 1
            if subscription.ending is not None:
                self.cut[subscription.ending] += 1
            if not of_person:
                del self._of_person[subscription.person]

    def told(
        self,
        partition: int,
        offsets: tuple[int, int],
        notifications: Sequence[tuple[int, TaskNotification]],
        written: Mapping[int, Callable[[], None]] = NOTHING,
    ) -> None:
        """Pass on what has just come, in the order of its offsets. Repeats are dropped.

        ``offsets``: from, and to before, which it came. Each notification is encoded once, and only when somebody
        listens. ``written``, by offset, is called for each stream that it was written to.
        """
        self._go_on(partition, *offsets)
        for offset, notification in notifications:
            listening = self._of_person.get((notification.corp_id, notification.recipient_id))
            if listening:
                frame = notification_frame(partition, offset, notification, self.names)
                for each in listening:
                    each.push(offset, frame, written.get(offset))

    def comes_again(self, partition: int, offset: int) -> None:
        """Notifications from this offset on are not in people's lists: sending them again is no repetition."""
        self._reached[partition] = min(self._reached.get(partition, offset), offset)
        for each in self._all():
            if each.partition == partition:
                each.comes_again(offset)

    def place(self, subscription: Subscription) -> Place | None:
        """Where somebody who has read all of this stream would go on; None while something waits."""
        if subscription.has_waiting or subscription.ending is not None:
            return None
        return Place(subscription.partition, self._reached[subscription.partition])

    def beat(self, now: float) -> None:
        """Have those write a heartbeat, or end, whose time has come. To be called several times in ``heartbeat_s``."""
        for each in list(self._all()):
            if each.due <= now:
                if not each.may_go_on(now):
                    each.end(Ending.ACCESS)
                elif (self.next_offset(each.partition) or 0) > self._reached[each.partition]:
                    each.end(Ending.MOVED)
                else:
                    each.beat(now + self.heartbeat_s)

    def assigned(self, partitions: Collection[int]) -> None:
        """End the streams of all other partitions; their clients find the new owner by themselves.

        To be called at every assignment. A partition that went and came back between two of them is noticed by its
        offsets: another worker sent some.
        """
        for each in list(self._all()):
            if each.partition not in partitions:
                each.end(Ending.MOVED)

    def stop(self) -> None:
        """End all streams, and accept no more."""
        self.stopping = True
        for each in list(self._all()):
            each.end(Ending.STOPPING)

    def _go_on(self, partition: int, begins: int, until: int) -> None:
        """Its streams are told ``begins`` to ``until``. Those that lack something before end."""
        if self._reached.get(partition, begins) < begins:
            for each in self._all():
                if each.partition == partition:
                    each.end(Ending.MOVED)
        self._reached[partition] = until

    def _all(self) -> Iterator[Subscription]:
        return (each for of_person in self._of_person.values() for each in of_person)


async def keep_beating(hub: Hub) -> None:
    """Heartbeats, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(HEARTBEAT_S / _BEATS)
        hub.beat(loop.time())
