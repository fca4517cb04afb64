"""The open event streams of a replica: woken when their person's lists changed, written from the database.

A thread that has committed changes calls ``Hub.changed``. A change is committed before it is sent: a list that is
queried after an event contains it, on every replica. The database is the queue: each stream reads what follows its own
place, whether it resumes, is slow, or waits for news. At rest it is one coroutine that waits for the client's end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskbridge.center.access.refusals import NotNow, TooManyQueries
from taskbridge.center.database import DatabaseUnavailable
from taskbridge.center.live.changes import Reader, listen_for_changes
from taskbridge.center.live.wire import OPENING, Place, end_frame, heartbeat_frame, reset_frame
from taskbridge.center.tables import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric
    from starlette.types import Receive, Send

    from taskbridge.center.database import Database
    from taskbridge.center.tables import Person

_HEARTBEAT_S = 15.0
_BEATS = 15
"""So many times per heartbeat, streams whose heartbeat is due get theirs."""
_LATER_S = 30
"""For somebody who has many streams open; a page that waits shows its lists all the same."""
_PREFIX = "taskbridge_center_sse_"
_REBUILT = "the lists were rebuilt after this id"
_TOO_OLD = "changes after this id are no longer stored"

Ending = Literal["stopping", "access"]
"""Why the center ended a stream. Access: its token was revoked, or the proxy must check again who is signed in."""


@dataclass(slots=True, eq=False)
class Stream:
    """One connection. It belongs to the event loop."""

    hub: Hub
    person: Person
    at: Place | None
    """What its client has once ``_unsent`` is written. None: whatever was before the stream was opened."""
    due: float
    """When the next heartbeat is."""
    may_go_on: Callable[[float], bool]
    ending: Ending | None = None
    is_stale: bool = True
    """Whether there may be more after ``at``."""
    _is_behind: bool = True
    """Whether there was more than one read returns."""
    _beats: bool = True
    _unsent: bytes = OPENING
    _send: Send | None = None
    _task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Read what follows, and write it."""
        self.is_stale = True
        self._go_on()

    def beat(self, next_due: float) -> None:
        """Write a heartbeat; the one after it is at ``next_due``."""
        self.due, self._beats = next_due, True
        self._go_on()

    def end(self, ending: Ending) -> None:
        """Write the reason, and nothing after it: a client that resumes gets the rest."""
        self.ending = self.ending or ending
        self._go_on()

    async def read(self) -> None:
        """Read the next part, to be written. Raises DatabaseUnavailable."""
        self.is_stale = False  # first: whoever commits during the read wakes again
        # Clients that come back by the thousand do not delay what has just happened.
        reader = self.hub.backlog if self._is_behind else self.hub.live
        latest, frames = await reader.read((*self.person, None if self.at is None else self.at.seq))
        at, self.at = self.at, latest
        if at is not None and at.epoch == latest.epoch and frames:
            self.at = Place(at.epoch, at.seq + len(frames))
            self._unsent += b"".join(frames)
            self.hub.sent += len(frames)
        elif at is not None and at != latest:
            is_old = at.epoch == latest.epoch and at.seq < latest.seq
            self._unsent += reset_frame(_TOO_OLD if is_old else _REBUILT)
            self._beats = True  # with an id of this epoch
        self._is_behind = self.at != latest
        self.is_stale |= self._is_behind

    async def run(self, receive: Receive, send: Send) -> None:
        """Write the body; return when the client has gone or the stream has ended."""
        try:
            self._send = send
            self._go_on()
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.hub.leave(self)
            if self._task is not None:
                self._task.cancel()

    def _go_on(self) -> None:
        if self._send is not None and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write(self._send))

    async def _write(self, send: Send) -> None:
        """Write until there is nothing, or the end. Between the last look and the task's end there is no ``await``."""
        try:
            while self.ending is None:
                if self._unsent:
                    body, self._unsent = self._unsent, b""
                elif self._beats and self.at is not None:
                    body, self._beats = heartbeat_frame(self.at), False
                elif self.is_stale:
                    await self.read()
                    continue
                else:
                    return
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": end_frame(self.ending), "more_body": False})
        except DatabaseUnavailable:
            self.is_stale = True  # the hub wakes it again
        finally:
            self._task = None


