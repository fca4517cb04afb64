"""Addresses that only this network can reach are refused under any name."""

from __future__ import annotations

import pytest

from taskbridge.runtime.guard import AddressRefused, Guard
from taskbridge.runtime.settings import load_settings, parse_network
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.webhooks.settings import WebhooksSettings

REFUSED = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of clouds
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 - refused
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2002:5db8:d822::",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "3fff::1",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.1",
    "240.0.0.1",
    "168.63.129.16",
    "64:ff9b:1::7f00:1",
    "64:ff9b::a00:1",
    "fec0::1",
    "::127.0.0.1",
    "100::1",
    "5f00::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_of_this_network_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not a public address"):
        Guard().check(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_a_public_address_is_accepted(address: str) -> None:
    Guard().check(address)


@pytest.mark.parametrize("address", ["10.20.1.1", "::ffff:10.20.1.1", "fd00:20::1"])
def test_a_network_can_be_allowed(address: str) -> None:
    guard = Guard((parse_network("10.20.0.0/16"), parse_network("fd00:20::/32")))
    guard.check(address)
    with pytest.raises(AddressRefused):
        guard.check("10.21.1.1")


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOKS_ALLOWED_NETWORKS"):
        load_settings(WebhooksSettings, {"WEBHOOKS_ALLOWED_NETWORKS": "10.0.0.0/33"})
