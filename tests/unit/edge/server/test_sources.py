"""The address of a sender is the one that nobody but a proxy of ours can have written."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from taskbridge.edge.errors import Unverified
from taskbridge.edge.server.sources import UNKNOWN, Sources, parse_address, site_of
from taskbridge.edge.settings import parse_network

PROXIES = Sources(trusted_proxies=(parse_network("10.0.0.0/8"), parse_network("fd00::/8")))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # not a proxy of ours: not believed
        ("::ffff:192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["127.0.0.1, 203.0.113.9"], "203.0.113.9"),  # the left one is the sender's own invention
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
def test_the_sender_is_the_rightmost_that_is_no_proxy_of_ours(
    peer: str, forwarded_for: list[str], address: str
) -> None:
    assert PROXIES.address(peer, forwarded_for) == address


def test_without_proxies_nobody_is_believed() -> None:
    assert Sources().address("127.0.0.1", ["203.0.113.9"]) == "127.0.0.1"


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
        Sources(networks=tuple(map(parse_network, networks))).check(address)
    Sources().check(address)


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "s3cret"])
def test_what_is_no_network_is_refused_and_not_repeated(text: str) -> None:
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
