"""The open event streams of a replica: woken when their person's lists changed, written from the database.

A change is committed before it is sent: a list that is queried after an event contains it, on every replica. The
database is the queue: each stream reads what follows its own place, whether it resumes, is slow, or waits for news.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskbridge.center.access.refusals import TooManyQueries
from taskbridge.center.live.changes import Reader, listen_for_changes
from taskbridge.center.live.wire import OPENING, StreamPosition, end_frame, heartbeat_frame, reset_frame
from taskbridge.center.reminders.due import NO_RULES, DueRules
from taskbridge.runtime.database import Database, DatabaseUnavailable, clean
from taskbridge.runtime.refusals import NotNow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric
    from starlette.types import Receive, Send

    from taskbridge.center.tables import Person

STOPPING = "stopping"
ACCESS = "access"
"""The token was revoked, or the proxy must check again whether the person is still signed in."""
_HEARTBEAT_S = 15.0
_BEATS = 15
"""So many times per heartbeat, streams whose heartbeat is due get theirs."""
_METRIC = "taskbridge_center_sse_"


@dataclass(slots=True, eq=False)
class Stream:
    """One connection, in the event loop. At rest it is one coroutine that waits for the client's end."""

    hub: Hub
    person: Person
    at: StreamPosition | None
    """What its client has once ``_unsent`` is written. None: everything before the stream was opened."""
    due: float
    """When the next heartbeat is."""
    may_go_on: Callable[[float], bool]
    beats: bool = True
    """Whether a heartbeat is to be written."""
    is_stale: bool = True
    """Whether there may be more after ``at``."""
    ending: str | None = None
    _unsent: bytes = OPENING
    _send: Send | None = None
    _task: asyncio.Task[None] | None = None

    async def run(self, receive: Receive, send: Send) -> None:
        """Write the body; return when the client has gone or the stream has ended."""
        try:
            self._send = send
            self.go_on()
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.hub.leave(self)
            if self._task is not None:
                self._task.cancel()

    def go_on(self) -> None:
        """Look what there is to do."""
        if self._send is not None and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write(self._send))

    async def _write(self, send: Send) -> None:
        """Write until there is nothing, or the end. Between the last look and the task's end there is no ``await``."""
        try:
            while self.ending is None:
                if self._unsent:
                    body, self._unsent = self._unsent, b""
                elif self.beats and self.at is not None:
                    body, self.beats = heartbeat_frame(self.at), False
                elif self.is_stale:
                    await self.read()
                    continue
                else:
                    return
                await send({"type": "http.response.body", "body": body, "more_body": True})
            # A client that resumes gets the rest.
            await send({"type": "http.response.body", "body": end_frame(self.ending), "more_body": False})
        except DatabaseUnavailable:
            self.is_stale = True  # the hub repeats it
        finally:
            self._task = None

    async def read(self) -> None:
        """Read the next part, to be written. Raises DatabaseUnavailable."""
        self.is_stale = False  # first: a commit during the read wakes it again
        at = self.at
        latest, frames = await self.hub.reader.read((*self.person, None if at is None else at.seq))
        self.at = latest
        if at is not None and at.epoch == latest.epoch and frames:
            self.at = StreamPosition(at.epoch, at.seq + len(frames))
            self.is_stale |= self.at != latest
            self.hub.sent += len(frames)
            self._unsent += b"".join(frames)
        elif at is not None and at != latest:
            is_old = at.epoch == latest.epoch and at.seq < latest.seq
            problem = "changes after this id are no longer stored" if is_old else "the lists were rebuilt after this id"
            self._unsent += reset_frame(problem)
            self.beats = True  # with an id of this epoch


