"""Addresses that only this network can reach are refused under any name."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from taskbridge.runtime.settings import load_settings, parse_network
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.webhooks.guard import AddressRefused, Guard, GuardedResolver
from taskbridge.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

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
]


class FixedResolver(AbstractResolver):
    """Knows every name, with these addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in self._addresses
        ]

    async def close(self) -> None: ...


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_of_this_network_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not a public address"):
        Guard().check("receiver.example", address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1", "::ffff:93.184.216.34"])
def test_a_public_address_is_accepted(address: str) -> None:
    Guard().check("receiver.example", address)


@pytest.mark.parametrize("address", ["10.20.1.1", "::ffff:10.20.1.1", "fd00:20::1"])
def test_a_network_can_be_allowed(address: str) -> None:
    guard = Guard((parse_network("10.20.0.0/16"), parse_network("fd00:20::/32")))
    guard.check("receiver.example", address)
    with pytest.raises(AddressRefused):
        guard.check("receiver.example", "10.21.1.1")


def test_one_refused_address_refuses_the_name() -> None:
    resolver = GuardedResolver(Guard(), FixedResolver(["93.184.216.34", "10.0.0.1"]))
    with pytest.raises(AddressRefused, match=r"receiver\.example is 10\.0\.0\.1"):
        asyncio.run(resolver.resolve("receiver.example", 443))


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOKS_ALLOWED_NETWORKS"):
        load_settings(WebhooksSettings, {"WEBHOOKS_ALLOWED_NETWORKS": "10.0.0.0/33"})
