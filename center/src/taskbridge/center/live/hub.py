"""Passes each change of a person's lists on to the person's streams, in order and once.

A thread that has committed changes calls ``changed``. The hub then reads the changes of those people who have streams
here, once per person however many streams there are. A change is committed before it is sent: a list that is queried
after an event contains it, on every replica. The state belongs to the event loop; only ``changed`` is for threads.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import structlog

from taskbridge.center.database import DatabaseUnavailable
from taskbridge.center.live.changes import PART, Listening, changes_between, changes_of, epoch_of, places_now
from taskbridge.center.live.stream import Ending, Stream
from taskbridge.center.live.wire import Place
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from taskbridge.center.database import Database
    from taskbridge.center.live.changes import ChangeFrame
    from taskbridge.center.tables import Person

T = TypeVar("T")

log = structlog.get_logger(__name__)

HEARTBEAT_S = 15.0
_BEATS = 15
"""So many times per heartbeat, streams whose heartbeat is due get theirs."""
_PEOPLE = 200
"""People per read: those after them do not wait for thousands."""
_RETRY_S = 1.0
_ANSWER_S = 10.0
"""How long a new stream waits for the database."""
_GOLDEN = 0.618
"""Multiples of it spread evenly over an interval, however many there are."""


class TooManyStreams(OperatorError):
    """There are as many event streams here as there may be: try again later."""


class TooManyOfPerson(OperatorError):
    """One person has as many event streams as one person may have: close some, or try again later."""


@dataclass(slots=True, eq=False)
class _Listeners:
    """The streams of one person."""

    place: Place | None = None
    """The change up to which they were given everything; None until it is read."""
    is_stale: bool = False
    """Whether there were changes while ``place`` was being read."""
    streams: list[Stream] = field(default_factory=list[Stream])


@dataclass(eq=False)
class Hub:
    """All streams of one replica."""

    database: Database
    most: int
    """Bounds all streams."""
    most_of_person: int
    """Bounds the streams of one person: nobody uses up the places of the others."""
    heartbeat_s: float = HEARTBEAT_S

    def __post_init__(self) -> None:
        self._of_person: dict[Person, _Listeners] = {}
        self._stale: dict[Person, None] = {}
        self._reading: asyncio.Task[None] | None = None
        self._joining: dict[Person, asyncio.Future[Place]] = {}
        self._join_task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Clients that come back do not delay what has just happened.
        self._live_thread = ThreadPoolExecutor(1, "live")
        self._missed_thread = ThreadPoolExecutor(1, "missed")
        self.count = 0
        self.sent = 0
        self.cut: Counter[Ending] = Counter()
        self.stopping = False

    def changed(self, people: Iterable[Person]) -> None:
        """These people's changes were committed. Thread-safe, and cheap for people without streams."""
        # Who is not here yet will read the place after this commit.
        found = [each for each in people if each in self._of_person]
        if found and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._mark, found)

    async def subscribe(
        self, corp_id: str, user_id: str, *, now: float, may_go_on: Callable[[float], bool] = lambda _: True
    ) -> Stream:
        """From now on, every change of this person, as long as ``may_go_on`` is true, at each heartbeat.

        Raises:
            TooManyStreams: this replica holds as many as it may, or is about to stop.
            TooManyOfPerson: others are free to come.
            DatabaseUnavailable: it does not answer.
        """
        person = corp_id, user_id
        if self.stopping or self.count >= self.most:
            raise TooManyStreams(str(TooManyStreams.__doc__))
        listeners = self._of_person.get(person) or _Listeners()
        if len(listeners.streams) >= self.most_of_person:
            raise TooManyOfPerson(str(TooManyOfPerson.__doc__))
        self._loop = asyncio.get_running_loop()
        # Streams that were opened at once do not beat at once.
        found = Stream(self, person, now + self.heartbeat_s * (self.count * _GOLDEN % 1), may_go_on)
        self._of_person[person] = listeners
        listeners.streams.append(found)
        self.count += 1
        try:
            place = listeners.place or await self._join(person, listeners)
        except BaseException:
            self.leave(found)
            raise
        found.epoch, found.begins = place
        found.seen(place.seq)
        return found

    def leave(self, stream: Stream) -> None:
        """Forget a stream. A second call does nothing."""
        listeners = self._of_person.get(stream.person)
        if listeners is not None and stream in listeners.streams:
            listeners.streams.remove(stream)
            self.count -= 1
            if stream.ending is not None:
                self.cut[stream.ending] += 1
            if not listeners.streams:
                del self._of_person[stream.person]

    async def missed(self, person: Person, after: int, until: int) -> list[ChangeFrame]:
        """Some or all of the changes in between, for a stream that resumes.

        Raises:
            DatabaseUnavailable: it does not answer.
        """
        return await self._in_missed_thread(changes_between, person, after, until)

    def place(self, stream: Stream) -> Place | None:
        """Where a client that has read all of this stream would resume; None while something waits."""
        listeners = self._of_person.get(stream.person)
        if listeners is None or listeners.place is None or stream.has_waiting or stream.ending is not None:
            return None
        # It may come from a replica that has read further.
        return Place(stream.epoch, max(listeners.place.seq, stream.reached))

    def beat(self, now: float) -> None:
        """Write due heartbeats, and end streams that may not go on. To be called several times in ``heartbeat_s``."""
        for each in list(self._all()):
            if each.due <= now:
                if each.may_go_on(now):
                    each.beat(now + self.heartbeat_s)
                else:
                    each.end(Ending.ACCESS)

    def stop(self) -> None:
        """End all streams, and accept no more."""
        self.stopping = True
        for each in list(self._all()):
            each.end(Ending.STOPPING)

    async def run(self) -> None:
        """Heartbeats, and what other replicas have committed, until cancelled."""
        loop = self._loop = asyncio.get_running_loop()
        listening = None if self.database.is_sqlite else Listening(self.database, self.changed, self._all_changed)
        try:
            while True:
                await asyncio.sleep(self.heartbeat_s / _BEATS)
                self.beat(loop.time())
                if self._of_person:
                    with suppress(DatabaseUnavailable):  # what it would say is no longer known, or not yet
                        self._epoch_is(await loop.run_in_executor(self._live_thread, epoch_of, self.database))
        finally:
            if listening is not None:
                listening.stop()
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Wait for queries that still run: they would leave their connections open."""
        for each in (self._live_thread, self._missed_thread):
            each.shutdown(cancel_futures=True)

    def _all_changed(self) -> None:
        """Notifications may have been lost: read everybody's changes."""
        self.changed(list(self._of_person))

    def _mark(self, people: Iterable[Person]) -> None:
        self._stale.update(dict.fromkeys(people))
        if self._stale and self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._stale:
                people = list(islice(self._stale, _PEOPLE))
                for each in people:
                    del self._stale[each]
                wanted: dict[Person, int] = {}
                for person in people:
                    listeners = self._of_person.get(person)
                    if listeners is not None and listeners.place is not None:
                        wanted[person] = listeners.place.seq
                    elif listeners is not None:
                        listeners.is_stale = True
                try:
                    found = await loop.run_in_executor(self._live_thread, changes_of, self.database, wanted)
                except DatabaseUnavailable as error:
                    log.warning("changes_not_read", problem=str(error))
                    self._stale.update(dict.fromkeys(wanted))
                    await asyncio.sleep(_RETRY_S)
                    continue
                for person, frames in found.items():
                    self._pass_on(person, frames)
        finally:
            self._reading = None

    def _pass_on(self, person: Person, frames: list[ChangeFrame]) -> None:
        listeners = self._of_person.get(person)
        if listeners is None:
            return
        if listeners.place is None:  # all streams left while this was read, and another came
            listeners.is_stale = True
            return
        epoch, reached = listeners.place
        fresh = [each for each in frames if each.place.seq > reached or each.place.epoch != epoch]
        if fresh and fresh[0].place != Place(epoch, reached + 1):
            for each in listeners.streams:
                each.end(Ending.REBUILT)
            return
        for place, frame in fresh:
            listeners.place = place
            for each in listeners.streams:
                each.push(place.seq, frame)
        if len(frames) == PART:
            self._stale[person] = None

    async def _join(self, person: Person, listeners: _Listeners) -> Place:
        """Clients that come back by the thousand share queries."""
        if person not in self._joining:
            self._joining[person] = asyncio.get_running_loop().create_future()
        if self._join_task is None:
            self._join_task = asyncio.get_running_loop().create_task(self._read_places())
        place = await asyncio.shield(self._joining[person])
        # The first to have read it decides: from there on, everything is passed on.
        if listeners.place is None:
            listeners.place = place
            if listeners.is_stale:
                self._mark([person])
        return listeners.place

    async def _read_places(self) -> None:
        try:
            while self._joining:
                waiting = dict(islice(self._joining.items(), _PEOPLE))
                for each in waiting:
                    del self._joining[each]
                try:
                    async with asyncio.timeout(_ANSWER_S):
                        found = await self._in_missed_thread(places_now, list(waiting))
                except (DatabaseUnavailable, TimeoutError) as error:
                    for each in waiting.values():
                        each.set_exception(DatabaseUnavailable(str(error) or "the database does not answer in time"))
                        each.exception()  # its stream may have gone
                    continue
                for person, each in waiting.items():
                    each.set_result(found[person])
        finally:
            self._join_task = None

    async def _in_missed_thread(self, read: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._missed_thread, read, self.database, *arguments)

    def _epoch_is(self, epoch: str) -> None:
        for listeners in self._of_person.values():
            if listeners.place is not None and listeners.place.epoch != epoch:
                for each in listeners.streams:
                    each.end(Ending.REBUILT)

    def _all(self) -> Iterator[Stream]:
        return (each for listeners in self._of_person.values() for each in listeners.streams)
