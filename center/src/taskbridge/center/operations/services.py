"""Requests health and metrics of other services in parallel, within a short time: one that hangs hides no other."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from taskbridge.center.operations.answers import Answers

if TYPE_CHECKING:
    from collections.abc import Iterable

_WITHIN_S = 2.0
_BYTES_MAX = 8 << 20
_OK = 200
_READY = (200, 503)

_FAILURES = (aiohttp.ClientError, TimeoutError, ValueError)


class _Target(NamedTuple):
    """One process. Its certificate and its virtual host are those of the configured name."""

    url: str
    host: str
    tls_name: str | None


class Services:
    """One pool of connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def answers(self, urls: Iterable[str]) -> list[Answers]:
        """Readiness and metrics of every process behind these URLs: a name may have several addresses."""
        found = await asyncio.gather(*map(self._of_url, urls))
        return [each for answers in found for each in answers]

    async def json(self, url: str) -> Any:
        """The JSON at this URL; None where there is none in time."""
        try:
            status, body = await self._get(url)
            return json.loads(body) if status == _OK else None
        except _FAILURES:
            return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _of_url(self, url: str) -> list[Answers]:
        try:
            targets = await asyncio.wait_for(_targets(url), _WITHIN_S)
        except (OSError, ValueError) as error:
            return [Answers(url, None, None, f"the name cannot be resolved: {error}")]
        return await asyncio.gather(*map(self._of_target, targets))

    async def _of_target(self, target: _Target) -> Answers:
        try:
            (ready, readiness), (status, metrics) = await asyncio.gather(
                self._get(f"{target.url}/readyz", target), self._get(f"{target.url}/metrics", target)
            )
        except _FAILURES as error:
            return Answers(target.url, None, None, f"no answer: {type(error).__name__}")
        if ready not in _READY or status != _OK:
            return Answers(target.url, None, None, f"it answers {ready} and {status}")
        return Answers(target.url, readiness, metrics)

    async def _get(self, url: str, target: _Target | None = None) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        more: dict[str, Any] = {}
        if target is not None:
            more = {"headers": {"Host": target.host}, "server_hostname": target.tls_name}
        timeout = aiohttp.ClientTimeout(total=_WITHIN_S)
        async with self._session.get(url, timeout=timeout, allow_redirects=False, **more) as answer:
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > _BYTES_MAX:
                    raise ValueError("the answer is larger than any of ours")
            return answer.status, body.decode("utf-8", "replace")


def urls_of(setting: str) -> list[str]:
    """The URLs in a comma-separated setting."""
    return [each.strip().rstrip("/") for each in setting.split(",") if each.strip()]


async def _targets(url: str) -> list[_Target]:
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError("it is not a URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = sorted({str(each[4][0]) for each in found if not _is_second_loopback(each, found)})
    tls_name = parts.hostname if parts.scheme == "https" else None
    if len(addresses) == 1:
        return [_Target(url, parts.netloc, tls_name)]
    return [
        _Target(f"{parts.scheme}://{f'[{each}]' if ':' in each else each}:{port}", parts.netloc, tls_name)
        for each in addresses
    ]


def _is_second_loopback(one: Any, found: Iterable[Any]) -> bool:
    """``localhost`` has an address of each family, and is one machine."""
    return one[4][0] == "::1" and any(each[4][0] == "127.0.0.1" for each in found)
