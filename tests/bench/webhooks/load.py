"""The notifications of a run, and whether each has arrived, in the order of its list entry."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.command import NotCounted
from tests.bench.streams.records import Writer

from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import Change, Person, Status, TaskNotification, View, notification_key
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.bench.streams.setup import Setup
    from tests.bench.webhooks.receiver import Arrival

ENTRIES = 1000
"""List entries of all endpoints together: their changes take turns."""


class Sent(NamedTuple):
    """A notification for one endpoint. A later change has a greater number."""

    endpoint: str
    entry: int
    number: int
    at_ns: int
    """By the clock that all processes share."""

    @property
    def id(self) -> str:
        return f"{self.number:09}"

    def notification(self) -> TaskNotification:
        now = time.time_ns() // 1_000_000
        return TaskNotification(
            notification_id=self.id,
            corp_id=self.endpoint,
            recipient_id=f"user{self.entry:06}",
            view=View.PENDING,
            change=Change.UPDATED,
            instance_id=f"f30233fb-72e1-4af4-8cb8-{self.entry:012}",
            task_id="TASK-1",
            title=f"王小明发起的报销申请 {self.number}",
            url=f"https://example.aliwork.com/APP_RY60OCRF33Z7534/processDetail?formInstId=f30233fb-{self.entry}",
            app_type="APP_RY60OCRF33Z7534",
            originator=Person("manager01", "王小明"),
            actor_id="manager01",
            status=Status.PENDING,
            occurred_at=now,
            event_id=f"0b3f9e4c-6f0c-5b5e-9f3a-{self.number:012}",
            process_name="费用报销",
            entered_at=now,
            updated_at=now,
        )


class Notifications:
    """Of an installation: numbers go on over its windows."""

    def __init__(self, publish: Callable[[Iterable[Sent]], None]) -> None:
        self._publish = publish
        self._first = 0

    def send(
        self, count: int, endpoints: Sequence[str], *, per_second: float = math.inf, entries: int = ENTRIES
    ) -> list[Sent]:
        """For each endpoint in turn, each when it is due."""
        sent: list[Sent] = []

        def due() -> Iterator[Sent]:
            began = time.monotonic()
            for at in range(count):
                time.sleep(max(0.0, began + at / per_second - time.monotonic()))
                number = self._first + at
                sent.append(Sent(endpoints[at % len(endpoints)], number % entries, number, time.monotonic_ns()))
                yield sent[-1]

        self._publish(due())
        self._first += count
        return sent


class Checked(NamedTuple):
    """Of deliveries of which none is missing."""

    latencies_ms: Sequence[float]
    repeated: int
    overtaken: int
    """Deliveries that came after a later change of their entry."""

    def quantile(self, share: float) -> float:
        return sorted(self.latencies_ms)[int(len(self.latencies_ms) * share)]


def check(sent: Iterable[Sent], arrivals: Mapping[str, Sequence[Arrival]]) -> Checked:
    """Compare what was sent with what has arrived: the first arrival of each id counts.

    Raises:
        NotCounted: one has not arrived, or one arrived that was not sent.
    """
    first: dict[tuple[str, str], int] = {}
    for endpoint, found in arrivals.items():
        for each in found:
            first.setdefault((endpoint, each.id), each.at_ns)
    waited = {(each.endpoint, each.id): each for each in sent}
    if first.keys() != waited.keys():
        raise NotCounted(f"{len(waited)} deliveries were expected, {len(first)} others came: {[*first][:3]}")
    newest: dict[tuple[str, int], int] = {}
    overtaken = 0
    for key in first:
        entry = waited[key].endpoint, waited[key].entry
        overtaken += waited[key].number < newest.get(entry, -1)
        newest[entry] = max(newest.get(entry, -1), waited[key].number)
    latencies = [(at_ns - waited[key].at_ns) / 1e6 for key, at_ns in first.items()]
    return Checked(latencies, sum(map(len, arrivals.values())) - len(first), overtaken)


def kafka_publisher(setup: Setup) -> Callable[[Iterable[Sent]], None]:
    """To the topic of notifications; returns when all are acknowledged.

    By one producer, which is warm after the first call: a new one holds its first records back for half a second.
    """
    codec, writer = task_notification_codec(setup.registry), Writer(setup, linger_ms=0)

    def publish(due: Iterable[Sent]) -> None:
        for each in due:
            new = each.notification()
            key = notification_key(new.corp_id, new.recipient_id)
            writer.write(TASK_NOTIFICATIONS.name, key, codec.encode(new), notification_headers(new))
        writer.finish()

    return publish
