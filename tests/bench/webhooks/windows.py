"""Measurements of one installation: rates, latencies, and what a silent endpoint takes from the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tests.bench.services import wait_until
from tests.bench.spreads import estimate
from tests.bench.webhooks.installations import Cpu
from tests.bench.webhooks.load import Notifications, check
from tests.bench.webhooks.receiver import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from tests.bench.rounds import Rounds
    from tests.bench.spreads import Estimate
    from tests.bench.webhooks.installations import Webhooks
    from tests.bench.webhooks.load import Checked, Sent
    from tests.bench.webhooks.receiver import Receiver

_SAMPLE_S = 0.1
_IDLE_S, _SETTLED_S = 20, 5
_UNDER_WAY = 0.1
"""The share of deliveries after which the rate is measured."""


class Contender(Protocol):
    """A service with endpoints at the receiver."""

    name: str

    @property
    def publish(self) -> Callable[[Iterable[Sent]], None]: ...
    @property
    def cpu(self) -> Cpu: ...
    @property
    def memory_mb(self) -> float: ...
    def collecting(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Window:
    """A backlog that was delivered."""

    per_second: float
    deliveries: int
    cpu: Cpu
    """For all of it, publishing included."""
    memory_mb: float
    """The most."""
    checked: Checked

    @property
    def per_cpu_second(self) -> float:
        return self.deliveries / self.cpu.service

    @property
    def server_cpu_ms(self) -> float:
        """For each delivery."""
        return 1000 * self.cpu.servers / self.deliveries


@dataclass(slots=True)
class Measured:
    """Of a contender."""

    rest: Checked
    paced: list[Checked]
    """One for each round."""
    idle: Cpu | None = None
    """Of a second with very many endpoints and no notification."""
    alone: list[Window] = field(default_factory=list[Window])
    """One for each round."""
    isolated: list[Window] = field(default_factory=list[Window])
    """Next to the silent endpoint."""

    def kept(self) -> Estimate:
        """The share of the rate that is left next to the silent endpoint."""
        return estimate(a.per_second / b.per_second for a, b in zip(self.isolated, self.alone, strict=True))


class Bench:
    """A contender, its notifications, and what the receiver has of them."""

    def __init__(self, contender: Contender, receiver: Receiver, endpoints: Sequence[str]) -> None:
        self._contender, self._receiver, self.endpoints = contender, receiver, endpoints
        self._notifications = Notifications(contender.publish)

    def latency(self, count: int, per_second: float) -> Checked:
        """Notifications at a rate, from when each is published."""
        sent = self._notifications.send(count, self.endpoints, per_second=per_second)
        wait_until(lambda: self._receiver.count() >= count, "all notifications have arrived")
        return check(sent, self._receiver.take())

    def drain(self, count: int) -> Window:
        """Publish so many at once, and wait until all have arrived."""
        before, memory = self._contender.cpu, 0.0
        with self._contender.collecting():
            sent = self._notifications.send(count, self.endpoints)
        first: tuple[int, int] | None = None
        while (arrived := self._receiver.count()) < count:
            memory = max(memory, self._contender.memory_mb)
            if first is None and arrived >= count * _UNDER_WAY:
                first = arrived, time.monotonic_ns()
            time.sleep(_SAMPLE_S)
        cpu, arrivals = self._contender.cpu.since(before), self._receiver.take()
        last_ns = max(each.at_ns for found in arrivals.values() for each in found)
        assert first is not None, "all arrived at once: publish more"
        rate = (count - first[0]) / (last_ns - first[1]) * 1e9
        return Window(rate, count, cpu, memory, check(sent, arrivals))

    def fill_silent(self, webhooks: Webhooks, count: int) -> float:
        """Have so many deliveries wait for an endpoint that never answers; how long it took to store them."""
        use(webhooks, [*self.endpoints, SILENT])
        began = time.monotonic()
        self._notifications.send(count, [SILENT], entries=count)
        wait_until(lambda: webhooks.waiting(SILENT) == count, f"{count} deliveries wait for the silent endpoint")
        return time.monotonic() - began


def use(webhooks: Webhooks, endpoints: Sequence[str]) -> None:
    """Have exactly these endpoints, and wait until the service has them."""
    webhooks.use(endpoints)
    is_expected = SILENT in endpoints
    wait_until(lambda: webhooks.uses(SILENT) is is_expected, "the endpoints file is in use")


def measure_idle(bench: Bench, webhooks: Webhooks, count: int) -> Cpu:
    """CPU seconds of each second while so many endpoints get nothing."""
    names = [f"idle{number}" for number in range(count)]
    webhooks.use(names)
    wait_until(lambda: webhooks.uses(names[-1]), f"{count} endpoints are in use")
    time.sleep(_SETTLED_S)
    before = webhooks.cpu
    time.sleep(_IDLE_S)
    cpu = webhooks.cpu.since(before)
    use(webhooks, bench.endpoints)
    return Cpu(cpu.service / _IDLE_S, cpu.servers / _IDLE_S)


def measure_isolation(bench: Bench, webhooks: Webhooks, rounds: Rounds, found: Measured, count: int) -> None:
    """In turns without and with the silent endpoint, which has its deliveries already."""
    for number in rounds.numbers(lambda: {f"{webhooks.name} next to a silent endpoint": found.kept()}):
        # Which one is first alternates: nothing that grows over the run favours one of them.
        for is_silent in (False, True) if number % 2 else (True, False):
            use(webhooks, [*bench.endpoints, SILENT] if is_silent else bench.endpoints)
            (found.isolated if is_silent else found.alone).append(bench.drain(count))