@dataclass(eq=False)
class Hub(Collector):
    """All streams of one replica, and their metrics."""

    database: Database
    most: int
    """Bounds all streams."""
    most_of_person: int = 32
    """Bounds the streams of one person: nobody uses up the places of the others."""
    heartbeat_s: float = _HEARTBEAT_S
    due_rules: Callable[[], DueRules] = lambda: NO_RULES

    def __post_init__(self) -> None:
        self.reader = Reader(self.database, self.due_rules)
        self.count = 0
        self.sent = 0
        self.cut = Counter({STOPPING: 0, ACCESS: 0})
        self._of_person: dict[Person, list[Stream]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

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
                each.is_stale = True
                each.go_on()

    async def subscribe(
        self,
        corp_id: str,
        user_id: str,
        after: StreamPosition | None,
        *,
        now: float,
        may_go_on: Callable[[float], bool],
    ) -> Stream:
        """Every change of this person after that place, or from now on, while ``may_go_on`` at each heartbeat.

        Raises NotNow or TooManyQueries if the replica, or the person, has as many as allowed; DatabaseUnavailable.
        """
        if self.count >= self.most:
            raise NotNow("there are as many event streams here as there may be: try again later", retry_after_s=2)
        person = clean(corp_id), clean(user_id)
        if len(self._of_person.get(person, ())) >= self.most_of_person:
            problem = "one person has as many event streams as one person may have: close some, or try again later"
            raise TooManyQueries(problem, retry_after_s=30)
        self._loop = asyncio.get_running_loop()
        # Streams that were opened at once do not beat at once.
        found = Stream(self, person, after, now + self.heartbeat_s * (self.count % _BEATS) / _BEATS, may_go_on)
        self._of_person.setdefault(person, []).append(found)
        self.count += 1
        try:
            await found.read()
        except BaseException:
            self.leave(found)
            raise
        return found

    def leave(self, stream: Stream) -> None:
        self.count -= 1
        self._of_person[stream.person].remove(stream)
        if not self._of_person[stream.person]:
            del self._of_person[stream.person]

    def beat(self, now: float) -> None:
        """Write due heartbeats, end streams that may not go on, and repeat reads that failed."""
        for each in self._all():
            if each.due <= now:
                each.due, each.beats = now + self.heartbeat_s, True
                self._check(each, now)
            if each.beats or each.is_stale:
                each.go_on()

    def check(self) -> None:
        """End streams that may not go on, without waiting for their heartbeats."""
        if self._loop is not None:
            for each in self._all():
                self._check(each, self._loop.time())

    def _check(self, stream: Stream, now: float) -> None:
        if not stream.may_go_on(now):
            self._end(stream, ACCESS)

    def stop(self) -> None:
        """End all streams, and accept no more."""
        self.most = 0
        for each in self._all():
            self._end(each, STOPPING)

    def _end(self, stream: Stream, ending: str) -> None:
        if stream.ending is None:
            self.cut[ending] += 1
            stream.ending = ending
            stream.go_on()

    def _all(self) -> list[Stream]:
        return [each for streams in self._of_person.values() for each in streams]

    async def run(self) -> None:
        """Heartbeats, and what other replicas have committed, until cancelled."""
        self._loop, stopped = asyncio.get_running_loop(), threading.Event()
        if not self.database.is_sqlite:
            listening = self.database, self.changed, lambda: self.changed(list(self._of_person)), stopped
            threading.Thread(target=listen_for_changes, args=listening, name="listen", daemon=True).start()
        watching = asyncio.create_task(self._watch_epoch())
        try:
            while True:
                await asyncio.sleep(self.heartbeat_s / _BEATS)
                self.beat(self._loop.time())
        finally:
            stopped.set()
            watching.cancel()
            await asyncio.to_thread(self.reader.close)

    async def _watch_epoch(self) -> None:
        """Wake streams of another epoch: for some of them no change may ever come."""
        while True:
            await asyncio.sleep(self.heartbeat_s / _BEATS)
            for person in list(islice(self._of_person, 1)):
                with suppress(DatabaseUnavailable):
                    latest, _ = await self.reader.read((*person, None))
                    self._wake({each.person for each in self._all() if each.at and each.at.epoch != latest.epoch})

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(_METRIC + "connections", "Open event streams of this replica.", self.count)
        yield CounterMetricFamily(_METRIC + "sent", "Changes written to event streams.", self.sent)
        cut = CounterMetricFamily(
            _METRIC + "cut", "Event streams that the replica closed, by reason.", labels=["reason"]
        )
        for ending, count in self.cut.items():
            cut.add_metric([ending], count)
        yield cut