@dataclass(eq=False)
class Hub(Collector):
    """All streams of one replica, and their metrics."""

    database: Database
    most: int
    """Bounds all streams."""
    most_of_person: int
    """Bounds the streams of one person: nobody uses up the places of the others."""
    heartbeat_s: float = _HEARTBEAT_S

    def __post_init__(self) -> None:
        self.live, self.backlog = Reader(self.database, "live"), Reader(self.database, "backlog")
        self._of_person: dict[Person, list[Stream]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self.count = 0
        self.sent = 0
        self.cut: Counter[Ending] = Counter({"stopping": 0, "access": 0})

    def changed(self, people: Iterable[Person]) -> None:
        """These people's changes were committed. Thread-safe, and cheap for people without streams."""
        # Who is not here yet will read after this commit.
        found = [each for each in people if each in self._of_person]
        if found and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake, found)

    def _wake(self, people: Iterable[Person]) -> None:
        for person in people:
            for each in self._of_person.get(person, ()):
                each.wake()

    async def subscribe(
        self, corp_id: str, user_id: str, after: Place | None, *, now: float, may_go_on: Callable[[float], bool]
    ) -> Stream:
        """Every change of this person after that place, or from now on, while ``may_go_on`` at each heartbeat.

        Raises:
            NotNow: This replica holds as many as it may, or is about to stop.
            TooManyQueries: The person has as many as one person may have.
            DatabaseUnavailable: It does not answer.
        """
        if self._stopping or self.count >= self.most:
            raise NotNow("there are as many event streams here as there may be: try again later", retry_after_s=2)
        person = clean(corp_id), clean(user_id)
        if len(self._of_person.get(person, ())) >= self.most_of_person:
            problem = "one person has as many event streams as one person may have: close some, or try again later"
            raise TooManyQueries(problem, retry_after_s=_LATER_S)
        self._loop = asyncio.get_running_loop()
        # Streams that were opened at once do not beat at once.
        first_beat = now + self.heartbeat_s * (self.count % _BEATS) / _BEATS
        found = Stream(self, person, after, first_beat, may_go_on)
        self._of_person.setdefault(person, []).append(found)
        self.count += 1
        try:
            await found.read()
        except BaseException:
            self.leave(found)
            raise
        return found

    def leave(self, stream: Stream) -> None:
        """Forget a stream. A second call does nothing."""
        streams = self._of_person.get(stream.person, [])
        if stream in streams:
            streams.remove(stream)
            self.count -= 1
            if stream.ending is not None:
                self.cut[stream.ending] += 1
            if not streams:
                del self._of_person[stream.person]

    def beat(self, now: float) -> None:
        """Write due heartbeats, end streams that may not go on, and repeat reads that failed."""
        for each in self._all():
            if each.due > now:
                if each.is_stale:
                    each.wake()
            elif each.may_go_on(now):
                each.beat(now + self.heartbeat_s)
            else:
                each.end("access")

    def stop(self) -> None:
        """End all streams, and accept no more."""
        self._stopping = True
        for each in self._all():
            each.end("stopping")

    async def run(self) -> None:
        """Heartbeats, and what other replicas have committed, until cancelled."""
        self._loop, stopped = asyncio.get_running_loop(), threading.Event()
        if not self.database.is_sqlite:
            listening = self.database, self.changed, lambda: self.changed(list(self._of_person)), stopped
            threading.Thread(target=listen_for_changes, args=listening, name="listen", daemon=True).start()
        try:
            await asyncio.gather(self._beat(), self._watch_epoch())
        finally:
            stopped.set()
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Wait for queries that still run."""
        self.live.close()
        self.backlog.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_s / _BEATS)
            self.beat(asyncio.get_running_loop().time())

    async def _watch_epoch(self) -> None:
        """Wake streams of another epoch: for some of them no change may ever come."""
        while True:
            await asyncio.sleep(self.heartbeat_s / _BEATS)
            for person in list(islice(self._of_person, 1)):
                with suppress(DatabaseUnavailable):
                    epoch = (await self.backlog.read((*person, None))).latest.epoch
                    for each in self._all():
                        if each.at is not None and each.at.epoch != epoch:
                            each.wake()

    def _all(self) -> list[Stream]:
        return [each for streams in self._of_person.values() for each in streams]

    def collect(self) -> Iterable[Metric]:
        """At every scrape."""
        yield GaugeMetricFamily(_PREFIX + "connections", "Open event streams of this replica.", self.count)
        yield CounterMetricFamily(_PREFIX + "sent", "Changes written to event streams.", self.sent)
        described = "Event streams that the replica closed, by reason: stopping, access."
        cut = CounterMetricFamily(_PREFIX + "cut", described, labels=["reason"])
        for ending, count in self.cut.items():
            cut.add_metric([ending], count)
        yield cut
