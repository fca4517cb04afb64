"""A sender is identified by an address that only our proxies can name; connections and log lines are bounded."""

from __future__ import annotations

import resource
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from taskbridge.edge.errors import Unverified
from taskbridge.edge.server.admission import (
    ALL_LINES_PER_MINUTE,
    FULL,
    GAVE_WAY,
    LINES_PER_MINUTE,
    OWN_FILES,
    UNKNOWN,
    Gate,
    RejectionLog,
    Senders,
    parse_address,
    site_of,
    with_open_files,
)
from taskbridge.edge.settings import EdgeSettings
from taskbridge.runtime.settings import parse_network

PROXIES = Senders(trusted_proxies=(parse_network("10.0.0.0/8"), parse_network("fd00::/8")))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # not a proxy of ours: ignored
        ("::ffff:192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["127.0.0.1, 203.0.113.9"], "203.0.113.9"),  # the sender made up the left one
        ("10.0.0.1", ["127.0.0.1", "203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.9.9.9, ::ffff:10.3.3.3"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.7, 10.9.9.9"], "10.0.0.7"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("10.0.0.1", ["10.0.0.3, unknown"], UNKNOWN),
        ("10.0.0.1", ["10.0.0.3,"], UNKNOWN),
        ("10.0.0.1", ["10.0.0.3, 203.0.113.9\r\nforged"], UNKNOWN),
        ("testclient", ["203.0.113.9"], "testclient"),
    ],
)
def test_the_sender_is_the_rightmost_address_that_is_no_proxy_of_ours(
    peer: str, forwarded_for: list[str], address: str
) -> None:
    assert PROXIES.address(peer, forwarded_for) == address


def test_without_trusted_proxies_the_header_is_ignored() -> None:
    assert Senders().address("127.0.0.1", ["203.0.113.9"]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", True),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        (UNKNOWN, False),
        ("testclient", False),
    ],
)
def test_callbacks_come_from_the_given_networks_only(address: str, allowed: bool) -> None:  # noqa: FBT001
    networks = ("192.0.2.0/24", "::ffff:198.51.100.7/128", "2001:db8::/32")
    with nullcontext() if allowed else pytest.raises(Unverified):
        Senders(networks=tuple(map(parse_network, networks))).check(address)
    Senders().check(address)


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "s3cret"])
def test_an_invalid_network_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="not a CIDR") as caught:
        parse_network(text)
    assert "s3cret" not in str(caught.value)


def test_an_ipv6_sender_is_counted_by_its_site() -> None:
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff") != site_of("2001:db8:0:1::1")
    assert site_of("192.0.2.1") != site_of("192.0.2.2")
    assert parse_address("::ffff:192.0.2.1") == parse_address("192.0.2.1")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_one_sender_is_an_ipv4_address_or_an_ipv6_network(address: str, source: str) -> None:
    assert site_of(address) == source


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


def opened(*, connections: int = 2) -> Opened:
    settings = EdgeSettings(
        kafka_bootstrap_servers="kafka:9092",
        schema_registry_url="http://registry",
        credentials_file=Path("credentials.toml"),
        max_connections=connections,
    )
    reasons: list[str] = []
    it = Opened(Gate(settings, count=reasons.append, clock=lambda: it.now), reasons)
    return it


def test_the_longest_idle_connection_gives_way() -> None:
    it = opened()
    first, second, third = Connection(), Connection(), Connection()
    assert [it.gate.admit(each, "192.0.2.1") for each in (first, second)] == [None, None]
    it.gate.works(first)
    it.gate.waits(first)  # served in between: now the second is idle longer
    it.now += 1
    assert it.gate.admit(third, "192.0.2.1") is None
    assert [first.closed, second.closed, third.closed] == [False, True, False]
    assert (it.gate.open, it.reasons) == (2, [GAVE_WAY])


def test_a_connection_with_unread_input_is_not_idle() -> None:
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


def test_a_connection_that_is_served_does_not_give_way() -> None:
    it = opened()
    served = [Connection(), Connection()]
    for each in served:
        it.gate.admit(each, "192.0.2.1")
        it.gate.works(each)
    assert it.gate.admit(Connection(), "192.0.2.1") == FULL
    assert [each.closed for each in served] == [False, False]
    it.gate.leave(served[0])
    it.gate.leave(served[0])
    it.gate.waits(served[0])  # a late call for a connection that has left
    assert (it.gate.open, it.gate.admit(Connection(), "192.0.2.1")) == (1, None)
    it.now += 1
    assert it.gate.admit(Connection(), "192.0.2.1") is None, "the idle one gives way, not the one that has left"
    assert it.gate.open == 2


def test_a_flood_is_counted_in_full_and_logged_in_part() -> None:
    it = opened(connections=1)
    with capture_logs() as lines:
        for _ in range(1000):
            it.gate.admit(Connection(), "192.0.2.1")
    assert len(it.reasons) == 999
    assert len(lines) < 50


ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "requested", "connections"),
    [
        ((256, 4096), 1000 + OWN_FILES, 1000),
        ((256, ENDLESS), 1000 + OWN_FILES, 1000),
        ((256, 512), 512, 512 - OWN_FILES),
        ((64, 64), 64, 1),
        ((4096, 4096), None, 1000),
        ((ENDLESS, ENDLESS), None, 1000),
    ],
)
def test_connections_fit_into_the_limit_of_open_files(
    settings: EdgeSettings,
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    requested: int | None,
    connections: int,
) -> None:
    set_to: list[tuple[int, int]] = []

    def get(_which: int) -> tuple[int, int]:
        return limits

    def change(_which: int, changed: tuple[int, int]) -> None:
        set_to.append(changed)

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", change)
    with capture_logs() as lines:
        assert with_open_files(settings).max_connections == connections
    assert set_to == ([] if requested is None else [(requested, limits[1])])
    assert bool(lines) is (connections < 1000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_sampled_and_the_lines_left_out_are_counted() -> None:
    clock = Clock()
    log = RejectionLog(clock=clock)
    lines = [log.admit("wrong-sign", "192.0.2.1") for _ in range(10_000)]
    assert lines[:LINES_PER_MINUTE] == [0] * LINES_PER_MINUTE
    assert set(lines[LINES_PER_MINUTE:]) == {None}
    clock.now = 60 / LINES_PER_MINUTE + 0.01
    assert log.admit("wrong-sign", "192.0.2.1") == 10_000 - LINES_PER_MINUTE
    assert log.admit("wrong-sign", "192.0.2.1") is None


def test_other_senders_and_other_reasons_have_lines_of_their_own() -> None:
    log = RejectionLog(clock=Clock())
    for _ in range(1000):
        log.admit("wrong-sign", "192.0.2.1")
    assert log.admit("wrong-sign", "192.0.2.2") is not None
    assert log.admit("unknown-app", "192.0.2.1") is not None


def test_a_flood_from_everywhere_is_bounded_too() -> None:
    log = RejectionLog(clock=Clock())
    lines = [log.admit("wrong-sign", f"10.0.{each // 256}.{each % 256}") for each in range(5000)]
    assert sum(line is not None for line in lines) == ALL_LINES_PER_MINUTE
