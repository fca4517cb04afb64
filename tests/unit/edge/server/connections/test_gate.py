"""Connections are bounded, whoever waits longest gives way, and who is being served never does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from taskbridge.edge.server.connections.gate import ADDRESS_FULL, FULL, GAVE_WAY, Gate
from taskbridge.edge.server.sources import Sources
from taskbridge.edge.settings import EdgeSettings, parse_network


@dataclass(eq=False)
class Connection:
    closed: bool = False
    unread: bool = False

    def give_way(self) -> None:
        self.closed = True

    def has_unread(self) -> bool:
        return self.unread


@dataclass
class Opened:
    gate: Gate
    reasons: list[str] = field(default_factory=list[str])
    now: float = 0.0


def opened(*, connections: int = 2, per_address: int = 0) -> Opened:
    settings = EdgeSettings(
        kafka_bootstrap_servers="kafka:9092",
        schema_registry_url="http://registry",
        credentials_file=Path("credentials.toml"),
        max_connections=connections,
        max_connections_per_address=per_address,
    )
    reasons: list[str] = []
    sources = Sources(trusted_proxies=(parse_network("10.0.0.0/8"),))
    it = Opened(Gate(settings, sources, count=reasons.append, clock=lambda: it.now), reasons)
    return it


def test_the_one_that_waits_longest_gives_way() -> None:
    it = opened()
    first, second, third = Connection(), Connection(), Connection()
    assert [it.gate.admit(each, "192.0.2.1") for each in (first, second)] == [None, None]
    it.gate.works(first)
    it.gate.waits(first)  # served meanwhile: now the second waits longer
    it.now += 1
    assert it.gate.admit(third, "192.0.2.1") is None
    assert [first.closed, second.closed, third.closed] == [False, True, False]
    assert (it.gate.open, it.reasons) == (2, [GAVE_WAY])


def test_who_just_came_may_have_asked_already_and_does_not_give_way() -> None:
    it = opened(connections=1)
    first, second = Connection(), Connection()
    assert it.gate.room(0)
    it.gate.admit(first, "192.0.2.1")
    assert not it.gate.room(0)
    assert it.gate.admit(second, "192.0.2.1") == FULL
    assert not first.closed
    it.now += 1
    assert it.gate.room(0)
    assert it.gate.admit(second, "192.0.2.1") is None
    assert first.closed


def test_who_was_not_read_yet_is_not_the_one_who_keeps_us_waiting() -> None:
    it = opened(connections=2)
    unread, idle = Connection(unread=True), Connection()
    it.gate.admit(unread, "192.0.2.1")
    it.gate.admit(idle, "192.0.2.1")
    it.now += 1
    assert it.gate.admit(Connection(), "192.0.2.1") is None
    assert (unread.closed, idle.closed) == (False, True)
    it.now += 0.1
    assert not it.gate.room(0)
    it.now += 1
    unread.unread = False
    assert it.gate.room(0)


def test_there_is_room_for_those_that_are_on_their_way_too() -> None:
    it = opened(connections=2)
    assert [it.gate.room(arriving) for arriving in (0, 1, 2)] == [True, True, False]
    it.gate.admit(Connection(), "192.0.2.1")
    it.now += 1
    assert [it.gate.room(arriving) for arriving in (0, 1, 2)] == [True, False, False]


def test_who_is_being_served_does_not_give_way() -> None:
    it = opened()
    served = [Connection(), Connection()]
    for each in served:
        it.gate.admit(each, "192.0.2.1")
        it.gate.works(each)
    assert it.gate.admit(Connection(), "192.0.2.1") == FULL
    assert [each.closed for each in served] == [False, False]
    it.gate.leave(served[0])
    it.gate.leave(served[0])
    it.gate.waits(served[0])  # late news of one that has left
    assert (it.gate.open, it.gate.admit(Connection(), "192.0.2.1")) == (1, None)


@pytest.mark.parametrize(
    ("peers", "third"),
    [
        (["192.0.2.1"] * 3, ADDRESS_FULL),
        (["2001:db8::1", "2001:db8::2", "2001:db8::3"], ADDRESS_FULL),
        (["192.0.2.1", "192.0.2.1", "192.0.2.2"], None),
        (["10.0.0.1"] * 3, None),
    ],
)
def test_one_address_is_bounded_and_a_proxy_is_not(peers: list[str], third: str | None) -> None:
    it = opened(connections=9, per_address=2)
    assert [it.gate.admit(Connection(), peer) for peer in peers] == [None, None, third]


def test_a_flood_is_counted_in_full_and_logged_in_part() -> None:
    it = opened(connections=1)
    with capture_logs() as lines:
        for _ in range(1000):
            it.gate.admit(Connection(), "192.0.2.1")
    assert len(it.reasons) == 999
    assert len(lines) < 50
