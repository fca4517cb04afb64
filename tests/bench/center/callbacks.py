"""Time from a callback to a client of its assignee's event stream, through the whole bridge."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
import uuid
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.center.company import Trickle
from tests.bench.command import NotCounted
from tests.bench.services import start_bridge
from tests.bench.spreads import Estimate, estimate
from tests.bench.toolchains import CHECKOUT

from taskbridge.edge.sender import encode_callback, signed
from taskbridge.local.company import CORP
from taskbridge.local.demo import APP, write_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.bench.rounds import Rounds
    from tests.bench.streams.setup import Setup

AT_REST = "at rest"

_PAUSE_S = 0.1
WARM_UP_S = 45
WARM_UP_PER_S = 1000
"""So long, and so often, events come first, before any round: a Kafka that was just started has compiled nothing."""
_WARM_UP = 20
"""Callbacks of each condition in each round, before those that count."""
_ARRIVES_WITHIN_S = 30.0
_USERS = 1000


@dataclass(slots=True)
class Times:
    """Of one condition in one round; a callback each, in milliseconds since before it was posted."""

    answered: list[float] = field(default_factory=list[float])
    arrived: list[float] = field(default_factory=list[float])

    def quantile(self, share: float) -> float:
        return sorted(self.arrived)[int(len(self.arrived) * share)]


def median_ms(found: Iterable[Times]) -> Estimate:
    """Until a callback has arrived, over the rounds."""
    return estimate(each.quantile(0.5) for each in found)


def measure_callbacks(
    setup: Setup, rounds: Rounds, *, callbacks: int, events_per_second: int, center: str, checkout: Path = CHECKOUT
) -> dict[str, list[Times]]:
    """One callback after the other, in turns at rest and while other events come; by condition, one for each round.

    ``center`` is the URL of a running one; edge and streams are those of ``checkout``.

    Raises:
        NotCounted: one is refused, or does not arrive.
    """
    credentials = setup.folder / "credentials.toml"
    token = write_credentials(credentials)
    with ExitStack() as stack:
        edge = start_bridge(stack, setup, credentials, checkout=checkout).edge
        # Of its own: the center may still be reading what was posted for another one.
        person = f"listener-{uuid.uuid4().hex[:8]}"
        listener = _Listener(f"{center}/v1/corps/{CORP}/users/{person}/events", person)
        warming = Trickle(setup, per_second=WARM_UP_PER_S, users=_USERS)
        time.sleep(WARM_UP_S)
        warming.stop()
        found: dict[str, list[Times]] = {AT_REST: [], f"under {events_per_second} events a second": []}
        for _ in rounds.numbers(lambda: {f"p50 {AT_REST}": median_ms(found[AT_REST])}):
            for condition, times in found.items():
                trickle = None
                if condition != AT_REST:
                    trickle = Trickle(setup, per_second=events_per_second, users=_USERS)
                try:
                    _post(edge, token, listener, _WARM_UP)
                    times.append(_post(edge, token, listener, callbacks))
                finally:
                    if trickle is not None:
                        trickle.stop()
                setup.progress(f"{condition}: p50 {times[-1].quantile(0.5):.1f} ms, p99 {times[-1].quantile(0.99):.1f}")
    setup.progress(rounds.ended)
    return found


def _post(edge: str, token: str, listener: _Listener, count: int) -> Times:
    """Each is signed and its connection open before its time starts: only the service is measured."""
    times = Times()
    with closing(_connection(edge)) as connection:
        for _ in range(count):
            task = {
                "appType": APP,
                "formInstanceId": str(uuid.uuid4()),
                "originatorCorpId": CORP,
                "originatorId": "employee01",
                "title": "请假申请",
                "taskId": str(uuid.uuid4()),
                "actionerId": listener.person,
            }
            parameters = {"dateTime": str(time.time_ns() // 1_000_000), "task": json.dumps(task)}
            callback = encode_callback(signed(parameters, system_token=token), "form")
            began = time.perf_counter()
            connection.request("POST", "/yida/tasks/create", callback.body, dict(callback.headers))
            answer = connection.getresponse()
            body = answer.read()
            answered = time.perf_counter()
            if answer.status != HTTPStatus.OK:
                raise NotCounted(f"the edge answered {answer.status}: {body!r}")
            times.answered.append((answered - began) * 1000)
            times.arrived.append((listener.next() - began) * 1000)
            time.sleep(_PAUSE_S)
    return times


def _connection(url: str) -> http.client.HTTPConnection:
    """Python's own client, which adds the least to the measured time."""
    return http.client.HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port)


class _Listener:
    """Reads an event stream in a thread, and records when each notification came."""

    def __init__(self, url: str, person: str) -> None:
        self._url = url
        self.person = person
        self._came: queue.SimpleQueue[float] = queue.SimpleQueue()
        opened = threading.Event()
        threading.Thread(target=self._read, args=(opened.set,), daemon=True).start()
        if not opened.wait(_ARRIVES_WITHIN_S):
            raise NotCounted(f"{url} is not opened")

    def next(self) -> float:
        """The moment, by ``time.perf_counter``. Blocks until then."""
        try:
            return self._came.get(timeout=_ARRIVES_WITHIN_S)
        except queue.Empty as error:
            raise NotCounted(f"no notification of a callback came within {_ARRIVES_WITHIN_S:.0f} s") from error

    def _read(self, opened: Callable[[], None]) -> None:
        with closing(_connection(self._url)) as connection:
            connection.request("GET", urlsplit(self._url).path)
            answer = connection.getresponse()
            while line := answer.readline():
                opened()
                if line == b"event: notification\n":
                    self._came.put(time.perf_counter())
