"""Requests health and metrics of other services in parallel, within a short time: one that hangs hides no other.

The one service that does something on request is webhooks.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from taskbridge.center.operations.answers import Answers

if TYPE_CHECKING:
    from collections.abc import Iterable

_WITHIN_S, _ACTION_S = 2.0, 25.0
_DETAIL_MAX = 300
_OK = 200
_READY = (200, 503)

_FAILURES = (aiohttp.ClientError, TimeoutError, ValueError)


class Services:
    """One pool of connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def answers(self, urls: Iterable[str], details: str = "/metrics", *, token: str = "") -> list[Answers]:
        """Readiness and details of every process behind these URLs: a name may have several addresses."""
        found = await asyncio.gather(*(self._of_url(url, details, token) for url in urls))
        return [each for answers in found for each in answers]

    async def post(self, urls: Iterable[str], path: str, *, token: str) -> tuple[int, str]:
        """Status and body of the first process that can be connected to; no other gets the request.

        Raises ConnectionError if there is none, or it does not answer.
        """
        for url in urls:
            try:
                processes = await asyncio.wait_for(_processes(url), _WITHIN_S)
            except (OSError, ValueError):
                continue
            for process in processes:
                try:
                    return await self._get(process + path, named=url, token=token, method="POST")
                except aiohttp.ClientConnectorError:
                    continue
                except _FAILURES as error:
                    raise ConnectionError(f"{process} does not answer: {type(error).__name__}") from error
        raise ConnectionError("it cannot be reached")

    async def json(self, url: str) -> Any:
        """The JSON at this URL; None where there is none in time."""
        try:
            status, body = await self._get(url, named=url)
            return json.loads(body) if status == _OK else None
        except _FAILURES:
            return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _of_url(self, url: str, details: str, token: str) -> list[Answers]:
        try:
            processes = await asyncio.wait_for(_processes(url), _WITHIN_S)
        except (OSError, ValueError) as error:
            return [Answers(url, None, None, f"the name cannot be resolved: {error}")]
        return await asyncio.gather(*(self._of_process(each, url, details, token) for each in processes))

    async def _of_process(self, process: str, url: str, details: str, token: str) -> Answers:
        try:
            (ready, readiness), (status, found) = await asyncio.gather(
                self._get(f"{process}/readyz", named=url), self._get(process + details, named=url, token=token)
            )
        except _FAILURES as error:
            return Answers(process, None, None, f"no answer: {type(error).__name__}")
        if ready not in _READY or status != _OK:
            return Answers(process, None, None, f"it answers {ready} and {status}{detail_of(found)}")
        return Answers(process, readiness, found)

    async def _get(self, url: str, *, named: str, token: str = "", method: str = "GET") -> tuple[int, str]:
        """Certificate and virtual host are those of the configured name."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        parts = urlsplit(named)
        tls_name = parts.hostname if parts.scheme == "https" else None
        headers = {"Host": parts.netloc} | ({"Authorization": f"Bearer {token}"} if token else {})
        # An action may wait for a receiver.
        timeout = aiohttp.ClientTimeout(total=_WITHIN_S if method == "GET" else _ACTION_S)
        async with self._session.request(
            method, url, headers=headers, server_hostname=tls_name, allow_redirects=False, timeout=timeout
        ) as answer:
            return answer.status, await answer.text("utf-8", "replace")


def detail_of(body: str) -> str:
    """What a problem document says, after a colon; empty if the body is none."""
    try:
        return f": {json.loads(body)['detail']}"[:_DETAIL_MAX]
    except (ValueError, KeyError, TypeError):
        return ""


def urls_of(setting: str) -> list[str]:
    return [each.strip().rstrip("/") for each in setting.split(",") if each.strip()]


async def _processes(url: str) -> list[str]:
    """The URL with each address of its name; itself where there is one. ``localhost`` has two, and is one machine."""
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError("it is not a URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = sorted({str(each[4][0]) for each in found})
    if len(addresses) == 1 or parts.hostname == "localhost":
        return [url]
    return [f"{parts.scheme}://{f'[{each}]' if ':' in each else each}:{port}" for each in addresses]
